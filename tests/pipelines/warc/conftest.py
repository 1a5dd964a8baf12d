"""Crawl files made byte by byte, so that each kind of damage stands where a test wants it."""

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest


def _record(
    kind: str,
    url: str,
    body: bytes,
    mime: str = "application/http; msgtype=response",
    line: bytes = b"\r\n",
    date: str = "2024-03-04T01:02:03Z",
) -> bytes:
    head = [b"WARC/1.0", b"WARC-Type: " + kind.encode()]
    if url:
        head.append(b"WARC-Target-URI: " + url.encode())
    head += [
        b"WARC-Date: " + date.encode(),
        b"WARC-Record-ID: <urn:uuid:12345678-1234-1234-1234-123456789012>",
        b"Content-Type: " + mime.encode(),
        b"Content-Length: %d" % len(body),
    ]
    return line.join(head) + line * 2 + body + line * 2


def _response(
    url: str, html: bytes, headers: str = "Content-Type: text/html; charset=utf-8", status: str = "200 OK"
) -> bytes:
    return _record("response", url, f"HTTP/1.1 {status}\r\n{headers}\r\n\r\n".encode() + html)


@pytest.fixture
def record() -> Callable[..., bytes]:
    """`record(kind, url, body, mime, line, date)`: one WARC record."""
    return _record


@pytest.fixture
def response() -> Callable[..., bytes]:
    """`response(url, html, headers, status)`: the record of one HTTP response."""
    return _response


@pytest.fixture
def pages() -> list[bytes]:
    """Twenty responses, http://a.test/0 to /19, of about 60 bytes."""
    return [
        _response(f"http://a.test/{n}", b"<html><body>page %d " % n + bytes(str(n), "ascii") * 20) for n in range(20)
    ]


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """`write(bytes)`: a crawl file of that content; `write(records, zipped=True)`: each record a gzip member."""

    def make(content: bytes | list[bytes], zipped: bool = False, name: str = "file.warc") -> Path:
        path = tmp_path / name
        parts = [content] if isinstance(content, bytes) else content
        path.write_bytes(b"".join(gzip.compress(part, mtime=0) for part in parts) if zipped else b"".join(parts))
        return path

    return make
