"""Cuts: disjoint, ascending byte ranges [start, end) that are taken out of a text in UTF-8."""

import sys

import pyarrow as pa

from contract.manifest import File
from contract.store import Store
from contract.tables import read_batches

CUTS = pa.schema(
    [
        ("row", pa.int64()),  # of the documents file
        ("id", pa.string()),
        ("start", pa.int64()),
        ("end", pa.int64()),
    ]
)

Ranges = list[tuple[int, int]]


def read_cuts(store: Store, file: File | None) -> dict[int, Ranges]:
    """Map each row of the documents file that has cuts to them; empty without a file of cuts."""
    found: dict[int, Ranges] = {}
    for batch in read_batches(store, file, 1 << 16, ["row", "start", "end"]) if file else ():
        for row, start, end in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            found.setdefault(row, []).append((start, end))
    return found


def without(text: bytes, cuts: Ranges) -> bytes:
    """Remove the cuts from a text."""
    pieces, at = [], 0
    for start, end in cuts:
        pieces.append(text[at:start])
        at = end
    return b"".join([*pieces, text[at:]])


def compose(cuts: Ranges, later: Ranges) -> Ranges:
    """Combine earlier cuts with `later`, cuts of the text that the earlier ones left, into cuts of the original."""
    kept: Ranges = []  # ranges of the original text that the earlier cuts left
    at = 0
    for start, end in cuts:
        kept.append((at, start))
        at = end
    kept.append((at, sys.maxsize))
    found, offset, first = list(cuts), 0, 0
    for begin, stop in kept:
        while first < len(later) and later[first][1] <= offset:
            first += 1
        at = first
        while at < len(later) and later[at][0] < offset + stop - begin:
            low, high = max(later[at][0], offset), min(later[at][1], offset + stop - begin)
            if low < high:
                found.append((begin + low - offset, begin + high - offset))
            at += 1
        offset += stop - begin
    merged: Ranges = []
    for start, end in sorted(found):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged
