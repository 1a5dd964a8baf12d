"""The interval against published values, and the decision on both sides of the threshold."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.settings.training import Gate
from training.gate import decide, wilson


def test_wilson_known_values() -> None:
    # Newcombe 1998 (Statistics in Medicine 17), table I: 81 of 263 and 0 of 20, 95 %.
    assert wilson(81, 263, 0.95) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0, 20, 0.95) == pytest.approx((0.0, 0.1611), abs=5e-5)
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


def test_gate_judges_the_lower_end_and_not_the_accuracy() -> None:
    # 60 of 100: accuracy 0.60, interval 0.502 to 0.691.
    closed = decide(60, 100, Gate(min_accuracy=0.55))
    assert (closed.open, closed.accuracy, closed.threshold) == (False, 0.6, 0.55)
    assert closed.low == pytest.approx(0.5020, abs=5e-5)
    # The same share of ten times the pairs: 0.569 to 0.630.
    assert decide(600, 1000, Gate(min_accuracy=0.55)).open
    assert decide(60, 100, Gate(min_accuracy=0.55, confidence=0.5)).open


def test_gate_stays_closed_without_pairs_and_opens_at_threshold_zero() -> None:
    assert not decide(0, 0, Gate()).open
    assert decide(0, 0, Gate(min_accuracy=0)).open
