"""Find the runs of words that a text shares with evaluation sets, and the share of each item that they cover.

`pipelines.text.spelling` defines what a word is. Because pages print items in different ways, an item is searched for
as several passages: each of its texts; all texts concatenated; and all texts with the letters A, B, C, ... before all
but the first, as answers are printed. If the last text is the letter of the right answer, the concatenations are also
searched for without it. A passage of at least n words is found by any n consecutive words. A shorter passage is found
only as a whole, and only if it is at least half of its item.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from contract.cuts import Ranges
from contract.evalset import Item
from pipelines.text import hashing
from pipelines.text.kernels import kernel
from pipelines.text.mixing import Hashes, ngram_hashes, rolling
from pipelines.text.spelling import Words, locate, split_words

Ints = npt.NDArray[np.int64]

LEAKED = 0.8
"""Llama 2, appendix A.6: a sample is dirty if 80 % of its tokens are in shared runs."""
WINDOW_CHARS = 200
"""GPT-3, appendix C: characters cut on either side of a match, and the least length of a piece that is kept."""
MAX_PIECES = 10
"""GPT-3, appendix C: a document that is cut into more pieces is dropped."""
ANSWER_KEY = re.compile(r"\W*[A-K]\W*")
FILTER_BITS = 16  # bits per n-gram; at most one lookup in 16 of other n-grams goes on to the sorted keys


class Index(NamedTuple):
    """The n-grams of all benchmarks, at about 50 bytes each.

    `grams` identifies an n-gram by a 64-bit hash of its words. It is looked up only in texts that contain one of
    `keys`, hashes by another function that treats all numbers as equal. With 10^7 n-grams, the probability of a false
    finding in a text of 1,000 words is 1e-17 if the text shares nothing, and 3e-9 if it differs only in its numbers.
    """

    names: tuple[str, ...]
    lengths: tuple[int, ...]  # in words
    keys: Hashes  # ascending
    filter: npt.NDArray[np.uint8]  # a bitmap of the keys' upper bits
    grams: Hashes  # ascending
    length: npt.NDArray[np.uint8]  # words of each n-gram
    starts: Ints  # index of each n-gram's first occurrence, (ngrams + 1,)
    passage: npt.NDArray[np.int32]  # passage of each occurrence
    place: npt.NDArray[np.int32]  # first word of each occurrence, as an index in its passage
    item: npt.NDArray[np.int32]  # item of each passage
    words: npt.NDArray[np.int32]  # number of words of each passage
    benchmark: npt.NDArray[np.uint16]  # benchmark of each item


class Finding(NamedTuple):
    """The n-grams that one text shares with the benchmarks, and the items that contain them."""

    words: Words
    first: Ints  # index of each n-gram's first word in the text
    length: Ints  # words of each n-gram
    gram: Ints  # number of each n-gram in the index
    items: Ints  # ascending
    covered: npt.NDArray[np.float64]  # the largest covered share of a passage, for each of `items`

    def ngram(self, at: int) -> str:
        return " ".join(self.words.words[self.first[at] : self.first[at] + self.length[at]])


def passages(fields: Sequence[str]) -> Iterator[str]:
    """The texts as which a page may print an item."""
    texts = [field for field in fields if field.strip()]
    yield "\n".join(texts)
    if len(texts) > 1:
        yield from texts
    if len(texts) > 2 and ANSWER_KEY.fullmatch(texts[-1]):  # the key may be printed elsewhere, or not at all
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
            found = split_words(text)
            whole = whole or len(found)
            # Answer letters do not count towards an item's length. A passage shorter than half of its item, such as
            # one wrong answer, does not give the item away.
            if min(len(found), whole) >= min_words and len(found) >= min(n, whole / 2):
                texts.append(text)
                words += found
                bounds.append(len(words))
                owner.append(number)
    folded = hashing.word_hashes(*hashing.buffers(pa.array(texts, pa.large_string()))).hashes
    return _Passages(_exact_hashes(words), folded, np.array(bounds), np.array(owner, np.int64))


def _exact_hashes(words: Sequence[str]) -> Hashes:
    """xxh3 of each word's UTF-8 bytes. Shape (words,)."""
    digest = xxhash.xxh3_64_intdigest
    return np.fromiter((digest(word.encode()) for word in words), np.uint64, len(words))


