"""Documents are written once and then only judged: `Part` refers to them, `read_part` reads those that are left.

A stage that writes texts has a `DocumentSink`. A stage that only judges has an `IndexSink`: it writes which rows of a
documents file stay, and a drops row for each of the others. A manifest lists all files of a part, so a reader needs no
other manifest.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from contract.errors import DamagedError
from contract.kinds import Kind
from contract.manifest import File, Manifest, Rows
from contract.schema import DOCUMENTS, DROPS, SNIPPET_CHARS, Drop
from contract.store import Store
from contract.tables import BATCH_ROWS, batches_of, open_table, reading
from pipelines.spark.cuts import read_cuts, without
from pipelines.spark.tables import TableWriter

RowNumbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Part:
    """A documents file, and what the stages since then say of its rows. The names are those of `Kind`.

    index: the rows that are left, all if None, and columns of the stage that judged them. cuts: what is cut out of
    their texts. signatures: what `minhash_sign` computed of them.
    """

    documents: File
    index: File | None = None
    cuts: File | None = None
    signatures: File | None = None

    @property
    def rows(self) -> int:
        """The number of documents that are left."""
        return (self.index or self.documents).rows

    @property
    def files(self) -> list[File]:
        return [file for file in (self.documents, self.index, self.cuts, self.signatures) if file]


def parts_of(manifest: Manifest) -> list[Part]:
    """The parts that a manifest lists, in order. Raises DamagedError for a part without documents."""
    found: dict[int, dict[str, File]] = {}
    for file in manifest.files:
        if file.part is not None:
            found.setdefault(file.part, {})[file.kind.value] = file
    for number, files in found.items():
        if Kind.DOCUMENTS not in files:
            raise DamagedError(f"{manifest.path}: part {number} has no documents; delete it to run the task again")
    return [Part(**found[number]) for number in sorted(found)]


@dataclass
class Counts:
    """The counts of one worker. Their sum over all workers becomes a `contract.manifest.Rows`."""

    read: int = 0
    kept: int = 0
    bytes_read: int = 0
    bytes_kept: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    losses: Counter[str] = field(default_factory=Counter)

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(Counts)))

    def rows(self) -> Rows:
        return Rows(
            read=self.read,
            kept=self.kept,
            dropped=self.reasons.total(),
            bytes_read=self.bytes_read,
            bytes_kept=self.bytes_kept,
            reasons=dict(sorted(self.reasons.items())),
            losses=dict(sorted(self.losses.items())),
        )


@dataclass
class Output:
    """The files, counts and parts of one worker. `metrics` are the stage's own counts, summed by name."""

    files: list[File] = field(default_factory=list)
    counts: Counts = field(default_factory=Counts)
    metrics: Counter[str] = field(default_factory=Counter)
    parts: list[Part] = field(default_factory=list)

    def listed(self) -> list[File]:
        """All files for a manifest. Those of a part have its number."""
        numbered = [
            file.model_copy(update={"part": number}) for number, part in enumerate(self.parts) for file in part.files
        ]
        return [*numbered, *(file.model_copy(update={"part": None}) for file in self.files)]


def total(outputs: Sequence[Output]) -> Output:
    """The outputs of all workers as one, in their order."""
    metrics: Counter[str] = Counter()
    for output in outputs:
        metrics.update(output.metrics)  # unlike `+`, keeps counts of 0
    return Output(
        [file for output in outputs for file in output.files],
        sum((output.counts for output in outputs), Counts()),
        metrics,
        [part for output in outputs for part in output.parts],
    )


def read_index(store: Store, part: Part, columns: Sequence[str] = ()) -> pa.Table:
    """The rows that are left of a part, ascending, as the column `row`, and those of `columns` that its index has.

    Raises DamagedError if the index is not what was committed, or does not fit the documents file.
    """
    if part.index is None:
        return pa.table({"row": np.arange(part.documents.rows)})
    with open_table(store, part.index) as table, reading(store, part.index):
        names = ["row", *(name for name in columns if name in table.schema_arrow.names)]
        found = table.read(names).combine_chunks()
    rows = found["row"].to_numpy()
    if len(rows) and (rows[0] < 0 or rows[-1] >= part.documents.rows or (np.diff(rows) <= 0).any()):
        raise DamagedError(
            f"{store.full(part.index.path)}: does not fit {part.documents.path}; {part.index.cure(store)}"
        )
    return found


