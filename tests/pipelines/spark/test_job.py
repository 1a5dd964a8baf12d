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
import pyarrow.parquet as pq
import pytest

from contract.errors import InputError, StoreError
from contract.manifest import Attempt, File, find, need
from contract.manifest import Rows as ManifestRows
from contract.metrics import PROGRESS
from contract.schema import DOCUMENTS, Drop
from contract.store import Store
from contract.tables import read_rows
from pipelines.spark.job import Counts, DocumentSink, Job, Output, TableWriter, _Guarded, _Reader, group_rows
from pipelines.spark.session import computing, start_spark
from pipelines.spark.survivors import number


class FullDisk(io.RawIOBase):
    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_counts_add_up() -> None:
    one = Counts(5, 2, 50, 20, Counter(language=2, top_ngram=1), Counter(damaged=1))
    other = Counts(7, 6, 70, 60, Counter(language=1), Counter(damaged=2, other=4))
    assert one + other == Counts(
        12, 8, 120, 80, Counter(language=3, top_ngram=1), Counter(damaged=3, other=4)
    )  # fmt: skip
    assert (one + other).rows() == ManifestRows(
        read=12, kept=8, dropped=4, bytes_read=120, bytes_kept=80, reasons={"language": 3, "top_ngram": 1}, losses={"damaged": 3, "other": 4}
    )  # fmt: skip
    assert Counts() == Counts(0, 0, 0, 0, Counter(), Counter())


def groups_of(store: Store, path: str) -> list[int]:
    """The rows of each row group."""
    with store.open_input(path) as source:
        metadata = pq.ParquetFile(source).metadata
        return [metadata.row_group(at).num_rows for at in range(metadata.num_row_groups)]


