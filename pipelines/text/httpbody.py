"""HTTP bodies as archives hold them: without their encodings, where those are still there, and whether they are HTML."""

import re
import zlib

import brotli
import pyarrow as pa

BUFFER = 1 << 18
HTML_TYPES = ("text/html", "application/xhtml+xml")
OPAQUE_TYPES = ("", "text/plain", "text/xml", "application/xml", "application/octet-stream", "unknown/unknown")
HTML_START = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|title|meta|body)\b",
    re.IGNORECASE | re.DOTALL,
)
BINARY_START = re.compile(rb"%PDF-|\x89PNG|GIF8|\xff\xd8\xff|PK\x03\x04|\x1f\x8b|RIFF|\x00\x00\x00.ftyp", re.DOTALL)
CHUNK_SIZE = re.compile(rb"[ \t]*([0-9a-fA-F]{1,8})[ \t]*(?:;[^\r\n]*)?\r?\n")


class Undecodable(Exception):
    """A body that says it is encoded in a way that it is not, or that is unknown."""


class TooLarge(Exception):
    """A body that is larger than the limit once decoded."""


def is_html(mime: str, body: bytes) -> bool:
    """Whether a body is HTML: the header says so and the first bytes do not contradict it, or the first bytes say so."""
    head = body[:1024].lstrip()
    if not head or BINARY_START.match(head):
        return False
    return mime in HTML_TYPES or bool(HTML_START.match(head))


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
