"""What the statistics mean, written slowly: Python's integers for bytes, the tree of reductions for floats."""

from __future__ import annotations

import numpy as np

from gpucompute.fusion import tree


def statistics(x):
    """x: (outer, channels, inner) -> mean, m2, smallest, largest: (channels,)."""
    channels = np.moveaxis(x, 1, 0).reshape(x.shape[1], -1)
    if x.dtype == np.uint8:
        return tuple(map(np.array, zip(*map(of_bytes, channels), strict=True)))
    rows = channels.T
    with np.errstate(all="ignore"):
        mean, m2 = tree.fold(rows, np.add) / np.float32(len(rows)), tree.squares(rows)
    return mean, m2, *(np.array(found) for found in zip(*map(extrema, channels), strict=True))


def of_bytes(values):
    numbers = values.tolist()
    n, total = len(numbers), sum(numbers)
    mean, rest = divmod(total, n)
    distance = sum((v - mean) ** 2 for v in numbers)  # from a whole number; from the mean it is rest²/n less
    m2 = np.float64(distance) - np.float64(rest) * np.float64(rest) / np.float64(n)
    return np.float64(total) / np.float64(n), m2, min(values), max(values)


def extrema(values):
    """The smallest and the largest, -0 before 0; both NaN if one is."""
    if np.isnan(values).any():
        return np.float32(np.nan), np.float32(np.nan)
    ordered = sorted(values.tolist(), key=lambda v: (v, np.copysign(1, v)))
    return np.float32(ordered[0]), np.float32(ordered[-1])