@pytest.mark.parametrize(
    ("sizes", "groups"),
    [
        ([0] * 7, [3, 3, 1]),
        ([0] * 3, [3]),
        ([4, 6, 9, 1, 0], [2, 2, 1]),
        ([10, 10], [1, 1]),
        ([9], [1]),
        ([3, 3, 3, 5], [3, 1]),
    ],
)
def test_rows_are_written_before_they_fill_the_memory(
    sizes: list[int], groups: list[int], tmp_store: Store, make_document: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.spark.job.BATCH_ROWS", 3)
    monkeypatch.setattr("pipelines.spark.job.BATCH_BYTES", 10)
    sinks: list[Any] = []
    opened = Store.open_output
    monkeypatch.setattr(Store, "open_output", lambda *given: sinks.append(opened(*given)) or sinks[-1])
    writer = TableWriter(tmp_store, "a.parquet", "documents", DOCUMENTS)
    rows = [make_document(f"text {at}") for at in range(len(sizes))]
    for row, size in zip(rows, sizes, strict=True):
        writer.write(row, size)
    (file,) = writer.close()
    assert (file.path, file.kind, file.rows) == ("a.parquet", "documents", len(rows))
    assert [sink.closed for sink in sinks] == [True], "an object store has nothing before"
    assert file.bytes == len(tmp_store.read_bytes("a.parquet"))
    assert list(read_rows(tmp_store, "a.parquet")) == rows
    assert groups_of(tmp_store, "a.parquet") == groups


def test_tables_and_rows_are_written_in_their_order(tmp_store: Store, make_document: Any) -> None:
    rows = [make_document(f"text {at}") for at in range(4)]
    writer = TableWriter(tmp_store, "a.parquet", "documents", DOCUMENTS)
    writer.write(rows[0])
    writer.write_table(pa.Table.from_pylist(rows[1:3], DOCUMENTS))
    writer.write_table(pa.Table.from_pylist([], DOCUMENTS))
    writer.write(rows[3])
    (file,) = writer.close()
    assert file.rows == 4
    assert list(read_rows(tmp_store, "a.parquet")) == rows
    assert groups_of(tmp_store, "a.parquet") == [1, 2, 1]


def test_no_rows_no_file(tmp_store: Store) -> None:
    writer = TableWriter(tmp_store, "a.parquet", "documents", DOCUMENTS)
    writer.write_table(pa.Table.from_pylist([], DOCUMENTS))
    assert writer.close() == []
    assert list(tmp_store.files("")) == []


def test_columns_and_batches_that_are_read(tmp_store: Store, make_document: Any) -> None:
    writer = TableWriter(tmp_store, "a.parquet", "documents", DOCUMENTS)
    for at in range(5):
        writer.write(make_document(f"text {at}"))
    writer.close()
    assert [*read_rows(tmp_store, "a.parquet", ["text"], 2)] == [{"text": f"text {at}"} for at in range(5)]
    assert {*next(read_rows(tmp_store, "a.parquet"))} == {*DOCUMENTS.names}


def test_every_document_leaves_through_the_sorter(tmp_store: Store, make_document: Any) -> None:
    sink = DocumentSink(tmp_store, "stage/try", "filter", "00003-0123abcd")
    rows = [make_document(f"{at} " + "x" * 300) for at in range(5)]
    sink.keep(rows[0], 100)
    sink.keep(rows[1], 70, 90)
    sink.keep(rows[2], 5, 0)
    sink.drop(rows[3], "top_ngram", 0.123456, 40)
    sink.drop({"id": "x", "text": None}, Drop.LANGUAGE, "de 0.50", duplicate_of="y")
    sink.drop(rows[4] | {"url": None}, Drop.LANGUAGE, 12345, 2, snippet="")
    sink.lose("damaged")
    sink.lose("damaged", 3)
    output = sink.close()
    kept, dropped = output.files
    assert [file.path for file in output.files] == [
        f"stage/try/{kind}-00003-0123abcd.parquet" for kind in ("documents", "drops")
    ]
    assert [(file.kind, file.rows) for file in output.files] == [("documents", 3), ("drops", 3)]
    assert list(read_rows(tmp_store, kept.path)) == rows[:3]
    assert [tuple(row.values()) for row in read_rows(tmp_store, dropped.path)] == [
        (rows[3]["id"], rows[3]["url"], "filter", "top_ngram", "0.1235", None, rows[3]["text"][:200]),
        ("x", None, "filter", "language", "de 0.50", "y", ""),
        (rows[4]["id"], None, "filter", "language", "12345", None, ""),
    ]
    assert output.counts == Counts(6, 3, 232, 175, Counter(top_ngram=1, language=2), Counter(damaged=4))


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
        return Output([file] * item, Counts(read=item, kept=1), Counter(none=0, items=item))

    output = job.map_files([3, 1, 2], work, "groups")
    assert [file.path for file in output.files] == ["3", "3", "3", "1", "2", "2"]
    assert output.counts == Counts(read=6, kept=3)
    assert dict(output.metrics) == {"none": 0, "items": 6}
    assert [name.partition("-")[0] for name in names] == ["00000", "00001", "00002"]
    assert all(number(File(path=f"x-{name}.parquet", kind="documents", bytes=0)) == at for at, name in enumerate(names))
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
    assert job.inputs("filter", "drops") == []
    made = job.commit(Output([], Counts(read=3, kept=2, reasons=Counter(duplicate_url=1))), clusters=7)
    assert (made.rows.read, made.rows.kept, made.rows.dropped, made.metrics) == (3, 2, 1, {"clusters": 7})
    assert need(run.store, task) == made


@pytest.mark.parametrize(
    ("rows", "groups"),
    [([4, 4, 4], [[4, 4], [4]]), ([10], [[10]]), ([5, 5, 1], [[5, 5], [1]]), ([11, 1], [[11], [1]]), ([], []), ([9, 1, 0, 1], [[9, 1, 0], [1]])],
)  # fmt: skip
def test_small_files_share_a_task(rows: list[int], groups: list[list[int]]) -> None:
    files = [File(path=f"{at}", kind="documents", bytes=0, rows=count) for at, count in enumerate(rows)]
    found = group_rows(files, 10)
    assert [[file.rows for file in group] for group in found] == groups
    assert [file for group in found for file in group] == files


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
