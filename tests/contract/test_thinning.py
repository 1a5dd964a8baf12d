"""Curves with a bounded number of points: no spike is lost, ends stay exact, and files come back as they were."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.errors import DamagedError
from contract.metrics import Point
from contract.thinning import BUCKETS, CURVES, Curve, Thinner, dump_curves, load_curves, thin


def points(values: dict[int, float], name: str = "loss") -> list[Point]:
    return [Point(step, name, value, float(step)) for step, value in values.items()]


def test_a_short_curve_stays_as_it_is() -> None:
    values = {step: float(-step) for step in range(BUCKETS)}
    assert thin(points(values)) == {
        "loss": Curve(tuple(values), tuple(values.values()), tuple(float(step) for step in values))
    }


def test_a_spike_of_one_step_and_both_ends_survive_in_a_long_curve() -> None:
    random.seed(0)
    values = {step: random.random() for step in range(100_000)}
    values |= {0: 0.111, 54_321: 99.0, 77_777: -99.0, 99_999: 0.222}
    curve = thin(points(values))["loss"]
    kept = dict(zip(curve.steps, curve.values, strict=True))
    assert {kept[0], kept[54_321], kept[77_777], kept[99_999]} == {0.111, 99.0, -99.0, 0.222}
    assert all(values[step] == value for step, value in kept.items())
    assert BUCKETS < len(kept) <= 4 * BUCKETS
    assert list(curve.steps) == sorted(curve.steps)
    assert curve.times == tuple(map(float, curve.steps))
    gaps = [later - earlier for earlier, later in zip(curve.steps, curve.steps[1:], strict=False)]
    assert max(gaps) < 2 * 100_000 / (BUCKETS / 2), "every part of the curve is there"


@settings(max_examples=30)
@given(st.lists(st.floats(-10, 10), min_size=1, max_size=2000), st.integers(1, 1999))
def test_thinning_in_parts_is_thinning_at_once(values: list[float], cut: int) -> None:
    """So a file of thinned curves and the points after it make the curve that all points make."""
    every = points(dict(enumerate(values)))
    thinner = Thinner()
    thinner.add_curves(load_curves(dump_curves(thin(every[:cut]))))
    thinner.add(every[cut:])
    whole, parts = thin(every)["loss"], thinner.curves()["loss"]
    for ends in (min, max):
        assert ends(parts.values) == ends(whole.values) == ends(values)
    assert (parts.steps[0], parts.steps[-1]) == (0, len(values) - 1)
    assert len(parts.steps) <= 4 * BUCKETS


def test_numbers_of_rows_are_no_curve_and_too_many_curves_are_left_out() -> None:
    many = [Point(1, f"heldout_loss/{number}", 1.0, 0.0) for number in range(CURVES + 1)]
    assert list(thin([Point(1, "skipped_row web", 7.0, 0.0), *many])) == [one.name for one in many[:CURVES]]


def test_several_values_of_one_step_all_count() -> None:
    skipped = [Point(3, "skipped", 1.0, 5.0), Point(3, "skipped", 2.0, 5.0)]
    assert thin(skipped) == {"skipped": Curve((3, 3), (1.0, 2.0), (5.0, 5.0))}


@pytest.mark.parametrize(
    "data", [b"", b"[]", b'{"loss": 1}', b'{"loss": [[1], [2.0]]}', b'{"loss": [[1], [2.0], []]}', b"\xff"]
)
def test_what_is_no_file_of_curves_is_damage(data: bytes) -> None:
    with pytest.raises(DamagedError, match="these are no curves"):
        load_curves(data)


def test_no_points_make_no_curves() -> None:
    assert load_curves(dump_curves(thin([]))) == {}
