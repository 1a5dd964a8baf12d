"""Reports are made of what the stages commit."""

from collections.abc import Callable
from pathlib import Path

import pytest

from contract.manifest import Attempt, Rows
from contract.plan import Run
from tests.pipelines.conftest import (  # noqa: F401 - fixtures
    commit_documents,
    make_corpus,
    make_document,
    rows_of,
    scored_run,
    without_spark,
)


@pytest.fixture
def judged(resolve_run: Callable[..., Run], tmp_path: Path) -> Run:
    """A run `one` whose `crawl` has dropped 3 of 10 documents and `extract` 2 of 7."""
    crawl = tmp_path / "crawl"
    crawl.mkdir()
    (crawl / "a.warc.gz").write_bytes(b"WARC")
    run = resolve_run(crawl, {}, "one")
    (segment,) = run.segments
    for stage, read, reasons in (("crawl", 10, {"url_filter": 3}), ("extract", 7, {"empty": 1, "timeout": 1})):
        attempt = Attempt(run, run.task(stage, segment.partition))
        dropped = sum(reasons.values())
        rows = Rows(read=read, kept=read - dropped, dropped=dropped, bytes_kept=1024 * read, reasons=reasons)
        attempt.commit([], rows)
    return run
