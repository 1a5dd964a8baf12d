"""Token shards: what `pack` writes and training reads. Little-endian; the files of one shard have one name.

NAME.bin       the token ids of whole documents, one after the other, each document with its end-of-text: uint16 for
               vocabularies of up to 65,536 ids, int32 above
NAME.idx       where each document begins. It is Megatron-LM's index, version 1, and reads NAME.bin there unchanged:
               `MMIDIDX\\0\\0`, uint64 version, uint8 code of the id's type, uint64 sequences n, uint64 document marks
               n + 1; then sizes (n) int32 in tokens, pointers (n) int64 in bytes, marks (n + 1) int64, which are
               0..n here because every sequence is a whole document
NAME.ids       16 bytes a document: its id, so that every token can be traced to its page
NAME-LEN.rows  how rows of LEN + 1 tokens are cut from NAME.bin, one file for each sequence length: a header of 64
               bytes (magic `GRISTROW`, version, seq_len, rows r, pieces p, tokens of NAME.bin), then first (r + 1)
               uint64, the first piece of each row, start (p) uint64 and length (p) uint32 of each piece in tokens.
               The pieces of a row, joined, are at most LEN + 1 tokens; the reader pads the rest

Writers hold a bounded number of bytes, however large a shard is. Readers take any source of byte ranges, for example a
memory map or a file in the store, and check all that they read: a file may be damaged or hostile.
"""

import io
import re
import struct
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from contract.errors import DamagedError, InputError
from contract.kinds import Kind
from contract.manifest import File, Manifest
from contract.settings.corpus import CRAWL
from contract.store import Store

INDEX = struct.Struct("<9sQBQQ")  # 34 bytes
INDEX_MAGIC, INDEX_VERSION = b"MMIDIDX\x00\x00", 1
TYPES: dict[int, np.dtype[Any]] = {8: np.dtype("<u2"), 4: np.dtype("<i4")}
"""Megatron's code of a type of token ids -> the type."""
ID_BYTES = 16
ROWS = struct.Struct("<8sIIQQQ24x")  # 64 bytes
ROWS_MAGIC, ROWS_VERSION = b"GRISTROW", 1
CHUNK = 1 << 16  # numbers that a writer holds at a time

Read = Callable[[int, int], Any]
"""`read(offset, size)` returns these bytes of a file, as any object with a buffer."""
Integers = npt.NDArray[np.integer]


class Sink(Protocol):
    """Where a writer puts its bytes, for example a `contract.output.Writer`."""

    def write(self, data: Any, /) -> Any: ...


def token_type(vocab_size: int) -> np.dtype[Any]:
    """The type of the ids of a vocabulary: uint16 for up to 65,536 ids, int32 above."""
    return TYPES[8] if vocab_size <= 1 << 16 else TYPES[4]


# ---------------------------------------------------------------- files of a manifest


@dataclass(frozen=True)
class ShardFiles:
    """The files of one shard. rows: sequence length -> the file of its rows, whose `rows` is their number."""

    tokens: File
    index: File
    ids: File
    rows: dict[int, File] = field(default_factory=dict)

    @property
    def files(self) -> list[File]:
        return [self.tokens, self.index, self.ids, *self.rows.values()]


def rows_name(name: str, seq_len: int) -> str:
    """The name of the file of rows of a shard."""
    return f"{name}-{seq_len}.rows"


def shards_of(manifest: Manifest, kind: Kind) -> list[ShardFiles]:
    """The shards of a kind, `tokens` or `heldout_tokens`, by part. Raises DamagedError if one lacks a file."""
    parts: dict[int | None, list[File]] = {}
    for file in manifest.files:
        parts.setdefault(file.part, []).append(file)
    shards = []
    for tokens in manifest.of(kind):
        files = parts[tokens.part]
        one = {name: [file for file in files if file.kind == name] for name in (kind, Kind.TOKEN_INDEX, Kind.TOKEN_IDS)}
        rows = {_seq_len(file): file for file in files if file.kind == Kind.ROWS}
        if tokens.part is None or any(len(found) != 1 for found in one.values()):
            raise DamagedError(
                f"{manifest.path}: the shard {tokens.path} has not one index and one file of ids; "
                "delete the manifest to run the task again"
            )
        shards.append(ShardFiles(tokens, one[Kind.TOKEN_INDEX][0], one[Kind.TOKEN_IDS][0], rows))
    return shards


