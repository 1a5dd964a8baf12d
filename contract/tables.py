"""Committed Parquet files, read with their checksums: a disk may change what lies on it without changing its size."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from contract.errors import DamagedError, StoreError
from contract.manifest import File
from contract.store import Store, explain

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq


@contextmanager
def open_table(store: Store, file: File) -> "Iterator[pq.ParquetFile]":
    """A committed Parquet file. Raises DamagedError where it is not what was committed; read from it within `reading`."""
    import pyarrow.parquet as pq

    with file.open(store) as source:
        with reading(store, file):
            table = pq.ParquetFile(source, page_checksum_verification=True)
        if table.metadata.num_rows != file.rows:
            raise DamagedError(
                f"{store.full(file.path)}: holds {table.metadata.num_rows:,} rows, {file.rows:,} were committed; {file.cure(store)}"
            )
        yield table


def read_batches(
    store: Store, file: File, rows: int, columns: Sequence[str] | None = None
) -> "Iterator[pa.RecordBatch]":
    """The file in batches of at most so many rows. Raises DamagedError where it is not what was committed."""
    with open_table(store, file) as table:
        batches = table.iter_batches(rows, columns=list(columns) if columns else None)
        while True:
            with reading(store, file):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch


@contextmanager
def reading(store: Store, file: File) -> Iterator[None]:
    """Around what reads of a committed file, and nothing else: what cannot be decoded is damage, what cannot be reached may pass."""
    import pyarrow as pa

    where = store.full(file.path)
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        if isinstance(error, OSError) and (error.errno or "AWS Error" in str(error)):
            raise StoreError(explain(where, error)) from error
        why = " ".join(str(error).split())
        raise DamagedError(f"{where}: holds something else than was committed ({why}); {file.cure(store)}") from error
