"""Histograms of Dask arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import dask.array as da
import numpy as np
from numpy.typing import NDArray

from ..errors import OptionError
from ..fusion import fuse
from . import histograms, passes

Array = NDArray[Any]
Read = Callable[[], Any]


def histogram(x: da.Array, bins: Any, range: Any, weights: Any, density: bool) -> tuple[Any, Any]:
    """Return counts, lazy, and edges, lazy where chunks must be read to know them."""
    if isinstance(bins, str):
        raise OptionError(f"bins={bins!r} of a Dask array: expected a number or edges; NumPy's rules need the array")
    if range is None and np.ndim(bins) == 0 and not prod(x.shape):
        range = (0, 1)  # NumPy's, if there is nothing
    known = None
    if range is not None or np.ndim(bins):
        known = histograms.edges_of(x.dtype, bins, range)
    if weights is None and histograms.counted_by_value(x.dtype):
        counts, edges = _by_value(x, bins, range, known)
    else:
        counts, edges = _between(x, bins, range, known, weights)
    if density:
        counts = counts / np.diff(edges).astype(float) / counts.sum()
    return counts, edges if known is None else known


def _axes(x: da.Array) -> tuple[int, ...]:
    return tuple(np.arange(x.ndim).tolist())


def _sum(states: list[Array]) -> Array:
    return np.asarray(np.sum(states, axis=0, dtype=states[0].dtype))  # small integers wrap, as NumPy's do


@dataclass(frozen=True)
class Bins:
    """The options that say which edges there are.

    Attributes
    ----------
    dtype : numpy.dtype
        Of the numbers.
    bins : int or array
    range : (float, float) or None
    """

    dtype: np.dtype[Any]
    bins: Any
    range: Any

    def edges(self, *extent: Any) -> Array:
        """Return the edges for numbers between the smallest and the largest."""
        return histograms.edges_of(self.dtype, self.bins, self.range, extent or None)


@dataclass(frozen=True)
class CountValues:
    """The task that counts how often each value is in a chunk."""

    def __call__(self, read: Read) -> Array:
        return histograms.value_counts(read())


@dataclass(frozen=True)
class OfValues(Bins):
    """The task that makes a histogram and edges of the counts of values."""

    def __call__(self, counts: Array) -> tuple[Array, Array]:
        return histograms.of_values(counts, self.dtype, self.bins, self.range)


def _by_value(x: da.Array, bins: Any, range: Any, known: Array | None) -> tuple[da.Array, Any]:
    nbytes = 8 << 8 * x.dtype.itemsize
    partial = passes.partial_states("histogram-count", CountValues(), x, nbytes=nbytes)
    both = passes.joined("histogram-edges", partial, _axes(x), _sum, OfValues(x.dtype, bins, range))
    length = len(known) if known is not None else int(bins) + 1
    edge_dtype = known.dtype if known is not None else np.float64
    counts = passes.item_of(both, 0, "histogram", (length - 1,), np.int64)
    return counts, passes.item_of(both, 1, "histogram-edges", (length,), edge_dtype) if known is None else known


@dataclass(frozen=True)
class CountBetween(Bins):
    """The task that counts the elements of a chunk between edges."""

    def __call__(self, read: Read, *extent: Any) -> Array:
        return histograms.counts_between(read(), self.edges(*extent), even=np.ndim(self.bins) == 0)


@dataclass(frozen=True)
class SumBetween(Bins):
    """The same for sums of weights."""

    def __call__(self, read: Read, weights: Array, *extent: Any) -> Array:
        range = extent or self.range
        return histograms.weighted(read(), self.bins, range, weights)[0]


@dataclass(frozen=True)
class MakeEdges(Bins):
    """The task that makes edges of a smallest and a largest value."""

    def __call__(self, *extent: Any) -> Array:
        return self.edges(*extent)


def _between(x: da.Array, bins: Any, range: Any, known: Array | None, weights: Any) -> tuple[da.Array, Any]:
    others: list[Any] = []
    dtype = np.dtype(np.int64)
    if weights is not None:
        if np.shape(weights) != x.shape:
            raise OptionError(
                f"weights of shape {np.shape(weights)} for an array of shape {x.shape}: expected the same"
            )
        weights = da.asarray(weights).rechunk(x.chunks)
        dtype = weights.dtype.newbyteorder("=")
        others = [(weights.astype(dtype), _axes(x))]
    extent = [] if known is not None else list(fuse(histogram_extent)(x))
    others += [(value, ()) for value in extent]
    task = (CountBetween if weights is None else SumBetween)(x.dtype, bins, range)
    length = len(known) if known is not None else int(bins) + 1
    partial = passes.partial_states("histogram-count", task, x, others, nbytes=8 * length)
    state = passes.joined("histogram", partial, _axes(x), _sum, front=1)
    counts = passes.array_of(state, (length - 1,), dtype)
    if known is not None:
        return counts, known
    made = MakeEdges(x.dtype, bins, range)
    edge_dtype = made.edges(*np.zeros(2, x.dtype)).dtype
    edges = da.map_blocks(
        made,
        *extent,
        new_axis=0,
        chunks=((length,),),
        dtype=edge_dtype,
        meta=np.empty(0, edge_dtype),
        name="histogram-edges",
    )
    return counts, edges


def histogram_extent(x: Any) -> Any:
    """Return the smallest and the largest value, in one pass when fused."""
    return x.min(), x.max()
