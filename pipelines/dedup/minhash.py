"""MinHash signatures of word n-grams (Broder 1997), and the band keys that similar documents share."""

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.text.hashing import Bytes, Offsets, shingles
from pipelines.text.kernels import kernel
from pipelines.text.mixing import MULTIPLIER, Hashes, mix64

Words32 = npt.NDArray[np.uint32]


def found_probability(jaccard: Any, bands: int, rows: int) -> Any:
    """Probability that two documents of Jaccard similarity s share at least one band: 1 - (1 - s^rows)^bands.

    jaccard: s, a number or an array. The result has the same shape.
    """
    return 1 - (1 - jaccard**rows) ** bands


def threshold(bands: int, rows: int) -> float:
    """The Jaccard similarity at which half of the pairs share a band; the S-curve is about steepest there."""
    return float((1 - 0.5 ** (1 / bands)) ** (1 / rows))


@lru_cache(maxsize=4)
def permutations(count: int, seed: int) -> tuple[Words32, Words32]:
    """Multipliers and offsets of `count` affine maps modulo 2^32. Shapes (count,).

    Multipliers are odd, so each map is a bijection. All are drawn as in datasketch's `affine32` scheme, so that
    signatures are comparable with other tools.
    """
    generator = np.random.RandomState(seed)
    multipliers = generator.randint(0, 1 << 31, count, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
    return multipliers, generator.randint(0, 1 << 32, count, dtype=np.uint32)


def signatures(data: Bytes, offsets: Offsets, ngram: int, count: int, seed: int) -> Words32:
    """The smallest value over a text's shingles, for each text and permutation. Shape (texts, count)."""
    found = shingles(data, offsets, ngram)
    return minima(found.hashes.astype(np.uint32), found.bounds, *permutations(count, seed))


@kernel
def minima(hashes: Words32, bounds: Offsets, multipliers: Words32, offsets: Words32) -> Words32:
    """Minimum over h of a * mix32(h) + b modulo 2^32, for each set and each map (a, b). Shape (sets, maps).

    Set i is hashes[bounds[i]:bounds[i + 1]]. An empty set gives 2^32 - 1.
    """
    out = np.empty((len(bounds) - 1, len(multipliers)), np.uint32)
    mixed = np.empty(len(hashes), np.uint32)
    for at in range(len(hashes)):
        mixed[at] = _mix32(hashes[at])
    for one in range(len(bounds) - 1):
        inside = mixed[bounds[one] : bounds[one + 1]]
        for column in range(len(multipliers)):
            factor, offset, smallest = multipliers[column], offsets[column], np.uint32(0xFFFFFFFF)
            for value in inside:
                smallest = min(smallest, np.uint32(value * factor + offset))
            out[one, column] = smallest
    return out


@kernel
def _mix32(value: np.uint32) -> np.uint32:
    """MurmurHash3's 32-bit finalizer."""
    value = np.uint32((value ^ (value >> np.uint32(16))) * np.uint32(0x85EBCA6B))
    value = np.uint32((value ^ (value >> np.uint32(13))) * np.uint32(0xC2B2AE35))
    return value ^ (value >> np.uint32(16))


@kernel
def band_keys(signatures: Words32, bands: int) -> Hashes:
    """Hash each band's number and rows to a 64-bit key; equal bands have equal keys. Shape (texts, bands)."""
    rows = signatures.shape[1] // bands
    out = np.empty((len(signatures), bands), np.uint64)
    for text in range(len(signatures)):
        for band in range(bands):
            state = mix64(np.uint64(band + 1))
            for row in range(rows):
                state = mix64(state ^ np.uint64(signatures[text, band * rows + row])) + MULTIPLIER
            out[text, band] = state
    return out
