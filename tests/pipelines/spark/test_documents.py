"""Documents: those that are left are read, whoever dropped the others, and no document is lost or read in vain."""

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from contract.documents import Part, parts_of, read_documents, read_index, read_part
from contract.errors import DamagedError
from contract.kinds import Kind
from contract.manifest import File
from contract.manifest import Rows as ManifestRows
from contract.output import Writer
from contract.schema import DOCUMENTS, LANGUAGES, Drop
from contract.store import Store
from contract.tables import read_rows
from pipelines.spark.documents import Counts, DocumentSink, IndexSink, Output, total, write_cuts

Rows = list[dict[str, Any]]


def write(store: Store, path: str, kind: Kind, table: pa.Table, group: int) -> File:
    with Writer(store, path) as sink:
        pq.write_table(table, sink, row_group_size=group, write_page_checksum=True)
    return sink.file(kind, table.num_rows)


def stored(store: Store, rows: Rows, left: list[int] | None = None, group: int = 2, name: str = "a") -> Part:
    """A part of these rows, of which `left` are left; so many in a row group."""
    documents = write(store, f"{name}.parquet", Kind.DOCUMENTS, pa.Table.from_pylist(rows, DOCUMENTS), group)
    if left is None:
        return Part(documents)
    return Part(
        documents, write(store, f"{name}-index.parquet", Kind.INDEX, pa.table({"row": pa.array(left, pa.int64())}), 99)
    )


def test_counts_add_up() -> None:
    one = Counts(5, 2, 50, 20, Counter(language=2, top_ngram=1), Counter(damaged=1))
    other = Counts(7, 6, 70, 60, Counter(language=1), Counter(damaged=2, other=4))
    assert one + other == Counts(
        12, 8, 120, 80, Counter(language=3, top_ngram=1), Counter(damaged=3, other=4)
    )  # fmt: skip
    assert (one + other).rows() == ManifestRows(
        read=12, kept=8, dropped=4, bytes_read=120, bytes_kept=80, reasons={"language": 3, "top_ngram": 1}, losses={"damaged": 3, "other": 4}
    )  # fmt: skip
    assert Counts() == Counts(0, 0, 0, 0, Counter(), Counter())


def test_every_document_leaves_through_the_sorter(tmp_store: Store, make_document: Any) -> None:
    sink = DocumentSink(tmp_store, "stage/try", "filter", "00003-0123abcd")
    rows = [make_document(f"{at} " + "x" * 300) for at in range(5)]
    sink.keep(rows[0], 100)
    sink.keep(rows[1], 70, 90)
    sink.keep(rows[2], 5, 0)
    sink.drop(rows[3], "top_ngram", 0.123456, 40)
    sink.drop({"id": "x", "text": None}, Drop.LANGUAGE, "de 0.50", duplicate_of="y")
    sink.drop(rows[4] | {"url": None}, Drop.LANGUAGE, 12345, 2, snippet="")
    sink.lose("damaged")
    sink.lose("damaged", 3)
    output = sink.close()
    kept, dropped = output.listed()
    assert output.parts == [Part(kept.model_copy(update={"part": None}))]
    assert [file.path for file in output.listed()] == [
        f"stage/try/{kind}-00003-0123abcd.parquet" for kind in ("documents", "drops")
    ]
    assert [(file.kind, file.rows, file.part) for file in output.listed()] == [("documents", 3, 0), ("drops", 3, None)]
    assert list(read_rows(tmp_store, kept.path)) == rows[:3]
    assert [tuple(row.values()) for row in read_rows(tmp_store, dropped.path)] == [
        (rows[3]["id"], rows[3]["url"], "filter", "top_ngram", "0.1235", None, rows[3]["text"][:200], "en"),
        ("x", None, "filter", "language", "de 0.50", "y", "", None),
        (rows[4]["id"], None, "filter", "language", "12345", None, "", "en"),
    ]
    assert output.counts == Counts(6, 3, 232, 175, Counter(top_ngram=1, language=2), Counter(damaged=4))


def test_files_of_a_part_have_its_number(tmp_store: Store, make_document: Any) -> None:
    one = stored(tmp_store, [make_document("one")], name="one")
    two = stored(tmp_store, [make_document("two"), make_document("three")], [1], name="two")
    cut = replace(two, cuts=write_cuts(tmp_store, "cuts.parquet", {1: [(0, 1)]}, {1: "x"}))
    drops = File(path="drops", kind="drops", bytes=1, part=7)
    output = total([Output([drops], parts=[one]), Output(parts=[cut])])
    assert [(file.path, file.part) for file in output.listed()] == [
        ("one.parquet", 0), ("two.parquet", 1), ("two-index.parquet", 1), ("cuts.parquet", 1), ("drops", None),
    ]  # fmt: skip

    class Listing:
        files = output.listed()
        path = "stage/0/all/manifest.json"

    again = total([Output(parts=parts_of(Listing))])  # type: ignore[arg-type]
    assert again.listed() == output.listed()[:-1]
    for wrong in (output.listed()[2:3], [*output.listed()[:1], drops.model_copy(update={"part": 0})]):
        Listing.files = wrong
        with pytest.raises(DamagedError, match=r"^stage/0/all/manifest.json: part [01] has no documents or a file of"):
            parts_of(Listing)  # type: ignore[arg-type]


