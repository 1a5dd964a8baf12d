"""Boxes and edges of a drawn graph: no two places of a row overlap, and edges have places of their own."""

from itertools import pairwise

import pytest

from reports.layers import layers

CHAIN = {"a": 0, "b": 1, "c": 2, "d": 3}


def test_a_chain_stands_in_one_column() -> None:
    found = layers(CHAIN, {"b": ["a"], "c": ["b"], "d": ["c"]}, 100, 4, 10)
    assert {place[0]: x for place, x in found.middle.items()} == dict.fromkeys(CHAIN, 50.0)
    assert found.ways == [[(a, "", row), (b, "", row + 1)] for row, (a, b) in enumerate(pairwise(CHAIN))]


def test_a_long_edge_has_a_place_beside_the_boxes_that_it_passes() -> None:
    found = layers(CHAIN, {"b": ["a"], "c": ["b"], "d": ["c", "a"]}, 100, 4, 10)
    assert [("a", "", 0), ("a", "d", 1), ("a", "d", 2), ("d", "", 3)] in found.ways
    for row in (1, 2):
        [box] = [place for place in found.rows[row] if not place[1]]
        assert abs(found.middle[box] - found.middle["a", "d", row]) >= 100 / 2 + 4 / 2 + 10
    assert min(x - (2 if place[1] else 50) for place, x in found.middle.items()) == 0


@pytest.mark.parametrize("seed", range(5))
def test_no_two_places_of_a_row_overlap(seed: int) -> None:
    names = [f"{row}.{index}" for row in range(6) for index in range(1 + (row * 7 + seed) % 5)]
    level = {name: int(name[0]) for name in names}
    back = {
        name: [other for at, other in enumerate(names) if level[other] < level[name] and (at * 31 + seed) % 3 == 0]
        for name in names
    }
    found = layers(level, back, 100, 4, 10)
    for row in found.rows:
        for left, right in pairwise(row):
            half = (4 if left[1] else 100) / 2 + (4 if right[1] else 100) / 2
            assert found.middle[right] - found.middle[left] >= half + 10 - 1e-6
    assert len(found.ways) == sum(map(len, back.values()))
    for way in found.ways:
        assert [place[2] for place in way] == [*range(level[way[0][0]], level[way[-1][0]] + 1)]


def test_neighbours_stand_below_each_other() -> None:
    level = {"a": 0, "b": 0, "x": 1, "y": 1}
    found = layers(level, {"x": ["b"], "y": ["a"]}, 100, 4, 10)
    assert [place[0] for place in found.rows[1]] == ["y", "x"], "no edges cross"
    assert found.middle["a", "", 0] == found.middle["y", "", 1] == 50.0


def test_edges_that_do_not_lead_down_are_left_out() -> None:
    assert layers({"a": 0, "b": 0}, {"b": ["a"], "a": ["b"]}, 100, 4, 10).ways == []
    assert layers({}, {}, 100, 4, 10).rows == []
