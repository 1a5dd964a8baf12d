"""The interface between Spark and a stage: settings, inputs, work on the workers, and one commit at the end.

Spark shuffles only keys; documents go between workers and the store. `Job.map_files` gives each worker one input file;
the worker reads it from the store, writes its output files there and returns only counts. Other stages see no output
until `Job.commit`.
"""

import traceback
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import pyarrow as pa

from contract import funnel
from contract.documents import Part, parts_of
from contract.errors import GristmillError
from contract.job import StageJob
from contract.kinds import Kind
from contract.manifest import Attempt, File, Manifest, need
from contract.metrics import Progress
from contract.plan import Run, Task
from contract.results import Result
from contract.stages import STAGES
from pipelines.spark.documents import Output, total
from pipelines.spark.places import MILLION, listed, write_places
from pipelines.spark.session import start_context, start_spark, store_errors, watched
from pipelines.spark.tables import group_rows

KEEPERS = ("score", "curate")  # their documents are the first with scores; later stages only judge them


@dataclass(frozen=True)
class Job(StageJob):
    """One task of the Spark plane. A stage gets its inputs from the job and ends with `commit`."""

    _run: Run
    task: Task
    attempt: Attempt

    @property
    def prefix(self) -> str:
        """The attempt's folder, relative to the store."""
        return f"{self.attempt.prefix}/{self.attempt.id}"

    def manifests(self, stage: str | None = None) -> list[Manifest]:
        """The manifests of an input stage, in segment order; raises NotReadyError if one is missing.

        By default of the first stage that the row in the stage table reads, so a stage that is put between the two
        changes no code.
        """
        return [need(self.store, one) for one in self.task.read(stage or STAGES[self.task.stage].reads[0])]

    def inputs(self, stage: str, kind: Kind) -> list[File]:
        """All files of one kind that an input stage committed."""
        return [file for manifest in self.manifests(stage) for file in manifest.of(kind)]

    def parts(self, stage: str | None = None) -> list[Part]:
        """The documents that an input stage left, in segment order; by default the first that the row reads."""
        return [part for manifest in self.manifests(stage) for part in parts_of(manifest)]

    def funnel(self) -> list[funnel.Level]:
        """What the stages before this one kept, and why they dropped the rest."""
        return funnel.levels(self._run)

    @cached_property
    def context(self) -> Any:
        """The Spark context, started on first use. See `pipelines.spark.session`."""
        return start_context(self._run, self.task)

    @cached_property
    def spark(self) -> Any:
        """A Spark session on top of the context, for stages that work on tables."""
        return start_spark(self._run, self.task)

    def map_files(self, files: Sequence[Any], work: Callable[[Any, str], Output], unit: str = "files") -> Output:
        """Run `work(file, name)` for every file on Spark's workers, report progress, and add up the outputs.

        `name` is unique to each call of `work`, so that a retried or speculative Spark task never overwrites the files
        of another. `work` must be picklable.
        """
        return total(self.map_each(files, work, unit))

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

    def commit(self, output: Output, result: Result | None = None, sources: Sequence[str] = ()) -> Manifest:
        """Create the manifest from the files, parts and counts of the workers, and index what a stage dropped.

        sources: URIs of what lineage shall name besides the inputs. Raises InputError if an input file from outside the
        store has changed since the run was resolved.
        """
        stage = STAGES[self.task.stage]
        if stage.drops and stage.counts == "documents":
            files = group_rows(listed(output, stage.name in KEEPERS), MILLION)
            output.files += self.map_files(files, partial(write_places, self.store, self.prefix), "indexes").files
        self._run.check_inputs(self.task)
        return self.attempt.commit(output.listed(), output.counts.rows(), result, sources)


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
