"""Which documents are held out: a fraction of any ids, the same ones always, and those and more for a larger fraction."""

import numpy as np
import pytest

from pipelines.spark.heldout import contains, heldout, is_heldout

KEYS = [f"{number:032x}" for number in range(10_000)]


@pytest.mark.parametrize("fraction", [0.0, 0.005, 0.1, 0.9])
def test_fraction(fraction: float) -> None:
    assert heldout(fraction, KEYS).mean() == pytest.approx(fraction, abs=4 * np.sqrt(fraction / len(KEYS)))


def test_raising_the_fraction_only_adds() -> None:
    assert (heldout(0.1, KEYS) <= heldout(0.2, KEYS)).all()


def test_contains() -> None:
    ordered = np.array([0, 3, 2**64 - 1], np.uint64)
    assert [contains(ordered, value) for value in (0, 1, 3, 4, 2**64 - 1)] == [True, False, True, False, True]
    assert not contains(ordered[:0], 0)


def test_the_same_in_every_run() -> None:
    assert np.flatnonzero(heldout(0.1, KEYS[:60])).tolist() == [10, 14, 45, 52, 58]


def test_nothing_or_all() -> None:
    assert not any(is_heldout(0.0, key) for key in KEYS[:100])
    assert all(is_heldout(1.0, key) for key in KEYS[:100])
