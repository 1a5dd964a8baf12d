"""The decision on both sides of the threshold."""

import pytest

from contract.settings.training import Gate
from training.gate import decide


def test_gate_judges_the_lower_end_and_not_the_accuracy() -> None:
    # 60 of 100: accuracy 0.60, interval 0.502 to 0.691.
    closed = decide(60, 100, 100, Gate(min_accuracy=0.55))
    assert (closed.open, closed.accuracy, closed.threshold) == (False, 0.6, 0.55)
    assert closed.low == pytest.approx(0.5020, abs=5e-5)
    # The same share of ten times the pairs: 0.569 to 0.630.
    assert decide(600, 1000, 1000, Gate(min_accuracy=0.55)).open
    assert decide(60, 100, 100, Gate(min_accuracy=0.55, confidence=0.5)).open


def test_gate_stays_closed_without_pairs_and_opens_at_threshold_zero() -> None:
    assert not decide(0, 0, 0, Gate()).open
    assert decide(0, 0, 0, Gate(min_accuracy=0)).open


def test_pairs_that_share_prompts_count_as_fewer() -> None:
    # 600 of 1000 pairs that say as much as 100: the accuracy stays, and the interval is that of 60 of 100.
    found = decide(600, 1000, 100, Gate(min_accuracy=0.55))
    assert (found.open, found.accuracy) == (False, 0.6)
    assert found.low == pytest.approx(0.5020, abs=5e-5)
