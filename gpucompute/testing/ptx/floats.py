"""Floating-point arithmetic of PTX in NumPy, correctly rounded in every format and mode.

NumPy's own float16, float32 and float64 operations round to nearest even, once. What they lack is built from one
idea: *round to odd*. A float64 that has been rounded towards zero, and whose last bit was then set if anything was
lost, can be rounded a second time to a format with at most 51 bits and gives what rounding the exact value once
would (Boldo & Melquiond 2008, "Emulation of FMA and correctly rounded sums: proved algorithms using rounding to
odd"). So float32, float16 and bfloat16 operations in any mode are a float64 operation, its error and one rounding.

For float64 itself, `fma` uses the same authors' algorithm where exponents are moderate. Elements outside of that and
the directed modes of float64 go through whole numbers, one by one, in `exact.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import exact
from .types import Array, Type

MODES = ("rn", "rz", "rm", "rp", "rna")
ROUNDERS: dict[str, Callable[[Array], Array]] = {
    "rn": np.rint,
    "rz": np.trunc,
    "rm": np.floor,
    "rp": np.ceil,
    "rna": lambda x: np.trunc(x + np.copysign(0.5, x)),
}
# precision in bits and the exponent of the smallest positive number, by the name of the type
FORMATS = {"f16": (11, -24), "bf16": (8, -133), "f32": (24, -149), "f64": (53, -1074)}
CANONICAL: dict[str, Any] = {
    "f16": np.uint16(0x7FFF).view(np.float16),
    "f32": np.uint32(0x7FFFFFFF).view(np.float32),
}
_HALFWAY, _BELOW = np.uint64(0x10000000), np.uint64(0x1FFFFFFF)  # of float64's bits below float32's
_ONE = np.uint64(1)


def widen(x: Array, kind: Type) -> Array:
    """Return values of any format as float64."""
    if kind.kind == "bf":
        return (x.astype(np.uint32) << np.uint32(16)).view(np.float32).astype(np.float64)
    return x.astype(np.float64)


def narrow(x: Array, kind: Type, mode: str = "rn") -> Array:
    """Round float64 to a format, once.

    Parameters
    ----------
    x : ndarray of float64
    kind : Type
        f16, bf16, f32 or f64.
    mode : str
        One of `MODES`.

    Returns
    -------
    ndarray of kind.dtype
        NaN as the hardware's one NaN.
    """
    name = kind.lane.name
    if name == "f64":
        return x
    if mode == "rn" and name != "bf16":
        return canonical(x.astype(kind.dtype), kind)
    bits, smallest = FORMATS[name]
    exponent = np.frexp(x)[1]
    unit = np.maximum(exponent - bits, smallest)  # exponent of one unit in the last place
    rounded = np.ldexp(ROUNDERS[mode](np.ldexp(x, -unit)), unit)
    if name == "bf16":
        largest = float(np.uint32(0x7F7F0000).view(np.float32))
        rounded = np.where(np.abs(rounded) > largest, np.copysign(np.inf, x), rounded)
    else:
        largest = float(np.finfo(kind.dtype).max)
    inward = {"rz": rounded == rounded, "rm": x > 0, "rp": x < 0}.get(mode)
    if inward is not None:
        clipped = np.where(inward, np.clip(rounded, -largest, largest), rounded)
        rounded = np.where(np.isinf(x), x, clipped)
    rounded = np.copysign(rounded, x)
    if name == "bf16":
        top = (rounded.astype(np.float32).view(np.uint32) >> np.uint32(16)).astype(np.uint16)
        return np.where(np.isnan(x), np.uint16(0x7FFF), top)
    return canonical(rounded.astype(kind.dtype), kind)


def canonical(x: Array, kind: Type) -> Array:
    """Replace every NaN by the one that the hardware makes; float64 keeps the processor's."""
    nan = CANONICAL.get(kind.lane.name)
    if nan is not None:
        isnan = x != x
        if isnan.any():
            x = np.where(isnan, nan, x)
    return x


def flush(x: Array) -> Array:
    """Replace subnormal numbers by zero of the same sign (``.ftz``)."""
    small = np.abs(x) < np.finfo(x.dtype).smallest_normal
    return np.where(small, np.copysign(x.dtype.type(0), x), x) if small.any() else x


def saturate(x: Array) -> Array:
    """Clamp to [0, 1], NaN to 0 (``.sat``)."""
    one = x.dtype.type(1)
    return np.where(x > 0, np.where(x < one, x, one), x.dtype.type(0))


def odd(x: Array, error: Array) -> Array:
    """Round to odd: `x` is the float64 next to the exact value, `error` has the sign of exact minus `x`."""
    bits = x.view(np.uint64)
    change = (error != 0) & ((bits & _ONE) == 0) & np.isfinite(x)
    if not change.any():
        return x
    outward = (error > 0) == (x > 0)
    return np.where(change, np.where(outward, bits + _ONE, bits - _ONE), bits).view(np.float64)


def two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """Return the rounded sum and its exact error (Knuth)."""
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


def _split(a: Array) -> tuple[Array, Array]:
    c = a * 134217729.0  # 2**27 + 1 (Veltkamp)
    high = c - (c - a)
    return high, a - high