def read_part(
    store: Store,
    part: Part,
    columns: Sequence[str],
    batch_rows: int = BATCH_ROWS,
    only: npt.NDArray[np.integer] | None = None,
) -> Iterator[pa.RecordBatch]:
    """Yield the documents that are left of a part, in batches: the column `row` (int64) and `columns`.

    Columns that the index has are taken from it, and texts have no cuts any more. only: of these rows alone.
    Reads no row group without such a document; memory holds one batch and the index.
    """
    index = read_index(store, part, columns)
    if only is not None:
        index = index.filter(pa.array(np.isin(index["row"].to_numpy(), only)))
    left = index["row"].to_numpy()
    cuts = read_cuts(store, part.cuts) if "text" in columns else {}
    own = [name for name in columns if name not in index.column_names] or ["id"]  # of no column, no batch has rows
    with open_table(store, part.documents) as table:
        sizes = [table.metadata.row_group(group).num_rows for group in range(table.num_row_groups)]
        starts = np.cumsum([0, *sizes])
        groups = np.flatnonzero(np.diff(np.searchsorted(left, starts))).tolist()
        numbers = np.concatenate([np.zeros(0, int), *(np.arange(starts[one], starts[one + 1]) for one in groups)])
        at = 0
        for batch in batches_of(store, part.documents, table, batch_rows, own, groups) if groups else ():
            here = numbers[at : at + batch.num_rows]
            at += batch.num_rows
            low, high = np.searchsorted(left, [here[0], here[-1] + 1]).tolist()
            if low == high:
                continue
            mine = index.slice(low, high - low)
            if high - low < batch.num_rows:
                batch = batch.take(pa.array(np.searchsorted(here, left[low:high])))
            found = {name: mine[name].combine_chunks() for name in index.column_names}
            found |= {name: batch[name] for name in own if name in columns}
            if cuts:
                found["text"] = _cut(found["text"], left[low:high], cuts)
            yield pa.record_batch({name: found[name] for name in ("row", *columns)})


def _cut(texts: pa.Array, rows: RowNumbers, cuts: dict[int, list[tuple[int, int]]]) -> pa.Array:
    touched = [(at, cuts[row]) for at, row in enumerate(rows.tolist()) if row in cuts]
    if not touched:
        return texts
    held = texts.to_pylist()
    for at, ranges in touched:
        held[at] = without(held[at].encode(), ranges).decode()
    return pa.array(held, texts.type)


def read_documents(
    store: Store, part: Part, columns: Sequence[str], only: npt.NDArray[np.integer] | None = None
) -> Iterator[dict[str, Any]]:
    """The rows of `read_part`, one at a time."""
    for batch in read_part(store, part, columns, only=only):
        yield from batch.to_pylist()


class _Sink:
    """Counts documents, and writes a row for each that is dropped."""

    def __init__(self, store: Store, prefix: str, stage: str, name: str) -> None:
        self._store, self._stage = store, stage
        self._dropped = TableWriter(store, f"{prefix}/drops-{name}.parquet", Kind.DROPS, DROPS)
        self.counts = Counts()

    def _count(self, size: int, read_size: int | None) -> None:
        self.counts.read += 1
        self.counts.kept += 1
        self.counts.bytes_kept += size
        self.counts.bytes_read += size if read_size is None else read_size

    def drop(
        self,
        row: dict[str, Any],
        reason: Drop,
        value: object = "",
        size: int = 0,
        duplicate_of: str | None = None,
        snippet: str | None = None,
    ) -> None:
        """Drop a document of `size` bytes.

        `value` is the measurement that crossed the threshold; `snippet` defaults to the head of the row's text.
        """
        shown = f"{value:.4g}" if isinstance(value, float) else str(value)
        self._dropped.write(
            {
                "id": row["id"],
                "url": row.get("url"),
                "stage": self._stage,
                "reason": reason.value,
                "value": shown,
                "duplicate_of": duplicate_of,
                "snippet": (snippet if snippet is not None else row.get("text") or "")[:SNIPPET_CHARS],
            }
        )
        self.counts.read += 1
        self.counts.reasons[reason.value] += 1
        self.counts.bytes_read += size

    def lose(self, kind: str, count: int = 1) -> None:
        """Count input that never became a document: damage, or a record of another type."""
        self.counts.losses[kind] += count


