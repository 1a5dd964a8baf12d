"""What decontamination reports, counted by hand: benchmarks of words that stand once, five in a row."""

from typing import Any

import numpy as np
import pytest

from contract.contamination import Report
from contract.evalset import Item
from contract.store import Store
from contract.tables import read_rows
from pipelines.decontamination import findings
from pipelines.decontamination.findings import Findings, first_items, owners, summarise, tally
from pipelines.decontamination.search import Index, build, find_shared
from pipelines.spark.documents import Output


def words(begin: str, count: int) -> list[str]:
    return [f"{begin}{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"[:count]]


ONE, TWO, THREE = words("x", 10), words("y", 9), words("z", 6)
SETS = [
    ("sums", [Item("sums:1", (" ".join(ONE),)), Item("sums:2", (" ".join(TWO),)), Item("sums:3", ("short",))]),
    ("more", [Item("more:1", (" ".join([*ONE[:6], *THREE]),))]),
]  # 6 + 5 n-grams; 8, of which 2 stand in the first item too
FILLER = words("f", 20)


@pytest.fixture
def index() -> Index:
    return build(SETS, 5, 5)


def text(*parts: list[str]) -> str:
    return " ".join(word for part in parts for word in (*FILLER, *part))


def noted(store: Store, index: Index, name: str, documents: dict[str, tuple[str, str | None]]) -> Output:
    """The worker's files for documents of (text, what is left of it), by id."""
    found = Findings(store, "stage/try", index, name)
    for key, (whole, left) in documents.items():
        shared = find_shared(whole, index)
        assert shared is not None
        found.note({"id": key, "url": f"https://{key}.test", "text": whole}, shared, left)
    return Output(found.close())


def test_who_owns_an_item_and_an_ngram(index: Index) -> None:
    assert first_items(index).tolist() == [0, 3, 4]
    gram, item = owners(np.arange(len(index.grams)), index)
    assert np.bincount(item, minlength=4).tolist() == [6, 5, 0, 8]
    assert len(gram) == 19
    assert len(np.unique(gram)) == 17
    assert np.diff(item).min() == 0, "in the order of items"
    shared = np.flatnonzero(np.bincount(gram) == 2)
    assert [(gram[at], item[at]) for at in range(len(gram)) if gram[at] in shared] == [
        (shared[0], 0), (shared[1], 0), (shared[0], 3), (shared[1], 3),
    ]  # fmt: skip
    assert [column.tolist() for column in owners(shared[:1], index)] == [[shared[0]] * 2, [0, 3]]


def test_a_row_for_each_benchmark_that_a_document_shares_text_with(tmp_store: Store, index: Index) -> None:
    both, eight = text(ONE[:6]), text(TWO[:8])
    spoken = text(TWO)
    output = noted(
        tmp_store, index, "a", {"both": (both, None), "eight": (eight, eight), "all": (spoken, "what is left")}
    )
    matches, ngrams = output.files
    assert [(file.path, file.kind, file.rows) for file in output.files] == [
        ("stage/try/matches-a.parquet", "matches", 4), ("stage/try/ngrams-a.parquet", "ngrams", 7),
    ]  # fmt: skip
    first = " ".join(ONE[:5])
    assert list(read_rows(tmp_store, matches.path)) == [
        {"id": "both", "url": "https://both.test", "benchmark": "sums", "action": "dropped", "covered": pytest.approx(0.6), "leaked": [], "ngrams": 2, "ngram": first},
        {"id": "both", "url": "https://both.test", "benchmark": "more", "action": "dropped", "covered": pytest.approx(0.5), "leaked": [], "ngrams": 2, "ngram": first},
        {"id": "eight", "url": "https://eight.test", "benchmark": "sums", "action": "kept", "covered": pytest.approx(8 / 9), "leaked": [1], "ngrams": 4, "ngram": " ".join(TWO[:5])},
        {"id": "all", "url": "https://all.test", "benchmark": "sums", "action": "cut", "covered": 1.0, "leaked": [1], "ngrams": 5, "ngram": " ".join(TWO[:5])},
    ]  # fmt: skip
    counted = {row["ngram"]: row["documents"] for row in read_rows(tmp_store, ngrams.path)}
    assert counted == {" ".join(ONE[at : at + 5]): 1 for at in range(2)} | {
        " ".join(TWO[at : at + 5]): 2 - (at == 4) for at in range(5)
    }
    grams = [row["gram"] for row in read_rows(tmp_store, ngrams.path)]
    assert grams == sorted(grams)


