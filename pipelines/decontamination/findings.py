"""Findings of decontamination: the rows that workers write, and the report that the driver makes of them.

An item leaks into a document that contains at least `search.LEAKED` of it; a smaller share is overlap. The driver's
memory grows with the benchmarks but not with the corpus, because it reads the workers' rows in batches.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from contract.contamination import Benchmark, Report
from contract.evalset import Item
from contract.kinds import Kind
from contract.manifest import File
from contract.output import write_file
from contract.store import Store
from contract.tables import read_rows
from pipelines.decontamination.search import LEAKED, Finding, Index, Ints, occurrences
from pipelines.spark.documents import Output
from pipelines.spark.tables import TableWriter

MATCHES = pa.schema(
    [
        ("id", pa.string()),  # document id
        ("url", pa.string()),
        ("benchmark", pa.string()),
        ("action", pa.string()),  # dropped | cut | kept
        # The largest share of one of the benchmark's items, or of one of an item's texts, that the document contains.
        ("covered", pa.float32()),
        ("leaked", pa.list_(pa.int32())),  # items with a share of at least LEAKED, numbered within the benchmark
        ("ngrams", pa.int32()),  # distinct n-grams of the benchmark in the document
        ("ngram", pa.string()),  # the first of them
    ]
)
NGRAMS = pa.schema([("gram", pa.int64()), ("ngram", pa.string()), ("documents", pa.int64())])
ITEMS = pa.schema(
    [
        ("benchmark", pa.string()),
        ("item", pa.int32()),
        ("where", pa.string()),  # file and line
        ("sought", pa.bool_()),  # whether the item is long enough to be searched for
        ("leaking", pa.int64()),  # documents that contain at least LEAKED of it
        ("ngrams", pa.int32()),
        ("ngrams_found", pa.int32()),
    ]
)
SHOWN = 20  # n-grams of a benchmark in the report, the most common first


class Findings:
    """Collects a worker's findings in one documents file. Without findings, no file is written."""

    def __init__(self, store: Store, prefix: str, index: Index, name: str) -> None:
        self._index = index
        self._first = first_items(index)
        self._matches = TableWriter(store, f"{prefix}/matches-{name}.parquet", Kind.MATCHES, MATCHES)
        self._ngrams = TableWriter(store, f"{prefix}/ngrams-{name}.parquet", Kind.NGRAMS, NGRAMS)
        self._documents: Counter[int] = Counter()
        self._texts: dict[int, str] = {}

    def note(self, row: dict[str, Any], found: Finding, left: str | None) -> None:
        """Record a document's finding. left: the text that is left of the document, None if it was dropped."""
        action = "dropped" if left is None else "kept" if left == row["text"] else "cut"
        grams, first = np.unique(found.gram, return_index=True)
        self._documents.update(grams.tolist())
        self._texts |= {gram: found.ngram(at) for gram, at in zip(grams.tolist(), first.tolist(), strict=True)}
        gram, item = owners(grams, self._index)
        benchmark = self._index.benchmark[item]
        for number in np.unique(benchmark).tolist():
            mine = np.isin(found.gram, gram[benchmark == number])
            items = self._index.benchmark[found.items] == number
            leaked = found.items[items & (found.covered >= LEAKED)] - self._first[number]
            self._matches.write(
                {
                    "id": row["id"],
                    "url": row.get("url"),
                    "benchmark": self._index.names[number],
                    "action": action,
                    "covered": float(found.covered[items].max()),
                    "leaked": leaked.tolist(),
                    "ngrams": len(np.unique(found.gram[mine])),
                    "ngram": found.ngram(int(mine.argmax())),
                }
            )

    def close(self) -> list[File]:
        for gram, count in sorted(self._documents.items()):
            self._ngrams.write({"gram": gram, "ngram": self._texts[gram], "documents": count})
        return self._matches.close() + self._ngrams.close()


def first_items(index: Index) -> Ints:
    """The index of each benchmark's first item, then the number of all items. Shape (benchmarks + 1,)."""
    return np.searchsorted(index.benchmark, np.arange(len(index.names) + 1))


