"""How a stage drops duplicates: Spark says which rows of which part go, and the workers drop them part by part."""

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from contract.documents import Part, read_documents
from contract.kinds import Kind
from contract.manifest import File
from contract.schema import Drop
from contract.store import Store
from contract.tables import read_rows
from pipelines.spark.documents import IndexSink, Output
from pipelines.spark.job import Job
from pipelines.spark.session import store_errors
from pipelines.spark.tables import TableWriter

REMOVED = pa.schema([("row", pa.int64()), ("stays", pa.string()), ("group", pa.string())])


class Duplicate(NamedTuple):
    """Why a document is removed: the id of the document kept instead, and the group of both."""

    duplicate_of: str
    group: str


def drop_duplicates(
    job: Job,
    inputs: Sequence[Part],
    removed: Mapping[int, File],
    reason: Drop,
    show: Callable[[Mapping[str, Any], str], str],
) -> Output:
    """Drop every removed document, and return the parts, files and counts.

    removed: the files of `write_removed`, by the part's number in `inputs`. show: `show(row, group)` is the drops row's
    `value`. Reads texts only from row groups that lose a document.
    """
    work = partial(_drop, job.store, job.prefix, job.task.stage, reason, show)
    return job.map_files([(part, removed.get(number)) for number, part in enumerate(inputs)], work)


def write_removed(job: Job, frame: Any) -> dict[int, File]:
    """Write the rows of a Spark frame (columns part, row, stays, group) to one file of REMOVED for each part.

    Returns the files by part. No process ever holds all rows.
    """
    ordered = frame.repartition("part").sortWithinPartitions("part", "row")
    rows = ordered.mapInArrow(partial(_write_removed, job.store, job.prefix), "part bigint, path string, rows bigint")
    return {row["part"]: File(path=row["path"], kind=Kind.REMOVED, bytes=0, rows=row["rows"]) for row in rows.collect()}


def _write_removed(store: Store, prefix: str, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    writer: TableWriter | None = None
    writing: int | None = None
    with store_errors(store.full(f"{prefix}/removed")):
        for batch in batches:
            for part in pc.unique(batch["part"]).to_pylist():
                if writer is None or part != writing:
                    yield from _finished(writing, writer)
                    path = f"{prefix}/removed/{part:05d}-{uuid.uuid4().hex[:8]}.parquet"
                    writer, writing = TableWriter(store, path, Kind.REMOVED, REMOVED), part
                mine = batch.filter(pc.equal(batch["part"], part)).select(REMOVED.names)
                writer.write_table(pa.Table.from_batches([mine]).cast(REMOVED))
        yield from _finished(writing, writer)


def _finished(part: int | None, writer: TableWriter | None) -> Iterator[pa.RecordBatch]:
    for written in writer.close() if writer else ():
        yield pa.RecordBatch.from_pylist([{"part": part, "path": written.path, "rows": written.rows}])


def _read_removed(store: Store, file: File | None) -> dict[int, Duplicate]:
    rows = read_rows(store, file.path) if file else ()
    return {row["row"]: Duplicate(row["stays"], row["group"]) for row in rows}


def _drop(
    store: Store,
    prefix: str,
    stage: str,
    reason: Drop,
    show: Callable[[Mapping[str, Any], str], str],
    item: tuple[Part, File | None],
    name: str,
) -> Output:
    part, file = item
    removed = _read_removed(store, file)
    sink = IndexSink(store, prefix, stage, name)
    for row in read_documents(store, part, ["url", "bytes"] if removed else ["bytes"]):
        duplicate = removed.get(row["row"])
        if duplicate:
            sink.drop(row, reason, show(row, duplicate.group), row["bytes"], duplicate.duplicate_of)
        else:
            sink.keep(row["row"], row["bytes"])
    sink.finish(part)
    return sink.close()
