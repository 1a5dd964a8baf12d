"""Scores of items that stand in the corpus beside those that do not: by hand, and their interval by simulation."""

import numpy as np
import pytest

from contract.contamination import Found
from evals.intervals import wilson
from evals.leaks import difference, split
from evals.records import Record


def rows(scores: list[float], of_source: int = 1) -> list[Record]:
    return [
        Record("gsm8k", "maths", str(at), f"s{at // of_source}", 0, "", "", "", "x", float(score))
        for at, score in enumerate(scores)
    ]


def found(*parts: tuple[Found, int]) -> dict[str, Found]:
    names: list[Found] = [name for name, count in parts for _ in range(count)]
    return {str(at): name for at, name in enumerate(names)}


def test_items_are_scored_apart() -> None:
    made = split(rows([1, 1, 1, 0, 1, 0, 0, 0, 1]), found(("leaked", 4), ("clean", 4), ("too short", 1)))
    assert {name: (one.mean, one.n) for name, one in made.scores.items()} == {
        "clean": (0.25, 4), "leaked": (0.75, 4), "too short": (1.0, 1),
    }  # fmt: skip
    assert (made.scores["leaked"].low, made.scores["leaked"].high) == pytest.approx(wilson(3, 4))
    assert made.leakage is not None
    assert made.leakage.mean == 0.5
    assert -1 <= made.leakage.low < 0.5 < made.leakage.high <= 1
    assert made.in_distribution is None, "no item overlaps"


def test_text_of_the_same_kind_is_told_from_the_item_itself() -> None:
    scores = [1.0] * 40 + [0.0] * 60 + [1.0] * 90 + [0.0] * 10 + [1.0] * 45 + [0.0] * 55
    made = split(rows(scores), found(("clean", 100), ("leaked", 100), ("overlapping", 100)))
    assert made.leakage is not None
    assert made.in_distribution is not None
    assert (made.leakage.mean, made.in_distribution.mean) == (pytest.approx(0.5), pytest.approx(0.05))
    assert made.leakage.low > 0.35
    assert made.in_distribution.low < 0 < made.in_distribution.high


def test_an_item_of_which_nothing_is_said_is_refused() -> None:
    with pytest.raises(KeyError, match="1"):
        split(rows([1, 0]), {"0": "clean"})


def test_several_outputs_of_an_item_are_one_item() -> None:
    twice = [one for score in (1.0, 0.0) for one in rows([score, 1.0])]
    made = split(twice, found(("leaked", 1), ("clean", 1)))
    assert (made.scores["leaked"].mean, made.scores["leaked"].n) == (0.5, 1)


def test_the_interval_is_nearly_the_normal_one_and_wider_for_clusters() -> None:
    random = np.random.default_rng(1)
    first = [float(one) for one in random.random(400) < 0.4]
    second = [float(one) for one in random.random(300) < 0.6]
    apart = difference([(one, ("a", at)) for at, one in enumerate(first)], [(one, at) for at, one in enumerate(second)])
    half = 1.96 * float((np.var(first) / 400 + np.var(second) / 300) ** 0.5)
    gap = np.mean(second) - np.mean(first)
    assert (apart.mean, apart.low, apart.high) == pytest.approx((gap, gap - half, gap + half), abs=0.008)
    tenfold = difference(
        [(one, ("a", at)) for at, one in enumerate(first) for _ in range(10)],
        [(one, at) for at, one in enumerate(second) for _ in range(10)],
    )
    assert (tenfold.low, tenfold.high) == pytest.approx((apart.low, apart.high)), "copies of an item say nothing new"


def test_a_source_with_items_on_both_sides_is_drawn_whole() -> None:
    """Hard and easy sources cancel: within each, leaked items are as good as clean ones."""
    sides = [[(float(at % 2), at) for at in range(60)] for _ in range(2)]
    made = difference(sides[0], sides[1])
    assert (made.mean, made.low, made.high) == (0, 0, 0)


def test_too_little_says_nothing() -> None:
    assert (difference([(1, "a"), (0, "a")], [(1, "a"), (1, "a")]).low, difference([(1, "a")], [(0, "b")]).high) == (
        -1, 1,
    )  # fmt: skip
