"""Figures of a reward model, against counts by hand."""

import math

import pytest

from evals.calibration import calibration_error
from evals.intervals import wilson
from evals.rewards import (
    OTHERS,
    TASKS,
    Comparison,
    Judged,
    accuracy,
    by_task,
    comparisons,
    histograms,
    ranking_figures,
    regression_figures,
)


def pair(better: float, worse: float, prompt: str, shorter: bool = False) -> Judged:
    return Judged(((0, 1),), (better, worse), (3, 9) if shorter else (9, 3), prompt)


def test_every_pair_of_a_ranking_is_compared_and_its_best_replies_are_preferred() -> None:
    four = Judged(((3, 0), (3, 1), (0, 1), (2, 1)), (0.4, 0.3, 0.2, 0.1), (1, 2, 3, 4), "p", "t")
    assert four.preferred == [0.1, 0.2], "to the fourth and the third people prefer no other"
    found = {round(one.margin, 9): one.shorter for one in comparisons([four])}
    assert found == {-0.3: False, -0.2: False, 0.1: True, -0.1: False}
    assert {(one.prompt, one.task) for one in comparisons([four])} == {("p", "t")}


def test_measured_figures() -> None:
    seen = [pair(1.0, 0.0, "a"), pair(2.0, 0.0, "b"), pair(3.0, 4.0, "c"), pair(0.0, 0.0, "d")]
    found = ranking_figures(seen)
    assert (found["accuracy"], found["heldout_correct"], found["heldout_pairs"]) == (0.625, 2.5, 4)
    assert (found["heldout_prompts"], found["heldout_effective"]) == (4, pytest.approx(4))
    assert (found["reward_mean"], found["reward_std"]) == pytest.approx((1.5, math.sqrt(1.25)))
    losses = [math.log1p(math.exp(-margin)) for margin in (1, 2, -1, 0)]
    assert found["heldout_loss"] == pytest.approx(sum(losses) / 4)
    assert (found["accuracy_low"], found["accuracy_high"]) == pytest.approx(wilson(2.5, 4, 0.95))
    assert found["ece"] == pytest.approx(calibration_error([1.0, 2.0, -1.0, 0.0]))
    assert found["tasks"] == {}
    twice = ranking_figures(seen * 2)
    assert twice["heldout_prompts"] == 4
    assert twice["heldout_effective"] == pytest.approx(4), "a prompt that is asked twice says nothing new"
    assert (twice["accuracy_low"], twice["accuracy_high"]) == pytest.approx(wilson(2.5, 4, 0.95))


def test_the_loss_of_a_hopeless_margin_is_that_margin() -> None:
    assert ranking_figures([pair(0.0, 2000.0, "a")])["heldout_loss"] == 2000.0


def test_accuracy_where_the_shorter_reply_is_better_shows_a_taste_for_length() -> None:
    longs = [pair(1.0, 0.0, f"l{one}") for one in range(6)]
    shorts = [pair(0.0, 1.0, f"s{one}", shorter=True) for one in range(3)] + [pair(2.0, 1.0, "t", shorter=True)]
    found = ranking_figures(longs + shorts)
    assert found["accuracy"] == 0.7
    assert (found["shorter_accuracy"], found["shorter_pairs"], found["shorter_effective"]) == (
        0.25,
        4,
        pytest.approx(4),
    )
    assert (found["shorter_accuracy_low"], found["shorter_accuracy_high"]) == pytest.approx(wilson(1, 4, 0.95))
    assert ranking_figures(longs)["shorter_accuracy"] is None
    assert accuracy([]).low is None


def test_tasks_stand_apart_the_largest_first_and_small_ones_together() -> None:
    named = [Comparison(1.0, False, one, "b") for one in range(2)] + [Comparison(-1.0, False, 9, "a")]
    found = by_task(named)
    assert list(found) == ["b", "a"]
    assert (found["b"]["pairs"], found["b"]["accuracy"], found["a"]["accuracy"]) == (2, 1.0, 0.0)
    assert 0 < found["b"]["low"] < 1
    assert found["b"]["high"] == pytest.approx(1.0)
    assert by_task(named[:2]) == by_task([Comparison(1.0, False, 1)]) == {}
    assert list(by_task([*named[:2], *[Comparison(1.0, False, 1)] * 3])) == ["b", OTHERS]
    many = by_task([Comparison(1.0, False, one, str(one)) for one in range(TASKS + 5)])
    assert (len(many), many[OTHERS]["pairs"]) == (TASKS + 1, 5)


def test_rewards_as_scores() -> None:
    given = [(5.0, 4.0), (1.0, 2.0), (None, 90.0), (3.0, 3.0), (3.0, 3.0)]
    assert regression_figures(given) == {"heldout_mse": 0.5, "heldout_correlation": pytest.approx(1.0)}
    assert regression_figures([(1.0, 2.0), (2.0, 1.0)])["heldout_correlation"] == pytest.approx(-1.0)
    assert regression_figures(given[2:3]) == {"heldout_mse": None, "heldout_correlation": None}
    assert regression_figures(given[3:])["heldout_correlation"] is None


def test_histograms_count_every_reward_once() -> None:
    found = histograms([0.0, 0.9, 1.0], [0.5, 0.24], bins=4)
    assert found == {"edges": [0.0, 0.25, 0.5, 0.75, 1.0], "better": [1, 0, 0, 2], "worse": [1, 0, 1, 0]}
    assert sum(histograms([2.0, 2.0], [2.0])["better"]) == 2
    assert histograms([], []) == {"edges": [], "better": [], "worse": []}
