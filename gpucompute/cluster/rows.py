"""The rows to be clustered: in memory, or in a Dask array, of which each chunk is a task in each pass.

Both offer the same passes: `reduce` (results joined over all blocks), `advance` (for what is kept beside each block
while centres are sought), `at` (one block by its number) and `take` (rows by their numbers).
"""

from __future__ import annotations

import functools
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import DTypeError, ShapeError
from ..launch import cpu
from ..stats import sources
from .host import NOT_KEPT, Array, Block, predict, transform

Step = Callable[..., Any]

MANY = 8  # blocks for each thread; then it costs less that threads wait for the last than that they meet at each


class Memory:
    """Rows in the memory of this process: an array of NumPy's, or those of Dask's chunks."""

    def __init__(self, parts: Sequence[Array], dtype: np.dtype[Any], weights: Array | None) -> None:
        ends = np.cumsum([len(part) for part in parts]).tolist()
        shares = [None] * len(parts) if weights is None else np.split(weights, ends[:-1])
        self.blocks = [Block.of(part, dtype, share) for part, share in zip(parts, shares, strict=True)]
        self.starts = [0, *ends[:-1]]
        self.shape, self.dtype, self.weights = (ends[-1], parts[0].shape[1]), dtype, weights
        # where each pass that finds labels keeps them; those of chunks are lazy
        self.labels = np.empty(ends[-1], np.int32) if len(parts) == 1 else NOT_KEPT

    def reduce(self, step: Step, join: Step, *shared: Any) -> Any:
        """Return ``step(block, *shared)`` of all blocks, joined by ``join(results)``."""
        results = self._each(lambda number: step(self.blocks[number], *shared))
        return join(results) if len(results) > 1 else results[0]

    def advance(self, step: Step, states: Any, *shared: Any) -> tuple[Any, list[Any]]:
        """Return ``step(block, state, *shared)``, pairs of a new state and a result: the states and the results."""
        states = [None] * len(self.blocks) if states is None else states
        pairs = self._each(lambda number: step(self.blocks[number], states[number], *shared))
        return [state for state, _ in pairs], [result for _, result in pairs]

    def _each(self, call: Callable[[int], Any]) -> list[Any]:
        """Return ``call(number)`` of all blocks: one thread for each of many, else all threads for each."""
        results: list[Any] = [None] * len(self.blocks)

        def body(lo: int, hi: int) -> None:
            for number in range(lo, hi):
                results[number] = call(number)

        if len(results) >= MANY * cpu.get_threads():
            cpu.parallel_for(body, len(results))
        else:
            body(0, len(results))
        return results

    def at(self, number: int, step: Step, states: Any, *shared: Any) -> Any:
        """Return ``step(block, state, *shared)`` of one block."""
        return step(self.blocks[number], states[number], *shared)

    def take(self, rows: Sequence[int] | Array) -> Array:
        """Return rows by their numbers."""
        found = [(bisect_right(self.starts, row) - 1, row) for row in map(int, rows)]
        return np.stack([self.blocks[number].x[row - self.starts[number]] for number, row in found])


class Chunked:
    """Rows in the chunks of a Dask array."""

    def __init__(self, x: Any, dtype: np.dtype[Any], weights: Array | None) -> None:
        import dask
        import dask.array as da

        check_fits("KMeans", x, dtype)
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
    parts = [x] if isinstance(x, np.ndarray) else _parts_here(x)
    return Chunked(x, dtype, weights) if parts is None else Memory(parts, dtype, weights)


def _parts_here(x: Any) -> list[Array] | None:
    """Return the chunks of a Dask array if they are there and threads of this process are to compute, else None.

    A pass over 16 chunks takes Dask's threads 10 ms more than the same work without a graph.
    """
    from dask import local, threaded
    from dask.base import get_scheduler

    if x.numblocks[1] > 1 or get_scheduler(collections=[x]) not in (threaded.get, local.get_sync):
        return None
    graph = x.__dask_graph__()
    parts = [graph.get((x.name, number, 0)) for number in range(x.numblocks[0])]
    return parts if all(isinstance(part, np.ndarray) for part in parts) else None


def check_fits(name: str, x: Any, dtype: np.dtype[Any], width: int = 1) -> None:
    """Raise where a task cannot hold rows of a Dask array, their copy in `dtype`, and `width` numbers made of each.

    Raises
    ------
    DeviceMemoryError
        The chunks are too large.
    """
    if isinstance(x, np.ndarray):
        return
    from ..chunked import budget

    rows, n = x.chunks[0], x.shape[1]
    copies = [] if x.dtype == dtype else [((rows, (n,)), dtype)]
    made = [*copies, ((rows, (width,)), dtype)]
    budget.check(name, budget.limit(x._meta), [((rows, (n,)), x.dtype)], made, [])


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
