"""The files that are made from the code are the ones that are committed."""

import re
from pathlib import Path

import pytest

from docs.generate import made

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "name",
    [
        "docs/filters.md",
        "docs/scale.md",
        "docs/stages.md",
        "tests/contract/defaults.json",
        "tests/contract/recipe_schema.json",
    ],
)
def test_what_the_command_writes_is_committed(name: str) -> None:
    """After a change that is meant: .venv/bin/python -m docs.generate."""
    assert made()[ROOT / name] == (ROOT / name).read_text()


def test_the_command_writes_nothing_else() -> None:
    assert len(made()) == 5


def test_the_prose_on_scale_has_no_number_of_its_own() -> None:
    """Its numbers stand in the blocks, which the command fills; the title says which recipe, and stages have numbers."""
    text = (ROOT / "docs/scale.md").read_text()
    assert text.count("$ python -m training estimate") == 2
    assert "extract takes 76% of the core-hours" in text
    prose = re.sub(r"```.*?```|`[^`]*`|\]\([^)]*\)|\([A-Z][^)]*\d{4}\)|6 N \+ 12 L d T", "", text, flags=re.DOTALL)
    assert set(re.findall(r"\d[\d.,]*", prose)) == {"7", "64", "2", "3"}
