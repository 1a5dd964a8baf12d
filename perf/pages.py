"""Pages made to stall or break a worker, one each, through everything that reads a page: `python -m perf.pages`.

Says what became of each and how long the slowest step held the worker: the record reader, the guarded extraction, and on the text that is left
langid, score, and the folding of near duplicates and of decontamination. None may hold it beyond the limit, none may vanish, and after each
the worker must still serve an ordinary page. Then every pattern and reader is asked whether it is linear (`perf.linearity`).
"""

import argparse
import gzip
import json
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import brotli
import pyarrow as pa

from contract.guard import Guard, Outcome
from contract.settings.corpus import Extract, Score
from perf.bars import Bars
from perf.linearity import BAR, cases, linearity
from pipelines.extract import MAX_CHARS, guard_for
from pipelines.langid import rank
from pipelines.rules.measure import Tools, clean_and_score
from pipelines.text import hashing, spelling
from pipelines.warc.pages import read_pages
from pipelines.warc.rangefile import RangeFile
from pipelines.warc.record import Loss, Page

MAX_PAYLOAD = 8 << 20
LIMITS = Extract(seconds_per_page=2.0, memory_mb_per_page=256)
ALLOWANCE_S = 1.0  # beside the limit: ending the child and forking the next, on a machine that others use
GOOD = (
    b"<html><body><article>"
    + b"<p>The river bends twice before it meets the old mill on the hill.</p>" * 9
    + b"</article>"
)


OPAQUE = (
    "",
    "text/plain",
    "text/xml",
    "application/xml",
    "application/octet-stream",
    "unknown/unknown",
    "application/xhtml+xml",
)
TEXTS = {
    "words": "ab cd. ", "one_word": "a", "lines": "some words\n", "blank_lines": "a\n\n", "spaces": "\u2003", "counter": "3\u2003 likes\n",
    "numbers": "+1 555 ", "telephones": "Tel. 030/1234567 ", "addresses": "a@b.co ", "labels": "a@a.a.a.", "ipv4": "1.2.3.4 ",
    "ipv6": "a:b::1 ", "dots": ".", "digits": "1", "han": "一二。", "marks": "a\u0301\u0316", "controls": "\u202e\u0085a ", "tags": "<a b=",
    "braces": "{ # … ", "urls": "http://a.b/( ", "phrases": "read more.. sign in 3 items in cart ",
}  # fmt: skip


