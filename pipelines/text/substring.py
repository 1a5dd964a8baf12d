"""Exact substring deduplication: runs of k tokens that stand at two or more places (Lee et al. 2021), found without a suffix array.

Two equal windows of k tokens have the same leftmost smallest q-gram hash among their q-grams, their anchor. So only windows whose
anchor stands at two places can be repeated; those are grouped by a hash and compared byte by byte. Everything here works on blocks
of documents as flat arrays; where blocks meet is the caller's affair.

A token is what its bytes say: a word with one space after it, or a tokenizer's id as four bytes. A window's bytes are those of its
tokens one after the other, so equal bytes are equal tokens.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipelines.text.hashing import Bytes, Hashes, Offsets, kernel, mix64, rolling

BLANK, MAYBE = 1, 2
_KINDS = np.zeros(256, np.uint8)  # what a byte can begin: white space in ASCII, or perhaps beyond it
_KINDS[[9, 10, 11, 12, 13, 28, 29, 30, 31, 32]] = BLANK
_KINDS[[0xC2, 0xE1, 0xE2, 0xE3]] = MAYBE

Places = npt.NDArray[np.uint64]


class Tokens(NamedTuple):
    """Documents as tokens. data: uint8 bytes of all tokens; at: where each token begins, (tokens + 1,); bounds: tokens of each
    document, (documents + 1,)."""

    data: Bytes
    at: Offsets
    bounds: Offsets


class Runs(NamedTuple):
    """Neighbouring windows with one anchor: its hash, the first window's token index in the block, the number of windows. (runs,)"""

    anchor: Hashes
    first: Offsets
    count: Offsets


def words(data: Bytes, offsets: Offsets) -> tuple[Tokens, Offsets]:
    """Texts as the words that white space separates, as `str.split` sees them; and where each word begins in its text, in bytes."""
    stream, at, bounds, starts = _split(data, offsets, _KINDS)
    return Tokens(stream, at, bounds), starts


def from_ids(ids: npt.NDArray[np.uint32], bounds: Offsets) -> Tokens:
    """A tokenizer's ids; any vocabulary up to 2^32."""
    return Tokens(ids.astype("<u4").view(np.uint8), np.arange(len(ids) + 1, dtype=np.int64) * 4, bounds)


def token_hashes(tokens: Tokens) -> Hashes:
    """A hash of each token's bytes. Shape (tokens,)."""
    return _hash_tokens(tokens.data, tokens.at)


def anchors(hashes: Hashes, bounds: Offsets, k: int) -> Runs:
    """All windows of k tokens grouped by anchor, in order; each window is in exactly one run, and equal windows are in different runs."""
    return Runs(*_anchors(hashes, bounds, k, max(1, k // 2)))


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
    return _first_equal(tokens.data, tokens.at[windows], tokens.at[windows + k], order, hashes, places)


def merge(rows: Offsets, first: Offsets, count: Offsets, k: int) -> tuple[Offsets, Offsets, Offsets]:
    """Runs of windows as the tokens they cover: row, start, end of disjoint ranges in order; overlapping and touching ones merge."""
    order = np.lexsort((first, rows))
    return _merge(rows[order], first[order], count[order], k)


@kernel
def _wide_space(data, at, end):
    """Bytes of the white space character outside ASCII that begins at a place; 0 where none does."""
    if data[at] == 0xC2:
        return 2 if at + 1 < end and (data[at + 1] == 0x85 or data[at + 1] == 0xA0) else 0
    if at + 2 >= end:
        return 0
    code = (np.int64(data[at]) & 0x0F) << 12 | (np.int64(data[at + 1]) & 0x3F) << 6 | np.int64(data[at + 2]) & 0x3F
    known = code == 0x1680 or code == 0x2028 or code == 0x2029 or code == 0x202F or code == 0x205F or code == 0x3000
    return 3 if known or 0x2000 <= code <= 0x200A else 0


@kernel
def _split(data, offsets, kinds):
    texts = len(offsets) - 1
    size = offsets[texts] - offsets[0]
    stream = np.empty(size + texts, np.uint8)
    at = np.zeros(size // 2 + texts + 1, np.int64)
    starts = np.empty(size // 2 + texts + 1, np.int64)
    bounds = np.zeros(texts + 1, np.int64)
    tokens, written = 0, 0
    for text in range(texts):
        place, end = offsets[text], offsets[text + 1]
        while place < end:
            begin = place
            while place < end:
                kind = kinds[data[place]]
                if kind == BLANK or (kind == MAYBE and _wide_space(data, place, end)):
                    break
                stream[written] = data[place]
                written += 1
                place += 1
            if place > begin:
                starts[tokens] = begin - offsets[text]
                stream[written] = 32
                written += 1
                tokens += 1
                at[tokens] = written
            if place < end:
                place += 1 if kinds[data[place]] == BLANK else _wide_space(data, place, end)
        bounds[text + 1] = tokens
    return stream[:written].copy(), at[: tokens + 1].copy(), bounds, starts[:tokens].copy()


@kernel
def _hash_tokens(data, at):
    out = np.empty(len(at) - 1, np.uint64)
    multiplier = np.uint64(0x9E3779B97F4A7C15)
    for token in range(len(at) - 1):
        state = np.uint64(at[token + 1] - at[token])
        for place in range(at[token], at[token + 1]):
            state = (state ^ np.uint64(data[place])) * multiplier
        out[token] = mix64(state)
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


def payloads(tokens: Tokens, first: Offsets, end: Offsets) -> tuple[Bytes, Offsets]:
    """The bytes of token ranges [first, end), one after the other, and where each begins: (ranges + 1,)."""
    return _copy(tokens.data, tokens.at[first], tokens.at[end])


def parse(data: Bytes, offsets: Offsets, width: int | None) -> Tokens:
    """The tokens of payloads, each as a document of its own. `width` is the bytes of a token, None for words."""
    if width is None:
        at = np.append(0, np.flatnonzero(data == 32) + 1)
        return Tokens(data, at, np.searchsorted(at, offsets))
    return Tokens(data, np.arange(0, len(data) + 1, width), offsets // width)


@kernel
def _copy(data, begin, end):
    offsets = np.zeros(len(begin) + 1, np.int64)
    for one in range(len(begin)):
        offsets[one + 1] = offsets[one] + end[one] - begin[one]
    out = np.empty(offsets[len(begin)], np.uint8)
    for one in range(len(begin)):
        out[offsets[one] : offsets[one + 1]] = data[begin[one] : end[one]]
    return out, offsets