def source_of(shard: ShardFiles) -> str:
    """The source of a shard's documents."""
    return shard.tokens.source or CRAWL


def rows_by_source(manifest: Manifest, seq_len: int) -> dict[str, int]:
    """The number of rows of this length that training has of each source. Raises DamagedError as `shards_of` does."""
    rows: dict[str, int] = {}
    for shard in shards_of(manifest, Kind.TOKENS):
        file = shard.rows.get(seq_len)
        rows[source_of(shard)] = rows.get(source_of(shard), 0) + (file.rows if file else 0)
    return rows


def _seq_len(file: File) -> int:
    match = re.search(r"-([1-9][0-9]{0,8})\.rows$", file.path)
    if not match:
        raise DamagedError(f"{file.path}: its name does not end in its sequence length and .rows; run pack again")
    return int(match[1])


# ---------------------------------------------------------------- writing


class _Spool:
    """Numbers of one type, on disk beyond 256 KiB, so that memory does not grow with a shard."""

    def __init__(self, kind: str) -> None:
        self._kind = np.dtype(kind)
        self._file = tempfile.SpooledTemporaryFile(1 << 18)  # noqa: SIM115  `close` ends it
        self.count = 0

    def add(self, numbers: Integers) -> None:
        self._file.write(_bytes(numbers.astype(self._kind)))
        self.count += len(numbers)

    def chunks(self) -> Iterator[npt.NDArray[Any]]:
        at = 0  # two readers may take turns
        while self._file.seek(at) == at and (data := self._file.read(CHUNK * self._kind.itemsize)):
            at += len(data)
            yield np.frombuffer(data, self._kind)
        self._file.seek(0, io.SEEK_END)

    def close(self) -> None:
        self._file.close()


def _bytes(numbers: npt.NDArray[Any]) -> memoryview:
    return np.ascontiguousarray(numbers).view(np.uint8).data


class TokenWriter:
    """Writes the tokens and the ids of one shard, batch by batch, and at the end its index."""

    def __init__(self, tokens: Sink, ids: Sink, vocab_size: int) -> None:
        self._tokens, self._ids, self._vocab_size = tokens, ids, vocab_size
        self._type = token_type(vocab_size)
        self._sizes = _Spool("<i4")
        self.tokens = 0

    @property
    def documents(self) -> int:
        return self._sizes.count

    def add(self, tokens: Integers, sizes: Integers, ids: bytes) -> None:
        """Add documents: their ids of tokens joined, each with its end-of-text; tokens of each; 16 bytes of id of each.

        Raises ValueError if the three do not fit, a document has no token, or an id is outside the vocabulary.
        """
        if len(ids) != ID_BYTES * len(sizes):
            raise ValueError(f"{len(sizes)} documents but {len(ids)} bytes of ids")
        if not len(sizes):
            return
        if int(sizes.min()) < 1 or int(sizes.max()) >= 1 << 31 or int(sizes.sum(dtype=np.int64)) != len(tokens):
            raise ValueError(f"the sizes of {len(sizes)} documents do not divide {len(tokens)} tokens")
        if int(tokens.min()) < 0 or int(tokens.max()) >= self._vocab_size:
            raise ValueError(f"token id {int(tokens.max())} is outside the vocabulary of {self._vocab_size}")
        self._tokens.write(_bytes(tokens.astype(self._type, copy=False)))
        self._ids.write(ids)
        self._sizes.add(sizes)
        self.tokens += len(tokens)

    def sizes(self) -> Iterator[npt.NDArray[np.int32]]:
        """The tokens of each document so far, in order, a bounded number at a time."""
        return self._sizes.chunks()

    def finish(self, index: Sink) -> None:
        """Write the index. Closing the sinks is left to their owner."""
        code = next(code for code, kind in TYPES.items() if kind == self._type)
        count = self.documents
        index.write(INDEX.pack(INDEX_MAGIC, INDEX_VERSION, code, count, count + 1))
        for sizes in self._sizes.chunks():
            index.write(_bytes(sizes))
        at = 0
        for sizes in self._sizes.chunks():
            ends = at + np.cumsum(sizes.astype(np.int64)) * self._type.itemsize
            index.write(_bytes(np.concatenate([[at], ends[:-1]]).astype("<i8")))
            at = int(ends[-1])
        for begin in range(0, count + 1, CHUNK):
            index.write(_bytes(np.arange(begin, min(begin + CHUNK, count + 1), dtype="<i8")))
        self._sizes.close()


