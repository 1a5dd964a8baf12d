"""Which of the examples that were read are learned from: caps for large tasks, and a few good ones instead of many."""

import numpy as np
import numpy.typing as npt
import xxhash

from pipelines.examples.sieve import Flags
from pipelines.text.mixing import Hashes
from pipelines.text.spelling import split_words

FEATURES = 256
"""Numbers that stand for the words of a prompt; two prompts without a common word have a cosine of about 0.06."""
COMPARED = 4096  # candidates that are compared with the chosen ones at once

Features = npt.NDArray[np.float32]


def over_cap(tasks: npt.NDArray[np.int64], lots: Hashes, usable: Flags, most: int | None) -> Flags:
    """Which examples go because their task has more than `most`: those with the largest lots. Shape (examples,)."""
    gone = np.zeros(len(tasks), bool)
    if most is None:
        return gone
    for task in np.unique(tasks):
        members = np.flatnonzero((tasks == task) & usable)
        gone[members[np.argsort(lots[members], kind="stable")[most:]]] = True
    return gone


def features(text: str) -> Features:
    """The counts of a text's words as FEATURES numbers: each word adds its logarithmic count to a place that its hash
    draws, with a sign that the hash draws, too (Weinberger et al. 2009). Shape (FEATURES,)."""
    found = np.zeros(FEATURES, np.float32)
    hashes = np.array([xxhash.xxh3_64_intdigest(word.encode()) for word in split_words(text)], np.uint64)
    words, counts = np.unique(hashes, return_counts=True)
    signs = np.where(words >> np.uint64(63), 1, -1)
    np.add.at(found, (words % np.uint64(FEATURES)).astype(np.int64), signs * (1 + np.log(counts)))
    return found


def weighted(counts: Features) -> Features:
    """The same, with places that many texts fill counting less, and each text of length 1. Shape (texts, FEATURES)."""
    filled = (counts != 0).sum(axis=0)
    scaled = counts * np.log1p(len(counts) / np.maximum(filled, 1)).astype(np.float32)
    sizes = np.linalg.norm(scaled, axis=1, keepdims=True)
    return np.asarray(scaled / np.maximum(sizes, 1e-9), np.float32)


def best(scores: npt.NDArray[np.float64], counts: Features, usable: Flags, most: int, max_similarity: float) -> Flags:
    """The examples with the highest scores of which no two prompts are alike, at most `most`. Shape (examples,).

    They are taken from the best on, each unless its cosine with one that was taken is above `max_similarity` (Liu et
    al. 2024, "What Makes Good Data for Alignment?", section 3.3). An example whose score is NaN is not taken.
    """
    order = np.flatnonzero(usable & ~np.isnan(scores))
    order = order[np.argsort(-scores[order], kind="stable")]
    directions = weighted(counts)
    chosen = np.zeros(len(scores), bool)
    taken = np.zeros((min(most, len(order)), FEATURES), np.float32)
    size = 0
    for start in range(0, len(order), COMPARED):
        block = order[start : start + COMPARED]
        near = (directions[block] @ taken[:size].T).max(axis=1, initial=-1.0)
        fresh = size
        for at, example in enumerate(block.tolist()):
            if size == most:
                return chosen
            here = float((taken[fresh:size] @ directions[example]).max(initial=-1.0))
            if max(float(near[at]), here) <= max_similarity + 1e-6:
                taken[size] = directions[example]
                chosen[example] = True
                size += 1
    return chosen
