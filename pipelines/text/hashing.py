"""Words and word n-grams as 64-bit hashes, computed directly from UTF-8: the compiled twin of `folding.normalize`.

Both fold a text character by character with the same table, so they find the same words. This one creates no
Python objects for them. Kernels take the two buffers of an Arrow string column: `data`, uint8, and `offsets`, int64 of
shape (texts + 1,).
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.text.folding import fold
from pipelines.text.kernels import kernel
from pipelines.text.mixing import START, Hashes, Integer, mix64, rolling, take

Bytes = npt.NDArray[np.uint8]
Offsets = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int32]

TABLED = 0x30000  # size of the table; above are only Han, tags, variation selectors and private use
SPACE, GONE, ALONE = -1, 0, 1 << 24
LESS, EQUALS, GREATER, SLASH = 0x3C, 0x3D, 0x3E, 0x2F
_LONGER = -2  # entries from here down refer to several code points


class Folding(NamedTuple):
    """How each code point is folded.

    An entry of `one` is SPACE; GONE; a code point, with the bit ALONE if it is a word by itself; or _LONGER - i, which
    stands for the code points in `several` from index i to the next 0.
    """

    one: Codes
    several: Codes


class Shingles(NamedTuple):
    """Concatenated hashes of all texts, shape (hashes,), and the index of each text's first, shape (texts + 1,)."""

    hashes: Hashes
    bounds: Offsets


@lru_cache(maxsize=1)
def folding() -> Folding:
    """The table of `folding.fold` for every code point below TABLED. Takes about 0.3 s, once per worker."""
    one = np.zeros(TABLED, np.int32)
    several: list[int] = []
    for code in range(TABLED):
        folded = fold(chr(code))
        if folded.isspace():
            one[code] = SPACE
        elif len(folded) == 1:
            one[code] = ord(folded)
        elif len(folded) == 3 and folded[0] == folded[2] == " ":
            one[code] = ord(folded[1]) | ALONE
        elif folded:
            one[code] = _LONGER - len(several)
            several += [*map(ord, folded), 0]
    return Folding(one, np.array(several, np.int32))


def buffers(texts: pa.Array) -> tuple[Bytes, Offsets]:
    """The UTF-8 bytes (not copied) and offsets of a string array without nulls."""
    if isinstance(texts, pa.ChunkedArray):
        texts = texts.combine_chunks()
    wide = pa.types.is_large_string(texts.type) or pa.types.is_large_binary(texts.type)
    _, ends, data = texts.buffers()
    offsets = np.frombuffer(ends, np.int64 if wide else np.int32, len(texts) + 1 + texts.offset)[texts.offset :]
    return np.frombuffer(data, np.uint8) if data else np.zeros(0, np.uint8), offsets.astype(np.int64)


def word_hashes(data: Bytes, offsets: Offsets) -> Shingles:
    """Hash each word of each text."""
    return Shingles(*_all_words(data, offsets, *folding()))


def shingles(data: Bytes, offsets: Offsets, n: int) -> Shingles:
    """Hash each run of n words of each text. Repeated runs are included; every text has at least one shingle.

    A text of fewer than n words has one shingle of all its words. A text without words has one shingle of its bytes.
    """
    words, bounds = _all_words(data, offsets, *folding())
    return Shingles(*_all_shingles(data, offsets, words, bounds, n))


@kernel
def decode(data: Bytes, at: int, end: int) -> tuple[Integer, int]:
    """The code point at data[at] and the offset of the next. Bytes invalid in UTF-8 decode to their own value."""
    lead = np.int64(data[at])
    if lead < 0x80:
        return lead, at + 1
    if lead < 0xE0 and at + 1 < end:
        return (lead & 0x1F) << 6 | np.int64(data[at + 1]) & 0x3F, at + 2
    if lead < 0xF0 and at + 2 < end:
        return (lead & 0x0F) << 12 | (np.int64(data[at + 1]) & 0x3F) << 6 | np.int64(data[at + 2]) & 0x3F, at + 3
    if at + 3 < end:
        return (
            (lead & 0x07) << 18
            | (np.int64(data[at + 1]) & 0x3F) << 12
            | (np.int64(data[at + 2]) & 0x3F) << 6
            | np.int64(data[at + 3]) & 0x3F,
            at + 4,
        )
    return lead, at + 1


