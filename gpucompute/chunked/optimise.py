"""Compile the blockwise parts of Dask graphs that were not written with `fuse`.

Neighbouring layers whose functions are known to be pure functions of NumPy's become one layer, also where several of
them read the same one (Dask merges chains). The functions of the merged layer are traced when the first chunk comes,
and the kernel runs for all (`foreign.py`). What cannot be traced after all runs as Dask would run it. At last,
reductions of the same chunks become one task for each chunk (`siblings.py`).
"""

from __future__ import annotations

import functools
import operator
from math import prod
from typing import Any

import dask
import numpy as np
from dask.array import chunk, reductions
from dask.array import core as dask_core
from dask.array.optimization import optimize as dask_optimize
from dask.blockwise import Blockwise, blockwise_token, rewrite_blockwise
from dask.core import flatten
from dask.highlevelgraph import HighLevelGraph
from dask.task_spec import GraphNode, Task, TaskRef
from dask.utils import key_split

from ..fusion.proxy import BINARY, COMPARE, HANDLERS, UNARY
from ..fusion.run import Fused
from ..fusion.user import Vectorized
from . import device_chunks
from .foreign import compiled_task, is_plain
from .siblings import joined
from .tasks import MapTask

MOST = 2  # groups that a layer may be in

_OPERATORS = frozenset(getattr(operator, f"__{name}__") for name in (*BINARY, *COMPARE, *UNARY))
_POWERS = frozenset([operator.pow, np.power, np.float_power])  # NumPy looks at the number that is the exponent
_ON_VALUES = frozenset([np.where, np.clip])  # besides operators and ufuncs: functions of which no argument is a setting
# Dask's own functions of chunks; those of reductions make a dict of arrays, or reduce with keepdims
_OF_DASK = frozenset([chunk.astype, dask_core._enforce_dtype, reductions._sqrt])
_REDUCTIONS = frozenset(
    [
        *(reductions.mean_chunk, reductions.moment_chunk, reductions.chunk_max, reductions.chunk_min),
        *(chunk.sum, chunk.prod, chunk.max, chunk.min, chunk.any, chunk.all, chunk.nansum, chunk.nanprod),
    ]
)


def optimize(collection: Any) -> Any:
    """Return a Dask collection whose blockwise parts are compiled into fused kernels.

    Parameters
    ----------
    collection : Dask array, or what holds Dask arrays
        Also an xarray object, or a tuple, list or dict of such.

    Returns
    -------
    object
        The same kind of collection, optimised as Dask would before a run, and compiled. Results are those of NumPy
        for integers, selections, comparisons, ``+ - * /`` and roots; other functions differ by some units in the last
        place, and sums by rounding. What is not known (other people's functions, readers, random numbers) stays, and
        chunks run as before where NumPy raises, or makes integers of floats that do not fit.

    Examples
    --------
    >>> import dask.array as da
    >>> x = da.arange(10, chunks=5)
    >>> optimize((x + 1) * x).compute(scheduler="sync")
    array([ 0,  2,  6, 12, 20, 30, 42, 56, 72, 90])
    """
    with dask.config.set(array_optimize=optimize_graph):
        return dask.optimize(collection)[0]


def install() -> Any:
    """Apply `optimize` to all Dask arrays when they are computed, in this process.

    Returns
    -------
    dask.config.set
        Leave it alone, or use it in a ``with`` statement to end it.

    Examples
    --------
    >>> import dask.array as da
    >>> with install():
    ...     (da.ones(4, chunks=2) + 1).sum().compute(scheduler="sync")
    np.float64(8.0)
    """
    device_chunks.watch()
    return dask.config.set(array_optimize=optimize_graph)


def optimize_graph(graph: Any, keys: Any, **kwargs: Any) -> Any:
    """Compile what can be, then do what Dask does (the value of Dask's setting ``array_optimize``)."""
    if isinstance(graph, HighLevelGraph):
        graph = compiled(graph, keys)
    graph = dask_optimize(graph, keys, **kwargs)
    return joined(graph, keys) if isinstance(graph, dict) else graph  # Dask's setting may leave layers


