"""Mutated crawl files against the record reader: `python -m perf.fuzz --seconds 600`. Seconds of it run in the tests.

Whatever the bytes, `read_pages` must end, must not raise, and must say something: a page or a loss. Read in two parts, a file gives
the same, or its parts do not meet. Seeds are small files made here, so that mutations hit headers, chunk sizes, gzip members and record
borders and not only text.
"""

import argparse
import gzip
import random
import sys
import tempfile
import time
import zlib
from collections import Counter
from pathlib import Path

import brotli

from perf.bars import Bars
from pipelines.crawl import PartOutput, meet
from pipelines.warc.pages import Span, read_pages
from pipelines.warc.rangefile import RangeFile
from pipelines.warc.record import Loss, Page

MAX_PAYLOAD = 1 << 20
SLOWEST_S = 5.0  # processor time for a file of some kilobytes
TOKENS = (
    b"WARC/1.0\r\n", b"WARC/1.1\n", b"\r\n\r\n", b"Content-Length: ", b"Content-Length: -1\r\n", b"99999999999999999999", b"chunked",
    b"Transfer-Encoding: chunked\r\n", b"Content-Encoding: gzip\r\n", b"0\r\n\r\n", b"ffffffff\r\n", b"\x1f\x8b\x08", b"\x00", b"\xff",
    b"HTTP/1.1 200 OK\r\n", b"HTTP/9", b"WARC-Type: revisit\r\n", b"filedesc://", b"WARC-Target-URI: <", b": ", b"\n ",
)  # fmt: skip


def seeds() -> list[bytes]:
    """Small valid files in every form that the reader knows."""
    page = b"<html><body><p>" + b"some words of a page. " * 20 + b"</body></html>"
    chunked = b"5\r\n" + page[:5] + b"\r\n%x\r\n" % (len(page) - 5) + page[5:] + b"\r\n0\r\n\r\n"
    bodies = (
        (b"", page),
        (b"Transfer-Encoding: chunked\r\n", chunked),
        (b"Content-Encoding: gzip\r\n", gzip.compress(page)),
        (b"Content-Encoding: deflate\r\n", zlib.compress(page)),
        (b"Content-Encoding: br\r\n", brotli.compress(page)),
    )
    records = [_record(b"warcinfo", b"software: test\r\n")]
    records += [
        _record(b"response", b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n" + header + b"\r\n" + body)
        for header, body in bodies
    ]
    records += [_record(b"revisit", b"HTTP/1.1 200 OK\r\n\r\n"), _record(b"conversion", b"Some plain text.")]
    bare = [_bare(record) for record in records]
    return [
        b"".join(records),
        b"".join(map(gzip.compress, records)),
        gzip.compress(b"".join(records)),
        b"".join(bare),
        b"".join(map(gzip.compress, bare)),
    ]


def _bare(record: bytes) -> bytes:
    """A record whose head has lines that end in a bare line feed."""
    head, _, block = record.partition(b"\r\n\r\n")
    return head.replace(b"\r\n", b"\n") + b"\n\n" + block.removesuffix(b"\r\n\r\n") + b"\n\n"


def _record(kind: bytes, block: bytes) -> bytes:
    head = b"WARC/1.0\r\nWARC-Type: %s\r\nWARC-Target-URI: http://a.test/%s\r\nContent-Length: %d\r\n" % (
        kind,
        kind,
        len(block),
    )
    return head + b"WARC-Date: 2024-03-04T05:06:07Z\r\nContent-Type: application/http\r\n\r\n" + block + b"\r\n\r\n"


def mutate(data: bytes, chance: random.Random) -> bytes:
    """One to eight changes: bits, bytes, tokens, removed, doubled and cut pieces. Gzip files are often changed inside their members."""
    if data.startswith(b"\x1f\x8b") and chance.random() < 0.5:
        return gzip.compress(mutate(gzip.decompress(data), chance), 1)
    changed = bytearray(data)
    for _ in range(chance.randint(1, 8)):
        at = chance.randrange(len(changed) + 1)
        end = at + chance.choice((1, 4, 40, 400))
        match chance.randrange(6):
            case 0 if at < len(changed):
                changed[at] ^= 1 << chance.randrange(8)
            case 1:
                changed[at:at] = chance.choice(TOKENS)
            case 2:
                del changed[at:end]
            case 3:
                changed[at:at] = changed[at:end]
            case 4:
                changed[at:end] = chance.randbytes(end - at)
            case _ if chance.random() < 0.3:
                del changed[at:]
    return bytes(changed)


def check(data: bytes, file: Path) -> Counter[str]:
    """What the reader makes of a file, by kind. Raises AssertionError where it breaks its promise."""
    file.write_bytes(data)
    began = time.process_time()
    kinds, _ = read(file, None)
    assert time.process_time() - began < SLOWEST_S, f"took {time.process_time() - began:.1f} s"
    assert kinds, "read without a word"
    cut = 1 + zlib.crc32(data) % max(1, len(data))
    halves = [read(file, cut), read(file, cut, rest=True)]
    assert not meet([part for _, part in halves]) or halves[0][0] + halves[1][0] == kinds, (
        f"cut at {cut}: reads otherwise"
    )
    return kinds


def read(file: Path, cut: int | None, rest: bool = False) -> tuple[Counter[str], PartOutput]:
    """(what stands in a file up to a cut, or in the rest of it, by kind; where that begins and ends)."""
    kinds: Counter[str] = Counter()
    span = Span(cut or 0, None) if rest else Span(0, cut)
    with RangeFile(str(file)) as source:
        for one in read_pages(source, MAX_PAYLOAD, span):
            kinds[one.kind if isinstance(one, Loss) else "page"] += 1
            assert isinstance(one, Loss) or (isinstance(one, Page) and len(one.payload) <= MAX_PAYLOAD)
            assert kinds.total() < 10_000, "more records than bytes allow"
    return kinds, PartOutput(begun=span.begun, ended=span.ended)


def fuzz(seconds: float, seed: int, folder: Path) -> tuple[int, Counter[str], list[Path]]:
    """(files tried, what came out of them by kind, the files that broke the reader's promise)."""
    chance = random.Random(seed)
    known = seeds()
    total: Counter[str] = Counter()
    broken: list[Path] = []
    tried = 0
    file = folder / "mutated.warc"
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        tried += 1
        try:
            total += check(mutate(chance.choice(known), chance), file)
        except Exception as error:
            broken.append(file.rename(folder / f"broken-{len(broken)}.warc"))
            print(f"{broken[-1]}: {type(error).__name__}: {error}", flush=True)
    return tried, total, broken


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m perf.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="gristmill-fuzz-"))  # stays: the files that broke something are in it
    print(f"seed {given.seed}, files in {folder}")
    tried, total, broken = fuzz(given.seconds, given.seed, folder)
    print(f"{tried:,} files:", dict(total.most_common()))
    bars = Bars()
    bars.at_least("reader_fuzz_files", tried, 50 * given.seconds)
    bars.at_most("reader_fuzz_failures", len(broken), 0)
    return bars.code


if __name__ == "__main__":
    sys.exit(main())
