"""Edges between documents that share keys: pure functions on arrays. The caller must bring all documents of a key."""

import numpy as np
import numpy.typing as npt

from pipelines.dedup.simhash import near
from pipelines.text.hashing import Offsets
from pipelines.text.kernels import kernel
from pipelines.text.mixing import Hashes

Nodes = npt.NDArray[np.int64]


def stars(keys: Hashes, nodes: Nodes) -> tuple[Nodes, Nodes, Offsets]:
    """Link each key's documents with the smallest of them, which gives the same components as linking all pairs.

    Returns both ends of the edges, and for each distinct key the index of its smallest node.
    """
    return _stars(np.argsort(keys), keys, nodes)


def pairs(keys: Hashes, ranks: Hashes, nodes: Nodes, bound: int) -> tuple[Nodes, Nodes]:
    """Distinct pairs of nodes that share a key: (the node of larger rank, the node of smaller rank).

    If more than `bound` documents share a key, each is paired with the `bound` documents of smallest rank only.
    """
    return distinct(*_pairs(np.lexsort((ranks, keys)), keys, nodes, bound))


def near_pairs(
    keys: Hashes, ranks: Hashes, nodes: Nodes, fingerprints: Hashes, distance: int, reach: int, bound: int | None
) -> tuple[Nodes, Nodes]:
    """The `pairs` whose fingerprints differ in at most `distance` bits.

    Within a key, every document is compared with the `reach` documents of smallest rank. With a `bound`, a document is
    paired with at most that many of them, those of smallest rank. Without one, a pair is left out if its documents are
    connected already: a key then has fewer edges than documents, unless more than `reach` documents share it.
    """
    return distinct(
        *_near_pairs(
            np.lexsort((ranks, keys)), keys, nodes, fingerprints, distance, reach, 0 if bound is None else bound
        )
    )


def distinct(big: Nodes, small: Nodes) -> tuple[Nodes, Nodes]:
    """Sort pairs and drop repetitions."""
    order = np.lexsort((small, big))
    big, small = big[order], small[order]
    new = np.ones(len(big), bool)
    new[1:] = (big[1:] != big[:-1]) | (small[1:] != small[:-1])
    return big[new], small[new]


def ranked(keys: Hashes, ranks: Hashes) -> Nodes:
    """For each document, how many documents of the same key have a smaller rank. Shape (documents,)."""
    order = np.lexsort((ranks, keys))
    start = np.flatnonzero(np.diff(keys[order], prepend=~keys[order][:1]))
    out = np.empty(len(keys), np.int64)
    out[order] = np.arange(len(keys)) - np.repeat(start, np.diff(start, append=len(keys)))
    return out


@kernel
def _stars(order: Offsets, keys: Hashes, nodes: Nodes) -> tuple[Nodes, Nodes, Offsets]:
    big = np.empty(len(order), np.int64)
    small = np.empty(len(order), np.int64)
    first = np.empty(len(order), np.int64)
    edges, groups, at = 0, 0, 0
    while at < len(order):
        stop, least = at + 1, order[at]
        while stop < len(order) and keys[order[stop]] == keys[order[at]]:
            if nodes[order[stop]] < nodes[least]:
                least = order[stop]
            stop += 1
        for index in range(at, stop):
            if nodes[order[index]] != nodes[least]:
                big[edges], small[edges] = nodes[order[index]], nodes[least]
                edges += 1
        first[groups] = least
        groups += 1
        at = stop
    return big[:edges].copy(), small[:edges].copy(), first[:groups].copy()


@kernel
def _pairs(order: Offsets, keys: Hashes, nodes: Nodes, bound: int) -> tuple[Nodes, Nodes]:
    room = max(1024, len(order))
    big = np.empty(room, np.int64)
    small = np.empty(room, np.int64)
    count, at = 0, 0
    while at < len(order):
        stop = _end(order, keys, at)
        for index in range(at + 1, stop):
            one = order[index]
            for other in order[at : min(index, at + bound)]:
                if nodes[one] == nodes[other]:
                    continue
                if count == len(big):
                    big, small = np.append(big, big), np.append(small, small)
                big[count], small[count] = nodes[one], nodes[other]
                count += 1
        at = stop
    return big[:count].copy(), small[:count].copy()


@kernel
def _near_pairs(
    order: Offsets, keys: Hashes, nodes: Nodes, fingerprints: Hashes, distance: int, reach: int, bound: int
) -> tuple[Nodes, Nodes]:
    room = max(1024, len(order))
    big = np.empty(room, np.int64)
    small = np.empty(room, np.int64)
    count, at = 0, 0
    while at < len(order):
        stop = _end(order, keys, at)
        heads = min(stop - at, reach)
        parent = np.arange(heads)  # union-find: connected heads have the same root
        linked = np.full(heads, -1)  # per root: the last non-head that was paired with one of its heads
        parts = 1  # number of roots among the heads seen so far
        for index in range(at + 1, stop):
            one, made = order[index], 0
            for head in range(min(index - at, heads)):
                if made == (bound if bound else parts):
                    break
                other = order[at + head]
                if nodes[one] == nodes[other] or not near(fingerprints[one], fingerprints[other], distance):
                    continue
                if not bound:
                    root, mine = _root(parent, head), index - at
                    if mine < heads:
                        if root == _root(parent, mine):
                            continue
                        parent[root] = _root(parent, mine)
                    elif linked[root] == index:
                        continue
                    else:
                        linked[root] = index
                if count == len(big):
                    big, small = np.append(big, big), np.append(small, small)
                big[count], small[count] = nodes[one], nodes[other]
                count, made = count + 1, made + 1
            if index - at < heads:
                parts += 1 - made
        at = stop
    return big[:count].copy(), small[:count].copy()


@kernel
def _end(order: Offsets, keys: Hashes, at: int) -> int:
    """End of the run of documents that share the key at position `at`."""
    stop = at + 1
    while stop < len(order) and keys[order[stop]] == keys[order[at]]:
        stop += 1
    return stop


@kernel
def _root(parent: Offsets, at: int) -> int:
    while parent[at] != at:
        parent[at] = parent[parent[at]]
        at = parent[at]
    return at


@kernel
def set_jaccards(
    one: Hashes, one_bounds: Offsets, other: Hashes, other_bounds: Offsets, left: Offsets, right: Offsets
) -> npt.NDArray[np.float64]:
    """Jaccard similarities of set left[i] of `one` and set right[i] of `other`. Shape (pairs,).

    Set j of `one` is one[one_bounds[j]:one_bounds[j + 1]], ascending and distinct; `other` likewise.
    """
    out = np.zeros(len(left), np.float64)
    for pair in range(len(left)):
        a, a_end = one_bounds[left[pair]], one_bounds[left[pair] + 1]
        b, b_end = other_bounds[right[pair]], other_bounds[right[pair] + 1]
        total, shared = a_end - a + b_end - b, 0
        while a < a_end and b < b_end:
            if one[a] == other[b]:
                shared += 1
                a += 1
                b += 1
            elif one[a] < other[b]:
                a += 1
            else:
                b += 1
        if total > shared:
            out[pair] = shared / (total - shared)
    return out
