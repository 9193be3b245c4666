"""Exponentials, logarithms, powers and hyperbolic functions in float64, of plain arithmetic without branches.

Polynomials are interpolations at Chebyshev nodes on the reduced range, computed with 200 bits (relative error below
2**-55). Reductions after Cody and Waite (1980); the rearrangements that keep the low bits follow Muller, "Elementary
Functions" (2016), chapters 3 to 5. Nothing here may be contracted into fused multiply-adds.
"""

from __future__ import annotations

import numpy as np

from .scalar_float import INF, NAN, bits_f8, copysign_f8, from_bits_f8, product_error, scale_f8

LN2 = np.float64(0.6931471805599453)
LN2_HI = np.float64(0.6931471803691238)  # 32 bits, so that a product with an exponent is exact
LN2_LO = np.float64(1.9082149292705877e-10)
INVLN2 = np.float64(1.4426950408889634)
INVLN2_HI = np.float64(1.4426950407214463)
INVLN2_LO = np.float64(1.6751713164886512e-10)
INVLN10_HI = np.float64(0.4342944818781689)
INVLN10_LO = np.float64(2.5082946711645275e-11)
LOG10_2_HI = np.float64(0.3010299955494702)
LOG10_2_LO = np.float64(1.1451100898021838e-10)
INVLN2_TAIL = np.float64(2.0355273740931033e-17)  # 1/ln 2 - INVLN2
THIRD = np.float64(0.3333333333333333)
THIRD_TAIL = np.float64(1.850371707708594e-17)
ROUND_F8 = np.float64(6755399441055744.0)  # 1.5 * 2**52: adding it rounds to an integer and leaves that in the low bits
ROUND_F8_BITS = np.int64(0x4338000000000000)
SQRT_HALF_BITS = np.int64(0x3FE6A09E667F3BCD)
TINY_F8 = np.float64(2.2250738585072014e-308)


def exp_tail(r):
    """(exp(r) - 1 - r) / r**2 for |r| <= ln(2)/2."""
    q = 2.5100472505694996e-08 * r + 2.7620201591031547e-07
    q = q * r + 2.7557268276905696e-06
    q = q * r + 2.4801521057868204e-05
    q = q * r + 0.00019841269863171557
    q = q * r + 0.0013888888917367081
    q = q * r + 0.008333333333330039
    q = q * r + 0.041666666666623824
    q = q * r + 0.16666666666666669
    return q * r + 0.5000000000000001


def exp_sum_f8(x, minus, k):
    """exp(x - minus) * 2**k for |k| <= 2 and `minus` far below 1."""
    c = np.float64(-750.0) if x < -750.0 else (np.float64(720.0) if x > 720.0 else x)
    shifted = c * INVLN2 + ROUND_F8
    n = shifted - ROUND_F8
    hi = c - n * LN2_HI
    lo = n * LN2_LO + minus
    r = hi - lo
    p = 1.0 + (r + (((hi - r) - lo) + r * r * exp_tail(r)))
    return scale_f8(p, bits_f8(shifted) - ROUND_F8_BITS + k)


def exp_scaled_f8(x, k):
    return exp_sum_f8(x, np.float64(-0.0), k)


def exp_f8(x):
    return exp_scaled_f8(x, np.int64(0))


def exp2_sum(h, t):
    """2**(h + t) for |t| far below 1; h is clamped to where the result is 0 or infinite."""
    c = np.float64(-1100.0) if h < -1100.0 else (np.float64(1100.0) if h > 1100.0 else h)
    shifted = c + ROUND_F8
    n = shifted - ROUND_F8
    r = ((c - n) + t) * LN2
    return scale_f8(1.0 + (r + r * r * exp_tail(r)), bits_f8(shifted) - ROUND_F8_BITS)


def exp2_f8(x):
    return exp2_sum(x, np.float64(0.0))


