"""Quantiles of Dask arrays: a pass over the chunks for each digit, or one for a sketch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from math import prod
from typing import Any

import dask.array as da
import numpy as np
from dask.base import tokenize

from ..chunked import budget, layers
from . import passes, radix
from .quantiles import Wanted, sketched_values, sketches
from .sketch import QuantileSketch

Read = Callable[[], Any]


@dataclass(frozen=True)
class Count:
    """The task that counts digits in a chunk, or collects candidates, or does nothing if all is known."""

    wanted: Wanted
    bits: tuple[int, int]

    def __call__(self, read: Read, search: radix.Search | None = None) -> radix.Part:
        if search is not None and search.done:
            return radix.Part(search)
        x = read()
        if search is None:
            search = self.wanted.search(self.wanted.kept(x.shape), self.bits)
        return search.part(radix.by_columns(x, self.wanted.axes))


@dataclass(frozen=True)
class Finish:
    """The last task: the quantiles, when all order statistics are known."""

    wanted: Wanted

    def __call__(self, part: radix.Part) -> Any:
        search = radix.advanced(part)
        return self.wanted.result(search.kept, search.values)


def exact(wanted: Wanted, x: da.Array) -> da.Array:
    """Return the quantiles of a Dask array."""
    front, dtype = wanted.q.ndim, wanted.result_dtype()
    if all(x.numblocks[axis] == 1 for axis in wanted.axes):
        return _of_whole_columns(wanted, x, dtype)
    columns = prod(max(x.chunks[axis]) for axis in range(x.ndim) if axis not in wanted.axes)
    width = x.dtype.itemsize * 8
    bits = radix.digit_bits(width, columns, len(wanted.ranks))
    nbytes = 8 * columns * max(1 << bits[0], len(wanted.ranks) << bits[1])
    kept = tuple(axis for axis in range(x.ndim) if axis not in wanted.axes)
    count = Count(wanted, bits)
    known: list[Any] = []
    last = radix.passes(width, bits)
    for number in range(1, last + 1):
        partial = passes.partial_states("quantile-count", count, x, known, nbytes=nbytes)
        if number == last:
            found = passes.joined("quantile", partial, wanted.axes, radix.joined, Finish(wanted), front=front)
            return passes.array_of(found, wanted.q.shape, dtype)
        found = passes.joined("quantile-narrow", partial, wanted.axes, radix.joined, radix.advanced)
        known = [(found, kept)]
    raise AssertionError(last)


def _of_whole_columns(wanted: Wanted, x: da.Array, dtype: np.dtype[Any]) -> da.Array:
    """Return the quantiles along axes that have one chunk."""
    kept = [axis for axis in range(x.ndim) if axis not in wanted.axes]
    places = tuple(wanted.q.ndim + kept.index(axis) if axis in kept else None for axis in range(x.ndim))
    chunks = (*((n,) for n in wanted.q.shape), *(x.chunks[axis] for axis in kept))
    result, copy = (chunks, dtype), (x.chunks, x.dtype)  # which NumPy sorts
    budget.check("quantile", budget.limit(x._meta), [(x.chunks, x.dtype)], [result, copy], [])
    name = f"quantile-{tokenize(wanted, x.name)}"
    graph = layers.blockwise_layer(name, wanted.of_whole, [(x, places)], chunks, located=False)
    return layers.array(graph, name, chunks, dtype, x._meta)


@dataclass(frozen=True)
class Sketch:
    """The task that makes sketches of the columns of a chunk."""

    wanted: Wanted
    error: float

    def __call__(self, read: Read) -> tuple[tuple[int, ...], list[QuantileSketch]]:
        x = read()
        return self.wanted.kept(x.shape), sketches(self.wanted, x, self.error)


def _merged(states: list[Any]) -> Any:
    """Return sketches of all that the states are of; none of them changes."""
    kept, columns = states[0]
    merged = []
    for number in range(len(columns)):
        merged.append(reduce(QuantileSketch.merge, (given[number] for _, given in states), columns[number].empty()))
    return kept, merged


@dataclass(frozen=True)
class FinishSketch:
    """The last task of a sketch: the quantiles."""

    wanted: Wanted

    def __call__(self, state: Any) -> Any:
        kept, columns = state
        return self.wanted.result(kept, sketched_values(columns, self.wanted))


def sketched(wanted: Wanted, x: da.Array, error: float) -> da.Array:
    """Return the quantiles of a Dask array from sketches."""
    partial = passes.partial_states("quantile-sketch", Sketch(wanted, error), x, nbytes=8 * radix.COUNTS)
    state = passes.joined("quantile", partial, wanted.axes, _merged, FinishSketch(wanted), front=wanted.q.ndim)
    return passes.array_of(state, wanted.q.shape, np.float64)


def sketch(x: da.Array, error: float) -> QuantileSketch:
    """Return a sketch of all elements of a Dask array, computed."""
    axes = tuple(range(x.ndim))
    wanted = Wanted(x.dtype, x.size, axes, np.array(0.5), True, "linear")
    partial = passes.partial_states("quantile-sketch", Sketch(wanted, error), x, nbytes=8 * radix.COUNTS)
    state = passes.joined("quantile-merge", partial, axes, _merged)
    found: QuantileSketch = passes.computed(state)[1][0]
    return found
