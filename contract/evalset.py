"""Reads evaluation sets: turns the bytes of a file into items, each with the texts of one question.

Formats are JSONL, JSON, CSV, TSV and Parquet, packed or not.
"""

import bz2
import csv
import gzip
import io
import json
import lzma
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from typing import IO, Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
ARCHIVES = (".zip", ".tar", ".tgz")
IDENTIFIERS = frozenset({"", "id", "_id", "uid", "qid", "idx", "index", "task_id", "question_id", "example_id"})
"""Keys and columns that identify an item and are not part of its text."""
HEADER = frozenset({"question", "prompt", "input", "problem", "text", "context"})
"""A CSV file has a header if its first row contains one of these. MMLU's files have no header."""

MAX_UNPACKED = 1 << 30  # bytes per file; the largest published sets have a few hundred MB
MAX_LAYERS = 3  # of packing; a .jsonl.gz within a .tar.xz has three
PIECE, PARQUET_ROWS = 1 << 20, 1024  # bytes and rows read at once

_PACKED: tuple[tuple[bytes, str, Any], ...] = (
    (b"\x1f\x8b", ".gz", gzip.open),
    (b"\xfd7zXZ\x00", ".xz", lzma.open),
    (b"BZh", ".bz2", bz2.open),
)
_DAMAGE = (
    EOFError, OSError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError, pa.ArrowException,
    NotImplementedError, RecursionError,
)  # fmt: skip


class Item(NamedTuple):
    """One question: its place in the benchmark, as `file:line` or `file#number`, and its texts in order."""

    where: str
    fields: tuple[str, ...]


class Malformed(ValueError):
    """A file is not in the format that its name says; the message begins with the file and, if known, the line."""


def read_members(name: str, data: bytes) -> Iterator[tuple[str, tuple[Item, ...]]]:
    """Yield (name, items) of a file, or of each archive member that `is_named_like_one` accepts. Raises Malformed."""
    budget = _Budget(name)
    try:
        for member, content in _members(name, data, budget):
            yield member, tuple(_parse(member, content, budget))
    except _DAMAGE as error:
        raise Malformed(f"{name} cannot be read: {error}") from None


