"""The index of what a task dropped and first kept, so that a page of a run finds one document among millions.

Ids are hashes and documents stand in the order of the crawl, so without an index a search for one reads everything. A
task that drops documents therefore also commits, for each MILLION of rows, two small tables that name the file and the
row of each: `PLACES` sorted by id and `ADDRESSES` sorted by the address with its host reversed
(`pipelines.text.surt`). A reader opens each table once, and by the row groups' statistics reads only the group that can
hold what it looks for; then it reads the row itself. `score` and `curate`, which first have documents with all that
is known of them, list those that they keep, too. What later stages drop stands in their own tables.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from contract.kinds import Kind
from contract.manifest import File
from contract.schema import ADDRESSES, PLACES
from contract.store import Store
from contract.tables import reading
from pipelines.spark.documents import Output
from pipelines.spark.tables import TableWriter
from pipelines.text.surt import surt

MILLION = 1 << 20  # rows of one table, which a worker sorts in 300 MB
GROUP_ROWS = 1 << 12  # a look-up reads one row group of a table: 4,096 addresses take 0.3 ms
READ_ROWS = 1 << 14
ENCODED = {Kind.PLACES: None, Kind.ADDRESSES: {"address": "DELTA_BYTE_ARRAY"}}  # neighbours begin alike
_BOTH = pa.schema([PLACES.field("id"), *ADDRESSES])


def listed(output: Output, keeps: bool) -> list[File]:
    """The files of a task whose rows an index names: its drops, and its documents if it `keeps` scored ones."""
    kept = [part.documents for part in output.parts] if keeps else []
    return [*kept, *(file for file in output.files if file.kind == Kind.DROPS)]


def write_places(store: Store, prefix: str, files: Sequence[File], name: str) -> Output:
    """Write the two tables of some files of an attempt whose folder is `prefix`."""
    table = pa.concat_tables([_places(store, file) for file in files])
    with_address = table.filter(pc.field("address") != "")
    written: list[File] = []
    for kind, schema, rows in ((Kind.PLACES, PLACES, table), (Kind.ADDRESSES, ADDRESSES, with_address)):
        order = [(name, "ascending") for name in (schema.names[0], "file", "row")]
        ordered = rows.take(pc.sort_indices(rows, order))
        path, repeated = f"{prefix}/{kind}-{name}.parquet", ["file", "reason", "language"]
        writer = TableWriter(store, path, kind, schema, use_dictionary=repeated, column_encoding=ENCODED[kind])
        for start in range(0, ordered.num_rows, GROUP_ROWS):
            writer.write_table(ordered.slice(start, GROUP_ROWS).select(schema.names).cast(schema))
        written += writer.close()
    return Output(written)


def _places(store: Store, file: File) -> pa.Table:
    return pa.Table.from_batches(list(_batches(store, file)), _BOTH)


def _batches(store: Store, file: File) -> Iterator[pa.RecordBatch]:
    """Where the rows of a file stand, as columns of `_BOTH`. The file need not be committed yet."""
    row, name = 0, file.path.rpartition("/")[2]
    columns = ["id", "url", "language", *(["reason"] if file.kind == Kind.DROPS else [])]
    with store.open_input(file.path) as source, reading(store, file):
        for batch in pq.ParquetFile(source).iter_batches(READ_ROWS, columns=columns):
            count = batch.num_rows
            held = {
                "id": ids_of(batch["id"]),
                "address": pa.array([surt(url or "") for url in batch["url"].to_pylist()], pa.string()),
                "file": pa.repeat(pa.scalar(name), count),
                "row": np.arange(row, row + count, dtype=np.int32),
                "reason": batch["reason"] if file.kind == Kind.DROPS else pa.nulls(count, pa.string()),
                "language": batch["language"],
            }
            yield pa.record_batch(held).select(_BOTH.names).cast(_BOTH)
            row += count


def ids_of(ids: pa.Array) -> pa.Array:
    """Ids of 32 hexadecimal digits as 16 bytes each."""
    data = bytes.fromhex("".join(ids.to_pylist()))
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(ids), [None, pa.py_buffer(data)])