def expm1_f8(x):
    c = np.float64(-40.0) if x < -40.0 else (np.float64(720.0) if x > 720.0 else x)
    shifted = c * INVLN2 + ROUND_F8
    n = shifted - ROUND_F8
    hi = c - n * LN2_HI
    lo = n * LN2_LO
    r = hi - lo
    p = r + (((hi - r) - lo) * (1.0 + r) + r * r * exp_tail(r))
    k = bits_f8(shifted) - ROUND_F8_BITS
    small = k if k < np.int64(1000) else np.int64(1000)
    value = scale_f8(p + (1.0 - scale_f8(np.float64(1.0), np.int64(0) - small)), k)
    return value if abs(x) > 1e-17 else x


def log_tail(s, h):
    """s * (h + z R(z)) with z = s*s: log(1 + f) = f - (h - this), s = f / (2 + f), h = f*f / 2."""
    z = s * s
    q = 0.1461916477718642 * z + 0.1533150172120742
    q = q * z + 0.18182895746801428
    q = q * z + 0.22222211043822487
    q = q * z + 0.28571428626533335
    q = q * z + 0.3999999999989827
    q = q * z + 0.666666666666667
    return s * (h + z * q)


def log_reduce(x):
    """(f, k): positive x = (1 + f) * 2**k with 1 + f in [sqrt(1/2), sqrt(2))."""
    tiny = x < TINY_F8
    b = bits_f8(x * 18014398509481984.0 if tiny else x)
    k = (b - SQRT_HALF_BITS) >> np.int64(52)
    f = from_bits_f8(b - (k << np.int64(52))) - 1.0
    return f, np.float64(k - np.int64(54) if tiny else k)


def log_special(x, value):
    """value, but for the ends of the logarithm's domain and outside it."""
    inner = value if x < INF else x
    return inner if x > 0.0 else (-INF if x == 0.0 else NAN)


def log_f8(x):
    f, k = log_reduce(x)
    h = 0.5 * f * f
    tail = log_tail(f / (2.0 + f), h)
    return log_special(x, k * LN2_HI - ((h - (tail + k * LN2_LO)) - f))


def log1p_f8(x):
    u = 1.0 + x
    f, k = log_reduce(u)
    lost = (1.0 - (u - x) if k > 0.0 else x - (u - 1.0)) / u
    f = x if k == 0.0 else f
    lost = np.float64(0.0) if k == 0.0 else lost
    h = 0.5 * f * f
    tail = log_tail(f / (2.0 + f), h)
    value = log_special(u, k * LN2_HI - ((h - (tail + (k * LN2_LO + lost))) - f))
    return x if abs(x) < 1e-17 else value


def log_scaled(x, unit_hi, unit_lo, factor_hi, factor_lo):
    """factor * log(x), where unit = factor * ln(2); both given as 32 bits and the rest."""
    f, k = log_reduce(x)
    h = 0.5 * f * f
    tail = log_tail(f / (2.0 + f), h)
    hi = from_bits_f8(bits_f8(f - h) & np.int64(-0x100000000))
    lo = ((f - hi) - h) + tail
    head = hi * factor_hi
    rest = k * unit_lo + ((lo + hi) * factor_lo + lo * factor_hi)
    whole = k * unit_hi
    total = whole + head
    return log_special(x, (rest + ((whole - total) + head)) + total)


def log2_f8(x):
    return log_scaled(x, np.float64(1.0), np.float64(0.0), INVLN2_HI, INVLN2_LO)


def log10_f8(x):
    return log_scaled(x, LOG10_2_HI, LOG10_2_LO, INVLN10_HI, INVLN10_LO)


def sigmoid_f8(x):
    """1 / (1 + exp(-x)); for negative x as exp(x) / (1 + exp(x)), which stays accurate to the smallest number."""
    e = exp_f8(-abs(x))
    s = 1.0 + e
    lost = (1.0 - s) + e  # put back to first order
    q = (np.float64(1.0) if x >= 0.0 else e) / s
    return q - q * (lost * (q if x >= 0.0 else 1.0 - q))


# Hyperbolic functions


