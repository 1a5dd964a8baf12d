"""What was found of evaluation sets, as a table and as the file that a stage writes."""

import io
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from contract.contamination import Benchmark, Report, Searched, render, reports, searched, tables
from contract.kinds import Kind
from contract.manifest import Attempt, File
from contract.plan import Run

MMLU = Benchmark(
    name="mmlu",
    items=14042,
    sought=9000,
    leaked=20,
    overlapping=31,
    documents_leaking=42,
    documents_overlapping=53,
    ngrams=123456,
    ngrams_found=789,
    common=(("a b", 1200), ("c d", 7), ("e f", 2), ("g h", 2)),
)


def commit(run: Run, stage: str, *found: Benchmark) -> None:
    attempt = Attempt(run, run.task(stage))
    files = []
    for kind, data in (
        (Kind.CONTAMINATION, Report(benchmarks=found).model_dump_json().encode()),
        (Kind.SAMPLES, b"no report"),
    ):
        run.store.write_bytes(attempt.path(kind), data)
        files.append(File(path=attempt.path(kind), kind=kind, bytes=len(data)))
    attempt.commit(files)


def test_a_run_has_the_reports_of_the_stages_that_have_finished(make_run: Callable[..., Run]) -> None:
    run = make_run()
    assert (reports(run), tables(run)) == ({}, [])
    commit(run, "decontaminate", MMLU)
    assert reports(run) == {"the corpus": Report(benchmarks=(MMLU,))}
    assert tables(run) == ["", *render("the corpus", Report(benchmarks=(MMLU,)))]


def test_a_row_has_every_count_and_the_commonest_ngrams() -> None:
    lines = render("the crawl", Report(benchmarks=(MMLU,)))
    assert lines[0].startswith("benchmarks in the crawl  ")
    assert lines[0].split("  ")[-1].strip() == "n-grams found"
    assert lines[1].split() == ["mmlu", "14,042", "9,000", "20", "31", "42", "53", "789", "of", "123,456"]
    assert len(lines[0]) == len(lines[1])
    assert lines[2:] == ["    in 1,200 documents: a b", "    in 7 documents: c d", "    in 2 documents: e f"]


def test_an_ngram_of_one_document_is_not_common() -> None:
    lines = render("x", Report(benchmarks=(MMLU.model_copy(update={"common": (("a b", 2), ("c d", 1))}),)))
    assert lines[2:] == ["    in 2 documents: a b"]


@pytest.mark.parametrize("one", [MMLU, Report(benchmarks=())])
def test_a_report_is_fixed(one: Benchmark | Report) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        setattr(one, next(iter(type(one).model_fields)), 1)


def rows_of(name: str, *found: tuple[bool, int, int]) -> list[dict[str, object]]:
    """Items of a benchmark: whether each was sought, the documents that hold it, and its n-grams that were found."""
    return [
        {"benchmark": name, "item": at, "where": f"a.jsonl:{at + 1}", "sought": sought, "leaking": leaking,
         "ngrams": 9, "ngrams_found": grams}
        for at, (sought, leaking, grams) in enumerate(found)
    ]  # fmt: skip


def test_each_item_is_known_by_the_content_of_its_files(make_run: Callable[..., Run], tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.jsonl").write_text(name)
    run = make_run(f"decontaminate.benchmarks={{a: {tmp_path}/a, b: {tmp_path}/b}}")
    items = rows_of("a", (True, 2, 9), (True, 1, 8), (True, 0, 3), (True, 0, 0)) + rows_of("b", (False, 0, 0))
    matches = [
        {"benchmark": "a", "action": action, "leaked": leaked}
        for action, leaked in (("dropped", [0]), ("kept", [1]), ("kept", []), ("cut", [0]))
    ]
    attempt = Attempt(run, run.task("decontaminate"))
    files = []
    for kind, rows in ((Kind.ITEMS, items), (Kind.MATCHES, matches)):
        sink = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows), sink)
        run.store.write_bytes(attempt.path(kind), sink.getvalue())
        files.append(File(path=attempt.path(kind), kind=kind, bytes=len(sink.getvalue()), rows=len(rows)))
    found = searched(run.store, attempt.commit(files))
    first, second = (run.outside[f"decontaminate.benchmarks.{name}"] for name in ("a", "b"))
    assert found == {
        first: {
            "a.jsonl:1": Searched("leaked", False),
            "a.jsonl:2": Searched("leaked", True),
            "a.jsonl:3": Searched("overlapping", False),
            "a.jsonl:4": Searched("clean", False),
        },
        second: {"a.jsonl:1": Searched("too short", False)},
    }
