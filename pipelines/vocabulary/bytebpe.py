"""Encodes texts with a byte-level BPE, compiled: the words of GPT-2's regular expression, then the merges of each.

The result is that of the tokenizers library, token for token. That library spends most of its time on keeping track of
where each token stands in the text, which nobody asks for here.
"""

import sys
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.text.hashing import Bytes, Offsets, decode
from pipelines.text.kernels import kernel
from pipelines.text.mixing import Integer, mix64

UNSURE, LETTER, NUMBER, WHITE, OTHER, END = range(6)
LONGEST_WORD = 512
"""Bytes of the longest word that is merged here, by a search that takes time in proportion to their square."""
WHITE_SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))

NO_RANK = np.iinfo(np.int32).max

Ids = npt.NDArray[np.int32]
Classes = npt.NDArray[np.uint8]
Sizes = npt.NDArray[np.int64]
Tables = tuple[npt.NDArray[np.int64], Ids, Ids]


@dataclass(frozen=True)
class Merges:
    """A byte-level BPE. first: byte -> id. table: pairs of ids as a hash table of keys, ranks and the ids made of them.

    digits: every digit is a word of its own.
    """

    first: Ids
    table: Tables
    digits: bool


@lru_cache(maxsize=1)
def classes() -> Classes:
    """The class of every code point. One that this Python's Unicode does not know is UNSURE: others may know it."""
    kinds = {"L": LETTER, "N": NUMBER, "C": OTHER, "M": OTHER, "P": OTHER, "S": OTHER, "Z": OTHER}
    categories = map(unicodedata.category, map(chr, range(sys.maxunicode + 1)))
    table = np.fromiter((kinds[one[0]] if one != "Cn" else UNSURE for one in categories), np.uint8, sys.maxunicode + 1)
    table[[ord(one) for one in WHITE_SPACE]] = WHITE
    return table


