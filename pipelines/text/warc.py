"""Reading WARC and WET files: records to pages, through whatever damage a file has, and the decoding of HTTP bodies.

`read_pages` never fails on content. What does not become a page comes out as a `Loss` with its kind, so that nothing vanishes unseen.
"""

import bisect
import datetime
import io
import re
import zlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import brotli
import pyarrow as pa
from fastwarc.warc import ArchiveIterator, WarcRecord

from pipelines.text.rangefile import RangeFile

BUFFER = 1 << 18
SCAN = 1 << 20  # bytes searched at once for the next record after damage
PROBE = 1 << 14  # bytes inflated to see whether a gzip member holds a record
GZIP_MAGIC = b"\x1f\x8b\x08"
RECORD_START = re.compile(rb"WARC/1\.\d\r?\n")
HTML_TYPES = ("text/html", "application/xhtml+xml")
OPAQUE_TYPES = ("", "text/plain", "text/xml", "application/xml", "application/octet-stream", "unknown/unknown")
HTML_START = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|title|meta|body)\b",
    re.IGNORECASE | re.DOTALL,
)
BINARY_START = re.compile(rb"%PDF-|\x89PNG|GIF8|\xff\xd8\xff|PK\x03\x04|\x1f\x8b|RIFF|\x00\x00\x00.ftyp", re.DOTALL)
CHUNK_SIZE = re.compile(rb"[ \t]*([0-9a-fA-F]{1,8})[ \t]*(?:;[^\r\n]*)?\r?\n")


@dataclass(frozen=True)
class Page:
    """One captured page. `inner` is the record's distance from the start of its gzip member, 0 in a file compressed per record."""

    url: str
    date: datetime.datetime | None
    offset: int
    inner: int
    kind: str
    charset: str | None
    payload: bytes
    too_large: int = 0
    """The size of a payload that was not read because it is above the limit."""


@dataclass(frozen=True)
class Loss:
    """Something in the file that is no page: a record of another type, or damage."""

    kind: str
    detail: str = ""


class Undecodable(Exception):
    """A body that says it is encoded in a way that it is not, or that is unknown."""


class TooLarge(Exception):
    """A body that is larger than the limit once decoded."""


# ---------------------------------------------------------------- streams with damage


class Plain(io.RawIOBase):
    """An uncompressed crawl file from one offset on."""

    damage: str | None = None

    def __init__(self, file: RangeFile, start: int = 0) -> None:
        super().__init__()
        self._file, self._start = file, start
        file.seek(start)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._file.readinto(buffer)

    def tell(self) -> int:
        return self._file.tell() - self._start

    def place(self, position: int) -> tuple[int, int]:
        """A position in the stream as (offset in the file, 0)."""
        return self._start + position, 0

    def after(self, position: int) -> "Plain | None":
        """The stream from the first record behind a position on; None where there is none."""
        found = _find_record(self._file, self._start + position + 1)
        return None if found is None else Plain(self._file, found)


