"""Near duplicates among examples, by MinHash in this process: sets of examples are small beside a corpus.

An example has parts: its prompt and its reply, or both of its replies. Two examples are near duplicates only if each
part is. So many questions about one long text are not duplicates of each other, nor are many replies to one prompt.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import xxhash

from pipelines.dedup import minhash
from pipelines.dedup.linking import distinct, pairs
from pipelines.spark.components import components
from pipelines.text.mixing import Hashes, ngram_hashes
from pipelines.text.spelling import split_words

NGRAM, BANDS, ROWS = 5, 14, 8  # FineWeb's
HASHES = BANDS * ROWS
SEED = 1
BOUND = 16  # examples with the same band of which each later one is compared with the first so many
COMPARED = 1 << 16  # pairs at once

Parts = tuple[str, ...]
Signatures = npt.NDArray[np.uint32]


def sign(examples: Sequence[Parts]) -> Signatures:
    """MinHash values of each part of each example, all of which have equally many. Shape (examples, parts, HASHES)."""
    sets = [_shingles(part) for parts in examples for part in parts]
    bounds = np.cumsum([0, *map(len, sets)])
    hashes = np.concatenate([np.zeros(0, np.uint64), *sets]).astype(np.uint32)
    found = minhash.minima(hashes, bounds, *minhash.permutations(HASHES, SEED))
    return found.reshape(len(examples), -1, HASHES)


def _shingles(text: str) -> Hashes:
    """A hash of each run of NGRAM words, in which digits count. A text with fewer words, or none, is one shingle."""
    words = [xxhash.xxh3_64_intdigest(word.encode()) for word in split_words(text) or [text]]
    found: Hashes = ngram_hashes(np.array(words, np.uint64), min(NGRAM, len(words)))
    return found


def similarity(one: Signatures, other: Signatures) -> npt.NDArray[np.float64]:
    """The estimated Jaccard similarity of the least similar parts. (pairs, parts, HASHES) twice -> (pairs,)."""
    found: npt.NDArray[np.float64] = (one == other).mean(axis=2).min(axis=1)
    return found


def clusters(signatures: Signatures, min_jaccard: float) -> npt.NDArray[np.int64]:
    """For each example, the first one of its cluster of near duplicates: itself if it is not like any. (examples,).

    Candidates share a band of the signature of all parts together, which is the minimum over the parts' signatures.
    """
    count = len(signatures)
    first = np.arange(count)
    if count < 2:
        return first
    keys = minhash.band_keys(np.ascontiguousarray(signatures.min(axis=1)), BANDS)
    sharing = [pairs(np.ascontiguousarray(band), first.astype(np.uint64), first, BOUND) for band in keys.T]
    big, small = distinct(*(np.concatenate(ends) for ends in zip(*sharing, strict=True)))
    alike = np.zeros(len(big), bool)
    for start in range(0, len(big), COMPARED):
        part = slice(start, start + COMPARED)
        alike[part] = similarity(signatures[big[part]], signatures[small[part]]) >= min_jaccard
    if alike.any():
        nodes, heads = components(big[alike], small[alike])
        first[nodes] = heads
    return first
