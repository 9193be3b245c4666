"""Accuracy and speed of the scalar functions.

    python benchmarks/accuracy.py                     # sampled error and time of every transcendental, as a table
    python benchmarks/accuracy.py exp erf             # of these
    python benchmarks/accuracy.py --exhaustive exp    # float32: all 2**32 arguments against float64 (minutes)

Errors are distances from the correctly rounded value, in units in the last place. The oracle of the exhaustive run is
float64 (NumPy, SciPy for the error function), that of the sampled one mpmath. Times are the best of several runs over
200,000 elements on one thread.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np

import gpucompute.ops as ops

CHUNK = 1 << 24
TIMED = 200_000


def kernel(name: str, dtype: np.dtype[Any], nin: int) -> Callable[..., None]:
    """A compiled loop that applies a scalar function."""
    names = "xyz"[:nin]
    read = ", ".join(f"{v}[i]" for v in names)
    namespace = ops.compiled_namespace()
    head = f"def loop({', '.join(names)}, out):\n    for i in range(out.size):\n"
    source = head + f"        out[i] = np.{dtype.name}({name}({read}))\n"
    exec(source, namespace)
    return numba.njit(nogil=True, error_model="numpy")(namespace["loop"])  # type: ignore[no-any-return]


def double_oracle(name: str) -> Callable[..., np.ndarray]:
    """The operation in float64."""
    if name in ("erf", "erfc", "sigmoid"):
        from scipy import special

        return getattr(special, "expit" if name == "sigmoid" else name)  # type: ignore[no-any-return]
    return getattr(np, name)  # type: ignore[no-any-return]


def ordered(x: np.ndarray) -> np.ndarray:
    """Integers whose differences count the floats between, -0.0 and 0.0 being one."""
    bits = x.view(np.int32).astype(np.int64)
    return np.where(bits < 0, -(bits & 0x7FFFFFFF), bits)


def exhaustive(name: str) -> None:
    """Every float32 argument of a unary function."""
    loop = kernel(f"{name}_f4", np.dtype("f4"), 1)
    oracle = double_oracle(name)
    counts = np.zeros(4, np.int64)
    worst, place, wrong_nan = 0, np.float32(0), 0
    got = np.empty(CHUNK, np.float32)
    for start in range(0, 1 << 32, CHUNK):
        x = np.arange(start, start + CHUNK, dtype=np.uint64).astype(np.uint32).view(np.float32)
        loop(x, got)
        with np.errstate(all="ignore"):
            true = oracle(x.astype(np.float64)).astype(np.float32)
        nan = np.isnan(true)
        wrong_nan += int(np.count_nonzero(nan != np.isnan(got)))
        distance = np.where(nan, 0, np.abs(ordered(got) - ordered(true)))
        counts += np.bincount(np.minimum(distance, 3), minlength=4)
        if distance.max() > worst:
            worst, place = int(distance.max()), x[distance.argmax()]
        if sys.stderr.isatty():
            print(f"\r{name}: {start / 2**32:.0%}, worst {worst} ulp", end="", file=sys.stderr)
    print(
        f"{name}_f4: all 2**32 arguments, worst {worst} ulp at {place!r}; "
        f"0 ulp {counts[0]}, 1 ulp {counts[1]}, 2 ulp {counts[2]}, more {counts[3]}, NaN wrongly {wrong_nan}"
    )


def sampled(name: str, code: str) -> None:
    """Sampled error, and time an element."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    import scalar_oracle as oracle

    dtype = np.dtype(code)
    arrays = oracle.arguments(name, dtype, 400, np.random.default_rng(0))
    loop = kernel(ops.OPS[name].scalar((dtype,) * len(arrays)), dtype, len(arrays))
    got = np.empty_like(arrays[0])
    loop(*arrays, got)
    error, place = oracle.error_in_ulp(name, arrays, got)
    ordinary = [np.resize(a[np.abs(a) < 20], TIMED) for a in arrays]
    out = np.empty(TIMED, dtype)
    times = []
    for _ in range(15):
        begin = time.perf_counter()
        loop(*ordinary, out)
        times.append(time.perf_counter() - begin)
    print(
        f"| {name} | {code} | {min(times) / TIMED * 1e9:.2f} | {error:.0f} | {ops.OPS[name].ulp[code]} | {place} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="operations; all transcendental ones by default")
    parser.add_argument("--exhaustive", action="store_true", help="all float32 arguments of unary functions")
    options = parser.parse_args()
    names = options.names or [op.name for op in ops.OPS.values() if op.ulp and op.name != "float_power"]
    if options.exhaustive:
        for name in names:
            if ops.OPS[name].nin == 1:
                exhaustive(name)
        return
    print("| operation | dtype | ns/element | max ulp | bound | worst at |\n|---|---|---|---|---|---|")
    for name in names:
        for code in ("f4", "f8"):
            sampled(name, code)


if __name__ == "__main__":
    main()
