"""Exact substring deduplication: runs of k words that stand at two or more places (Lee et al. 2021), found without a suffix array.

Two equal windows of k words have the same leftmost smallest q-gram hash among their q-grams, their anchor. So only windows whose
anchor stands at two places can be repeated, and only those are compared, by a cryptographic digest of their words. Every function
here looks at one document; meeting the other documents is the caller's shuffle.
"""

import re
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipelines.text.ngrams import ngram_hashes, word_hashes

WORD = re.compile(r"\S+")  # the same white space as str.split()
DIGEST_BYTES = 16  # of BLAKE2b: nobody can construct two windows that agree, so equal digests are equal words

Indices = npt.NDArray[np.int64]


class Runs(NamedTuple):
    """Neighbouring windows with one anchor: its hash, the first window's word index, the number of windows. Shapes (runs,)."""

    anchor: npt.NDArray[np.uint64]
    first: Indices
    count: Indices


def anchors(words: Sequence[str], k: int) -> Runs:
    """The windows of k words grouped by anchor, in order; every window is in exactly one run. Equal windows are in different runs."""
    windows = len(words) - k + 1
    if windows <= 0:
        return Runs(np.zeros(0, np.uint64), np.zeros(0, np.int64), np.zeros(0, np.int64))
    q = max(1, k // 2)
    grams = ngram_hashes(word_hashes(words), q)
    inside = np.lib.stride_tricks.sliding_window_view(grams, k - q + 1)
    position = inside.argmin(axis=1) + np.arange(windows)  # argmin takes the leftmost
    first = np.flatnonzero(np.diff(position, prepend=-1))
    return Runs(grams[position[first]], first, np.diff(first, append=windows))


def digest(words: Sequence[str], start: int, k: int) -> bytes:
    """Identity of the window of k words at `start`. Words hold no white space, so joining them with a space loses nothing."""
    return blake2b(" ".join(words[start : start + k]).encode(), digest_size=DIGEST_BYTES).digest()


def union(starts: Iterable[int], k: int) -> list[tuple[int, int]]:
    """The words that windows of k cover, as disjoint ranges [start, end) in order; overlapping and touching windows merge."""
    ranges: list[tuple[int, int]] = []
    for start in sorted(starts):
        if ranges and start <= ranges[-1][1]:
            ranges[-1] = (ranges[-1][0], max(ranges[-1][1], start + k))
        else:
            ranges.append((start, start + k))
    return ranges


def remaining(words: int, passes: Sequence[Sequence[tuple[int, int]]]) -> Indices:
    """Which of a document's words are left after the passes; each pass counts the words that the one before it left."""
    left = np.arange(words)
    for ranges in passes:
        keep = np.ones(len(left), bool)
        for start, end in ranges:
            keep[start:end] = False
        left = left[keep]
    return left


def rebuild(text: str, left: Indices) -> str:
    """The text of the words that are left. Each keeps the white space that followed it, except where a cut reaches the end."""
    spans = [match.span() for match in WORD.finditer(text)]
    if len(left) == len(spans):
        return text
    if not len(left):
        return ""
    starts = [0, *(start for start, _ in spans[1:]), len(text)]  # white space before the first word goes with that word
    kept = "".join(text[starts[index] : starts[index + 1]] for index in left)
    return kept if left[-1] == len(spans) - 1 else kept.rstrip()
