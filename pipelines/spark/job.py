"""The interface between Spark and a stage: settings, input files, a writer for each worker, and one commit at the end.

Spark shuffles only keys; documents go between workers and the store. `Job.map_files` gives each worker one input file;
the worker reads it from the store, writes its output files there and returns only counts. Other stages see no output
until `Job.commit`.
"""

import traceback
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from contract.errors import GristmillError
from contract.kinds import Kind
from contract.manifest import Attempt, File, Manifest, Rows, need
from contract.metrics import Progress
from contract.output import Writer
from contract.plan import Run, Task
from contract.recipe import StageSettings
from contract.schema import DOCUMENTS, DROPS, SNIPPET_CHARS, Drop
from contract.settings.filter import Reason
from contract.store import Store
from contract.tables import BATCH_ROWS
from pipelines.spark.session import start_context, start_spark, store_errors, watched

BATCH_BYTES = 64 << 20  # a batch of large pages is written before it fills a worker's memory
COMPRESSION = "zstd"


@dataclass
class Counts:
    """The counts of one worker. Their sum over all workers becomes a `contract.manifest.Rows`."""

    read: int = 0
    kept: int = 0
    bytes_read: int = 0
    bytes_kept: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    losses: Counter[str] = field(default_factory=Counter)

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(Counts)))

    def rows(self) -> Rows:
        return Rows(
            read=self.read,
            kept=self.kept,
            dropped=self.reasons.total(),
            bytes_read=self.bytes_read,
            bytes_kept=self.bytes_kept,
            reasons=dict(sorted(self.reasons.items())),
            losses=dict(sorted(self.losses.items())),
        )


@dataclass
class Output:
    """The files and counts of one worker. `metrics` are the stage's own counts for its manifest, summed by name."""

    files: list[File] = field(default_factory=list)
    counts: Counts = field(default_factory=Counts)
    metrics: Counter[str] = field(default_factory=Counter)


class TableWriter:
    """Writes rows to one Parquet file in the store, batch by batch. Creates no file if there is no row."""

    def __init__(self, store: Store, path: str, kind: Kind, schema: pa.Schema) -> None:
        self._store, self._path, self._kind, self._schema = store, path, kind, schema
        self._rows: list[dict[str, Any]] = []
        self._bytes = 0
        self._count = 0
        self._sink: Writer | None = None
        self._writer: pq.ParquetWriter | None = None

    def write(self, row: dict[str, Any], size: int = 0) -> None:
        """Add a row. Give its `size` in bytes if rows can be large, so that the buffer stays bounded."""
        self._rows.append(row)
        self._bytes += size
        if len(self._rows) >= BATCH_ROWS or self._bytes >= BATCH_BYTES:
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
            self._writer = pq.ParquetWriter(self._sink, self._schema, compression=COMPRESSION, write_page_checksum=True)
        self._writer.write_table(table)
        self._count += table.num_rows


class DocumentSink:
    """Writes and counts the kept and the dropped documents of one worker.

    The worker must pass every document that it reads to `keep` or `drop`.
    """

    def __init__(
        self,
        store: Store,
        prefix: str,
        stage: str,
        name: str,
        schema: pa.Schema = DOCUMENTS,
        kind: Kind = Kind.DOCUMENTS,
    ) -> None:
        self._stage = stage
        self._kept = TableWriter(store, f"{prefix}/{kind}-{name}.parquet", kind, schema)
        self._dropped = TableWriter(store, f"{prefix}/drops-{name}.parquet", Kind.DROPS, DROPS)
        self.counts = Counts()

    def keep(self, row: dict[str, Any], size: int, read_size: int | None = None) -> None:
        """Keep a document. `size` is its bytes now, `read_size` its bytes when it was read (default: `size`)."""
        self._kept.write(row, size)
        self.counts.read += 1
        self.counts.kept += 1
        self.counts.bytes_kept += size
        self.counts.bytes_read += size if read_size is None else read_size

    def drop(
        self,
        row: dict[str, Any],
        reason: Drop | Reason,
        value: object = "",
        size: int = 0,
        duplicate_of: str | None = None,
        snippet: str | None = None,
    ) -> None:
        """Drop a document of `size` bytes.

        `value` is the measurement that crossed the threshold; `snippet` defaults to the head of the row's text.
        """
        shown = f"{value:.4g}" if isinstance(value, float) else str(value)
        self._dropped.write(
            {
                "id": row["id"],
                "url": row.get("url"),
                "stage": self._stage,
                "reason": str(reason),
                "value": shown,
                "duplicate_of": duplicate_of,
                "snippet": (snippet if snippet is not None else row.get("text") or "")[:SNIPPET_CHARS],
            }
        )
        self.counts.read += 1
        self.counts.reasons[str(reason)] += 1
        self.counts.bytes_read += size

    def lose(self, kind: str, count: int = 1) -> None:
        """Count input that never became a document: damage, or a record of another type."""
        self.counts.losses[kind] += count

    def close(self) -> Output:
        return Output(self._kept.close() + self._dropped.close(), self.counts)


