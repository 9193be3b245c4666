"""float64 operations in any rounding mode through whole numbers, one element at a time.

Slow (some microseconds each) and plain: a finite number is an integer times a power of two; the exact result is
rounded once.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np


def _rounded(value: Fraction, mode: str, zero: float = 0.0) -> float:
    """Round to float64; `zero` is the result if the value is 0."""
    if not value:
        return zero
    size = abs(value)
    exponent = size.numerator.bit_length() - size.denominator.bit_length() - 53
    if size < Fraction(2) ** (exponent + 52):  # the estimate of the exponent is right or 1 too high
        exponent -= 1
    elif size >= Fraction(2) ** (exponent + 53):
        exponent += 1
    exponent = max(exponent, -1074)
    scaled = size / Fraction(2) ** exponent
    whole = math.floor(scaled)
    rest = scaled - whole
    away = {
        "rn": rest > Fraction(1, 2) or (rest == Fraction(1, 2) and whole % 2 == 1),
        "rz": False,
        "rm": rest > 0 and value < 0,
        "rp": rest > 0 and value > 0,
    }[mode]
    whole += away
    sign = 1.0 if value > 0 else -1.0
    if whole.bit_length() + exponent > 1024:
        outward = mode == "rn" or (mode == "rp" and value > 0) or (mode == "rm" and value < 0)
        return sign * (math.inf if outward else float(np.finfo(np.float64).max))
    return sign * math.ldexp(whole, exponent)


def _sum_zero(a: float, b: float, mode: str) -> float:
    """The sign of a sum that is 0: as the terms if they agree, else negative only when rounding down."""
    if a == b == 0 and math.copysign(1, a) == math.copysign(1, b):
        return a
    return -0.0 if mode == "rm" else 0.0


def add(a: float, b: float, mode: str) -> float:
    """a + b."""
    if not (math.isfinite(a) and math.isfinite(b)):
        return a + b
    return _rounded(Fraction(a) + Fraction(b), mode, _sum_zero(a, b, mode))


def multiply(a: float, b: float, mode: str) -> float:
    """a * b."""
    if not (math.isfinite(a) and math.isfinite(b)):
        return a * b
    return _rounded(Fraction(a) * Fraction(b), mode, a * b)


def fma(a: float, b: float, c: float, mode: str) -> float:
    """a * b + c."""
    if not (math.isfinite(a) and math.isfinite(b)):
        return a * b + c
    if not math.isfinite(c):
        return c
    product = Fraction(a) * Fraction(b)
    sign = math.copysign(1, a) * math.copysign(1, b)
    zero = _sum_zero(math.copysign(0.0 if not product else 1.0, sign), c, mode)
    return _rounded(product + Fraction(c), mode, zero)


def divide(a: float, b: float, mode: str) -> float:
    """a / b."""
    if not (math.isfinite(a) and math.isfinite(b)) or b == 0:
        return float(np.divide(a, b))
    sign = math.copysign(1, a) * math.copysign(1, b)
    return _rounded(Fraction(a) / Fraction(b), mode, math.copysign(0.0, sign))


def sqrt(a: float, mode: str) -> float:
    """The square root."""
    if not (math.isfinite(a) and a > 0):
        return float(np.sqrt(a))
    numerator, denominator = a.as_integer_ratio()
    shift = 2 * max(0, 120 + denominator.bit_length() - numerator.bit_length()) + 2 * (denominator.bit_length() % 2)
    scaled = (numerator << shift) * denominator  # sqrt(n/d) = sqrt(n d) / d
    root = math.isqrt(scaled)
    sticky = root * root != scaled  # a further bit that says that something was cut off
    return _rounded(Fraction(2 * root + sticky, 2 * denominator << (shift // 2)), mode)
