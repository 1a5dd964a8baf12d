"""Reads a source beside the crawl row by row: JSONL, JSON arrays, Parquet and plain text, packed as gz or zst or not.

A worker holds one row of a file and what is read ahead of it, whatever the file's size; of a Parquet file a batch of
rows and the packed columns of a row group. What cannot be read is an
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
from pipelines.sources.columns import CODE_TEXT, FIELDS

NAMED = re.compile(r"\.(jsonl|ndjson|json|parquet|txt|text)(\.(gz|zst))?\Z", re.IGNORECASE)
TEXT = re.compile(r"\.(txt|text)(\.(gz|zst))?\Z", re.IGNORECASE)
BOM = b"\xef\xbb\xbf"
PIECE = 64 << 10  # bytes read at once: what a cut-off file loses of its end
HEAD = 800  # bytes of a row that is shown: 200 characters of four bytes each
PARQUET_ROWS = 64  # in memory at a time; a book has megabytes
UNREADABLE = (ValueError, OverflowError, LookupError, pa.ArrowException)
"""What Arrow raises for a value that Python cannot hold: bytes that are no text, a date after the year 9999, ..."""
STRUCTURE = re.compile(rb'["\[\]{},]')
IN_STRING = re.compile(rb'["\\]')


@dataclass(frozen=True)
class Row:
    """One row of a file: its number in the file, from 1, and its value, or why there is none.

    place: `line 3` of lines, where empty ones count, too, else `row 3`. head: the first bytes of a row of JSON. ends:
    the file is damaged, and no row follows.
    """

    number: int
    value: Any
    place: str
    head: bytes = b""
    ends: bool = False


def list_files(
    key: str, uri: str, text: bool = False, named: re.Pattern[str] = NAMED
) -> tuple[Store, list[Entry], int]:
    """The store of a source, its files in the order of their names, and how many others its folder holds.

    Hidden files, and those whose names tell of no known format, are left out, unless the recipe names one itself.
    text: all files are plain text, whatever their names. named: what the name of a known format matches.
    Raises InputError, which begins with the recipe's `key`, if no file is left.
    """
    store, name = split_uri(uri)
    if file := store.entry(name):
        return store, [file], 0
    found = store.files(name)
    shown = [file for file in found if not any(part[:1] in "._" for part in file.path[len(name) + 1 :].split("/"))]
    files = [file for file in shown if text or named.search(file.path)]
    if not files:
        ends = ".jsonl, .json, .parquet or .txt" if named is NAMED else ".jsonl, .json or .parquet"
        what = f"none of its {len(found)} files ends in {ends}, packed as .gz or .zst or not"
        raise InputError(f"{key}: {uri}: {what if found else 'no such file or folder'}")
    return store, files, len(found) - len(files)


def rows_of(store: Store, path: str, text: bool = False, all_columns: bool = False) -> Iterator[Row]:
    """Yield every row of a file. A file of plain text is one row, its text. Raises StoreError if the store fails.

    The first bytes tell whether a file is packed, Parquet, or a JSON array. Plain text is known by its name, or `text`
    says so. all_columns: of Parquet, also the columns that no layout of pages knows.
    """
    number = 0
    try:
        values = _values(store, path, text or bool(TEXT.search(path)), all_columns)
        for number, (line, value, head) in enumerate(values, 1):
            yield Row(number, value, f"line {line}" if line else f"row {number}", head)
    except FileNotFoundError:
        raise InputError(f"{store.full(path)}: is gone since the run was resolved; bring it back") from None
    except (OSError, pa.ArrowException, EOFError) as error:
        if isinstance(error, OSError) and (error.errno or "AWS Error" in str(error)):
            raise StoreError(explain(store.full(path), error)) from error
        why = Unusable(Drop.DAMAGED_FILE, " ".join(str(error).split()))
        yield Row(number + 1, why, f"row {number + 1}", ends=True)


def _values(store: Store, path: str, text: bool, all_columns: bool) -> Iterator[tuple[int, Any, bytes]]:
    """Yield (line or 0, value, first bytes) of each row."""
    with store.open_input(path) as raw:
        head = raw.read(4)
        raw.seek(0)
        if head == b"PAR1" and not text:
            yield from ((0, value, b"") for value in _parquet(raw, all_columns))
            return
        with io.BufferedReader(_unpacked(raw, head), PIECE) as stream:
            start = stream.peek(1024).removeprefix(BOM)
            if text:
                yield 0, _whole(stream), b""
            elif start.lstrip()[:1] == b"[":
                for item in elements(stream):
                    if isinstance(item, Unusable) and item.reason is Drop.DAMAGED_FILE:
                        raise EOFError(item.value)
                    yield 0, *_parsed(item)
            else:
                for number, line in enumerate(lines_of(stream), 1):
                    if isinstance(line, Unusable) or line.removeprefix(BOM).strip():
                        yield number, *_parsed(line)


def _parsed(item: bytes | Unusable) -> tuple[Any, bytes]:
    """(The value of a line or element, its first bytes)."""
    if isinstance(item, Unusable):
        return item, b""
    plain = item.removeprefix(BOM)
    return parsed(plain), plain[:HEAD]


def _unpacked(raw: pa.NativeFile, head: bytes) -> Any:
    if head[:2] == b"\x1f\x8b":
        return pa.CompressedInputStream(raw, "gzip")
    skippable = head[1:] == b"\x2a\x4d\x18" and head[0] >> 4 == 5  # a frame that pzstd puts first
    return pa.CompressedInputStream(raw, "zstd") if head == b"\x28\xb5\x2f\xfd" or skippable else raw


def _parquet(raw: pa.NativeFile, all_columns: bool) -> Iterator[Any]:
    """Yield the rows of a Parquet file with the columns that layouts know; with all, if no text is among them."""
    file = pq.ParquetFile(raw)
    names = file.schema_arrow.names
    some = set(CODE_TEXT) & set(names) and not all_columns
    known = [name for name in names if name in FIELDS] if some else None
    for batch in file.iter_batches(PARQUET_ROWS, columns=known):
        rows: list[Any] | None = None
        if batch.nbytes <= MAX_LINE_BYTES:
            with suppress(*UNREADABLE):
                rows = batch.to_pylist()
        if rows is None:
            for number in range(batch.num_rows):
                yield _parquet_row(batch.slice(number, 1))
        else:
            yield from rows


def _parquet_row(row: pa.RecordBatch) -> Any:
    """The value of a batch of one row, or an Unusable."""
    try:
        if (size := sum(map(_bytes, row.columns))) > MAX_LINE_BYTES:
            return Unusable(Drop.ROW_TOO_LONG, f"{size:,} bytes")
        return row.to_pylist()[0]
    except UnicodeDecodeError as error:
        return Unusable(Drop.NOT_UTF8, f"byte {error.start}")
    except UNREADABLE as error:
        return Unusable(Drop.DAMAGED_FILE, " ".join(str(error).split()))


def _bytes(column: pa.Array) -> int:
    """The size of a column of one row, without the other entries of its dictionary."""
    return int((column.dictionary_decode() if pa.types.is_dictionary(column.type) else column).nbytes)


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
