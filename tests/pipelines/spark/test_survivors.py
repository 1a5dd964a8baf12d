"""What the stages that only drop documents write, and who reads it: no document is lost, none is read that nobody drops."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract.manifest import Attempt, File
from contract.schema import DOCUMENTS, Drop
from contract.store import Store
from contract.tables import read_rows
from pipelines.spark import survivors
from pipelines.spark.job import DocumentSink, Job, TableWriter
from pipelines.spark.survivors import (
    REMOVED,
    Duplicate,
    Part,
    _read_removed,
    _rows_of,
    _write_removed,
    drop_duplicates,
    dropped_ids,
    number,
    parts,
    write_removed,
)

Rows = list[dict[str, Any]]


def stored(store: Store, name: str, rows: Rows) -> File:
    """A documents file of these rows, two in a row group."""
    with store.open_output(f"{name}.parquet") as sink:
        pq.write_table(pa.Table.from_pylist(rows, DOCUMENTS), sink, row_group_size=2)
    return File(path=f"{name}.parquet", kind="documents", bytes=store.size(f"{name}.parquet"), rows=len(rows))


def dropped(store: Store, folder: str, index: int, rows: Rows) -> File:
    """The drops file that a stage wrote for the documents file of this position."""
    sink = DocumentSink(store, folder, "dedup_url", f"{index:05d}-0123abcd")
    for row in rows:
        sink.drop(row, Drop.DUPLICATE_URL)
    (file,) = sink.close().files
    return file


def removed(store: Store, index: int, rows: Mapping[str, tuple[str, str]]) -> File:
    writer = TableWriter(store, f"removed/{index:05d}-0123abcd.parquet", "removed", REMOVED)
    for key, (stays, group) in rows.items():
        writer.write({"id": key, "stays": stays, "group": group})
    (file,) = writer.close()
    return file


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a/drops-00000-0123abcd.parquet", 0),
        ("a/removed-1/drops-00012-deadbeef.parquet", 12),
        ("x-123456-00000000.parquet", 123456),
    ],
)
def test_a_files_name_says_which_work_wrote_it(path: str, expected: int) -> None:
    assert number(File(path=path, kind="drops", bytes=0)) == expected


@pytest.mark.parametrize("path", ["drops.parquet", "drops-0001-0123abcd.parquet", "drops-00001-0123abcd.parquet.tmp"])
def test_a_name_of_no_work_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match=f"^{path} was not written under a name that map_files gave$"):
        number(File(path=path, kind="drops", bytes=0))


def test_a_part_has_what_every_stage_left_of_it(tmp_store: Store, make_document: Any) -> None:
    rows = [make_document(f"text {at}") for at in range(5)]
    file = stored(tmp_store, "documents", rows)
    part = Part(file, (dropped(tmp_store, "dedup_url", 0, rows[:2]), dropped(tmp_store, "dedup_fuzzy", 0, rows[4:])))
    assert part.alive == 2
    assert dropped_ids(tmp_store, part) == {row["id"] for row in (rows[0], rows[1], rows[4])}
    assert (Part(file).alive, dropped_ids(tmp_store, Part(file))) == (5, set())


def test_drops_are_joined_with_the_documents_file_of_their_number(make_document: Any, make_corpus: Any) -> None:
    """Numbers run through all segments, and a stage writes nothing for a file that loses nothing."""
    rows = [make_document(f"text {at}") for at in range(4)]
    run = make_corpus([[[rows[0]], [rows[1]]], [[rows[2]], [rows[3]]]])
    for stage, indices in (("dedup_url", (3, 1)), ("dedup_fuzzy", (3,))):
        attempt = Attempt(run, run.task(stage))
        attempt.commit(
            [dropped(run.store, f"{attempt.prefix}/{attempt.id}", index, [rows[index]]) for index in indices]
        )
    task = run.task("dedup_substring")
    job = Job(run, task, Attempt(run, task))
    found = parts(job, "dedup_url", "dedup_fuzzy")
    assert [next(read_rows(run.store, part.documents.path))["id"] for part in found] == [row["id"] for row in rows]
    assert [[file.path.partition("/")[0] for file in part.drops] for part in found] == [
        [], ["dedup_url"], [], ["dedup_url", "dedup_fuzzy"],
    ]  # fmt: skip
    assert [[number(file) for file in part.drops] for part in found] == [[], [1], [], [3, 3]]
    assert [len(part.drops) for part in parts(job, "dedup_fuzzy")] == [0, 0, 0, 1]
    assert [part.drops for part in parts(job)] == [()] * 4


class Frame:
    """Stands in for a Spark frame: its batches as they are, in one partition."""

    def __init__(self, *batches: Rows) -> None:
        self._batches = [pa.RecordBatch.from_pylist(rows) for rows in batches]

    def repartition(self, _: str) -> "Frame":
        return self

    def sortWithinPartitions(self, *_: str) -> "Frame":
        return self

    def mapInArrow(self, work: Any, _: str) -> Any:
        found = [row for batch in work(iter(self._batches)) for row in batch.to_pylist()]
        return SimpleNamespace(collect=lambda: found)


def line(file: int, key: str) -> dict[str, Any]:
    return {"group": "g", "file": file, "stays": f"not {key}", "id": key}


@pytest.mark.parametrize("first", [0, 1])
def test_removed_documents_of_each_file_in_a_file_of_their_own(tmp_store: Store, first: int) -> None:
    frame = Frame([line(first, "a"), line(first, "b"), line(4, "c")], [line(4, "d")], [line(7, "e")])
    found = write_removed(SimpleNamespace(store=tmp_store, prefix="stage/try"), frame)  # type: ignore[arg-type]
    assert {at: [row["id"] for row in read_rows(tmp_store, file.path)] for at, file in found.items()} == {
        first: ["a", "b"], 4: ["c", "d"], 7: ["e"],
    }  # fmt: skip
    assert {at: (file.kind, file.bytes, file.rows) for at, file in found.items()} == {
        first: ("removed", 0, 2), 4: ("removed", 0, 2), 7: ("removed", 0, 1),
    }  # fmt: skip
    assert all(file.path.startswith("stage/try/removed/") for file in found.values())
    assert all(
        number(File(path=file.path.replace("removed/", "removed/x-"), kind="removed", bytes=0)) == at
        for at, file in found.items()
    )
    assert _read_removed(tmp_store, found[4]) == {"c": Duplicate("not c", "g"), "d": Duplicate("not d", "g")}


def test_nothing_removed_writes_nothing(tmp_store: Store) -> None:
    assert list(_write_removed(tmp_store, "stage", iter([]))) == []
    assert list(tmp_store.files("stage")) == []


def test_only_row_groups_that_lose_a_document_are_read(
    tmp_store: Store, make_document: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [make_document(f"text {at}", name=str(at)) for at in range(7)]
    file = stored(tmp_store, "documents", rows)
    read: list[tuple[int, list[str]]] = []
    real = pq.ParquetFile.read_row_group

    def spy(self: Any, group: int, columns: list[str]) -> Any:
        read.append((group, columns))
        return real(self, group, columns)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", spy)
    found = list(_rows_of(tmp_store, file, {rows[3]["id"], rows[6]["id"]}))
    assert found == [{name: rows[at][name] for name in ("id", "url", "text")} for at in (3, 6)]
    assert [group for group, columns in read if columns == ["id"]] == [0, 1, 2, 3]
    assert [group for group, columns in read if "text" in columns] == [1, 3]


def test_duplicates_leave_and_are_counted(make_document: Any, make_corpus: Any, without_spark: Any) -> None:
    rows = [make_document(f"text {at} \u00e9", name=str(at)) for at in range(6)]
    run = make_corpus([[rows[:3], rows[3:]]])
    task = run.task("dedup_fuzzy")
    job = Job(run, task, Attempt(run, task))
    first, second = job.inputs("filter", "documents")
    inputs = [Part(first), Part(second, (dropped(run.store, "dedup_url", 1, rows[5:]),))]
    keys = [row["id"] for row in rows]
    plan = {1: removed(run.store, 1, {keys[4]: (keys[0], "group")})}
    output = drop_duplicates(job, inputs, plan, Drop.NEAR_DUPLICATE, lambda row, group: f"{group} {row['url']}", 1000)
    (file,) = output.files
    assert (file.kind, file.rows, number(file)) == ("drops", 1, 1)
    assert list(read_rows(run.store, file.path)) == [
        {
            "id": keys[4],
            "url": rows[4]["url"],
            "stage": "dedup_fuzzy",
            "reason": "near_duplicate",
            "value": f"group {rows[4]['url']}",
            "duplicate_of": keys[0],
            "snippet": rows[4]["text"],
        }
    ]
    counts = output.counts
    assert (counts.read, counts.kept, dict(counts.reasons)) == (5, 4, {"near_duplicate": 1})
    assert (counts.bytes_read, counts.bytes_kept) == (1000, 1000 - len(rows[4]["text"].encode()))


def test_a_file_that_loses_nothing_is_not_opened(
    make_document: Any, make_corpus: Any, without_spark: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_corpus([[[make_document("text")]]])
    task = run.task("dedup_url")
    job = Job(run, task, Attempt(run, task))
    monkeypatch.setattr(survivors, "_rows_of", pytest.fail)
    output = drop_duplicates(job, parts(job), {}, Drop.DUPLICATE_URL, lambda row, group: group, 4)
    assert output.files == []
    assert (output.counts.read, output.counts.kept, output.counts.bytes_read, output.counts.bytes_kept) == (1, 1, 4, 4)
