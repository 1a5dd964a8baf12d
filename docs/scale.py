"""Fills docs/scale.md: below each command in it stands what the command prints; `python -m docs.generate` writes it."""

import contextlib
import io
import re
from pathlib import Path

from training import estimate

PAGE = Path(__file__).with_suffix(".md")
BLOCK = re.compile(r"```text\n\$ python -m training estimate ([^\n]*)\n.*?```", re.DOTALL)


def page(text: str) -> str:
    """The text of docs/scale.md with the output below each command made anew."""
    return BLOCK.sub(lambda found: f"```text\n$ python -m training estimate {found[1]}\n{output(found[1])}```", text)


def output(arguments: str) -> str:
    """What the command prints."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        if estimate.main(arguments.split()):
            raise SystemExit(f"docs/scale.md: python -m training estimate {arguments} failed")
    return printed.getvalue()
