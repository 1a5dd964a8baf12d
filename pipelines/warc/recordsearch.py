"""Finds the next record of a crawl file from any offset: behind damage, or at the start of a part of the file."""

import re
import zlib
from collections.abc import Iterator

from pipelines.warc.rangefile import RangeFile

FIRST_READ = 1 << 13  # bytes read at once after a seek, doubled each time: the next damage may be near
SCAN = 1 << 20  # most bytes searched at once for the next record
PROBE = 1 << 14  # bytes at the start of a file that show its type
MEMBER_PROBE = 1 << 11  # compressed bytes enough to see a member's first record: Huffman tables take up to 600
LEAD = 16  # bytes that show whether a record begins
GZIP_MAGIC = b"\x1f\x8b\x08"
RECORD_START = re.compile(rb"WARC/\d\.\d+\r?\n")
RECORD_HEAD = re.compile(rb"\n(WARC/\d\.\d+\r?\n(?:WARC|Content)-[A-Za-z-]+:)", re.IGNORECASE)


def next_member(file: RangeFile, after: int, before: int | None = None) -> int | None:
    """Offset in [after, before) of the first gzip member that inflates to a WARC record, or None."""
    for offset, window, size in _windows(file, after, before):
        at = window.find(GZIP_MAGIC)
        while 0 <= at < size and (before is None or offset + at < before):
            try:
                if RECORD_START.match(zlib.decompressobj(31).decompress(window[at : at + MEMBER_PROBE], LEAD)):
                    return offset + at
            except zlib.error:
                pass
            at = window.find(GZIP_MAGIC, at + 1)
    return None


def first_record(file: RangeFile, after: int, before: int | None) -> int | None:
    """Offset in [after, before) of the first record in an uncompressed file, or None. `after` is at least 1.

    A record begins with a version line followed by a WARC or Content field.
    """
    for offset, window, size in _windows(file, after - 1, before):
        match = RECORD_HEAD.search(window)
        if match and match.start() < size:
            start = offset + match.start(1)
            return start if before is None or start < before else None
    return None


def _windows(file: RangeFile, after: int, before: int | None) -> Iterator[tuple[int, bytes, int]]:
    """Yield the windows of a file from `after` to `before` as (offset, bytes, size of the window).

    The bytes include up to PROBE bytes of the next window. Each window is twice as long as the one before, up to SCAN,
    because the next record is usually near.
    """
    file.seek(after)
    size = FIRST_READ
    window = file.read_full(size + PROBE)
    while window and (before is None or after < before):
        yield after, window, size
        after += size
        window, size = window[size:], min(2 * size, SCAN)
        window += file.read_full(size + PROBE - len(window))
