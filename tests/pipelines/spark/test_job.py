"""What workers write and count, and what one tells of a store that fails under it."""

import errno
import io
import os
import pickle
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pytest

from contract.documents import Part, parts_of
from contract.errors import InputError, StoreError
from contract.manifest import Attempt, File, find, need
from contract.metrics import PROGRESS
from contract.schema import DOCUMENTS
from contract.store import Store
from contract.tables import read_rows
from pipelines.spark.documents import Counts, Output
from pipelines.spark.job import Job, _Guarded, _Reader
from pipelines.spark.session import computing, start_context, start_spark
from pipelines.spark.tables import TableWriter


class FullDisk(io.RawIOBase):
    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_what_workers_return_is_added_up_in_order(
    make_corpus: Any, make_document: Any, without_spark: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_corpus([[[make_document("text")]]])
    task = run.task("filter", run.segments[0].partition)
    job = Job(run, task, Attempt(run, task))
    names = []

    def work(item: int, name: str) -> Output:
        names.append(name)
        file = File(path=f"{item}", kind="documents", bytes=item)
        return Output([file] * item, Counts(read=item, kept=1), Counter(none=0, items=item), [Part(file)])

    output = job.map_files([3, 1, 2], work, "groups")
    assert [file.path for file in output.files] == ["3", "3", "3", "1", "2", "2"]
    assert [part.documents.path for part in output.parts] == ["3", "1", "2"]
    assert output.counts == Counts(read=6, kept=3)
    assert dict(output.metrics) == {"none": 0, "items": 6}
    assert [name.partition("-")[0] for name in names] == ["00000", "00001", "00002"]
    assert len(set(names)) == 3
    assert f" {task.partition} 3/3 groups " in capsys.readouterr().out.splitlines()[-1]
    assert job.map_files([], work) == Output()
    assert f" {task.partition} 0/0 files " in capsys.readouterr().out.splitlines()[-1]


def test_an_error_meant_for_people_leaves_as_itself(make_corpus: Any, make_document: Any, without_spark: Any) -> None:
    run = make_corpus([[[make_document("text")]]])
    task = run.task("filter", run.segments[0].partition)
    job = Job(run, task, Attempt(run, task))

    def work(item: int, name: str) -> Output:
        if item == 2:
            raise InputError("line 2 is broken")
        return Output()

    with pytest.raises(InputError, match=r"^line 2 is broken$"):
        job.map_files([1, 2], work)


def test_any_other_error_is_shown_where_it_happened(capsys: pytest.CaptureFixture[str]) -> None:
    """Spark passes on the last line only: the worker's log has the rest."""

    def work(item: int, name: str) -> Output:
        raise ZeroDivisionError(f"item {item}")

    with pytest.raises(ZeroDivisionError, match="item 7"):
        list(_Guarded(work, "file:///store")([(0, 7)]))
    assert "ZeroDivisionError: item 7" in capsys.readouterr().err


def test_a_crawl_file_that_changes_while_it_is_read_is_noticed_before_the_commit(
    tmp_path: Path, resolve_run: Any
) -> None:
    (tmp_path / "crawl").mkdir()
    (tmp_path / "crawl" / "a.warc").write_bytes(b"WARC/1.0 one")
    run = resolve_run(tmp_path / "crawl")
    task = run.task("crawl", run.segments[0].partition)
    job = Job(run, task, Attempt(run, task))
    (tmp_path / "crawl" / "a.warc").write_bytes(b"WARC/1.0 two")
    with pytest.raises(InputError, match=r"a.warc: the crawl file changed since the run was resolved; start a new run"):
        job.commit(Output())
    assert find(run.store, task) is None


def test_a_job_reads_and_commits_its_task(make_corpus: Any, make_document: Any) -> None:
    run = make_corpus([[[make_document("a")]], [[make_document("b")], []]])
    task = run.task("dedup_url")
    job = Job(run, task, Attempt(run, task))
    assert job.store == run.store
    assert job.settings == run.recipe.dedup_url
    assert job.prefix == f"{task.prefix}/{job.attempt.id}"
    assert [manifest.partition for manifest in job.manifests("filter")] == [one.partition for one in run.segments]
    assert [next(read_rows(run.store, file.path))["text"] for file in job.inputs("filter", "documents")] == ["a", "b"]
    parts = job.parts("filter")
    assert (job.parts(), job.manifests()) == (parts, job.manifests("filter")), "the row's first input"
    assert [next(read_rows(run.store, part.documents.path))["text"] for part in parts] == ["a", "b"]
    assert job.inputs("filter", "drops") == []
    assert [(level.stage, level.kept) for level in job.funnel()] == [("filter", 2)]
    made = job.commit(Output([], Counts(read=3, kept=2, reasons=Counter(duplicate_url=1)), parts=parts))
    assert [(file.path, file.part) for file in made.files] == [
        (part.documents.path, at) for at, part in enumerate(parts)
    ]
    assert parts_of(made) == [Part(part.documents.model_copy(update={"part": at})) for at, part in enumerate(parts)], (
        "numbered anew, as two segments have both a part 0"
    )
    assert (made.rows.read, made.rows.kept, made.rows.dropped, made.metrics) == (3, 2, 1, {})
    assert need(run.store, task) == made


def test_spark_on_this_machine_listens_to_it_alone(make_corpus: Any, make_document: Any, spark_stops: None) -> None:
    run = make_corpus([[[make_document("text")]]])
    start_spark(run, run.task("mix"))
    processes = psutil.Process().children(recursive=True)
    listening = [
        one.laddr for process in processes for one in process.net_connections("inet") if one.status == "LISTEN"
    ]
    assert len(listening) >= 3, "Py4J, the driver, its block manager"
    assert {one.ip.removeprefix("::ffff:") for one in listening} == {"127.0.0.1"}


def test_a_worker_encodes_on_its_own_core_alone(make_corpus: Any, make_document: Any, spark_stops: None) -> None:
    """There is a worker for each core; threads of the tokenizers library would take the others' cores."""
    run = make_corpus([[[make_document("text")]]])
    context = start_context(run, run.task("pack"))
    seen = context.parallelize([0, 1], 2).map(lambda _: os.environ.get("TOKENIZERS_PARALLELISM")).collect()
    assert seen == ["false", "false"]
    assert "TOKENIZERS_PARALLELISM" not in os.environ, "the stage tokenizer trains on all cores"


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
