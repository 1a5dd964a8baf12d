"""How rows of `seq_len + 1` tokens are cut from the documents of a shard: as a stream, or by best fit.

A row has one token more than it predicts, so that every position trains. Both cuts lose nothing: every token stands in
a row, and every prediction inside a document is made exactly once. Where a cut goes through a document, the token
before the cut stands in both rows, because the first row predicts it and the second starts from it.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]
Cut = tuple[Integers, Integers, Integers]
"""Consecutive rows: the pieces of each row; where each piece starts in the shard, in tokens; its tokens."""

CHUNK = 1 << 16  # rows of a stream, or pieces of a window at most
WINDOW_ROWS = 4096
WINDOW_TOKENS = 1 << 25  # 64 or 128 MiB: what a reader of a window may have to hold


def stream(tokens: int, seq_len: int) -> Iterator[Cut]:
    """Cut a shard every `seq_len` tokens, wherever documents end. Each row is one piece; only the last is shorter."""
    rows = max(-(-(tokens - 1) // seq_len), min(tokens, 1))
    for begin in range(0, rows, CHUNK):
        start = np.arange(begin, min(begin + CHUNK, rows), dtype=np.int64) * seq_len
        yield np.ones(len(start), np.int64), start, np.minimum(seq_len + 1, tokens - start)


def best_fit(sizes: Iterable[npt.NDArray[np.integer]], seq_len: int) -> Iterator[Cut]:
    """Put whole documents into rows by best-fit decreasing, window by window of consecutive documents.

    sizes: the tokens of each document, in batches. A document of more than `seq_len + 1` tokens is split into pieces of
    that length, the last one shorter, each of which starts with the last token of the one before.
    """
    limit = min(WINDOW_ROWS * seq_len, max(WINDOW_TOKENS, seq_len + 1))
    held: list[tuple[Integers, Integers]] = []
    tokens = pieces = at = 0
    for batch in (some for all_of in sizes for some in _batches(all_of.astype(np.int64), seq_len)):
        start, length = split(batch, seq_len)
        for begin, end in _windows(length, tokens, pieces, limit):
            held.append((at + start[begin:end], length[begin:end]))
            tokens, pieces = tokens + int(length[begin:end].sum()), pieces + end - begin
            if tokens >= limit or pieces >= CHUNK:
                yield _cut(held, seq_len)
                held, tokens, pieces = [], 0, 0
        at += int(batch.sum())
    if held:
        yield _cut(held, seq_len)


def split(sizes: Integers, seq_len: int) -> tuple[Integers, Integers]:
    """(start, length) of the pieces of consecutive documents: at most `seq_len + 1` tokens, overlapping by one."""
    counts = _pieces(sizes, seq_len)
    number = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
    start = np.repeat(np.cumsum(sizes) - sizes, counts) + number * seq_len
    return start, np.minimum(np.repeat(sizes, counts) - number * seq_len, seq_len + 1)


def _pieces(sizes: Integers, seq_len: int) -> Integers:
    """The number of pieces of each document."""
    return np.maximum(-(-(sizes - 1) // seq_len), 1)


def _batches(sizes: Integers, seq_len: int) -> Iterator[Integers]:
    """Divide documents into batches of at most CHUNK pieces, or of one document."""
    ends = np.cumsum(_pieces(sizes, seq_len))
    begin = 0
    while begin < len(sizes):
        most = CHUNK + (int(ends[begin - 1]) if begin else 0)
        end = max(int(np.searchsorted(ends, most, side="right")), begin + 1)
        yield sizes[begin:end]
        begin = end


def _windows(length: Integers, tokens: int, pieces: int, limit: int) -> Iterator[tuple[int, int]]:
    """Divide pieces where a window is full that holds `tokens` and `pieces` already."""
    ends = np.cumsum(length)
    begin, used = 0, 0
    while begin < len(length):
        end = min(int(np.searchsorted(ends, used + limit - tokens)) + 1, begin + CHUNK - pieces, len(length))
        yield begin, end
        begin, used, tokens, pieces = end, int(ends[end - 1]), 0, 0


def _cut(held: list[tuple[Integers, Integers]], seq_len: int) -> Cut:
    start, length = (np.concatenate(one) for one in zip(*held, strict=True))
    row = fit(length, seq_len + 1)
    # Rows go in the order of their first pieces: else the longest documents would come first, and no part be a sample.
    _, first = np.unique(row, return_index=True)
    place = np.empty(len(first), np.int64)
    place[np.argsort(first)] = np.arange(len(first))
    order = np.argsort(place[row], kind="stable")
    return np.bincount(place[row]), start[order], length[order]


def fit(length: Integers, room: int) -> Integers:
    """The row of each piece: the longest first, each into the row with the least room that still takes it.

    Takes O(n log n): rows lie by their room, and the different rooms in a sorted list.
    """
    row = np.empty(len(length), np.int64)
    rows: dict[int, list[int]] = {}  # room left -> rows
    rooms: list[int] = []  # its keys, sorted
    count = 0
    for piece in np.argsort(-length, kind="stable").tolist():
        size = int(length[piece])
        at = bisect_left(rooms, size)
        if at == len(rooms):
            left, number = room, count
            count += 1
        else:
            left = rooms[at]
            number = rows[left].pop()
            if not rows[left]:
                del rows[left], rooms[at]
        row[piece] = number
        left -= size
        if left not in rows:
            rows[left] = []
            insort(rooms, left)
        rows[left].append(number)
    return row