@given(
    st.lists(st.booleans(), max_size=14),
    st.integers(1, 5),
    st.integers(1, 6),
    st.one_of(st.none(), st.lists(st.integers(0, 15), unique=True)),
)
@examples(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_left_is_read_in_any_batches_and_row_groups(
    tmp_store: Store, make_document: Any, alive: list[bool], group: int, batch_rows: int, only: list[int] | None
) -> None:
    rows = [make_document(f"text {at}") for at in range(len(alive))]
    part = stored(tmp_store, rows, [at for at, stays in enumerate(alive) if stays], group)
    wanted = [at for at, stays in enumerate(alive) if stays and (only is None or at in only)]
    numbers = None if only is None else np.array(only, np.int64)
    batches = list(read_part(tmp_store, part, ["text", "id"], batch_rows, numbers))
    found = [row for batch in batches for row in batch.to_pylist()]
    assert found == [{"row": at, "text": rows[at]["text"], "id": rows[at]["id"]} for at in wanted]
    assert all(0 < batch.num_rows <= batch_rows for batch in batches)
    assert part.rows == sum(alive)
    whole = list(read_documents(tmp_store, Part(part.documents), ["text"]))
    assert [row["text"] for row in whole] == [row["text"] for row in rows]


def test_row_groups_of_which_nothing_is_left_are_not_read(
    tmp_store: Store, make_document: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = stored(tmp_store, [make_document(f"text {at}") for at in range(9)], [1, 4, 5])
    read: list[Any] = []
    real = pq.ParquetFile.iter_batches

    def spy(self: Any, *given: Any, **named: Any) -> Any:
        read.append((named["row_groups"], named["columns"]))
        return real(self, *given, **named)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", spy)
    assert [row["row"] for row in read_documents(tmp_store, part, ["text"])] == [1, 4, 5]
    assert [row["row"] for row in read_documents(tmp_store, part, ["id"], np.array([5, 8]))] == [5]
    assert read == [([0, 2], ["text"]), ([2], ["id"])]
    assert list(read_documents(tmp_store, part, ["id"], np.array([0]))) == []
    assert len(read) == 2


def test_columns_of_the_index_and_cuts_are_applied(tmp_store: Store, make_document: Any) -> None:
    rows = [make_document(f"é text {at}", language=None) for at in range(4)]
    part = stored(tmp_store, rows)
    sink = IndexSink(tmp_store, "out", "langid", "0", LANGUAGES)
    for at in range(4):
        if at == 1:
            sink.drop(rows[at] | {"row": 1}, Drop.LANGUAGE)
        else:
            first = {"language": f"l{at}", "language_probability": at / 4}
            ranked = {"languages": [f"l{at}"], "language_probabilities": [at / 4]}
            sink.keep(at, 9, columns=first | ranked)
    sink.finish(part)
    (left,) = sink.close().parts
    assert [row["language"] for row in read_documents(tmp_store, left, ["language"])] == ["l0", "l2", "l3"]
    cut = replace(
        left,
        cuts=write_cuts(tmp_store, "cuts.parquet", {1: [(0, 1)], 2: [(0, 3), (7, 9)]}, dict.fromkeys(range(4), "")),
    )
    found = list(read_documents(tmp_store, cut, [*DOCUMENTS.names]))
    assert [(row["row"], row["text"], row["language"]) for row in found] == [
        (0, "é text 0", "l0"), (2, "text", "l2"), (3, "é text 3", "l3"),
    ]  # fmt: skip
    assert [row["language_probabilities"] for row in found] == [[0.0], [0.5], [0.75]]
    assert [row["id"] for row in read_documents(tmp_store, cut, ["id"])] == [rows[at]["id"] for at in (0, 2, 3)]


@pytest.mark.parametrize("rows", [[0, 5], [-1, 0], [1, 1], [2, 1]])
def test_an_index_that_does_not_fit_is_damaged(tmp_store: Store, make_document: Any, rows: list[int]) -> None:
    part = stored(tmp_store, [make_document(f"text {at}") for at in range(5)], rows)
    with pytest.raises(DamagedError, match=r"a-index.parquet: does not fit a.parquet; bring it back, or delete"):
        read_index(tmp_store, part)


def test_a_damaged_or_missing_file_of_a_part_says_what_to_do(tmp_store: Store, make_document: Any) -> None:
    """Later manifests list these files too, so that the manifest of the stage that wrote them is not the only one."""
    part = stored(tmp_store, [make_document(f"text {at}") for at in range(5)], [0, 2], name="filter/0/p/attempt-1/x")
    number = {"part": 0}
    listed = Part(part.documents.model_copy(update=number), part.index.model_copy(update=number))  # type: ignore[union-attr]
    data = tmp_store.read_bytes(listed.index.path)  # type: ignore[union-attr]
    tmp_store.write_bytes(listed.index.path, data[:40] + bytes([data[40] ^ 255]) + data[41:])  # type: ignore[union-attr]
    with pytest.raises(DamagedError, match=r"x-index.parquet: does not hold what was committed"):
        list(read_documents(tmp_store, listed, ["id"]))
    tmp_store.delete(listed.index.path)  # type: ignore[union-attr]
    cure = (
        rf"delete all manifests that list it and run filter and the stages after it again; "
        rf"python -m contract lineage --store {tmp_store.uri} filter/0/p/attempt-1/x-index.parquet names them$"
    )
    with pytest.raises(DamagedError, match=cure):
        list(read_documents(tmp_store, listed, ["id"]))


def test_every_document_of_a_part_is_kept_or_dropped(tmp_store: Store, make_document: Any) -> None:
    rows = [make_document(f"{at} " + "x" * 300, url=f"https://a.test/{at}") for at in range(6)]
    part = stored(tmp_store, rows, [0, 2, 3, 5])
    sink = IndexSink(tmp_store, "out", "dedup_url", "00003-0123abcd")
    sink.keep(0, 10, 12)
    sink.drop({"row": 2}, Drop.DUPLICATE_URL, "why", 20, "other")
    sink.drop(rows[3] | {"row": 3}, Drop.DUPLICATE_URL, 0.123456, 30)
    sink.keep(5, 40)
    sink.finish(part)
    sink.keep_all([0], 1)
    sink.finish(stored(tmp_store, rows[:1], name="b"))
    sink.drop(rows[1] | {"row": 0}, Drop.DUPLICATE_URL)
    sink.finish(stored(tmp_store, rows[1:2], name="c"))
    output = sink.close()
    left, whole = output.parts
    assert (left.documents, left.rows) == (part.documents, 2)
    assert [row["row"] for row in read_documents(tmp_store, left, ["id"])] == [0, 5]
    assert (whole.documents.path, whole.index) == ("b.parquet", None), "a part that loses nothing stays as it is"
    (drops,) = output.files
    assert drops.path == "out/drops-00003-0123abcd.parquet"
    assert [tuple(row.values()) for row in read_rows(tmp_store, drops)] == [
        (rows[3]["id"], rows[3]["url"], "dedup_url", "duplicate_url", "0.1235", None, rows[3]["text"][:200], "en"),
        (rows[2]["id"], rows[2]["url"], "dedup_url", "duplicate_url", "why", "other", rows[2]["text"][:200], "en"),
        (rows[1]["id"], rows[1]["url"], "dedup_url", "duplicate_url", "", None, rows[1]["text"][:200], "en"),
    ]
    assert output.counts == Counts(6, 3, 103, 51, Counter(duplicate_url=3))
