"""Verdicts on variants: known answers, and how often chance alone is taken for a difference."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals import ablation
from evals.ablation import Estimate, Measure, decide, estimate, holm


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.5]) == [1.0, 1.0]
    assert holm([]) == []


def measure(values: dict[str, dict[int, list[float]]], weights: list[float], lower: bool = True) -> Measure:
    return Measure("loss", values, weights, lower)


def test_a_paired_difference_by_hand() -> None:
    """Two seeds, whose differences of the ratios are 0.5 and 0.7; two documents of 2 and 8 bytes."""
    a = {0: [2.0, 4.0], 1: [3.0, 6.0]}
    b = {0: [1.0, 0.0], 1: [1.0, 1.0]}
    found = estimate(measure({"a": a, "b": b}, [2.0, 8.0]), "a", "b")
    assert found.mean == pytest.approx(0.6)
    assert found.per_seed == pytest.approx(0.02)
    assert (found.seeds, found.degrees) == (2, 1)
    gaps, ratio = [1.5, 4.5], 0.6
    squares = sum((gap - ratio * size) ** 2 for gap, size in zip(gaps, [2, 8], strict=True))
    assert found.by_items == pytest.approx(2 * squares / 100)
    assert found.half_width(0.95) == pytest.approx(12.7062 * math.sqrt(0.01 + 2 * squares / 100), rel=1e-4)


def test_unshared_seeds_are_not_paired() -> None:
    values = {"a": {0: [1.0, 1.0], 1: [3.0, 3.0]}, "b": {5: [2.0, 2.0], 6: [4.0, 4.0], 7: [6.0, 6.0]}}
    found = estimate(measure(values, [1.0, 1.0]), "a", "b")
    assert found.mean == pytest.approx(2 - 4)
    assert found.per_seed is not None
    assert found.per_seed / found.seeds == pytest.approx(2 / 2 + 4 / 3)
    assert (found.seeds, found.degrees) == (2, 1)


def test_what_a_pair_shares_cancels_where_it_is_paired() -> None:
    """The seeds differ by 1, the variants by 0.1 in each."""
    jitter = {0: 0.0, 1: 0.001, 2: -0.001}
    values = {
        name: {seed: [seed + shift + jitter[seed] * shift * 10, seed + shift] for seed in range(3)}
        for name, shift in (("a", 0.0), ("b", 0.1))
    }
    (verdict,) = decide([measure(values, [1.0, 1.0])], 0.95)
    assert verdict.better == "a"
    assert verdict.said == "a is better"
    assert verdict.interval[0] < verdict.estimate.mean < verdict.interval[1] < 0


def test_higher_can_be_better() -> None:
    values = {"a": {seed: [1.0, 1.0, 0.0] for seed in range(3)}, "b": {seed: [0.0, 0.0, 0.0] for seed in range(3)}}
    values["a"][0] = [1.0, 1.0, 1.0]
    lower, higher = (decide([measure(values, [1.0] * 3, lower)], 0.5)[0].better for lower in (True, False))
    assert (lower, higher) == ("b", "a")


def test_one_seed_or_one_item_tells_nothing_however_far_apart() -> None:
    seed = decide([measure({"a": {0: [0.0, 0.0]}, "b": {0: [9.0, 9.1]}}, [1.0, 1.0])], 0.95)[0]
    item = decide([measure({"a": {0: [0.0], 1: [0.1]}, "b": {0: [9.0], 1: [9.2]}}, [1.0])], 0.95)[0]
    assert (seed.better, seed.p, seed.said) == (None, 1, "no difference can be told with fewer than two seeds")
    assert (item.better, item.p, item.said) == (None, 1, "no difference can be told with fewer than two items")


@given(st.floats(-2, 2), st.integers(2, 9), st.floats(1e-6, 1), st.floats(1e-6, 1))
def test_p_is_where_the_interval_begins_to_hold_0(mean: float, seeds: int, per_seed: float, by_items: float) -> None:
    found = Estimate(mean, seeds, per_seed, seeds - 1, by_items, seeds)
    p = found.p()
    if 1e-6 < p < 0.999:  # nearer to 1, p has too few digits left to compute its interval from
        assert found.half_width(1 - p) == pytest.approx(abs(mean), rel=1e-3)
    assert ablation.SMALLEST_P <= p <= 1


def test_more_seeds_are_those_that_would_show_what_was_seen() -> None:
    found = Estimate(0.1, 3, 0.01, 2, 1e-6, 59)
    more = found.more_seeds(0.95)
    assert found.shown_by(0.95, more) <= 0.1 < found.shown_by(0.95, more - 1)
    assert 5 < more < 20
    hopeless = Estimate(1e-6, 3, 0.01, 2, 1e-6, 59)
    assert hopeless.more_seeds(0.95) == 3
    assert hopeless.shown_by(0.95, 3) < hopeless.shown_by(0.95)
    equal = {"a": {0: [1.0, 2.0], 1: [1.1, 2.0]}, "b": {0: [1.1, 2.0], 1: [1.0, 2.1]}}
    said = decide([measure(equal, [1.0, 1.0])], 0.95)[0].said
    assert said.startswith("no difference can be told; ")
    assert " more seeds would show a difference of 0." in said


def simulated(
    rng: random.Random, seeds: int, between_seeds: float, between_items: float, shifts: list[float], items: int = 60
) -> Measure:
    """Variants whose models differ by seed and by document; each variant is off by its shift."""
    common = [rng.gauss(1, 0.3) for _ in range(items)]
    values = {}
    for variant, shift in enumerate(shifts):
        own = [rng.gauss(0, between_items) for _ in common]
        values[f"v{variant}"] = {}
        for seed in range(seeds):
            off = shift + rng.gauss(0, between_seeds)
            values[f"v{variant}"][seed] = [one + mine + off for one, mine in zip(common, own, strict=True)]
    return measure(values, [1.0] * len(common))


@pytest.mark.parametrize(
    ("seeds", "between_seeds", "between_items", "variants", "items"),
    [
        (2, 0.01, 0.05, 2, 60),
        (3, 0.01, 0.02, 2, 60),
        (5, 0.01, 0.1, 2, 60),
        (4, 0.001, 0.1, 2, 60),
        (3, 0.01, 0.05, 4, 60),
        (3, 0.01, 0.1, 2, 3),
        (5, 0.001, 0.1, 2, 2),
    ],
)
def test_equal_variants_are_seldom_told_apart(
    seeds: int, between_seeds: float, between_items: float, variants: int, items: int
) -> None:
    """At 95 % confidence one ablation in twenty, however many variants; of 150, 13 or more are less likely than 4 in 100."""
    rng, level = random.Random(7), [0.0] * variants
    wrong = sum(
        any(one.better for one in decide([simulated(rng, seeds, between_seeds, between_items, level, items)], 0.95))
        for _ in range(150)
    )
    assert wrong <= 12


def test_a_clear_difference_is_found() -> None:
    rng = random.Random(1)
    verdicts = [decide([simulated(rng, 3, 0.01, 0.05, [0.0, 0.1])], 0.95)[0] for _ in range(40)]
    assert sum(one.better == "v0" for one in verdicts) >= 38
    assert not any(one.better == "v1" for one in verdicts)


def test_the_best_is_better_than_every_other() -> None:
    rng = random.Random(2)
    clear = decide([simulated(rng, 3, 0.005, 0.02, [0.3, 0.0, 0.6])], 0.95)
    assert ablation.best(clear) == "v1"
    level = decide([simulated(rng, 3, 0.005, 0.02, [0.3, 0.0, 0.0])], 0.95)
    assert ablation.best(level) is None
    assert {one.better for one in level if "v0" in (one.first, one.second)} == {"v1", "v2"}


def test_documents_count_by_their_bytes() -> None:
    values = {"a": {0: [1.0, 100.0]}, "b": {0: [2.0, 100.0]}}
    found = measure(values, [1.0, 99.0])
    assert found.figures("a") == [pytest.approx(1.01)]
    assert estimate(found, "a", "b").mean == pytest.approx(-0.01)


def test_equal_figures_ask_for_no_more_seeds() -> None:
    one = {0: [1.0, 0.0, 1.0], 1: [1.0, 0.0, 1.0]}
    (verdict,) = decide([measure({"a": one, "b": one}, [1.0] * 3)], 0.95)
    assert (verdict.better, verdict.said) == (None, "no difference: both have the same figures throughout")
