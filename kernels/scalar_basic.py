"""Scalar operations that are exact in one step: arithmetic, comparison, selection, logic, bits, integers.

Each function works on NumPy scalars in plain Python and, compiled by numba, on machine values, and gives the
same bits in both. Two facts shape the code: numba widens small integers to 64 bits where NumPy wraps at once,
and numba makes a float64 of uint64 with int64. So results are meant modulo the width of the loop's output dtype
(the caller wraps every result in that dtype's constructor), and mixed constants are written with their type.

Suffixes: `_i` signed integers, `_u` unsigned, `_f` floats; `_i8`/`_u8`/`_f4`/`_f8` one dtype only.
"""

from __future__ import annotations

import numpy as np

ONES = np.uint64(0x5555555555555555)
TWOS = np.uint64(0x3333333333333333)
FOURS = np.uint64(0x0F0F0F0F0F0F0F0F)
BYTES = np.uint64(0x0101010101010101)
INT64_MIN = np.int64(-(2**63))


def add(x, y):
    return x + y


def subtract(x, y):
    return x - y


def multiply(x, y):
    return x * y


def true_divide_f(x, y):
    return x / y


def positive(x):
    return x


def negative_f(x):
    return -x


def negative_i(x):
    return (x ^ x) - x


def square(x):
    return x * x


def absolute_i(x):
    return (x ^ x) - x if x < 0 else x


def absolute_f(x):
    return abs(x)


def reciprocal_f4(x):
    return np.float32(1.0) / x


def reciprocal_f8(x):
    return np.float64(1.0) / x


def reciprocal_i(x):
    """1 / x towards zero; 1 / 0 is what casting infinity gives."""
    return np.int64(x) if (x == 1) | (x == -1) else (INT64_MIN if x == 0 else np.int64(0))


def reciprocal_u(x):
    return np.uint64(1) if x == 1 else (np.uint64(1 << 63) if x == 0 else np.uint64(0))


def sqrt_f(x):
    return np.sqrt(x)


def sign_i(x):
    return 1 if x > 0 else (-1 if x < 0 else 0)


def sign_u(x):
    return 1 if x > 0 else 0


def sign_f(x):
    return 1.0 if x > 0 else (-1.0 if x < 0 else (0.0 if x == 0 else x))


# Comparison and selection. A NaN wins in maximum and minimum, loses in fmax and fmin; of equals (0.0 and -0.0) the
# second is taken, as the vector instructions and NumPy do.


def equal(x, y):
    return x == y


def not_equal(x, y):
    return x != y


def less(x, y):
    return x < y


def less_equal(x, y):
    return x <= y


def greater(x, y):
    return x > y


def greater_equal(x, y):
    return x >= y


def maximum(x, y):
    return x if (x > y) | (x != x) else y


def minimum(x, y):
    return x if (x < y) | (x != x) else y


def fmax(x, y):
    return x if (x > y) | (y != y) else y


def fmin(x, y):
    return x if (x < y) | (y != y) else y


def clip(x, lo, hi):
    low = x if (x >= lo) | (x != x) else lo
    return low if (low <= hi) | (low != low) else hi


def where(condition, x, y):
    return x if condition else y


def heaviside_f(x, h):
    return 0.0 if x < 0 else (1.0 if x > 0 else (h if x == 0 else x))


# Logic


def logical_and(x, y):
    return (x != 0) & (y != 0)


def logical_or(x, y):
    return (x != 0) | (y != 0)


def logical_xor(x, y):
    return (x != 0) != (y != 0)


def logical_not(x):
    return x == 0


def to_bool(x):
    return x != 0


def always(x):
    return True


def never(x):
    return False


# Bits


def bitwise_and(x, y):
    return x & y


def bitwise_or(x, y):
    return x | y


def bitwise_xor(x, y):
    return x ^ y


def invert(x):
    return ~x


def left_shift(x, y):
    """Counts of 64 and more, and negative ones, give 0; those from the width to 63 do after the caller's wrap."""
    count = np.uint64(y)
    return np.uint64(x) << (count & np.uint64(63)) if count < np.uint64(64) else np.uint64(0)


