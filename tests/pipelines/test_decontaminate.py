"""Documents that repeat an evaluation set go, and nothing else does."""

import gzip
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contract.errors import InputError
from pipelines.decontaminate import Index, build_index, contamination, strings

QUESTION = "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May."
DAMAGED = gzip.compress(b"{}")[:10] + b"\xff" * 20
OTHER = "A robe takes two bolts of blue fiber and half that much white fiber; how many bolts in total?"


@pytest.fixture
def benchmarks(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "sums.jsonl").write_text(json.dumps({"question": QUESTION, "meta": [{"answer": "72"}, 72]}) + "\n\n")
    (tmp_path / "more.jsonl.gz").write_bytes(gzip.compress((json.dumps([OTHER]) + "\n").encode()))
    return {"sums": str(tmp_path / "sums.jsonl"), "more": str(tmp_path / "more.jsonl.gz")}


def test_strings() -> None:
    assert list(strings({"a": "x", "b": ["y", {"c": "z", "d": 1}], "e": None})) == ["x", "y", "z"]


def test_index(benchmarks: dict[str, str]) -> None:
    index = build_index(benchmarks, 13)
    assert index.names == ("more", "sums")
    assert len(index.key) == (20 - 12) + (19 - 12)
    assert (index.key[1:] > index.key[:-1]).all()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"Before. {QUESTION} After.", ("sums", "natalia sold clips to 0 of her friends in april and then she")),
        (
            QUESTION.upper().replace(",", " --"),
            ("sums", "natalia sold clips to 0 of her friends in april and then she"),
        ),
        (" ".join(OTHER.split()[3:16]), ("more", "two bolts of blue fiber and half that much white fiber how many")),
        (" ".join(OTHER.split()[3:15]), None),
        (QUESTION.replace("friends", "colleagues").replace("half", "twice"), None),
        ("", None),
    ],
)
def test_contamination(text: str, found: tuple[str, str] | None, benchmarks: dict[str, str]) -> None:
    assert contamination(text, build_index(benchmarks, 13), 13) == found


def test_both_hashes_must_agree(benchmarks: dict[str, str]) -> None:
    index = build_index(benchmarks, 13)
    assert contamination(QUESTION, index._replace(check=index.check ^ 1), 13) is None


def test_a_document_costs_a_search_and_no_pass_over_the_index() -> None:
    """Of a million n-grams; a pass over them takes seconds."""
    key = np.arange(1_000_000, dtype=np.uint64) << np.uint64(43)
    index = Index(("large",), key, key, np.zeros(len(key), np.uint16))
    began = time.process_time()
    for number in range(20):
        assert contamination(f"{number} {QUESTION}", index, 13) is None
    assert time.process_time() - began < 1


def test_stage(
    benchmarks: dict[str, str],
    make_document: Any,
    make_corpus: Any,
    commit_documents: Any,
    run_stage: Any,
    rows_of: Any,
) -> None:
    clean = [make_document(f"A clean text, number {n}") for n in range(5)]
    dirty = make_document(f"Blog post: {OTHER} Tell me!")
    run = make_corpus([[clean]], {"decontaminate.benchmarks": benchmarks})
    commit_documents(run, "dedup_substring", "all", [clean[:2], [dirty, *clean[2:]]])
    (done,) = run_stage(run, "decontaminate")
    assert rows_of(run.store, [done], "documents") == clean
    (drop,) = rows_of(run.store, [done], "drops")
    assert (drop["id"], drop["reason"]) == (dirty["id"], "contaminated")
    assert drop["value"] == "more: a robe takes two bolts of blue fiber and half that much white"
    assert (done.rows.read, done.rows.kept, done.metrics["benchmark_ngrams"]) == (6, 5, 15)


def test_without_benchmarks_everything_stays_and_no_spark_starts(
    make_document: Any,
    make_corpus: Any,
    commit_documents: Any,
    run_stage: Any,
    rows_of: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("pipelines.job.start_spark", lambda *_: pytest.fail("Spark was started"))
    rows = [make_document(f"text {n}") for n in range(5)]
    run = make_corpus([[rows]])
    commit_documents(run, "dedup_substring", "all", [rows[:2], rows[2:]])
    (done,) = run_stage(run, "decontaminate")
    assert rows_of(run.store, [done], "documents") == rows
    size = sum(len(row["text"]) for row in rows)
    assert (done.rows.read, done.rows.kept, done.rows.bytes_kept) == (5, 5, size)
    assert all(len(run.store.read_bytes(file.path)) == file.bytes for file in done.files)
    assert "progress decontaminate all 2/2 files" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"decontaminate\.benchmarks\.bad: .*bad\.jsonl cannot be read"),
        (b'{"a": "b"}\n{"a": \n', r"decontaminate\.benchmarks\.bad: .*bad\.jsonl line 2 is not JSON"),
        (b"[" * 100_000, r"decontaminate\.benchmarks\.bad: .*bad\.jsonl line 1 is not JSON"),
        (DAMAGED, r"decontaminate\.benchmarks\.bad: .*bad\.jsonl cannot be read"),
        (b"\x1f\x8b\x08cut", r"decontaminate\.benchmarks\.bad: .*bad\.jsonl cannot be read"),
        (b'{"a": "too short"}\n', r"no text in bad has 13 words; lower decontaminate\.ngram"),
    ],
)
def test_bad_benchmarks(
    content: bytes | None, message: str, tmp_path: Path, make_document: Any, make_corpus: Any, run_stage: Any
) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(content or b"")
    run = make_corpus([[[make_document("text")]]], {"decontaminate.benchmarks": {"bad": str(path)}})
    if content is None:
        path.unlink()  # gone since the run was resolved
    with pytest.raises(InputError, match=message):
        run_stage(run, "decontaminate")
