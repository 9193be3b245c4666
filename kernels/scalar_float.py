"""Scalar operations on the parts of a float: classes, rounding, remainders, neighbours, casts, halves."""

from __future__ import annotations

import numpy as np

from .scalar_basic import INT64_MIN

INF = np.float64(np.inf)
NAN = np.float64(np.nan)
TWO63 = np.float64(2.0**63)
RAD2DEG_F4 = np.float32(180.0) / np.float32(np.pi)  # divided in float32, as NumPy has it


def isnan_f(x):
    return x != x


def isinf_f(x):
    return abs(x) == INF


def isfinite_f(x):
    return abs(x) < INF


def floor_f(x):
    return np.floor(x)


def ceil_f(x):
    return np.ceil(x)


def trunc_f(x):
    return np.trunc(x)


def rint_f(x):
    return np.rint(x)


def bits_f4(x):
    return np.float32(x).view(np.int32)


def bits_f8(x):
    return np.float64(x).view(np.int64)


def from_bits_f4(b):
    return np.int32(b).view(np.float32)


def from_bits_f8(b):
    return np.int64(b).view(np.float64)


def signbit_f4(x):
    return bits_f4(x) < np.int32(0)


def signbit_f8(x):
    return bits_f8(x) < np.int64(0)


def copysign_f4(x, y):
    return from_bits_f4((bits_f4(x) & np.int32(0x7FFFFFFF)) | (bits_f4(y) & np.int32(-0x80000000)))


def copysign_f8(x, y):
    return from_bits_f8((bits_f8(x) & np.int64(0x7FFFFFFFFFFFFFFF)) | (bits_f8(y) & INT64_MIN))


def deg2rad_f4(x):
    return x * np.float32(np.pi / 180.0)


def deg2rad_f8(x):
    return x * np.float64(np.pi / 180.0)


def rad2deg_f4(x):
    return x * RAD2DEG_F4


def rad2deg_f8(x):
    return x * np.float64(180.0 / np.pi)


# Neighbours. As integers, positive floats are ordered as their bits are; towards zero is one less.


def nextafter_f4(x, y):
    bits = bits_f4(x)
    away = (y > x) == (x > 0)
    step = from_bits_f4(bits + np.int32(1) if away else bits - np.int32(1))
    tiny = copysign_f4(np.float32(1e-45), y)
    moved = tiny if x == 0 else step
    return x + y if (x != x) | (y != y) else (y if x == y else moved)


def nextafter_f8(x, y):
    bits = bits_f8(x)
    away = (y > x) == (x > 0)
    step = from_bits_f8(bits + np.int64(1) if away else bits - np.int64(1))
    tiny = copysign_f8(np.float64(5e-324), y)
    moved = tiny if x == 0 else step
    return x + y if (x != x) | (y != y) else (y if x == y else moved)


def spacing_f4(x):
    gap = from_bits_f4(bits_f4(abs(x)) + np.int32(1)) - abs(x)
    return (-gap if x < 0 else gap) if abs(x) < INF else np.float32(NAN)


def spacing_f8(x):
    gap = from_bits_f8(bits_f8(abs(x)) + np.int64(1)) - abs(x)
    return (-gap if x < 0 else gap) if abs(x) < INF else NAN


def pow2_f8(n):
    """2**n for n in [-1022, 1023]."""
    return from_bits_f8((n + np.int64(1023)) << np.int64(52))


def pow2_f4(n):
    """2**n for n in [-126, 127]."""
    return from_bits_f4((n + np.int32(127)) << np.int32(23))


def scale_f8(x, n):
    """x * 2**n for n in [-2044, 2046] and x not subnormal, rounded once."""
    half = n >> np.int64(1)
    return x * pow2_f8(half) * pow2_f8(n - half)


def scale_f4(x, n):
    """x * 2**n for n in [-252, 254] and x not subnormal, rounded once."""
    half = np.int32(n >> np.int32(1))
    return x * pow2_f4(half) * pow2_f4(np.int32(n - half))


def frexp_mantissa_f8(x):
    scaled = x * np.float64(2.0**54) if abs(x) < 2.2250738585072014e-308 else x
    mantissa = from_bits_f8((bits_f8(scaled) & np.int64(-0x7FF0000000000001)) | np.int64(0x3FE0000000000000))
    return mantissa if (abs(x) < INF) & (x != 0) else x


def frexp_exponent_f8(x):
    tiny = abs(x) < 2.2250738585072014e-308
    scaled = x * np.float64(2.0**54) if tiny else x
    exponent = ((bits_f8(scaled) >> np.int64(52)) & np.int64(0x7FF)) - (np.int64(1076) if tiny else np.int64(1022))
    return exponent if (abs(x) < INF) & (x != 0) else np.int64(0)


def frexp_mantissa_f4(x):
    return np.float32(frexp_mantissa_f8(np.float64(x)))


