"""Evaluation sets as files hold them: bytes to items, each the texts of one question. JSONL, JSON, CSV, TSV, Parquet, packed or not."""

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
"""Keys and columns that name an item and are no part of its text."""
HEADER = frozenset({"question", "prompt", "input", "problem", "text", "context"})
"""A CSV file whose first row has one of these has a header; MMLU's have none."""

MAX_UNPACKED = 1 << 30  # bytes, of all that one file holds; the largest published sets have some hundred MB
MAX_LAYERS = 3  # of packing, as in .jsonl.gz within .tar.xz
PIECE, PARQUET_ROWS = 1 << 20, 1024  # read at once

_PACKED: tuple[tuple[bytes, str, Any], ...] = (
    (b"\x1f\x8b", ".gz", gzip.open),
    (b"\xfd7zXZ\x00", ".xz", lzma.open),
    (b"BZh", ".bz2", bz2.open),
)
_DAMAGE = (
    EOFError, OSError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError, pa.ArrowException, NotImplementedError,
    RecursionError,
)  # fmt: skip


class Item(NamedTuple):
    """One question: where it stands in its benchmark, as `file:line` or `file#number`, and its texts, in order."""

    where: str
    fields: tuple[str, ...]


class Malformed(ValueError):
    """A file is not what its name says; the message begins with the file and, where there is one, the line."""


def read_members(name: str, data: bytes) -> Iterator[tuple[str, tuple[Item, ...]]]:
    """The name and the items of a file, or of each member of an archive that ends in one of SUFFIXES. Raises Malformed."""
    budget = _Budget(name)
    try:
        for member, content in _members(name, data, budget):
            yield member, tuple(_parse(member, content, budget))
    except _DAMAGE as error:
        raise Malformed(f"{name} cannot be read: {error}") from None


class _Budget:
    """What a file may still unpack to: a few kilobytes can hold terabytes."""

    def __init__(self, name: str) -> None:
        self._name, self._left = name, MAX_UNPACKED

    def take(self, size: int) -> None:
        """Raises Malformed where nothing is left."""
        self._left -= size
        if self._left < 0:
            raise Malformed(f"{self._name} cannot be read: unpacked, it has more than {MAX_UNPACKED:,} bytes")

    def read(self, stream: IO[bytes]) -> bytes:
        """All of a stream, if it may have so much."""
        data = bytearray()
        while piece := stream.read(PIECE):
            self.take(len(piece))
            data += piece
        return bytes(data)


def strings(value: Any) -> Iterator[str]:
    """Every string value in a JSON value, in order; keys are not text, and neither are identifiers."""
    if isinstance(value, str):
        yield value.encode("utf-8", "replace").decode()  # a lone surrogate is no character
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            if str(key).lower() not in IDENTIFIERS:
                yield from strings(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from strings(inner)


def is_named_like_one(path: str) -> bool:
    """Whether a file in a folder or an archive is read: by its suffix, and not the hidden files that some programs pack."""
    parts = path.split("/")
    last = parts[-1].lower()
    for _, suffix, _ in _PACKED:
        last = last.removesuffix(suffix)
    return last.endswith((*SUFFIXES, *ARCHIVES)) and not any(part[:1] in (".", "_") for part in parts)


def _members(
    name: str, data: bytes, budget: _Budget, layers: int = MAX_LAYERS, within: bool = False
) -> Iterator[tuple[str, bytes]]:
    """`layers` is how often it may still be unpacked, `within` whether it lies in an archive."""
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
            for info in sorted(archive.infolist(), key=lambda one: one.filename):
                if is_named_like_one(info.filename) and not info.is_dir():
                    if info.flag_bits & 1:
                        raise Malformed(f"{name}/{info.filename} cannot be read: it is encrypted; unpack it first")
                    with archive.open(info) as stream:
                        yield from _members(f"{name}/{info.filename}", budget.read(stream), budget, layers - 1, True)
    elif tarred:
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            for entry in sorted(archive, key=lambda one: one.name):
                content = archive.extractfile(entry) if entry.isfile() and is_named_like_one(entry.name) else None
                if content:
                    yield from _members(f"{name}/{entry.name}", budget.read(content), budget, layers - 1, True)
    elif name.lower().endswith(ARCHIVES):
        raise Malformed(f"{name} cannot be read: it is no archive, or an empty one")
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
    """A list has an item in each element. So has an object in each element of its lists; what else it holds is one more."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":  # JSONL under the wrong name, which is common
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
    csv.field_size_limit(sys.maxsize)  # a cell may hold a whole article; csv stops at 128 KiB
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