def right_shift_u(x, y):
    count = np.uint64(y)
    return np.uint64(x) >> (count & np.uint64(63)) if count < np.uint64(64) else np.uint64(0)


def right_shift_i(x, y):
    """Counts out of range leave the sign, as a shift by 63 does."""
    count = np.uint64(y)
    return np.int64(x) >> np.int64(count if count < np.uint64(63) else np.uint64(63))


def bitwise_count_u(x):
    """Number of ones, by adding neighbouring fields (Warren, Hacker's Delight, 5-1)."""
    v = np.uint64(x)
    v = v - ((v >> np.uint64(1)) & ONES)
    v = (v & TWOS) + ((v >> np.uint64(2)) & TWOS)
    v = (v + (v >> np.uint64(4))) & FOURS
    return (v * BYTES) >> np.uint64(56)


def bitwise_count_i(x):
    v = np.int64(x)
    return bitwise_count_u(np.int64(0) - v if v < 0 else v)


# Integer division: x / 0 and x % 0 are 0 as NumPy has them. Up to 32 bits the quotient is taken in float64, which
# is exact after rounding down (a quotient below 2**32 that is not an integer is at least 2**-32 away from one, more
# than the 2**-21 ... 2**-53 that rounding moves it) and, unlike an integer division, runs in vector registers.


def floor_divide_small(x, y):
    quotient = np.floor(np.float64(x) / np.float64(y if y != 0 else np.int64(1)))
    return np.int64(quotient) if y != 0 else np.int64(0)


def remainder_small(x, y):
    return np.int64(x) - floor_divide_small(x, y) * np.int64(y) if y != 0 else np.int64(0)


def fmod_small(x, y):
    quotient = np.trunc(np.float64(x) / np.float64(y if y != 0 else np.int64(1)))
    return np.int64(x) - np.int64(quotient) * np.int64(y) if y != 0 else np.int64(0)


def floor_divide_i8(x, y):
    """-1 is kept from the division: INT64_MIN / -1 traps in hardware, its wrapped result is INT64_MIN."""
    safe = np.int64(1) if (y == 0) | (y == -1) else np.int64(y)
    quotient = np.int64(x) // safe
    return np.int64(0) if y == 0 else (np.int64(0) - np.int64(x) if y == -1 else quotient)


def remainder_i8(x, y):
    safe = np.int64(1) if (y == 0) | (y == -1) else np.int64(y)
    return np.int64(x) % safe


def fmod_i8(x, y):
    safe = np.int64(1) if (y == 0) | (y == -1) else np.int64(y)
    floored = np.int64(x) % safe
    return floored - safe if (floored != 0) & ((np.int64(x) ^ safe) < 0) else floored


def floor_divide_u8(x, y):
    safe = np.uint64(1) if y == 0 else np.uint64(y)
    return np.uint64(0) if y == 0 else np.uint64(x) // safe


def remainder_u8(x, y):
    safe = np.uint64(1) if y == 0 else np.uint64(y)
    return np.uint64(x) % safe


def power_int(x, y):
    """x**y modulo 2**64. Negative exponents, which NumPy refuses, truncate the true value towards zero."""
    base = np.uint64(x)
    result = np.uint64(1)
    count = np.uint64(y)
    while count != np.uint64(0):
        result = result * base if (count & np.uint64(1)) != np.uint64(0) else result
        base = base * base
        count = count >> np.uint64(1)
    return result


def power_i(x, y):
    power = np.int64(power_int(x, y if y > 0 else -np.int64(y)))
    return power if (y >= 0) | (x == 1) | (x == -1) else np.int64(0)


def gcd_u(x, y):
    a = np.uint64(x)
    b = np.uint64(y)
    while b != np.uint64(0):
        a, b = b, a % b
    return a


def magnitude(x):
    v = np.int64(x)
    return np.uint64(np.int64(0) - v if v < 0 else v)


def gcd_i(x, y):
    return gcd_u(magnitude(x), magnitude(y))


def lcm_u(x, y):
    divisor = gcd_u(x, y)
    return np.uint64(0) if divisor == np.uint64(0) else np.uint64(x) // divisor * np.uint64(y)


def lcm_i(x, y):
    return lcm_u(magnitude(x), magnitude(y))