def compiled(graph: HighLevelGraph, keys: Any) -> HighLevelGraph:
    """Return a graph in which groups of blockwise layers are one compiled layer each."""
    wanted = {key[0] if isinstance(key, tuple) else key for key in flatten(keys if isinstance(keys, list) else [keys])}
    order, readers = _from_the_end(graph.dependencies, wanted)
    layers = {name: graph.layers[name] for name in order}
    dependencies = {name: set(graph.dependencies[name]) for name in order}
    for root, members in _groups(graph.layers, order, readers, wanted).items():
        merged = rewrite_blockwise([_with_settings(graph.layers[name]) for name in members])
        if len(members) > 1 or _is_reduction(merged.task):
            layers[root] = _with_kernel(merged, reduces=_is_reduction(graph.layers[root].task))
            dependencies[root] = {of for name in members for of in graph.dependencies[name]} - set(members)
            for name in set(members) - {root}:
                layers.pop(name, None)
                dependencies.pop(name, None)
    return HighLevelGraph(layers, dependencies)


def _groups(layers: Any, order: list[str], readers: dict[str, list[str]], wanted: set[str]) -> dict[str, list[str]]:
    """Return groups of layers that can be one, each under its last: nobody else reads the others.

    A layer may be in two groups, and is then computed twice, if it reads one array: computing costs less than a task
    that writes a chunk and two that read it, and as much memory is held by the chunk that it reads.
    """
    roots_of: dict[str, set[str]] = {}
    places: dict[tuple[str, str], dict[Any, Any]] = {}  # the axis of a root that each axis of a layer follows
    members: dict[str, list[str]] = {}
    for name in order:
        layer = layers[name]
        if not _is_known(layer):
            continue
        joined: dict[str, dict[Any, Any]] = {}
        if name not in wanted and not _is_reduction(layer.task):
            joined = _joined(name, layers, readers[name], roots_of, places)
        if not joined:
            joined = {name: {axis: axis for axis in layer.output_indices}}
        roots_of[name] = set(joined)
        for root, place in joined.items():
            places[name, root] = place
            members.setdefault(root, []).append(name)
    return members


def _joined(
    name: str, layers: Any, readers: list[str], roots_of: dict[str, set[str]], places: dict[tuple[str, str], Any]
) -> dict[str, dict[Any, Any]]:
    """Return the roots whose groups a layer can join, and which of their axes its own follow; empty: none."""
    layer = layers[name]
    if not all(reader in roots_of for reader in readers):
        return {}
    roots = set().union(*(roots_of[reader] for reader in readers))
    if not 1 <= len(roots) <= (MOST if _reads_one(layer) else 1):
        return {}
    joined = {}
    for root in roots:
        followed = {
            tuple(places[reader, root][axis] for axis in axes)
            for reader in readers
            if root in roots_of[reader]
            for source, axes in layers[reader].indices
            if axes is not None and source == name
        }
        if len(followed) != 1 or layers[root].annotations != layer.annotations:
            return {}
        joined[root] = dict(zip(layer.output_indices, followed.pop(), strict=True))
    return joined


def _reads_one(layer: Blockwise) -> bool:
    """Tell whether a layer reads one array with as many blocks as it makes, and small ones."""
    blocks = prod(layer.dims[axis] for axis in layer.output_indices)
    read = {source for source, axes in layer.indices if axes is not None}
    large = [source for source in read if prod(layer.numblocks[source]) == blocks]
    return len(large) == 1


