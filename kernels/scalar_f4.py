"""float32 forms of the transcendental functions.

The ones that programs live on (exp, exp2, log, erf, tanh, sine, cosine) are computed in float32, which has twice the
lanes of float64 on a CPU and up to 64 times the rate on a GPU; the rest are the float64 ones, rounded. All are within
1 ulp of the correctly rounded value.
"""

from __future__ import annotations

import numpy as np

from .scalar_erf import erfc_f8
from .scalar_exp import (
    ROUND_F8,
    ROUND_F8_BITS,
    arccosh_f8,
    arcsinh_f8,
    arctanh_f8,
    cbrt_f8,
    cosh_f8,
    expm1_f8,
    hypot_f8,
    log1p_f8,
    log2_f8,
    log10_f8,
    logaddexp2_f8,
    logaddexp_f8,
    power_f8,
    sinh_f8,
)
from .scalar_float import INF, NAN, bits_f4, bits_f8, copysign_f4, from_bits_f4, scale_f4
from .scalar_trig import (
    PIO2_A,
    TWO_OVER_PI,
    arccos_f8,
    arcsin_f8,
    arctan2_f8,
    arctan_f8,
    cos_kernel,
    sin_kernel,
)

ONE_F4 = np.float32(1.0)
LN2_F4_HI = np.float32(0.693145751953125)  # 15 bits, so that a product with an exponent is exact
LN2_F4_LO = np.float32(1.428606765330187e-06)
INVLN2_F4 = np.float32(1.4426950216293335)
ROUND_F4 = np.float32(12582912.0)  # 1.5 * 2**23, as ROUND_F8
ROUND_F4_BITS = np.int32(0x4B400000)
ROUND_BIASED_F4 = np.float32(12583039.0)  # 127 more: shifted left by 23, the bits are those of a power of two
SQRT_HALF_F4_BITS = np.int32(0x3F3504F3)
TINY_F4 = np.float32(1.1754943508222875e-38)


def exp_reduced_f4(x):
    """(p, w): exp(x) = p * 2**n, for |x| < 130; the low 9 bits of w hold n + 127, the exponent field of 2**n."""
    shifted = x * INVLN2_F4 + ROUND_BIASED_F4
    n = shifted - ROUND_BIASED_F4
    r = (x - n * LN2_F4_HI) - n * LN2_F4_LO
    p = np.float32(0.0013926250394433737) * r + np.float32(0.00836323294788599)
    p = p * r + np.float32(0.04166655242443085)
    p = p * r + np.float32(0.16666576266288757)
    p = p * r + np.float32(0.5)
    p = p * r + ONE_F4
    return p * r + ONE_F4, bits_f4(shifted)


def exp_f4(x):
    """The power of two in two factors, 2**(n ± 64) and 2**-(±64): n goes from -150 to 128."""
    low = np.float32(-104.0) if x < np.float32(-104.0) else x
    c = np.float32(89.0) if low > np.float32(89.0) else low
    p, w = exp_reduced_f4(c)
    below = c < np.float32(0.0)
    first = from_bits_f4((w + (np.int32(64) if below else np.int32(-64))) << np.int32(23))
    return p * first * (np.float32(5.421010862427522e-20) if below else np.float32(1.8446744073709552e19))


def exp_nonpositive_f4(x):
    """exp_f4 where x is known to be 0, below, or NaN: a fifth less to do, equal to the bit."""
    c = np.float32(-104.0) if x < np.float32(-104.0) else x
    p, w = exp_reduced_f4(c)
    return p * from_bits_f4((w + np.int32(64)) << np.int32(23)) * np.float32(5.421010862427522e-20)


def exp2_f4(x):
    low = np.float32(-151.0) if x < np.float32(-151.0) else x
    c = np.float32(129.0) if low > np.float32(129.0) else low
    shifted = c + ROUND_F4
    r = c - (shifted - ROUND_F4)
    q = np.float32(1.5297413483494893e-05) * r + np.float32(0.00015461561270058155)
    q = q * r + np.float32(0.0013333501992747188)
    q = q * r + np.float32(0.009618056006729603)
    q = q * r + np.float32(0.05550410971045494)
    q = q * r + np.float32(0.24022650718688965)
    q = q * r + np.float32(0.6931471824645996)
    return scale_f4(ONE_F4 + r * q, np.int32(bits_f4(shifted) - ROUND_F4_BITS))