class DocumentSink(_Sink):
    """Writes and counts the kept and the dropped documents of one worker.

    The worker must pass every document that it reads to `keep` or `drop`.
    """

    def __init__(
        self,
        store: Store,
        prefix: str,
        stage: str,
        name: str,
        schema: pa.Schema = DOCUMENTS,
        kind: Kind = Kind.DOCUMENTS,
    ) -> None:
        super().__init__(store, prefix, stage, name)
        self._kind = kind
        self._kept = TableWriter(store, f"{prefix}/{kind}-{name}.parquet", kind, schema)

    def keep(self, row: dict[str, Any], size: int, read_size: int | None = None) -> None:
        """Keep a document. `size` is its bytes now, `read_size` its bytes when it was read (default: `size`)."""
        self._kept.write(row, size)
        self._count(size, read_size)

    def close(self) -> Output:
        kept, dropped = self._kept.close(), self._dropped.close()
        if self._kind == Kind.DOCUMENTS:
            return Output(dropped, self.counts, parts=[Part(file) for file in kept])
        return Output(kept + dropped, self.counts)


class IndexSink(_Sink):
    """Writes which documents of a part stay, and counts the kept and the dropped ones.

    The worker must pass every document that it reads of a part to `keep` or `drop`, in order, and then call `finish`.
    """

    def __init__(self, store: Store, prefix: str, stage: str, name: str, columns: pa.Schema | None = None) -> None:
        """`columns` are what the index says of each document, besides its row."""
        super().__init__(store, prefix, stage, name)
        self._path = f"{prefix}/index-{name}"
        self._schema = pa.schema([("row", pa.int64()), *(columns or ())])
        self._parts: list[Part] = []
        self._kept: list[dict[str, Any]] = []
        self._untold: dict[int, dict[str, Any]] = {}

    def keep(self, row: int, size: int, read_size: int | None = None, columns: Mapping[str, Any] | None = None) -> None:
        """Keep a document. `size` is its bytes now, `read_size` its bytes when it was read (default: `size`)."""
        self._kept.append({"row": row, **(columns or {})})
        self._count(size, read_size)

    def drop(
        self,
        row: dict[str, Any],
        reason: Drop,
        value: object = "",
        size: int = 0,
        duplicate_of: str | None = None,
        snippet: str | None = None,
    ) -> None:
        """Drop a document, as `_Sink.drop` does. A row without `text` gets its id, URL and text from `finish`."""
        if "text" in row:
            super().drop(row, reason, value, size, duplicate_of, snippet)
        else:
            self._untold[row["row"]] = {"reason": reason, "value": value, "size": size, "duplicate_of": duplicate_of}

    def finish(self, part: Part) -> None:
        """Write the index of a part. A part that loses no document stays as it is; one that loses all is gone."""
        if self._untold:
            for row in read_documents(self._store, part, ["id", "url", "text"], np.array(list(self._untold))):
                super().drop(row, **self._untold[row["row"]])
        if len(self._kept) < part.rows or len(self._schema) > 1:
            path = f"{self._path}-{len(self._parts):05d}.parquet"
            writer = TableWriter(self._store, path, Kind.INDEX, self._schema)
            writer.write_table(pa.Table.from_pylist(self._kept, self._schema))
            self._parts += [replace(part, index=file) for file in writer.close()]
        else:
            self._parts.append(part)
        self._kept, self._untold = [], {}

    def close(self) -> Output:
        return Output(self._dropped.close(), self.counts, parts=self._parts)
