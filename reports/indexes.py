"""Finds documents among millions by the tables that the stages committed for it (`pipelines.spark.places` says how).

A look-up reads one row group of each table, several tables at a time, and never a whole file. What is kept in memory
between requests is bounded: what a page needs of manifests, for a minute, and the footers of the tables, which never
change.
"""

import threading
import time
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from contract.errors import DamagedError, StoreError
from contract.kinds import Kind
from contract.manifest import File, Manifest, Rows, parse
from contract.plan import WHOLE, Run, Task
from contract.stages import STAGES
from contract.store import Store
from contract.tables import reading

READERS = 8  # of S3 at once
TASKS, FRESH_S = 2048, 60.0  # committed tasks that are remembered, and for how long
FOOTERS = 1024  # a crawl of 60 segments has 610 tables
OBJECTS = 4096  # of S3 whose size is remembered
KEEPERS = ("score", "curate")  # stages that also list the documents that they kept
NAMED = set(File.model_fields)  # one for all files
T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True)
class Indexed:
    """A committed task that judges documents. files: those of its drops and documents, by name.

    cuts: the path of a documents file -> the cuts of its texts so far. matches: which documents share text with a
    benchmark.
    """

    stage: str
    partition: str
    prefix: str
    rows: Rows = field(compare=False)
    places: tuple[File, ...]
    addresses: tuple[File, ...]
    steps: tuple[File, ...]
    files: dict[str, File] = field(repr=False, compare=False)
    cuts: dict[str, File] = field(repr=False, compare=False)
    matches: tuple[File, ...] = field(repr=False, compare=False)

    @property
    def complete(self) -> bool:
        """Whether the index names all that the task dropped; a task of an older version has none."""
        lists = self.rows.dropped + (self.rows.kept if self.stage in KEEPERS else 0)
        return sum(file.rows for file in self.places) == lists


@dataclass(frozen=True)
class Place:
    """Where a document stands: in a file of drops if it has a reason, else in one of documents."""

    task: Indexed
    file: File
    row: int
    reason: str | None
    language: str | None


class _Remembered:
    """What pages need of manifests, the oldest forgotten first.

    A manifest never changes, but it may be deleted and made anew: after FRESH_S its time in the store is compared.
    """

    def __init__(self) -> None:
        self._held: OrderedDict[tuple[str, str], tuple[float, int, Indexed]] = OrderedDict()
        self._lock, self._parsing = threading.Lock(), threading.Lock()

    def known(self, store: Store, task: Task) -> Indexed | None:
        """What is remembered of a task and still fresh."""
        with self._lock:
            since, _, found = self._held.get((store.uri, task.prefix), (float("-inf"), 0, None))
        return found if found and time.monotonic() - since < FRESH_S else None

    def get(self, store: Store, task: Task) -> Indexed | None:
        """The committed task; None if it is not done."""
        if found := self.known(store, task):
            return found
        key, path = (store.uri, task.prefix), f"{task.prefix}/manifest.json"
        with self._lock:
            _, made, held = self._held.get(key, (0.0, 0, None))
        if held:
            entry = store.entry(path)
            if entry is None:
                return None
            if entry.modified == made:
                return self._keep(key, made, held)
        stored = store.read(path)
        if stored is None:
            return None
        with self._parsing:  # a large manifest takes tens of megabytes while it is parsed: one at a time
            found = self.known(store, task) or _indexed(task, parse(store, task.prefix, stored[1]))
        return self._keep(key, stored[0].modified, found)

    def _keep(self, key: tuple[str, str], made: int, found: Indexed) -> Indexed:
        with self._lock:
            self._held[key] = time.monotonic(), made, found
            self._held.move_to_end(key)
            while len(self._held) > TASKS:
                self._held.popitem(last=False)
        return found


_REMEMBERED = _Remembered()


