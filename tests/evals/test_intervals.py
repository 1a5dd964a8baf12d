"""The intervals against published values and against what they are in simple cases."""

import math
from statistics import stdev

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evals.intervals import design_effect, effective_number, ratio, t_quantile, t_within, trials_of, wilson


def test_wilson_known_values() -> None:
    # Newcombe 1998 (Statistics in Medicine 17), table I: 81 of 263 and 0 of 20, 95 %.
    assert wilson(81, 263, 0.95) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0, 20, 0.95) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert [wilson(0, total)[0] for total in (10, 40, 60)] == [0.0] * 3, "and no hair above it"
    assert [wilson(total, total)[1] for total in (10, 40, 60)] == [1.0] * 3
    assert wilson(0, 0, 0.95) == (0.0, 1.0)


@settings(deadline=None)
@given(st.integers(1, 500).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total))))
def test_interval_holds_the_share_and_narrows_with_more_trials(case: tuple[int, int]) -> None:
    correct, total = case
    low, high = wilson(correct, total, 0.95)
    assert 0 <= low <= correct / total + 1e-12
    assert correct / total - 1e-12 <= high <= 1
    more_low, more_high = wilson(correct * 4, total * 4, 0.95)
    assert more_high - more_low < high - low


def test_the_usual_confidence_is_95_percent() -> None:
    assert wilson(81, 263) == wilson(81, 263, 0.95)


def test_a_ratio_of_equal_weights_is_a_mean_with_its_interval_by_student() -> None:
    values = [0.8, 1.0, 1.5]
    half = 4.302653 * stdev(values) / math.sqrt(3)
    assert ratio([2 * one for one in values], [2.0] * 3) == pytest.approx((1.1 - half, 1.1 + half))
    low, high = ratio(values, [1.0] * 3, 0.5)
    assert (low + high) / 2 == pytest.approx(1.1)
    assert high - low < half


def test_items_that_all_have_the_ratio_leave_no_doubt_however_their_weights_differ() -> None:
    assert ratio([1.0, 2.0, 6.0], [2.0, 4.0, 12.0]) == pytest.approx((0.5, 0.5))


def test_of_one_item_nothing_is_known() -> None:
    assert ratio([1.0], [2.0]) == ratio([1.0, 2.0], [0.0, 0.0]) == (-math.inf, math.inf)


