"""What a step's worker writes to its own disk, and how a disk that is full under a step is told."""

import contextlib
import errno
import os
import re
import resource
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from contract.errors import StoreError
from contract.manifest import Attempt
from pipelines import exchange
from pipelines.exchange import Sent, Spill
from pipelines.job import Job
from pipelines.session import is_local, worker_errors

Batches = Iterator[pa.RecordBatch]
LIMIT = 64 << 10


@pytest.fixture
def context(make_corpus: Any, spark_stops: None) -> Any:
    run = make_corpus([[[]]])
    task = run.task("dedup_url")
    return Job(run, task, Attempt(run, task)).context


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