class Inflated(io.RawIOBase):
    """A crawl file of gzip members as one stream. It ends at damage, and `after` goes on behind it."""

    def __init__(self, file: RangeFile, start: int = 0) -> None:
        super().__init__()
        self._file = file
        file.seek(start)
        self._raw = b""
        self._raw_end = start
        self._inflate: Any = None
        self._position = 0
        self._plain_starts, self._raw_starts = array("q", [0]), array("q", [start])
        self.damage: str | None = None

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def place(self, position: int) -> tuple[int, int]:
        """A position in the stream as (offset of its gzip member in the file, distance from that member's start)."""
        index = bisect.bisect_right(self._plain_starts, position) - 1
        return self._raw_starts[index], position - self._plain_starts[index]

    def after(self, position: int) -> "Inflated | None":
        """The stream from the first intact member on behind the damage or, without damage, behind a position's member."""
        broken = self._raw_starts[-1] if self.damage else self.place(position)[0]
        found = next_member(self._file, broken + 1)
        return None if found is None else Inflated(self._file, found)

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        while not self.damage:
            if not self._raw:
                self._raw = self._file.read(BUFFER) or b""
                self._raw_end += len(self._raw)
                if not self._raw:
                    if self._inflate is not None and not self._file.cut:
                        self.damage = "truncated_gzip"
                    return 0
            if self._inflate is None and not self._open_member():
                continue
            data = self._some(len(view))
            if data:
                view[: len(data)] = data
                self._position += len(data)
                return len(data)
        return 0

    def _open_member(self) -> bool:
        if self._raw[0] == 0:  # padding, which gzip allows between members and at the end
            self._raw = self._raw.lstrip(b"\0")
            return False
        self._plain_starts.append(self._position)
        self._raw_starts.append(self._raw_end - len(self._raw))
        self._inflate = zlib.decompressobj(31)
        return True

    def _some(self, size: int) -> bytes:
        try:
            data: bytes = self._inflate.decompress(self._raw, size)
        except zlib.error:
            self.damage = "corrupt_gzip"
            return b""
        if self._inflate.eof:
            self._raw, self._inflate = self._inflate.unused_data, None
        else:
            self._raw = self._inflate.unconsumed_tail
        return data


def next_member(file: RangeFile, after: int) -> int | None:
    """Offset of the first gzip member at or behind `after` that inflates to a WARC record, or None."""
    for offset, window in _windows(file, after):
        at = window.find(GZIP_MAGIC)
        while 0 <= at < SCAN:
            try:
                if zlib.decompressobj(31).decompress(window[at : at + PROBE], 5) == b"WARC/":
                    return offset + at
            except zlib.error:
                pass
            at = window.find(GZIP_MAGIC, at + 1)
    return None


def _find_record(file: RangeFile, after: int) -> int | None:
    for offset, window in _windows(file, after):
        found = RECORD_START.search(window)
        if found and found.start() < SCAN:
            return offset + found.start()
    return None


def _windows(file: RangeFile, after: int) -> Iterator[tuple[int, bytes]]:
    """(offset, bytes) over the rest of a file, each window SCAN long and PROBE over into the next."""
    file.seek(after)
    window = file.read_full(SCAN + PROBE)
    while window:
        yield after, window
        after += SCAN
        window = window[SCAN:] + file.read_full(SCAN)


# ---------------------------------------------------------------- records


def read_pages(file: RangeFile, max_payload: int) -> Iterator[Page | Loss]:
    """Every page of a WARC or WET file, and every loss. `max_payload` is in bytes, after decoding."""
    head = file.read_full(PROBE)
    zipped = head.startswith(GZIP_MAGIC)
    plain = _first_bytes(head) if zipped else head
    stream: Inflated | Plain | None = Inflated(file) if zipped else Plain(file)
    refused = _refuse(head, plain)
    if refused:
        yield refused
        # Damage to its first bytes makes a WARC look like something else.
        found = next_member(file, 1) if refused.kind == "not_warc" and not zipped else None
        if found is None:
            return
        stream = Inflated(file, found)
    quirks = not re.match(rb"\s*WARC/1\.\d\r\n", plain or b"WARC/1.0\r\n")
    while stream is not None:
        position = 0
        last: list[Page | Loss] = []  # of the record read last: only its successor proves that it is whole
        try:
            for record in ArchiveIterator(
                io.BufferedReader(stream, BUFFER), parse_http=False, quirks_mode=quirks, stream_detect=False
            ):
                yield from last
                position = record.stream_pos
                last = list(_convert(record, max_payload, *stream.place(position)))
            damage = Loss(stream.damage, f"near byte {file.tell():,}") if stream.damage else None
        except OSError as error:
            quirks = True
            damage = Loss(stream.damage or "bad_warc_header", f"after byte {stream.place(position)[0]:,}: {error}")
        except BaseException as error:  # a Rust panic is no Exception
            if type(error).__name__ != "PanicException":
                raise
            damage = Loss("reader_panic", f"after byte {stream.place(position)[0]:,}: {error}")
        # A page is checked against its length; what else the stream ended in may be half of anything.
        yield from (one for one in last if isinstance(one, Page) or not (file.cut or stream.damage))
        if damage is None or file.cut:
            return
        yield damage
        stream = stream.after(position)


