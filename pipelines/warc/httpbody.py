"""Decodes HTTP bodies from archives, which may be stored with or without their encodings, and recognizes HTML."""

import codecs
import re
import zlib

import brotli
import pyarrow as pa

BUFFER = 1 << 18
FIRST_PIECE = 1 << 12  # bytes given to a decoder at once, doubled each time up to BUFFER: it copies the unused bytes
MAX_CODINGS = 5  # nested encodings; servers send one or two
BOM = b"\xef\xbb\xbf"
GZIP_MAGIC = b"\x1f\x8b"
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
HTML_TYPES = ("text/html", "application/xhtml+xml")
OPAQUE_TYPES = ("", "text/plain", "text/xml", "application/xml", "application/octet-stream", "unknown/unknown")
# Possessive, so that a comment ends at its first `-->`. With backtracking, n comments could match in 2^n ways.
HTML_START = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*+(?:<\?xml[^>]*+>\s*+)?+(?:<!--.*?-->\s*+)*+<(?:!doctype\s+html|html|head|title|meta|body)\b",
    re.IGNORECASE | re.DOTALL,
)
BINARY_START = re.compile(rb"%PDF-|\x89PNG|GIF8|\xff\xd8\xff|PK\x03\x04|\x1f\x8b|RIFF|\x00\x00\x00.ftyp", re.DOTALL)
CHUNK_SIZE = re.compile(rb"[ \t]*([0-9a-fA-F]{1,8})[ \t]*(?:;[^\r\n]*)?\r?\n")


# FastWARC's readers are not used. They take 0.05 ms a page instead of 0.08 ms, but they report a truncated gzip body as
# complete and refuse chunk extensions.
class Undecodable(Exception):
    """A body whose declared encoding is unknown or does not match its bytes."""


class TooLarge(Exception):
    """A body that exceeds the limit when decoded."""


def is_html(mime: str, body: bytes) -> bool:
    """Whether a body is HTML: its first bytes show it, or `mime` says so and the first bytes do not contradict it."""
    head = body[:1024].lstrip()
    if not head or BINARY_START.match(head):
        return False
    return mime in HTML_TYPES or bool(HTML_START.match(head))


def decode_body(body: bytes, transfer: str, content: str, limit: int) -> tuple[bytes, bool]:
    """Remove the transfer and content encodings of a body. Returns (the decoded body, whether a part of it is missing).

    Many archives store decoded bodies but keep the header. So a declared encoding that the bytes do not show counts as
    already removed. Raises TooLarge above `limit` bytes. Raises Undecodable if an encoding is unknown, does not decode,
    or if there are more than MAX_CODINGS.
    """
    cut = False
    names = _codings(transfer, content)
    if len(names) > MAX_CODINGS:
        raise Undecodable(f"has {len(names)} encodings, and more than {MAX_CODINGS} are refused")
    for name in reversed(names):
        if name == "chunked":
            body, short = dechunk(body)
        else:
            body, short = _decode(body, name, limit)
        cut |= short
    return body, cut


def is_plain(body: bytes, transfer: str, content: str) -> bool:
    """Whether `decode_body` surely returns the body unchanged. Covers nearly all pages, without decoding."""
    names = _codings(transfer, content)
    return not names or (len(names) <= MAX_CODINGS and _begins_as_markup(body))


def _begins_as_markup(body: bytes) -> bool:
    return not body or body.removeprefix(BOM).lstrip().startswith(b"<")


def _decode(body: bytes, name: str, limit: int) -> tuple[bytes, bool]:
    if _begins_as_markup(body):
        return body, False
    try:
        match name:
            case "gzip" | "x-gzip":
                decoded, cut = _unzip(body, 31, limit) if body.startswith(GZIP_MAGIC) else (body, False)
            case "deflate":
                decoded, cut = _deflate(body, limit)
            case "br":
                decoded, cut = _brotli(body, limit)
            case "zstd":
                decoded, cut = _zstd(body, limit) if body.startswith(b"\x28\xb5\x2f\xfd") else (body, False)
            case _:
                raise Undecodable(f"content encoding {name!r} is unknown")
    except Undecodable:
        if _is_text(body):
            return body, False
        raise
    return (body, False) if cut and _is_text(body) else (decoded, cut)