def _from_the_end(dependencies: Any, wanted: set[str]) -> tuple[list[str], dict[str, list[str]]]:
    """Return the layers that `wanted` need, readers before what they read, and who reads each."""
    order: list[str] = []
    seen: set[str] = set()
    readers: dict[str, list[str]] = {name: [] for name in dependencies}
    stack = [(name, False) for name in wanted if name in dependencies]
    while stack:
        name, done = stack.pop()
        if done:
            order.append(name)
        elif name not in seen:
            seen.add(name)
            stack.append((name, True))
            for source in dependencies[name]:
                readers[source].append(name)
                stack.append((source, False))
    return order[::-1], readers


def _is_known(layer: Any) -> bool:
    """Tell whether a layer maps single blocks by functions that can be traced."""
    if not isinstance(layer, Blockwise) or layer.io_deps or layer.new_axes or layer.output_blocks is not None:
        return False
    own = set(layer.output_indices)
    one_to_one = all(own.issuperset(axes) for _, axes in layer.indices if axes is not None)
    return one_to_one and not layer.concatenate and _is_known_task(layer.task)


def _is_known_task(task: Task) -> bool:
    values = [*task.args, *task.kwargs.values()]
    if any(isinstance(value, GraphNode) for value in values):
        return False  # containers of blocks, merged layers
    return _is_known_function(_function(task))


def _function(task: Task) -> Any:
    return task.kwargs.get("enforce_dtype_function", task.func)


def _is_known_function(function: Any) -> bool:
    if isinstance(function, functools.partial):
        return not function.args and _is_known_function(function.func)
    if isinstance(function, np.ufunc):
        return function.signature is None
    if isinstance(function, (Fused, Vectorized)):
        return True
    if isinstance(function, MapTask):
        return not function.inputs.located
    try:
        return function in _OPERATORS or function in _OF_DASK or function in _REDUCTIONS or function in HANDLERS
    except TypeError:  # not hashable
        return False


def _is_reduction(task: Task) -> bool:
    """Tell whether what a task returns is no block for others to work on."""
    return getattr(task.func, "func", task.func) in _REDUCTIONS


def _with_settings(layer: Blockwise) -> Blockwise:
    """Return a layer that has literals in its task, unless they are values that a kernel can be given at each run."""
    task = layer.task
    indices: list[Any] = []
    placed: dict[str, Any] = {}
    for number, (source, axes) in enumerate(layer.indices):
        setting = axes is None and not isinstance(source, GraphNode | TaskRef) and not _is_value(source, task)
        placed[blockwise_token(number)] = source if setting else TaskRef(blockwise_token(len(indices)))
        if not setting:
            indices.append((source, axes))
    if len(indices) == len(layer.indices):
        return layer
    args = [placed.get(arg.key, arg) if isinstance(arg, TaskRef) else arg for arg in task.args]
    kwargs = {key: placed.get(arg.key, arg) if isinstance(arg, TaskRef) else arg for key, arg in task.kwargs.items()}
    return _like(layer, Task(task.key, task.func, *args, **kwargs), indices)


def _is_value(literal: Any, task: Task) -> bool:
    """Tell whether a literal is one of the numbers that a task works on: another one needs no other kernel."""
    if not is_plain(literal) or (type(literal) is int and not -(2**63) <= literal < 2**63):
        return False
    function = _function(task)
    if isinstance(function, Fused):
        return not function.static
    on_values = isinstance(function, (np.ufunc, Vectorized)) or function in _OPERATORS or function in _ON_VALUES
    return on_values and function not in _POWERS


def _with_kernel(layer: Blockwise, *, reduces: bool) -> Blockwise:
    """Return a merged layer that runs its functions as one kernel."""
    run, blocks = compiled_task(layer.task, key_split(layer.output), reduces=reduces)
    return _like(layer, Task(layer.task.key, run, *map(TaskRef, blocks)), layer.indices)


def _like(layer: Blockwise, task: Task, indices: Any) -> Blockwise:
    return Blockwise(
        layer.output,
        layer.output_indices,
        task,
        indices,
        layer.numblocks,
        concatenate=layer.concatenate,
        annotations=layer.annotations,
    )
