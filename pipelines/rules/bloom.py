"""BLOOM's document scores (ROOTS corpus, appendix A): repetition, special characters and function words."""

import math

import numpy as np

from pipelines.text import counting, recurrence
from pipelines.text.characters import classes
from pipelines.text.mixing import ngram_hashes
from pipelines.text.words import Text, keys_of

CHARACTER_N = 10
WORD_N = 5


def char_repetition(document: Text, n: int = CHARACTER_N) -> float:
    """Share of all character n-grams that belong to the most frequent ones.

    Of D distinct n-grams, the sqrt(D) most frequent count, as far as they occur more than once.
    """
    grams = ngram_hashes(document.codes.astype(np.uint64), n)
    counts = recurrence.occurrences(grams)
    repeated = counts[counts > 1]
    largest = min(math.isqrt(len(counts)), len(repeated))
    return float(np.sort(repeated)[len(repeated) - largest :].sum() / len(grams)) if largest else 0.0


def word_repetition(document: Text, n: int = WORD_N) -> float:
    """Share of lower-cased word n-grams that occur more than once. n is in words of the language."""
    grams = ngram_hashes(document.lowered_words[0].keys, n * document.unit)
    counts = recurrence.occurrences(grams)
    return float(counts[counts > 1].sum() / max(len(grams), 1))


def special_chars(document: Text) -> float:
    """Share of characters that are neither letters nor combining marks, such as digits, punctuation and white space."""
    if not document.text:
        return 0.0
    whole = np.array([0]), np.array([len(document.codes)])
    return float(1 - counting.letters(document.codes, classes(), *whole)[1] / len(document.codes))


def share_of(document: Text, known: frozenset[str]) -> float:
    """Share of the words that are in `known`, compared in lower case and without surrounding punctuation."""
    bare = document.lowered_words[1].keys
    return float(counting.listed(bare, keys_of(known))[0] / max(len(bare), 1))
