"""Reports are made of what the stages commit."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from contract.documents import parts_of, read_documents
from contract.manifest import Attempt, Rows, need
from contract.plan import Run
from pipelines.spark.documents import IndexSink, total
from pipelines.spark.places import listed, write_places
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


SCRIPT = "<script>alert(1)</script>"
STORY = " ".join(f"word{letter} tells" for letter in "abcdefghijklmnop")
TEXTS = {
    "plain": ("https://www.example.org/a", f"{STORY} a plain end"),
    "copy": ("https://copy.example.org/b", f"Now {STORY}, a copied end"),
    "short": ("https://example.org/short?x=1", "two words"),
    "brief": ("http://example.org/short", "only these three"),
    "hostile": (f"https://evil.test/{SCRIPT}", f"{SCRIPT} {STORY} and write to who@host.example soon {SCRIPT}"),
    "tiny": (f"https://evil.test/tiny/{SCRIPT}", f"{SCRIPT}"),
    "other": ("https://other.test/", "one two three four five six seven eight nine ten"),
}


@pytest.fixture
def searched(
    scored_run: Callable[..., Run],  # noqa: F811
    make_document: Callable[..., dict[str, Any]],  # noqa: F811
    commit_documents: Callable[..., None],  # noqa: F811
    run_stage: Callable[..., Any],
    without_spark: Any,  # noqa: F811
) -> SimpleNamespace:
    """A run that has judged TEXTS up to `dedup_fuzzy`. `run`, and `ids` by the names of TEXTS.

    `filter` drops `short`, `brief` and `tiny` as too short (fewer than 5 words), `dedup_fuzzy` drops `copy`, which
    repeats `plain`. Titles, addresses and texts of `hostile` and `tiny` hold scripts, the text of `hostile` an address.
    """
    rows = {
        name: make_document(text, name=name, url=url, title=f"{name} {SCRIPT}", file="0.warc.gz", offset=at)
        for at, (name, (url, text)) in enumerate(TEXTS.items())
    }
    rows["brief"]["language"] = "de"
    files = [[*rows.values()][:4], [*rows.values()][4:]]
    run = scored_run(files, {"filter.min_words": 5})
    partition = run.segments[0].partition
    written = [
        {**row, "text": f"{row['text']}\nSign in here" if name == "plain" else row["text"]}
        for name, row in rows.items()
    ]
    commit_documents(run, "extract", partition, [written])
    run_stage(run, "filter")
    commit_documents(run, "dedup_url", "all", [])
    drop(run, "dedup_fuzzy", "filter", partition, {rows["copy"]["id"]: rows["plain"]["id"]})
    return SimpleNamespace(run=run, ids={name: row["id"] for name, row in rows.items()})


def drop(run: Run, stage: str, before: str, partition: str, copies: Mapping[str, str]) -> None:
    """Commit a stage that drops near duplicates: id -> the id that stays, and the name of their cluster."""
    attempt, outputs = Attempt(run, run.task(stage)), []
    prefix = f"{attempt.prefix}/{attempt.id}"
    for number, part in enumerate(parts_of(need(run.store, run.task(before, partition)))):
        sink = IndexSink(run.store, prefix, stage, f"{number:05d}")
        for row in read_documents(run.store, part, ["id", "bytes"]):
            if row["id"] in copies:
                stays = copies[row["id"]]
                sink.drop({"row": row["row"]}, "near_duplicate", stays, row["bytes"], stays)
            else:
                sink.keep(row["row"], row["bytes"])
        sink.finish(part)
        outputs.append(sink.close())
    output = total(outputs)
    output.files += write_places(run.store, prefix, listed(output, keeps=False), "index").files
    attempt.commit([file for file in output.listed() if file.part is None], output.counts.rows())
