"""From values to HTML and JSON. Everything that a template prints is escaped; the texts come from the web."""

import datetime
import hashlib
import json
import math
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from contract.funnel import human_bytes
from contract.headline import number
from contract.printable import HIDDEN
from reports.cockpit.mathematics import with_formulas

HERE = Path(__file__).parent
KEPT = "\n\t"  # control characters that a text may have


@cache
def templates() -> Environment:
    """The templates with their filters. A name that a template does not know is an error."""
    made = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        finalize=visible,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters |= {
        "bytes": human_bytes,
        "count": count,
        "duration": duration,
        "formulas": formulas,
        "json": as_json,
        "moment": moment,
        "number": number,
        "percent": percent,
    }
    return made


@cache
def files() -> dict[str, tuple[Path, str]]:
    """What the browser may load beside pages: name -> (file, digest of its content). Plotly brings its own script."""
    import plotly

    own = (HERE / "static").iterdir()
    script = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
    return {file.name: (file, hashlib.sha256(file.read_bytes()).hexdigest()[:16]) for file in (*own, script)}


def visible(value: Any) -> Any:
    """The value, as text with every control character but ends of lines and tabs escaped, so that none is hidden."""
    return HIDDEN.sub(_escape, value) if type(value) is str else value  # Jinja's own markup is another type


def formulas(text: str) -> Markup:
    """A text with its formulas drawn, everything else escaped."""
    return with_formulas(visible(text))


def _escape(match: Any) -> str:
    found: str = match[0]
    return found if found in KEPT else found.encode("unicode_escape").decode()


def as_json(value: Any) -> str:
    """JSON for a browser, in ASCII. What JSON has no number for, such as NaN, becomes null."""
    return json.dumps(plain(value), allow_nan=False, separators=(",", ":"))


def plain(value: Any) -> Any:
    """The value as dicts, lists, texts, numbers and None alone, also if it holds dates or NumPy's numbers."""
    match value:
        case dict():
            return {str(key): plain(one) for key, one in value.items()}
        case list() | tuple() | set() | frozenset():
            return [plain(one) for one in value]
        case float():
            return float(value) if math.isfinite(value) else None
        case str() | int() | None:
            return value
        case datetime.date():
            return value.isoformat()
    if hasattr(value, "tolist"):  # NumPy's
        return plain(value.tolist())
    raise TypeError(f"{type(value).__name__} is no value for JSON")


def count(value: float | None) -> str:
    """A whole number with its thousands, or a dash."""
    return "-" if value is None else f"{value:,.0f}"


def percent(share: float | None) -> str:
    """A share of one in percent: 0.1234 -> 12.3 %."""
    return "-" if share is None or not math.isfinite(share) else f"{share:.1%}".replace("%", "\N{NO-BREAK SPACE}%")


def duration(seconds: float | None) -> str:
    """Seconds as a person says them: 0.4 s, 75 s -> 1 min 15 s, 2 h 5 min."""
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def moment(time: datetime.datetime | None) -> str:
    """A time to the minute, in UTC."""
    return "-" if time is None else f"{time.astimezone(datetime.UTC):%Y-%m-%d %H:%M} UTC"
