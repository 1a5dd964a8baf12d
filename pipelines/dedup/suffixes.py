"""Exact substring deduplication with one suffix array: the simple reference that the distributed search must equal.

It holds the whole corpus in one process, at 20 bytes or more per token, so it suits small corpora only.
"""

from collections.abc import Sequence

import numpy as np
import pydivsufsort

from pipelines.dedup.stream import Tokens
from pipelines.dedup.substring import Places
from pipelines.text.hashing import Offsets
from pipelines.text.kernels import kernel


def ranks(tokens: Tokens) -> Offsets:
    """Number the tokens so that two numbers are equal exactly if the tokens' bytes are. Shape (tokens,)."""
    sizes = np.diff(tokens.at)
    out = np.zeros(len(sizes), np.int64)
    used = 0
    for size in np.unique(sizes):
        chosen = np.flatnonzero(sizes == size)
        cells = tokens.data[tokens.at[chosen][:, None] + np.arange(size)]
        _, inverse = np.unique(cells, axis=0, return_inverse=True)
        out[chosen] = inverse.reshape(-1) + used
        used += int(inverse.max()) + 1
    return out


def join(blocks: Sequence[Tokens]) -> tuple[Tokens, Offsets]:
    """Concatenate blocks of documents. Also returns the document index of each token, of shape (tokens,)."""
    bytes_before = np.cumsum([0, *(len(block.data) for block in blocks)])
    tokens_before = np.cumsum([0, *(len(block.at) - 1 for block in blocks)])
    data = np.concatenate([np.zeros(0, np.uint8), *(block.data for block in blocks)])
    at = np.concatenate([*(block.at[:-1] + bytes_before[i] for i, block in enumerate(blocks)), bytes_before[-1:]])
    bounds = np.concatenate(
        [np.zeros(1, np.int64), *(block.bounds[1:] + tokens_before[i] for i, block in enumerate(blocks))]
    )
    return Tokens(data, at, bounds), np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))


def first_equal(tokens: Tokens, places: Places, k: int) -> tuple[Offsets, Offsets]:
    """Find the windows of k tokens that occur at least twice, and for each one its equal window of smallest place.

    places: the sort key of every token, shape (tokens,). Returns two arrays of token indices, each of shape (windows,).
    Each document ends with a separator of its own, so no match crosses a document boundary.
    """
    values, bounds = ranks(tokens), tokens.bounds
    documents = len(bounds) - 1
    text = np.empty(len(values) + documents, np.uint32)
    position = np.full(len(text), -1, np.int64)
    inside = np.arange(len(values)) + np.repeat(np.arange(documents), np.diff(bounds))
    text[inside], position[inside] = values + documents, np.arange(len(values))
    text[bounds[1:] + np.arange(documents)] = np.arange(documents)
    if not len(text):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    order = pydivsufsort.divsufsort(text)
    return _groups(pydivsufsort.kasai(text, order), position[order], places, k)


@kernel
def _groups(shared: Offsets, positions: Offsets, places: Places, k: int) -> tuple[Offsets, Offsets]:
    """The windows and first windows of `first_equal`. shared: length of the prefix shared with the next suffix."""
    windows = np.empty(len(shared), np.int64)
    first = np.empty(len(shared), np.int64)
    count, at = 0, 0
    while at < len(shared):
        stop = at + 1
        while stop < len(shared) and shared[stop - 1] >= k:
            stop += 1
        if stop - at > 1:
            least = positions[at]
            for index in range(at, stop):
                if places[positions[index]] < places[least]:
                    least = positions[index]
            for index in range(at, stop):
                windows[count], first[count] = positions[index], least
                count += 1
        at = stop
    return windows[:count].copy(), first[:count].copy()
