"""BLOOM's document measures (ROOTS corpus, appendix A): repetition of characters and words, special characters, function words."""

import math
import unicodedata
from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np

CHARACTER_N = 10
WORD_N = 5


def char_repetition(text: str, n: int = CHARACTER_N) -> float:
    """Share of the most frequent character n-grams among all: of D distinct ones the sqrt(D) largest that occur more than once."""
    if len(text) < n:
        return 0.0
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    # A polynomial over 2^64: two n-grams meet by chance with a probability that no threshold notices.
    keys = np.zeros(len(codes) - n + 1, dtype=np.uint64)
    for offset in range(n):
        keys = keys * np.uint64(0x9E3779B97F4A7C15) + codes[offset : len(codes) - n + 1 + offset]
    counts = np.unique(keys, return_counts=True)[1]
    largest = min(math.isqrt(len(counts)), int((counts > 1).sum()))
    return float(np.sort(counts)[len(counts) - largest :].sum() / counts.sum()) if largest else 0.0


def word_repetition(words: Sequence[str], n: int = WORD_N) -> float:
    """Share of word n-grams, lower case, that occur more than once."""
    lowered = [word.lower() for word in words]
    counts = Counter(zip(*(lowered[offset:] for offset in range(n)), strict=False))
    total = counts.total()
    return sum(count for count in counts.values() if count > 1) / total if total else 0.0


def special_chars(text: str) -> float:
    """Share of characters that are neither letters nor marks on letters: digits, punctuation, white space, symbols."""
    if not text:
        return 0.0
    letters = sum(map(str.isalpha, text))
    if not text.isascii():  # vowel signs of Indic scripts, accents written apart
        letters += sum(unicodedata.category(character).startswith("M") for character in text if ord(character) > 0x2FF)
    return 1 - letters / len(text)


def share_of(words: Sequence[str], known: Collection[str]) -> float:
    """Share of the words, bare of punctuation and in lower case, that are known."""
    return sum(word in known for word in words) / len(words) if words else 0.0
