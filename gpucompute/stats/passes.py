"""One pass over the chunks of a Dask array: a task for each gives a state, and a tree of small tasks joins them.

A store is read anew in each pass, so that no chunk waits in memory from one pass to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
from dask.base import compute_as_if_collection, tokenize
from dask.highlevelgraph import HighLevelGraph
from dask.task_spec import Task, TaskRef

from ..chunked import budget, layers
from ..chunked.sources import Reader, reader_of

Partial = Callable[..., Any]  # (function that returns the chunk, results of earlier passes) -> state
Join = Callable[[list[Any]], Any]  # states, in the order of the chunks -> state
State = layers.Tuples

FAN_IN = 8  # states that one task joins


@dataclass(frozen=True)
class PartialTask:
    """The task of a chunk: `function` gets something to call for the chunk, so that it need not be read."""

    function: Partial
    reader: Reader | None

    def __call__(self, *given: Any) -> Any:
        if self.reader is None:
            return self.function(lambda: np.asarray(given[0]), *given[1:])
        reader, place = self.reader, given[-1]
        return self.function(lambda: reader(place), *given[:-1])


@dataclass(frozen=True)
class JoinTask:
    """The task that joins states, and finishes what they make if it is the last."""

    join: Join
    finish: Callable[[Any], Any] | None

    def __call__(self, *states: Any) -> Any:
        state = self.join(list(states))
        return state if self.finish is None else self.finish(state)


def partial_states(
    name: str,
    function: Partial,
    x: da.Array,
    others: Sequence[tuple[Any, tuple[int, ...]]] = (),
    *,
    nbytes: int = 0,
) -> State:
    """Return the states of the chunks.

    Parameters
    ----------
    name : str
        Of the tasks, the first part of their keys.
    function : callable
        ``function(read, *others) -> state``; ``read()`` returns the chunk.
    x : dask.array.Array
    others : sequence of (array, axes)
        Further arguments, and the axes of `x` that their blocks follow.
    nbytes : int
        What a state holds, for the check that a task fits into memory.
    """
    reader = reader_of(x) if x.ndim else None
    own = [] if reader is not None else [(x, tuple(range(x.ndim)))]
    task = PartialTask(function, reader)
    budget.check(name, budget.limit(x._meta), [(x.chunks, x.dtype)], [(((nbytes,),), np.dtype(np.uint8))], [])
    token = tokenize(task, x.name, x.chunks, [(other.name, axes) for other, axes in others])
    graph = layers.blockwise_layer(f"{name}-{token}", task, [*own, *others], x.chunks, located=reader is not None)
    return State(f"{name}-{token}", x.chunks, graph, x._meta)


def joined(
    name: str,
    partial: State,
    axes: Sequence[int],
    join: Join,
    finish: Callable[[Any], Any] | None = None,
    *,
    front: int = 0,
) -> State:
    """Return the joined states: blocks along the axes of the chunks that are not among `axes`.

    Parameters
    ----------
    name : str
        Of the last tasks; those before are ``name-combine``.
    partial : State
    axes : sequence of int
        The axes over which states are joined.
    join, finish : callable
        Of lists of states, and of the last one.
    front : int
        Axes of one block that the result has before all others.
    """
    token = tokenize(partial.name, tuple(axes), join, finish, front)
    names = f"{name}-{token}", f"{name}-combine-{token}"
    return layers.tree(
        names, partial, axes, FAN_IN, lambda first, last: JoinTask(join, finish if last else None), front=front
    )


def array_of(state: State, shape: Sequence[int], dtype: Any) -> da.Array:
    """Return the Dask array of finished states; `shape` is that of the axes in front."""
    chunks = tuple((int(n),) for n in shape) + state.chunks[len(shape) :]
    return layers.array(state.dask, state.name, chunks, np.dtype(dtype), state.meta)


def item_of(state: State, item: int, name: str, shape: Sequence[int], dtype: Any) -> da.Array:
    """Return the Dask array of one item of a finished state that is a tuple, of which there is one."""
    key = f"{name}-{tokenize(state.name, item)}"
    task = Task((key, *(0,) * len(shape)), _item, TaskRef((state.name, *(0,) * len(state.chunks))), item)
    graph = HighLevelGraph.from_collections(key, {task.key: task}, dependencies=[state])
    return layers.array(graph, key, tuple((int(n),) for n in shape), np.dtype(dtype), state.meta)


def _item(state: Any, item: int) -> Any:
    return state[item]


def computed(state: State) -> Any:
    """Return a state without axes, computed."""
    key = (state.name,)
    return compute_as_if_collection(da.Array, state.dask, [key])[0]  # optimised as arrays are