def two_product(a: Array, b: Array) -> tuple[Array, Array]:
    """Return the rounded product and its exact error (Dekker); exponents must be moderate."""
    p = a * b
    (ah, al), (bh, bl) = _split(a), _split(b)
    return p, ((ah * bh - p) + ah * bl + al * bh) + al * bl


# Operations on values that were float32, float16 or bfloat16, as float64, rounded to odd. `mode` is that of the
# rounding that follows; it decides the sign of a sum that is exactly 0.


def odd_add(a: Array, b: Array, mode: str = "rn") -> Array:
    """a + b."""
    total = odd(*two_sum(a, b))
    if mode == "rm":
        total = np.where((total == 0) & (np.signbit(a) | np.signbit(b)), -0.0, total)
    return total


def odd_multiply(a: Array, b: Array, mode: str = "rn") -> Array:
    """a * b, which float64 holds exactly."""
    return a * b


def odd_fma(a: Array, b: Array, c: Array, mode: str = "rn") -> Array:
    """a * b + c."""
    return odd_add(a * b, c, mode)


def odd_divide(a: Array, b: Array, mode: str = "rn") -> Array:
    """a / b."""
    q = a / b
    product, error = two_product(q, b)
    return odd(q, ((a - product) - error) * np.sign(b))


def odd_sqrt(a: Array, mode: str = "rn") -> Array:
    """The square root."""
    root = np.sqrt(a)
    square, error = two_product(root, root)
    return odd(root, (a - square) - error)


ODD: dict[str, Callable[..., Array]] = {
    "add": odd_add,
    "mul": odd_multiply,
    "fma": odd_fma,
    "div": odd_divide,
    "sqrt": odd_sqrt,
}


def fma32(a: Array, b: Array, c: Array) -> Array:
    """Fused multiply-add of float32, to nearest even.

    The product is exact in float64 and the sum is rounded twice, which matters only where the float64 sum lies in
    the middle between two float32 numbers or is too small to be a normal one: those are done again, to odd.
    """
    product = np.multiply(a, b, dtype=np.float64)
    total = product + c
    result = total.astype(np.float32)
    doubtful = (total.view(np.uint64) & _BELOW) == _HALFWAY
    doubtful |= np.abs(total) < 2.0**-125
    if doubtful.any():
        p, c64 = np.broadcast_arrays(product, c.astype(np.float64))
        result[doubtful] = odd(*two_sum(p[doubtful], c64[doubtful])).astype(np.float32)
    return result


def fma64(a: Array, b: Array, c: Array) -> Array:
    """Fused multiply-add of float64, to nearest even (Boldo & Melquiond 2008, algorithm 5)."""
    high, low = two_product(a, b)
    t, t_low = two_sum(c, low)
    v, v_low = two_sum(high, t)
    result = v + odd(*two_sum(t_low, v_low))
    # Safe: no part of the products overflows or is subnormal, and neither is the result. 2**-800 * 2**-100: the
    # smallest error term of a product of 2**-800 still has its bits above 2**-1022.
    size_a, size_b, size_c, size = np.abs(a), np.abs(b), np.abs(c), np.abs(high)
    safe = (size_a < 2.0**900) & (size_b < 2.0**900) & (size < 2.0**1000) & (size > 2.0**-800)
    safe &= (size_c < 2.0**1000) & ((size_c > 2.0**-800) | (c == 0))
    safe &= (np.abs(result) > 2.0**-800) | (result == 0)  # 0: everything cancelled
    if not safe.all():
        a, b, c, safe = np.broadcast_arrays(a, b, c, safe)
        redo = np.flatnonzero(~safe)
        plain = a[redo] * b[redo]
        # Zeros (of either sign), infinities and NaN: the product is exact, and so is one rounding of the sum.
        simple = ~np.isfinite(a[redo] * 0 + b[redo] * 0) | (a[redo] == 0) | (b[redo] == 0)
        values = np.where(np.isfinite(c[redo]) | simple, plain + c[redo], c[redo])
        for k in np.flatnonzero(~simple & np.isfinite(c[redo])):
            values[k] = exact.fma(a[redo[k]], b[redo[k]], c[redo[k]], "rn")
        result[redo] = values
    return result


def directed64(name: str, mode: str) -> Callable[..., Array]:
    """Return add, mul, fma, div or sqrt of float64 in a mode other than to nearest, element by element."""
    return np.vectorize(lambda *values: EXACT[name](*values, mode), otypes=[np.float64])


EXACT: dict[str, Callable[..., float]] = {
    "add": exact.add,
    "mul": exact.multiply,
    "fma": exact.fma,
    "div": exact.divide,
    "sqrt": exact.sqrt,
}


def directed_sum64(high: Array, low: Array, mode: str) -> Array:
    """Round the exact sum of two float64 arrays to float64 in some mode; the sum must not overflow."""
    total, error = two_sum(high, low)
    if mode == "rn":
        return total
    towards = {
        "rp": np.where(error > 0, np.inf, total),
        "rm": np.where(error < 0, -np.inf, total),
        "rz": np.where(error * np.sign(total) < 0, 0.0, total),
    }[mode]
    return np.nextafter(total, towards)
