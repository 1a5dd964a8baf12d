"""Reads committed Parquet files and verifies their checksums: a disk may corrupt a file without changing its size."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from contract.errors import DamagedError, StoreError
from contract.kinds import Kind
from contract.manifest import File
from contract.store import Store, explain

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

BATCH_ROWS = 256  # documents in memory at a time; each may be large


def written(store: Store, path: str, kind: Kind, rows: Sequence[dict[str, Any]], schema: "pa.Schema") -> File:
    """Write rows as a Parquet file and return it as a manifest lists it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    table = pa.Table.from_pylist(list(rows), schema)
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    data = sink.getvalue().to_pybytes()
    store.write_bytes(path, data)
    return File(path=path, kind=kind, bytes=len(data), rows=len(rows), sha256=hashlib.sha256(data).hexdigest())


@contextmanager
def open_table(store: Store, file: File) -> "Iterator[pq.ParquetFile]":
    """Open a committed Parquet file, to be read within `reading`. Raises DamagedError if it is not as committed."""
    import pyarrow.parquet as pq

    with file.open(store) as source:
        with reading(store, file):
            table = pq.ParquetFile(source, page_checksum_verification=True)
        if table.metadata.num_rows != file.rows:
            raise DamagedError(
                f"{store.full(file.path)}: holds {table.metadata.num_rows:,} rows, {file.rows:,} were committed; "
                f"{file.cure(store)}"
            )
        yield table


def read_batches(
    store: Store, file: File, rows: int, columns: Sequence[str] | None = None
) -> "Iterator[pa.RecordBatch]":
    """Yield the file in batches of at most `rows` rows. Raises DamagedError if it is not what was committed."""
    with open_table(store, file) as table:
        yield from batches_of(store, file, table, rows, columns)


def batches_of(
    store: Store,
    file: File,
    table: "pq.ParquetFile",
    rows: int,
    columns: Sequence[str] | None = None,
    groups: Sequence[int] | None = None,
) -> "Iterator[pa.RecordBatch]":
    """`read_batches` of a table that is open already, or of some of its row groups."""
    batches = table.iter_batches(rows, row_groups=groups, columns=list(columns) if columns else None)
    while True:
        with reading(store, file):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


def read_rows(
    store: Store, file: File | str, columns: Sequence[str] | None = None, batch_rows: int = BATCH_ROWS
) -> Iterator[dict[str, Any]]:
    """Yield the rows of a Parquet file in the store, with one batch in memory at a time.

    `file` is a path for files that this attempt wrote and has not committed yet.
    """
    import pyarrow.parquet as pq

    if isinstance(file, File):
        for batch in read_batches(store, file, batch_rows, columns):
            yield from batch.to_pylist()
        return
    with store.open_input(file) as source:
        for batch in pq.ParquetFile(source).iter_batches(batch_rows, columns=list(columns) if columns else None):
            yield from batch.to_pylist()


@contextmanager
def reading(store: Store, file: File) -> Iterator[None]:
    """Context for reads of a committed file, and for nothing else.

    Raises DamagedError if the data cannot be decoded, and StoreError if the store fails.
    """
    import pyarrow as pa

    where = store.full(file.path)
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        if isinstance(error, OSError) and (error.errno or "AWS Error" in str(error)):
            raise StoreError(explain(where, error)) from error
        why = " ".join(str(error).split())
        raise DamagedError(f"{where}: does not hold what was committed ({why}); {file.cure(store)}") from error