def frexp_exponent_f4(x):
    return frexp_exponent_f8(np.float64(x))


def ldexp_f8(x, n):
    """Three factors, none of which can round twice: large powers first act on x where nothing is lost."""
    count = np.int64(n)
    count = np.int64(-2200) if count < -2200 else (np.int64(2200) if count > 2200 else count)
    mantissa = frexp_mantissa_f8(x)
    total = count + frexp_exponent_f8(x)
    total = np.int64(-1100) if total < -1100 else (np.int64(1100) if total > 1100 else total)
    return scale_f8(mantissa, total) if (abs(x) < INF) & (x != 0) else x


def ldexp_f4(x, n):
    """In float64 nothing rounds or overflows for counts within 400; beyond, the result is 0 or infinite."""
    count = np.int64(n)
    count = np.int64(-400) if count < -400 else (np.int64(400) if count > 400 else count)
    return np.float32(np.float64(x) * pow2_f8(count))


def modf_integral_f4(x):
    return np.trunc(x)


def modf_integral_f8(x):
    return np.trunc(x)


def modf_fractional_f4(x):
    return copysign_f4(x - np.trunc(x) if abs(x) < INF else (np.float32(0.0) if x == x else x), x)


def modf_fractional_f8(x):
    return copysign_f8(x - np.trunc(x) if abs(x) < INF else (np.float64(0.0) if x == x else x), x)


def upper(x):
    """x without its 27 low bits: products of two such, or of one with what is left, are exact."""
    return from_bits_f8(bits_f8(x) & np.int64(-0x8000000))


def product_error(a, b, product):
    """a * b - product, exactly but for the last bit (Dekker 1971)."""
    ah = upper(a)
    bh = upper(b)
    al = a - ah
    bl = b - bh
    return ((ah * bh - product) + ah * bl + al * bh) + al * bl


# Remainders, exact for every ratio. Up to a ratio of 2**28 (2**50) the truncated quotient is at most 1 off and its
# product with y is known exactly; beyond, and at the ends of the range, a loop on integers. The branch keeps these
# functions from being vectorised, and still costs a seventh of always taking the loop.


def fmod_any(x, y):
    """x - trunc(x / y) * y in float64 for every ratio: mantissas as integers, the quotient taken 10 bits a step."""
    mantissa_y = (
        np.uint64(frexp_mantissa_f8(abs(y)) * 9007199254740992.0) if (abs(y) < INF) & (y != 0) else np.uint64(1)
    )
    rest = np.uint64(frexp_mantissa_f8(abs(x)) * 9007199254740992.0) if abs(x) < INF else np.uint64(0)
    exponent_y = frexp_exponent_f8(y)
    shift = frexp_exponent_f8(x) - exponent_y
    rest = rest % mantissa_y if shift >= 0 else rest
    while shift > 0:
        step = np.int64(10) if shift > 10 else shift
        rest = (rest << np.uint64(step)) % mantissa_y
        shift = shift - step
    value = ldexp_f8(np.float64(rest), exponent_y - np.int64(53))
    value = abs(x) if (abs(x) < abs(y)) else value
    invalid = (abs(x) == INF) | (y == 0) | (x != x) | (y != y)
    return NAN if invalid else copysign_f8(value, x)


def fmod_f8(x, y):
    a = abs(x)
    b = abs(y)
    if (a < b * 1125899906842624.0) & (a < 1e300) & (b > 1e-280) & (b < INF):
        q = np.trunc(a / b)
        p = q * b
        r = (a - p) - product_error(q, b, p)
        r = r + b if r < 0 else (r - b if r >= b else r)
        return copysign_f8(r, x)
    return fmod_any(x, y)


def fmod_f4(x, y):
    a = np.float64(abs(x))
    b = np.float64(abs(y))
    if (a < b * 268435456.0) & (b < INF):
        r = a - np.trunc(a / b) * b
        r = r + b if r < 0 else (r - b if r >= b else r)
        return copysign_f4(np.float32(r), x)
    return np.float32(fmod_any(np.float64(x), np.float64(y)))


def remainder_f8(x, y):
    rest = fmod_f8(x, y)
    adjusted = rest + y if (rest < 0) != (y < 0) else rest
    return copysign_f8(np.float64(0.0), y) if rest == 0 else adjusted


def remainder_f4(x, y):
    rest = fmod_f4(x, y)
    adjusted = rest + y if (rest < 0) != (y < 0) else rest
    return copysign_f4(np.float32(0.0), y) if rest == 0 else adjusted