def build(benchmarks: Sequence[tuple[str, Sequence[Item]]], n: int, min_words: int) -> Index:
    """Index the n-grams of all benchmarks, given as (name, items), for n consecutive words.

    Passages of fewer than `min_words` words are not searched for.
    """
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
    exact, folded, passages, places, lengths = (
        np.concatenate(column) if column else np.zeros(0, np.uint64) for column in columns
    )
    order = np.argsort(exact, kind="stable")
    grams, first = np.unique(exact[order], return_index=True)
    keys = np.unique(folded)
    return Index(
        tuple(name for name, _ in benchmarks),
        tuple(np.unique(lengths).tolist()),
        keys,
        _filter_of(keys),
        grams,
        lengths[order][first].astype(np.uint8),
        np.append(first, len(order)).astype(np.int64),
        passages[order].astype(np.int32),
        places[order].astype(np.int32),
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
    """Whether each text contains the key of an n-gram. `find` must confirm these texts. Shape (texts,)."""
    words, bounds = hashing.word_hashes(*hashing.buffers(texts))
    shift = np.uint64(64 - (len(index.filter).bit_length() + 2))
    return _suspects(words, bounds, np.array(index.lengths, np.int64), index.keys, index.filter, shift)


@kernel
def _suspects(
    words: Hashes, bounds: Ints, lengths: Ints, keys: Hashes, bits: npt.NDArray[np.uint8], shift: np.uint64
) -> npt.NDArray[np.bool_]:
    texts = len(bounds) - 1
    found = np.zeros(texts, np.bool_)
    held = np.empty(np.max(np.append(np.diff(bounds), 1)), np.uint64)
    for text in range(texts):
        for length in lengths:
            count = rolling(words, bounds[text], bounds[text + 1], length, held, 0)
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


def find_shared(text: str, index: Index) -> Finding | None:
    """Find everything that a text shares with the benchmarks, or None."""
    words = locate(text)
    hashes = _exact_hashes(words.words)
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
    """Indices of all occurrences of the given n-grams, concatenated."""
    count = index.starts[grams + 1] - index.starts[grams]
    within: Ints = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    return np.repeat(index.starts[grams], count) + within


def _coverage(grams: Ints, index: Index) -> tuple[Ints, npt.NDArray[np.float64]]:
    """Items that contain any of the n-grams, and for each the largest share of one of its passages that they cover."""
    at = occurrences(grams, index)
    passage, place = index.passage[at].astype(np.int64), index.place[at].astype(np.int64)
    order = np.lexsort((place, passage))
    passage, place = passage[order], place[order]
    # A passage's n-grams have the same length, so each covers its length or the distance to the next, if that is less.
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
    """For each n-gram of a finding, the first item that contains it and has at least `min_coverage` covered, or -1."""
    guilty = np.zeros(len(index.benchmark), bool)
    guilty[found.items[found.covered >= min_coverage]] = True
    grams, inverse = np.unique(found.gram, return_inverse=True)
    item = index.item[index.passage[occurrences(grams, index)]].astype(np.int64)
    count = index.starts[grams + 1] - index.starts[grams]
    least = np.minimum.reduceat(np.where(guilty[item], item, len(guilty)), np.cumsum(count) - count)
    return np.where(least < len(guilty), least, -1)[inverse]


def cut(text: str, found: Finding, which: npt.NDArray[np.bool_]) -> Ranges | None:
    """The byte ranges to cut for the chosen shared runs, with WINDOW_CHARS around each. which: mask of the n-grams.

    Cuts start and end at the start of a word, so the rest consists of unchanged whole words. Pieces shorter than
    WINDOW_CHARS are cut, too. Returns None if no piece or more than MAX_PIECES are left.
    """
    start = found.words.start
    pieces, at = [], 0
    for first, length in zip(found.first[which].tolist(), found.length[which].tolist(), strict=True):
        low = bisect_right(start, start[first] - WINDOW_CHARS) - 1
        high = bisect_left(start, found.words.end[first + length - 1] + WINDOW_CHARS)
        pieces.append((at, start[low] if low >= 0 else 0))
        at = max(at, start[high] if high < len(start) else len(text))
    left = [(begin, end) for begin, end in (*pieces, (at, len(text))) if len(text[begin:end].strip()) >= WINDOW_CHARS]
    if not 0 < len(left) <= MAX_PIECES:
        return None
    cuts, at, size = [], 0, 0  # `at` counts characters, `size` their bytes
    for begin, end in (*left, (len(text), len(text))):
        gap = len(text[at:begin].encode())
        cuts.append((size, size + gap))
        size, at = size + gap + len(text[begin:end].encode()), end
    return [(begin, end) for begin, end in cuts if begin < end]
