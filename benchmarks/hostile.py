"""Pages made to stall or break a worker, one each, through the record reader and the guarded extraction: `python -m benchmarks.hostile`.

Says what became of each and how long it held the worker. None may hold it beyond the limit, none may vanish, and after each the worker
must still serve an ordinary page.
"""

import argparse
import gzip
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import brotli

from benchmarks.bars import Bars
from contract.settings import Extract
from pipelines.extract import guard_for
from pipelines.text.guard import Outcome
from pipelines.text.rangefile import RangeFile
from pipelines.text.record import Page
from pipelines.text.warc import read_pages

MAX_PAYLOAD = 8 << 20
LIMITS = Extract(seconds_per_page=2.0, memory_mb_per_page=256)
ALLOWANCE_S = 1.0  # beside the limit: ending the child and forking the next, on a machine that others use
GOOD = (
    b"<html><body><article>"
    + b"<p>The river bends twice before it meets the old mill on the hill.</p>" * 9
    + b"</article>"
)


def hostile_pages(scale: float = 1.0) -> Iterator[tuple[str, str, bytes]]:
    """At scale 1 the sizes are the full ones; a test of seconds takes less."""

    def times(count: int) -> int:
        return max(1, int(count * scale))

    yield "attributes", "", b"<html><body><p " + b" ".join(b'a%d="x"' % n for n in range(times(300_000))) + b">x</p>"
    yield "paragraphs", "", b"<html><body>" + b"<p>some words stand here</p>" * times(200_000)
    yield "nested_divs", "", b"<html><body>" + b"<div>" * times(100_000) + b"text" + b"</div>" * times(100_000)
    yield "one_text_node", "gzip", gzip.compress(b"<html><body><p>" + b"word " * times(10_000_000), 1)
    zeros = b"<html><body>" + b" " * times(1 << 28)
    yield "bomb_gzip", "gzip", gzip.compress(zeros, 6)
    yield "bomb_deflate", "deflate", zlib.compress(zeros, 6)
    yield "bomb_brotli", "br", brotli.compress(zeros, quality=3)
    yield "bomb_twice", "gzip, gzip", gzip.compress(gzip.compress(zeros, 6), 6)
    chain = b"".join(b'<!ENTITY e%d "&e%d;&e%d;">' % (n, n - 1, n - 1) for n in range(1, 64))
    yield "entities", "", b'<!DOCTYPE html [<!ENTITY e0 "ha">' + chain + b"]><html><body><p>&e63;</p></body></html>"
    yield "references", "", b"<html><body><p>" + b"&amp;&#x41;&#0;&#xD800;&nosuch;" * times(100_000)
    yield "nul_bytes", "", b"<html><body><p>" + b"wo\x00rd " * times(100_000) + b"</p>"
    yield "surrogates", "", b"<html><meta charset=utf-8><body><p>" + b"\xed\xa0\x80 text \xed\xb0\x80" * times(50_000)
    yield "unclosed_comment", "", b"<html><body><p>some text</p>" + b"<!-- " * times(500_000)
    yield "unclosed_tags", "", b"<html><body>" + b"<a href=x><b><i>" * times(60_000) + b"text"
    yield "tables", "", b"<html><body>" + b"<table><tr><td>" * times(20_000) + b"text"
    yield "long_attribute", "", b'<html><body><p class="' + b"comment " * times(1_000_000) + b'">text</p>'
    yield "utf16_half", "", b"\xff\xfe" + b"<\x00p\x00>\x00\x00\xd8" * times(100_000)


def record(name: str, encoding: str, body: bytes) -> bytes:
    """A WARC response record."""
    http = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n"
    http += f"Content-Encoding: {encoding}\r\n\r\n".encode() if encoding else b"\r\n"
    head = (
        "WARC/1.0\r\nWARC-Type: response\r\nContent-Type: application/http\r\n"
        f"WARC-Target-URI: http://hostile.test/{name}\r\nContent-Length: {len(http) + len(body)}\r\n\r\n"
    )
    return head.encode() + http + body + b"\r\n\r\n"


def write(file: Path) -> None:
    """All hostile pages as a crawl file, each followed by a good one."""
    with file.open("wb") as sink:
        for name, encoding, body in hostile_pages():
            sink.write(record(name, encoding, body))
            sink.write(record(f"after_{name}", "", GOOD))


def read(file: Path) -> dict[str, Page]:
    """The last part of the URL -> page."""
    with RangeFile(str(file)) as source:
        found = read_pages(source, MAX_PAYLOAD)
        return {page.url.rpartition("/")[2]: page for page in found if isinstance(page, Page)}


def main() -> int:
    argparse.ArgumentParser(prog="python -m benchmarks.hostile", description=__doc__).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "hostile.warc"
        write(file)
        pages = read(file)
    guard = guard_for(LIMITS, ("en",))
    names = [name for name, _, _ in hostile_pages(0.001)]
    silent, longest = [name for name in names if name not in pages], 0.0
    for name in names:
        page = pages.get(name)
        if page is None or page.too_large:
            print(f"{name:<18}{'lost' if page is None else 'payload_too_large, by the reader'}")
            continue
        began = time.monotonic()
        reply = guard.call(page.payload, "html ")
        held = time.monotonic() - began
        longest = max(longest, held)
        good = guard.call(GOOD, "html ")
        served = good.outcome is Outcome.DONE and "The river bends twice" in good.text
        if not served or (reply.outcome is not Outcome.DONE and not reply.text):
            silent.append(name)
        print(f"{name:<18}{reply.outcome:<9}{held:6.2f} s  {reply.text[:50]!r}")
    guard.close()
    bars = Bars()
    bars.at_least("hostile_pages", len(names), 17)
    bars.at_most("hostile_pages_unaccounted", len(silent), 0)
    bars.at_most("hostile_longest_s", longest, LIMITS.seconds_per_page + ALLOWANCE_S)
    return bars.code


if __name__ == "__main__":
    sys.exit(main())