def sinh_f8(x):
    z = x * x
    q = 2.8445264169895285e-15 * z + 7.646625361656657e-13
    q = q * z + 1.6059048396350562e-10
    q = q * z + 2.505210836405804e-08
    q = q * z + 2.755731922404034e-06
    q = q * z + 0.00019841269841269773
    q = q * z + 0.008333333333333333
    q = q * z + 0.16666666666666666
    half = exp_scaled_f8(abs(x), np.int64(-1))
    return copysign_f8(half - 0.25 / half, x) if abs(x) > 1.0 else x + x * (z * q)


def cosh_f8(x):
    half = exp_scaled_f8(abs(x), np.int64(-1))
    return half + 0.25 / half


def tanh_f8(x):
    a = abs(x)
    t = expm1_f8(2.0 * (np.float64(22.0) if a > 22.0 else a))
    ratio = (2.0 if t > 1.0 else t) / (t + 2.0)
    return copysign_f8(1.0 - ratio if t > 1.0 else ratio, x)


def arcsinh_f8(x):
    a = abs(x)
    large = a > 1e9
    safe = np.float64(1.0) if large else a
    extra = safe * safe / (1.0 + np.sqrt(1.0 + safe * safe))
    inner = safe + extra
    near = log1p_f8(a - 1.0 if large else inner)
    lost = ((safe - inner) + extra) / (1.0 + inner)
    return copysign_f8(near + LN2 if large else near + lost, x)


def arccosh_f8(x):
    large = x > 1e9
    t = (np.float64(1.0) if large else x) - 1.0
    near = log1p_f8(x - 1.0 if large else t + np.sqrt(2.0 * t + t * t))
    value = near + LN2 if large else near
    return value if x >= 1.0 else NAN


def arctanh_f8(x):
    """log1p(t) / 2 with t = 2a / (1 - a); what rounding t lost is put back to first order."""
    a = abs(x)
    d = 1.0 - a
    t = 2.0 * a / d
    p = t * d
    lost = (((2.0 * a - p) - product_error(t, d, p)) - t * ((1.0 - d) - a)) / (1.0 + a)
    value = 0.5 * (log1p_f8(t) + (lost if a < 1.0 else np.float64(0.0)))
    return copysign_f8(value if a <= 1.0 else NAN, x)


def logaddexp_f8(x, y):
    """log(exp(x) + exp(y)); equal infinities give themselves."""
    top = x if x > y else y
    gap = -abs(x - y)
    return x + LN2 if x == y else (top + log1p_f8(exp_f8(gap)) if gap == gap else gap)


def logaddexp2_f8(x, y):
    top = x if x > y else y
    gap = -abs(x - y)
    return x + 1.0 if x == y else (top + INVLN2 * log1p_f8(exp2_f8(gap)) if gap == gap else gap)


# Roots and powers


def cbrt_f8(x):
    """x = m * 8**k; a polynomial for the root of m in [1/2, 1), a Halley step and a Newton step."""
    a = abs(x)
    b = bits_f8(a * 18014398509481984.0 if a < TINY_F8 else a)
    exponent = (b >> np.int64(52)) - (np.int64(1076) if a < TINY_F8 else np.int64(1022))
    k = np.int64(np.floor((np.float64(exponent) + 0.5) * THIRD))
    rest = exponent - np.int64(3) * k
    m = from_bits_f8((b & np.int64(0xFFFFFFFFFFFFF)) | np.int64(0x3FE0000000000000))
    q = -0.12829009991928064 * m + 0.5275189932675065
    q = q * m - 0.9332461525564669
    q = q * m + 1.129820613223312
    q = q * m + 0.404190511454454
    q = q * (1.0 if rest == 0 else (1.2599210498948732 if rest == 1 else 1.5874010519681994))
    m = m * (1.0 if rest == 0 else (2.0 if rest == 1 else 4.0))
    cube = q * q * q
    q = q - q * (cube - m) / (2.0 * cube + m)
    q = from_bits_f8((bits_f8(q) + np.int64(0x20000000)) & np.int64(-0x40000000))  # 22 bits: the square is exact
    q = q + q * ((m / (q * q) - q) / (2.0 * q + m / (q * q)))
    value = scale_f8(q, k)
    return copysign_f8(value, x) if (a < INF) & (x != 0.0) else x


