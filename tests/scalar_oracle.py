"""True values of the transcendental operations: the oracles of the accuracy tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

mp: Any = pytest.importorskip("mpmath", reason="the oracle for float64")
BITS = 1300  # so that sin of the largest float64 is right


def _log_of_sum(base: Any, x: Any, y: Any) -> Any:
    return mp.log(base**x + base**y, base)


MPMATH: dict[str, Callable[..., Any]] = {
    **{
        n: getattr(mp, n)
        for n in ("exp", "expm1", "log", "log10", "log1p", "sinh", "cosh", "tanh", "sin", "cos", "tan")
    },
    **{n: getattr(mp, n) for n in ("erf", "erfc", "hypot", "power")},
    **{f"arc{n}": getattr(mp, f"a{n}") for n in ("sin", "cos", "tan", "sinh", "cosh", "tanh")},
    "arctan2": mp.atan2,
    "float_power": mp.power,
    "cbrt": lambda x: mp.sign(x) * mp.cbrt(abs(x)),
    "exp2": lambda x: mp.mpf(2) ** x,
    "log2": lambda x: mp.log(x, 2),
    "sigmoid": lambda x: 1 / (1 + mp.exp(-x)),
    "logaddexp": lambda x, y: _log_of_sum(mp.e, x, y),
    "logaddexp2": lambda x, y: _log_of_sum(mp.mpf(2), x, y),
}


def arguments(name: str, dtype: np.dtype, count: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Ordinary arguments of an operation: where its result is finite, with its difficult places crowded."""
    wide = np.exp2(rng.uniform(-30, 30, count))
    near_one = np.abs(1 + rng.normal(0, 0.2, count))
    signed = np.concatenate([rng.normal(0, 1, count), rng.uniform(-8, 8, count)])
    if name in ("log", "log2", "log10"):
        values = [np.concatenate([wide, near_one])]
    elif name == "arccosh":
        values = [1 + np.concatenate([wide, near_one])]
    elif name in ("arcsin", "arccos", "arctanh"):
        values = [np.concatenate([rng.uniform(-1, 1, count), 1 / (1 + wide)])]
    elif name == "log1p":
        values = [np.concatenate([wide, near_one - 1 + 1e-9])]
    elif name in ("sin", "cos", "tan"):
        top = 100 if dtype.itemsize == 4 else 1000
        values = [np.concatenate([signed, np.exp2(rng.uniform(-10, top, count)), np.arange(1, count) * (np.pi / 2)])]
    elif name in ("power", "float_power"):
        values = [
            np.concatenate([near_one, wide]),
            np.concatenate([rng.uniform(-80, 80, count), rng.normal(0, 2, count)]),
        ]
    elif name in ("arctan2", "hypot", "logaddexp", "logaddexp2"):
        values = [signed, rng.permutation(signed)]
    elif name in ("cbrt", "arctan", "arcsinh"):
        values = [np.concatenate([signed, -wide])]
    else:
        values = [np.concatenate([signed, rng.uniform(-80, 80, count), 1 / wide])]
    return [v.astype(dtype) for v in values]


def error_in_ulp(name: str, arrays: list[np.ndarray], results: np.ndarray) -> tuple[float, tuple]:
    """Largest distance from the correctly rounded value in units in the last place, and where it is.

    The sum of exponentials is measured in units of its larger operand where that is larger: near 0 the result is the
    difference of two rounded numbers, here as in NumPy.
    """
    worst, place = 0.0, ()
    with mp.workprec(BITS if name in ("sin", "cos", "tan") else 160):
        for *operands, got in zip(*arrays, results, strict=True):
            true = MPMATH[name](*(mp.mpf(float(v)) for v in operands))
            with np.errstate(over="ignore"):
                rounded = results.dtype.type(float(true))
            size = max(abs(v) for v in (rounded, *operands)) if name.startswith("logaddexp") else abs(rounded)
            if not np.isfinite(size):
                continue
            steps = abs(float(got) - float(rounded)) / float(np.spacing(size))
            if not steps <= worst:
                worst, place = steps, tuple(operands)
    return worst, place
