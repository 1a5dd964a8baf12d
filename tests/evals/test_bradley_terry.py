"""The scores of two models are the closed form, those of many are what the likelihood says, and impossible ones are told."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.bradley_terry import Comparison, bradley_terry, expected


def of_two(wins: int, losses: int, ties: int = 0) -> list[Comparison]:
    results = [1.0] * wins + [0.0] * losses + [0.5] * ties
    return [Comparison("a", "b", result, number) for number, result in enumerate(results)]


@given(st.integers(1, 500), st.integers(1, 500))
def test_the_lead_of_one_of_two_is_the_logarithm_of_wins_over_losses(wins: int, losses: int) -> None:
    found = bradley_terry(of_two(wins, losses))
    lead = found.leads[0]
    assert (lead.one == "a") == (wins >= losses)
    assert lead.value == pytest.approx(abs(math.log(wins / losses)), abs=1e-6)
    count = wins + losses
    half = 1.959964 * math.sqrt((1 / wins + 1 / losses) * count / (count - 1)) if count >= 5 else math.inf
    assert lead.high - lead.value == pytest.approx(half, rel=1e-4)
    assert lead.share == pytest.approx(max(wins, losses) / (wins + losses))
    assert sum(one.score for one in found.players) == pytest.approx(0, abs=1e-9)


def test_a_tie_is_half_a_win_of_each() -> None:
    tied, won = bradley_terry(of_two(6, 2, 4)), bradley_terry(of_two(8, 4))
    assert tied.leads[0].value == pytest.approx(won.leads[0].value)
    assert tied.leads[0].value == pytest.approx(math.log(2))
    assert [(one.name, one.wins, one.comparisons) for one in tied.players] == [("a", 8.0, 12), ("b", 4.0, 12)]


def test_one_item_with_many_votes_leads_to_no_interval() -> None:
    one_item = [Comparison("a", "b", result, "item") for result in [1.0] * 9 + [0.0]]
    [lead] = bradley_terry(one_item).leads
    assert (lead.low, lead.value, lead.high) == (-math.inf, pytest.approx(math.log(9)), math.inf)
    four = [replace(one, cluster=number % 4) for number, one in enumerate(one_item)]
    assert bradley_terry(four).players[0].low == -math.inf
    five = [replace(one, cluster=number % 5) for number, one in enumerate(one_item)]
    assert bradley_terry(five).players[0].low > -math.inf


def test_clusters_that_cancel_out_do_not_make_the_interval_narrower_than_the_models_own() -> None:
    """Of each of 50 items one person prefers one reply and one the other: the clusters' gradients are all zero."""
    even = [Comparison("a", "b", result, number) for number in range(50) for result in (1.0, 0.0)]
    [lead] = bradley_terry(even).leads
    assert (lead.value, lead.high) == pytest.approx((0, 1.959964 * math.sqrt(1 / 50 + 1 / 50)))


def test_two_halves_count_as_one() -> None:
    halves = [Comparison("a", "b", one.result, one.cluster, 0.5) for one in of_two(20, 10, 3) for _ in range(2)]
    found, whole = bradley_terry(halves), bradley_terry(of_two(20, 10, 3))
    assert [(one.name, one.wins, one.comparisons) for one in found.players] == [("a", 21.5, 33), ("b", 11.5, 33)]
    assert [one.high for one in found.leads] == pytest.approx([one.high for one in whole.leads])


def test_votes_on_the_same_replies_do_not_count_as_many() -> None:
    alone = bradley_terry(of_two(20, 10)).leads[0]
    copied = [Comparison("a", "b", one.result, one.cluster) for one in of_two(20, 10) for _ in range(4)]
    together = bradley_terry(copied).leads[0]
    assert (together.low, together.high) == pytest.approx((alone.low, alone.high))


@pytest.mark.parametrize(
    ("comparisons", "said"),
    [
        ([], "no two models"),
        (of_two(3, 0), "a was never beaten by the other 1"),
        (of_two(0, 3), "b was never beaten"),
        (
            [*of_two(1, 1), *[Comparison("c", "d", result, 0) for result in (0.0, 1.0)]],
            "were never beaten by the other 2",
        ),
        ([*of_two(1, 1), Comparison("c", "a", 1.0, 0)], "c was never beaten by the other 2"),
    ],
)
def test_scores_without_a_bound_are_told(comparisons: list[Comparison], said: str) -> None:
    found = bradley_terry(comparisons)
    assert said in found.why
    assert (found.players, found.leads) == ((), ())


def test_known_strengths_are_found_and_lie_in_the_intervals_as_often_as_they_say() -> None:
    truth = {"a": 1.0, "b": 0.2, "c": -0.3, "d": -0.9}
    random = np.random.default_rng(1)
    held = total = 0
    for _ in range(40):
        comparisons = []
        for number in range(300):
            one, other = random.choice(list(truth), 2, replace=False).tolist()
            won = random.random() < expected(truth[one] - truth[other])
            comparisons.append(Comparison(one, other, float(won), number))
        found = bradley_terry(comparisons)
        for player in found.players:
            held += player.low <= truth[player.name] <= player.high
            total += 1
        for lead in found.leads:
            assert abs(lead.value - (truth[lead.one] - truth[lead.other])) < 1
    assert 0.9 <= held / total <= 0.99


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc"), st.sampled_from([0.0, 0.5, 1.0])), min_size=6)
)
def test_at_the_scores_each_wins_as_often_as_expected(played: list[tuple[str, str, float]]) -> None:
    """The gradient of the likelihood is zero there."""
    comparisons = [Comparison(*one, number) for number, one in enumerate(played) if one[0] != one[1]]
    found = bradley_terry(comparisons)
    scores = {one.name: one.score for one in found.players}
    for player in found.players:
        hoped = sum(
            expected(scores[one.one] - scores[one.other])
            if one.one == player.name
            else expected(scores[one.other] - scores[one.one])
            for one in comparisons
            if player.name in (one.one, one.other)
        )
        assert player.wins == pytest.approx(hoped, abs=1e-5)


def test_the_order_of_the_two_says_nothing() -> None:
    turned = [Comparison(one.other, one.one, 1 - one.result, one.cluster) for one in of_two(7, 3, 2)]
    assert bradley_terry(turned) == bradley_terry(of_two(7, 3, 2))