def _indexed(task: Task, manifest: Manifest) -> Indexed:
    own = [file for file in manifest.files if file.path.startswith(f"{manifest.prefix}/")]
    named = [file for file in own if file.kind in (Kind.DROPS, Kind.DOCUMENTS)]
    kinds = Kind.PLACES, Kind.ADDRESSES, Kind.STEPS, Kind.MATCHES
    places, addresses, steps, matches = (tuple(manifest.of(kind)) for kind in kinds)
    files = {file.path.rpartition("/")[2]: _lean(file) for file in named}
    cut = {file.part: _lean(file) for file in manifest.of(Kind.CUTS)}
    cuts = {file.path: cut[file.part] for file in manifest.of(Kind.DOCUMENTS) if file.part in cut}
    known = manifest.rows, places, addresses, steps, files, cuts, matches
    return Indexed(task.stage, task.partition, task.prefix, *known)


def _lean(file: File) -> File:
    """The file without what only its verification needs: a run of a whole crawl has tens of thousands of files."""
    kept = {name: getattr(file, name) for name in ("path", "kind", "bytes", "rows", "part", "source")}
    return File.model_construct(NAMED, sha256="", **kept)


def judging(run: Run, stages: Iterable[str] | None = None) -> list[Task]:
    """The tasks of a run that judge documents, done or not, in pipeline order. stages: only these."""
    every = {stage.name for stage in STAGES.values() if stage.drops and stage.counts == "documents"}
    wanted = every if stages is None else every & {*stages}
    return [task for task in run.tasks().values() if task.stage in wanted]


def indexed(run: Run, stages: Iterable[str] | None = None) -> tuple[list[Indexed], list[str]]:
    """The committed tasks of a run that judge documents, in pipeline order, and a sentence on each that is unreadable.

    stages: only these.
    """
    tasks = judging(run, stages)

    def get(task: Task) -> Indexed | StoreError | None:
        try:
            return _REMEMBERED.get(run.store, task)
        except StoreError as error:
            return error

    held: list[Indexed | StoreError | None] = [_REMEMBERED.known(run.store, task) for task in tasks]
    unknown = [at for at, one in enumerate(held) if one is None]
    for at, one in zip(unknown, together(run.store, get, [tasks[at] for at in unknown]), strict=True):
        held[at] = one
    return [one for one in held if isinstance(one, Indexed)], [str(one) for one in held if isinstance(one, StoreError)]


def lacking(tasks: Iterable[Indexed]) -> list[str]:
    """A sentence on the stages whose results have no index, because an older version wrote them."""
    old = list(dict.fromkeys(task.stage for task in tasks if not task.complete))
    which = f"{', '.join(old[:-1])} and {old[-1]}" if len(old) > 1 else "".join(old)
    return (
        [f"What {which} dropped cannot be searched: an older version wrote it without an index. Start the run again."]
        if old
        else []
    )


def usable(run: Run) -> list[Indexed]:
    """The tasks of a run if their indexes name all documents that the run has seen, else none.

    That is so once every segment is scored by this version. The rows that stages after that keep stand in files of
    `score` and `curate`.
    """
    tasks, unreadable = indexed(run)
    scored = sum(task.stage == "score" for task in tasks)
    whole = scored == len(run.segments) and not unreadable and all(task.complete for task in tasks)
    return tasks if whole else []


def together(store: Store, work: Callable[[T], U], items: Sequence[T]) -> Iterator[U]:
    """`work(item)` of each, in order; on S3 several at a time, because it answers after tens of milliseconds.

    A disk answers at once, and threads would wait for each other: one after the other takes two thirds of the time.
    """
    if len(items) < 2:
        return map(work, items)
    done = list(_readers().map(work, items) if store.is_s3 else map(work, items))
    pa.default_memory_pool().release_unused()  # Arrow would keep what a large search took, for as long as the process
    return iter(done)


@lru_cache(maxsize=1)
def _readers() -> ThreadPoolExecutor:
    """Threads that wait for the store, the same for all requests: each thread keeps some memory of its own."""
    return ThreadPoolExecutor(READERS, thread_name_prefix="indexes")


@contextmanager
def opened(store: Store, file: File) -> Iterator[pa.NativeFile]:
    """A committed file to read from. Of an object its size is asked once, which is all that to open it does."""
    if store.is_s3:
        yield _object(store, file)
        return
    with file.open(store) as source:
        yield source


@lru_cache(maxsize=OBJECTS)
def _object(store: Store, file: File) -> pa.NativeFile:
    return file.open(store)


