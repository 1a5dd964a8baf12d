"""Exact substring deduplication: runs of k tokens that stand at two or more places (Lee et al. 2021), found without a suffix array.

Two equal windows of k tokens have the same leftmost smallest q-gram hash among their q-grams, their anchor. So only windows whose
anchor stands at two places can be repeated; those are grouped by a hash and compared byte by byte. Everything here works on blocks
of documents as flat arrays; where blocks meet is the caller's affair.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipelines.dedup.stream import Tokens, eights
from pipelines.text.hashing import Hashes, Offsets, kernel, mix64, rolling

Places = npt.NDArray[np.uint64]


class Runs(NamedTuple):
    """Neighbouring windows with one anchor: its hash, the first window's token index in the block, the number of windows. (runs,)"""

    anchor: Hashes
    first: Offsets
    count: Offsets


def token_hashes(tokens: Tokens) -> Hashes:
    """A hash of each token's bytes. Shape (tokens,)."""
    return _hash_tokens(eights(tokens.data), tokens.at)


def anchors(hashes: Hashes, bounds: Offsets, k: int) -> Runs:
    """All windows of k tokens grouped by anchor, in order; each window is in exactly one run, and equal windows are in different runs."""
    return Runs(*_anchors(hashes, bounds, k, max(1, k // 3)))


def window_hashes(hashes: Hashes, bounds: Offsets, k: int) -> Hashes:
    """A hash of the window that begins at each token; 0 where the document ends too soon. Shape (tokens,)."""
    return _window_hashes(hashes, bounds, k)


def expand(first: Offsets, count: Offsets) -> Offsets:
    """The windows of runs, one after the other: first, first + 1, ... Shape (count.sum(),)."""
    ends = np.cumsum(count)
    return np.repeat(first - (ends - count), count) + np.arange(ends[-1] if len(ends) else 0)


def first_equal(tokens: Tokens, windows: Offsets, hashes: Hashes, places: Places, k: int) -> Offsets:
    """For each window the index, among `windows`, of the equal window of smallest place; its own where it is that one. (windows,)

    Only windows of equal hash are compared, and those byte by byte: a hash that collides costs time, never a wrong answer.
    """
    order = np.argsort(hashes)
    begin, end = tokens.at[windows], tokens.at[windows + k]
    first = _smallest(order, hashes, places)
    return (
        first
        if _all_equal(tokens.data, windows, begin, end, first)
        else _first_equal(tokens.data, begin, end, order, hashes, places)
    )


def repeated(first: Offsets, held: npt.NDArray[np.bool_], more: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Which windows have a copy that counts: for one of a held-out document only those of held-out documents do. Shape (windows,).

    first: equal for equal windows; more: 1 where a window stands for others too, 2 where held-out ones are among those.
    """
    copies = np.bincount(first) + np.bincount(first, more > 0)
    in_held = np.bincount(first, held) + np.bincount(first, more > 1)
    return np.where(held, in_held[first] > 1, copies[first] > 1)


def merge(rows: Offsets, first: Offsets, count: Offsets, k: int) -> tuple[Offsets, Offsets, Offsets]:
    """Runs of windows as the tokens they cover: row, start, end of disjoint ranges in order; overlapping and touching ones merge."""
    order = np.lexsort((first, rows))
    return _merge(rows[order], first[order], count[order], k)


@kernel
def _hash_tokens(eight, at):
    """Tokens of less than eight bytes never collide: mix64 is one to one."""
    out = np.empty(len(at) - 1, np.uint64)
    multiplier = np.uint64(0x9E3779B97F4A7C15)
    for token in range(len(at) - 1):
        place, left, state = at[token], at[token + 1] - at[token], np.uint64(0)
        while left >= 8:
            state = (state ^ eight[place]) * multiplier
            state ^= state >> np.uint64(32)
            place, left = place + 8, left - 8
        rest = eight[place] & ((np.uint64(1) << np.uint64(8 * left)) - np.uint64(1))
        out[token] = mix64(state ^ rest ^ np.uint64(at[token + 1] - at[token]) << np.uint64(56))
    return out


@kernel
def _anchors(hashes, bounds, k, q):
    """Leftmost minimum over the k - q + 1 q-gram hashes of each window; looked for again only when it leaves the window."""
    anchor = np.empty(len(hashes), np.uint64)
    first = np.empty(len(hashes), np.int64)
    count = np.empty(len(hashes), np.int64)
    grams = np.empty(len(hashes), np.uint64)
    runs, width = 0, k - q
    for document in range(len(bounds) - 1):
        start, windows = bounds[document], bounds[document + 1] - bounds[document] - k + 1
        if windows <= 0:
            continue
        rolling(hashes, start, bounds[document + 1], q, grams, 0)
        smallest = -1
        for window in range(windows):
            before = smallest
            if smallest < window:
                smallest = window
                for gram in range(window + 1, window + width + 1):
                    if grams[gram] < grams[smallest]:
                        smallest = gram
            elif grams[window + width] < grams[smallest]:
                smallest = window + width
            if smallest != before:
                anchor[runs], first[runs], count[runs] = grams[smallest], start + window, 0
                runs += 1
            count[runs - 1] += 1
    return anchor[:runs].copy(), first[:runs].copy(), count[:runs].copy()


@kernel
def _window_hashes(hashes, bounds, k):
    out = np.zeros(len(hashes), np.uint64)
    for document in range(len(bounds) - 1):
        rolling(hashes, bounds[document], bounds[document + 1], k, out, bounds[document])
    return out


@kernel
def _same(data, one, other, size):
    different = False
    for offset in range(size):  # without an early exit, so that it is compared a vector at a time
        different |= data[one + offset] != data[other + offset]
    return not different


@kernel
def _smallest(order, hashes, places):
    """For each window the one of smallest place among those of its hash."""
    first = np.empty(len(order), np.int64)
    at = 0
    while at < len(order):
        stop, least = at + 1, order[at]
        while stop < len(order) and hashes[order[stop]] == hashes[order[at]]:
            if places[order[stop]] < places[least]:
                least = order[stop]
            stop += 1
        for index in range(at, stop):
            first[order[index]] = least
        at = stop
    return first


@kernel
def _all_equal(data, windows, begin, end, first):
    """Whether every window equals its first. After two windows that are equal, their next ones are when their last tokens are."""
    for one in range(len(first)):
        least = first[one]
        if least == one:
            continue
        here, there = begin[one], begin[least]
        if (
            one
            and least
            and first[one - 1] == least - 1
            and windows[one] == windows[one - 1] + 1
            and windows[least] == windows[least - 1] + 1
        ):
            here, there = end[one - 1], end[least - 1]
        if end[one] - here != end[least] - there or not _same(data, here, there, end[one] - here):
            return False
    return True


@kernel
def _first_equal(data, begin, end, order, hashes, places):
    first = np.empty(len(order), np.int64)
    at = 0
    while at < len(order):
        stop = at + 1
        while stop < len(order) and hashes[order[stop]] == hashes[order[at]]:
            stop += 1
        while at < stop:  # as a rule once; again for windows that share the hash and nothing else
            least = order[at]
            for index in range(at + 1, stop):
                if places[order[index]] < places[least]:
                    least = order[index]
            size, left = end[least] - begin[least], at
            for index in range(at, stop):
                one = order[index]
                if one == least or (end[one] - begin[one] == size and _same(data, begin[one], begin[least], size)):
                    first[one] = least
                    order[index], order[left] = order[left], one
                    left += 1
            at = left
    return first


@kernel
def _merge(rows, first, count, k):
    row = np.empty(len(rows), np.int64)
    start = np.empty(len(rows), np.int64)
    end = np.empty(len(rows), np.int64)
    ranges = 0
    for one in range(len(rows)):
        last = first[one] + count[one] - 1 + k
        if ranges and row[ranges - 1] == rows[one] and first[one] <= end[ranges - 1]:
            end[ranges - 1] = max(end[ranges - 1], last)
        else:
            row[ranges], start[ranges], end[ranges] = rows[one], first[one], last
            ranges += 1
    return row[:ranges].copy(), start[:ranges].copy(), end[:ranges].copy()


def stretches(chosen: npt.NDArray[np.bool_], *labels: npt.NDArray[np.integer]) -> tuple[Offsets, Offsets]:
    """Begin and length of each longest stretch of chosen neighbours that agree on every label. Shapes (stretches,)."""
    new = np.zeros(len(chosen), bool)
    new[:1] = True
    for label in (chosen, *labels):
        new[1:] |= label[1:] != label[:-1]
    begin = np.flatnonzero(new)
    length = np.diff(begin, append=len(chosen))
    return begin[chosen[begin]], length[chosen[begin]]
