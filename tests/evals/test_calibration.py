"""The calibration error, computed by hand."""

import math

import pytest

from evals.calibration import Bin, calibration_error, reliability


def test_calibration_error_by_hand() -> None:
    # sigmoid(log 3) = 0.75: three right of four is perfect, one of four is off by a half.
    margin = math.log(3)
    assert calibration_error([margin, margin, margin, -margin]) == pytest.approx(0.0)
    assert calibration_error([margin, -margin, -margin, -margin]) == pytest.approx(0.5)
    # Two bins: 2 rows off by 0.25 (certainty 0.75, all right), 2 ties of certainty 0.5 that count half right.
    assert calibration_error([margin, margin, 0.0, 0.0]) == pytest.approx(0.125)
    assert calibration_error([100.0]) == pytest.approx(0.0)
    assert calibration_error([]) == 0.0
    # In the two bins of [0.5, 0.75) and [0.75, 1]: 0.6 sure and wrong, 0.7 sure and right; 0.9 sure and wrong.
    sure = [math.log(one / (1 - one)) for one in (0.6, 0.7, 0.9)]
    found = calibration_error([-sure[0], sure[1], -sure[2]], bins=2)
    assert found == pytest.approx((abs(0.6 + 0.7 - 1) + 0.9) / 3)
    # Ten bins part 0.54 from 0.56: right and wrong do not cancel out. In one bin they do.
    near = [math.log(0.54 / 0.46), -math.log(0.56 / 0.44)]
    assert calibration_error(near) == pytest.approx((0.46 + 0.56) / 2)
    assert calibration_error(near, bins=1) == pytest.approx(0.1 / 2)


def test_a_huge_margin_is_certainty() -> None:
    assert calibration_error([1e6]) == 0.0
    assert calibration_error([-1e6]) == 1.0


def test_a_diverged_model_has_no_calibration() -> None:
    assert math.isnan(calibration_error([1.0, math.nan]))
    assert calibration_error([math.inf, -math.inf]) == 0.5, "quite sure, and right in one of two"


def test_bins_of_reliability_by_hand() -> None:
    sure = [math.log(one / (1 - one)) for one in (0.6, 0.7, 0.9)]
    low, high = reliability([-sure[0], sure[1], 0.0, sure[2]], bins=2)
    assert (low.low, low.high, low.pairs) == (0.5, 0.75, 3)
    assert (low.confidence, low.right) == pytest.approx((1.8 / 3, 1.5 / 3))
    assert high == Bin(0.75, 1.0, 1, pytest.approx(0.9), 1.0)
    assert reliability([]) == []
    assert reliability([1e6]) == [Bin(pytest.approx(0.95), 1.0, 1, 1.0, 1.0)], "empty bins are left out"
