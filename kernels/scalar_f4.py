"""float32 forms of the transcendental functions."""

from __future__ import annotations

import numpy as np

from .scalar_erf import erf_f8, erfc_f8
from .scalar_exp import (
    arccosh_f8,
    arcsinh_f8,
    arctanh_f8,
    cbrt_f8,
    cosh_f8,
    exp_f8,
    exp2_f8,
    expm1_f8,
    hypot_f8,
    log_f8,
    log10_f8,
    log1p_f8,
    log2_f8,
    logaddexp_f8,
    logaddexp2_f8,
    power_f8,
    sigmoid_f8,
    sinh_f8,
    tanh_f8,
)
from .scalar_trig import arccos_f8, arcsin_f8, arctan_f8, arctan2_f8, cos_f8, sin_f8, tan_f8


def exp_f4(x):
    return np.float32(exp_f8(np.float64(x)))


def exp2_f4(x):
    return np.float32(exp2_f8(np.float64(x)))


def expm1_f4(x):
    return np.float32(expm1_f8(np.float64(x)))


def log_f4(x):
    return np.float32(log_f8(np.float64(x)))


def log2_f4(x):
    return np.float32(log2_f8(np.float64(x)))


def log10_f4(x):
    return np.float32(log10_f8(np.float64(x)))


def log1p_f4(x):
    return np.float32(log1p_f8(np.float64(x)))


def sigmoid_f4(x):
    return np.float32(sigmoid_f8(np.float64(x)))


def sinh_f4(x):
    return np.float32(sinh_f8(np.float64(x)))


def cosh_f4(x):
    return np.float32(cosh_f8(np.float64(x)))


def tanh_f4(x):
    return np.float32(tanh_f8(np.float64(x)))


def arcsinh_f4(x):
    return np.float32(arcsinh_f8(np.float64(x)))


def arccosh_f4(x):
    return np.float32(arccosh_f8(np.float64(x)))


def arctanh_f4(x):
    return np.float32(arctanh_f8(np.float64(x)))


def cbrt_f4(x):
    return np.float32(cbrt_f8(np.float64(x)))


def sin_f4(x):
    return np.float32(sin_f8(np.float64(x)))


def cos_f4(x):
    return np.float32(cos_f8(np.float64(x)))


def tan_f4(x):
    return np.float32(tan_f8(np.float64(x)))


def arctan_f4(x):
    return np.float32(arctan_f8(np.float64(x)))


def arcsin_f4(x):
    return np.float32(arcsin_f8(np.float64(x)))


def arccos_f4(x):
    return np.float32(arccos_f8(np.float64(x)))


def erf_f4(x):
    return np.float32(erf_f8(np.float64(x)))


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
