"""What a worker tells of a store that fails under it."""

import errno
import io
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pytest

from contract.errors import StoreError
from contract.manifest import Attempt
from contract.metrics import PROGRESS
from contract.store import Store
from pipelines.job import Job, Output, TableWriter, _Guarded, _Reader
from pipelines.schema import DOCUMENTS
from pipelines.session import computing, start_spark


class FullDisk(io.RawIOBase):
    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_spark_on_this_machine_listens_to_it_alone(make_corpus: Any, make_document: Any, spark_stops: None) -> None:
    run = make_corpus([[[make_document("text")]]])
    start_spark(run, run.task("mix"))
    processes = psutil.Process().children(recursive=True)
    listening = [
        one.laddr for process in processes for one in process.net_connections("inet") if one.status == "LISTEN"
    ]
    assert len(listening) >= 3, "Py4J, the driver, its block manager"
    assert {one.ip.removeprefix("::ffff:") for one in listening} == {"127.0.0.1"}


def test_a_full_disk_is_one_clear_line(
    tmp_path: Path, make_document: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(str(tmp_path))
    folder = f"mix/{'0' * 40}/all/attempt-1"
    monkeypatch.setattr(Store, "open_output", lambda *_: pa.PythonFile(FullDisk(), "w"))

    def work(item: str, name: str) -> Output:
        writer = TableWriter(store, name, "documents", DOCUMENTS)
        writer.write(make_document(item))
        return Output(writer.close())

    (error,) = _Guarded(work, store.full(folder))([(0, "text")])
    assert isinstance(error, StoreError)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert str(error).startswith(f"{store.uri}/{folder}: the disk is full")
    assert str(error).endswith(f": python -m contract gc --store {store.uri} --delete")
    assert "\n" not in str(error)
    assert capsys.readouterr().err == "", "no traceback before it"


def test_a_file_that_cannot_be_read_is_one_clear_line(tmp_path: Path) -> None:
    def read(item: str, number: int) -> Iterator[pa.RecordBatch]:
        with Store(str(tmp_path)).open_input("folder") as source:
            yield pa.record_batch({"bytes": [source.read()]})

    (tmp_path / "folder").mkdir()
    numbers = pa.record_batch({"id": [0]})
    with pytest.raises(StoreError, match=r"^[^\n]*folder[^\n]*$"):
        list(_Reader(["folder"], read, "file:///store")(iter([numbers])))

    def broken(item: str, number: int) -> Iterator[pa.RecordBatch]:
        yield numbers
        raise OSError(5, "Input/output error")

    found = _Reader(["x"], broken, "file:///store/mix")(iter([numbers]))
    assert next(found) is numbers
    with pytest.raises(StoreError, match=r"^file:///store/mix: .*Input/output error"):
        next(found)


def test_spark_collects_without_a_limit_and_tells_progress_of_what_it_computes(
    make_corpus: Any, spark_stops: None, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_corpus([[[]]])
    task = run.task("dedup_url")
    job = Job(run, task, Attempt(run, task))
    assert job.context.getConf().get("spark.driver.maxResultSize") == "0"
    with computing(job.context, task):
        assert job.spark.range(10, numPartitions=3).count() == 10
    *_, last = capsys.readouterr().out.splitlines()
    found = PROGRESS.match(last)
    assert found is not None
    assert (found["stage"], found["partition"], found["unit"]) == ("dedup_url", "all", "tasks")
    assert int(found["done"]) >= 3