@lru_cache(maxsize=FOOTERS)
def _footer(store: Store, file: File) -> Any:
    with opened(store, file) as source, reading(store, file):
        return pq.read_metadata(source)


@lru_cache(maxsize=FOOTERS)
def _ranges(store: Store, file: File) -> list[tuple[Any, Any]]:
    footer = _footer(store, file)
    stats = [footer.row_group(at).column(0).statistics for at in range(footer.num_row_groups)]
    return [(one.min, one.max) for one in stats]


@dataclass(frozen=True)
class Table:
    """A sorted table of an index: PLACES or ADDRESSES, whose first column is the key."""

    task: Indexed
    file: File
    store: Store

    def ranges(self) -> list[tuple[Any, Any]]:
        """The smallest and the largest key of each row group."""
        return _ranges(self.store, self.file)

    def groups(self, low: Any, high: Any) -> list[int]:
        """The row groups that can hold a key from `low` to `high`, both included; None is no bound."""
        return [
            at
            for at, (first, last) in enumerate(self.ranges())
            if (low is None or last >= low) and (high is None or first <= high)
        ]

    def read(self, groups: Sequence[int], columns: Sequence[str] | None = None) -> pa.Table:
        """Columns of some row groups."""
        with self.opened() as table:
            return table.read_row_groups(list(groups), columns=list(columns) if columns else None, use_threads=False)

    @contextmanager
    def opened(self) -> Iterator[pq.ParquetFile]:
        """The file, for several reads."""
        with opened(self.store, self.file) as source, reading(self.store, self.file):
            footer = _footer(self.store, self.file)
            yield pq.ParquetFile(source, metadata=footer, page_checksum_verification=True, pre_buffer=self.store.is_s3)

    def place(self, row: dict[str, Any]) -> Place:
        """The place that a row of this table names. Raises DamagedError if the manifest has no such file."""
        file = self.task.files.get(row["file"])
        if file is None:
            raise DamagedError(
                f"{self.store.full(self.file.path)}: names a file that its manifest does not list; "
                f"delete {self.store.full(self.task.prefix)}/manifest.json and run {self.task.stage} again"
            )
        return Place(self.task, file, row["row"], row["reason"], row["language"])


def tables(store: Store, tasks: Iterable[Indexed], kind: Kind) -> list[Table]:
    """The tables of one order of some tasks."""
    return [
        Table(task, file, store) for task in tasks for file in (task.places if kind == Kind.PLACES else task.addresses)
    ]


def find(store: Store, tasks: Sequence[Indexed], ids: Sequence[str]) -> dict[str, list[Place]]:
    """Id -> the places of each of these documents, in the order of `tasks`. ids: of 32 hexadecimal digits.

    A document that `score` or `curate` has kept stands otherwise only in tables of its own segment and of the whole
    corpus, so that most tables need not be read. The segments' other tables are read for ids that neither has.
    """
    keys = sorted({bytes.fromhex(one) for one in ids})
    if not keys:
        return {}
    first = [task for task in tasks if task.stage in KEEPERS]
    whole = [task for task in tasks if task.partition == WHOLE and task not in first]
    found = _look_up(store, [*first, *whole], keys)
    segments = {place.task.partition for _, place in found if place.task in first}
    missing = {bytes.fromhex(key) for key, place in found if place.task in first}.symmetric_difference(keys)
    rest = [task for task in tasks if task not in first and task.partition != WHOLE]
    found += _look_up(store, [task for task in rest if missing or task.partition in segments], keys)
    order = {task.prefix: at for at, task in enumerate(tasks)}
    places: dict[str, list[Place]] = {}
    for key, place in sorted(found, key=lambda pair: order[pair[1].task.prefix]):
        places.setdefault(key, []).append(place)
    return places


def _look_up(store: Store, tasks: Sequence[Indexed], keys: Sequence[bytes]) -> list[tuple[str, Place]]:
    """The places of documents in the tables of some tasks. keys: ids as bytes, ascending."""

    def look(table: Table) -> list[tuple[str, Place]]:
        groups = [at for at, (low, high) in enumerate(table.ranges()) if _within(keys, low, high)]
        found: list[tuple[str, Place]] = []
        if groups:
            with table.opened() as opened:
                for group in groups:
                    found += _of_group(table, opened, group, keys)
        return found

    return [pair for pairs in together(store, look, tables(store, tasks, Kind.PLACES)) for pair in pairs]


