"""A writer of Parquet files for workers, and groups of small files."""

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from contract.kinds import Kind
from contract.manifest import File
from contract.output import Writer
from contract.store import Store
from contract.tables import BATCH_ROWS

BATCH_BYTES = 64 << 20  # a batch of large pages is written before it fills a worker's memory
COMPRESSION = "zstd"


class Countable(Protocol):
    """A file, or anything else with a number of rows."""

    @property
    def rows(self) -> int: ...


T = TypeVar("T", bound=Countable)


class TableWriter:
    """Writes rows to one Parquet file in the store, batch by batch. Creates no file if there is no row."""

    def __init__(
        self, store: Store, path: str, kind: Kind, schema: pa.Schema, batch_rows: int = BATCH_ROWS, **written: Any
    ) -> None:
        """batch_rows: of a row group, unless the batch is large. written: further options of Parquet's writer."""
        self._store, self._path, self._kind, self._schema = store, path, kind, schema
        self._batch_rows, self._written = batch_rows, written
        self._rows: list[dict[str, Any]] = []
        self._bytes = 0
        self._count = 0
        self._sink: Writer | None = None
        self._writer: pq.ParquetWriter | None = None

    def write(self, row: dict[str, Any], size: int = 0) -> None:
        """Add a row. Give its `size` in bytes if rows can be large, so that the buffer stays bounded."""
        self._rows.append(row)
        self._bytes += size
        if len(self._rows) >= self._batch_rows or self._bytes >= BATCH_BYTES:
            self._flush()

    def write_table(self, table: pa.Table) -> None:
        """Add a table that has the writer's schema."""
        self._flush()
        if table.num_rows:
            self._put(table)

    def close(self) -> list[File]:
        """Finish the file and return it; an empty list if no row was written."""
        self._flush()
        if self._writer is None or self._sink is None:
            return []
        self._writer.close()
        self._sink.close()
        return [self._sink.file(self._kind, self._count)]

    def _flush(self) -> None:
        if self._rows:
            self._put(pa.Table.from_pylist(self._rows, self._schema))
            self._rows, self._bytes = [], 0

    def _put(self, table: pa.Table) -> None:
        if self._writer is None:
            self._sink = Writer(self._store, self._path)
            self._writer = pq.ParquetWriter(
                self._sink, self._schema, compression=COMPRESSION, write_page_checksum=True, **self._written
            )
        self._writer.write_table(table)
        self._count += table.num_rows


def group_rows(files: Sequence[T], rows: int) -> list[list[T]]:
    """Group files, in order, up to about `rows` rows, so that small crawl files do not become a Spark task each."""
    groups: list[list[T]] = []
    held = rows
    for file in files:
        if held + file.rows > rows:
            groups.append([])
            held = 0
        groups[-1].append(file)
        held += file.rows
    return groups
