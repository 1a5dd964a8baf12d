"""Which capture of a URL stays, whatever the order and the partitions in which captures arrive."""

import random
from collections.abc import Callable
from typing import Any

import pytest

from contract.documents import Part, parts_of, read_documents
from contract.errors import NotReadyError, StoreError
from contract.plan import Run
from contract.schema import DOCUMENTS
from contract.store import Store
from pipelines.dedup_url import keys, show
from pipelines.spark.tables import TableWriter

Rows = list[dict[str, Any]]


@pytest.fixture
def captures(make_document: Callable[..., dict[str, Any]]) -> Rows:
    a, b = "http://example.org/a?utm_source=mail", "https://example.org/b"
    return [
        make_document("a on day 1", url=a, day=1),
        make_document("a on day 3", url="https://EXAMPLE.org/a", day=3),
        make_document("a on day 2", url="https://example.org/a#top", day=2),
        make_document("b, first of equals", name="first", url=b, day=5),
        make_document("b, second of equals", name="second", url=b, day=5),
        make_document("b without a date", url=b, date=None),
        make_document("alone", url="https://example.org/c"),
        make_document("no address", url=None),
        make_document("no address either", url=None),
    ]


def test_a_row_for_each_document_with_an_address(captures: Rows, tmp_store: Store) -> None:
    writer = TableWriter(tmp_store, "in.parquet", "documents", DOCUMENTS)
    for row in captures:
        writer.write(row)
    (file,) = writer.close()
    found = [row for batch in keys(tmp_store, Part(file), 7) for row in batch.to_pylist()]
    assert [row["id"] for row in found] == [row["id"] for row in captures if row["url"]]
    assert {row["part"] for row in found} == {7}
    assert [row["row"] for row in found] == [0, 1, 2, 3, 4, 5, 6]
    assert [row["date"] for row in found] == [row["date"] and row["date"].timestamp() for row in captures[:7]]
    assert found[4]["date"] == 1709942400, "seconds"
    assert len({row["key"] for row in found[:3]}) == len({row["key"] for row in found[3:6]}) == 1
    assert len({row["key"] for row in found}) == 3
    assert {len(row["key"]) for row in found} == {16}
    assert show({"url": "http://EXAMPLE.org/a#top"}, "") == "https://example.org/a"


def judged(drops: Rows, captures: Rows) -> dict[str, str]:
    names = {row["id"]: row["text"] for row in captures}
    return {names[row["id"]]: names[row["duplicate_of"]] for row in drops}


@pytest.mark.parametrize(
    ("keep", "of_a", "of_b"),
    [("newest", "a on day 3", "b, first of equals"), ("first", "a on day 1", "b, first of equals")],
)
def test_which_capture_stays(
    keep: str, of_a: str, of_b: str, captures: Rows, make_corpus: Callable[..., Run], run_stage: Any, rows_of: Any
) -> None:
    tied = sorted(captures[3:5], key=lambda row: row["id"])
    assert tied[0]["text"] == of_b  # equal dates: the smallest id
    run = make_corpus([[captures[:4]], [captures[4:6], captures[6:]]], {"dedup_url.keep": keep})
    (done,) = run_stage(run, "dedup_url")
    drops = rows_of(run.store, [done], "drops")
    expected = {text: of_a for text in ("a on day 1", "a on day 2", "a on day 3") if text != of_a}
    expected |= dict.fromkeys(("b, second of equals", "b without a date"), of_b)
    assert judged(drops, captures) == expected
    assert {row["reason"] for row in drops} == {"duplicate_url"}
    assert {row["value"] for row in drops} == {"https://example.org/a", "https://example.org/b"}
    by_id = {row["id"]: row for row in captures}
    assert all(row["snippet"] == by_id[row["id"]]["text"] and row["url"] == by_id[row["id"]]["url"] for row in drops)
    dropped = sum(len(by_id[row["id"]]["text"].encode()) for row in drops)
    total = sum(len(row["text"].encode()) for row in captures)
    assert (done.rows.read, done.rows.kept, done.rows.dropped) == (9, 5, 4)
    assert (done.rows.bytes_read, done.rows.bytes_kept) == (total, total - dropped)
    assert {file.kind for file in done.files if file.path.startswith(done.prefix)} == {
        "drops",
        "index",
        "places",
        "addresses",
    }
    left = [row for part in parts_of(done) for row in read_documents(run.store, part, ["id", "text"])]
    gone = {row["id"] for row in drops}
    assert [row["text"] for row in left] == [row["text"] for row in captures if row["id"] not in gone]


def test_order_and_partitions_do_not_matter(
    captures: Rows, make_corpus: Callable[..., Run], run_stage: Any, rows_of: Any
) -> None:
    answers = []
    for number, files in enumerate((1, 3, 16)):
        shuffled = random.Random(number).sample(captures, len(captures))
        segments = [[shuffled[at::files] for at in range(files)]]
        run = make_corpus(segments, {"spark.shuffle_partitions": number * 5 + 1}, name=f"files{files}")
        answers.append(judged(rows_of(run.store, run_stage(run, "dedup_url"), "drops"), captures))
    assert answers[0] == answers[1] == answers[2] != {}


def test_what_goes_is_not_held_by_the_driver(
    captures: Rows, make_corpus: Callable[..., Run], run_stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Any) -> Any:
        raise AssertionError("the driver asked for every dropped id")

    monkeypatch.setattr("pyspark.sql.DataFrame.toArrow", fail)
    monkeypatch.setattr("pyspark.sql.classic.dataframe.DataFrame.toArrow", fail)
    run = make_corpus([[captures[:4]], [captures[4:6], captures[6:]]])
    (done,) = run_stage(run, "dedup_url")
    assert done.rows.dropped == 4
    assert not [entry.path for entry in run.store.files(run.task("dedup_url").prefix) if "removed" in entry.path]


def test_a_segment_without_documents(captures: Rows, make_corpus: Callable[..., Run], run_stage: Any) -> None:
    (done,) = run_stage(make_corpus([[captures], []]), "dedup_url")
    assert done.rows.kept == 5
    (empty,) = run_stage(make_corpus([[]], name="empty"), "dedup_url")
    assert (empty.rows.read, empty.files) == (0, ())


def test_a_missing_segment_is_named(captures: Rows, make_corpus: Callable[..., Run], run_stage: Any) -> None:
    run = make_corpus([[captures], [captures]])
    lost = run.task("filter", run.segments[1].partition)
    run.store.delete(f"{lost.prefix}/manifest.json")
    with pytest.raises(NotReadyError, match=rf"filter {run.segments[1].partition} is not done.*run filter first"):
        run_stage(run, "dedup_url")


def test_an_error_in_a_worker_is_one_line(
    captures: Rows, make_corpus: Callable[..., Run], run_stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that fails in a Spark worker reaches the driver as the store's own error."""
    run = make_corpus([[captures]])

    def fail(store: Any, part: Any, number: int) -> Any:
        raise StoreError(f"s3://bucket/{number}: access denied; check the credentials")
        yield

    monkeypatch.setattr("pipelines.dedup_url.keys", fail)
    with pytest.raises(StoreError, match=r"^s3://bucket/0: access denied; check the credentials$"):
        run_stage(run, "dedup_url")
