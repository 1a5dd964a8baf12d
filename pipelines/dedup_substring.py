"""Cuts every run of `min_tokens` words that stands at two or more places, anywhere in the corpus (Lee et al. 2021).

Four shuffles of numbers a pass: anchors meet anchors, flagged runs go back to their file, window digests meet digests, repeated
windows go back to their file. Words are what white space separates: no tokenizer exists yet.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from contract.settings import DedupSubstring
from contract.store import Store
from pipelines.job import Job, Output, Sorter
from pipelines.schema import DOCUMENTS, Drop
from pipelines.session import worker_errors
from pipelines.survivors import Part, parts, read_alive
from pipelines.text.substring import anchors, digest, rebuild, remaining, union

Ranges = list[tuple[int, int]]
Cuts = dict[int, list[Ranges]]
"""Row of a file -> for each pass the word ranges [start, end) that go, counted in the words that the pass before left."""

RUNS = "anchor bigint, file int, row int, first int, count int"
WINDOWS = "digest binary, id string, file int, row int, start int"
RANGES = "file int, row int, start int, end int"


def read_words(store: Store, item: tuple[Part, Cuts]) -> Iterator[tuple[int, str, Sequence[str]]]:
    """Row, id and remaining words of each document that is left of a part."""
    part, cuts = item
    for row, document in read_alive(store, part, ["id", "text"]):
        words = document["text"].split()
        if row in cuts:
            words = [words[index] for index in remaining(len(words), cuts[row])]
        yield row, document["id"], words


def run_rows(store: Store, k: int, item: tuple[Part, Cuts], file: int) -> Iterator[pa.RecordBatch]:
    """The anchor runs of each document."""
    for row, _, words in read_words(store, item):
        runs = anchors(words, k)
        if size := len(runs.first):
            yield pa.record_batch(
                {
                    "anchor": runs.anchor.view(np.int64),
                    "file": np.full(size, file, np.int32),
                    "row": np.full(size, row, np.int32),
                    "first": runs.first.astype(np.int32),
                    "count": runs.count.astype(np.int32),
                }
            )


def window_rows(store: Store, k: int, items: Sequence[tuple[Part, Cuts]], flagged: pa.Table) -> pa.Table:
    """The digests of all windows in the flagged runs of one file."""
    file = flagged["file"][0].as_py()
    runs: dict[int, list[tuple[int, int]]] = {}
    for row, first, count in zip(*(flagged[name].to_pylist() for name in ("row", "first", "count")), strict=True):
        runs.setdefault(row, []).append((first, count))
    digests: list[bytes] = []
    ids: list[str] = []
    places: list[tuple[int, int]] = []
    for row, key, words in read_words(store, items[file]):
        for first, count in runs.get(row, ()):
            for start in range(first, first + count):
                digests.append(digest(words, start, k))
                ids.append(key)
                places.append((row, start))
    rows, starts = np.array(places, np.int32).reshape(-1, 2).T
    return pa.table(
        {"digest": digests, "id": ids, "file": np.full(len(ids), file, np.int32), "row": rows, "start": starts}
    )


def range_rows(k: int, marked: pa.Table) -> pa.Table:
    """Marked windows of one file, merged into disjoint ranges of words."""
    starts: dict[int, list[int]] = {}
    for row, start in zip(marked["row"].to_pylist(), marked["start"].to_pylist(), strict=True):
        starts.setdefault(row, []).append(start)
    found = [(row, *one) for row in sorted(starts) for one in union(starts[row], k)]
    rows, first, end = np.array(found, np.int32).T
    file = np.full(len(found), marked["file"][0].as_py(), np.int32)
    return pa.table({"file": file, "row": rows, "start": first, "end": end})


def find(job: Job, settings: DedupSubstring, items: Sequence[tuple[Part, Cuts]]) -> list[dict[str, Any]]:
    """One pass: the word ranges that go, as rows of RANGES. `keep_first` spares the window of the smallest (id, position)."""
    from pyspark.sql import Window
    from pyspark.sql import functions as f

    k, store = settings.min_tokens, job.store
    runs = job.read_table(items, partial(run_rows, store, k), RUNS)
    flagged = runs.withColumn("places", f.count("*").over(Window.partitionBy("anchor"))).where("places > 1")
    windows = flagged.groupBy("file").applyInArrow(_table(partial(window_rows, store, k, items)), WINDOWS)
    same = Window.partitionBy("digest")
    place = f.struct("id", "start")
    repeated = windows.withColumn("places", f.count("*").over(same)).withColumn("kept", f.min(place).over(same))
    repeated = repeated.where("places > 1")
    if settings.cut == "keep_first":
        repeated = repeated.where(place != f.col("kept"))
    marked = repeated.select("file", "row", "start")
    ranges: pa.Table = marked.groupBy("file").applyInArrow(_table(partial(range_rows, k)), RANGES).toArrow()
    return ranges.sort_by([("file", "ascending"), ("row", "ascending"), ("start", "ascending")]).to_pylist()


def _table(work: Callable[[pa.Table], pa.Table]) -> Callable[[pa.Table], pa.Table]:
    """A plain function, because Spark reads its type hints to tell tables from batches and a `partial` has none."""

    def call(table: pa.Table) -> pa.Table:
        return work(table)

    return call


def cut(store: Store, prefix: str, min_chars: int, item: tuple[Part, Cuts], name: str) -> Output:
    """Rewrite the documents of one part without the ranges found, and drop those of which too little is left."""
    part, cuts = item
    sorter = Sorter(store, prefix, "dedup_substring", name, DOCUMENTS)
    for row, document in read_alive(store, part):
        text = document["text"]
        if row in cuts:
            document["text"] = rebuild(text, remaining(len(text.split()), cuts[row]))
        size, before = len(document["text"].encode()), len(text.encode())
        if len(document["text"].strip()) < min_chars:
            sorter.drop(document, Drop.SUBSTRING_TOO_SHORT, len(document["text"].strip()), before, snippet=text)
        else:
            sorter.keep(document, size, before)
    return sorter.close()


def run(job: Job) -> None:
    settings: DedupSubstring = job.settings
    items: list[tuple[Part, Cuts]] = [(part, {}) for part in parts(job, "dedup_url", "dedup_fuzzy")]
    removed: Mapping[str, int] = {"spans": 0, "words_cut": 0, "documents_cut": 0}
    for done in range(settings.passes if items else 0):
        with worker_errors():
            found = find(job, settings, items)
        if not found:
            break
        for one in found:
            ranges = items[one["file"]][1].setdefault(one["row"], [])
            ranges.extend([] for _ in range(done + 1 - len(ranges)))
            ranges[done].append((one["start"], one["end"]))
        removed = {
            "spans": removed["spans"] + len(found),
            "words_cut": removed["words_cut"] + sum(one["end"] - one["start"] for one in found),
            "documents_cut": sum(len(cuts) for _, cuts in items),
        }
    job.commit(job.map_files(items, partial(cut, job.store, job.prefix, settings.min_chars)), **removed)
