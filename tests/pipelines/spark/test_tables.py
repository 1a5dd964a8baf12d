"""Tables: written batch by batch, and read with one batch in memory."""

from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract.manifest import File
from contract.schema import DOCUMENTS
from contract.store import Store
from contract.tables import read_rows
from pipelines.spark.tables import TableWriter, group_rows


def groups_of(store: Store, path: str) -> list[int]:
    """The rows of each row group."""
    with store.open_input(path) as source:
        metadata = pq.ParquetFile(source).metadata
        return [metadata.row_group(at).num_rows for at in range(metadata.num_row_groups)]


@pytest.mark.parametrize(
    ("sizes", "groups"),
    [
        ([0] * 7, [3, 3, 1]),
        ([0] * 3, [3]),
        ([4, 6, 9, 1, 0], [2, 2, 1]),
        ([10, 10], [1, 1]),
        ([9], [1]),
        ([3, 3, 3, 5], [3, 1]),
    ],
)
def test_rows_are_written_before_they_fill_the_memory(
    sizes: list[int], groups: list[int], tmp_store: Store, make_document: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.spark.tables.BATCH_BYTES", 10)
    sinks: list[Any] = []
    opened = Store.open_output
    monkeypatch.setattr(Store, "open_output", lambda *given: sinks.append(opened(*given)) or sinks[-1])
    writer = TableWriter(tmp_store, "a.parquet", "documents", DOCUMENTS, batch_rows=3)
    rows = [make_document(f"text {at}") for at in range(len(sizes))]
    for row, size in zip(rows, sizes, strict=True):
        writer.write(row, size)
    (file,) = writer.close()
    assert (file.path, file.kind, file.rows) == ("a.parquet", "documents", len(rows))
    assert [sink.closed for sink in sinks] == [True], "an object store has nothing before"
    assert file.bytes == len(tmp_store.read_bytes("a.parquet"))
    assert list(read_rows(tmp_store, "a.parquet")) == rows
    assert groups_of(tmp_store, "a.parquet") == groups


def test_tables_and_rows_are_written_in_their_order(tmp_store: Store, make_document: Any) -> None:
    rows = [make_document(f"text {at}") for at in range(4)]
    writer = TableWriter(tmp_store, "a.parquet", "documents", DOCUMENTS)
    writer.write(rows[0])
    writer.write_table(pa.Table.from_pylist(rows[1:3], DOCUMENTS))
    writer.write_table(pa.Table.from_pylist([], DOCUMENTS))
    writer.write(rows[3])
    (file,) = writer.close()
    assert file.rows == 4
    assert list(read_rows(tmp_store, "a.parquet")) == rows
    assert groups_of(tmp_store, "a.parquet") == [1, 2, 1]


def test_no_rows_no_file(tmp_store: Store) -> None:
    writer = TableWriter(tmp_store, "a.parquet", "documents", DOCUMENTS)
    writer.write_table(pa.Table.from_pylist([], DOCUMENTS))
    assert writer.close() == []
    assert list(tmp_store.files("")) == []


def test_columns_and_batches_that_are_read(tmp_store: Store, make_document: Any) -> None:
    writer = TableWriter(tmp_store, "a.parquet", "documents", DOCUMENTS)
    for at in range(5):
        writer.write(make_document(f"text {at}"))
    writer.close()
    assert [*read_rows(tmp_store, "a.parquet", ["text"], 2)] == [{"text": f"text {at}"} for at in range(5)]
    assert {*next(read_rows(tmp_store, "a.parquet"))} == {*DOCUMENTS.names}


@pytest.mark.parametrize(
    ("rows", "groups"),
    [([4, 4, 4], [[4, 4], [4]]), ([10], [[10]]), ([5, 5, 1], [[5, 5], [1]]), ([11, 1], [[11], [1]]), ([], []), ([9, 1, 0, 1], [[9, 1, 0], [1]])],
)  # fmt: skip
def test_small_files_share_a_task(rows: list[int], groups: list[list[int]]) -> None:
    files = [File(path=f"{at}", kind="documents", bytes=0, rows=count) for at, count in enumerate(rows)]
    found = group_rows(files, 10)
    assert [[file.rows for file in group] for group in found] == groups
    assert [file for group in found for file in group] == files
