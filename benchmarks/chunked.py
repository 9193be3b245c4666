"""Fused functions on Dask arrays against plain dask.array, on the same scheduler, data and chunks.

The names of the contenders say how many tasks the scheduler ran, after Dask's own optimisation. "compiled" is the plain
program under ``gp.chunked.install()``. A call builds the graph and computes all chunks; they stay chunks, since putting
them together costs all contenders the same.
"""

from harness import OURS, PEER, Case, largest_error, options, run, size  # isort: split

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import dask
import dask.array as da
import numpy as np

import gpucompute as gp

dask.config.set(scheduler="threads", num_workers=options.threads)
random = np.random.default_rng(0)


def tasks(*arrays: Any) -> int:
    """Return how many tasks the scheduler gets."""
    keys: set[Any] = set()
    for array in dask.optimize(*arrays):
        keys |= set(dict(array.__dask_graph__()))
    return len(keys)


def add_contenders(case: Case, fused: Callable[..., Any], plain: Callable[..., Any], *args: Any) -> Case:
    """Add the three ways; `fused` and `plain` take Dask arrays."""
    ways = [("gpucompute", OURS, fused, False), ("compiled", OURS, plain, True), ("dask.array", PEER, plain, False)]
    for name, group, function, installed in ways:
        context = gp.chunked.install if installed else nullcontext
        with context():
            count = tasks(function(*args))

        def build(function=function, context=context):
            def call():
                with context():
                    return function(*args).persist()

            return call

        case.add(f"{name}, {count} tasks", group)(build)
    case.target("gpucompute", "dask.array", 1.0)
    return case


def case_of(title: str, function: Callable[..., Any], args: tuple[Any, ...], dtype: str, tolerance: float) -> Case:
    """Return a case whose fused and plain versions are the same text; the reference is computed in float64."""
    wide = [arg.astype(np.float64) if arg.dtype.kind == "f" else arg for arg in args]
    reference = function(*wide).compute().astype(np.float64)
    case = Case(title, lambda result: largest_error(result.compute(), reference, dtype), tolerance)
    return add_contenders(case, gp.fuse(function), function, *args)


def normalise(images):
    x = images.astype(np.float32) / 255
    mean = np.array([0.485, 0.456, 0.406], np.float32)
    std = np.array([0.229, 0.224, 0.225], np.float32)
    return ((x - mean) / std).transpose(0, 3, 1, 2)


def standardise(x):
    return (x - x.mean(axis=0)) / x.std(axis=0)


def softmax(x):
    e = np.exp(x - x.max(axis=0))
    return e / e.sum(axis=0)


def cumulative_normal(x):
    """Abramowitz and Stegun 26.2.17."""
    k = 1 / (1 + 0.2316419 * abs(x))
    series = k * (0.319381530 + k * (-0.356563782 + k * (1.781477937 + k * (-1.821255978 + k * 1.330274429))))
    tail = 0.3989422804014327 * np.exp(-x * x / 2) * series
    return np.where(x > 0, 1 - tail, tail)


def black_scholes(price, strike, years):
    rate, volatility = 0.02, 0.3
    root = volatility * np.sqrt(years)
    d1 = (np.log(price / strike) + (rate + volatility * volatility / 2) * years) / root
    return price * cumulative_normal(d1) - strike * np.exp(-rate * years) * cumulative_normal(d1 - root)


def smooth(block):
    """Return the mean of each element and its eight neighbours, on an array with a margin of one."""
    rows = block[:-2] + block[1:-1] + block[2:]
    inner = (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]) / 9
    return np.pad(inner, 1)


def anomaly(field, climate, weight):
    """Twenty operations on (time, place), as xarray code has them."""
    celsius = field - 273.15
    departure = celsius - climate
    scaled = departure / (abs(climate) + 1)
    clipped = np.clip(scaled, -5, 5)
    warm = np.where(departure > 0, clipped, 0)
    cold = np.where(departure < 0, -clipped, 0)
    index = (warm * warm + cold * 0.5) * weight
    return (np.sqrt(index) + 0.1 * departure - index / (1 + warm)).mean(axis=0)


def chunked(array: np.ndarray[Any, Any]) -> da.Array:
    """Return an array in 16 chunks along its first axis."""
    return da.from_array(array, chunks=(-(-len(array) // 16), *array.shape[1:]))


def floats(*shape: int) -> np.ndarray[Any, Any]:
    """Return float32 with mean 3 and deviation 4."""
    return (3 + 4 * random.standard_normal(shape, np.float32)).astype(np.float32)


images = chunked(random.integers(0, 256, (size(2048), 64, 64, 3), np.uint8))
table = chunked(floats(size(16_384), 1000))
prices = [chunked(random.uniform(low, high, size(4_000_000))) for low, high in [(5, 30), (1, 100), (0.25, 10)]]
climate, weight = (da.from_array(floats(1000), chunks=1000) for _ in range(2))


def smoothing() -> Case:
    """Return the case of `smooth` with Dask's exchange of margins."""
    options = {"depth": 1, "boundary": "reflect", "dtype": table.dtype, "meta": table._meta}
    reference = table.astype(np.float64).map_overlap(smooth, depth=1, boundary="reflect").compute()
    case = Case(
        "map_overlap smoothing", lambda result: largest_error(result.compute(), reference, "float32"), tolerance=1e-5
    )
    fused = gp.fuse(smooth)
    return add_contenders(
        case, lambda x: x.map_overlap(fused, **options), lambda x: x.map_overlap(smooth, **options), table
    )


if __name__ == "__main__":
    run(
        case_of("normalise uint8 images to NCHW float32", normalise, (images,), "float32", 1e-6),
        case_of("standardise over the chunked axis", standardise, (table,), "float32", 1e-4),
        case_of("softmax along the chunked axis", softmax, (table,), "float32", 1e-5),
        case_of("Black-Scholes, float64", black_scholes, tuple(prices), "float64", 1e-9),
        smoothing(),
        case_of("climate anomaly, 20 operations and a mean", anomaly, (table, climate, abs(weight)), "float32", 1e-4),
    )
