"""Words and word n-grams as 64-bit hashes: the ground that MinHash, substring search and decontamination stand on."""

import re
import unicodedata
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import xxhash

Hashes = npt.NDArray[np.uint64]

MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, odd: a bijection modulo 2^64

# Marks that only decorate a letter, and variation selectors and tags. Vowel signs of Indic scripts are marks too, but dropping those would change words.
_DIACRITICS = re.compile(
    "[\u0300-\u036f\u0610-\u061a\u064b-\u065f\u0670\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe00-\ufe0f\ufe20-\ufe2f\U000e0000-\U000e0fff]+"
)
# Scripts written without spaces: Thai, Lao, Myanmar, Khmer, kana, Han. Each character stands as a word.
_UNSPACED = re.compile(
    "([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff])"
)
_ZEROS = re.compile("0+")
# A tag that a text shows, such as a piece of code. Behind its name only an attribute with a value may stand, so that `a <b and c> d` holds
# no tag. The pattern reads no text between brackets twice, so that it is linear.
MARKUP = re.compile(
    r"</?[A-Za-z][A-Za-z0-9:_-]*(?:[ \t\r\n\f]*/?|[ \t\r\n\f]+[A-Za-z][A-Za-z0-9:_-]*[ \t\r\n\f]*=[^<>]*)>"
)
SEPARATORS = "<>/|"  # between words; other punctuation stands within one (don't, 1,000) or beside a space


def fold(character: str) -> str:
    """What one character of a text becomes when near duplicates are compared: "" when it is only decoration.

    Lower case, without diacritics; every digit 0; white space and SEPARATORS a space; a character of a script without spaces stands between spaces.
    """
    lower = unicodedata.normalize("NFD", character.lower().replace("ς", "σ"))  # two forms of one letter
    folded = ""
    for one in unicodedata.normalize("NFC", _DIACRITICS.sub("", lower)):
        kind = unicodedata.category(one)
        if one.isspace() or one in SEPARATORS:
            folded += " "
        elif kind == "Nd":
            folded += "0"
        elif kind[0] not in "PS" and kind not in ("Cf", "Cc", "Cs"):
            folded += f" {one} " if _UNSPACED.match(one) else one
    return folded


class _Folds(dict[int, str]):
    """`fold` by code point, each computed when it is first met."""

    def __missing__(self, code: int) -> str:
        self[code] = fold(chr(code))
        return self[code]


_FOLDS = _Folds()


def blank_markup(text: str) -> str:
    """The text with spaces for its tags, as many as they have characters."""
    return MARKUP.sub(lambda tag: " " * len(tag[0]), text) if "<" in text else text


def normalize(text: str) -> str:
    """Text as near-duplicate search compares it: lower case, no tags, punctuation, symbols or diacritics, every number 0, single spaces."""
    return " ".join(_ZEROS.sub("0", blank_markup(text).translate(_FOLDS)).split())


def word_hashes(words: Sequence[str]) -> Hashes:
    """xxh3 of each word's UTF-8 bytes. Shape (words,)."""
    digest = xxhash.xxh3_64_intdigest
    return np.fromiter((digest(word.encode()) for word in words), np.uint64, len(words))


def ngram_hashes(hashes: Hashes, n: int) -> Hashes:
    """A hash of every run of n words, from the words' hashes. Shape (max(words - n + 1, 0),).

    A polynomial in MULTIPLIER modulo 2^64 (Karp and Rabin 1987), then `mix64`, so that any bits of it serve as a hash.
    """
    count = len(hashes) - n + 1
    if count <= 0:
        return np.zeros(0, np.uint64)
    total = np.zeros(count, np.uint64)
    for offset in range(n):
        total *= MULTIPLIER
        total += hashes[offset : offset + count]
    return mix64(total)


def mix64(values: Hashes) -> Hashes:
    """MurmurHash3's 64-bit finalizer: a bijection in which every input bit moves half of the output bits."""
    values = values ^ (values >> np.uint64(33))
    values = values * np.uint64(0xFF51AFD7ED558CCD)
    values = values ^ (values >> np.uint64(33))
    values = values * np.uint64(0xC4CEB9FE1A85EC53)
    return values ^ (values >> np.uint64(33))