def _of_group(table: "Table", opened: pq.ParquetFile, group: int, keys: Sequence[bytes]) -> list[tuple[str, Place]]:
    """The places that a row group has of some ids. The other columns are read only if it has any."""
    ids = opened.read_row_group(group, columns=["id"], use_threads=False)["id"]
    rows = [at for key in keys for at in range(*equal_range(ids, key))]
    if not rows:
        return []
    held = opened.read_row_group(group, use_threads=False).take(rows)
    return [(row["id"].hex(), table.place(row)) for row in held.to_pylist()]


def equal_range(ids: pa.ChunkedArray, key: bytes) -> tuple[int, int]:
    """The first and the last row plus one of an id among ascending ids of 16 bytes."""
    held = _as_numpy(ids)
    sought = np.bytes_(key)
    return int(np.searchsorted(held, sought, "left")), int(np.searchsorted(held, sought, "right"))


def _as_numpy(ids: pa.ChunkedArray) -> Any:
    data = ids.combine_chunks()
    if isinstance(data, pa.ChunkedArray):
        data = pa.concat_arrays(data.chunks) if data.num_chunks else pa.array([], pa.binary(16))
    return np.frombuffer(data.buffers()[1], "S16", len(data), data.offset * 16) if len(data) else np.zeros(0, "S16")


def at_address(store: Store, tasks: Sequence[Indexed], addresses: Iterable[str], most: int) -> list[Place]:
    """The places of documents whose sort-friendly address is one of these, at most `most`."""
    wanted = sorted({*addresses})

    def look(table: Table) -> list[Place]:
        groups = [at for at, (low, high) in enumerate(table.ranges()) if _within(wanted, low, high)]
        if not groups:
            return []
        held = table.read(groups)
        found = held.filter(pc.is_in(held["address"], value_set=pa.array(wanted, pa.string())))
        return [table.place(row) for row in found.slice(0, most).to_pylist()]

    return [place for some in together(store, look, tables(store, tasks, Kind.ADDRESSES)) for place in some][:most]


def _within(keys: Sequence[Any], low: Any, high: Any) -> bool:
    """Whether one of the ascending keys lies from `low` to `high`."""
    at = bisect_left(keys, low)
    return at < len(keys) and keys[at] <= high


def rows_at(store: Store, places: Sequence[Place], columns: Sequence[str]) -> list[dict[str, Any]]:
    """The rows at some places, in their order, with those of `columns` that they have. Reads only their row groups."""
    wanted: dict[str, list[int]] = {}
    for place in places:
        wanted.setdefault(place.file.path, []).append(place.row)
    files = {place.file.path: place.file for place in places}

    def look(path: str) -> dict[int, dict[str, Any]]:
        return _rows(store, files[path], wanted[path], columns)

    held = dict(zip(wanted, together(store, look, list(wanted)), strict=True))
    return [held[place.file.path][place.row] for place in places]


def _rows(store: Store, file: File, numbers: Sequence[int], columns: Sequence[str]) -> dict[int, dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    with opened(store, file) as source, reading(store, file):
        table = pq.ParquetFile(source, page_checksum_verification=True, pre_buffer=store.is_s3)
        starts = np.cumsum([0, *(table.metadata.row_group(at).num_rows for at in range(table.num_row_groups))])
        if min(numbers) < 0 or max(numbers) >= starts[-1]:
            raise DamagedError(f"{store.full(file.path)}: has no row {max(numbers):,}; {file.cure(store)}")
        names = [name for name in columns if name in table.schema_arrow.names]
        groups = np.searchsorted(starts, numbers, side="right") - 1
        for group in sorted({*groups.tolist()}):
            held = table.read_row_group(group, columns=names, use_threads=False)
            for number in (one for one, of in zip(numbers, groups.tolist(), strict=True) if of == group):
                found[number] = held.slice(number - int(starts[group]), 1).to_pylist()[0]
    return found
