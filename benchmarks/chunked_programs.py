"""The programs of ``chunked.py``: each in the words of NumPy, for all libraries, and by hand with numba.

A program takes arrays, and the namespace of functions that they belong to: NumPy's serves fused functions and Dask.
The versions by hand take Dask arrays, and call compiled loops that release the GIL and run on the task's one thread;
what is reduced over chunks takes one more task. They are imported by the workers of a cluster.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import dask.array as da
import numpy as np

CHUNKS = 16  # along the first axis
ROOT = math.sqrt(0.5)
RATE, VOLATILITY = 0.02, 0.3


class Program(NamedTuple):
    """One case: what is computed, of what, and how it is written by hand."""

    title: str
    function: Callable[..., Any]
    by_hand: Callable[..., Any]
    arrays: tuple[np.ndarray[Any, Any], ...]  # those as long as the first are cut, the others are not
    tolerance: float
    overlap: bool = False  # the function takes blocks with a margin of one, and gives them without


def compiled(function: Any) -> Any:
    """Return a loop compiled by numba at its first call, without the GIL."""

    @functools.cache
    def made() -> Any:
        import numba

        return numba.njit(nogil=True, error_model="numpy", cache=True)(function)

    @functools.wraps(function)
    def call(*args: Any) -> Any:
        return made()(*args)

    return call


def cast(x: Any, dtype: Any, xp: Any) -> Any:
    return x.astype(dtype) if hasattr(x, "astype") else xp.astype(x, dtype)


# ---- normalise


def normalise(images: Any, mean: Any, std: Any, xp: Any = np) -> Any:
    x = cast(images, np.float32, xp) / 255
    return xp.permute_dims((x - mean) / std, (0, 3, 1, 2))


@compiled
def normalise_block(images, mean, std):
    count, height, width, channels = images.shape
    out = np.empty((count, channels, height, width), np.float32)
    for n in range(count):
        for c in range(channels):
            for i in range(height):
                for j in range(width):
                    out[n, c, i, j] = (np.float32(images[n, i, j, c]) / np.float32(255) - mean[c]) / std[c]
    return out


def normalise_by_hand(images: Any, mean: Any, std: Any) -> Any:
    count, height, width, channels = images.chunks
    chunks = (count, channels, height, width)
    return images.map_blocks(normalise_block, mean, std, chunks=chunks, dtype=np.float32, meta=_meta(4))


# ---- standardise


def standardise(x: Any, xp: Any = np) -> Any:
    return (x - xp.mean(x, axis=0)) / xp.std(x, axis=0)


@compiled
def moments_block(x):
    rows, columns = x.shape
    state = np.zeros((1, 3, columns))
    state[0, 0, :] = rows
    for i in range(rows):
        for j in range(columns):
            state[0, 1, j] += x[i, j]
    state[0, 1] /= rows
    for i in range(rows):
        for j in range(columns):
            state[0, 2, j] += (x[i, j] - state[0, 1, j]) ** 2
    return state


def joined_moments(states: Any) -> Any:
    count, mean, squares = np.moveaxis(states, 1, 0)
    total = count.sum(axis=0)
    whole = (count * mean).sum(axis=0) / total
    squares = squares.sum(axis=0) + (count * (mean - whole) ** 2).sum(axis=0)
    return np.stack([whole, np.sqrt(squares / total)]).astype(np.float32)


@compiled
def standardise_block(x, state):
    out = np.empty_like(x)
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            out[i, j] = (x[i, j] - state[0, j]) / state[1, j]
    return out


# ---- softmax


def softmax(x: Any, xp: Any = np) -> Any:
    e = xp.exp(x - xp.max(x, axis=0))
    return e / xp.sum(e, axis=0)


@compiled
def exponentials_block(x):
    rows, columns = x.shape
    state = np.zeros((1, 2, columns), np.float32)
    state[0, 0] = x[0]
    for i in range(rows):
        for j in range(columns):
            state[0, 0, j] = max(state[0, 0, j], x[i, j])
    for i in range(rows):
        for j in range(columns):
            state[0, 1, j] += math.exp(x[i, j] - state[0, 0, j])
    return state


def joined_exponentials(states: Any) -> Any:
    largest = states[:, 0].max(axis=0)
    return np.stack([largest, (states[:, 1] * np.exp(states[:, 0] - largest)).sum(axis=0)])


@compiled
def softmax_block(x, state):
    out = np.empty_like(x)
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            out[i, j] = math.exp(x[i, j] - state[0, j]) / state[1, j]
    return out


def two_passes(x: Any, partial: Any, join: Any, last: Any, fields: int, dtype: Any) -> Any:
    """Return what `last` makes of each block and of the joined states of all."""
    chunks = ((1,) * x.numblocks[0], (fields,), x.chunks[1])
    states = x.map_blocks(partial, chunks=chunks, new_axis=1, dtype=dtype, meta=_meta(3, dtype))
    joined = states.rechunk({0: -1}).map_blocks(join, chunks=((2,), x.chunks[1]), drop_axis=0, meta=_meta(2))
    return da.blockwise(
        last, "ij", x, "ij", joined, "kj", concatenate=True, align_arrays=False, dtype=x.dtype, meta=_meta(2)
    )


def standardise_by_hand(x: Any) -> Any:
    return two_passes(x, moments_block, joined_moments, standardise_block, 3, np.float64)


def softmax_by_hand(x: Any) -> Any:
    return two_passes(x, exponentials_block, joined_exponentials, softmax_block, 2, np.float32)


# ---- Black-Scholes


def cumulative_normal(x: Any, xp: Any) -> Any:
    """Abramowitz and Stegun 26.2.17."""
    k = 1 / (1 + 0.2316419 * abs(x))
    series = k * (0.319381530 + k * (-0.356563782 + k * (1.781477937 + k * (-1.821255978 + k * 1.330274429))))
    tail = 0.3989422804014327 * xp.exp(-x * x / 2) * series
    return xp.where(x > 0, 1 - tail, tail)


def black_scholes(price: Any, strike: Any, years: Any, xp: Any = np) -> Any:
    root = VOLATILITY * xp.sqrt(years)
    d1 = (xp.log(price / strike) + (RATE + VOLATILITY * VOLATILITY / 2) * years) / root
    return price * cumulative_normal(d1, xp) - strike * xp.exp(-RATE * years) * cumulative_normal(d1 - root, xp)


@compiled
def black_scholes_block(price, strike, years):
    out = np.empty_like(price)
    for i in range(len(price)):
        root = VOLATILITY * math.sqrt(years[i])
        d1 = (math.log(price[i] / strike[i]) + (RATE + VOLATILITY * VOLATILITY / 2) * years[i]) / root
        value = 0.0
        for part in range(2):
            d = d1 - part * root
            k = 1 / (1 + 0.2316419 * abs(d))
            series = k * (0.319381530 + k * (-0.356563782 + k * (1.781477937 + k * (-1.821255978 + k * 1.330274429))))
            tail = 0.3989422804014327 * math.exp(-d * d / 2) * series
            below = 1 - tail if d > 0 else tail
            value += -strike[i] * math.exp(-RATE * years[i]) * below if part else price[i] * below
        out[i] = value
    return out


def black_scholes_by_hand(*prices: Any) -> Any:
    return da.map_blocks(black_scholes_block, *prices, dtype=np.float64, meta=_meta(1, np.float64))


# ---- smoothing


def smooth(block: Any) -> Any:
    """Return the mean of each element and its eight neighbours, without the margin."""
    rows = block[:-2] + block[1:-1] + block[2:]
    return (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]) / 9


@compiled
def smooth_block(block):
    rows, columns = block.shape
    out = np.empty((rows - 2, columns - 2), np.float32)
    for i in range(rows - 2):
        for j in range(columns - 2):
            total = np.float32(0)
            for k in range(3):
                total += block[i, j + k] + block[i + 1, j + k] + block[i + 2, j + k]
            out[i, j] = total / np.float32(9)
    return out


def overlapped(function: Any, x: Any) -> Any:
    """Return what `function` makes of the blocks of a Dask array with zeros around it."""
    return x.map_overlap(function, depth=1, boundary=0, trim=False, chunks=x.chunks, dtype=x.dtype, meta=x._meta)


# ---- climate anomaly


def anomaly(field: Any, climate: Any, weight: Any, xp: Any = np) -> Any:
    """Twenty operations on (time, place), as xarray code has them."""
    celsius = field - 273.15
    departure = celsius - climate
    scaled = departure / (abs(climate) + 1)
    clipped = xp.clip(scaled, -5, 5)
    warm = xp.where(departure > 0, clipped, 0.0)
    cold = xp.where(departure < 0, -clipped, 0.0)
    index = (warm * warm + cold * 0.5) * weight
    return xp.mean(xp.sqrt(index) + 0.1 * departure - index / (1 + warm), axis=0)


@compiled
def anomaly_block(field, climate, weight):
    rows, columns = field.shape
    total = np.zeros((1, columns))
    zero, five = np.float32(0), np.float32(5)
    for i in range(rows):
        for j in range(columns):
            departure = field[i, j] - np.float32(273.15) - climate[j]
            clipped = min(max(departure / (abs(climate[j]) + np.float32(1)), -five), five)
            warm = clipped if departure > 0 else zero
            cold = -clipped if departure < 0 else zero
            index = (warm * warm + cold * np.float32(0.5)) * weight[j]
            total[0, j] += math.sqrt(index) + np.float32(0.1) * departure - index / (np.float32(1) + warm)
    return total


def anomaly_by_hand(field: Any, climate: Any, weight: Any) -> Any:
    args = (field, "ij", climate, "j", weight, "j")
    ones = {"i": (1,) * field.numblocks[0]}
    sums = da.blockwise(anomaly_block, "ij", *args, adjust_chunks=ones, dtype=np.float64, meta=_meta(2, np.float64))
    return (sums.sum(axis=0) / len(field)).astype(np.float32)


def _meta(ndim: int, dtype: Any = np.float32) -> Any:
    return np.empty((0,) * ndim, dtype)


def programs(size: Callable[[int], int]) -> Sequence[Program]:
    """Return the six cases; `size` makes data smaller for a quick run."""
    random = np.random.default_rng(0)

    def floats(*shape: int) -> np.ndarray[Any, Any]:
        return (3 + 4 * random.standard_normal(shape, np.float32)).astype(np.float32)

    # Dask makes chunks of 128 MiB if it is not told otherwise; these are of 6 to 16, so that all fits into a laptop
    table = floats(size(65_536) // CHUNKS * CHUNKS, 1000)
    images = random.integers(0, 256, (size(8192), 64, 64, 3), np.uint8)
    colours = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    prices = tuple(random.uniform(low, high, size(16_000_000)) for low, high in [(5, 30), (1, 100), (0.25, 10)])
    climate = floats(1000), abs(floats(1000))
    field = floats(len(table), 1000) + np.float32(275)
    return [
        Program("normalise uint8 images to NCHW", normalise, normalise_by_hand, (images, *colours), 1e-6),
        Program("standardise over the chunked axis", standardise, standardise_by_hand, (table,), 1e-5),
        Program("Black-Scholes, float64", black_scholes, black_scholes_by_hand, prices, 1e-9),
        Program("softmax along the chunked axis", softmax, softmax_by_hand, (table,), 3e-5),
        Program("map_overlap smoothing", smooth, smooth_block, (table,), 1e-5, overlap=True),
        Program("climate anomaly, 20 operations", anomaly, anomaly_by_hand, (field, *climate), 1e-4),
    ]
