"""Writes every file that is made from the code: `python -m docs.generate`."""

from pathlib import Path

from docs import filters, scale, stages
from tests.contract import test_identity, test_settings


def made() -> dict[Path, str]:
    """File -> what it should hold. Raises SystemExit if a default changed and no version was raised."""
    return {
        stages.PAGE: stages.render(),
        filters.PAGE: filters.page(filters.PAGE.read_text()),
        scale.PAGE: scale.page(scale.PAGE.read_text()),
        test_settings.SCHEMA: test_settings.schema(),
        test_identity.FILE: test_identity.table(),
    }


if __name__ == "__main__":
    for file, text in made().items():
        file.write_text(text)