def floor_divide_f8(x, y):
    """Python's: the quotient of what fmod leaves, one less where the signs differ, snapped to the nearest integer."""
    rest = fmod_f8(x, y)
    quotient = (x - rest) / y - (1.0 if (rest != 0) & ((rest < 0) != (y < 0)) else 0.0)
    whole = np.floor(quotient)
    whole = whole + 1.0 if quotient - whole > 0.5 else whole
    whole = copysign_f8(np.float64(0.0), x / y) if quotient == 0 else whole
    return x / y if y == 0 else whole


def floor_divide_f4(x, y):
    rest = fmod_f4(x, y)
    one = np.float32(1.0) if (rest != 0) & ((rest < 0) != (y < 0)) else np.float32(0.0)
    quotient = (x - rest) / y - one
    whole = np.floor(quotient)
    whole = whole + np.float32(1.0) if quotient - whole > np.float32(0.5) else whole
    whole = copysign_f4(np.float32(0.0), x / y) if quotient == 0 else whole
    return x / y if y == 0 else whole


# Casts of floats to integers: truncated to int64, then wrapped by the caller to the width.


def float_to_int(x):
    inside = (x >= -TWO63) & (x < TWO63)
    return np.int64(np.float64(x) if inside else np.float64(0.0)) if inside else INT64_MIN


def float_to_u8(x):
    high = (x >= TWO63) & (x < TWO63 * 2.0)
    low = np.float64(x) - TWO63 if high else np.float64(x)
    value = float_to_int(low)
    return np.uint64(value ^ INT64_MIN) if high else np.uint64(value)


# float16 lives in kernels as a float32 that is already rounded to it.


def half_round(x):
    """The nearest float16 (ties to even) as float32: rint on the grid of x's binade, 2**-24 at the smallest."""
    exponent = (bits_f4(x) >> np.int32(23)) & np.int32(0xFF)
    exponent = exponent if exponent > np.int32(113) else np.int32(113)
    grid = from_bits_f4(np.int32(exponent - np.int32(10)) << np.int32(23))
    inverse = from_bits_f4(np.int32(np.int32(264) - exponent) << np.int32(23))
    finite = abs(x) < np.float32(65520.0)
    rounded = copysign_f4(np.rint((x if finite else np.float32(0.0)) * inverse) * grid, x)
    return rounded if finite else x * np.float32(INF)


def half_round_f8(x):
    """float64 to float16 in one rounding, as NumPy's cast does it."""
    exponent = (bits_f8(x) >> np.int64(52)) & np.int64(0x7FF)
    exponent = exponent if exponent > np.int64(1009) else np.int64(1009)
    exponent = exponent if exponent < np.int64(1040) else np.int64(1040)
    grid = from_bits_f8((exponent - np.int64(10)) << np.int64(52))
    inverse = from_bits_f8((np.int64(2056) - exponent) << np.int64(52))
    finite = abs(x) < 65520.0
    rounded = copysign_f8(np.rint((x if finite else np.float64(0.0)) * inverse) * grid, x)
    return np.float32(rounded if finite else x * INF)


def half_to_f4(bits):
    """The float32 of a float16's 16 bits. Multiplying by 2**112 moves the exponent and normalises subnormals."""
    b = np.int32(bits)
    magnitude_bits = np.int32((b & np.int32(0x7FFF)) << np.int32(13))
    value = from_bits_f4(magnitude_bits) * np.float32(2.0**112)
    special = (b & np.int32(0x7C00)) == np.int32(0x7C00)
    value = from_bits_f4(magnitude_bits | np.int32(0x7F800000)) if special else value
    return from_bits_f4(bits_f4(value) | np.int32((b & np.int32(0x8000)) << np.int32(16)))


def f4_to_half(x):
    """The 16 bits of a float32, rounded to nearest even."""
    rounded = half_round(x)
    b = bits_f4(abs(rounded) * np.float32(2.0**-112)) >> np.int32(13)
    b = b if abs(rounded) < INF else np.int32(0x7C00)
    b = b if x == x else np.int32(0x7E00)
    sign = np.int32((bits_f4(x) >> np.int32(16)) & np.int32(0x8000))
    return np.uint16(b | sign)


def nextafter_f2(x, y):
    up = half_to_f4(f4_to_half(abs(x)) + np.uint16(1))
    down = half_to_f4(f4_to_half(abs(x)) - np.uint16(1))
    away = (y > x) == (x > 0)
    step = copysign_f4(up if away else down, x)
    moved = copysign_f4(np.float32(2.0**-24), y) if x == 0 else step
    return x + y if (x != x) | (y != y) else (y if x == y else moved)


def spacing_f2(x):
    """Always positive, and for negative x the gap towards zero: NumPy's own choice for halves."""
    bits = f4_to_half(abs(x))
    up = half_to_f4(bits + np.uint16(1)) - abs(x)
    down = abs(x) - half_to_f4(bits - np.uint16(1))
    return (down if x < 0 else up) if abs(x) < INF else np.float32(NAN)


def int_to_half(x):
    return half_round(np.float32(x))
