"""SimHash (Charikar 2002; Manku et al. 2007): 64 bits a document, near duplicates differ in few of them.

The keys under which candidates meet come from the pigeonhole principle: of `distance` + KEPT blocks of a fingerprint at least KEPT are
untouched when at most `distance` bits differ, so two such fingerprints agree on one of the C(distance + KEPT, KEPT) choices of blocks.
"""

from itertools import combinations, pairwise
from math import comb

import numpy as np
import numpy.typing as npt

from pipelines.text.hashing import kernel, mix64

BITS = 64
KEPT = 3


@kernel
def fingerprints(hashes, bounds):
    """Bit i is set where more of a text's shingles have it set than not. Shape (texts,) uint64."""
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
    """Keys a fingerprint has."""
    return comb(distance + KEPT, KEPT)


def keys(prints: npt.NDArray[np.uint64], distance: int) -> npt.NDArray[np.uint64]:
    """Fingerprints that differ in at most `distance` bits share at least one key. Shape (texts, key_count(distance))."""
    edges = np.linspace(0, BITS, distance + KEPT + 1).astype(int).tolist()
    masks = [((1 << end) - (1 << start)) for start, end in pairwise(edges)]
    chosen = np.array([sum(choice) for choice in combinations(masks, KEPT)], np.uint64)
    return _keys(prints, chosen)


@kernel
def _keys(prints, masks):
    out = np.empty((len(prints), len(masks)), np.uint64)
    for text in range(len(prints)):
        for choice in range(len(masks)):
            out[text, choice] = mix64((prints[text] & masks[choice]) + mix64(np.uint64(choice + 1)))
    return out


@kernel
def near(one, other, distance):
    """Do two fingerprints differ in at most so many bits? Each turn takes away the lowest that is left."""
    left = one ^ other
    for _ in range(distance):
        left &= left - np.uint64(1)
    return left == 0