class RowsWriter:
    """Collects the rows of one sequence length, batch by batch, and at the end writes their file."""

    def __init__(self, seq_len: int) -> None:
        self._seq_len = seq_len
        self._first, self._start, self._length = _Spool("<u8"), _Spool("<u8"), _Spool("<u4")

    @property
    def rows(self) -> int:
        return self._first.count

    def add(self, counts: Integers, start: Integers, length: Integers) -> None:
        """Add rows: the number of pieces of each, then where each piece starts in the shard, and its tokens."""
        ends = self._start.count + np.cumsum(counts, dtype=np.int64)
        self._first.add(ends - counts)
        self._start.add(start)
        self._length.add(length)

    def finish(self, sink: Sink, tokens: int) -> None:
        """Write the file. tokens: those of the shard."""
        pieces = self._start.count
        sink.write(ROWS.pack(ROWS_MAGIC, ROWS_VERSION, self._seq_len, self.rows, pieces, tokens))
        for column in (self._first.chunks(), [np.array([pieces], "<u8")], self._start.chunks(), self._length.chunks()):
            for numbers in column:
                sink.write(_bytes(numbers))
        for spool in (self._first, self._start, self._length):
            spool.close()


# ---------------------------------------------------------------- reading


def mapped(path: Path) -> tuple[Read, int]:
    """(a reader of byte ranges through a memory map, the file's size)."""
    size = path.stat().st_size
    data = np.memmap(path, np.uint8, "r") if size else np.zeros(0, np.uint8)
    return lambda offset, count: data[offset : offset + count], size


def in_store(store: Store, file: File) -> tuple[Read, int]:
    """(a reader of byte ranges of a committed file, its size). Each range is one request to the store."""

    def read(offset: int, count: int) -> Any:
        with file.open(store) as source:
            return source.read_at(count, offset)

    return read, file.bytes


def _damaged(where: str, why: str) -> InputError:
    return InputError(f"{where}: {why}; the file is damaged, run pack again")


def _numbers(read: Read, kind: str, offset: int, count: int, where: str) -> npt.NDArray[Any]:
    dtype = np.dtype(kind)
    data = read(offset, count * dtype.itemsize)
    if len(data) != count * dtype.itemsize:
        raise _damaged(where, f"ends before byte {offset + count * dtype.itemsize}")
    return np.frombuffer(data, dtype)


@dataclass(frozen=True)
class Index:
    """type: of the token ids. starts (documents + 1,) int64: the tokens where each one begins, and all end."""

    type: np.dtype[Any]
    starts: npt.NDArray[np.int64]

    @property
    def tokens(self) -> int:
        return int(self.starts[-1])

    @property
    def documents(self) -> int:
        return len(self.starts) - 1

    def documents_of(self, start: int, length: int) -> range:
        """The numbers of the documents that have a token in [start, start + length)."""
        first = int(np.searchsorted(self.starts, start, side="right")) - 1
        return range(first, int(np.searchsorted(self.starts, start + length, side="left")))


def read_index(read: Read, size: int, where: str) -> Index:
    """Read a whole index of `size` bytes, named `where` in errors. Raises InputError if it is none, or damaged."""
    head = bytes(read(0, min(size, INDEX.size)))
    if len(head) < INDEX.size or not head.startswith(INDEX_MAGIC):
        raise InputError(f"{where}: is not an index of tokens; run pack again")
    _, version, code, count, marks = INDEX.unpack(head)
    if version != INDEX_VERSION or code not in TYPES:
        raise InputError(f"{where}: index version {version} of ids of type {code} cannot be read; run pack again")
    if marks != count + 1 or size != INDEX.size + 12 * count + 8 * marks:
        raise _damaged(where, f"is {size} bytes for {count} documents and {marks} marks")
    width = TYPES[code].itemsize
    sizes = _numbers(read, "<i4", INDEX.size, count, where)
    pointers = _numbers(read, "<i8", INDEX.size + 4 * count, count, where)
    starts = np.zeros(count + 1, np.int64)
    np.cumsum(sizes, out=starts[1:])
    if count and (int(sizes.min()) < 1 or not np.array_equal(pointers, starts[:-1] * width)):
        raise _damaged(where, "says sizes and places of documents that contradict each other")
    if not np.array_equal(_numbers(read, "<i8", INDEX.size + 12 * count, marks, where), np.arange(marks)):
        raise _damaged(where, "divides a document into several sequences")
    return Index(TYPES[code], starts)


