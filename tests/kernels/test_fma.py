"""The fused multiply-add of compiled functions, against exact fractions, with and without the instruction."""

from __future__ import annotations

import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Array = np.ndarray[Any, Any]

PROGRAM = """
import sys
import numba
import numpy as np
from gpucompute.kernels.cpu.fma import fma

@numba.njit
def multiply_add(a, b, c, out):
    for i in range(len(out)):
        out[i] = fma(a[i], b[i], c[i])

for path in sys.argv[1:]:
    a, b, c = np.load(path)
    out = np.empty_like(a)
    multiply_add(a, b, c, out)
    np.save(path, out)
"""


def rounded(value: Fraction, dtype: np.dtype[Any]) -> Any:
    """Return the nearest number of a format, of two the even one."""
    format_ = np.finfo(dtype)
    if value == 0:
        return dtype.type(0)
    exponent = abs(value.numerator).bit_length() - value.denominator.bit_length()
    exponent -= abs(value) < Fraction(2) ** exponent
    unit = Fraction(2) ** (max(exponent, int(format_.minexp)) - format_.nmant)
    return dtype.type(float(round(value / unit) * unit))


def operands(dtype: np.dtype[Any]) -> Array:
    """Return numbers a, b and c, (3, n): of like and unlike size, cancelling, tiny, and in the middle of two others."""
    rng = np.random.default_rng(0)
    bits = np.finfo(dtype).nmant + 1
    a, b, c = rng.normal(size=(3, 400)) * 2.0 ** rng.integers(-bits, bits, (3, 400))
    c[:100] = (-(a * b).astype(dtype))[:100]
    a[100:200] *= 2.0 ** (int(np.finfo(dtype).minexp) // 2)
    b[100:200] *= 2.0 ** (int(np.finfo(dtype).minexp) // 2)
    c[100:200] *= 2.0 ** int(np.finfo(dtype).minexp)
    # a * a is in the middle of two numbers and c decides, but is lost in a sum of twice the bits
    a[200:300] = b[200:300] = 1 + 2.0 ** -(bits // 2)
    c[200:300] = np.copysign(2.0 ** -(3 * bits), rng.normal(size=100))
    return np.stack([a, b, c]).astype(dtype)


@pytest.mark.parametrize("instruction", [True, False])
def test_rounds_once(instruction: bool, tmp_path: Path) -> None:
    cases = {dtype: operands(np.dtype(dtype)) for dtype in ("float32", "float64")}
    paths = [str(tmp_path / f"{dtype}.npy") for dtype in cases]
    for path, values in zip(paths, cases.values(), strict=True):
        np.save(path, values)
    plain = {} if instruction else {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}
    subprocess.run([sys.executable, "-c", PROGRAM, *paths], check=True, env={**os.environ, **plain})
    for path, values in zip(paths, cases.values(), strict=True):
        found, separate = np.load(path), values[0] * values[1] + values[2]
        exact = [Fraction(a) * Fraction(b) + Fraction(c) for a, b, c in values.T.tolist()]
        np.testing.assert_array_equal(found, [rounded(value, values.dtype) for value in exact])
        assert np.count_nonzero(found != separate) > 100
