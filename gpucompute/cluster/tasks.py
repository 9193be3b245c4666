"""Passes over the chunks of a Dask array whose results are no arrays: a task for each chunk, a tree that joins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any
from uuid import uuid4

import dask
from dask.base import DaskMethodsMixin
from dask.core import flatten
from dask.highlevelgraph import HighLevelGraph
from dask.task_spec import Task, TaskRef

FAN_IN = 8  # results that a task joins


class Results(DaskMethodsMixin):  # type: ignore[misc]  # Dask has no types
    """Some tasks of a graph, as a collection of Dask's; computed, a list of what they give."""

    __dask_scheduler__ = staticmethod(dask.threaded.get)

    def __init__(self, keys: Sequence[Any], graph: Any) -> None:
        self.keys, self.graph = list(keys), graph

    def each(self, name: str, function: Callable[..., Any]) -> Results:
        """Return ``function(value)`` of each value."""
        name = f"{name}-{uuid4().hex}"
        layer = {(name, i): Task((name, i), function, TaskRef(key)) for i, key in enumerate(self.keys)}
        return _results(name, layer, list(layer), [self])

    def items(self, item: int) -> Results:
        """Return an item of each value."""
        return self.each("kmeans-item", itemgetter(item))

    def joined(self, name: str, join: Callable[[list[Any]], Any]) -> Results:
        """Return ``join(values)``, made by a tree of tasks."""
        name, keys = f"{name}-{uuid4().hex}", self.keys
        layer: dict[Any, Any] = {}
        while len(keys) > 1:
            groups = [keys[i : i + FAN_IN] for i in range(0, len(keys), FAN_IN)]
            keys = [(name, len(layer) + i) for i in range(len(groups))]
            for key, group in zip(keys, groups, strict=True):
                layer[key] = Task(key, _join, join, *map(TaskRef, group))
        return _results(name, layer, keys, [self])

    def __dask_graph__(self) -> Any:
        return self.graph

    def __dask_keys__(self) -> list[Any]:
        return self.keys

    def __dask_layers__(self) -> tuple[str, ...]:
        return tuple({key[0]: None for key in self.keys})

    def __dask_tokenize__(self) -> Any:
        return "gpucompute.Results", self.keys

    @staticmethod
    def __dask_optimize__(graph: Any, keys: Any, **options: Any) -> Any:
        return graph.cull(set(flatten(keys)))

    def __dask_postcompute__(self) -> Any:
        return list, ()

    def __dask_postpersist__(self) -> Any:
        return self._persisted, ()

    def _persisted(self, values: Any, rename: Any = None) -> Results:
        return _results(self.keys[0][0], dict(values), self.keys, [])


def _results(name: str, layer: Any, keys: Sequence[Any], dependencies: Sequence[Any]) -> Results:
    return Results(keys, HighLevelGraph.from_collections(name, layer, dependencies=dependencies))


def over_chunks(
    name: str, function: Callable[..., Any], x: Any, weights: Any, states: Results | None, shared: tuple[Any, ...]
) -> Results:
    """Return ``function(shared, chunk, weights, state)`` of each chunk.

    Parameters
    ----------
    name : str
        The beginning of the tasks' keys, which Dask's displays show.
    function : callable
    x, weights : dask.array.Array
        Cut along their first axis alone; without weights None is given.
    states : Results, optional
        As many as chunks.
    shared : tuple
        Travels once, in a task of its own, not with every task.
    """
    name = f"{name}-{uuid4().hex}"
    common = (f"kmeans-centres-{uuid4().hex}", 0)
    layer = {common: Task(common, _itself, shared)}
    for number in range(x.numblocks[0]):
        weight = None if weights is None else TaskRef((weights.name, number))
        state = None if states is None else TaskRef(states.keys[number])
        key = (name, number)
        layer[key] = Task(key, function, TaskRef(common), TaskRef((x.name, number, 0)), weight, state)
    keys = [key for key in layer if key != common]
    return _results(name, layer, keys, [each for each in (x, weights, states) if each is not None])


def _itself(value: Any) -> Any:
    return value


def _join(join: Callable[[list[Any]], Any], *values: Any) -> Any:
    return join(list(values))