def _first_bytes(head: bytes) -> bytes | None:
    """What the head of a gzip file inflates to, or None where it does not."""
    try:
        return zlib.decompressobj(31).decompress(head, 512)
    except zlib.error:
        return None


def _refuse(head: bytes, plain: bytes | None) -> Loss | None:
    if not head:
        return Loss("empty_file")
    if plain is not None and plain.lstrip().startswith(b"filedesc://"):
        return Loss("arc_refused", "an ARC file; convert it to WARC first")
    if plain is not None and not plain.lstrip().startswith(b"WARC/"):
        return Loss("not_warc", f"starts with {plain[:16]!r}")
    return None


def _convert(record: WarcRecord, max_payload: int, offset: int, inner: int) -> Iterator[Page | Loss]:
    kind = str(record.record_type)
    if kind not in ("response", "conversion"):
        yield from _skip(record, f"record_{kind}")
        return
    url = (record.headers.get("WARC-Target-URI") or "").strip().strip("<>").strip()
    if not url:
        yield from _skip(record, "no_url")
        return
    if kind == "conversion":
        yield from _conversion(record, url, max_payload, offset, inner)
    elif not record.is_http and not url.lower().startswith(("http://", "https://")):  # dns: and the like
        yield from _skip(record, "not_http")
    else:
        yield from _response(record, url, max_payload, offset, inner)


def _skip(record: WarcRecord, kind: str) -> Iterator[Loss]:
    declared = record.content_length
    short = record.reader is not None and _consume(record) < declared
    yield Loss("truncated_record" if short else kind)


def _consume(record: WarcRecord) -> int:
    size = 0
    while data := record.reader.read(BUFFER):
        size += len(data)
    return size


def _conversion(record: WarcRecord, url: str, max_payload: int, offset: int, inner: int) -> Iterator[Page | Loss]:
    size = record.content_length
    date = record.record_date
    if size > max_payload:
        yield Page(url, date, offset, inner, "text", "utf-8", b"", size)
        return
    body = record.reader.read()
    yield Loss("truncated_record") if len(body) < size else Page(url, date, offset, inner, "text", "utf-8", body)


def _response(record: WarcRecord, url: str, max_payload: int, offset: int, inner: int) -> Iterator[Page | Loss]:
    date = record.record_date
    size = record.content_length
    try:
        record.parse_http(quirks_mode=True)
        headers = record.http_headers
        status = headers.status_code if headers is not None else None
    except OSError:
        status = None
    if status is None:
        yield from _skip(record, "bad_http_header")
        return
    if status != 200:
        yield from _skip(record, f"status_{status}")
        return
    mime = (record.http_content_type or "").strip().lower()
    if mime not in HTML_TYPES and mime not in OPAQUE_TYPES:
        yield from _skip(record, "not_html")
        return
    size = record.content_length
    if size > max_payload:
        # A body of unknown type that is too large to look into is not called a page.
        yield Page(url, date, offset, inner, "html", None, b"", size) if mime in HTML_TYPES else Loss("not_html")
        return
    body = record.reader.read()
    if len(body) < size:
        yield Loss("truncated_record")
        return
    try:
        body = decode_body(
            body, headers.get("Transfer-Encoding") or "", headers.get("Content-Encoding") or "", max_payload
        )
    except TooLarge:
        yield Page(url, date, offset, inner, "html", None, b"", max_payload + 1)
        return
    except Undecodable as error:
        yield Loss("bad_content_encoding", f"{url}: {error}")
        return
    if not is_html(mime, body):
        yield Loss("not_html")
        return
    yield Page(url, date, offset, inner, "html", record.http_charset, body)


