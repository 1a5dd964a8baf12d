"""Documents are written once and then only judged: `Part` refers to them, `read_part` reads those that are left.

A manifest lists all files of a part, so a reader needs no other manifest.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from contract.cuts import Ranges, read_cuts, without
from contract.errors import DamagedError
from contract.kinds import OF_SHARDS, Kind
from contract.manifest import File, Manifest
from contract.settings.corpus import CRAWL
from contract.store import Store
from contract.tables import BATCH_ROWS, batches_of, open_table, reading

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
    def source(self) -> str:
        """Whose documents these are: `crawl`, or a name of `curate.sources`."""
        return self.documents.source or CRAWL

    @property
    def rows(self) -> int:
        """The number of documents that are left."""
        return (self.index or self.documents).rows

    @property
    def files(self) -> list[File]:
        return [file for file in (self.documents, self.index, self.cuts, self.signatures) if file]


def parts_of(manifest: Manifest) -> list[Part]:
    """The parts of documents that a manifest lists, in order. Raises DamagedError for a part without documents.

    The parts of a manifest of tokens are shards, which `contract.shards` reads.
    """
    found: dict[int, dict[str, File]] = {}
    for file in manifest.files:
        if file.part is not None and file.kind not in OF_SHARDS:
            part = found.setdefault(file.part, {})
            if file.kind.value in part:
                raise DamagedError(
                    f"{manifest.path}: part {file.part} has two files of kind {file.kind}; "
                    "delete it to run the task again"
                )
            part[file.kind.value] = file
    for number, files in found.items():
        if Kind.DOCUMENTS not in files or not files.keys() <= {one.name for one in fields(Part)}:
            raise DamagedError(
                f"{manifest.path}: part {number} has no documents or a file of another kind; "
                "delete it to run the task again"
            )
    return [Part(**found[number]) for number in sorted(found)]


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


def stored_columns(store: Store, part: Part, columns: Sequence[str]) -> list[str]:
    """Those of `columns` that the documents have. Scores that were made before a new score was added lack that one."""
    with open_table(store, part.documents) as table:
        return [name for name in columns if name in table.schema_arrow.names]


def read_part(
    store: Store,
    part: Part,
    columns: Sequence[str],
    batch_rows: int = BATCH_ROWS,
    only: npt.NDArray[np.integer] | None = None,
) -> Iterator[pa.RecordBatch]:
    """Yield the documents that are left of a part, in batches: the column `row` (int64) and `columns`.

    Columns that the index has are taken from it, and texts have no cuts any more. only: of these rows alone.
    Reads no row group without such a document; memory holds one batch and the index. Raises DamagedError if a column is
    in neither file.
    """
    index = read_index(store, part, columns)
    if only is not None:
        index = index.filter(pa.array(np.isin(index["row"].to_numpy(), only)))
    left = index["row"].to_numpy()
    cuts = read_cuts(store, part.cuts) if "text" in columns else {}
    own = [name for name in columns if name not in index.column_names] or ["id"]  # of no column, no batch has rows
    with open_table(store, part.documents) as table:
        if missing := {*own}.difference(table.schema_arrow.names):
            raise DamagedError(
                f"{store.full(part.documents.path)}: has no {', '.join(sorted(missing))}; {part.documents.cure(store)}"
            )
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


def _cut(texts: pa.Array, rows: RowNumbers, cuts: dict[int, Ranges]) -> pa.Array:
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
