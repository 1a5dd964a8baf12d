"""Words and word n-grams as 64-bit hashes: the ground that MinHash, substring search and decontamination stand on."""

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import xxhash

Hashes = npt.NDArray[np.uint64]

MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, odd: a bijection modulo 2^64

# Marks that only decorate a letter. Vowel signs of Indic scripts are marks too, but dropping those would change words.
_DIACRITICS = re.compile(
    "[\u0300-\u036f\u0610-\u061a\u064b-\u065f\u0670\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]+"
)
# Scripts written without spaces: Thai, Lao, Myanmar, Khmer, kana, Han. Each character stands as a word.
_UNSPACED = re.compile(
    "([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff])"
)
_DIGITS = re.compile(r"\d+")


def normalize(text: str) -> str:
    """Text as near-duplicate search compares it: lower case, no punctuation, symbols or diacritics, every number 0, single spaces."""
    text = text.lower()
    if not text.isascii():
        text = unicodedata.normalize("NFC", _DIACRITICS.sub("", unicodedata.normalize("NFD", text)))
        text = _UNSPACED.sub(r" \1 ", text)
        if max(text, default="") > "\uffff":
            text = _punctuation(0x10000, 0x110000).sub("", text)
    return " ".join(_DIGITS.sub("0", _punctuation(0, 0x10000).sub("", text)).split())


@lru_cache(maxsize=2)
def _punctuation(start: int, end: int) -> re.Pattern[str]:
    """Punctuation and symbols among these code points. `re` looks a character up at once only in a class below 0x10000."""
    marks = (chr(code) for code in range(start, end) if unicodedata.category(chr(code))[0] in "PS")
    return re.compile(f"[{''.join(re.escape(mark) for mark in marks)}]+")


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
