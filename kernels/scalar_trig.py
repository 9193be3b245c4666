"""Trigonometric functions and their inverses in float64, of plain arithmetic without branches."""

from __future__ import annotations

import numpy as np

from .scalar_exp import ROUND_F8, ROUND_F8_BITS
from .scalar_float import INF, NAN, bits_f8, copysign_f8, product_error

PIO2 = np.float64(1.5707963267948966)
PIO2_TAIL = np.float64(6.123233995736766e-17)
# pi/2 in three parts of 33 bits, whose products with a quotient below 2**20 are exact, and the rest
PIO2_A = np.float64(1.5707963267341256)
PIO2_B = np.float64(6.077100506303966e-11)
PIO2_C = np.float64(2.0222662487111665e-21)
PIO2_D = np.float64(8.4784276603689e-32)
TWO_OVER_PI = np.float64(0.6366197723675814)
MASK32 = np.uint64(0xFFFFFFFF)
TWO_OVER_PI_BITS = np.array(  # the binary digits of 2/pi, 62 zeros before the point
    [
        0x0000000000000002,
        0x8BE60DB9391054A7,
        0xF09D5F47D4D37703,
        0x6D8A5664F10E4107,
        0xF9458EAF7AEF1586,
        0xDC91B8E909374B80,
        0x1924BBA827464873,
        0xF877AC72C4A69CFB,
        0xA208D7D4BAED1213,
        0xA671C09AD17DF904,
        0xE64758E60D4CE7D2,
        0x72117E2EF7E4A0EC,
        0x7FE25FFF7816603F,
        0xBCBC462D6829B47D,
        0xB4D9FB3C9F2C26DD,
        0x3D18FD9A797FA8B5,
        0xD49EEB1FAF97C5EC,
        0xF41CE7DE294A4BA9,
        0xAFED7EC47E357421,
        0x580CC11BF1EDAEAF,
        0xC33EF0826BD0D876,
    ],
    np.uint64,
)


def two_sum_error(a, b, total):
    """a + b - total, exactly (Knuth)."""
    v = total - a
    return (a - (total - v)) + (b - v)


def high_product(a, b):
    """The upper 64 bits of a * b."""
    al = a & MASK32
    ah = a >> np.uint64(32)
    bl = b & MASK32
    bh = b >> np.uint64(32)
    middle = ah * bl + ((al * bl) >> np.uint64(32))
    other = al * bh + (middle & MASK32)
    return ah * bh + (middle >> np.uint64(32)) + (other >> np.uint64(32))


def reduce_huge(x):
    """As reduce_pio2, for any finite |x| >= 2**-8 (Payne & Hanek 1983).

    |x| = m * 2**e: of the digits of 2/pi, those before position e - 1 only add multiples of 4 to the quotient, and
    those 192 further on are too small to matter (no float64 is closer than 2**-62 to a multiple of pi/2).
    """
    b = bits_f8(x)
    exponent = (b >> np.int64(52)) & np.int64(0x7FF)
    m = np.uint64((b & np.int64(0xFFFFFFFFFFFFF)) | np.int64(0x10000000000000))
    position = np.uint64(exponent - np.int64(1015) if exponent > np.int64(1015) else np.int64(0))
    word = position >> np.uint64(6)
    shift = position & np.uint64(63)
    back = np.uint64(63) - shift
    w0 = TWO_OVER_PI_BITS[word]
    w1 = TWO_OVER_PI_BITS[word + np.uint64(1)]
    w2 = TWO_OVER_PI_BITS[word + np.uint64(2)]
    w3 = TWO_OVER_PI_BITS[word + np.uint64(3)]
    d0 = (w0 << shift) | ((w1 >> np.uint64(1)) >> back)
    d1 = (w1 << shift) | ((w2 >> np.uint64(1)) >> back)
    d2 = (w2 << shift) | ((w3 >> np.uint64(1)) >> back)
    low = m * d1
    total = low + high_product(m, d2)
    high = m * d0 + high_product(m, d1) + (np.uint64(1) if total < low else np.uint64(0))
    n = np.int64((high >> np.uint64(62)) + ((high >> np.uint64(61)) & np.uint64(1)))
    part = np.int64(high << np.uint64(2)) >> np.int64(2)  # the fraction in [-1/2, 1/2), times 2**62
    t = np.float64(part >> np.int64(30)) * 2.3283064365386963e-10  # 2**-32
    u = np.float64(part & np.int64(0x3FFFFFFF)) * 2.168404344971009e-19  # 2**-62
    u = u + np.float64(np.int64(total >> np.uint64(11))) * 2.407412430484045e-35  # 2**-115
    f = t + u
    g = (t - f) + u
    r = f * PIO2
    rl = product_error(f, PIO2, r) + (f * PIO2_TAIL + g * PIO2)
    s = r + rl
    sl = (r - s) + rl
    negative = b < np.int64(0)
    return -s if negative else s, -sl if negative else sl, -n if negative else n


