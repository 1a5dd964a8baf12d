"""A corpus that stands in for `filter`'s output, so that what comes after can be tested on texts written in the test."""

import datetime
import hashlib
import os
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from contract.documents import parts_of, read_documents
from contract.manifest import Attempt
from contract.plan import WHOLE, Run
from contract.schema import DOCUMENTS, SCORED
from contract.store import Store
from contract.tables import read_rows
from pipelines.spark import exchange
from pipelines.spark.documents import DocumentSink, Output

DAY = datetime.datetime(2024, 3, 4, tzinfo=datetime.UTC)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Within a file, tests on real data come late and those that start Spark last: what the quick ones find, they find in seconds."""

    def late(item: pytest.Item) -> int:
        used = getattr(item, "fixturenames", ())
        return 2 if "spark_stops" in used and "without_spark" not in used else int("data_dir" in used)

    place = {path: at for at, path in enumerate(dict.fromkeys(item.path for item in items))}
    items.sort(key=lambda item: (place[item.path], late(item)))


@pytest.fixture
def make_document() -> Callable[..., dict[str, Any]]:
    """`make_document("text", name="a", day=2, url=...)`: a row of DOCUMENTS; its id is a hash of its name, by default of its text."""

    def make(text: str, name: str | None = None, day: int = 0, **columns: Any) -> dict[str, Any]:
        key = hashlib.md5((name if name is not None else text).encode(), usedforsecurity=False).hexdigest()
        row = dict.fromkeys(DOCUMENTS.names) | {
            "id": key,
            "url": f"https://example.org/{key}",
            "snapshot": "TEST-2024-10",
            "date": DAY + datetime.timedelta(days=day),
            "source": "crawl",
            "language": "en",
            "text": text,
        }
        return row | columns

    return make


@pytest.fixture
def make_corpus(tmp_path: Path, resolve_run: Callable[..., Run]) -> Callable[..., Run]:
    """`make_corpus([[[row, ...], ...], ...], {"key": value}, name="one")`: a run whose filter committed these rows: segments of files of rows. Without sources beside the crawl, `curate` is done."""

    def make(
        segments: Sequence[Sequence[Sequence[Mapping[str, Any]]]],
        overrides: Mapping[str, Any] | None = None,
        name: str = "one",
    ) -> Run:
        crawl = tmp_path / f"crawl-{name}"
        crawl.mkdir(exist_ok=True)
        for index in range(len(segments)):
            file = crawl / f"{index}.warc.gz"
            file.write_bytes(b"WARC")
            os.utime(file, (1_710_000_000, 1_710_000_000))
        run = resolve_run(
            crawl, {"crawl.files_per_segment": 1, "store": str(tmp_path / f"store-{name}"), **(overrides or {})}, name
        )
        for files, segment in zip(segments, run.segments, strict=True):
            commit(run, "filter", segment.partition, files)
        if not run.recipe.curate.sources:
            commit(run, "curate", WHOLE, [])
        return run

    return make


@pytest.fixture
def scored_run(
    tmp_path: Path, resolve_run: Callable[..., Run], run_stage: Callable[..., Any]
) -> Callable[[Sequence[Sequence[Mapping[str, Any]]], Mapping[str, Any]], Run]:
    """`scored_run([[row, ...], ...], {"key": value})`: a run that has scored these files of rows; its filter judges only by length."""

    def make(files: Sequence[Sequence[Mapping[str, Any]]], overrides: Mapping[str, Any]) -> Run:
        (tmp_path / "scored").mkdir()
        (tmp_path / "scored" / "0.warc.gz").write_bytes(b"WARC")
        off = {f"filter.{rules}.enabled": False for rules in ("gopher_repetition", "gopher_quality", "fineweb")}
        off |= {"score.lines.enabled": False, "filter.min_words": 1}
        run = resolve_run(tmp_path / "scored", {**off, **overrides})
        commit(run, "langid", run.segments[0].partition, files)
        commit(run, "curate", WHOLE, [])
        run_stage(run, "score")
        return run

    return make


@pytest.fixture
def commit_documents() -> Callable[..., None]:
    """`commit_documents(run, "mix", "all", [[row, ...]])` writes a stage's manifest without running the stage."""
    return commit


@pytest.fixture
def commit_parts() -> Callable[..., None]:
    """`commit_parts(run, "decontaminate", [("books", [row, ...]), ...])` writes a manifest whose parts are of these sources."""

    def make(run: Run, stage: str, parts: Sequence[tuple[str, Sequence[Mapping[str, Any]]]]) -> None:
        attempt = Attempt(run, run.task(stage))
        output = write(attempt, "documents", [rows for _, rows in parts])
        sources = {
            part.documents.path: "" if source == "crawl" else source
            for part, (source, _) in zip(output.parts, parts, strict=True)
        }
        files = [file.model_copy(update={"source": sources[file.path]}) for file in output.listed()]
        attempt.commit(files, output.counts.rows())

    return make