def is_html(mime: str, body: bytes) -> bool:
    """Whether a body is HTML: the header says so and the first bytes do not contradict it, or the first bytes say so."""
    head = body[:1024].lstrip()
    if not head or BINARY_START.match(head):
        return False
    return mime in HTML_TYPES or bool(HTML_START.match(head))


# ---------------------------------------------------------------- HTTP bodies


def decode_body(body: bytes, transfer: str, content: str, limit: int) -> bytes:
    """A body without its transfer and content encodings.

    Many archives store bodies decoded already and keep the header, so an encoding that the bytes do not show is taken as removed.
    Raises TooLarge above `limit` bytes and Undecodable for an encoding that is unknown.
    """
    for name in reversed([*_names(content), *_names(transfer)]):
        if name == "chunked":
            body = dechunk(body)
        elif name in ("gzip", "x-gzip"):
            body = _unzip(body, 31, limit) if body.startswith(b"\x1f\x8b") else body
        elif name == "deflate":
            body = _deflate(body, limit)
        elif name == "br":
            body = _brotli(body, limit)
        elif name == "zstd":
            body = _zstd(body, limit) if body.startswith(b"\x28\xb5\x2f\xfd") else body
        elif not body.lstrip().startswith(b"<"):
            raise Undecodable(f"content encoding {name!r} is unknown")
    return body


def _names(header: str) -> list[str]:
    return [name for part in header.lower().split(",") if (name := part.strip()) not in ("", "identity", "none")]


def dechunk(body: bytes) -> bytes:
    """A chunked body joined. A body that is not chunked comes back as it is; from a wrong chunk size on, the rest stays as it stands."""
    parts: list[bytes] = []
    position = 0
    while True:
        header = CHUNK_SIZE.match(body, position)
        if not header:
            parts.append(body[position:])
            break
        size = int(header[1], 16)
        if size == 0:
            break
        position = header.end() + size
        parts.append(body[header.end() : position])
        if position >= len(body):
            break
        end = re.compile(rb"\r?\n").match(body, position)
        position = end.end() if end else position
    return b"".join(parts)


def _unzip(body: bytes, window_bits: int, limit: int) -> bytes:
    """Inflate, keeping what came before damage or a missing end."""
    engine = zlib.decompressobj(window_bits)
    parts: list[bytes] = []
    size = 0
    try:
        while body and not engine.eof:
            part = engine.decompress(body, BUFFER)
            body = engine.unconsumed_tail
            size += len(part)
            parts.append(part)
            if size > limit:
                raise TooLarge
            if not part and not body:
                break
    except zlib.error as error:
        if not size:
            raise Undecodable(f"does not inflate: {error}") from error
    return b"".join(parts)


def _deflate(body: bytes, limit: int) -> bytes:
    if body.lstrip().startswith(b"<"):
        return body
    try:
        return _unzip(body, 15, limit)
    except Undecodable:
        return _unzip(body, -15, limit)  # raw deflate, which some servers send under the same name


def _brotli(body: bytes, limit: int) -> bytes:
    if body.lstrip().startswith(b"<"):
        return body
    engine = brotli.Decompressor()
    parts: list[bytes] = []
    size = 0
    try:
        while not engine.is_finished():
            part = engine.process(body, output_buffer_limit=BUFFER)
            body = b""
            size += len(part)
            parts.append(part)
            if size > limit:
                raise TooLarge
            if not part and engine.can_accept_more_data():
                break
    except brotli.error as error:
        if not size:
            raise Undecodable(f"is not Brotli: {error}") from error
    return b"".join(parts)


def _zstd(body: bytes, limit: int) -> bytes:
    try:
        data = bytes(pa.CompressedInputStream(pa.BufferReader(body), "zstd").read(limit + 1))
    except OSError as error:
        raise Undecodable(f"is not Zstandard: {error}") from error
    if len(data) > limit:
        raise TooLarge
    return data
