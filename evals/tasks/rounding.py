"""Numbers that stay exact while they are rational, and that else know how far rounding may have moved them.

So two expressions are told apart by any difference that floating point can show, and by every one between rationals.
"""

import cmath
import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

MOST_BITS = 4096  # of a fraction; beyond it floating point is faster, and says enough
ROUNDING = 2.0**-50  # of one operation, relative: a few units in the last place
SAFETY = 4.0  # times the sum of both errors, which are estimates of the first order
MOST_ERROR = 1e-9  # relative to the number, absolute below 1; a number that is less sure is none


@dataclass(frozen=True)
class Rounded:
    """A complex number in floating point. error: how far the true one may be away, at most."""

    value: complex
    error: float


Value = Fraction | Rounded


def rounded(value: Value) -> Rounded:
    """The number in floating point. Raises OverflowError if it is too large for that."""
    return Rounded(complex(value), abs(float(value)) * ROUNDING) if isinstance(value, Fraction) else value


def irrational(value: complex) -> Rounded:
    """The nearest floating point number to one such as pi."""
    return Rounded(value, abs(value) * ROUNDING)


def plus(one: Value, other: Value) -> Value:
    """The sum."""
    if isinstance(one, Fraction) and isinstance(other, Fraction):
        return _bounded(one + other)
    a, b = rounded(one), rounded(other)
    total = a.value + b.value
    return Rounded(total, a.error + b.error + abs(total) * ROUNDING)


def negative(value: Value) -> Value:
    """The number with the other sign."""
    return -value if isinstance(value, Fraction) else Rounded(-value.value, value.error)


def times(one: Value, other: Value) -> Value:
    """The product."""
    if isinstance(one, Fraction) and isinstance(other, Fraction):
        return _bounded(one * other)
    a, b = rounded(one), rounded(other)
    product = a.value * b.value
    error = abs(a.value) * b.error + abs(b.value) * a.error + a.error * b.error
    return Rounded(product, error + abs(product) * ROUNDING)


def over(one: Value, other: Value) -> Value:
    """The quotient. Raises ZeroDivisionError for a divisor that is 0, or that rounding does not tell from 0."""
    if isinstance(one, Fraction) and isinstance(other, Fraction):
        return _bounded(one / other)
    a, b = rounded(one), rounded(other)
    if abs(b.value) <= 2 * b.error:
        raise ZeroDivisionError("the divisor cannot be told from 0")
    quotient = a.value / b.value
    return Rounded(quotient, 2 * (a.error + abs(quotient) * b.error) / abs(b.value) + abs(quotient) * ROUNDING)


def raised(base: Value, exponent: Value) -> Value:
    """The power, exact for a rational base and an integer; the principal one of a root.

    Raises ZeroDivisionError for a base that rounding does not tell from 0, and OverflowError for what is too large.
    """
    if isinstance(base, Fraction) and isinstance(exponent, Fraction):
        if exponent.denominator == 1 and abs(exponent) * _bits(base) <= MOST_BITS:
            return base ** int(exponent)
        if not base and exponent > 0:
            return Fraction(0)
    a, b = rounded(base), rounded(exponent)
    if abs(a.value) <= 2 * a.error:
        raise ZeroDivisionError("the base cannot be told from 0")
    power, log = a.value**b.value, abs(cmath.log(a.value))
    relative = 2 * abs(b.value) * a.error / abs(a.value) + log * b.error + (1 + abs(b.value) * log) * ROUNDING
    return Rounded(power, abs(power) * relative)


def applied(function: Callable[[complex], complex], value: Value) -> Value:
    """A function of `cmath` at a number. Raises ValueError and OverflowError as it does."""
    at = rounded(value)
    found = function(at.value)
    return Rounded(found, abs(function(at.value + at.error) - found) + abs(found) * ROUNDING)


def absolute(value: Value) -> Value:
    """How far the number is from 0."""
    return abs(value) if isinstance(value, Fraction) else Rounded(complex(abs(value.value)), value.error)


def factorial(value: Value) -> Value:
    """The product of the integers up to this one. Raises ValueError for no integer from 0 to 170."""
    whole = value if isinstance(value, Fraction) else Fraction(round(value.value.real))
    if whole.denominator != 1 or not 0 <= whole <= 170 or not close(whole, value):
        raise ValueError("has no factorial")
    return Fraction(math.factorial(int(whole)))


def close(one: Value, other: Value) -> bool:
    """Whether two numbers are the same: rational ones exactly, else as far as rounding lets it be told.

    Raises ValueError for a number that is infinite, or of which rounding has left too little to tell anything.
    """
    if isinstance(one, Fraction) and isinstance(other, Fraction):
        return one == other
    a, b = rounded(one), rounded(other)
    if any(not cmath.isfinite(each.value) or each.error > MOST_ERROR * max(1.0, abs(each.value)) for each in (a, b)):
        raise ValueError("nothing can be told of such a number")
    return abs(a.value - b.value) <= SAFETY * (a.error + b.error)


def _bits(value: Fraction) -> int:
    return value.numerator.bit_length() + value.denominator.bit_length()


def _bounded(value: Fraction) -> Value:
    return value if _bits(value) <= MOST_BITS else rounded(value)
