"""MinHash signatures of word n-grams (Broder 1997) and the band keys under which similar documents meet."""

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import xxhash

from pipelines.text.ngrams import ngram_hashes, normalize, word_hashes

Words32 = npt.NDArray[np.uint32]

CHUNK_CELLS = 1 << 20  # shingles x permutations held at once: 4 MiB stay in the cache


def shingles(text: str, n: int) -> Words32:
    """The distinct n-grams of the normalised text as 32-bit hashes, ascending. Never empty.

    A text of fewer than n words is one shingle of all its words; one that normalises to nothing is a shingle of its bytes.
    """
    words = normalize(text).split()
    if not words:
        return np.array([xxhash.xxh32_intdigest(text.encode())], np.uint32)
    return np.unique(ngram_hashes(word_hashes(words), min(n, len(words))).astype(np.uint32))


@lru_cache(maxsize=4)
def permutations(count: int, seed: int) -> tuple[Words32, Words32]:
    """Multipliers (odd, so that each map is a bijection) and offsets of `count` affine maps modulo 2^32. Shapes (count,).

    Drawn as datasketch's `affine32` scheme draws them, so that signatures can be compared with other tools'.
    """
    generator = np.random.RandomState(seed)
    multipliers = generator.randint(0, 1 << 31, count, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
    return multipliers, generator.randint(0, 1 << 32, count, dtype=np.uint32)


def signature(hashes: Words32, count: int, seed: int) -> Words32:
    """For each permutation the smallest value over all shingles. Shape (count,)."""
    multipliers, offsets = permutations(count, seed)
    mixed = _mix32(hashes)
    smallest = np.full(count, 0xFFFFFFFF, np.uint32)
    step = max(1, CHUNK_CELLS // count)
    for start in range(0, len(mixed), step):
        cells = multipliers[:, None] * mixed[None, start : start + step] + offsets[:, None]
        np.minimum(smallest, cells.min(axis=1), out=smallest)
    return smallest


def _mix32(values: Words32) -> Words32:
    """MurmurHash3's 32-bit finalizer."""
    values = values ^ (values >> np.uint32(16))
    values = values * np.uint32(0x85EBCA6B)
    values = values ^ (values >> np.uint32(13))
    values = values * np.uint32(0xC2B2AE35)
    return values ^ (values >> np.uint32(16))


def band_keys(signature: Words32, bands: int) -> npt.NDArray[np.int64]:
    """One 64-bit key a band, from the band's number and rows; equal bands of two documents have equal keys. Shape (bands,).

    Signed, because Spark has no unsigned integers.
    """
    rows = signature.astype("<u4").reshape(bands, -1)
    return np.array(
        [xxhash.xxh3_64_intdigest(row.tobytes(), seed=band) for band, row in enumerate(rows)], np.uint64
    ).astype(np.int64)


def found_probability(jaccard: float, bands: int, rows: int) -> float:
    """The probability that two documents of this Jaccard similarity share a band: 1 - (1 - s^rows)^bands."""
    return 1 - (1 - jaccard**rows) ** bands
