"""A small run over made-up crawl files."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from contract.plan import Run, resolve


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Run]:
    """Resolve a run of two crawl files in two segments; overrides as on the command line."""
    crawl = tmp_path / "crawl"
    crawl.mkdir()
    for index in range(2):
        (crawl / f"part-{index}.warc.gz").write_bytes(b"WARC" * (index + 1))
        os.utime(crawl / f"part-{index}.warc.gz", (1_710_000_000, 1_710_000_000))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"name: test\nstore: {tmp_path}/store\ncrawl:\n  source: {crawl}\n  files_per_segment: 1\n")

    def make(*overrides: str, run: str = "one") -> Run:
        return resolve(str(recipe), run, overrides)

    return make
