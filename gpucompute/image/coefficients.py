"""Which pixels make an output pixel, and with which weights: the filters of Pillow's ``Resample.c``.

Checked against Pillow 13. Everything is float64 but for the edges of the box, which Pillow holds as float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import OptionError

ONE = 1 << 22  # of the fixed-point coefficients: 32 less 8 of the pixel and 2 for sums beyond 1 and below 0
UNROLLED = 6  # tap counts that the kernels have loops for; longer filters are padded to a multiple of STEP
STEP = 4

Floats = NDArray[np.float64]
Filter = tuple[float, Callable[[Floats], Floats]]


def _each(function: Callable[[float], float], x: Floats) -> Floats:
    """Apply a function of the C library, as Pillow does; NumPy's own sine and cosine differ in the last bit."""
    return np.array([function(v) for v in x.ravel().tolist()], dtype=np.float64).reshape(x.shape)


def _sinc(x: Floats) -> Floats:
    safe = np.where(x == 0, 1.0, x * math.pi)
    return np.where(x == 0, 1.0, _each(math.sin, safe) / safe)


def _box(x: Floats) -> Floats:
    return ((x > -0.5) & (x <= 0.5)).astype(np.float64)


def _triangle(x: Floats) -> Floats:
    return np.maximum(1.0 - np.abs(x), 0.0)


def _hamming(x: Floats) -> Floats:
    x = np.abs(x)
    window = float(np.float32(0.54)) + float(np.float32(0.46)) * _each(math.cos, x * math.pi)
    return np.where(x == 0, 1.0, np.where(x >= 1, 0.0, _sinc(x) * window))


def _bicubic(x: Floats) -> Floats:
    x = np.abs(x)
    near = ((-0.5 + 2.0) * x - (-0.5 + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * -0.5
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _lanczos(x: Floats) -> Floats:
    return np.where((x >= -3) & (x < 3), _sinc(x) * _sinc(x / 3), 0.0)


FILTERS: dict[str, Filter] = {
    "box": (0.5, _box),
    "bilinear": (1.0, _triangle),
    "hamming": (1.0, _hamming),
    "bicubic": (2.0, _bicubic),
    "lanczos": (3.0, _lanczos),
}
INTERPOLATIONS = ("nearest", *FILTERS)


def check_interpolation(interpolation: str) -> str:
    """Return `interpolation` if there is one of that name."""
    if interpolation not in INTERPOLATIONS:
        raise OptionError(f"interpolation={interpolation!r}: expected one of {', '.join(INTERPOLATIONS)}")
    return interpolation


class Windows(NamedTuple):
    """Output i is the sum of ``weights[i, j] * x[first[i] + j]`` for j below ``taps[i]``."""

    first: NDArray[np.int64]
    taps: NDArray[np.int64]
    weights: Floats


class FixedWindows(NamedTuple):
    """Output i is the sum of ``weights[i, j] * x[first[i] + j]``, in units of 2**-22.

    Taps that pad a row weigh 0, and may lie beyond the last input.
    """

    first: NDArray[np.int32]
    weights: NDArray[np.int32]


def vertical_first(height: int, width: int, resized_height: int, resized_width: int) -> bool:
    """Return whether the rows are weighted before the columns: since Pillow 13, where that makes less work."""
    lost = height - resized_height
    return lost > 0 and lost > 2 * (width - resized_width)


@lru_cache(maxsize=256)
def windows(size: int, resized: int, start: float, stop: float, interpolation: str, antialias: bool) -> Windows:
    """Return the windows that resize [start, stop) of an axis of `size` pixels to `resized` pixels."""
    if interpolation == "nearest":
        index = nearest_index(size, resized, start, stop)
        return Windows(index, np.ones_like(index), np.ones((resized, 1)))
    radius, filter_ = FILTERS[interpolation]
    scale = float(np.float32(stop) - np.float32(start)) / resized
    stretch = max(scale, 1.0) if antialias else 1.0
    support = radius * stretch
    centre = float(np.float32(start)) + (np.arange(resized) + 0.5) * scale
    first = np.maximum((centre - support + 0.5).astype(np.int64), 0)
    count = np.minimum((centre + support + 0.5).astype(np.int64), size) - first
    tap = np.arange(count.max())
    weights = filter_((tap + first[:, None] - centre[:, None] + 0.5) * (1.0 / stretch))
    weights[tap >= count[:, None]] = 0.0
    total = np.cumsum(weights, axis=1)[:, -1:]  # added in order, as Pillow does; np.sum adds pairwise
    np.divide(weights, total, out=weights, where=total != 0)
    return Windows(first, count, weights)


@lru_cache(maxsize=256)
def fixed_windows(
    size: int, resized: int, start: float, stop: float, interpolation: str, antialias: bool
) -> FixedWindows:
    """Return `windows` in fixed point, without taps that weigh nothing, padded to a tap count the kernels have."""
    first, _, exact = windows(size, resized, start, stop, interpolation, antialias)
    weights = np.trunc(exact * ONE + np.copysign(0.5, exact)).astype(np.int32)
    used = weights != 0
    skipped = used.argmax(axis=1)
    kept = weights.shape[1] - used[:, ::-1].argmax(axis=1) - skipped
    taps = int(kept.max())
    padded = taps if taps <= UNROLLED else -(-taps // STEP) * STEP
    column = skipped[:, None] + np.arange(padded)
    inside = np.take_along_axis(weights, np.minimum(column, weights.shape[1] - 1), axis=1)
    inside[column >= weights.shape[1]] = 0
    return FixedWindows((first + skipped).astype(np.int32), inside)


def nearest_index(size: int, resized: int, start: float, stop: float) -> NDArray[np.int64]:
    """Return the pixel that each output pixel copies.

    Positions are added up step by step, as in Pillow's affine scaling, and so carry its rounding.
    """
    scale = float(np.float32(stop) - np.float32(start)) / resized
    steps = np.full(resized, scale)
    steps[0] = float(np.float32(start)) + scale * 0.5
    return np.minimum(np.cumsum(steps).astype(np.int64), size - 1)
