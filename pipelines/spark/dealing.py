"""A shuffle through the store, for documents: each worker deals its rows to shards, then a worker collects each shard.

A dealt file has row groups that each belong to one shard, so a shard is read without the others. Spark sees only paths.
"""

import json
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from contract.kinds import Kind
from contract.manifest import File
from contract.store import Store
from pipelines.spark.tables import COMPRESSION

HELD_BYTES = 64 << 20  # bytes of text that a worker buffers before it writes them


class ShardedRows:
    """Writes rows to one Parquet file in which each row group belongs to one shard; the metadata lists these shards."""

    def __init__(self, store: Store, path: str, schema: pa.Schema, source: str = "") -> None:
        self._store, self._path, self._schema, self._source = store, path, schema, source
        self._rows: dict[int, list[dict[str, Any]]] = {}
        self._held = self._count = 0
        self._groups: list[int] = []
        self._sink: pa.NativeFile | None = None
        self._writer: pq.ParquetWriter | None = None

    def add(self, shard: int, row: dict[str, Any], size: int) -> None:
        self._rows.setdefault(shard, []).append(row)
        self._held += size
        self._count += 1
        if self._held >= HELD_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._writer is None:
            self._sink = self._store.open_output(self._path)
            self._writer = pq.ParquetWriter(self._sink, self._schema, compression=COMPRESSION)
        for shard, rows in sorted(self._rows.items()):
            self._writer.write_table(pa.Table.from_pylist(rows, self._schema), row_group_size=len(rows))
            self._groups.append(shard)
        self._rows, self._held = {}, 0

    def close(self) -> list[File]:
        """The file, which is never committed; an empty list if no row was added."""
        if not self._count:
            return []
        self._flush()
        assert self._writer is not None
        assert self._sink is not None
        self._writer.add_key_value_metadata({"shards": json.dumps(self._groups)})
        self._writer.close()
        self._sink.close()
        return [File(path=self._path, kind=Kind.DEALT, bytes=0, rows=self._count, source=self._source)]


def collect(store: Store, dealt: Iterable[str], shard: int) -> pa.Table | None:
    """The rows of one shard from all dealt files, in no certain order; None if there are none."""
    tables = []
    for path in dealt:
        with store.open_input(path) as source:
            parquet = pq.ParquetFile(source)
            groups = json.loads(parquet.metadata.metadata[b"shards"])
            tables += [parquet.read_row_group(group) for group, owner in enumerate(groups) if owner == shard]
    return pa.concat_tables(tables) if tables else None