def test_trials_of_one_cluster_count_by_their_design_effect() -> None:
    scores = [1.0, 0.0, 1.0, 1.0, 0.0, 1.0]
    assert effective_number(scores, range(6)) == pytest.approx(6), "each alone: Wilson's own interval"
    thrice = [one for one in scores for _ in range(3)]
    assert effective_number(thrice, [at // 3 for at in range(18)]) == pytest.approx(6), "copies say nothing new"
    # By hand: the mean is 0.5; the clusters' sums of (score - mean) are 1, 0 and -1, so the design effect is 2 / 1.5.
    assert effective_number([1, 1, 1, 0, 0, 0], "aabbcc") == pytest.approx(4.5)
    assert effective_number([1, 0, 1, 0], "aabb") == 4, "never more than there are"


@pytest.mark.parametrize(
    ("survived", "litters", "design_effect"),
    [
        ([13, 12, 9, 9, 8, 8, 12, 11, 9, 9, 8, 11, 4, 5, 7, 7], [13, 12, 9, 9, 8, 8, 13, 12, 10, 10, 9, 13, 5, 7, 10, 10], 1.232495),
        ([12, 11, 10, 9, 10, 9, 9, 8, 8, 4, 7, 4, 5, 3, 3, 0], [12, 11, 10, 9, 11, 10, 10, 9, 9, 5, 9, 7, 10, 6, 10, 7], 3.952861),
    ],
    ids=["control", "treated"],
)  # fmt: skip
def test_the_litters_of_weil_have_the_design_effects_of_rao_and_scott(
    survived: list[int], litters: list[int], design_effect: float
) -> None:
    """Their table 1, as the R package PF gives it: rsb(rat$y, rat$n, id = rat$group)$d. It has the factor 16 / 15."""
    scores = [float(pup < alive) for alive, size in zip(survived, litters, strict=True) for pup in range(size)]
    clusters = [litter for litter, size in enumerate(litters) for _ in range(size)]
    assert len(scores) / effective_number(scores, clusters) * 16 / 15 == pytest.approx(design_effect, abs=5e-7)


def test_if_all_scores_are_equal_a_cluster_counts_as_one_trial() -> None:
    assert effective_number([1.0] * 6, [0, 0, 1, 1, 2, 2]) == 3
    assert effective_number([1.0] * 4, [0, 0, 0, 0]) == 1
    assert effective_number([], []) == 0


def test_what_few_clusters_leave_open_widens_the_interval() -> None:
    """By hand: three clusters of forty trials with 24, 20 and 16 right; the mean is 0.5."""
    scores = [float(at < right) for right in (24, 20, 16) for at in range(40)]
    clusters = [at // 40 for at in range(120)]
    assert design_effect(scores, clusters) == pytest.approx((16 + 16) / (120 / 4))
    assert trials_of(scores, clusters) == pytest.approx(120 / (16 / 15 * 3 / 2) * (1.959964 / 4.302653) ** 2, 1e-5)
    assert trials_of(scores, clusters, 0.5) == pytest.approx(75 * (0.674490 / 0.816497) ** 2, 1e-5)
    assert trials_of(scores, range(120)) == 120, "each alone: Wilson's own interval"
    assert trials_of([1, 1, 0, 0, 1, 1], "aabbcc") == 3, "each cluster all alike: never less than one trial each"
    assert trials_of([1.0] * 6, "aabbcc") == 3
    assert trials_of([1.0, 0.0], "aa") == 1


@pytest.mark.parametrize("sources", [3, 5, 10, 40])
@pytest.mark.parametrize("kind", ["shares", "means"])
def test_the_interval_holds_the_truth_as_often_as_it_says(sources: int, kind: str) -> None:
    """Sources that differ with a standard deviation of 0.15, thirty items each: near 95 % of 600 draws at least.

    The normal interval without m / (m - 1) had it in 83 %, 88 %, 92 % and 94 %.
    """
    draw, held = np.random.default_rng(12), 0
    for _ in range(600):
        of_each = draw.beta(5.8, 5.8 * 2 / 3, sources)  # mean 0.6, standard deviation 0.15
        right = (draw.random((2, sources, 30)) < of_each[:, None]).astype(float)
        scores = right[0] if kind == "shares" else right.mean(0)
        low, high = _interval(scores.ravel().tolist(), np.repeat(np.arange(sources), 30).tolist(), kind)
        held += low <= 0.6 <= high
    assert held / 600 >= 0.925, "two standard errors of 600 draws below 95 %"
    assert held / 600 <= (1.0 if sources == 3 else 0.985)


def _interval(scores: list[float], clusters: list[int], kind: str) -> tuple[float, float]:
    if kind == "shares":
        number = trials_of(scores, clusters)
        return wilson(sum(scores) / len(scores) * number, number)
    sums = np.bincount(clusters, weights=scores)
    return ratio([*sums], [30.0] * len(sums))


@pytest.mark.parametrize(
    ("degrees", "quantile"), [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (5, 2.5706), (10, 2.2281), (30, 2.0423), (120, 1.97993)]
)  # fmt: skip
def test_quantiles_are_those_of_the_tables(degrees: int, quantile: float) -> None:
    assert t_quantile(0.95, degrees) == pytest.approx(quantile, abs=1e-4)
    assert t_within(quantile, degrees) == pytest.approx(0.95, abs=1e-5)


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999, 1 - 1e-6])
def test_the_quantiles_of_many_degrees_leave_out_what_they_should(confidence: float) -> None:
    for degrees in (30, 31, 400):
        left_out = 1 - t_within(t_quantile(confidence, degrees), degrees)
        assert left_out == pytest.approx(1 - confidence, rel=0.01)
    assert t_quantile(confidence, 31) < t_quantile(confidence, 30)
