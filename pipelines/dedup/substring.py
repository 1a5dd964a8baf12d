"""Exact substring deduplication: find the runs of k tokens that occur at least twice, without a suffix array.

The definition is that of Lee et al. 2021. The anchor of a window of k tokens is the smallest hash among its q-grams
(the leftmost, if several are equal). Equal windows have equal anchors, so a window can be repeated only if its anchor
occurs at least twice. Such windows are grouped by a hash and compared byte by byte. All functions work on one block of
documents as flat arrays; the caller brings blocks together.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipelines.dedup.stream import Eights, Tokens, eights
from pipelines.text.hashing import Bytes, Offsets
from pipelines.text.kernels import kernel
from pipelines.text.mixing import MULTIPLIER, Hashes, mix64, rolling

Places = npt.NDArray[np.uint64]


class Runs(NamedTuple):
    """Runs of consecutive windows that share an anchor. Shapes (runs,).

    anchor: its hash; first: token index of the run's first window in the block; count: number of windows.
    """

    anchor: Hashes
    first: Offsets
    count: Offsets  # type: ignore[assignment]  # hides tuple.count, which nobody calls


def token_hashes(tokens: Tokens) -> Hashes:
    """A hash of each token's bytes. Shape (tokens,)."""
    return _hash_tokens(eights(tokens.data), tokens.at)


def anchors(hashes: Hashes, bounds: Offsets, k: int) -> Runs:
    """Group all windows of k tokens by anchor, in order. Each is in one run; equal windows are in different runs."""
    return Runs(*_anchors(hashes, bounds, k, max(1, k // 3)))


def window_hashes(hashes: Hashes, bounds: Offsets, k: int) -> Hashes:
    """A hash of the window that starts at each token; 0 if the document has no k tokens from there. Shape (tokens,)."""
    return _window_hashes(hashes, bounds, k)


def expand(first: Offsets, count: Offsets) -> Offsets:
    """The windows of all runs, concatenated: first, first + 1, ... for each run. Shape (count.sum(),)."""
    ends = np.cumsum(count)
    return np.repeat(first - (ends - count), count) + np.arange(ends[-1] if len(ends) else 0)


def first_equal(tokens: Tokens, windows: Offsets, hashes: Hashes, places: Places, k: int) -> Offsets:
    """For each window, the index in `windows` of its equal window of smallest place, itself included. Shape (windows,).

    windows: the first token of each; hashes, places: hash and sort key of each window, (windows,). Windows of equal
    hash are compared byte by byte, so a hash collision costs time but never gives a wrong answer.
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
    """Whether each window is repeated. Shape (windows,). For held-out documents, only held-out copies count.

    first: equal for equal windows; held: whether the window's document is held out; more: 1 if the window also
    represents further equal windows, 2 if some of these are in held-out documents, else 0.
    """
    copies = np.bincount(first) + np.bincount(first, more > 0)
    in_held = np.bincount(first, held) + np.bincount(first, more > 1)
    return np.where(held, in_held[first] > 1, copies[first] > 1)


def merge(rows: Offsets, first: Offsets, count: Offsets, k: int) -> tuple[Offsets, Offsets, Offsets]:
    """Convert runs of windows into the token ranges that they cover.

    Overlapping and adjacent ranges are merged. Returns row, start and end of disjoint ascending ranges.
    """
    order = np.lexsort((first, rows))
    return _merge(rows[order], first[order], count[order], k)


@kernel
def _hash_tokens(eight: Eights, at: Offsets) -> Hashes:
    """Hash each token. Tokens shorter than eight bytes never collide, because mix64 is a bijection."""
    out = np.empty(len(at) - 1, np.uint64)
    for token in range(len(at) - 1):
        place, left, state = at[token], at[token + 1] - at[token], np.uint64(0)
        while left >= 8:
            state = (state ^ eight[place]) * MULTIPLIER
            state ^= state >> np.uint64(32)
            place, left = place + 8, left - 8
        rest = eight[place] & ((np.uint64(1) << np.uint64(8 * left)) - np.uint64(1))
        out[token] = mix64(state ^ rest ^ np.uint64(at[token + 1] - at[token]) << np.uint64(56))
    return out


@kernel
def _anchors(hashes: Hashes, bounds: Offsets, k: int, q: int) -> tuple[Hashes, Offsets, Offsets]:
    """Leftmost minimum of each window's k - q + 1 q-gram hashes, searched anew only when it leaves the window."""
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
def _window_hashes(hashes: Hashes, bounds: Offsets, k: int) -> Hashes:
    out = np.zeros(len(hashes), np.uint64)
    for document in range(len(bounds) - 1):
        rolling(hashes, bounds[document], bounds[document + 1], k, out, bounds[document])
    return out


@kernel
def _same(data: Bytes, one: int, other: int, size: int) -> bool:
    different = False
    for offset in range(size):  # no early exit, so that the loop is vectorised
        different |= data[one + offset] != data[other + offset]
    return not different


@kernel
def _smallest(order: Offsets, hashes: Hashes, places: Places) -> Offsets:
    """For each window, the window of smallest place among those of equal hash."""
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
def _all_equal(data: Bytes, windows: Offsets, begin: Offsets, end: Offsets, first: Offsets) -> bool:
    """Whether every window equals windows[first].

    If the previous window equalled its own first and both pairs are consecutive, only the last tokens are compared.
    """
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
def _first_equal(data: Bytes, begin: Offsets, end: Offsets, order: Offsets, hashes: Hashes, places: Places) -> Offsets:
    first = np.empty(len(order), np.int64)
    at = 0
    while at < len(order):
        stop = at + 1
        while stop < len(order) and hashes[order[stop]] == hashes[order[at]]:
            stop += 1
        while at < stop:  # usually one iteration; one more for each set of unequal windows with the same hash
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
def _merge(rows: Offsets, first: Offsets, count: Offsets, k: int) -> tuple[Offsets, Offsets, Offsets]:
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
    """Start and length of each maximal run of chosen elements that agree on every label. Shapes (stretches,)."""
    new = np.zeros(len(chosen), bool)
    new[:1] = True
    for label in (chosen, *labels):
        new[1:] |= label[1:] != label[:-1]
    begin = np.flatnonzero(new)
    length = np.diff(begin, append=len(chosen))
    return begin[chosen[begin]], length[chosen[begin]]
