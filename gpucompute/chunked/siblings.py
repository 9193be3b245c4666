"""Reductions of the same chunks in one task for each chunk, which reads it once."""

from __future__ import annotations

import functools
import operator
from typing import Any

from dask.base import tokenize
from dask.core import flatten
from dask.task_spec import GraphNode, Task, TaskRef
from dask.utils import key_split

from .foreign import Compiled, Function, remembered_task

Graph = dict[Any, GraphNode]


def joined(graph: Graph, keys: Any) -> Graph:
    """Return a graph with as many tasks as `graph` or fewer: compiled reductions that read the same are one task.

    What they give is taken apart where it is read. All of it is held until the last has been read, so only tasks whose
    results are small are joined.
    """
    wanted = set(flatten(keys if isinstance(keys, list) else [keys]))
    families: dict[frozenset[Any], list[Task]] = {}
    for key, task in graph.items():
        if key not in wanted and isinstance(task, Task) and isinstance(task.func, Compiled) and task.func.reduces:
            families.setdefault(task.dependencies, []).append(task)
    made: Graph = {}
    parts: Graph = {}
    known: dict[Any, tuple[str, Compiled]] = {}
    for tasks in families.values():
        if len(tasks) > 1:
            family = sorted(tasks, key=lambda task: task.func.token)  # in the same order for all chunks
            one = _one(family, known)
            made[one.key] = one
            for number, task in enumerate(family):
                parts[task.key] = Task(None, operator.getitem, TaskRef(one.key), number)
    if not made:
        return graph
    kept = ((key, node) for key, node in graph.items() if key not in parts)
    return made | {
        key: node.substitute(parts, key=key) if node.dependencies & parts.keys() else node for key, node in kept
    }


def _one(family: list[Task], known: dict[Any, tuple[str, Compiled]]) -> Task:
    """Return the task that gives what the tasks of a family give, in a list; `known` are those of other chunks."""
    given: dict[Any, Any] = {}  # what is read, once; literals each for itself
    places = []
    for task in family:
        named = [(arg.key if isinstance(arg, TaskRef) else (task.key, i), arg) for i, arg in enumerate(task.args)]
        given |= dict(named)
        order = list(given)
        places.append(tuple(order.index(name) for name, _ in named))
    layers = tuple(task.key[0] for task in family)
    content = layers, tuple(places)
    if content not in known:
        name = "_".join(sorted(set(map(key_split, layers))))
        function = functools.partial(_each, tuple(task.func.function for task in family), tuple(places))
        known[content] = f"{name}-{tokenize(layers)}", remembered_task(function, name, reduces=False)
    layer, run = known[content]
    return Task((layer, *family[0].key[1:]), run, *given.values())


def _each(functions: tuple[Function, ...], places: tuple[tuple[int, ...], ...], *given: Any) -> list[Any]:
    return [function(*(given[place] for place in own)) for function, own in zip(functions, places, strict=True)]
