"""The error function and its complement in float64."""

from __future__ import annotations

import numpy as np

from .scalar_exp import exp_sum_f8
from .scalar_float import copysign_f8, upper

TWO_OVER_SQRT_PI = np.float64(1.1283791670955126)


def erf_near(x):
    """erf(x) for |x| <= 1."""
    z = x * x
    q = 6.174097221305255e-11 * z - 1.1500357159785296e-09
    q = q * z + 1.4692484859133263e-08
    q = q * z - 1.6355118610877705e-07
    q = q * z + 1.6461446656928561e-06
    q = q * z - 1.4925622504489842e-05
    q = q * z + 0.00012055332214716276
    q = q * z - 0.0008548327010033328
    q = q * z + 0.005223977625303518
    q = q * z - 0.026866170645123838
    q = q * z + 0.11283791670955111
    q = q * z - 0.37612638903183754
    return x * TWO_OVER_SQRT_PI + x * (z * q)


def erfc_far(a):
    """erfc(a) for a in [1/2, 29]: (1 + 2a) exp(a*a) erfc(a) is a polynomial in (a - 4)/(a + 4).

    The variable is that of Shepherd & Laframboise (1981), "Chebyshev approximation of (1 + 2x) exp(x**2) erfc x".
    """
    c = np.float64(29.0) if a > 29.0 else a
    t = (c - 4.0) / (c + 4.0)
    q = 1.2868186391484246e-09 * t + 1.9389565991275174e-09
    q = q * t - 1.408922730961662e-08
    q = q * t - 1.8184199806971624e-08
    q = q * t + 1.0993980640840464e-07
    q = q * t + 7.491789135082537e-08
    q = q * t - 8.252727493350701e-07
    q = q * t + 2.936688030676073e-07
    q = q * t + 5.709629675261918e-06
    q = q * t - 1.1222015496282597e-05
    q = q * t - 2.4399172870686758e-05
    q = q * t + 0.00015062169462125237
    q = q * t - 0.00019925670474788313
    q = q * t - 0.0007577732983635298
    q = q * t + 0.005031969979399385
    q = q * t - 0.016197734055679282
    q = q * t + 0.037167515537377856
    q = q * t - 0.06633036581244672
    q = q * t + 0.09373283499835361
    q = q * t - 0.10103906603629266
    q = q * t + 0.06809705425469259
    q = q * t + 0.015379652102619523
    q = q * t - 0.13962111684056253
    q = q * t + 1.2329951186255526
    # exp(-c*c) with the square split: the high part exact, the rest given apart
    ch = upper(c)
    rest = (c - ch) * (c + ch)
    d = 1.0 + 2.0 * c
    lost = (1.0 - d) + 2.0 * c
    return exp_sum_f8(-(ch * ch), rest + lost / d, np.int64(0)) * (q / d)


def erf_f8(x):
    a = abs(x)
    value = erf_near(a) if a < 1.0 else 1.0 - erfc_far(a)
    return copysign_f8(value, x) if x == x else x


def erfc_f8(x):
    a = abs(x)
    far = erfc_far(a)
    near = 1.0 - erf_near(x)
    value = near if a < 0.5 else (2.0 - far if x < 0.0 else far)
    return value if x == x else x
