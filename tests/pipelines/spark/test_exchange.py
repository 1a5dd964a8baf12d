"""What a step's worker writes to its own disk, and how a disk that is full under a step is told."""

import contextlib
import errno
import os
import re
import resource
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from contract.errors import InputError, StoreError
from contract.manifest import Attempt
from pipelines.spark import exchange
from pipelines.spark.exchange import Sent, Spill
from pipelines.spark.job import Job
from pipelines.spark.session import is_local, worker_errors

Batches = Iterator[pa.RecordBatch]
LIMIT = 64 << 10


@pytest.fixture
def context(make_corpus: Any, spark_stops: None) -> Any:
    run = make_corpus([[[]]])
    task = run.task("dedup_url")
    return Job(run, task, Attempt(run, task)).context


def numbers(*values: int) -> pa.RecordBatch:
    return pa.record_batch({"n": np.array(values, np.int64)})


@pytest.mark.parametrize(
    ("places", "sent"),
    [
        ([2, 0, 2, 1, 0], [(0, [1, 4]), (1, [3]), (2, [0, 2])]),
        ([1, 1], [(1, [0, 1])]),
        ([0], [(0, [0])]),
        ([7, 1], [(1, [1]), (7, [0])]),
        ([], []),
    ],
)
def test_rows_go_to_their_places_in_order(places: list[int], sent: list[tuple[int, list[int]]]) -> None:
    found = exchange.split_by_place(numbers(*range(len(places))), np.array(places, np.int64))
    assert [(place, batch["n"].to_pylist()) for place, batch in found] == sent


def test_batches_become_one_table() -> None:
    table = exchange.gather(iter([numbers(1, 2), numbers(3)]))
    assert table is not None
    assert table["n"].num_chunks == 1
    assert exchange.column(table, "n").tolist() == [1, 2, 3]
    assert exchange.gather(iter([])) is None
    two = pa.concat_tables([table, table.slice(2)])
    assert exchange.column(two, "n").tolist() == [1, 2, 3, 3]
    assert exchange.column(numbers(5), "n").tolist() == [5]


@pytest.mark.parametrize(
    ("size", "tables"),
    [(24, [[0, 1, 2], [3, 4]]), (25, [[0, 1, 2, 3], [4]]), (16, [[0, 1], [2, 3], [4]]), (8, [[0], [1], [2], [3], [4]]), (41, [[0, 1, 2, 3, 4]]), (40, [[0, 1, 2, 3, 4]])],
)  # fmt: skip
def test_tables_of_some_bytes(size: int, tables: list[list[int]]) -> None:
    """Eight bytes a batch."""
    found = list(exchange.chunks((numbers(at) for at in range(5)), size))
    assert [table["n"].to_pylist() for table in found] == tables
    assert {table["n"].num_chunks for table in found} == {1}
    assert list(exchange.chunks(iter([]), size)) == []


def test_steps_follow_one_another(without_spark: Any) -> None:
    """Each number goes to the place of its remainder, and there to the place of its double."""

    def first(place: int, batches: Batches) -> Iterator[Sent]:
        assert list(batches) == []
        yield from exchange.split_by_place(numbers(place, place + 3), np.array([place, place + 3]) % 2)

    def second(place: int, batches: Batches) -> Iterator[Sent]:
        for batch in batches:
            assert {one % 2 for one in batch["n"].to_pylist()} == {place}
            yield 0, batch

    def third(place: int, batches: Batches) -> Iterator[Sent]:
        for batch in batches:
            yield place, numbers(*(2 * one for one in batch["n"].to_pylist()))

    def read(steps: list[Any]) -> list[int]:
        return sorted(one for batch in exchange.shuffle(without_spark, steps) for one in batch["n"].to_pylist())

    assert read([(3, first), (2, second), (1, third)]) == [0, 2, 4, 6, 8, 10]
    assert read([(3, first)]) == [0, 1, 2, 3, 4, 5]
    assert read([]) == []
    assert exchange.shuffle(without_spark, [(0, second)]) == []