def owners(grams: Ints, index: Index) -> tuple[Ints, Ints]:
    """Distinct pairs of an n-gram and an item that contains it, ordered by item. Returns (n-grams, items)."""
    gram = np.repeat(grams, index.starts[grams + 1] - index.starts[grams])
    item = index.item[index.passage[occurrences(grams, index)]].astype(np.int64)
    pairs = np.unique(item << 32 | gram)
    return pairs & 0xFFFFFFFF, pairs >> 32


class Tally(NamedTuple):
    """Totals over all workers' findings."""

    documents: Ints  # documents that contain each n-gram, (ngrams,)
    leaking: Ints  # documents that contain at least LEAKED of each item, (items,)
    texts: dict[int, str]  # the n-grams that were found, by number
    seen: Counter[tuple[str, bool]]  # documents by benchmark and by whether an item leaks into them
    actions: Counter[str]  # documents by action


def tally(store: Store, files: Sequence[File], index: Index) -> Tally:
    """Sum the workers' rows."""
    totals = Tally(
        np.zeros(len(index.grams), np.int64), np.zeros(len(index.benchmark), np.int64), {}, Counter(), Counter()
    )
    first = dict(zip(index.names, first_items(index).tolist(), strict=False))
    last = None
    for file in files:
        for row in read_rows(store, file) if file.kind == Kind.NGRAMS else ():
            totals.documents[row["gram"]] += row["documents"]
            totals.texts[row["gram"]] = row["ngram"]
        for row in read_rows(store, file) if file.kind == Kind.MATCHES else ():
            totals.leaking[np.array(row["leaked"], np.int64) + first[row["benchmark"]]] += 1
            totals.seen[row["benchmark"], bool(row["leaked"])] += 1
            totals.actions[row["action"]] += row["id"] != last  # a document's rows are consecutive
            last = row["id"]
    return totals


def summarise(
    store: Store, prefix: str, sets: Sequence[tuple[str, Sequence[Item]]], index: Index, output: Output
) -> dict[str, int]:
    """Make the report and the table of items from the workers' files, and add both to `output`.

    sets: the benchmarks as (name, items). Returns metrics for the manifest.
    """
    totals = tally(store, output.files, index)
    gram, item = owners(np.arange(len(index.grams)), index)
    size = len(index.benchmark)
    ngrams = np.bincount(item, minlength=size)
    found = np.bincount(item[totals.documents[gram] > 0], minlength=size)
    writer = TableWriter(store, f"{prefix}/items.parquet", Kind.ITEMS, ITEMS)
    lines = []
    for number, (name, items) in enumerate(sets):
        low, high = np.searchsorted(index.benchmark, [number, number + 1]).tolist()
        for at, (where, _) in enumerate(items):
            row = {"benchmark": name, "item": at, "where": where, "sought": bool(ngrams[low + at])}
            counts = {"leaking": totals.leaking[low + at], "ngrams": ngrams[low + at], "ngrams_found": found[low + at]}
            writer.write(row | {key: int(value) for key, value in counts.items()})
        leaked, touched = totals.leaking[low:high] > 0, found[low:high] > 0
        mine = np.unique(gram[(item >= low) & (item < high)])
        hit = mine[totals.documents[mine] > 0]
        shown = hit[np.lexsort((hit, -totals.documents[hit]))][:SHOWN].tolist()
        lines.append(
            Benchmark(
                name=name,
                items=len(items),
                sought=int((ngrams[low:high] > 0).sum()),
                leaked=int(leaked.sum()),
                overlapping=int((touched & ~leaked).sum()),
                documents_leaking=totals.seen[name, True],
                documents_overlapping=totals.seen[name, False],
                ngrams=len(mine),
                ngrams_found=len(hit),
                common=tuple((totals.texts[one], int(totals.documents[one])) for one in shown),
            )
        )
    output.files += writer.close()
    data = Report(benchmarks=tuple(lines)).model_dump_json(indent=1).encode()
    output.files.append(write_file(store, f"{prefix}/contamination.json", Kind.CONTAMINATION, data))
    return {"documents_cut": totals.actions["cut"], "documents_spared": totals.actions["kept"]}
