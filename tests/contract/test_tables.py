"""A committed table is read as it was committed, or not at all: sizes, rows and checksums."""

import errno
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract.errors import DamagedError, StoreError
from contract.manifest import File
from contract.store import Store
from contract.tables import open_table, read_batches, read_rows, reading

TASK = f"score/{'0' * 40}/all"
ROWS = [{"id": f"{number:032x}", "text": f"text {number} " * 20} for number in range(500)]


@pytest.fixture
def committed(tmp_path: Path) -> tuple[Store, File]:
    store, path = Store(str(tmp_path)), f"{TASK}/attempt-1/part.parquet"
    with store.open_output(path) as sink:
        pq.write_table(pa.Table.from_pylist(ROWS), sink, compression="zstd", write_page_checksum=True)
    return store, File(path=path, kind="documents", bytes=store.size(path), rows=len(ROWS))


def test_rows_are_read_in_batches(committed: tuple[Store, File]) -> None:
    batches = list(read_batches(*committed, 200))
    assert [batch.num_rows for batch in batches] == [200, 200, 100]
    assert [row for batch in batches for row in batch.to_pylist()] == ROWS
    (batch,) = read_batches(*committed, 1000, ["id"])
    assert batch.schema.names == ["id"]
    with open_table(*committed) as table:
        assert table.num_row_groups == 1


def test_rows_of_a_path_are_read_before_anything_is_committed(committed: tuple[Store, File]) -> None:
    store, file = committed
    assert list(read_rows(store, file.path, ["id"], 7)) == [{"id": row["id"]} for row in ROWS]
    assert list(read_rows(store, file)) == ROWS
    with pytest.raises(DamagedError, match="holds 500 rows, 7 were committed"):
        next(read_rows(store, file.model_copy(update={"rows": 7})))


def test_every_changed_byte_of_the_data_is_noticed(committed: tuple[Store, File]) -> None:
    """Of the same size: no listing shows it. What lies behind the pages is the footer, of which some bytes say nothing."""
    store, file = committed
    whole = store.read_bytes(file.path)
    with open_table(store, file) as table:
        group = table.metadata.row_group(0)
        places = [
            at
            for column in range(group.num_columns)
            for start in [group.column(column).dictionary_page_offset or group.column(column).data_page_offset]
            for at in range(start, start + group.column(column).total_compressed_size, 37)
        ]
    assert len(places) > 50
    begins = f"{store.full(file.path)}: does not hold what was committed ("
    ends = f"); bring it back, or delete {store.uri}/{TASK}/manifest.json and run score again"
    for at in places:
        store.write_bytes(file.path, whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        read, told = outcome(store, file)
        assert read == ROWS if told is None else (told.startswith(begins) and told.endswith(ends)), f"byte {at}"
    assert told is not None


def outcome(store: Store, file: File) -> tuple[list[dict[str, str]], str | None]:
    """(what is read of a file, what is said of its damage)."""
    try:
        return [row for batch in read_batches(store, file, 100) for row in batch.to_pylist()], None
    except DamagedError as error:
        return [], str(error)


def test_a_file_of_other_rows_is_not_the_one_that_was_committed(committed: tuple[Store, File]) -> None:
    store, file = committed
    with pytest.raises(DamagedError, match=r"holds 500 rows, 7 were committed; bring it back"):
        next(read_batches(store, file.model_copy(update={"rows": 7}), 100))
    store.write_bytes(file.path, b"x" * file.bytes)
    with pytest.raises(DamagedError, match="does not hold what was committed"):
        next(read_batches(store, file, 100))


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.EIO, os.strerror(errno.EIO)), StoreError),
        (OSError("AWS Error NETWORK_CONNECTION during GetObject"), StoreError),
        (OSError("ZSTD decompression failed: Data corruption detected"), DamagedError),
        (pa.ArrowInvalid("Parquet magic bytes not found"), DamagedError),
    ],
)
def test_what_cannot_be_reached_is_not_damaged(
    committed: tuple[Store, File], error: Exception, kind: type[StoreError]
) -> None:
    with pytest.raises(kind) as told, reading(*committed):
        raise error
    assert type(told.value) is kind


def test_an_error_of_what_the_rows_are_for_is_no_damage(committed: tuple[Store, File]) -> None:
    def use() -> None:
        for _ in read_batches(*committed, 100):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match="No space left") as told:
        use()
    assert type(told.value) is OSError
