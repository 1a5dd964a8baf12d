"""The files that are made from the code are the ones that are committed."""

from pathlib import Path

import pytest

from docs.generate import made

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "name",
    ["docs/filters.md", "docs/stages.md", "tests/contract/defaults.json", "tests/contract/recipe_schema.json"],
)
def test_what_the_command_writes_is_committed(name: str) -> None:
    """After a change that is meant: .venv/bin/python -m docs.generate."""
    assert made()[ROOT / name] == (ROOT / name).read_text()


def test_the_command_writes_nothing_else() -> None:
    assert len(made()) == 4
