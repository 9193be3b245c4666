"""Dask's layers for stages. Only this file and `optimise.py` know how Dask writes graphs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import dask.array as da
import numpy as np
from dask.array.utils import meta_from_array
from dask.base import tokenize
from dask.blockwise import blockwise
from dask.highlevelgraph import HighLevelGraph
from dask.layers import ArrayBlockwiseDep
from dask.task_spec import Task, TaskRef

from . import blocks
from .partial import Combine

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


def tree_layers(
    name: str, partial: Tuples, axes: tuple[int, ...], family: int, joins: tuple[Any, ...], fan_in: int
) -> Tuples:
    """Return the joined states of a family of reductions: blocks along the axes that are not reduced.

    Parameters
    ----------
    name : str
        The user's name, for the keys.
    partial : Tuples
        The lists of nodes of each block.
    axes : tuple of int
        The reduced axes.
    family : int
        Which of the lists is meant.
    joins : tuple of Join
    fan_in : int
        How many states a task joins at most.
    """
    kept = [axis for axis in range(len(partial.chunks)) if axis not in axes]
    token = tokenize(partial, axes, family, joins, fan_in)
    result, inner = f"{name}-reduced-{token}", f"{name}-combine-{token}"
    layers: dict[Any, Any] = {}
    numblocks = partial.numblocks
    for place in product(*(range(numblocks[axis]) for axis in kept)):
        keys = []
        for along in product(*(range(numblocks[axis]) for axis in axes)):
            index = dict(zip((*kept, *axes), (*place, *along), strict=True))
            keys.append((partial.name, *(index[axis] for axis in range(len(numblocks)))))
        which: int | None = family
        level = 0
        while len(keys) > fan_in:
            groups = [keys[i : i + fan_in] for i in range(0, len(keys), fan_in)]
            keys = [(inner, *place, level, number) for number in range(len(groups))]
            for key, group in zip(keys, groups, strict=True):
                layers[key] = Task(key, Combine(joins, which, last=False), *map(TaskRef, group))
            which, level = None, level + 1
        key = (result, *place)
        layers[key] = Task(key, Combine(joins, which, last=True), *map(TaskRef, keys))
    graph = HighLevelGraph.from_collections(result, layers, dependencies=[partial])
    return Tuples(result, tuple(partial.chunks[axis] for axis in kept), graph, partial.meta)
