"""A tour of `fuse` on a scientific array program: daily temperatures on a grid, from anomalies to degree days.

    python examples/climate_tour.py            # 730 days on a grid of 90 × 180: 47 MB
    python examples/climate_tour.py --days 60  # quicker

Every step is written in NumPy's words and runs twice: as it is, by NumPy, and fused. The results are compared, and
the times of both are printed, whichever is faster. Takes about 4 seconds on a CPU, and the first time some more to
compile. On two cores of a Xeon it prints:

    temperatures: float32 (730, 90, 180), 47.3 MB

    1. anomalies: minus the mean of each place, over its standard deviation
       largest difference from NumPy 8.7e-06; NumPy 63.4 ms, fused 6.2 ms, 10.2 times as fast

    2. smooth: a running mean of five days, from slices
       largest difference from NumPy 0.0e+00; NumPy 76.9 ms, fused 5.1 ms, 15.0 times as fast

    3. warm spots: a softmax over each circle of latitude
       largest difference from NumPy 4.8e-07; NumPy 63.0 ms, fused 7.1 ms, 8.9 times as fast

    4. summary: mean, extremes, days of frost and degree days, at once
       largest difference from NumPy 2.7e-06; NumPy 67.2 ms, fused 5.2 ms, 12.9 times as fast

    What the first step runs:
    anomalies: 2 kernels, 142 MB moved, at least 5.48 ms at 26.0 GB/s
    1. sum, m2 over axes (0,) of 730 × 90 × 180, then elementwise
       because a reduction is complete only after all of its elements
       reads 47.3 MB, writes 130 kB
    2. elementwise over 730 × 90 × 180
       because it is returned
       reads 47.4 MB, writes 47.3 MB

    30 days more: kernels compiled anew: 0
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

import gpucompute as gp

Array = NDArray[np.float32]
REPEATS = 5


def temperatures(days: int, rows: int = 90, columns: int = 180) -> Array:
    """Return degrees Celsius, (days, latitudes, longitudes): warm at the equator, seasons, and weather."""
    random = np.random.default_rng(0)
    latitude = np.linspace(-np.pi / 2, np.pi / 2, rows, dtype=np.float32)[:, None]
    season = np.sin(2 * np.pi * np.arange(days, dtype=np.float32) / 365.25)[:, None, None]
    weather = random.standard_normal((days, rows, columns), dtype=np.float32)
    return 30 * np.cos(latitude) - 8 - 12 * np.sin(latitude) * season + 3 * weather


def anomalies(t: Array) -> Array:
    """Reductions over the days, and what is made of them: the array is read twice and written once."""
    return (t - t.mean(axis=0)) / t.std(axis=0)


def smooth(t: Array) -> Array:
    """Slices: five days weighed 1 4 6 4 1 (a binomial filter), two days lost at each end, read once."""
    return (t[:-4] + 4 * t[1:-3] + 6 * t[2:-2] + 4 * t[3:-1] + t[4:]) / 16


def warm_spots(t: Array) -> Array:
    """Softmax: the share of each place in its circle of latitude, on each day; the warmest places have most of it."""
    weight = np.exp(t - t.max(axis=-1, keepdims=True))
    return weight / weight.sum(axis=-1, keepdims=True)


def summary(t: Array) -> dict[str, Array]:
    """Several results of one call, with `where` and conditions: they share the pass over the data."""
    return {
        "mean": t.mean(axis=0),
        "coldest": t.min(axis=0),
        "warmest": t.max(axis=0),
        "frost_days": (t < 0).sum(axis=0),
        "degree_days": np.where(t > 10, t - 10, 0).sum(axis=0),  # what crops grow by
    }


STEPS: tuple[tuple[str, Callable[[Array], Any]], ...] = (
    ("anomalies: minus the mean of each place, over its standard deviation", anomalies),
    ("smooth: a running mean of five days, from slices", smooth),
    ("warm spots: a softmax over each circle of latitude", warm_spots),
    ("summary: mean, extremes, days of frost and degree days, at once", summary),
)


def main() -> None:
    """Run every step both ways."""
    parser = argparse.ArgumentParser(description="a tour of gpucompute.fuse")
    parser.add_argument("--days", type=int, default=730, help="at least 5 (730)")
    t = temperatures(max(5, parser.parse_args().days))
    print(f"temperatures: {t.dtype} {t.shape}, {t.nbytes / 1e6:.1f} MB")
    for number, (title, function) in enumerate(STEPS, 1):
        fused = gp.fuse(function)
        difference = max(map(largest_difference, parts(fused(t)), parts(function(t))))
        plain, quick = seconds(function, t), seconds(fused, t)
        speed = f"{plain / quick:.1f} times as fast" if quick < plain else f"{quick / plain:.1f} times as slow"
        print(f"\n{number}. {title}")
        print(f"   largest difference from NumPy {difference:.1e}; ", end="")
        print(f"NumPy {plain * 1e3:.1f} ms, fused {quick * 1e3:.1f} ms, {speed}")

    print("\nWhat the first step runs:")
    first = gp.fuse(anomalies)
    print(repr(first.explain(t)))  # str() shows the kernels' source as well

    before = gp.cache_info().compiled
    first(temperatures(len(t) + 30))
    print(f"\n30 days more: kernels compiled anew: {gp.cache_info().compiled - before}")


def parts(result: Any) -> list[Array]:
    """Return the arrays of a result."""
    return list(result.values()) if isinstance(result, dict) else [result]


def largest_difference(a: Array, b: Array) -> float:
    """Return the largest difference, absolute where values are small and relative where they are large."""
    return float((np.abs(a - b) / np.maximum(1, np.abs(b))).max())


def seconds(function: Callable[[Array], Any], t: Array) -> float:
    """Return the best of a few calls. Results are dropped at once, and gpucompute reuses their memory."""
    times = []
    for _ in range(REPEATS):
        began = perf_counter()
        function(t)
        times.append(perf_counter() - began)
    return min(times)


if __name__ == "__main__":
    main()
