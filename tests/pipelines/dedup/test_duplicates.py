"""What the stages that drop duplicates write: a row for each that goes, part by part."""

from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from contract.documents import read_documents
from contract.manifest import Attempt
from contract.schema import Drop
from contract.store import Store
from contract.tables import read_rows
from pipelines.dedup.duplicates import (
    REMOVED,
    Duplicate,
    _read_removed,
    _write_removed,
    drop_duplicates,
    write_removed,
)
from pipelines.spark.job import Job
from pipelines.spark.tables import TableWriter

Rows = list[dict[str, Any]]


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


def line(part: int, row: int) -> dict[str, Any]:
    return {"group": "g", "part": part, "stays": f"not {row}", "row": row}


@pytest.mark.parametrize("first", [0, 1])
def test_removed_documents_of_each_part_in_a_file_of_their_own(tmp_store: Store, first: int) -> None:
    frame = Frame([line(first, 1), line(first, 2), line(4, 3)], [line(4, 5)], [line(7, 0)])
    found = write_removed(SimpleNamespace(store=tmp_store, prefix="stage/try"), frame)  # type: ignore[arg-type]
    assert {at: [row["row"] for row in read_rows(tmp_store, file.path)] for at, file in found.items()} == {
        first: [1, 2], 4: [3, 5], 7: [0],
    }  # fmt: skip
    assert {at: (file.kind, file.bytes, file.rows) for at, file in found.items()} == {
        first: ("removed", 0, 2), 4: ("removed", 0, 2), 7: ("removed", 0, 1),
    }  # fmt: skip
    assert all(file.path.startswith("stage/try/removed/") for file in found.values())
    assert _read_removed(tmp_store, found[4]) == {3: Duplicate("not 3", "g"), 5: Duplicate("not 5", "g")}
    assert _read_removed(tmp_store, None) == {}


def test_nothing_removed_writes_nothing(tmp_store: Store) -> None:
    assert list(_write_removed(tmp_store, "stage", iter([]))) == []
    assert list(tmp_store.files("stage")) == []


def test_duplicates_leave_and_are_counted(make_document: Any, make_corpus: Any, without_spark: Any) -> None:
    rows = [make_document(f"text {at} \u00e9", name=str(at)) for at in range(6)]
    run = make_corpus([[rows[:3], rows[3:]]])
    task = run.task("dedup_url")
    job = Job(run, task, Attempt(run, task))
    first, second = job.parts("filter")
    writer = TableWriter(run.store, "removed/00001-0123abcd.parquet", "removed", REMOVED)
    writer.write({"row": 1, "stays": rows[0]["id"], "group": "group"})
    (removed,) = writer.close()
    output = drop_duplicates(
        job, [first, second], {1: removed}, Drop.DUPLICATE_URL, lambda row, group: f"{group} {row['url']}"
    )
    untouched, part = output.parts
    assert untouched == first
    assert [row["id"] for row in read_documents(run.store, part, ["id"])] == [rows[3]["id"], rows[5]["id"]]
    (file,) = output.files
    assert list(read_rows(run.store, file.path)) == [
        {
            "id": rows[4]["id"],
            "url": rows[4]["url"],
            "stage": "dedup_url",
            "reason": "duplicate_url",
            "value": f"group {rows[4]['url']}",
            "duplicate_of": rows[0]["id"],
            "snippet": rows[4]["text"],
            "language": "en",
        }
    ]
    counts = output.counts
    assert (counts.read, counts.kept, dict(counts.reasons)) == (6, 5, {"duplicate_url": 1})
    assert (counts.bytes_read, counts.bytes_kept) == (54, 45)
