"""pass@k against the formula in exact numbers, votes and bests."""

import math
from fractions import Fraction

import pytest

from evals.passk import MOST_COMPARED, best_of, majority, pass_at_k


def exact(n: int, c: int, k: int) -> Fraction:
    return 1 - Fraction(math.comb(n - c, k), math.comb(n, k))


def test_every_small_case_is_the_formula() -> None:
    for n in range(1, 25):
        for c in range(n + 1):
            for k in range(1, n + 1):
                assert pass_at_k(n, c, k) == pytest.approx(float(exact(n, c, k)), abs=1e-14)


@pytest.mark.parametrize(("n", "c", "k"), [(10_000, 3, 1000), (10_000, 9_999, 1), (200, 1, 100), (100_000, 1, 1)])
def test_large_numbers_lose_no_digits(n: int, c: int, k: int) -> None:
    assert pass_at_k(n, c, k) == pytest.approx(float(exact(n, c, k)), rel=1e-9)


def test_the_ends() -> None:
    assert pass_at_k(5, 0, 5) == 0
    assert pass_at_k(5, 1, 5) == 1
    assert pass_at_k(5, 2, 1) == pytest.approx(0.4)


@pytest.mark.parametrize(("n", "c", "k"), [(5, 6, 1), (5, -1, 1), (5, 1, 6), (5, 1, 0), (0, 0, 1)])
def test_impossible_counts_are_refused(n: int, c: int, k: int) -> None:
    with pytest.raises(ValueError, match="needs 1 <= k <= n"):
        pass_at_k(n, c, k)


def test_the_most_frequent_answer_wins_and_the_earliest_of_equals() -> None:
    assert majority(["7", None, "5", "5"]) == "5"
    assert majority(["7", "5", "5", "7"]) == "7"
    assert majority([None, None, "3"]) == "3"
    assert majority([None]) is None
    assert majority(["a", "B", "b", "A", "c"], lambda one, other: one.lower() == other.lower()) == "a"
    assert majority(["x", "B", "b"], lambda one, other: one.lower() == other.lower()) == "B"


def test_answers_that_say_the_same_vote_together() -> None:
    def same(one: str, other: str) -> bool:
        return one.lower() == other.lower()

    assert majority(["b", "A", "b", "a", "a"], same) == "a", "their most frequent spelling"
    many = [str(at) for at in range(MOST_COMPARED)]
    assert majority([*many, *many, "A", "b", "a"], same) == "0", "a spelling that is rare is not looked up"
    assert majority(["b", "A", "b", "a"], same) == "b"
    assert majority([None], same) is None


def test_the_best_by_reward_is_the_highest_the_first_of_equals_and_never_nan() -> None:
    assert best_of([0.1, 0.9, 0.9]) == 1
    assert best_of([math.nan, -5.0]) == 1
    with pytest.raises(ValueError, match="no outputs"):
        best_of([])