def test_eight_words_of_ten_are_a_leak(tmp_store: Store, index: Index) -> None:
    """Four fifths, not more than that."""
    output = noted(tmp_store, index, "a", {"eight": (text(ONE[:8]), None), "seven": (text(ONE[3:]), None)})
    rows = read_rows(tmp_store, output.files[0].path)
    assert [(row["id"], row["benchmark"], row["leaked"]) for row in rows] == [
        ("eight", "sums", [0]), ("eight", "more", []), ("seven", "sums", []),
    ]  # fmt: skip


def test_items_are_numbered_within_their_benchmark(tmp_store: Store, index: Index) -> None:
    output = noted(tmp_store, index, "a", {"a": (text([*ONE[:6], *THREE]), None)})
    rows = list(read_rows(tmp_store, output.files[0].path))
    assert [(row["benchmark"], row["leaked"]) for row in rows] == [("sums", []), ("more", [0])]


def test_nothing_found_no_files(tmp_store: Store, index: Index) -> None:
    assert Findings(tmp_store, "stage/try", index, "a").close() == []
    made = tally(tmp_store, [], index)
    assert (made.documents.tolist(), made.leaking.tolist()) == ([0] * 17, [0] * 4)
    assert (made.texts, made.seen, made.actions) == ({}, {}, {})


@pytest.fixture
def output(tmp_store: Store, index: Index) -> Output:
    """Two workers' files: an item that leaks into three documents, two that overlap, one that is too short to be sought."""
    one, leak = text(ONE[:6]), text(TWO)
    made = noted(tmp_store, index, "a", {"a": (one, one), "b": (leak, None), "c": (leak, "less")})
    made.files += noted(tmp_store, index, "b", {"d": (leak, "less"), "e": (text(ONE[4:]), None)}).files
    return made


def test_workers_rows_are_added_up(tmp_store: Store, index: Index, output: Output) -> None:
    made = tally(tmp_store, output.files, index)
    assert made.leaking.tolist() == [0, 3, 0, 0]
    assert {made.texts[at]: count for at, count in enumerate(made.documents.tolist()) if count} == {
        **{" ".join(ONE[at : at + 5]): 1 for at in (0, 1, 4, 5)},
        **{" ".join(TWO[at : at + 5]): 3 for at in range(5)},
    }
    assert made.seen == {("sums", False): 2, ("sums", True): 3, ("more", False): 1}
    assert made.actions == {"kept": 1, "cut": 2, "dropped": 2}, "a document of two benchmarks counts once"


def test_the_report(tmp_store: Store, index: Index, output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(findings, "SHOWN", 6)
    assert summarise(tmp_store, "stage/try", SETS, index, output) == {"documents_cut": 2, "documents_spared": 1}
    items, report = output.files[-2:]
    assert [(file.path, file.kind, file.rows) for file in (items, report)] == [
        ("stage/try/items.parquet", "items", 4), ("stage/try/contamination.json", "contamination", 0),
    ]  # fmt: skip
    assert report.bytes == len(tmp_store.read_bytes(report.path))
    rows: list[Any] = [tuple(row.values()) for row in read_rows(tmp_store, items.path)]
    assert rows == [
        ("sums", 0, "sums:1", True, 0, 6, 4),
        ("sums", 1, "sums:2", True, 3, 5, 5),
        ("sums", 2, "sums:3", False, 0, 0, 0),
        ("more", 0, "more:1", True, 0, 8, 2),
    ]
    sums, more = Report.model_validate_json(tmp_store.read_bytes(report.path)).benchmarks
    assert sums.model_dump(exclude={"common"}) == {
        "name": "sums", "items": 3, "sought": 2, "leaked": 1, "overlapping": 1, "documents_leaking": 3,
        "documents_overlapping": 2, "ngrams": 11, "ngrams_found": 9,
    }  # fmt: skip
    assert more.model_dump(exclude={"common"}) == {
        "name": "more", "items": 1, "sought": 1, "leaked": 0, "overlapping": 1, "documents_leaking": 0,
        "documents_overlapping": 1, "ngrams": 8, "ngrams_found": 2,
    }  # fmt: skip
    assert [count for _, count in sums.common] == [3, 3, 3, 3, 3, 1]
    assert {ngram for ngram, _ in sums.common[:5]} == {" ".join(TWO[at : at + 5]) for at in range(5)}
    assert {ngram for ngram, _ in more.common} == {" ".join(ONE[at : at + 5]) for at in range(2)}