@dataclass(frozen=True)
class Job:
    """One task of the Spark plane. A stage gets its inputs from the job and ends with `commit`."""

    run: Run
    task: Task
    attempt: Attempt

    @property
    def store(self) -> Store:
        return self.run.store

    @property
    def settings(self) -> Any:
        """The stage's section of the recipe. Annotate the variable: `settings: Filter = job.settings`."""
        return self.declared.own

    def setting(self, key: str) -> Any:
        """A setting of another section that the stage table declares, by its dotted key."""
        return self.declared.of(key)

    @cached_property
    def declared(self) -> StageSettings:
        """All that the stage may read of the recipe."""
        return StageSettings(self.run.recipe, self.task.stage)

    @property
    def prefix(self) -> str:
        """The attempt's folder, relative to the store."""
        return f"{self.attempt.prefix}/{self.attempt.id}"

    def manifests(self, stage: str) -> list[Manifest]:
        """The manifests of an input stage, in segment order; raises NotReadyError if one is missing."""
        return [need(self.store, task) for task in self.task.of(stage)]

    def inputs(self, stage: str, kind: Kind) -> list[File]:
        """All files of one kind that an input stage committed."""
        return [file for manifest in self.manifests(stage) for file in manifest.of(kind)]

    @cached_property
    def context(self) -> Any:
        """The Spark context, started on first use. See `pipelines.spark.session`."""
        return start_context(self.run, self.task)

    @cached_property
    def spark(self) -> Any:
        """A Spark session on top of the context, for stages that work on tables."""
        return start_spark(self.run, self.task)

    def map_files(self, files: Sequence[Any], work: Callable[[Any, str], Output], unit: str = "files") -> Output:
        """Run `work(file, name)` for every file on Spark's workers, report progress, and add up the outputs.

        `name` is unique to each call of `work`, so that a retried or speculative Spark task never overwrites the files
        of another. `work` must be picklable.
        """
        results = self.map_each(files, work, unit)
        files = [file for output in results for file in output.files]
        metrics: Counter[str] = Counter()
        for output in results:
            metrics.update(output.metrics)  # unlike `+`, keeps counts of 0
        return Output(files, sum((output.counts for output in results), Counts()), metrics)

    def map_each(self, files: Sequence[Any], work: Callable[[Any, str], Any], unit: str = "files") -> list[Any]:
        """Like `map_files`, but return the results as a list in the order of the files."""
        progress = Progress(self.task.stage, self.task.partition, unit, len(files))
        if not files:
            progress.finish()
            return []
        rdd = self.context.parallelize(list(enumerate(files)), len(files))
        with watched(self.context, progress):
            results: list[Any] = rdd.mapPartitions(_Guarded(work, self.store.full(self.prefix))).collect()
        for result in results:
            if isinstance(result, GristmillError):
                raise result
        return results

    def read_table(
        self, items: Sequence[Any], read: Callable[[Any, int], Iterator[pa.RecordBatch]], schema: str
    ) -> Any:
        """A Spark DataFrame of the batches that `read(item, number)` yields, with one partition for each item.

        `schema` is in Spark's DDL. Put only what a shuffle needs into the frame: keys, ids and numbers, never texts.
        """
        reader = _Reader(list(items), read, self.store.full(self.prefix))
        return self.spark.range(len(items), numPartitions=max(len(items), 1)).mapInArrow(reader, schema)

    def commit(self, output: Output, **metrics: float | int | str | bool | None) -> Manifest:
        """Create the manifest from the files and counts of the workers.

        Raises InputError if an input file from outside the store has changed since the run was resolved.
        """
        self.run.check_inputs(self.task)
        return self.attempt.commit(output.files, output.counts.rows(), metrics)


class _Guarded:
    """Runs the stage's function in a worker.

    A GristmillError comes back as a value, because Spark would bury its message in a traceback.
    """

    def __init__(self, work: Callable[[Any, str], Output], uri: str) -> None:
        self._work, self._uri = work, uri

    def __call__(self, items: Iterable[tuple[int, Any]]) -> Iterator[Output | GristmillError]:
        for index, item in items:
            try:
                with store_errors(self._uri):
                    output = self._work(item, f"{index:05d}-{uuid.uuid4().hex[:8]}")
                yield output
            except GristmillError as error:
                yield error
            except Exception:
                traceback.print_exc()
                raise


class _Reader:
    """Replaces the item numbers in a partition with the Arrow batches of these items."""

    def __init__(self, items: list[Any], read: Callable[[Any, int], Iterator[pa.RecordBatch]], uri: str) -> None:
        self._items, self._read, self._uri = items, read, uri

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for number in batch.column(0).to_pylist():
                with store_errors(self._uri):
                    yield from self._read(self._items[number], number)


def group_rows(files: Sequence[File], rows: int) -> list[list[File]]:
    """Group files, in order, up to about `rows` rows, so that small crawl files do not become a Spark task each."""
    groups: list[list[File]] = []
    held = rows
    for file in files:
        if held + file.rows > rows:
            groups.append([])
            held = 0
        groups[-1].append(file)
        held += file.rows
    return groups
