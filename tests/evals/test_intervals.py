"""The interval against published values."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evals.intervals import wilson


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


def test_the_usual_confidence_is_95_percent() -> None:
    assert wilson(81, 263) == wilson(81, 263, 0.95)