def log_f4(x):
    tiny = x < TINY_F4
    b = bits_f4(x * np.float32(8388608.0) if tiny else x)
    e = np.int32(b - SQRT_HALF_F4_BITS) >> np.int32(23)
    f = from_bits_f4(np.int32(b - np.int32(e << np.int32(23)))) - ONE_F4
    k = np.float32(np.int32(e - np.int32(23) if tiny else e))
    q = np.float32(0.06971611827611923) * f + np.float32(-0.11479733884334564)
    q = q * f + np.float32(0.11685419827699661)
    q = q * f + np.float32(-0.12425687164068222)
    q = q * f + np.float32(0.14249058067798615)
    q = q * f + np.float32(-0.1666780263185501)
    q = q * f + np.float32(0.20000715553760529)
    q = q * f + np.float32(-0.2499999701976776)
    q = q * f + np.float32(0.3333333134651184)
    h = np.float32(0.5) * f * f
    value = k * LN2_F4_HI + (f - (h - (k * LN2_F4_LO + f * f * f * q)))
    inner = value if x < np.float32(INF) else x
    return inner if x > np.float32(0.0) else (np.float32(-INF) if x == np.float32(0.0) else np.float32(NAN))


def sigmoid_f4(x):
    """As sigmoid_f8; the last division in float64, or its roundings would add up to more than 1 ulp."""
    e = np.float64(exp_f4(-abs(x)))
    return np.float32((np.float64(1.0) if x >= np.float32(0.0) else e) / (1.0 + e))


def tanh_f4(x):
    """An odd polynomial below 0.63, 1 - 2 / (exp(2 |x|) + 1) above."""
    a = abs(x)
    z = a * a
    q = np.float32(-0.006045165006071329) * z + np.float32(0.020961329340934753)
    q = q * z + np.float32(-0.053843263536691666)
    q = q * z + np.float32(0.1333271861076355)
    q = q * z + np.float32(-0.333333283662796)
    p, w = exp_reduced_f4(np.float32(2.0) * (np.float32(10.0) if a > np.float32(10.0) else a))
    far = ONE_F4 - np.float32(2.0) / (p * from_bits_f4(w << np.int32(23)) + ONE_F4)
    return copysign_f4(a + a * (z * q) if a < np.float32(0.63) else far, x)


def erf_f4(x):
    """x times a polynomial in x**2 below 0.92, 1 - exp(-a P(a)) with a = |x| above."""
    a = abs(x)
    c = np.float32(4.0) if a > np.float32(4.0) else a
    z = c * c
    near = np.float32(8.351897122338414e-05) * z + np.float32(-0.000813879247289151)
    near = near * z + np.float32(0.005200729705393314)
    near = near * z + np.float32(-0.02685929648578167)
    near = near * z + np.float32(0.11283694207668304)
    near = near * z + np.float32(-0.37612634897232056)
    near = near * z + np.float32(0.12837916612625122)
    far = np.float32(-2.9403369694591674e-07) * c + np.float32(4.840379460802069e-06)
    far = far * c + np.float32(-1.5784446077304892e-05)
    far = far * c + np.float32(-0.0002616205019876361)
    far = far * c + np.float32(0.0036252657882869244)
    far = far * c + np.float32(-0.023940280079841614)
    far = far * c + np.float32(0.10657990723848343)
    far = far * c + np.float32(0.6348933577537537)
    far = far * c + np.float32(1.1287200450897217)
    p, w = exp_reduced_f4(-(c * far))
    value = a + a * near if a < np.float32(0.92) else ONE_F4 - p * from_bits_f4(w << np.int32(23))
    return copysign_f4(value, x)


def expm1_f4(x):
    return np.float32(expm1_f8(np.float64(x)))


def log2_f4(x):
    return np.float32(log2_f8(np.float64(x)))


def log10_f4(x):
    return np.float32(log10_f8(np.float64(x)))


def log1p_f4(x):
    return np.float32(log1p_f8(np.float64(x)))


def sinh_f4(x):
    return np.float32(sinh_f8(np.float64(x)))


def cosh_f4(x):
    return np.float32(cosh_f8(np.float64(x)))


def arcsinh_f4(x):
    return np.float32(arcsinh_f8(np.float64(x)))


def arccosh_f4(x):
    return np.float32(arccosh_f8(np.float64(x)))


def arctanh_f4(x):
    return np.float32(arctanh_f8(np.float64(x)))


def cbrt_f4(x):
    return np.float32(cbrt_f8(np.float64(x)))


def arctan_f4(x):
    return np.float32(arctan_f8(np.float64(x)))


def arcsin_f4(x):
    return np.float32(arcsin_f8(np.float64(x)))


def arccos_f4(x):
    return np.float32(arccos_f8(np.float64(x)))