def read_contents(name: str, data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield (name, unpacked bytes) of a file, or of each archive member that `is_named_like_one` accepts.

    For readers that need keys and columns. Raises Malformed.
    """
    try:
        yield from _members(name, data, _Budget(name))
    except _DAMAGE as error:
        raise Malformed(f"{name} cannot be read: {error}") from None


class _Budget:
    """The number of bytes that a file may still unpack to; a few packed kilobytes can hold terabytes."""

    def __init__(self, name: str) -> None:
        self._name, self._left = name, MAX_UNPACKED

    def take(self, size: int) -> None:
        """Use `size` bytes of the budget. Raises Malformed if it is exceeded."""
        self._left -= size
        if self._left < 0:
            raise Malformed(f"{self._name} cannot be read: unpacked, it has more than {MAX_UNPACKED:,} bytes")

    def read(self, stream: IO[bytes]) -> bytes:
        """Read a whole stream within the budget. Raises Malformed if it is exceeded."""
        data = bytearray()
        while piece := stream.read(PIECE):
            self.take(len(piece))
            data += piece
        return bytes(data)


def strings(value: Any) -> Iterator[str]:
    """Yield every string in a JSON value, in order, without keys and the values of IDENTIFIERS."""
    if isinstance(value, str):
        yield value.encode("utf-8", "replace").decode()  # replaces lone surrogates, which are not characters
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            if str(key).lower() not in IDENTIFIERS:
                yield from strings(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from strings(inner)


def is_named_like_one(path: str) -> bool:
    """Whether a file in a folder or archive is read: it has a known suffix, and no part of its path is hidden."""
    parts = path.split("/")
    last = parts[-1].lower()
    for _, suffix, _ in _PACKED:
        last = last.removesuffix(suffix)
    return last.endswith((*SUFFIXES, *ARCHIVES)) and not any(part[:1] in (".", "_") for part in parts)


def _members(
    name: str, data: bytes, budget: _Budget, layers: int = MAX_LAYERS, within: bool = False
) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of a file's members, unpacked at most `layers` times. `within`: it lies in an archive."""
    zipped, tarred = data.startswith(b"PK\x03\x04"), data[257:262] == b"ustar"
    packed = next((kind for kind in _PACKED if data.startswith(kind[0])), None)
    if within and (zipped or tarred):
        raise Malformed(f"{name} cannot be read: it is an archive within an archive; unpack the outer one first")
    if not layers and (zipped or tarred or packed):
        raise Malformed(f"{name} cannot be read: it is packed more than {MAX_LAYERS} times over")
    if packed:
        _, suffix, opened = packed
        with opened(io.BytesIO(data)) as stream:
            yield from _members(name.removesuffix(suffix), budget.read(stream), budget, layers - 1, within)
    elif zipped:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for info in sorted(archive.infolist(), key=lambda info: info.filename):
                if is_named_like_one(info.filename) and not info.is_dir():
                    if info.flag_bits & 1:
                        raise Malformed(f"{name}/{info.filename} cannot be read: it is encrypted; unpack it first")
                    with archive.open(info) as stream:
                        yield from _members(f"{name}/{info.filename}", budget.read(stream), budget, layers - 1, True)
    elif tarred:
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            for entry in sorted(archive, key=lambda entry: entry.name):
                content = archive.extractfile(entry) if entry.isfile() and is_named_like_one(entry.name) else None
                if content:
                    yield from _members(f"{name}/{entry.name}", budget.read(content), budget, layers - 1, True)
    elif name.lower().endswith(ARCHIVES):
        raise Malformed(f"{name} cannot be read: it is not an archive, or it is empty")
    else:
        yield name, data


def _parse(name: str, data: bytes, budget: _Budget) -> Iterator[Item]:
    suffix = f".{name.lower().rpartition('.')[2]}"
    if suffix == ".parquet":
        number = 0
        for batch in pq.ParquetFile(pa.BufferReader(data)).iter_batches(PARQUET_ROWS):
            budget.take(batch.nbytes)
            for row in batch.to_pylist():
                yield Item(f"{name}#{number}", tuple(strings(row)))
                number += 1
        return
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Malformed(f"{name} line {line} is not UTF-8: {error}") from None
    if suffix in (".csv", ".tsv"):
        yield from _table(name, text, "\t" if suffix == ".tsv" else ",")
    elif suffix == ".json":
        yield from _document(name, text)
    else:
        yield from _lines(name, text)


def _lines(name: str, text: str) -> Iterator[Item]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield Item(f"{name}:{number}", tuple(strings(json.loads(line))))
            except (ValueError, RecursionError) as error:
                raise Malformed(f"{name} line {number} is not JSON: {error}") from None


def _document(name: str, text: str) -> Iterator[Item]:
    """Yield one item per element of a list; of an object, one per element of each list in it, and one for the rest."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":  # JSONL named .json, which is common
            yield from _lines(name, text)
            return
        raise Malformed(f"{name} line {error.lineno} is not JSON: {error}") from None
    except (ValueError, RecursionError) as error:
        raise Malformed(f"{name} line 1 is not JSON: {error}") from None
    elements, rest = (value, None) if isinstance(value, list) else ([], value)
    if isinstance(value, dict):
        elements = [one for inner in value.values() if isinstance(inner, list) for one in inner]
        rest = {key: inner for key, inner in value.items() if not isinstance(inner, list)}
    for number, element in enumerate(elements):
        yield Item(f"{name}#{number}", tuple(strings(element)))
    if fields := tuple(strings(rest)):
        yield Item(name, fields)


def _table(name: str, text: str, delimiter: str) -> Iterator[Item]:
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    keys: list[str] | None = None
    csv.field_size_limit(sys.maxsize)  # a cell may hold a whole article; the default limit is 128 KiB
    try:
        for row in rows:
            if keys is None:
                keys = [cell.strip().lower() for cell in row]
                if not HEADER.isdisjoint(keys):
                    continue
                keys = []
            cells = [cell for at, cell in enumerate(row) if at >= len(keys) or keys[at] not in IDENTIFIERS]
            if any(cells):
                yield Item(f"{name}:{rows.line_num}", tuple(cells))
    except csv.Error as error:
        raise Malformed(f"{name} line {rows.line_num} is not CSV: {error}") from None
