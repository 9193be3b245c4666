"""The rows to be clustered: an array in memory, or a Dask array, of which each chunk is a task in each pass.

Both offer the same passes: `reduce` (results joined over all blocks), `advance` (for what is kept beside each block
while centres are sought), `at` (one block by its number) and `take` (rows by their numbers).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import DTypeError, ShapeError
from ..stats import sources
from .host import NOT_KEPT, Array, Block, predict, transform

Step = Callable[..., Any]


class Memory:
    """Rows in one array of NumPy's."""

    def __init__(self, x: Array, dtype: np.dtype[Any], weights: Array | None) -> None:
        self.block = Block.of(x, dtype, weights)
        self.shape, self.dtype, self.weights = x.shape, dtype, weights
        self.labels = np.empty(len(x), np.int32)  # where each pass that finds labels keeps them

    def reduce(self, step: Step, join: Step, *shared: Any) -> Any:
        """Return ``step(block, *shared)`` of all blocks, joined by ``join(results)``."""
        return step(self.block, *shared)

    def advance(self, step: Step, states: Any, *shared: Any) -> tuple[Any, list[Any]]:
        """Return ``step(block, state, *shared)``, pairs of a new state and a result: the states and the results."""
        state, result = step(self.block, states, *shared)
        return state, [result]

    def at(self, number: int, step: Step, states: Any, *shared: Any) -> Any:
        """Return ``step(block, state, *shared)`` of one block."""
        return step(self.block, states, *shared)

    def take(self, rows: Sequence[int] | Array) -> Array:
        """Return rows by their numbers."""
        found: Array = self.block.x[np.asarray(rows)]
        return found


class Chunked:
    """Rows in the chunks of a Dask array."""

    def __init__(self, x: Any, dtype: np.dtype[Any], weights: Array | None) -> None:
        import dask
        import dask.array as da

        (self.x,) = dask.optimize(x.rechunk({1: -1}) if x.numblocks[1] > 1 else x)
        self.shape, self.dtype, self.weights = x.shape, dtype, weights
        self.labels = NOT_KEPT
        # sent once; all passes then refer to them
        self._weights = None if weights is None else da.from_array(weights, chunks=(self.x.chunks[0],)).persist()

    def reduce(self, step: Step, join: Step, *shared: Any) -> Any:
        """Return ``step(block, *shared)`` of all blocks, joined by ``join(results)``."""
        name = f"kmeans-{step.__name__}-join"
        return (
            self._each(functools.partial(_call, step, self.dtype), step, None, shared).joined(name, join).compute()[0]
        )

    def advance(self, step: Step, states: Any, *shared: Any) -> tuple[Any, list[Any]]:
        """Return ``step(block, state, *shared)``, pairs of a new state and a result: the states and the results."""
        import dask

        pairs = self._each(functools.partial(_call_with, step, self.dtype), step, states, shared)
        made, results = dask.persist(pairs, pairs.items(1))
        return made.items(0), results.compute()

    def at(self, number: int, step: Step, states: Any, *shared: Any) -> Any:
        """Return ``step(block, state, *shared)`` of one block."""
        found = self._each(functools.partial(_call_with, step, self.dtype), step, states, shared)
        found.keys = found.keys[number : number + 1]
        return found.compute()[0]

    def take(self, rows: Sequence[int] | Array) -> Array:
        """Return rows by their numbers."""
        import dask

        return np.stack(dask.compute(*(self.x[int(row)] for row in rows))).astype(self.dtype, copy=False)

    def _each(self, call: Step, step: Step, states: Any, shared: tuple[Any, ...]) -> Any:
        from .tasks import over_chunks

        return over_chunks(f"kmeans-{step.__name__}", call, self.x, self._weights, states, shared)


def _call(step: Step, dtype: np.dtype[Any], shared: tuple[Any, ...], x: Any, weights: Any, state: Any) -> Any:
    return step(Block.of(x, dtype, weights), *shared)


def _call_with(step: Step, dtype: np.dtype[Any], shared: tuple[Any, ...], x: Any, weights: Any, state: Any) -> Any:
    return step(Block.of(x, dtype, weights), state, *shared)


Rows = Memory | Chunked


def given(x: Any, name: str) -> Any:
    """Return `x` as a Dask array, if it is one or a store, else as one of NumPy's.

    Raises
    ------
    DTypeError
        It lies on a GPU, or holds no real numbers.
    ShapeError
        It is not two-dimensional, or has no rows or columns.
    """
    x = sources.chunked(x, name) if sources.is_chunked(x) else sources.host_array(x, name)
    if x.dtype.kind not in "buif" or x.dtype.itemsize > 8:
        raise DTypeError(f"{name} of {x.dtype}: expected real numbers; convert it with .astype")
    if x.ndim != 2 or 0 in x.shape:
        hint = "; x.reshape(-1, 1) makes rows of single values" if x.ndim == 1 else ""
        raise ShapeError(f"{name} of shape {x.shape}: expected (rows, features), at least one of each{hint}")
    return x


def rows_of(x: Any, dtype: np.dtype[Any], weights: Array | None) -> Rows:
    """Return what `given` returned as rows."""
    return Memory(x, dtype, weights) if isinstance(x, np.ndarray) else Chunked(x, dtype, weights)


def labels_of(x: Any, centres: Array) -> Any:
    """Return the label of each row; lazy for a Dask array."""
    if isinstance(x, np.ndarray):
        return predict(x, centres)
    return _lazy(x, predict, centres, {"dtype": np.int32, "drop_axis": 1})


def distances_of(x: Any, centres: Array) -> Any:
    """Return the distance of each row to each centre; lazy for a Dask array."""
    if isinstance(x, np.ndarray):
        return transform(x, centres)
    return _lazy(x, transform, centres, {"dtype": centres.dtype, "chunks": (x.chunks[0], (len(centres),))})


def _lazy(x: Any, function: Step, centres: Array, options: dict[str, Any]) -> Any:
    from dask.base import tokenize

    x = x.rechunk({1: -1}) if x.numblocks[1] > 1 else x
    name = f"kmeans-{function.__name__}-{tokenize(x, centres)}"
    meta = np.empty((0,) if "drop_axis" in options else (0, 0), options["dtype"])
    return x.map_blocks(function, centres=centres, name=name, meta=meta, **options)
