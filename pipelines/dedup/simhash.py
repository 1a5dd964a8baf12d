"""SimHash (Charikar 2002; Manku et al. 2007): a 64-bit fingerprint per document; near duplicates differ in few bits.

Candidate keys follow from the pigeonhole principle. A fingerprint is divided into `distance` + KEPT blocks. If two
fingerprints differ in at most `distance` bits, at least KEPT of their blocks are equal, so the two agree on at least
one of the C(distance + KEPT, KEPT) choices of blocks. Each choice is one key.
"""

from itertools import combinations, pairwise
from math import comb

import numpy as np

from pipelines.text.hashing import Offsets
from pipelines.text.kernels import kernel
from pipelines.text.mixing import Hashes, mix64

BITS = 64
KEPT = 3


@kernel
def fingerprints(hashes: Hashes, bounds: Offsets) -> Hashes:
    """SimHash fingerprints: bit i is set if more than half of a text's shingles have it set. Shape (texts,) uint64.

    Text i has the shingles hashes[bounds[i]:bounds[i + 1]].
    """
    out = np.zeros(len(bounds) - 1, np.uint64)
    votes = np.empty(64, np.int64)
    for text in range(len(bounds) - 1):
        votes[:] = 0
        for at in range(bounds[text], bounds[text + 1]):
            value = hashes[at]
            for bit in range(64):
                votes[bit] += np.int64((value >> np.uint64(bit)) & np.uint64(1))
        half = bounds[text + 1] - bounds[text]
        for bit in range(64):
            if 2 * votes[bit] > half:
                out[text] |= np.uint64(1) << np.uint64(bit)
    return out


def key_count(distance: int) -> int:
    """Number of keys per fingerprint."""
    return comb(distance + KEPT, KEPT)


def keys(prints: Hashes, distance: int) -> Hashes:
    """Candidate keys of fingerprints. Shape (texts, key_count(distance)).

    Two fingerprints that differ in at most `distance` bits share at least one key.
    """
    edges = np.linspace(0, BITS, distance + KEPT + 1).astype(int).tolist()
    masks = [((1 << end) - (1 << start)) for start, end in pairwise(edges)]
    chosen = np.array([sum(choice) for choice in combinations(masks, KEPT)], np.uint64)
    return _keys(prints, chosen)


@kernel
def _keys(prints: Hashes, masks: Hashes) -> Hashes:
    out = np.empty((len(prints), len(masks)), np.uint64)
    for text in range(len(prints)):
        for choice in range(len(masks)):
            out[text, choice] = mix64((prints[text] & masks[choice]) + mix64(np.uint64(choice + 1)))
    return out


@kernel
def near(one: np.uint64, other: np.uint64, distance: int) -> bool:
    """Whether two fingerprints differ in at most `distance` bits. Each iteration clears the lowest differing bit."""
    left = one ^ other
    for _ in range(distance):
        left &= left - np.uint64(1)
    return bool(left == 0)
