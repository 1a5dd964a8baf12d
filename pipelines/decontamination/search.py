"""Runs of words that a text shares with evaluation sets, and how much of an item they make up.

What a word is says `pipelines.text.spelling`. An item is looked for as several passages: each of its texts, all of them one after the other, and the same with the letters A, B, C, ... before all but
the first, as answers are printed; both also without the letter of the right answer, where that is the last text. A passage of n words or
more is found by any n of them in a row, a shorter one only as a whole, and only where it is at least half of its item.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from contract.evalset import Item
from pipelines.text import hashing
from pipelines.text.ngrams import Hashes, ngram_hashes, word_hashes
from pipelines.text.spelling import Words, locate, split

Ints = npt.NDArray[np.int64]

LEAKED = 0.8
"""Llama 2, appendix A.6: a sample is dirty when 80 % of its tokens stand in shared runs."""
WINDOW_CHARS = 200
"""GPT-3, appendix C: cut so much on either side of a match, drop pieces that are shorter, ..."""
MAX_PIECES = 10
"""... and drop a document that falls into more pieces."""
ANSWER_KEY = re.compile(r"\W*[A-K]\W*")
FILTER_BITS = 16  # for each n-gram; one lookup in 16 goes on to the sorted keys


class Index(NamedTuple):
    """The n-grams of all benchmarks; some 50 bytes each.

    An n-gram is known by a 64-bit hash of its words, in `grams`, and looked up only in texts that hold one of `keys`: hashes of another
    function, for which all numbers are equal. At 10^7 n-grams a text of 1,000 words that shares nothing is found with a probability
    of 1e-17, and one that shares all but the numbers with 3e-9.
    """

    names: tuple[str, ...]
    lengths: tuple[int, ...]  # in words
    keys: Hashes  # ascending
    filter: npt.NDArray[np.uint8]  # a bit for the uppermost bits of each key
    grams: Hashes  # ascending
    length: npt.NDArray[np.uint8]  # of each gram
    starts: Ints  # where each gram's occurrences begin, and their number
    passage: npt.NDArray[np.int32]  # of each occurrence
    place: npt.NDArray[np.int32]  # of each occurrence: its first word
    item: npt.NDArray[np.int32]  # of each passage
    words: npt.NDArray[np.int32]  # of each passage
    benchmark: npt.NDArray[np.uint16]  # of each item


class Finding(NamedTuple):
    """What one text shares. `first` and `length` are runs of its words; `covered` says how much of each item touched they make up."""

    words: Words
    first: Ints
    length: Ints
    gram: Ints
    items: Ints  # ascending
    covered: npt.NDArray[np.float64]  # of each of `items`: the greatest part of a passage

    def ngram(self, at: int) -> str:
        return " ".join(self.words.words[self.first[at] : self.first[at] + self.length[at]])


def passages(fields: Sequence[str]) -> Iterator[str]:
    """The ways in which a page may print an item."""
    texts = [field for field in fields if field.strip()]
    yield "\n".join(texts)
    if len(texts) > 1:
        yield from texts
    if len(texts) > 2 and ANSWER_KEY.fullmatch(texts[-1]):  # printed elsewhere, or not at all
        texts = texts[:-1]
        yield "\n".join(texts)
    if 2 < len(texts) <= 12:
        yield "\n".join(
            [texts[0], *(f"{letter}\n{text}" for letter, text in zip("ABCDEFGHIJK", texts[1:], strict=False))]
        )


class _Passages(NamedTuple):
    """All passages of all items. Shapes (words,) twice, then (passages + 1,), (passages,)."""

    exact: Hashes
    folded: Hashes
    bounds: Ints
    item: Ints


def _lay_out(items: Sequence[Item], n: int, min_words: int) -> _Passages:
    texts: list[str] = []
    words: list[str] = []
    bounds, owner = [0], []
    for number, item in enumerate(items):
        whole = 0
        for text in dict.fromkeys(passages(item.fields)):
            found = split(text)
            whole = whole or len(found)
            # Letters make no item longer; who has seen a few words of it, as of one wrong answer, has not seen it.
            if min(len(found), whole) >= min_words and len(found) >= min(n, whole / 2):
                texts.append(text)
                words += found
                bounds.append(len(words))
                owner.append(number)
    folded = hashing.word_hashes(*hashing.buffers(pa.array(texts, pa.large_string()))).hashes
    return _Passages(word_hashes(words), folded, np.array(bounds), np.array(owner, np.int64))


def build(benchmarks: Sequence[tuple[str, Sequence[Item]]], n: int, min_words: int) -> Index:
    """The n-grams of all benchmarks, given as pairs of name and items, for n words in a row; shorter than `min_words` nothing is sought."""
    laid = _lay_out([item for _, items in benchmarks for item in items], n, min_words)
    words = np.diff(laid.bounds)
    size = np.minimum(words, n)
    columns: list[list[np.ndarray]] = [[], [], [], [], []]
    for length in np.unique(size).tolist():
        of = np.flatnonzero(size == length)
        count = words[of] - length + 1
        passage = np.repeat(of, count)
        place = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        at = laid.bounds[passage] + place
        made = (ngram_hashes(laid.exact, length)[at], ngram_hashes(laid.folded, length)[at], passage, place)
        for column, values in zip(columns, (*made, np.full(len(at), length)), strict=True):
            column.append(values)
    exact, folded, passage, place, length = (
        np.concatenate(column) if column else np.zeros(0, np.uint64) for column in columns
    )
    order = np.argsort(exact, kind="stable")
    grams, first = np.unique(exact[order], return_index=True)
    keys = np.unique(folded)
    return Index(
        tuple(name for name, _ in benchmarks),
        tuple(np.unique(length).tolist()),
        keys,
        _filter_of(keys),
        grams,
        length[order][first].astype(np.uint8),
        np.append(first, len(order)).astype(np.int64),
        passage[order].astype(np.int32),
        place[order].astype(np.int32),
        laid.item.astype(np.int32),
        words.astype(np.int32),
        np.repeat(np.arange(len(benchmarks)), [len(items) for _, items in benchmarks]).astype(np.uint16),
    )


def _filter_of(keys: Hashes) -> npt.NDArray[np.uint8]:
    size = max(16, (len(keys) * FILTER_BITS - 1).bit_length()) - 3
    bits = np.zeros(1 << size, np.uint8)
    slots = keys >> np.uint64(61 - size)
    np.bitwise_or.at(
        bits, (slots >> np.uint64(3)).astype(np.int64), np.uint8(1) << (slots & np.uint64(7)).astype(np.uint8)
    )
    return bits


def suspects(texts: pa.Array, index: Index) -> npt.NDArray[np.bool_]:
    """Which texts hold the key of an n-gram; `find` decides about those."""
    words, bounds = hashing.word_hashes(*hashing.buffers(texts))
    shift = np.uint64(64 - (len(index.filter).bit_length() + 2))
    return _suspects(words, bounds, np.array(index.lengths, np.int64), index.keys, index.filter, shift)


@hashing.kernel
def _suspects(words, bounds, lengths, keys, bits, shift):
    texts = len(bounds) - 1
    found = np.zeros(texts, np.bool_)
    held = np.empty(np.max(np.append(np.diff(bounds), 1)), np.uint64)
    for text in range(texts):
        for length in lengths:
            count = hashing.rolling(words, bounds[text], bounds[text + 1], length, held, 0)
            for at in range(count):
                slot = held[at] >> shift
                if not (bits[slot >> np.uint64(3)] >> np.uint8(slot & np.uint64(7))) & 1:
                    continue
                place = np.searchsorted(keys, held[at])
                if place < len(keys) and keys[place] == held[at]:
                    found[text] = True
                    break
            if found[text]:
                break
    return found


def find(text: str, index: Index) -> Finding | None:
    """Everything that a text shares with the benchmarks."""
    words = locate(text)
    hashes = word_hashes(words.words)
    first, length, gram = [], [], []
    for size in index.lengths:
        ngrams = ngram_hashes(hashes, size)
        at = np.clip(np.searchsorted(index.grams, ngrams), 0, len(index.grams) - 1)
        hits = np.flatnonzero((index.grams[at] == ngrams) & (index.length[at] == size))
        first.append(hits)
        length.append(np.full(len(hits), size))
        gram.append(at[hits])
    joined = np.concatenate(first)
    if not len(joined):
        return None
    order = np.argsort(joined, kind="stable")
    grams = np.concatenate(gram)[order]
    items, covered = _coverage(np.unique(grams), index)
    return Finding(words, joined[order], np.concatenate(length)[order], grams, items, covered)


def occurrences(grams: Ints, index: Index) -> Ints:
    """The numbers of all occurrences of some n-grams."""
    count = index.starts[grams + 1] - index.starts[grams]
    return np.repeat(index.starts[grams], count) + np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)


def _coverage(grams: Ints, index: Index) -> tuple[Ints, npt.NDArray[np.float64]]:
    """The items that hold some of the n-grams, and the greatest part of a passage of each that they make up."""
    at = occurrences(grams, index)
    passage, place = index.passage[at].astype(np.int64), index.place[at].astype(np.int64)
    order = np.lexsort((place, passage))
    passage, place = passage[order], place[order]
    # A passage's n-grams are equally long, so each adds its length or its distance from the next, whichever is less.
    length = np.repeat(index.length[grams], index.starts[grams + 1] - index.starts[grams])[order].astype(np.int64)
    same = np.append(passage[1:] == passage[:-1], False)
    gain = np.where(same, np.minimum(length, np.append(place[1:], 0) - place), length)
    of, begin = np.unique(passage, return_index=True)
    share = np.add.reduceat(gain, begin) / index.words[of]
    items, inverse = np.unique(index.item[of], return_inverse=True)
    covered = np.zeros(len(items))
    np.maximum.at(covered, inverse, share)
    return items.astype(np.int64), covered


def blamed_items(found: Finding, index: Index, min_coverage: float) -> Ints:
    """For each n-gram of a finding the first item that holds it and of which the text holds this part, or -1."""
    guilty = np.zeros(len(index.benchmark), bool)
    guilty[found.items[found.covered >= min_coverage]] = True
    grams, inverse = np.unique(found.gram, return_inverse=True)
    item = index.item[index.passage[occurrences(grams, index)]].astype(np.int64)
    count = index.starts[grams + 1] - index.starts[grams]
    least = np.minimum.reduceat(np.where(guilty[item], item, len(guilty)), np.cumsum(count) - count)
    return np.where(least < len(guilty), least, -1)[inverse]


def cut(text: str, found: Finding, which: npt.NDArray[np.bool_]) -> str | None:
    """The text without some of its shared runs and WINDOW_CHARS around each, or None where too little or too much in pieces is left.

    Cuts begin where a word does and end where another begins, so what is left are whole words of the text, byte by byte.
    """
    start = found.words.start
    pieces, at = [], 0
    for first, length in zip(found.first[which].tolist(), found.length[which].tolist(), strict=True):
        low = bisect_right(start, start[first] - WINDOW_CHARS) - 1
        high = bisect_left(start, found.words.end[first + length - 1] + WINDOW_CHARS)
        pieces.append(text[at : start[low] if low >= 0 else 0])
        at = max(at, start[high] if high < len(start) else len(text))
    pieces = [piece for piece in (*pieces, text[at:]) if len(piece.strip()) >= WINDOW_CHARS]
    return "".join(pieces) if 0 < len(pieces) <= MAX_PIECES else None
