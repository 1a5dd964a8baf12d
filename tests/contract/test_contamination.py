"""What was found of evaluation sets, as a table and as the file that a stage writes."""

from collections.abc import Callable

import pytest
from pydantic import ValidationError

from contract.contamination import Benchmark, Report, render, reports, tables
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
