"""Runs steps with a shuffle between each step and the next, on Arrow batches instead of rows.

Spark moves the batches, writes them to disk between the steps, and runs a step again when its worker dies; Python code
handles only arrays. A place is one partition of a step. A step is `work(place, batches)`, which yields pairs of a place
of the next step and a batch for it. The order of the batches and the row counts are arbitrary, so the result of a step
must not depend on them.
"""

import gc
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from contract.errors import GristmillError, StoreError
from pipelines.spark.session import is_local, store_errors

Sent = tuple[int, pa.RecordBatch]
Work = Callable[[int, Iterator[pa.RecordBatch]], Iterator[Sent]]


def shuffle(context: Any, steps: Sequence[tuple[int, Work]], uri: str = "the store") -> list[pa.RecordBatch]:
    """Run the steps in order and return all batches that the last one sends, whatever place it names.

    context: the SparkContext. steps: the number of places and the work of each step; the first step receives no
    batches. uri: where the steps read and write, for error messages. Raises the GristmillError that a step raised. An
    OSError or ArrowException in a step becomes a StoreError about `uri`, raised when Spark's last attempt has failed.
    """
    rdd = None
    tries = 1 if is_local(context.master) else int(context.getConf().get("spark.task.maxFailures", "4"))
    for places, work in steps:
        rdd = context.parallelize([], max(places, 1)) if rdd is None else rdd.partitionBy(max(places, 1), _same)
        rdd = rdd.mapPartitionsWithIndex(partial(_step, work, uri, tries))
    batches = []
    for _, data in rdd.collect() if rdd is not None else ():
        if isinstance(data, GristmillError):
            raise data
        batches.append(_decode(data))
    return batches


def split_by_place(batch: pa.RecordBatch, places: npt.NDArray[np.integer]) -> Iterator[Sent]:
    """Split a batch by the place of each row. places: shape (rows,)."""
    order = np.argsort(places, kind="stable")
    edges = np.flatnonzero(np.diff(places[order], prepend=-1, append=-1))
    ordered = batch.take(pa.array(order))
    for start, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        yield int(places[order[start]]), ordered.slice(start, end - start)


def gather(batches: Iterator[pa.RecordBatch]) -> pa.Table | None:
    """Join all batches into one table whose columns have a single chunk; None if there is no batch."""
    held = list(batches)
    return pa.Table.from_batches(held).combine_chunks() if held else None


def chunks(batches: Iterator[pa.RecordBatch], size: int) -> Iterator[pa.Table]:
    """Join batches, in order, into tables of at least `size` bytes whose columns have a single chunk.

    The last table may be smaller. No table is yielded if there is no batch.
    """
    held: list[pa.RecordBatch] = []
    room = size
    for batch in batches:
        held.append(batch)
        room -= batch.nbytes
        if room <= 0:
            yield pa.Table.from_batches(held).combine_chunks()
            held, room = [], size
    if held:
        yield pa.Table.from_batches(held).combine_chunks()


class Spill:
    """Tables kept on the worker's local disk, in an unnamed temporary file that disappears with the process.

    The file is in one of Spark's scratch folders (`spark.local.dir`). Raises StoreError if that disk is full.
    """

    def __init__(self) -> None:
        self._folder = local_folder()
        self._file: IO[bytes] | None = None
        self._writer: pa.RecordBatchStreamWriter | None = None

    def add(self, table: pa.Table) -> None:
        with store_errors(self._folder):
            if self._writer is None:
                self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - stays open after this call
                self._writer = pa.ipc.new_stream(self._file, table.schema)
            self._writer.write_table(table, max_chunksize=1 << 20)

    def tables(self) -> Iterator[pa.Table]:
        """Yield the added rows, at most 2^20 at a time."""
        if self._file is not None and self._writer is not None:
            with store_errors(self._folder):
                self._writer.close()
                self._file.seek(0)
                with pa.ipc.open_stream(self._file) as reader:
                    yield from (pa.Table.from_batches([batch]) for batch in reader)


def local_folder() -> str:
    """A scratch folder for this process: one of those that Spark assigns to a worker, else the system's."""
    folders = os.environ.get("SPARK_LOCAL_DIRS", "").split(",")
    return folders[os.getpid() % len(folders)] or tempfile.gettempdir()


def column(table: pa.Table | pa.RecordBatch, name: str) -> npt.NDArray[Any]:
    """Return a numeric column without nulls as an array."""
    values = table[name]
    if isinstance(values, pa.ChunkedArray):
        values = values.chunk(0) if values.num_chunks == 1 else values.combine_chunks()
    return np.asarray(values.to_numpy(zero_copy_only=False))


def _same(place: int) -> int:
    return place


def _step(work: Work, uri: str, tries: int, place: int, sent: Iterator[tuple[int, Any]]) -> Iterator[tuple[int, Any]]:
    """Run one place of one step.

    A GristmillError travels to the driver as data, because Spark would bury its message in a traceback.
    """
    failed: list[GristmillError] = []

    def batches() -> Iterator[pa.RecordBatch]:
        for _, data in sent:
            if isinstance(data, GristmillError):
                failed.append(data)
            else:
                yield _decode(data)

    try:
        with store_errors(uri):
            for target, batch in work(place, batches()):
                yield target, _encode(batch)
    except StoreError as error:
        if _attempt() < tries:
            raise  # a retry may succeed: on another node's disk, or after a short outage of the store
        failed.append(error)
    except GristmillError as error:
        failed.append(error)
    # Spark reuses a worker only if it has read all its input.
    failed += [data for _, data in sent if isinstance(data, GristmillError)]
    _freeze_libraries()
    yield from ((0, error) for error in failed)


def _attempt() -> int:
    """The number of this attempt at the task, from 1; 1 outside Spark."""
    from pyspark import TaskContext

    task: Any = TaskContext.get()
    return task.attemptNumber() + 1 if task else 1


@lru_cache(maxsize=1)
def _freeze_libraries() -> None:
    """Exempt the loaded libraries from garbage collection.

    Spark's daemon collects garbage after every task; scanning the libraries takes a tenth of a second, frees nothing.
    """
    gc.freeze()


def _encode(batch: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _decode(data: bytes) -> pa.RecordBatch:
    with pa.ipc.open_stream(data) as reader:
        return reader.read_next_batch()