@pytest.mark.parametrize("places", [0, 1])
def test_a_step_has_a_place_even_where_there_is_no_work(places: int, without_spark: Any) -> None:
    seen: list[int] = []

    def step(place: int, batches: Batches) -> Iterator[Sent]:
        seen.append(place)
        yield from ()

    exchange.shuffle(without_spark, [(places, step), (places, step)])
    assert seen == [0, 0]


def test_an_error_meant_for_people_stops_the_steps(without_spark: Any) -> None:
    def breaks(place: int, batches: Batches) -> Iterator[Sent]:
        yield 0, numbers(place)
        raise InputError("line 2 is broken")

    def passes(_: int, batches: Batches) -> Iterator[Sent]:
        yield from ((0, batch) for batch in batches)

    for steps in ([(1, breaks)], [(1, breaks), (2, passes)]):
        with pytest.raises(InputError, match=r"^line 2 is broken$"):
            exchange.shuffle(without_spark, steps)


@pytest.mark.parametrize(("master", "failures", "tries"), [("local[2]", "9", 1), ("yarn", None, 4), ("yarn", "2", 2)])
def test_spark_says_how_often_it_tries(
    master: str, failures: str | None, tries: int, without_spark: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_spark.master = master
    without_spark.getConf = lambda: SimpleNamespace(get=lambda _, usual: failures or usual)
    seen: list[Any] = []
    monkeypatch.setattr(exchange, "_step", lambda *given: seen.append(given[2]) or ())
    exchange.shuffle(without_spark, [(1, lambda *_: iter(()))])
    assert seen == [tries]


def test_a_worker_takes_one_of_the_folders_that_spark_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARK_LOCAL_DIRS", "/a,/b,/c")
    for process, folder in ((3, "/a"), (4, "/b"), (8, "/c")):
        monkeypatch.setattr("os.getpid", lambda process=process: process)
        assert exchange.local_folder() == folder


def test_outside_of_spark_a_task_is_started_once() -> None:
    assert exchange._attempt() == 1


def test_libraries_are_no_garbage(monkeypatch: pytest.MonkeyPatch) -> None:
    frozen: list[int] = []
    monkeypatch.setattr("gc.freeze", lambda: frozen.append(1))
    exchange._freeze_libraries.cache_clear()
    for _ in range(2):
        list(exchange._step(lambda *_: iter(()), "the store", 1, 0, iter(())))
    assert frozen == [1]


def test_what_waits_on_the_disk_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARK_LOCAL_DIRS", f"{tmp_path},{tmp_path}")
    files: list[Any] = []
    make = tempfile.TemporaryFile
    monkeypatch.setattr("tempfile.TemporaryFile", lambda **given: files.append(make(**given)) or files[-1])
    spill = Spill()
    assert list(spill.tables()) == []
    for start in (0, 5):
        spill.add(pa.table({"n": np.arange(start, start + 5)}))
    (file,) = files
    assert Path(os.readlink(f"/proc/self/fd/{file.fileno()}")).parent == tmp_path
    assert list(tmp_path.iterdir()) == [], "it has no name that would outlive a killed worker"
    assert [n for table in spill.tables() for n in table["n"].to_pylist()] == list(range(10))


def test_outside_of_spark_it_is_the_systems_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPARK_LOCAL_DIRS", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert exchange.local_folder() == str(tmp_path)


def test_spark_names_its_folder_to_the_workers(context: Any) -> None:
    def work(place: int, _: Batches) -> Iterator[Sent]:
        yield 0, pa.record_batch({"folder": [exchange.local_folder()]})

    (folder,) = {row["folder"] for batch in exchange.shuffle(context, [(2, work)]) for row in batch.to_pylist()}
    assert re.search(r"/blockmgr-[0-9a-f-]+$", folder)
    assert Path(folder).is_dir()


@pytest.mark.parametrize("rows", [100, 100_000])
def test_a_spill_that_the_disk_does_not_take_is_one_clear_line(rows: int, context: Any) -> None:
    """A limit on the size of files stands in for the disk's end: some files fit, some do not."""

    def spilling(place: int, _: Batches) -> Iterator[Sent]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, before[1]))
        try:
            spill = Spill()
            spill.add(pa.table({"n": np.arange(rows)}))
            total = sum(table.num_rows for table in spill.tables())
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        yield place, pa.record_batch({"rows": [total]})

    def after(_: int, batches: Batches) -> Iterator[Sent]:
        yield from ((0, batch) for batch in batches)

    steps = [(2, spilling), (2, after)]
    if rows * 8 < LIMIT:
        assert [batch.to_pylist() for batch in exchange.shuffle(context, steps)] == [[{"rows": rows}]] * 2
    else:
        with pytest.raises(StoreError, match=rf"^[^\n]*/blockmgr-[^\n]*{os.strerror(errno.EFBIG)}[^\n]*$"):
            exchange.shuffle(context, steps, "file:///store/x")


