"""Dask's layers for stages. `optimise.py`, `foreign.py` and `siblings.py` know too how Dask writes graphs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import dask.array as da
import numpy as np
from dask.array.utils import meta_from_array
from dask.blockwise import blockwise
from dask.highlevelgraph import HighLevelGraph
from dask.layers import ArrayBlockwiseDep
from dask.task_spec import Task, TaskRef

from . import blocks

Chunks = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Tuples:
    """Chunks that are tuples or lists of Python: results of a stage that are taken apart where they are read."""

    name: str
    chunks: Chunks
    dask: Any  # the graph
    meta: Any  # an array of the kind of what it holds

    @property
    def numblocks(self) -> tuple[int, ...]:
        """How many chunks there are along each axis."""
        return tuple(map(len, self.chunks))

    def __dask_layers__(self) -> tuple[str]:
        return (self.name,)

    def __dask_graph__(self) -> Any:
        return self.dask

    def __dask_tokenize__(self) -> Any:
        return "gpucompute.Tuples", self.name


class Places(ArrayBlockwiseDep):  # type: ignore[misc]  # Dask has no types
    """Tells a task for each axis the number of its block, where it begins and how long it is."""

    def __init__(self, chunks: Chunks) -> None:
        super().__init__(chunks)
        self.starts = tuple(blocks.starts(along) for along in chunks)

    def __getitem__(self, idx: tuple[int, ...]) -> Any:
        along = zip(idx, self.starts, self.chunks, strict=True)
        return tuple((i, starts[i], lengths[i]) for i, starts, lengths in along)

    def __dask_tokenize__(self) -> Any:
        return "gpucompute.Places", self.chunks


def blockwise_layer(
    name: str,
    function: Callable[..., Any],
    sources: Sequence[tuple[Any, tuple[int | None, ...]]],
    chunks: Chunks,
    located: bool,
) -> Any:
    """Return a graph with one task for each block.

    Parameters
    ----------
    name : str
        Of the layer, the first part of its keys.
    function : callable
        Takes a block of each source, and its `Place` if `located`.
    sources : sequence of (array, axes)
        For each axis of the array the axis of the result that its blocks follow; None: it has one block.
    chunks : tuple
        Of the results.
    """
    arrays = [array for array, _ in sources]
    if not chunks:
        args = [TaskRef((array.name, *(0 for _ in array.numblocks))) for array in arrays]
        key = (name,)
        layer: Any = {key: Task(key, function, *args, *([()] if located else []))}
        return HighLevelGraph.from_collections(name, layer, dependencies=arrays)
    labels = tuple(range(len(chunks)))
    pairs: list[Any] = []
    covered = {axis for _, axes in sources for axis in axes if axis is not None}
    for array, axes in sources:
        index = []
        for axis in axes:
            # one block suits every axis; those of the result that nobody follows need an array that does
            label = axis if axis is not None else next((free for free in labels if free not in covered), 0)
            covered.add(label)
            index.append(label)
        pairs += [array.name, tuple(index)]
    if located:
        pairs += [Places(chunks), labels]
        covered.update(labels)
    layer = blockwise(
        function,
        name,
        labels,
        *pairs,
        numblocks={array.name: array.numblocks for array in arrays},
        new_axes={axis: 1 for axis in labels if axis not in covered},
    )
    return HighLevelGraph.from_collections(name, layer, dependencies=arrays)


def array(graph: Any, name: str, chunks: Chunks, dtype: np.dtype[Any], like: Any) -> da.Array:
    """Return the Dask array of a layer; `like` is an array of the kind that its chunks are."""
    return da.Array(graph, name, chunks, meta=meta_from_array(like, len(chunks), dtype))


def tree(
    names: tuple[str, str],
    partial: Tuples,
    axes: Sequence[int],
    fan_in: int,
    join: Callable[[bool, bool], Callable[..., Any]],
    *,
    front: int = 0,
) -> Tuples:
    """Return joined states: blocks along the axes of the chunks that are not among `axes`.

    Parameters
    ----------
    names : tuple of str
        Of the last tasks, and of those before.
    partial : Tuples
        The states of the chunks.
    axes : sequence of int
        The axes over which states are joined.
    fan_in : int
        How many states a task joins at most.
    join : callable
        ``join(first, last)`` returns what a task calls with states in the order of the chunks: with those of chunks,
        if it is among the first, and for the result, if it is the last.
    front : int
        Axes of one block that the result has before all others.
    """
    result, inner = names
    kept = [axis for axis in range(len(partial.chunks)) if axis not in axes]
    numblocks = partial.numblocks
    layer: dict[Any, Any] = {}
    for place in product(*(range(numblocks[axis]) for axis in kept)):
        keys = []
        for along in product(*(range(numblocks[axis]) for axis in axes)):
            index = dict(zip((*kept, *axes), (*place, *along), strict=True))
            keys.append((partial.name, *(index[axis] for axis in range(len(numblocks)))))
        level = 0
        while len(keys) > fan_in:
            groups = [keys[i : i + fan_in] for i in range(0, len(keys), fan_in)]
            keys = [(inner, *place, level, number) for number in range(len(groups))]
            for key, group in zip(keys, groups, strict=True):
                layer[key] = Task(key, join(level == 0, False), *map(TaskRef, group))
            level += 1
        key = (result, *(0,) * front, *place)
        layer[key] = Task(key, join(level == 0, True), *map(TaskRef, keys))
    chunks = tuple((1,) for _ in range(front)) + tuple(partial.chunks[axis] for axis in kept)
    graph = HighLevelGraph.from_collections(result, layer, dependencies=[partial])
    return Tuples(result, chunks, graph, partial.meta)