def read_tokens(read: Read, index: Index, start: int, length: int, where: str) -> npt.NDArray[Any]:
    """The ids of the tokens [start, start + length) of a shard, without a copy if `read` makes none."""
    if start < 0 or length < 0 or start + length > index.tokens:
        raise _damaged(where, f"has no tokens {start} to {start + length}")
    return _numbers(read, index.type.str, start * index.type.itemsize, length, where)


def read_ids(read: Read, size: int, documents: range, index: Index, where: str) -> list[str]:
    """Hexadecimal ids of consecutive documents, from a file of ids of `size` bytes."""
    if size != ID_BYTES * index.documents:
        raise _damaged(where, f"is {size} bytes for {index.documents} documents")
    data = _numbers(read, "u1", ID_BYTES * documents.start, ID_BYTES * len(documents), where)
    return [bytes(row).hex() for row in data.reshape(-1, ID_BYTES)]


@dataclass(frozen=True)
class RowsHeader:
    """What a file of rows says of itself. tokens: those of the shard."""

    seq_len: int
    rows: int
    pieces: int
    tokens: int

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return ROWS.size + 8 * (self.rows + 1) + 12 * self.pieces


@dataclass(frozen=True)
class Rows:
    """Consecutive rows. first (rows + 1,): each row's first piece; start, length (pieces,), in tokens; all int64."""

    first: npt.NDArray[np.int64]
    start: npt.NDArray[np.int64]
    length: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.first) - 1

    def pieces(self, row: int) -> list[tuple[int, int]]:
        """(start, length) of each piece of a row, in order."""
        own = slice(int(self.first[row]), int(self.first[row + 1]))
        return list(zip(self.start[own].tolist(), self.length[own].tolist(), strict=True))


def read_rows_header(read: Read, size: int, where: str) -> RowsHeader:
    """The header of a file of rows of `size` bytes. Raises InputError if it is none, or has the wrong size."""
    head = bytes(read(0, min(size, ROWS.size)))
    if len(head) < ROWS.size or not head.startswith(ROWS_MAGIC):
        raise InputError(f"{where}: is not a file of rows; run pack again")
    _, version, seq_len, rows, pieces, tokens = ROWS.unpack(head)
    if version != ROWS_VERSION:
        raise InputError(f"{where}: rows version {version}; this code reads version {ROWS_VERSION}; run pack again")
    header = RowsHeader(seq_len, rows, pieces, tokens)
    if size != header.size:
        raise _damaged(where, f"is {size} bytes, its header says {header.size}")
    if not seq_len or tokens >= 1 << 62:
        raise _damaged(where, f"says a sequence length of {seq_len} and {tokens} tokens")
    return header


def read_rows(read: Read, header: RowsHeader, where: str, begin: int = 0, end: int | None = None) -> Rows:
    """Rows [begin, end) of a file of rows, by three byte ranges. Raises InputError if they are damaged."""
    end = header.rows if end is None else end
    if not 0 <= begin <= end <= header.rows:
        raise InputError(f"{where}: has {header.rows} rows, and no rows {begin} to {end}")
    first = _numbers(read, "<u8", ROWS.size + 8 * begin, end - begin + 1, where)
    low, high = int(first[0]), int(first[-1])
    whole = (begin or not low) and (end < header.rows or high == header.pieces)
    if not whole or high > header.pieces or (first[1:] <= first[:-1]).any():
        raise _damaged(where, "has a row without a piece, or a piece without a row")
    pieces = ROWS.size + 8 * (header.rows + 1)
    start = _numbers(read, "<u8", pieces + 8 * low, high - low, where)
    length = _numbers(read, "<u4", pieces + 8 * header.pieces + 4 * low, high - low, where).astype(np.int64)
    if len(start) and (int(start.max()) > header.tokens or int(length.min()) < 1):
        raise _damaged(where, "has a piece that is empty or outside the shard")
    rows = Rows((first - first[0]).astype(np.int64), start.astype(np.int64), length)
    if (rows.start + length > header.tokens).any():
        raise _damaged(where, "has a piece that is empty or outside the shard")
    if len(rows) and int(np.add.reduceat(length, rows.first[:-1]).max()) > header.seq_len + 1:
        raise _damaged(where, f"has a row of more than {header.seq_len + 1} tokens")
    return rows
