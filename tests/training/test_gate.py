"""The decision on both sides of the thresholds."""

from typing import Any

import pytest

from contract import results
from contract.settings.training import Gate
from training.gate import decide


def measured(correct: float, total: int, effective: float | None, **more: Any) -> results.Reward:
    return results.Reward(
        pairs=1,
        accuracy=0,
        accuracy_low=0,
        accuracy_high=0,
        heldout_correct=correct,
        heldout_pairs=total,
        heldout_effective=effective,
        heldout_loss=0,
        ece=0,
        reward_mean=0,
        reward_std=1,
        **more,
    )


def test_gate_judges_the_lower_end_and_not_the_accuracy() -> None:
    # 60 of 100: accuracy 0.60, interval 0.502 to 0.691.
    closed = decide(measured(60, 100, 100), Gate(min_accuracy=0.55))
    assert (closed.open, closed.accuracy, closed.threshold) == (False, 0.6, 0.55)
    assert closed.low == pytest.approx(0.5020, abs=5e-5)
    assert closed.why_closed == "0.502 is under gate.min_accuracy 0.55"
    # The same share of ten times the pairs: 0.569 to 0.630.
    assert decide(measured(600, 1000, None), Gate(min_accuracy=0.55)).open
    assert decide(measured(60, 100, 100), Gate(min_accuracy=0.55, confidence=0.5)).open


def test_gate_stays_closed_without_pairs_and_opens_at_threshold_zero() -> None:
    assert not decide(measured(0, 0, 0), Gate()).open
    opened = decide(measured(0, 0, 0), Gate(min_accuracy=0))
    assert (opened.open, opened.why_closed) == (True, "")
    assert (opened.shorter_accuracy, opened.shorter_low) == (None, None)


def test_pairs_that_share_prompts_count_as_fewer() -> None:
    # 600 of 1000 pairs that say as much as 100: the accuracy stays, and the interval is that of 60 of 100.
    found = decide(measured(600, 1000, 100), Gate(min_accuracy=0.55))
    assert (found.open, found.accuracy) == (False, 0.6)
    assert found.low == pytest.approx(0.5020, abs=5e-5)


def test_a_model_that_only_likes_length_is_stopped_if_the_recipe_says_so() -> None:
    # Of 100 pairs whose better reply is shorter, 60 are ranked right: 0.502 at the lower end.
    long = measured(900, 1000, None, shorter_accuracy=0.6, shorter_pairs=100, shorter_effective=100.0)
    unasked = decide(long, Gate())
    assert (unasked.open, unasked.shorter_accuracy, unasked.shorter_threshold) == (True, 0.6, None)
    assert (unasked.shorter_low, unasked.shorter_high) == pytest.approx((0.5020, 0.6906), abs=5e-5)
    assert decide(long, Gate(min_shorter_accuracy=0.5)).open
    closed = decide(long, Gate(min_shorter_accuracy=0.51))
    assert not closed.open
    assert closed.why_closed == (
        "0.502 of the pairs whose better reply is shorter is under gate.min_shorter_accuracy 0.51"
    )
    assert not decide(measured(900, 1000, None), Gate(min_shorter_accuracy=0.1)).open, "no such pair proves nothing"
