"""Fingerprints against their definition; the pigeonhole keys never miss a pair within the distance."""

from itertools import combinations, pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.dedup.simhash import fingerprints, key_count, keys, near
from pipelines.text.mixing import mix64

WORD64 = st.integers(0, 2**64 - 1)


@settings(deadline=None)
@given(st.lists(st.lists(WORD64, min_size=1, max_size=9), min_size=1, max_size=4))
def test_fingerprint_is_the_majority_of_each_bit(sets: list[list[int]]) -> None:
    found = fingerprints(np.array([one for each in sets for one in each], np.uint64), np.cumsum([0, *map(len, sets)]))
    expected = [
        sum(1 << bit for bit in range(64) if 2 * sum(value >> bit & 1 for value in each) > len(each)) for each in sets
    ]
    assert found.tolist() == expected


@settings(deadline=None)
@given(WORD64, st.lists(st.integers(0, 63), unique=True, max_size=8), st.integers(1, 8))
def test_close_fingerprints_share_a_key(one: int, flipped: list[int], distance: int) -> None:
    other = one ^ sum(1 << bit for bit in flipped[:distance])
    made = keys(np.array([one, other], np.uint64), distance)
    assert made.shape == (2, key_count(distance))
    assert (made[0] == made[1]).any()
    apart = len(flipped[:distance])
    assert [near(np.uint64(one), np.uint64(other), bits) for bits in range(9)] == [bits >= apart for bits in range(9)]


def test_unrelated_fingerprints_share_none() -> None:
    prints = np.random.default_rng(0).integers(0, 2**64, 2000, np.uint64)
    made = keys(prints, 4)
    assert made.shape == (2000, 35)
    # 35 keys of 27 bits over two million pairs: about half a pair meets by chance
    assert len(np.unique(made)) >= 35 * 2000 - 5


def test_a_key_is_its_choice_of_blocks_and_their_bits() -> None:
    """Of distance + 3 blocks each key has three; the number of the choice makes equal bits of two choices two keys."""
    one = 0x0123456789ABCDEF
    edges = [0, 16, 32, 48, 64]
    masks = [(1 << end) - (1 << start) for start, end in pairwise(edges)]
    salts = [mix64(np.uint64(choice)) for choice in range(1, 5)]
    blocks = [one & sum(choice) for choice in combinations(masks, 3)]
    expected = [mix64(np.uint64((block + salt) % 2**64)) for block, salt in zip(blocks, salts, strict=True)]
    assert keys(np.array([one], np.uint64), 1).tolist() == [expected]
    assert [key_count(distance) for distance in (1, 2, 3, 4)] == [4, 10, 20, 35]