@kernel
def _fold_code(code: Integer, one: Codes) -> Integer:
    """The table's entry of a code point, or its folding by rule if it is above the table."""
    if code < TABLED:
        return np.int64(one[code])
    if code < 0x40000:
        return code | ALONE
    if 0xE0000 <= code < 0xE1000:
        return GONE
    return code


@kernel
def _letter(byte: np.uint8) -> np.bool_:
    return 0x61 <= byte | 0x20 <= 0x7A


@kernel
def _past_name(data: Bytes, at: int, end: int) -> int:
    """The end of the run of letters, digits, `:`, `-` and `_` that starts at data[at]."""
    while at < end and (_letter(data[at]) or 0x30 <= data[at] <= 0x3A or data[at] == 0x2D or data[at] == 0x5F):
        at += 1
    return at


@kernel
def _past_blanks(data: Bytes, at: int, end: int) -> int:
    while at < end and (data[at] == 0x20 or (0x09 <= data[at] <= 0x0D and data[at] != 0x0B)):
        at += 1
    return at


@kernel
def _past_markup(data: Bytes, at: int, end: int) -> int:
    """The end of the tag that starts with the `<` at data[at], or `at` if there is none. Twin of `folding.MARKUP`."""
    here = at + 2 if at + 1 < end and data[at + 1] == SLASH else at + 1
    if here >= end or not _letter(data[here]):
        return at
    name = _past_name(data, here, end)
    here = _past_blanks(data, name, end)
    close = here + 1 if here < end and data[here] == SLASH else here
    if close < end and data[close] == GREATER:
        return close + 1
    if here == name or here >= end or not _letter(data[here]):
        return at
    here = _past_blanks(data, _past_name(data, here, end), end)
    if here >= end or data[here] != EQUALS:
        return at
    while here < end and data[here] != GREATER:
        if data[here] == LESS:
            return at
        here += 1
    return here + 1 if here < end else at


@kernel
def _words(data: Bytes, start: int, end: int, one: Codes, several: Codes, out: Hashes, count: int) -> int:
    """Write the hashes of the words of data[start:end] to out[count:]. Returns the new count."""
    state, length, digits, at = START, 0, False, start
    folded: Integer
    while at < end:
        past = _past_markup(data, at, end) if data[at] == LESS else at
        if past > at:
            folded, at = SPACE, past
        else:
            code, at = decode(data, at, end)
            folded = _fold_code(code, one)
        if folded == GONE:
            continue
        if folded == SPACE or (folded & ALONE and folded > 0):
            if length:
                out[count] = mix64(state)
                count += 1
            if folded != SPACE:
                out[count] = mix64(take(START, folded ^ ALONE))
                count += 1
            state, length, digits = START, 0, False
        elif folded > 0:
            if folded != 48 or not digits:  # a run of digits is folded to a single 0
                state = take(state, folded)
                length += 1
            digits = folded == 48
        else:
            place = _LONGER - folded
            while several[place]:
                state = take(state, several[place])
                place += 1
            length += 1
            digits = False
    if length:
        out[count] = mix64(state)
        count += 1
    return count


@kernel
def _all_words(data: Bytes, offsets: Offsets, one: Codes, several: Codes) -> tuple[Hashes, Offsets]:
    """Hashes of the words of all texts, and the bounds of each text's hashes."""
    texts = len(offsets) - 1
    out = np.empty(offsets[texts] - offsets[0] + 1, np.uint64)  # each word takes at least one byte
    bounds = np.zeros(texts + 1, np.int64)
    for text in range(texts):
        bounds[text + 1] = _words(data, offsets[text], offsets[text + 1], one, several, out, bounds[text])
    return out[: bounds[texts]].copy(), bounds


@kernel
def _all_shingles(data: Bytes, offsets: Offsets, words: Hashes, bounds: Offsets, n: int) -> tuple[Hashes, Offsets]:
    texts = len(offsets) - 1
    out = np.empty(len(words) + texts, np.uint64)
    ends = np.zeros(texts + 1, np.int64)
    for text in range(texts):
        count = bounds[text + 1] - bounds[text]
        if count:
            ends[text + 1] = rolling(words, bounds[text], bounds[text + 1], min(n, count), out, ends[text])
            continue
        state = np.uint64(0x13198A2E03707344)
        for at in range(offsets[text], offsets[text + 1]):
            state = take(state, data[at])
        out[ends[text]] = mix64(state)
        ends[text + 1] = ends[text] + 1
    return out[: ends[texts]].copy(), ends
