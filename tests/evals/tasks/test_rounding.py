"""Arithmetic that is exact on fractions, and whose errors cover what rounding does elsewhere."""

import cmath
import math
from fractions import Fraction

import pytest

from evals.tasks.rounding import (
    MOST_BITS,
    Rounded,
    Value,
    absolute,
    applied,
    close,
    factorial,
    irrational,
    negative,
    over,
    plus,
    raised,
    rounded,
    times,
)

HALF, TWO, PI = Fraction(1, 2), Fraction(2), irrational(math.pi)
ROOT = raised(TWO, HALF)


def test_rational_numbers_stay_exact() -> None:
    third = over(Fraction(1), Fraction(3))
    assert plus(third, times(TWO, third)) == 1
    assert raised(Fraction(2, 3), Fraction(-3)) == Fraction(27, 8)
    assert (negative(third), absolute(Fraction(-5)), factorial(Fraction(5))) == (Fraction(-1, 3), 5, 120)
    assert raised(Fraction(0), HALF) == 0
    assert raised(TWO, Fraction(1000)) == 2**1000


def test_what_is_too_large_to_stay_exact_becomes_a_floating_point_number_or_an_error() -> None:
    long = Fraction(3**1400, 2**2100)
    assert isinstance(long, Fraction)
    product = times(long, long)
    assert isinstance(product, Rounded)
    assert product.value.real == pytest.approx((3**2800 // 2**4150) / 2**50)
    assert isinstance(raised(Fraction(3, 2), Fraction(1600)), Rounded)
    with pytest.raises(OverflowError):
        raised(TWO, Fraction(MOST_BITS))


@pytest.mark.parametrize(
    ("value", "exact"),
    [
        (ROOT, math.sqrt(2)), (times(ROOT, ROOT), 2), (plus(ROOT, negative(ROOT)), 0), (over(PI, TWO), math.pi / 2),
        (applied(cmath.sin, PI), 0), (raised(irrational(math.e), times(PI, Rounded(1j, 0.0))), -1),
        (absolute(negative(PI)), math.pi), (raised(plus(Fraction(99), times(Fraction(-70), ROOT)), Fraction(-1)), 99 + 70 * math.sqrt(2)),
        (over(Fraction(1), plus(Fraction(99), times(Fraction(-70), ROOT))), 99 + 70 * math.sqrt(2)),
    ],
)  # fmt: skip
def test_the_error_covers_what_rounding_did_and_little_more(value: Value, exact: float) -> None:
    found = rounded(value)
    assert abs(found.value - exact) <= found.error + 4e-16 * abs(exact)
    assert found.error <= 2e-9 * max(1, abs(exact)), "and is small enough to tell numbers apart"


def test_a_number_is_told_from_its_neighbours() -> None:
    assert close(times(ROOT, ROOT), TWO)
    assert not close(times(ROOT, ROOT), TWO + Fraction(1, 10**13))
    assert not close(Fraction(2**40), Fraction(2**40 - 1))
    assert not close(plus(PI, Fraction(2**40)), plus(PI, Fraction(2**40 - 1)))


def test_of_what_rounding_has_eaten_nothing_is_told() -> None:
    lost = plus(raised(Fraction(10**30 + 1), HALF), Fraction(-(10**15)))
    with pytest.raises(ValueError, match="nothing can be told"):
        close(lost, HALF)
    with pytest.raises(ValueError, match="nothing can be told"):
        close(Rounded(complex(math.inf), 0.0), HALF)
    nothing = applied(cmath.sin, PI)
    with pytest.raises(ZeroDivisionError, match="divisor cannot be told from 0"):
        over(PI, nothing)
    with pytest.raises(ZeroDivisionError, match="base cannot be told from 0"):
        raised(nothing, HALF)


@pytest.mark.parametrize("value", [Fraction(3, 2), Fraction(-1), Fraction(171), ROOT, irrational(1j)])
def test_only_integers_have_a_factorial(value: Value) -> None:
    with pytest.raises(ValueError, match="no factorial"):
        factorial(value)
    assert factorial(times(ROOT, ROOT)) == 2