def byte_characters() -> list[str]:
    """The character that stands for each byte in a byte-level vocabulary, as GPT-2 chose them."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    other = [byte for byte in range(256) if byte not in shown]
    places = {byte: byte for byte in shown} | {byte: 256 + at for at, byte in enumerate(other)}
    return [chr(places[byte]) for byte in range(256)]


def merges_of(spec: Mapping[str, Any]) -> Merges | None:
    """The tables of a tokenizer.json; None if it is anything else than GPT-2's words and a plain BPE on all bytes."""
    model, splits = spec["model"], spec["pre_tokenizer"]
    steps = (splits or {}).get("pretokenizers", [splits])
    digits = steps[0] == {"type": "Digits", "individual_digits": True}
    level = steps[-1] or {}
    if (
        model["type"] != "BPE"
        or spec["normalizer"] is not None
        or len(steps) != 1 + digits
        or (level.get("type"), level.get("add_prefix_space"), level.get("use_regex")) != ("ByteLevel", False, True)
        or any(model.get(name) for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"))
        or any(model.get(name) for name in ("ignore_merges", "byte_fallback"))
        or any(not token["special"] for token in spec["added_tokens"])
        or not set(byte_characters()) <= model["vocab"].keys()
    ):
        return None
    ids = model["vocab"]
    pairs = [pair if isinstance(pair, list) else pair.split(" ") for pair in model["merges"]]
    table = _table(np.array([[ids[left], ids[right], ids[left + right]] for left, right in pairs], np.int64))
    return Merges(np.array([ids[one] for one in byte_characters()], np.int32), table, digits)


def _table(merges: npt.NDArray[np.int64]) -> Tables:
    """The hash table of rows (left, right, made), the first to be merged first. At most half of it is taken."""
    size = 1 << (2 * len(merges) + 1).bit_length()
    keys, ranks, made = np.full(size, -1, np.int64), np.full(size, NO_RANK, np.int32), np.zeros(size, np.int32)
    if len(merges):
        _fill(merges, keys, ranks, made)
    return keys, ranks, made


def encode(merges: Merges, data: Bytes, offsets: Offsets, end: int) -> tuple[Ids, Sizes]:
    """(the tokens of all texts, the number of each text's), each text with `end` after it.

    data, offsets: texts in UTF-8. The number is 0 for a text that must be left to the library, because it has a
    character that is newer than this Python's Unicode or a word of more than LONGEST_WORD bytes; it has no tokens then.
    """
    room = int(offsets[-1] - offsets[0]) + len(offsets) - 1
    tokens, sizes = np.empty(room, np.int32), np.zeros(len(offsets) - 1, np.int64)
    count = _encode(data, offsets, classes(), merges.first, merges.table, merges.digits, end, tokens, sizes)
    return tokens[:count], sizes


@kernel
def _slot(keys: npt.NDArray[np.int64], key: Integer) -> Integer:
    """Where a key lies in the hash table, or the empty place where it belongs."""
    last = len(keys) - 1
    at = np.int64(mix64(np.uint64(key)) & np.uint64(last))
    while keys[at] != key and keys[at] != -1:
        at = (at + 1) & last
    return at


@kernel
def _fill(merges: npt.NDArray[np.int64], keys: npt.NDArray[np.int64], ranks: Ids, made: Ids) -> None:
    for rank in range(len(merges)):
        key = (merges[rank, 0] << 32) | merges[rank, 1]
        at = _slot(keys, key)
        keys[at], ranks[at], made[at] = key, rank, merges[rank, 2]


@kernel
def _class(data: Bytes, at: int, end: int, table: Classes) -> tuple[Integer, int]:
    """(the class of the character at a byte, the byte after it)."""
    if at >= end:
        return END, at
    code, after = decode(data, at, end)
    return np.int64(table[code]), after


@kernel
def _suffix(data: Bytes, at: int, end: int) -> int:
    """The end of an English suffix such as 's or 'll that begins at a byte; `at` if there is none."""
    if data[at] != 0x27 or at + 1 >= end:
        return at
    one = data[at + 1]
    if one == 0x73 or one == 0x74 or one == 0x6D or one == 0x64:  # s t m d
        return at + 2
    if at + 2 < end:
        two = data[at + 2]
        if (two == 0x65 and (one == 0x72 or one == 0x76)) or (two == 0x6C and one == 0x6C):  # re ve ll
            return at + 3
    return at


@kernel
def _word(data: Bytes, at: int, end: int, table: Classes, digits: bool) -> int:
    """The end of the word that begins at a byte, or -1 if nobody knows the class of its first character.

    The words are GPT-2's: an English suffix; characters of one class with one space before them; white space, without
    its last character if that is followed by another class.
    """
    kind, after = _class(data, at, end, table)
    if kind == UNSURE:
        return -1
    suffix = _suffix(data, at, end)
    if suffix > at:
        return suffix
    if data[at] == 0x20:
        following, past = _class(data, after, end, table)
        if following in (LETTER, OTHER) or (following == NUMBER and not digits):
            kind, after = following, past
    if kind == NUMBER and digits:
        return after
    last, following, past = at, *_class(data, after, end, table)
    while following == kind:
        last, after = after, past
        following, past = _class(data, after, end, table)
    closed = following == END or (following == NUMBER and digits)  # where digits stand alone, a text ends before each
    return last if kind == WHITE and not closed and last > at else after


@kernel
def _merge(tokens: Ids, count: int, size: int, tables: Tables, ranks: Ids, made: Ids) -> int:
    """Merge tokens[count : count + size], the pair of the lowest rank first, of equals the left one. Returns the size.

    ranks, made: room for what the table says of each pair of neighbours.
    """
    keys, rank_of, made_of = tables
    for at in range(size - 1):
        slot = _slot(keys, np.int64(tokens[count + at]) << 32 | np.int64(tokens[count + at + 1]))
        ranks[at], made[at] = rank_of[slot], made_of[slot]
    while size > 1:
        best = 0
        for at in range(1, size - 1):
            if ranks[at] < ranks[best]:
                best = at
        if ranks[best] == NO_RANK:
            break
        tokens[count + best] = made[best]
        size -= 1
        for at in range(best + 1, size):
            tokens[count + at] = tokens[count + at + 1]
        for at in range(best, size - 1):
            ranks[at], made[at] = ranks[at + 1], made[at + 1]
        for at in range(max(best - 1, 0), min(best + 1, size - 1)):
            slot = _slot(keys, np.int64(tokens[count + at]) << 32 | np.int64(tokens[count + at + 1]))
            ranks[at], made[at] = rank_of[slot], made_of[slot]
    return size


@kernel
def _encode(
    data: Bytes,
    offsets: Offsets,
    table: Classes,
    first: Ids,
    tables: Tables,
    digits: bool,
    last: int,
    tokens: Ids,
    sizes: Sizes,
) -> int:
    """Write the tokens of each text and their numbers. Returns the number of all."""
    ranks, made = np.empty(LONGEST_WORD, np.int32), np.empty(LONGEST_WORD, np.int32)
    count = 0
    for text in range(len(offsets) - 1):
        at, end, begin = offsets[text], offsets[text + 1], count
        while at < end:
            after = _word(data, at, end, table, digits)
            if after < 0 or after - at > LONGEST_WORD:
                break
            for byte in range(at, after):
                tokens[count + byte - at] = first[data[byte]]
            count += _merge(tokens, count, after - at, tables, ranks, made)
            at = after
        if at < end:
            count = begin
        else:
            tokens[count] = last
            count += 1
        sizes[text] = count - begin
    return count