def reduce_pio2(x):
    """(r, low, n): x = n * pi/2 + r + low with |r| <= pi/4; n is right modulo 4."""
    shifted = x * TWO_OVER_PI + ROUND_F8
    n = shifted - ROUND_F8
    t = x - n * PIO2_A
    b = -(n * PIO2_B)
    u = t + b
    ul = two_sum_error(t, b, u)
    c = -(n * PIO2_C)
    v = u + c
    vl = two_sum_error(u, c, v) + ul - n * PIO2_D
    r = v + vl
    low = (v - r) + vl
    k = bits_f8(shifted) - ROUND_F8_BITS
    if abs(x) > 1e6:
        r, low, k = reduce_huge(x)
    return r, low, k


def sin_kernel(r, low):
    z = r * r
    q = 1.591784866512194e-10 * z - 2.505112794596564e-08
    q = q * z + 2.755731608382574e-06
    q = q * z - 0.00019841269836722437
    q = q * z + 0.008333333333330925
    q = q * z - 0.16666666666666666
    return r + (low * (1.0 - 0.5 * z) + r * (z * q))


def cos_kernel(r, low):
    z = r * r
    q = -1.1382456865840483e-11 * z + 2.0876143829213935e-09
    q = q * z - 2.755731726001471e-07
    q = q * z + 2.480158729874308e-05
    q = q * z - 0.0013888888888887382
    q = q * z + 0.041666666666666664
    h = 0.5 * z
    w = 1.0 - h
    return w + (((1.0 - w) - h) + (z * (z * q) - r * low))


def sin_f8(x):
    r, low, n = reduce_pio2(x)
    value = cos_kernel(r, low) if (n & np.int64(1)) != np.int64(0) else sin_kernel(r, low)
    value = -value if (n & np.int64(2)) != np.int64(0) else value
    return (value if x != 0.0 else x) if abs(x) < INF else NAN


def cos_f8(x):
    r, low, n = reduce_pio2(x)
    value = sin_kernel(r, low) if (n & np.int64(1)) != np.int64(0) else cos_kernel(r, low)
    value = -value if ((n + np.int64(1)) & np.int64(2)) != np.int64(0) else value
    return value if abs(x) < INF else NAN


def tan_f8(x):
    r, low, n = reduce_pio2(x)
    s = sin_kernel(r, low)
    c = cos_kernel(r, low)
    odd = (n & np.int64(1)) != np.int64(0)
    value = (-c if odd else s) / (s if odd else c)
    return (value if x != 0.0 else x) if abs(x) < INF else NAN


def arctan_tail(t):
    """atan(t) - t for |t| <= sqrt(2) - 1."""
    z = t * t
    q = 0.01627194475162406 * z - 0.034558092551413795
    q = q * z + 0.04551108126325172
    q = q * z - 0.052303478730160745
    q = q * z + 0.058789145444006215
    q = q * z - 0.06666423628069258
    q = q * z + 0.0769229630497447
    q = q * z - 0.09090908751076636
    q = q * z + 0.11111111105106705
    q = q * z - 0.14285714285659326
    q = q * z + 0.199999999999998
    q = q * z - 0.3333333333333333
    return t * (z * q)