def test_an_error_that_nobody_read_is_not_lost() -> None:
    def stops_early(_: int, batches: Batches) -> Iterator[Sent]:
        yield from ()

    sent = [(0, exchange._encode(pa.record_batch({"n": [1]}))), (0, StoreError("the disk is full"))]
    (told,) = exchange._step(stops_early, "file:///store/x", 1, 0, iter(sent))
    assert (told[0], str(told[1])) == (0, "the disk is full")


@pytest.mark.parametrize(
    ("master", "local"),
    [("local", True), ("local[2]", True), ("local[*]", True), ("local-cluster[2,1,1024]", False), ("yarn", False)],
)
def test_where_spark_tries_once(master: str, local: bool) -> None:
    assert is_local(master) is local


@pytest.mark.parametrize(("tries", "told"), [(1, 1), (2, 0)])
def test_a_store_error_is_told_on_the_last_try(tries: int, told: int) -> None:
    def fails(_: int, batches: Batches) -> Iterator[Sent]:
        yield 0, pa.record_batch({"n": [1]})
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    seen = []
    with contextlib.suppress(StoreError):
        seen = list(exchange._step(fails, "file:///store/x", tries, 0, iter(())))
    assert sum(isinstance(data, StoreError) for _, data in seen) == told


@pytest.mark.parametrize("at", [0, 1])
def test_a_store_that_is_full_is_one_clear_line(at: int, context: Any) -> None:
    def fails(_: int, batches: Batches) -> Iterator[Sent]:
        yield 0, pa.record_batch({"n": [1]})
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def passes(_: int, batches: Batches) -> Iterator[Sent]:
        yield from ((0, batch) for batch in batches)

    steps = [(2, fails if step == at else passes) for step in range(2)]
    with pytest.raises(StoreError, match=r"^file:///store/x: the disk is full; free space[^\n]*$"):
        exchange.shuffle(context, steps, "file:///store/x")


def test_arrow_says_what_it_could_not_read(context: Any, tmp_path: Path) -> None:
    (tmp_path / "torn").write_bytes(b"PAR1")

    def reads(_: int, batches: Batches) -> Iterator[Sent]:
        import pyarrow.parquet as pq

        yield 0, pq.read_table(str(tmp_path / "torn")).to_batches()[0]

    with pytest.raises(StoreError, match=r"^file:///store/x: [^\n]*Parquet[^\n]*$"):
        exchange.shuffle(context, [(1, reads)], "file:///store/x")


def test_a_disk_that_is_full_under_spark_itself_is_one_clear_line() -> None:
    with pytest.raises(StoreError, match=r"^spark\.local\.dir: the disk is full[^\n]*$"), worker_errors():
        raise RuntimeError(
            "An error occurred\n: org.apache.spark.SparkException: ...\njava.io.IOException: No space left on device\n"
        )
    with pytest.raises(StoreError, match=r"^store: No space left on device$"), worker_errors():
        raise StoreError("store: No space left on device")
