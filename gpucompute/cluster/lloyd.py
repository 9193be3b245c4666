"""Lloyd's iteration: label the rows, move each centre to the mean of its rows, until the centres stay."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import fixed
from .fixed import Fixed, Scales
from .host import Array, add, assign, extent, farthest, join_farthest, moments, widen
from .rows import Rows


@dataclass(frozen=True)
class Data:
    """Rows with what must be known of all of them before distances can be added."""

    rows: Rows
    extent: Array  # (2, d)
    heaviest: float  # the largest weight

    @classmethod
    def of(cls, rows: Rows) -> Data:
        """Look at all values once."""
        return cls(rows, rows.reduce(extent, widen), 1.0 if rows.weights is None else float(rows.weights.max()))

    def scales(self, centres: Array | None = None) -> Scales:
        """Return the scales for these centres, or for such as lie between the rows."""
        return fixed.scales(self.extent, centres, self.rows.shape[0], self.heaviest)

    def tolerance(self, tol: float) -> float:
        """Return `tol` times the mean of the features' variances."""
        if tol == 0:
            return 0.0
        low, high = self.extent.astype(np.float64)
        centre, n = low + (high - low) / 2, self.rows.shape[0]
        bits = fixed.bits_for(n)
        reach = np.maximum(high - centre, centre - low).tolist()
        scale = np.array([Fixed(fixed.exponent(value), bits).scale for value in reach])
        square_scale = np.array([Fixed(fixed.exponent(value * value), bits).scale for value in reach])
        (sums,) = self.rows.reduce(moments, add, centre, scale, square_scale)
        return tol * math.fsum(fixed.variances(sums, n, scale, square_scale)) / len(centre)


@dataclass(frozen=True)
class Pass:
    """What one pass over the rows finds for some centres."""

    scales: Scales
    sums: Array  # (k, d) int64
    weights: Array  # (k,) int64
    inertia: float

    @classmethod
    def over(cls, data: Data, centres: Array) -> Pass:
        """Label the rows (`data.rows.labels`, if they are in memory) and add up."""
        scales = data.scales(centres)
        sums, totals = data.rows.reduce(assign, add, centres, scales, data.rows.labels)
        return cls(scales, sums[:, :-1], sums[:, -1], scales.distances.value(scales.distances.whole(totals)))

    def cluster_weights(self) -> Array:
        """Return the weight of each cluster, float64: the number of its rows, if they have no weights."""
        found: Array = self.weights / self.scales.values[-1]
        return found


@dataclass(frozen=True)
class Found:
    """Where an iteration ended."""

    centres: Array
    last: Pass  # with these centres
    n_iter: int


def iterate(data: Data, centres: Array, max_iter: int, tolerance: float, verbose: bool) -> Found:
    """Iterate from `centres`. `tolerance`: of the sum of squared movements of the centres, at which to end."""
    for number in range(1, max_iter + 1):
        last = Pass.over(data, centres)
        moved = _moved(data, last, centres)
        shift = math.fsum(np.square(moved.astype(np.float64) - centres).ravel().tolist())
        if verbose:
            print(f"Iteration {number}, inertia {last.inertia:.6g}, centres moved by {math.sqrt(shift):.3g}")
        stayed, centres = np.array_equal(moved, centres), moved
        if stayed:  # as they do when no row has changed its cluster: equal sums of equal rows
            return Found(centres, last, number)
        if shift <= tolerance:
            break
    return Found(centres, Pass.over(data, centres), number)


def _moved(data: Data, found: Pass, centres: Array) -> Array:
    """Return the mean of the rows of each cluster; empty ones get the rows farthest from their centres."""
    sums, weights = found.sums, found.weights
    if not weights.all():
        sums, weights = _relocated(data, found, centres)
    filled = weights > 0
    kept = weights[filled] / found.scales.values[-1]
    moved = np.empty_like(centres)
    moved[filled] = fixed.means(sums[filled], found.scales.values[:-1], kept)
    moved[~filled] = moved[weights.argmax()]  # more clusters than different rows
    return moved


def _relocated(data: Data, found: Pass, centres: Array) -> tuple[Array, Array]:
    """Take for each empty cluster one of the farthest rows out of its own."""
    sums, weights = found.sums.copy(), found.weights.copy()
    empty = np.flatnonzero(weights == 0)
    join: Any = functools.partial(join_farthest, count=len(empty))
    distances, labels, row_weights, rows = data.rows.reduce(farthest, join, centres, len(empty))
    if distances[0] == 0:
        return sums, weights
    scale = found.scales.values
    for target, source, weight, row in zip(empty, labels, row_weights, rows, strict=False):
        value = np.rint(row.astype(np.float64) * weight * scale[:-1]).astype(np.int64)
        one = int(np.rint(weight * scale[-1]))
        sums[source] -= value
        weights[source] -= one
        sums[target], weights[target] = value, one
    return sums, weights
