"""Crawl Python's own documentation server into WARC files: pages for a machine that cannot reach Common Crawl.

`python -m pydoc -p PORT` serves the documentation of every standard module on loopback. Pages are fetched over HTTP, as
by any crawler. Each page gives three WARC/1.0 records: request, response (the bytes as received) and metadata.
"""

import base64
import datetime
import gzip
import hashlib
import html
import os
import re
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urljoin, urlsplit

from contract.errors import InputError

USER_AGENT = "gristmill-demo/0.1"
TIMEOUT_S = 20
PAGES_PER_FILE = 200
# Topics are prose; the index leads to the modules. antigravity opens a web browser when imported.
SEEDS = ("/topics.html", "/keywords.html", "/index.html")
REFUSED = re.compile(r"^/(get\?|search|open\?|file)|antigravity|/(this|idlelib|turtledemo|test)\b")
LINK = re.compile(rb'<a href="([^"#]+)')


def crawl(folder: Path, max_pages: int, say: Callable[[str], None] = lambda _: None) -> int:
    """Fetch up to `max_pages` pages into `folder`/pydoc-*.warc.gz and return their number.

    The folder appears only when it is complete.
    """
    partial = folder.with_name(f".{folder.name}-{uuid.uuid4().hex[:8]}")
    partial.mkdir(parents=True)
    count = 0
    out: BinaryIO | None = None
    began = time.monotonic()
    with documentation_server() as origin:
        for url, request, response in walk(origin, max_pages):
            if count % PAGES_PER_FILE == 0:
                if out:
                    out.close()
                out = (partial / f"pydoc-{count // PAGES_PER_FILE:05d}.warc.gz").open("wb")
                out.write(warcinfo())
            assert out is not None
            out.write(records(url, request, response))
            count += 1
            if count % 100 == 0:
                say(f"{count} of at most {max_pages} pages, {count / (time.monotonic() - began):.0f}/s")
    if out:
        out.close()
    if not count:
        raise InputError("Python's documentation server served no page; name a folder of WARC files with CRAWL=DIR")
    os.rename(partial, folder)
    return count


@contextmanager
def documentation_server() -> Iterator[str]:
    """Python's documentation server on a free port of loopback; yields its origin, for example http://localhost:40123."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # -S hides installed packages: importing them all to document them would take minutes.
    server = subprocess.Popen(
        [sys.executable, "-S", "-m", "pydoc", "-n", "localhost", "-p", str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
    )
    try:
        origin = f"http://localhost:{port}"
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            try:
                socket.create_connection(("localhost", port), 1).close()
                break
            except OSError:
                if time.monotonic() > deadline or server.poll() is not None:
                    raise InputError(
                        "Python's documentation server does not start; name a folder of WARC files with CRAWL=DIR"
                    ) from None
                time.sleep(0.1)
        yield origin
    finally:
        server.kill()
        server.wait()


def walk(origin: str, max_pages: int) -> Iterator[tuple[str, bytes, bytes]]:
    """Breadth first over links of the same host: (URL, request bytes, response bytes) of each page that answers."""
    waiting = [origin + path for path in SEEDS]
    seen = set(waiting)
    found = 0
    while waiting and found < max_pages:
        url = waiting.pop(0)
        try:
            request, response = fetch(url)
        except OSError:
            continue  # modules that cannot be imported on this machine end the connection
        found += 1
        yield url, request, response
        for link in links(url, response):
            if link not in seen:
                seen.add(link)
                waiting.append(link)


def links(url: str, response: bytes) -> list[str]:
    """Absolute links of a page to pages of its own host, in order, without those that search or show files."""
    found = [urljoin(url, html.unescape(href.decode("utf-8", "replace"))) for href in LINK.findall(response)]
    here = urlsplit(url)
    return [
        link
        for link in found
        if urlsplit(link)[:2] == here[:2] and not REFUSED.search(link[len(f"{here.scheme}://{here.netloc}") :])
    ]


def fetch(url: str) -> tuple[bytes, bytes]:
    """One GET over HTTP/1.0: the bytes that were sent and the bytes that came back, unchanged. Raises OSError."""
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    headers = f"Host: {parts.netloc}\r\nUser-Agent: {USER_AGENT}\r\nAccept: text/html\r\n"
    request = f"GET {target} HTTP/1.0\r\n{headers}\r\n".encode()
    with socket.create_connection((parts.hostname or "", parts.port or 80), TIMEOUT_S) as connection:
        connection.sendall(request)
        pieces = []
        while piece := connection.recv(1 << 16):
            pieces.append(piece)
    response = b"".join(pieces)
    if not response.startswith(b"HTTP/"):
        raise ConnectionError(f"{url}: no HTTP answer")
    return request, response


def warcinfo() -> bytes:
    """The record that opens a file."""
    body = f"software: {USER_AGENT}\r\nformat: WARC File Format 1.0\r\nconformsTo: ISO 28500\r\n".encode()
    return _record("warcinfo", "application/warc-fields", body)


def records(url: str, request: bytes, response: bytes) -> bytes:
    """Request, response and metadata records of one page, each a gzip member of its own."""
    payload = response.partition(b"\r\n\r\n")[2]
    response_id = _record_id()
    linked = {"WARC-Target-URI": url, "WARC-Concurrent-To": response_id}
    facts = f"fetchedLinks: {len(links(url, response))}\r\n".encode()
    return (
        _record("request", "application/http; msgtype=request", request, linked)
        + _record(
            "response",
            "application/http; msgtype=response",
            response,
            {"WARC-Target-URI": url, "WARC-Payload-Digest": digest(payload), "WARC-IP-Address": "127.0.0.1"},
            response_id,
        )
        + _record("metadata", "application/warc-fields", facts, linked)
    )


def digest(data: bytes) -> str:
    """SHA-1 in base32, as Common Crawl writes it."""
    return "sha1:" + base64.b32encode(hashlib.sha1(data, usedforsecurity=False).digest()).decode()


def _record_id() -> str:
    return f"<urn:uuid:{uuid.uuid4()}>"


def _record(
    kind: str, content_type: str, body: bytes, extra: dict[str, str] | None = None, record_id: str | None = None
) -> bytes:
    fields = {
        "WARC-Type": kind,
        "WARC-Record-ID": record_id or _record_id(),
        "WARC-Date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        **(extra or {}),
        "WARC-Block-Digest": digest(body),
        "Content-Type": content_type,
        "Content-Length": str(len(body)),
    }
    head = "WARC/1.0\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields.items()) + "\r\n"
    return gzip.compress(head.encode() + body + b"\r\n\r\n")