@pytest.fixture
def commit_mixture() -> Callable[..., None]:
    """`commit_mixture(run, {"documents": [[row, ...]], "heldout": [[row, ...]]})` writes the manifest of `mix`."""

    def make(run: Run, kinds: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]]) -> None:
        attempt = Attempt(run, run.task("mix"))
        written = [write(attempt, kind, files) for kind, files in kinds.items()]
        attempt.commit([file for one in written for file in one.listed()])

    return make


def commit(run: Run, stage: str, partition: str, files: Sequence[Sequence[Mapping[str, Any]]]) -> None:
    attempt = Attempt(run, run.task(stage, partition))
    output = write(attempt, "documents", files)
    attempt.commit(output.listed(), output.counts.rows())


def write(attempt: Attempt, kind: str, files: Sequence[Sequence[Mapping[str, Any]]]) -> Output:
    total = Output()
    for number, rows in enumerate(files):
        name = f"{number:05d}-{number:08x}"
        sink = DocumentSink(attempt.store, f"{attempt.prefix}/{attempt.id}", attempt.task.stage, name, SCORED, kind)
        for row in rows:
            size = len(row["text"].encode())
            sink.keep({**row, "bytes": size}, size)
        one = sink.close()
        total.files += one.files
        total.parts += one.parts
        total.counts += one.counts
    return total


class Parts:
    """Stands in for Spark's RDD: the work of every partition is done in this process, one after the other, when it is collected."""

    def __init__(self, held: Sequence[Callable[[], Iterable[Any]]]) -> None:
        self._held = held

    def mapPartitions(self, work: Callable[[Iterator[Any]], Iterable[Any]]) -> "Parts":
        return self.mapPartitionsWithIndex(lambda _, items: work(items))

    def mapPartitionsWithIndex(self, work: Callable[[int, Iterator[Any]], Iterable[Any]]) -> "Parts":
        return Parts([partial(lambda at, one: work(at, iter(one())), at, one) for at, one in enumerate(self._held)])

    def partitionBy(self, count: int, place: Callable[[int], int]) -> "Parts":
        found = self.collect()
        return Parts([partial(lambda at: [one for one in found if place(one[0]) == at], at) for at in range(count)])

    def collect(self) -> list[Any]:
        return [one for held in self._held for one in held()]


class Here:
    """Stands in for a Spark context. Each item is a partition of its own."""

    defaultParallelism = 2
    master = "local[2]"

    def parallelize(self, items: Sequence[Any], count: int) -> Parts:
        return Parts([partial(list, items[at : at + 1]) for at in range(count)])

    def broadcast(self, value: Any) -> SimpleNamespace:
        return SimpleNamespace(value=value)

    def setJobGroup(self, group: str, description: str) -> None: ...

    def setLocalProperty(self, key: str, value: object) -> None: ...

    def statusTracker(self) -> SimpleNamespace:
        return SimpleNamespace(getJobIdsForGroup=lambda _: ())


@pytest.fixture
def without_spark(monkeypatch: pytest.MonkeyPatch) -> Here:
    """Stages that only hand out work run it in this process, in milliseconds. Tables still need Spark."""
    here = Here()
    monkeypatch.setattr("pipelines.spark.job.start_context", lambda *_: here)
    return here


@pytest.fixture
def in_process() -> Callable[..., list[dict[str, Any]]]:
    """`in_process(steps, seed)`: the rows that the steps of an exchange send last, without Spark, every batch cut in two and all shuffled."""

    def run(steps: Sequence[tuple[int, exchange.Work]], seed: int) -> list[dict[str, Any]]:
        generator = random.Random(seed)
        sent: list[tuple[int, Any]] = []
        for places, work in steps:
            halves = [
                (place, piece)
                for place, batch in sent
                for piece in (batch.slice(0, batch.num_rows // 2), batch.slice(batch.num_rows // 2))
                if piece.num_rows
            ]
            generator.shuffle(halves)
            inbox: list[list[Any]] = [[] for _ in range(places)]
            for place, batch in halves:
                inbox[place].append(batch)
            sent = [one for place in range(places) for one in work(place, iter(inbox[place]))]
        return [row for _, batch in sent for row in batch.to_pylist()]

    return run


@pytest.fixture
def rows_of() -> Callable[..., list[dict[str, Any]]]:
    """`rows_of(store, manifests, "drops")`: the rows of all files of one kind, in order; of documents, those that are left."""

    def read(store: Store, manifests: Sequence[Any], kind: str) -> list[dict[str, Any]]:
        if kind == "documents" and any(parts_of(manifest) for manifest in manifests):
            rows = [
                row
                for manifest in manifests
                for part in parts_of(manifest)
                for row in read_documents(store, part, SCORED.names if manifest.stage == "score" else DOCUMENTS.names)
            ]
            return [{name: value for name, value in row.items() if name != "row"} for row in rows]
        return [row for manifest in manifests for file in manifest.of(kind) for row in read_rows(store, file.path)]

    return read
