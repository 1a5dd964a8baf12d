"""What ballots show, against closed forms and by simulation."""

from statistics import fmean

import numpy as np
import pytest

from evals.judge import Ballot, Choice, Pair, judge_pairs
from evals.preference import (
    by_group,
    fit,
    length_controlled,
    position_bias,
    self_preference,
    sigmoid,
    win_rate,
)  # fmt: skip
from perf.evaluate.judging import (
    always_first,
    binary_kappa,
    fair,
    kappa_off,
    likes_length,
    pairs,
    symmetric_kappa,
)


def ballots(*votes: tuple[Choice, Choice], category: str = "") -> list[Ballot]:
    return [Ballot(Pair(str(at), f"p{at}", "o", "t", category), *one) for at, one in enumerate(votes)]


def test_an_always_first_judge_comes_out_even_and_is_exposed() -> None:
    found = judge_pairs(pairs(1), always_first).ballots
    assert win_rate(found).mean == 0.5
    bias = position_bias(found)
    assert (bias.first, bias.consistent, bias.biased) == (1, 0, True)


def test_a_fair_judge_has_no_bias_and_the_win_rate_of_its_closed_form() -> None:
    found = [judge_pairs(pairs(seed, better=0.7), fair(seed), workers=1).ballots for seed in range(8)]
    assert fmean(win_rate(one).mean for one in found) == pytest.approx(0.7 * 0.8 + 0.3 * 0.2, abs=0.02)
    assert not position_bias(found[0]).biased


@pytest.mark.parametrize("seed", range(3))
def test_a_judge_that_likes_length_is_exposed_and_a_fair_one_is_not(seed: int) -> None:
    long = length_controlled(judge_pairs(pairs(seed, longer=0.8), likes_length(seed), workers=1).ballots)
    assert long.likes_length
    assert long.low <= 0.5 <= long.high < long.raw
    just = length_controlled(judge_pairs(pairs(seed, longer=0.8, better=0.7), fair(seed), workers=1).ballots)
    assert not just.likes_length
    assert just.low < 0.62 < just.high
    assert just.controlled == pytest.approx(just.raw, abs=0.04)


def test_the_interval_at_equal_length_has_both_its_ends() -> None:
    found = judge_pairs(pairs(1, longer=0.8), fair(1), workers=1).ballots
    half, nearly_all = length_controlled(found, 0.5), length_controlled(found, 0.95)
    for made in (half, nearly_all):
        assert made.controlled - made.low == pytest.approx(made.high - made.controlled, rel=0.3)
        assert made.liking - made.liking_low == pytest.approx(made.liking_high - made.liking, rel=0.3)
    ratio = (nearly_all.high - nearly_all.low) / (half.high - half.low)
    assert ratio == pytest.approx(1.960 / 0.674, rel=0.15)


def test_without_differences_in_length_nothing_is_controlled() -> None:
    made = length_controlled(
        ballots(("first", "second"), ("second", "first"), ("first", "second"), ("first", "second"))
    )
    assert made.controlled == pytest.approx(made.raw, abs=0.005)
    assert made.liking == 0
    with pytest.raises(ValueError, match="without ballots"):
        length_controlled([])


def test_the_fit_is_the_logistic_regression_of_shares() -> None:
    term = np.linspace(-1, 1, 201)
    shares = 1 / (1 + np.exp(-(0.3 + 1.7 * term)))
    assert fit(np.tile(term, 200), np.tile(shares, 200)) == pytest.approx((0.3, 1.7), abs=1e-4)
    assert fit(term, shares, np.full(201, 200.0)) == pytest.approx((0.3, 1.7), abs=1e-4)
    intercept, slope = fit(np.array([-1.0, 1.0]), np.array([0.0, 1.0]))
    assert (intercept, 3 < slope < 10) == (pytest.approx(0), True), "finite where length decides everything"
    assert (sigmoid(0), sigmoid(800), sigmoid(-800)) == (0.5, 1, 0)


def test_places_are_counted_over_decided_verdicts() -> None:
    bias = position_bias(ballots(("first", "first"), ("tie", "second"), ("first", "second"), ("tie", "tie")))
    assert (bias.first, bias.consistent) == (3 / 5, 2 / 4)
    assert not bias.biased
    nothing = position_bias(ballots(("tie", "tie")))
    assert (nothing.first, nothing.low, nothing.high) == (0.5, 0, 1)


def test_groups_have_ballots_of_their_own() -> None:
    some = ballots(("first", "second"), category="code") + ballots(("second", "first"), ("tie", "tie"), category="art")
    found = by_group(some, lambda one: one.pair.category)
    assert {name: win_rate(of).mean for name, of in found.items()} == {"art": 0.25, "code": 1}


def test_kappa_of_noisy_judges_is_its_closed_form() -> None:
    assert symmetric_kappa((1.0, 1.0), 3) == 1
    assert symmetric_kappa((1 / 3, 1.0), 3) == pytest.approx(0)
    assert binary_kappa((0.9, 0.9), 0.5) == pytest.approx(0.64)
    assert kappa_off(40_000) <= 0.02


def test_a_judge_that_likes_its_own_family_is_found() -> None:
    random = np.random.default_rng(2)
    human = {str(at): float(random.random() < 0.5) for at in range(200)}
    own = [
        Ballot(
            Pair(name, name, "o", "t"),
            *(("first", "second") if score or random.random() < 0.3 else ("second", "first")),
        )
        for name, score in human.items()
    ]
    found = self_preference(own, human)
    assert found.found
    assert found.low < 0.15 < found.high, "of the half that people do not prefer it takes three tenths"
    fair_judge = [
        Ballot(Pair(name, name, "o", "t"), *(("first", "second") if score else ("second", "first")))
        for name, score in human.items()
    ]
    assert not self_preference(fair_judge, human).found
    assert self_preference(own, {name: human[name] for name in [*human][:50]}).n == 50
    with pytest.raises(ValueError, match="fewer than two"):
        self_preference(own, {"0": 1.0})