def arctan_ratio(y, x, turn):
    """turn + atan(y / x) for y, x >= 0, not both 0 or infinite; turn is 0, or -pi to be subtracted from."""
    low = y <= 0.41421356237309503 * x
    high = y > 2.414213562373095 * x
    t = (y if low else (-x if high else y - x)) / (x if low else (y if high else x + y))
    base = np.float64(0.0) if low else (PIO2 if high else 0.5 * PIO2)
    tail = np.float64(0.0) if low else (PIO2_TAIL if high else 0.5 * PIO2_TAIL)
    tail = tail + (-2.0 * PIO2_TAIL if turn else np.float64(0.0))
    base = base - (2.0 * PIO2 if turn else np.float64(0.0))
    head = base + t
    return head + (((base - head) + t if base != 0.0 else t - head) + (tail + arctan_tail(t)))


def arctan_f8(x):
    a = abs(x)
    value = arctan_ratio(a if a < INF else np.float64(1.0), np.float64(1.0) if a < INF else np.float64(0.0), False)
    return copysign_f8(value, x) if x == x else x


def arctan2_f8(y, x):
    a = abs(y)
    b = abs(x)
    # scaled so that neither the quotient's sums overflow nor its terms get lost below the smallest number
    big = (a > 1e300) | (b > 1e300)
    scale = np.float64(2.0**-200) if big else np.float64(2.0**200) if (a < 1e-200) & (b < 1e-200) else np.float64(1.0)
    same = a == b
    num = np.float64(1.0) if same else (a * scale if a < INF else np.float64(1.0))
    den = np.float64(1.0) if same else (b * scale if b < INF else np.float64(1.0))
    num = np.float64(0.0) if (b == INF) & (a < INF) else num
    den = np.float64(0.0) if (a == INF) & (b < INF) else den
    num = np.float64(0.0) if same & (a == 0.0) else num
    turn = bits_f8(x) < np.int64(0)
    value = arctan_ratio(num, den, turn)
    value = -value if turn else value
    return copysign_f8(value, y) if (x == x) & (y == y) else NAN


def arcsin_tail(z):
    """asin(s)/s - 1 for z = s*s <= 1/4."""
    q = 0.028799050522138873 * z - 0.014910967384172082
    q = q * z + 0.01743786618606299
    q = q * z + 0.005444236358400044
    q = q * z + 0.010325825844686153
    q = q * z + 0.011478727335132069
    q = q * z + 0.013971257700218363
    q = q * z + 0.01735238980570733
    q = q * z + 0.022372173062100795
    q = q * z + 0.03038194413563282
    q = q * z + 0.04464285714639142
    q = q * z + 0.07499999999998415
    q = q * z + 0.16666666666666669
    return q * z


def arcsin_f8(x):
    a = abs(x)
    near = a < 0.5
    z = a * a if near else 0.5 * (1.0 - a)
    s = a if near else np.sqrt(z)
    tail = arcsin_tail(z)
    far = PIO2 - (2.0 * (s + s * tail) - PIO2_TAIL)
    return copysign_f8(a + a * tail if near else far, x) if x == x else x


def arccos_f8(x):
    a = abs(x)
    near = a < 0.5
    z = a * a if near else 0.5 * (1.0 - a)
    s = a if near else np.sqrt(z)
    tail = arcsin_tail(z)
    signed = copysign_f8(s, x)
    middle = PIO2 - (signed - (PIO2_TAIL - signed * tail))
    far = 2.0 * (s + s * tail)
    far = 2.0 * (PIO2 - (s + (s * tail - PIO2_TAIL))) if x < 0.0 else far
    return middle if near else far
