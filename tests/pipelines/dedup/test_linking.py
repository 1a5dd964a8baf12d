"""Links by shared keys against their definitions, and hot keys that must not be squared."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.dedup.linking import distinct, near_pairs, pairs, ranked, set_jaccards, stars

ROWS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9)), max_size=30)


def columns(rows: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([key for key, _ in rows], np.uint64), np.array([node for _, node in rows], np.int64)


@settings(deadline=None)
@given(ROWS)
def test_stars(rows: list[tuple[int, int]]) -> None:
    keys, nodes = columns(rows)
    big, small, first = stars(keys, nodes)
    least = {key: min(node for other, node in rows if other == key) for key, _ in rows}
    assert set(zip(big.tolist(), small.tolist(), strict=True)) == {
        (node, least[key]) for key, node in rows if node != least[key]
    }
    assert dict(zip(keys[first].tolist(), nodes[first].tolist(), strict=True)) == least
    assert len(first) == len(least)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), max_size=30, unique=True), st.integers(1, 4))
def test_pairs(rows: list[tuple[int, int]], bound: int) -> None:
    keys, nodes = columns(rows)
    ranks = (9 - nodes).astype(np.uint64)  # the order of ids, not that of nodes
    big, small = pairs(keys, ranks, nodes, bound)
    expected = set()
    for key in range(4):
        group = sorted((node for other, node in rows if other == key), reverse=True)
        expected |= {(one, other) for at, one in enumerate(group) for other in group[: min(at, bound)]}
    assert sorted(expected) == list(zip(big.tolist(), small.tolist(), strict=True))


def test_pairs_within_a_distance() -> None:
    prints = np.array([0b0000, 0b0011, 0b0111, 0b1111], np.uint64)
    given = np.zeros(4, np.uint64), np.arange(4, dtype=np.uint64), np.arange(4), prints, 2
    for reach, bound, expected in (
        (10, 9, [(1, 0), (2, 1), (3, 1), (3, 2)]),
        (10, 1, [(1, 0), (2, 1), (3, 1)]),
        (10, None, [(1, 0), (2, 1), (3, 1)]),
        (2, None, [(1, 0), (2, 1), (3, 1)]),
        (1, None, [(1, 0)]),
    ):
        big, small = near_pairs(*given, reach, bound)
        assert list(zip(big.tolist(), small.tolist(), strict=True)) == expected


PRINTS = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 63)), min_size=1, max_size=40)


@settings(deadline=None)
@given(PRINTS, st.integers(0, 2), st.integers(1, 50))
def test_near_pairs_connect_all_that_are_near(rows: list[tuple[int, int]], distance: int, reach: int) -> None:
    """The same components as the definition's pairs, by no edge more than that takes; capped, the first two pairs of each."""
    keys, prints = np.array([key for key, _ in rows], np.uint64), np.array([one for _, one in rows], np.uint64)
    nodes = np.arange(len(rows))
    ranks = (nodes * 37 % 41).astype(np.uint64)
    near: list[list[tuple[int, int]]] = []  # by document
    for key in (0, 1):
        group = [int(at) for at in np.argsort(ranks) if keys[at] == key]
        for at, one in enumerate(group):
            others = [
                other for other in group[: min(at, reach)] if (rows[one][1] ^ rows[other][1]).bit_count() <= distance
            ]
            near.append([(one, other) for other in others])
    found = set(
        zip(*(ends.tolist() for ends in near_pairs(keys, ranks, nodes, prints, distance, reach, None)), strict=True)
    )
    definition = {pair for each in near for pair in each}
    assert found <= definition
    assert labels(found, len(rows)) == labels(definition, len(rows))
    if reach >= len(rows):
        assert len(found) == len(rows) - len(set(labels(definition, len(rows))))
    capped = set(
        zip(*(ends.tolist() for ends in near_pairs(keys, ranks, nodes, prints, distance, reach, 2)), strict=True)
    )
    assert capped == {pair for each in near for pair in each[:2]}


def labels(edges: set[tuple[int, int]], count: int) -> list[int]:
    """For each node the smallest one that it is connected with."""
    found = list(range(count))
    for _ in range(count):
        for one, other in edges:
            found[one] = found[other] = min(found[one], found[other])
    return found


def test_a_hot_key_grows_with_its_documents_and_not_with_their_square() -> None:
    size = 200_000
    keys, nodes, prints = np.full(size, 7, np.uint64), np.arange(size), np.zeros(size, np.uint64)
    assert len(stars(keys, nodes)[0]) == size - 1
    big, _ = pairs(keys, nodes.astype(np.uint64), nodes, 4)
    assert len(big) == 4 * size - 10
    assert len(near_pairs(keys, nodes.astype(np.uint64), nodes, prints, 3, 4096, None)[0]) == size - 1
    assert len(near_pairs(keys, nodes.astype(np.uint64), nodes, prints, 3, 4096, 4)[0]) == 4 * size - 10


@settings(deadline=None)
@given(st.sets(st.integers(0, 20)), st.sets(st.integers(0, 20)))
def test_jaccard(one: set[int], other: set[int]) -> None:
    flat = [np.array(sorted(each), np.uint64) for each in (one, other)]
    bounds = [np.array([0, len(each)]) for each in (one, other)]
    found = set_jaccards(flat[0], bounds[0], flat[1], bounds[1], np.zeros(1, np.int64), np.zeros(1, np.int64))
    assert found.tolist() == [len(one & other) / len(one | other) if one | other else 0.0]


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0, 1, 7, 2**64 - 1]), st.integers(0, 99)), max_size=30, unique=True))
def test_a_rank_within_a_key_is_the_number_of_smaller_ones(rows: list[tuple[int, int]]) -> None:
    keys, ranks = (np.array([row[at] for row in rows], np.uint64) for at in (0, 1))
    expected = [sum(other == key and less < rank for other, less in rows) for key, rank in rows]
    assert ranked(keys, ranks).tolist() == expected


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=30))
def test_distinct_pairs(rows: list[tuple[int, int]]) -> None:
    big, small = distinct(*(np.array([row[at] for row in rows], np.int64) for at in (0, 1)))
    assert list(zip(big.tolist(), small.tolist(), strict=True)) == sorted(set(rows))


def test_jaccard_of_sets_that_stand_among_others() -> None:
    flat, bounds = np.array([1, 2, 3, 2, 3, 4, 5, 9], np.uint64), np.array([0, 3, 7, 7, 8])
    left, right = np.array([0, 1, 0, 2, 2]), np.array([1, 0, 3, 2, 0])
    assert set_jaccards(flat, bounds, flat, bounds, left, right).tolist() == [2 / 5, 2 / 5, 0, 0, 0]
