"""Reads files of instructions and preferences: JSONL or a JSON array, gzipped or not, or a folder of such files.

A file of lines is read line by line, so its size does not matter; a JSON array is held in memory. A row that cannot be
used is an `Unusable` with its reason. A file that cannot be read is an error.
"""

import gzip
import io
import json
import re
import unicodedata
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from contract.conversation import Conversation, Preference, Role, Turn
from contract.errors import InputError, StoreError
from contract.schema import SNIPPET_CHARS, Drop
from contract.store import Store, explain, split_uri

MAX_LINE_BYTES = 16 << 20
"""A longer line is skipped: the longest chats have a few megabytes, and a worker holds a whole line in memory."""
MAX_ARRAY_BYTES = 1 << 30

T = TypeVar("T")


class Unusable(ValueError):
    """A row that cannot be used: why, and what of it is wrong."""

    def __init__(self, reason: Drop, value: str = "") -> None:
        super().__init__(f"{reason.value.replace('_', ' ')}{': ' if value else ''}{value}")
        self.reason, self.value = reason, value


@dataclass(frozen=True)
class Format(Generic[T]):
    """A format of rows. `parse` makes an example of a JSON value or raises Unusable; `allowed` describes the format."""

    parse: Callable[[Any], T]
    allowed: str


@dataclass(frozen=True)
class Row(Generic[T]):
    """One row of a file: its place, as `file.jsonl line 3`, the example, and the row's first characters."""

    place: str
    found: T | Unusable
    snippet: str


def read(key: str, uri: str, form: Format[T]) -> Iterator[Row[T]]:
    """Yield every row of a file, or of the files of a folder in the order of their names.

    `key` is the recipe's key that names the file. Raises InputError, which begins with it, if a file is missing,
    damaged or not JSON, and StoreError if the store fails.
    """
    store, name = split_uri(uri)
    paths = [name]
    if name in store.folders():
        paths = [entry.path for entry in store.files(name) if re.search(r"\.jsonl?(\.gz)?$", entry.path)]
        if not paths:
            raise InputError(f"{key}: {uri}: the folder holds no file named .json, .jsonl, .json.gz or .jsonl.gz")
    for path in paths:
        try:
            for where, value, snippet in _values(key, store, path):
                yield Row(f"{path} {where}", _parsed(value, form.parse), snippet)
        except FileNotFoundError:
            raise InputError(f"{key}: {uri}: no such file or folder") from None
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise InputError(f"{key}: {store.full(path)}: damaged gzip ({error}); fetch it again") from error
        except OSError as error:
            raise StoreError(explain(store.full(path), error)) from error


def inspect(key: str, uri: str, form: Format[T], limit: int | None = None) -> str:
    """Read a file as `read` does, up to `limit` usable rows, and say in one line what it holds.

    Raises InputError if no row is usable; the message names the first bad row and what is allowed.
    """
    usable, bad, first = 0, 0, ""
    for row in read(key, uri, form):
        if isinstance(row.found, Unusable):
            bad += 1
            first = first or f"{row.place}: {row.found}"
        else:
            usable += 1
            if usable == limit:
                break
    if not usable:
        raise InputError(f"{key}: {uri} holds no usable row ({first or 'it is empty'}); allowed: {form.allowed}")
    return f"{key}: {usable:,} usable rows" + (f", {bad:,} unusable, the first: {first}" if bad else "")


def _parsed(value: Any, parse: Callable[[Any], T]) -> T | Unusable:
    try:
        if isinstance(value, Unusable):
            raise value
        return parse(value)
    except Unusable as error:
        return error


def _values(key: str, store: Store, path: str) -> Iterator[tuple[str, Any, str]]:
    """Yield (place, JSON value or Unusable, first characters) of each row of a file."""
    with store.open_input(path) as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        with gzip.open(raw) if packed else io.BufferedReader(raw) as stream:
            if stream.peek(1024).removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"[":
                yield from _items(key, store.full(path), stream)
                return
            for number, line in enumerate(lines_of(stream), 1):
                if isinstance(line, Unusable):
                    yield f"line {number}", line, ""
                elif line.strip():
                    yield f"line {number}", _value(line), line[: 4 * SNIPPET_CHARS].decode(errors="replace")