def erfc_f4(x):
    return np.float32(erfc_f8(np.float64(x)))


def logaddexp_f4(x, y):
    return np.float32(logaddexp_f8(np.float64(x), np.float64(y)))


def logaddexp2_f4(x, y):
    return np.float32(logaddexp2_f8(np.float64(x), np.float64(y)))


def power_f4(x, y):
    return np.float32(power_f8(np.float64(x), np.float64(y)))


def hypot_f4(x, y):
    return np.float32(hypot_f8(np.float64(x), np.float64(y)))


def arctan2_f4(x, y):
    return np.float32(arctan2_f8(np.float64(x), np.float64(y)))


# Sine and cosine: reduced in float64, polynomials in float32. 2/pi after six zero bits, for huge arguments:
DIGITS_0 = np.uint64(0x028BE60DB9391054)
DIGITS_1 = np.uint64(0xA7F09D5F47D4D377)
DIGITS_2 = np.uint64(0x036D8A5664F10E41)
DIGITS_3 = np.uint64(0x07F9458EAF7AEF15)
PIO2_REST = np.float64(6.077100506506192e-11)  # pi/2 - PIO2_A


def reduce_huge_f4(x):
    """|x| >= 2**19 as n * pi/2 + r (Payne & Hanek 1983; see reduce_huge): the window's words are chosen, not loaded."""
    b = np.int64(bits_f4(x))
    position = ((b >> np.int64(23)) & np.int64(0xFF)) - np.int64(146)
    m = np.uint64((b & np.int64(0x7FFFFF)) | np.int64(0x800000))
    later = position >= np.int64(64)
    shift = np.uint64(position & np.int64(63))
    back = np.uint64(63) - shift
    a = DIGITS_1 if later else DIGITS_0
    c = DIGITS_2 if later else DIGITS_1
    d = DIGITS_3 if later else DIGITS_2
    first = (a << shift) | ((c >> np.uint64(1)) >> back)
    second = (c << shift) | ((d >> np.uint64(1)) >> back)
    high = m * first + ((m * (second >> np.uint64(32))) >> np.uint64(32))
    n = np.int64((high + np.uint64(0x2000000000000000)) >> np.uint64(62))
    r = np.float64(np.int64(high << np.uint64(2))) * 8.515303950216386e-20  # pi/2 * 2**-64
    return -r if x < 0 else r, -n if x < 0 else n


def reduce_f4(x):
    """(r, n): x = n * pi/2 + r, |r| <= pi/4; n is right modulo 4."""
    wide = np.float64(x)
    shifted = wide * TWO_OVER_PI + ROUND_F8
    n = shifted - ROUND_F8
    r = (wide - n * PIO2_A) - n * PIO2_REST
    k = bits_f8(shifted) - ROUND_F8_BITS
    huge = abs(x) > np.float32(1e6)
    hr, hk = reduce_huge_f4(x)
    return hr if huge else r, hk if huge else k


def sin_or_cos_f4(wide, odd):
    r = np.float32(wide)
    z = r * r
    s = np.float32(2.7249313916399842e-06) * z + np.float32(-0.00019840082677546889)
    s = s * z + np.float32(0.008333331905305386)
    s = s * z + np.float32(-0.1666666716337204)
    c = np.float32(2.4547436623834074e-05) * z + np.float32(-0.0013888300163671374)
    c = c * z + np.float32(0.0416666641831398)
    cosine = ONE_F4 - (np.float32(0.5) * z - z * z * c)
    return cosine if odd else r + r * (z * s)


def sin_f4(x):
    r, n = reduce_f4(x)
    value = sin_or_cos_f4(r, (n & np.int64(1)) != np.int64(0))
    value = -value if (n & np.int64(2)) != np.int64(0) else value
    return (value if x != 0 else x) if abs(x) < np.float32(INF) else np.float32(NAN)


def cos_f4(x):
    r, n = reduce_f4(x)
    value = sin_or_cos_f4(r, (n & np.int64(1)) == np.int64(0))
    value = -value if ((n + np.int64(1)) & np.int64(2)) != np.int64(0) else value
    return value if abs(x) < np.float32(INF) else np.float32(NAN)


def tan_f4(x):
    r, n = reduce_f4(x)
    odd = (n & np.int64(1)) != np.int64(0)
    s = sin_kernel(r, np.float64(0.0))
    c = cos_kernel(r, np.float64(0.0))
    value = np.float32((-c if odd else s) / (s if odd else c))
    return (value if x != 0 else x) if abs(x) < np.float32(INF) else np.float32(NAN)
