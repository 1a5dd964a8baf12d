"""The documents of `filter` that remain after each deduplication stage, and how such a stage drops documents.

A stage that only drops documents writes one drops file for each documents file, with the number that `Job.map_files`
gave to the documents file. So a reader finds the drops of a documents file by its number, without a shuffle and
without holding every id in memory.
"""

import re
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from contract.kinds import Kind
from contract.manifest import File
from contract.schema import Drop
from contract.store import Store
from contract.tables import open_table, read_rows, reading
from pipelines.spark.job import DocumentSink, Job, Output, TableWriter
from pipelines.spark.session import store_errors

_NUMBER = re.compile(r"-(\d{5,})-[0-9a-f]{8}\.parquet$")


@dataclass(frozen=True)
class Part:
    """One of `filter`'s documents files, and the drops files that earlier stages wrote for it."""

    documents: File
    drops: tuple[File, ...] = ()

    @property
    def alive(self) -> int:
        return self.documents.rows - sum(file.rows for file in self.drops)


REMOVED = pa.schema([("id", pa.string()), ("stays", pa.string()), ("group", pa.string())])


class Duplicate(NamedTuple):
    """Why a document is removed: the id of the document kept instead, and the group of both."""

    duplicate_of: str
    group: str


def number(file: File) -> int:
    """The index, in its stage's `map_files` call, of the work that wrote a file.

    Raises ValueError if the file's name does not come from `map_files`.
    """
    match = _NUMBER.search(file.path)
    if not match:
        raise ValueError(f"{file.path} was not written under a name that map_files gave")
    return int(match[1])


def parts(job: Job, *droppers: str) -> list[Part]:
    """`filter`'s documents files in segment order, each with the drops files of the stages `droppers` for it."""
    drops: dict[int, list[File]] = {}
    for stage in droppers:
        for file in job.inputs(stage, Kind.DROPS):
            drops.setdefault(number(file), []).append(file)
    documents = job.inputs("filter", Kind.DOCUMENTS)
    return [Part(file, tuple(drops.get(index, ()))) for index, file in enumerate(documents)]


def dropped_ids(store: Store, part: Part) -> set[str]:
    return {row["id"] for file in part.drops for row in read_rows(store, file, ["id"])}


def drop_duplicates(
    job: Job,
    inputs: Sequence[Part],
    removed: Mapping[int, File],
    reason: Drop,
    show: Callable[[Mapping[str, Any], str], str],
    bytes_before: int,
) -> Output:
    """Write a drops row for every removed document, and return the files and counts.

    removed: the files of `write_removed`, by file number. show: `show(row, group)` is the drops row's `value`.
    bytes_before: the bytes of all documents, for the counts. Reads texts only from row groups that lose a document.
    """
    work = partial(_drop, job.store, job.prefix, job.task.stage, reason, show)
    output = job.map_files([(part, removed.get(index)) for index, part in enumerate(inputs)], work)
    output.counts.bytes_kept = bytes_before - output.counts.bytes_read
    output.counts.bytes_read = bytes_before
    return output


def write_removed(job: Job, frame: Any) -> dict[int, File]:
    """Write the rows of a Spark frame (columns file, id, stays, group) to one file of REMOVED for each documents file.

    Returns the files by file number. No process ever holds all rows.
    """
    ordered = frame.repartition("file").sortWithinPartitions("file", "id")
    rows = ordered.mapInArrow(partial(_write_removed, job.store, job.prefix), "file bigint, path string, rows bigint")
    return {row["file"]: File(path=row["path"], kind=Kind.REMOVED, bytes=0, rows=row["rows"]) for row in rows.collect()}


def _write_removed(store: Store, prefix: str, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    writer: TableWriter | None = None
    writing: int | None = None
    with store_errors(store.full(f"{prefix}/removed")):
        for batch in batches:
            for file in pc.unique(batch["file"]).to_pylist():
                if writer is None or file != writing:
                    yield from _finished(writing, writer)
                    path = f"{prefix}/removed/{file:05d}-{uuid.uuid4().hex[:8]}.parquet"
                    writer, writing = TableWriter(store, path, Kind.REMOVED, REMOVED), file
                mine = batch.filter(pc.equal(batch["file"], file)).select(REMOVED.names)
                writer.write_table(pa.Table.from_batches([mine]).cast(REMOVED))
        yield from _finished(writing, writer)


def _finished(file: int | None, writer: TableWriter | None) -> Iterator[pa.RecordBatch]:
    for written in writer.close() if writer else ():
        yield pa.RecordBatch.from_pylist([{"file": file, "path": written.path, "rows": written.rows}])


def _read_removed(store: Store, file: File) -> dict[str, Duplicate]:
    return {row["id"]: Duplicate(row["stays"], row["group"]) for row in read_rows(store, file.path)}


def _drop(
    store: Store,
    prefix: str,
    stage: str,
    reason: Drop,
    show: Callable[[Mapping[str, Any], str], str],
    item: tuple[Part, File | None],
    name: str,
) -> Output:
    part, removed_file = item
    removed = _read_removed(store, removed_file) if removed_file else {}
    sink = DocumentSink(store, prefix, stage, name)
    for row in _rows_of(store, part.documents, removed) if removed else ():
        duplicate = removed[row["id"]]
        sink.drop(row, reason, show(row, duplicate.group), len(row["text"].encode()), duplicate.duplicate_of)
    output = sink.close()
    output.counts.read = part.alive
    output.counts.kept = part.alive - output.counts.reasons.total()
    return output


def _rows_of(store: Store, file: File, ids: Collection[str]) -> Iterator[dict[str, Any]]:
    wanted = pa.array(ids, pa.string())
    with open_table(store, file) as table:
        for group in range(table.num_row_groups):
            with reading(store, file):
                hits = pc.is_in(table.read_row_group(group, ["id"])["id"], value_set=wanted)
                rows = table.read_row_group(group, ["id", "url", "text"]) if pc.any(hits).as_py() else None
            if rows is not None:
                yield from rows.filter(hits).to_pylist()