def _items(key: str, uri: str, stream: gzip.GzipFile | io.BufferedReader) -> Iterator[tuple[str, Any, str]]:
    data = stream.read(MAX_ARRAY_BYTES + 1)
    if len(data) > MAX_ARRAY_BYTES:
        raise InputError(f"{key}: {uri}: is a JSON array of more than {MAX_ARRAY_BYTES:,} bytes; write it as JSONL")
    try:
        items = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{key}: {uri}: not valid JSON ({error}); allowed: JSONL or one JSON array") from error
    for number, item in enumerate(items):
        yield f"item {number}", item, repr(item)[:SNIPPET_CHARS]


def lines_of(stream: gzip.GzipFile | io.BufferedReader) -> Iterator[bytes | Unusable]:
    """Yield each line; for one of more than MAX_LINE_BYTES, which is never held whole, an Unusable."""
    while line := stream.readline(MAX_LINE_BYTES + 1):
        size = len(line)
        if size <= MAX_LINE_BYTES:
            yield line
            continue
        while not line.endswith(b"\n") and (line := stream.readline(MAX_LINE_BYTES)):
            size += len(line)
        yield Unusable(Drop.ROW_TOO_LONG, f"{size:,} bytes")


def _value(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return Unusable(Drop.NOT_JSON)


def parse_alpaca(row: Any) -> Conversation:
    """{instruction, input, output} (Taori et al. 2023) as one user turn and one assistant turn.

    The input follows the instruction.
    """
    instruction, extra, output = _text(row, "instruction"), _text(row, "input", ""), _text(row, "output")
    return Turn("user", f"{instruction}\n\n{extra}" if extra else instruction), Turn("assistant", output)


def parse_hh(row: Any) -> Preference:
    """{chosen, rejected} (Bai et al. 2022): dialogues that differ in the last reply; earlier turns are the prompt."""
    chosen, rejected = (parse_dialogue(_text(row, key)) for key in ("chosen", "rejected"))
    if chosen[:-1] != rejected[:-1]:
        raise Unusable(Drop.PROMPTS_DIFFER)
    if chosen[-1].text == rejected[-1].text:
        raise Unusable(Drop.REPLIES_ARE_EQUAL)
    return Preference(chosen[:-1], chosen[-1].text, rejected[-1].text)


def parse_dialogue(text: str) -> Conversation:
    """The turns of a dialogue with the marks `Human:` and `Assistant:`. It must end with a reply that is not empty."""
    pieces = re.split(r"(?:^|\n\n)(Human|Assistant):", text)
    names: dict[str, Role] = {"Human": "user", "Assistant": "assistant"}
    turns = tuple(Turn(names[name], words.strip()) for name, words in zip(pieces[1::2], pieces[2::2], strict=True))
    if pieces[0].strip() or len(turns) < 2 or turns[-1].role != "assistant":
        raise Unusable(Drop.NOT_A_DIALOGUE, "no dialogue that ends with a reply")
    if not turns[-1].text:
        raise Unusable(Drop.EMPTY_TEXT, "reply")
    return turns


ALPACA = Format(
    parse_alpaca,
    'one object a line or in an array, {"instruction": text, "input": text or absent, "output": text}',
)
HH_RLHF = Format(
    parse_hh,
    'one object a line, {"chosen": dialogue, "rejected": dialogue}, '
    'a dialogue being "\\n\\nHuman: ...\\n\\nAssistant: ..."',
)


def clean(text: str) -> str:
    """A text in Unicode's form NFC, as the corpus's texts are, with plain line ends and no white space around it.

    Raises Unusable for a lone surrogate, which is no character and cannot be stored.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Unusable(Drop.BROKEN_TEXT, f"lone surrogate at character {error.start}") from None
    return unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n")).strip()


def _text(row: Any, key: str, default: str | None = None) -> str:
    if not isinstance(row, dict):
        raise Unusable(Drop.NOT_AN_OBJECT)
    value = row.get(key)
    if value is None and default is not None:
        return default
    if value is None:
        raise Unusable(Drop.MISSING_TEXT, key)
    if not isinstance(value, str):
        raise Unusable(Drop.NOT_A_TEXT, key)
    text = clean(value)
    if not text and default is None:
        raise Unusable(Drop.EMPTY_TEXT, key)
    return text