def _is_text(body: bytes) -> bool:
    """Whether the first bytes are UTF-8 without control characters, which rules out an encoded body."""
    try:
        return not CONTROL.search(codecs.getincrementaldecoder("utf-8")().decode(body[:1024]))
    except UnicodeDecodeError:
        return False


def _codings(transfer: str, content: str) -> list[str]:
    """The names of the encodings in the order in which the server applied them."""
    return [*_names(content), *_names(transfer)]


def _names(header: str) -> list[str]:
    return [name for part in header.lower().split(",") if (name := part.strip()) not in ("", "identity", "none")]


def dechunk(body: bytes) -> tuple[bytes, bool]:
    """Join the chunks of a body. Returns (the body, whether it ends before its last chunk does).

    From an invalid chunk size on, the rest stays unchanged; so a body without chunks comes back unchanged.
    """
    parts: list[bytes] = []
    position = 0
    while True:
        header = CHUNK_SIZE.match(body, position)
        if not header:
            parts.append(body[position:])
            return b"".join(parts), False
        size = int(header[1], 16)
        if size == 0:
            return b"".join(parts), False
        position = header.end() + size
        parts.append(body[header.end() : position])
        if position >= len(body):
            return b"".join(parts), True
        end = re.compile(rb"\r?\n").match(body, position)
        position = end.end() if end else position
        if position == len(body):
            return b"".join(parts), True


def _unzip(body: bytes, window_bits: int, limit: int) -> tuple[bytes, bool]:
    """Inflate all members up to damage or a missing end. Returns (the data, whether the end is damaged or missing)."""
    engine, step = zlib.decompressobj(window_bits), FIRST_PIECE
    parts: list[bytes] = []
    size = at = 0
    try:
        while not engine.eof:
            piece = body[at : at + step]
            part = engine.decompress(piece, BUFFER)
            at += len(piece) - len(engine.unused_data if engine.eof else engine.unconsumed_tail)
            step = min(2 * step, BUFFER)
            size += len(part)
            parts.append(part)
            if size > limit:
                raise TooLarge
            if engine.eof and body.startswith(GZIP_MAGIC, at) and window_bits == 31:
                engine, step = zlib.decompressobj(window_bits), FIRST_PIECE
            elif not part and at == len(body):
                break
    except zlib.error as error:
        if not size:
            raise Undecodable(f"does not inflate: {error}") from error
    return b"".join(parts), not engine.eof


def _deflate(body: bytes, limit: int) -> tuple[bytes, bool]:
    try:
        return _unzip(body, 15, limit)
    except Undecodable:
        return _unzip(body, -15, limit)  # some servers send raw deflate under this name


def _brotli(body: bytes, limit: int) -> tuple[bytes, bool]:
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
    if not size and not engine.is_finished():
        raise Undecodable("is not Brotli: it ends before any output")
    return b"".join(parts), not engine.is_finished()


def _zstd(body: bytes, limit: int) -> tuple[bytes, bool]:
    """Decompress in steps, which keeps the data before damage. Returns (the data, whether the end is damaged)."""
    stream = pa.CompressedInputStream(pa.BufferReader(body), "zstd")
    data = bytearray()
    try:
        while len(data) <= limit and (part := stream.read(min(BUFFER, limit + 1 - len(data)))):
            data += part
    except OSError as error:
        if not data:
            raise Undecodable(f"is not Zstandard: {error}") from error
        return bytes(data), True
    if len(data) > limit:
        raise TooLarge
    return bytes(data), False
