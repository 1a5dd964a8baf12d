"""The card on Airflow's home page: which script draws it."""

import hashlib
from importlib.util import find_spec
from pathlib import Path

NAME = "GristmillCard"  # the script sets this name; Airflow's UI looks for it


def _digest() -> str:
    """Of the script's content, so that a browser loads a changed one anew. Empty if the reports are not installed."""
    found = find_spec("reports")
    if found is None or not found.submodule_search_locations:
        return ""
    script = Path(found.submodule_search_locations[0]) / "cockpit" / "static" / "card.js"
    return hashlib.sha256(script.read_bytes()).hexdigest()[:12]


CARDS = [
    {
        "name": NAME,
        "destination": "dashboard",
        "url_route": "gristmill-card",
        "bundle_url": f"gristmill/static/card.js?v={_digest()}",  # relative: Airflow may be reached below a path
    }
]
