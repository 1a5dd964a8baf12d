"""Which documents a row of training tokens holds, and the pages that they come from.

`python -m contract trace --store STORE FILE --row N` names them: FILE is a file of rows that `pack` committed. An id
then leads on: `python -m reports.why --recipe RUN ID` tells what every stage did with that document.
"""

from typing import Any

from contract.errors import InputError
from contract.kinds import Kind
from contract.manifest import File, Manifest, read
from contract.printable import printable
from contract.shards import (
    Index,
    Rows,
    ShardFiles,
    in_store,
    read_ids,
    read_index,
    read_rows,
    read_rows_header,
    shards_of,
)
from contract.store import Store
from contract.tables import reading

PLACE = ("url", "file", "offset")
"""Columns of a document that say where it comes from; those of a curated source may lack them."""


def row_lines(store: Store, path: str, row: int) -> list[str]:
    """Printable lines on a row of a committed file of rows: the row, then each document that has tokens in it.

    `path` is relative to the store, or the file's URI. Raises InputError if it is no such file or has no such row.
    """
    path = path.removeprefix(store.full("")).lstrip("/")
    manifest = read_manifest(store, path)
    shard = _shard(manifest, path)
    rows, index = _row(store, shard, path, row)
    found = [
        (at, document, begin, end)
        for at, piece in zip(_places(rows), rows.pieces(0), strict=True)
        for at, document, begin, end in _documents(at, piece, index)
    ]
    numbers = range(min(one[1] for one in found), max(one[1] for one in found) + 1)
    ids = read_ids(*in_store(store, shard.ids), numbers, index, store.full(shard.ids.path))
    own = {document: ids[document - numbers.start] for _, document, _, _ in found}
    pages = _pages(store, manifest, shard.tokens, sorted(set(own.values())))
    lines = [
        f"row {row}: {int(rows.length.sum()):,} tokens of {len(own):,} documents of {shard.tokens.source or 'mix'}"
    ]
    for at, document, begin, end in found:
        size = int(index.starts[document + 1] - index.starts[document])
        page = pages.get(own[document], "")
        lines.append(
            f"{at:>9,}-{at + end - begin:,}  {own[document]}  tokens {begin:,}-{end:,} of {size:,}  {page}".rstrip()
        )
    return list(map(printable, lines))


def read_manifest(store: Store, path: str) -> Manifest:
    """The manifest of the task that wrote a file. Raises InputError if there is none."""
    try:
        return read(store, path.split("/attempt-")[0])
    except FileNotFoundError:
        raise InputError(f"{store.full(path)}: is no file that a task of this store committed") from None


def _shard(manifest: Manifest, path: str) -> ShardFiles:
    shards = [*shards_of(manifest, Kind.TOKENS), *shards_of(manifest, Kind.HELDOUT_TOKENS)]
    for shard in shards:
        if path in {file.path for file in shard.rows.values()}:
            return shard
    known = next((file.path for shard in shards for file in shard.rows.values()), "none")
    raise InputError(f"{path}: is no file of rows that {manifest.path} lists; it lists for example {known}")


def _row(store: Store, shard: ShardFiles, path: str, row: int) -> tuple[Rows, Index]:
    (file,) = [file for file in shard.rows.values() if file.path == path]
    where = store.full(path)
    source, size = in_store(store, file)
    rows = read_rows(source, read_rows_header(source, size, where), where, row, row + 1)
    return rows, read_index(*in_store(store, shard.index), store.full(shard.index.path))


def _places(rows: Rows) -> list[int]:
    """Where each piece of a row begins in it."""
    return [int(rows.length[:at].sum()) for at in range(len(rows.length))]


def _documents(at: int, piece: tuple[int, int], index: Index) -> list[tuple[int, int, int, int]]:
    """(place in the row, document, its first token there, the token after its last) of each document of a piece."""
    start, length = piece
    found = []
    for document in index.documents_of(start, length):
        first, last = int(index.starts[document]), int(index.starts[document + 1])
        begin, end = max(first, start), min(last, start + length)
        found.append((at + begin - start, document, begin - first, end - first))
    return found


def _pages(store: Store, manifest: Manifest, tokens: File, ids: list[str]) -> dict[str, str]:
    """Id -> where a document comes from, as the mixture that was packed says."""
    kind = Kind.DOCUMENTS if tokens.kind == Kind.TOKENS else Kind.HELDOUT
    before = [read(store, one.prefix) for one in manifest.inputs if one.stage == "mix"]
    files = [file for one in before for file in one.of(kind) if file.source == tokens.source]
    pages = {}
    for file in files:
        for found in _rows_of(store, file, ids):
            place = f"{found['file']} at {found['offset']}" if found.get("file") else ""
            pages[found["id"]] = "  ".join(filter(None, (found.get("url"), place)))
    return pages


def _rows_of(store: Store, file: File, ids: list[str]) -> list[dict[str, Any]]:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    with file.open(store) as source, reading(store, file):
        held = pq.read_schema(source).names
        source.seek(0)
        columns = ["id", *(name for name in PLACE if name in held)]
        table = pq.read_table(
            source, columns=columns, filters=pc.field("id").isin(ids), page_checksum_verification=True
        )
    found: list[dict[str, Any]] = table.to_pylist()
    return found