def log2_double(x):
    """(high, low) with log2 of positive x to about 2**-66 relative: 2/ln 2 * atanh(s), s = f / (2 + f)."""
    f, k = log_reduce(x)
    d = 2.0 + f
    dl = f - (d - 2.0)
    s = f / d
    sp = s * d
    sl = (((f - sp) - product_error(s, d, sp)) - s * dl) / d
    z = s * s
    zl = product_error(s, s, z) + 2.0 * s * sl
    q = 0.05862801630117723 * z + 0.05853002125147692
    q = q * z + 0.06667406684556028
    q = q * z + 0.0769229740142814
    q = q * z + 0.09090909168444268
    q = q * z + 0.11111111110824641
    q = q * z + 0.14285714285714687
    q = (q * z + 0.2) * z
    c = THIRD + q
    cl = ((THIRD - c) + q) + THIRD_TAIL
    u = z * c
    ul = product_error(z, c, u) + (z * cl + zl * c)
    v = 1.0 + u
    vl = ((1.0 - v) + u) + ul
    w = s * v
    wl = product_error(s, v, w) + (s * vl + sl * v)
    w = 2.0 * w
    wl = 2.0 * wl
    t = w * INVLN2
    tl = product_error(w, INVLN2, t) + (w * INVLN2_TAIL + wl * INVLN2)
    high = k + t
    return high, ((k - high) + t if k != 0.0 else (t - high)) + tl


def power_special(x, y, magnitude):
    """C99 F.9.4.4: the signs, zeros, infinities and NaNs of x**y; magnitude is |x|**y for ordinary |x|."""
    a = abs(x)
    whole = np.floor(y) == y
    odd = whole & (np.floor(0.5 * y) != 0.5 * y) & (abs(y) < INF)
    value = magnitude if (a > 0.0) & (a < INF) else (a if y > 0.0 else 1.0 / a)
    value = value if (abs(y) < INF) | (a != 1.0) else np.float64(1.0)
    value = -value if odd & (bits_f8(x) < np.int64(0)) else value
    value = NAN if ((x < 0.0) & (a < INF) & (not whole)) | (x != x) | (y != y) else value
    return np.float64(1.0) if (y == 0.0) | (x == 1.0) else value


def power_f8(x, y):
    limit = 7.378697629483821e19  # 2**66: beyond it every power but that of 1 is 0 or infinite
    c = np.float64(limit) if y > limit else (np.float64(-limit) if y < -limit else y)
    high, low = log2_double(abs(x))
    e = c * high
    return power_special(x, y, exp2_sum(e, product_error(c, high, e) + c * low if abs(e) < 1100.0 else np.float64(0.0)))


def hypot_f8(x, y):
    a = abs(x)
    b = abs(y)
    top = a if a > b else b
    low = b if a > b else a
    scale = np.float64(2.0**-600) if top > 1e150 else (np.float64(2.0**600) if top < 1e-150 else np.float64(1.0))
    back = np.float64(2.0**600) if top > 1e150 else (np.float64(2.0**-600) if top < 1e-150 else np.float64(1.0))
    ts = top * scale
    ls = low * scale
    sum_sq = ts * ts + ls * ls
    lost = (ts * ts - sum_sq + ls * ls) + product_error(ts, ts, ts * ts) + product_error(ls, ls, ls * ls)
    root = np.sqrt(sum_sq)
    better = root + (lost - product_error(root, root, root * root) - (root * root - sum_sq)) / (2.0 * root)
    value = better * back if sum_sq > 0.0 else top
    return INF if (a == INF) | (b == INF) else (value if (x == x) & (y == y) else NAN)
