"""Reads a source beside the crawl row by row: JSONL, JSON arrays, Parquet and plain text, packed as gz or zst or not.

A worker holds one row of a file and what is read ahead of it, whatever the file's size. What cannot be read is an
`Unusable` row with its reason, and the rows before and after it count: one bad line, or a download that was cut off,
spoils no source. Only a store that fails is an error.
"""

import io
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from contract.errors import InputError, StoreError
from contract.examples import MAX_LINE_BYTES, Unusable, lines_of
from contract.schema import Drop
from contract.store import Entry, Store, explain, split_uri

NAMED = re.compile(r"\.(jsonl|ndjson|json|parquet|txt|text)(\.(gz|zst))?\Z", re.IGNORECASE)
TEXT = re.compile(r"\.(txt|text)(\.(gz|zst))?\Z", re.IGNORECASE)
BOM = b"\xef\xbb\xbf"
PIECE = 64 << 10  # bytes read at once: what a cut-off file loses of its end
PARQUET_ROWS = 64  # in memory at a time; a book has megabytes
STRUCTURE = re.compile(rb'["\[\]{},]')
IN_STRING = re.compile(rb'["\\]')


@dataclass(frozen=True)
class Row:
    """One row of a file: its number in the file, from 1, and its value, or why there is none."""

    number: int
    value: Any


def list_files(key: str, uri: str, text: bool = False) -> tuple[Store, list[Entry], int]:
    """The store of a source, its files in the order of their names, and how many others its folder holds.

    Hidden files, and those whose names tell of no known format, are left out, unless the recipe names one itself.
    text: all files are plain text, whatever their names. Raises InputError, which begins with the recipe's `key`, if no
    file is left.
    """
    store, name = split_uri(uri)
    if file := store.entry(name):
        return store, [file], 0
    found = store.files(name)
    shown = [file for file in found if not any(part[:1] in "._" for part in file.path[len(name) + 1 :].split("/"))]
    files = [file for file in shown if text or NAMED.search(file.path)]
    if not files:
        what = f"none of its {len(found)} files ends in .jsonl, .json, .parquet or .txt, packed as .gz or .zst or not"
        raise InputError(f"{key}: {uri}: {what if found else 'no such file or folder'}")
    return store, files, len(found) - len(files)


def rows_of(store: Store, path: str, text: bool = False) -> Iterator[Row]:
    """Yield every row of a file. A file of plain text is one row, its text. Raises StoreError if the store fails.

    The first bytes tell whether a file is packed, Parquet, or a JSON array. Plain text is known by its name, or `text`
    says so.
    """
    number = 0
    try:
        for number, value in enumerate(_values(store, path, text or bool(TEXT.search(path))), 1):
            yield Row(number, value)
    except FileNotFoundError:
        raise InputError(f"{store.full(path)}: is gone since the run was resolved; bring it back") from None
    except (OSError, pa.ArrowException, EOFError) as error:
        if isinstance(error, OSError) and (error.errno or "AWS Error" in str(error)):
            raise StoreError(explain(store.full(path), error)) from error
        yield Row(number + 1, Unusable(Drop.DAMAGED_FILE, " ".join(str(error).split())))


def _values(store: Store, path: str, text: bool) -> Iterator[Any]:
    with store.open_input(path) as raw:
        head = raw.read(4)
        raw.seek(0)
        if head == b"PAR1" and not text:
            yield from _parquet(raw)
            return
        with io.BufferedReader(_unpacked(raw, head), PIECE) as stream:
            start = stream.peek(1024).removeprefix(BOM)
            if text:
                yield _whole(stream)
            elif start.lstrip()[:1] == b"[":
                for item in elements(stream):
                    yield item if isinstance(item, Unusable) else parsed(item)
            else:
                for line in lines_of(stream):
                    if isinstance(line, Unusable) or line.removeprefix(BOM).strip():
                        yield line if isinstance(line, Unusable) else parsed(line.removeprefix(BOM))


def _unpacked(raw: pa.NativeFile, head: bytes) -> Any:
    if head[:2] == b"\x1f\x8b":
        return pa.CompressedInputStream(raw, "gzip")
    skippable = head[1:] == b"\x2a\x4d\x18" and head[0] >> 4 == 5  # a frame that pzstd puts first
    return pa.CompressedInputStream(raw, "zstd") if head == b"\x28\xb5\x2f\xfd" or skippable else raw


def _parquet(raw: pa.NativeFile) -> Iterator[Any]:
    for batch in pq.ParquetFile(raw).iter_batches(PARQUET_ROWS):
        yield from batch.to_pylist()


def _whole(stream: io.BufferedReader) -> Any:
    """A text file as a row."""
    data = stream.read(MAX_LINE_BYTES + 1)
    if len(data) > MAX_LINE_BYTES:
        return Unusable(Drop.ROW_TOO_LONG, f"more than {MAX_LINE_BYTES:,} bytes")
    try:
        return {"text": data.removeprefix(BOM).decode()}
    except UnicodeDecodeError as error:
        return Unusable(Drop.NOT_UTF8, f"byte {error.start}")


def parsed(data: bytes) -> Any:
    """The value of a line or element of JSON, or an Unusable."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        return Unusable(Drop.NOT_UTF8, f"byte {error.start}")
    with suppress(ValueError, RecursionError):
        return json.loads(text)
    return Unusable(Drop.NOT_JSON)


def elements(stream: io.BufferedReader) -> Iterator[bytes | Unusable]:
    """Yield the elements of a JSON array as bytes, one in memory at a time; an Unusable for one that is too long.

    An array that stops before its last bracket ends with an Unusable.
    """
    held, size = bytearray(), 0
    for piece, ends in pieces(stream):
        size += len(piece)
        held += piece[: MAX_LINE_BYTES + 1 - len(held)]
        if ends and size > MAX_LINE_BYTES:
            yield Unusable(Drop.ROW_TOO_LONG, f"{size:,} bytes")
        elif ends and held.strip():
            yield bytes(held)
        if ends:
            held, size = bytearray(), 0
    if size:
        yield Unusable(Drop.DAMAGED_FILE, "the array does not end")


def pieces(stream: io.BufferedReader) -> Iterator[tuple[bytes, bool]]:
    """Yield the bytes between the brackets of a JSON array, without the commas between its elements, in pieces.

    Each comes with whether an element ends with it. Takes linear time: each quote, bracket and comma is looked at once.
    """
    depth, quoted, escaped = 0, False, False
    while data := stream.read(PIECE):
        start, at, escaped = 0, int(escaped), False
        while match := (IN_STRING if quoted else STRUCTURE).search(data, at):
            sign, at = match[0], match.end()
            if sign == b"\\":
                escaped, at = at == len(data), at + 1
            elif sign == b'"':
                quoted = not quoted
            elif sign in b"[{":
                depth += 1
                start = at if depth == 1 else start
            else:
                depth -= sign != b","
                if depth == (sign == b","):
                    yield data[start : match.start()], True
                    start = at
            if not depth:
                return
        yield data[start:], False
    if depth:
        yield b" ", False  # so that what was cut off is noticed, even if it was cut between two elements