def hostile_texts(scale: float = 1.0) -> Iterator[tuple[str, str]]:
    """Texts that pass every limit just so, and one that does not, by name."""
    size = int(MAX_CHARS * scale)
    for name, piece in TEXTS.items():
        yield f"text_{name}", (piece * (size // len(piece) + 1))[:size]
    yield "text_too_long", "words that go on " * (size // 16)
    yield "text_spaced_counter", "3" + "\u2003" * (size // 2) + "subscribers" + "\u2003" * (size // 3)


def hostile_heads(scale: float = 1.0) -> Iterator[tuple[str, str, str, str, bytes]]:
    """(name, content type, content encoding, transfer encoding, body): of every content type, and bodies of many small parts."""
    size, comments = int((4 << 20) * scale), b"<!---->" * 146
    for mime in OPAQUE:
        yield f"comments {mime}", mime, "", "", comments + b"x" * 99
        yield f"open_comments {mime}", mime, "", "", b"<!--" * 256 + b"<html>"
    yield "declarations", "text/xml", "", "", b"<?xml ?>" * 128 + b"<html>"
    yield "spaces", "", "", "", b" " * size + b"<html>"
    empty = gzip.compress(b"")
    yield "empty_members", "text/html", "gzip", "", empty * (size // len(empty))
    one = gzip.compress(b"<p>a")
    yield "small_members", "text/html", "gzip", "", one * (size // len(one))
    frame = pa.compress(b"<p>a", "zstd", asbytes=True)
    yield "small_frames", "text/html", "zstd", "", frame * (size // len(frame))
    yield "many_codings", "text/html", "gzip, " * 200, "", gzip.compress(GOOD)
    yield "many_chunkings", "text/html", "", "chunked, " * 200, b"1\r\na\r\n" * (size // 6)
    yield "five_chunkings", "text/html", "", "chunked, " * 5, b"1\r\na\r\n" * (size // 6)
    yield "small_chunks", "text/html", "", "chunked", b"1\r\n<\r\n" * (size // 6)
    yield "huge_chunk", "text/html", "", "chunked", b"ffffffff\r\n" + GOOD
    yield "empty_blocks", "text/html", "deflate", "", b"\0\0\0\xff\xff" * (size // 5)


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


def record(name: str, encoding: str, body: bytes, mime: str = "text/html", transfer: str = "") -> bytes:
    """A WARC response record."""
    fields = {"Content-Type": mime, "Content-Encoding": encoding, "Transfer-Encoding": transfer}
    http = b"HTTP/1.1 200 OK\r\n"
    http += b"".join(f"{field}: {value}\r\n".encode() for field, value in fields.items() if value) + b"\r\n"
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


def conversion(name: str, text: str) -> bytes:
    """A WET record."""
    body = text.encode()
    head = f"WARC/1.0\r\nWARC-Type: conversion\r\nContent-Type: text/plain\r\nWARC-Target-URI: http://hostile.test/{name}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body + b"\r\n\r\n"


def records(scale: float = 1.0) -> Iterator[tuple[str, bytes]]:
    """Every hostile page as a record, by name."""
    for name, encoding, body in hostile_pages(scale):
        yield name, record(name, encoding, body)
    for name, mime, encoding, transfer, body in hostile_heads(scale):
        yield name, record(name.partition(" ")[0], encoding, body, mime, transfer)
    for name, text in hostile_texts(scale):
        yield name, conversion(name, text)


def fate(file: Path, guard: Guard) -> tuple[str, float]:
    """(what became of the page of a crawl file, empty where nothing says so; seconds of the slowest step)."""
    began = time.monotonic()
    with RangeFile(str(file)) as source:
        found = list(read_pages(source, MAX_PAYLOAD))
    held = time.monotonic() - began
    page = next((one for one in found if isinstance(one, Page)), None)
    if page is None:
        return ", ".join(one.kind for one in found if isinstance(one, Loss)), held
    if page.too_large:
        return "payload_too_large", held
    began = time.monotonic()
    reply = guard.call(page.payload, f"{page.kind} {page.charset or ''}")
    held = max(held, time.monotonic() - began)
    if reply.outcome is not Outcome.DONE:
        return f"{reply.outcome} {reply.text}" if reply.text else "", held
    found_text = json.loads(reply.text) if reply.text else None
    if not isinstance(found_text, list):
        return "language_prefilter" if reply.text else "extract_empty", held
    text = found_text[1]
    if len(text) > MAX_CHARS:
        return "text_too_long", held
    for step in STEPS.values():
        began = time.monotonic()
        step(text)
        held = max(held, time.monotonic() - began)
    return f"kept, {len(text):,} characters", held


SCORE, TOOLS = Score(), Tools()
STEPS: dict[str, Callable[[str], object]] = {
    "langid": lambda text: rank(text[:2000]),
    "score": lambda text: clean_and_score(text, "en", SCORE, TOOLS),
    "dedup": lambda text: hashing.shingles(*hashing.buffers(pa.array([text])), 5),
    "decontaminate": spelling.locate,
}


def main() -> int:
    argparse.ArgumentParser(prog="python -m perf.pages", description=__doc__).parse_args()
    guard, silent, longest, count = guard_for(LIMITS, ("en",)), [], 0.0, 0
    for step in STEPS.values():
        step("compiled, and loaded, once")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "hostile.warc"
        for name, data in records():
            file.write_bytes(data)
            told, held = fate(file, guard)
            good = guard.call(GOOD, "html ")
            if not told or good.outcome is not Outcome.DONE or "The river bends twice" not in good.text:
                silent.append(name)
            print(f"{name:<40}{held:6.2f} s  {told[:50]}", flush=True)
            longest, count = max(longest, held), count + 1
    guard.close()
    bars = Bars()
    bars.at_least("hostile_pages", count, 60)
    bars.at_most("hostile_pages_unaccounted", len(silent), 0)
    bars.at_most("hostile_longest_s", longest, LIMITS.seconds_per_page + ALLOWANCE_S)
    worst = max((linearity(case), name) for name, case in cases().items())
    print(f"least linear: {worst[1]} on {worst[0][1][:80]}")
    bars.at_most("linearity_worst", worst[0][0], BAR)
    return bars.code


if __name__ == "__main__":
    sys.exit(main())
