"""Which documents are linked by the keys that they share. Pure and on arrays; whether the keys are all there is the caller's affair."""

import numpy as np
import numpy.typing as npt

from pipelines.text.hashing import Hashes, Offsets, kernel
from pipelines.text.simhash import hamming

Nodes = npt.NDArray[np.int64]


def stars(keys: Hashes, nodes: Nodes) -> tuple[Nodes, Nodes, Offsets]:
    """Each key's documents linked with the smallest of them, which connects as well as all pairs do.

    Returns the ends of the edges, and for each distinct key the index of its smallest node.
    """
    return _stars(np.argsort(keys), keys, nodes)


def pairs(
    keys: Hashes, ranks: Hashes, nodes: Nodes, fingerprints: Hashes, bound: int, distance: int
) -> tuple[Nodes, Nodes]:
    """Pairs of documents that share a key: (larger rank, smaller rank), as (node, node), each once.

    In a key of more than `bound` documents each is paired with the `bound` of smallest rank only. With a `distance` of 0 or more only
    pairs whose fingerprints differ in at most that many bits are returned; -1 takes all.
    """
    big, small = _pairs(np.lexsort((ranks, keys)), keys, nodes, fingerprints, bound, distance)
    return distinct(big, small)


def distinct(big: Nodes, small: Nodes) -> tuple[Nodes, Nodes]:
    """Each pair once, ascending."""
    order = np.lexsort((small, big))
    big, small = big[order], small[order]
    new = np.ones(len(big), bool)
    new[1:] = (big[1:] != big[:-1]) | (small[1:] != small[:-1])
    return big[new], small[new]


def ranked(keys: Hashes, ranks: Hashes) -> Nodes:
    """How many documents of the same key have a smaller rank. Shape (documents,)."""
    order = np.lexsort((ranks, keys))
    start = np.flatnonzero(np.diff(keys[order], prepend=~keys[order][:1]))
    out = np.empty(len(keys), np.int64)
    out[order] = np.arange(len(keys)) - np.repeat(start, np.diff(start, append=len(keys)))
    return out


def tail_pairs(
    keys: Hashes,
    ranks: Hashes,
    nodes: Nodes,
    fingerprints: Hashes,
    tail_keys: Hashes,
    tail_nodes: Nodes,
    tail_fingerprints: Hashes,
    bound: int,
    distance: int,
) -> tuple[Nodes, Nodes]:
    """The `pairs` of documents whose key has at least `bound` documents of smaller rank, those of smallest rank among the others given."""
    order = np.lexsort((ranks, keys))
    first = np.searchsorted(keys[order], tail_keys)
    big, small = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for at in range(bound):
        other = order[first + at]
        near = tail_nodes != nodes[other]
        if distance >= 0:
            near &= np.bitwise_count(tail_fingerprints ^ fingerprints[other]) <= distance
        big.append(tail_nodes[near])
        small.append(nodes[other][near])
    return distinct(np.concatenate(big), np.concatenate(small))


@kernel
def _stars(order, keys, nodes):
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
def _pairs(order, keys, nodes, fingerprints, bound, distance):
    room = max(1024, len(order))
    big = np.empty(room, np.int64)
    small = np.empty(room, np.int64)
    count, at = 0, 0
    while at < len(order):
        stop = at + 1
        while stop < len(order) and keys[order[stop]] == keys[order[at]]:
            stop += 1
        for index in range(at + 1, stop):
            one = order[index]
            for other in order[at : min(index, at + bound)]:
                if nodes[one] == nodes[other] or (
                    distance >= 0 and hamming(fingerprints[one], fingerprints[other]) > distance
                ):
                    continue
                if count == len(big):
                    big, small = np.append(big, big), np.append(small, small)
                big[count], small[count] = nodes[one], nodes[other]
                count += 1
        at = stop
    return big[:count].copy(), small[:count].copy()


@kernel
def set_jaccards(one, one_bounds, other, other_bounds, left, right):
    """Jaccard similarities of pairs of sets: sets one[left[i]] and other[right[i]], each ascending and distinct. Shape (pairs,)."""
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
