"""The card's entry in the plugin: a script that exists, under an address that changes with it."""

import hashlib
from pathlib import Path

from airflow.plugins_manager import get_plugin_info

from gristmill_airflow.card import CARDS, NAME

SCRIPT = Path(__file__).parents[2] / "reports" / "cockpit" / "static" / "card.js"


def test_the_home_page_loads_the_script_that_sets_the_cards_name():
    (plugin,) = [one for one in get_plugin_info() if one["name"] == "gristmill"]
    (card,) = plugin["react_apps"]
    assert [card] == CARDS
    digest = hashlib.sha256(SCRIPT.read_bytes()).hexdigest()[:12]
    assert (card["destination"], card["bundle_url"]) == ("dashboard", f"gristmill/static/card.js?v={digest}")
    assert f"globalThis.{NAME} = " in SCRIPT.read_text()
