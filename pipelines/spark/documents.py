"""What stages write of documents: a `DocumentSink` writes texts, an `IndexSink` only which of them stay.

Both write a drops row for each document that goes, and count.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import pyarrow as pa

from contract.cuts import CUTS, Ranges
from contract.documents import Part, read_documents
from contract.kinds import Kind
from contract.manifest import File, Rows
from contract.schema import DOCUMENTS, DROPS, SNIPPET_CHARS, Drop
from contract.settings.filter import Reason
from contract.shards import ShardFiles
from contract.store import Store
from pipelines.spark.tables import TableWriter

PART_ROWS, PART_BYTES = 1 << 16, 256 << 20  # of a documents file: later stages hold an index of it, and one is a task
DROP_ROWS = 4096  # of a row group of drops, which are short: a search reads few groups, and one of them for one row


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
    """The files, counts, parts and shards of one worker. `metrics` are the stage's own counts, summed by name."""

    files: list[File] = field(default_factory=list)
    counts: Counts = field(default_factory=Counts)
    metrics: Counter[str] = field(default_factory=Counter)
    parts: list[Part] = field(default_factory=list)
    shards: list[ShardFiles] = field(default_factory=list)

    def listed(self) -> list[File]:
        """All files for a manifest. Those of a part or a shard have its number."""
        groups = [*(part.files for part in self.parts), *(shard.files for shard in self.shards)]
        numbered = [file.model_copy(update={"part": number}) for number, files in enumerate(groups) for file in files]
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
        [shard for output in outputs for shard in output.shards],
    )


def write_cuts(store: Store, path: str, cuts: Mapping[int, Ranges], ids: Mapping[int, str]) -> File:
    """Write the cuts of one documents file. cuts, ids: by row; there is at least one cut."""
    writer = TableWriter(store, path, Kind.CUTS, CUTS)
    for row in sorted(cuts):
        for start, end in cuts[row]:
            writer.write({"row": row, "id": ids[row], "start": start, "end": end})
    (file,) = writer.close()
    return file


class _Sink:
    """Counts documents, and writes a row for each that is dropped."""

    def __init__(self, store: Store, prefix: str, stage: str, name: str) -> None:
        self._store, self._stage = store, stage
        self._dropped = TableWriter(store, f"{prefix}/drops-{name}.parquet", Kind.DROPS, DROPS, DROP_ROWS)
        self.counts = Counts()

    def _count(self, size: int, read_size: int | None) -> None:
        self.counts.read += 1
        self.counts.kept += 1
        self.counts.bytes_kept += size
        self.counts.bytes_read += size if read_size is None else read_size

    def drop(
        self,
        row: dict[str, Any],
        reason: Drop | Reason,
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
                "reason": str(reason),
                "value": shown,
                "duplicate_of": duplicate_of,
                "snippet": (snippet if snippet is not None else row.get("text") or "")[:SNIPPET_CHARS],
                "language": row.get("language"),
            }
        )
        self.counts.read += 1
        self.counts.reasons[str(reason)] += 1
        self.counts.bytes_read += size

    def lose(self, kind: str, count: int = 1) -> None:
        """Count input that never became a document: damage, or a record of another type."""
        self.counts.losses[kind] += count


class DocumentSink(_Sink):
    """Writes and counts the kept and the dropped documents of one worker.

    The worker must pass every document that it reads to `keep` or `drop`. Documents make a part of the size that later
    stages hold, then another one.
    """

    def __init__(
        self,
        store: Store,
        prefix: str,
        stage: str,
        name: str,
        schema: pa.Schema = DOCUMENTS,
        kind: Kind = Kind.DOCUMENTS,
        source: str = "",
    ) -> None:
        super().__init__(store, prefix, stage, name)
        self._place, self._kind, self._schema, self._source = f"{prefix}/{kind}-{name}", kind, schema, source
        self._files: list[File] = []
        self._begin()

    def _begin(self) -> None:
        number = f"-{len(self._files):05d}" if self._files else ""
        self._kept = TableWriter(self._store, f"{self._place}{number}.parquet", self._kind, self._schema)
        self._rows = self._bytes = 0

    def keep(self, row: dict[str, Any], size: int, read_size: int | None = None) -> None:
        """Keep a document. `size` is its bytes now, `read_size` its bytes when it was read (default: `size`)."""
        self._kept.write(row, size)
        self._count(size, read_size)
        self._rows, self._bytes = self._rows + 1, self._bytes + size
        if self._rows >= PART_ROWS or self._bytes >= PART_BYTES:
            self._end()
            self._begin()

    def _end(self) -> None:
        self._files += [file.model_copy(update={"source": self._source}) for file in self._kept.close()]

    def close(self) -> Output:
        self._end()
        kept, dropped = self._files, self._dropped.close()
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

    def keep_all(self, rows: Sequence[int], size: int) -> None:
        """Keep several documents of `size` bytes together, of which the index says nothing but their rows."""
        self._kept += [{"row": row} for row in rows]
        self.counts += Counts(len(rows), len(rows), size, size)

    def drop(
        self,
        row: dict[str, Any],
        reason: Drop | Reason,
        value: object = "",
        size: int = 0,
        duplicate_of: str | None = None,
        snippet: str | None = None,
    ) -> None:
        """Drop a document, as `_Sink.drop` does. A row without `text` gets what its drop tells from `finish`."""
        if "text" in row:
            super().drop(row, reason, value, size, duplicate_of, snippet)
        else:
            self._untold[row["row"]] = {"reason": reason, "value": value, "size": size, "duplicate_of": duplicate_of}

    def finish(self, part: Part) -> None:
        """Write the index of a part. A part that loses no document stays as it is; one that loses all is gone."""
        if self._untold:
            columns = ["id", "url", "language", "text"]
            for row in read_documents(self._store, part, columns, np.array(list(self._untold))):
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
