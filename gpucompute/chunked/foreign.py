"""The tasks of merged layers of anyone's Dask graph: one kernel, or the functions as they are."""

from __future__ import annotations

import functools
import pickle
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np
from dask.base import tokenize
from dask.task_spec import Task, TaskRef

from ..fusion import ir
from ..fusion.proxy import Traced, contains_traced
from ..fusion.run import Fused
from .functions import dump
from .kernel import remembered

Function = Callable[..., Any]


def compiled_task(task: Task, name: str, *, reduces: bool) -> tuple[Compiled, list[str]]:
    """Return what runs a merged task as one kernel, and the keys of the blocks that it takes."""
    steps, blocks = _in_order(task)
    return remembered_task(functools.partial(_run, steps), name, reduces=reduces), blocks


def remembered_task(function: Function, name: str, *, reduces: bool) -> Compiled:
    """Return the task of this process with that content, so that it is traced once."""
    made = Compiled(function, name, reduces)
    return remembered((Compiled, made.token, name), lambda: made)  # type: ignore[no-any-return]


def _in_order(task: Task) -> tuple[tuple[Task, ...], list[str]]:
    """Return the tasks that a merged one is made of, each after those that it reads, and the blocks that they read.

    Blocks get the keys 0, 1, ... in the order in which they are read, and tasks those that follow: what does the same
    has the same token, in every graph and process.
    """
    tasks = task.args[0] if task.has_subgraph() else {task.key: task}
    order: dict[str, None] = {}
    blocks: dict[str, None] = {}
    stack = [task.args[1] if task.has_subgraph() else task.key]
    while stack:
        key = stack[-1]
        read = _read(tasks[key])
        missing = [source for source in read if source in tasks and source not in order]
        if missing:
            stack += reversed(missing)
            continue
        blocks.update(dict.fromkeys(source for source in read if source not in tasks))
        order[stack.pop()] = None
    names = {key: number for number, key in enumerate((*blocks, *order))}
    return tuple(tasks[key].substitute(names, key=names[key]) for key in order), list(blocks)


def _read(task: Task) -> list[str]:
    return [value.key for value in (*task.args, *task.kwargs.values()) if isinstance(value, TaskRef)]


def _run(steps: tuple[Task, ...], *blocks: Any) -> Any:
    """Return what the last of `steps` makes of blocks; Dask holds what lies between for as long as it is read."""
    return Task.fuse(*steps)(dict(enumerate(blocks)))


class Compiled:
    """The task of a merged layer: one kernel, or the functions as they are where they cannot be fused.

    Parameters
    ----------
    function : functools.partial
        Takes the blocks.
    name : str
        For Dask's displays.
    reduces : bool
        Whether it makes the state of a reduction, which is small.
    """

    def __init__(self, function: Function, name: str, reduces: bool) -> None:
        self.function = function
        self.reduces = reduces
        self.__name__ = name
        self.token = tokenize(function)
        self._fused = Fused(self._checked, "exact", ())
        self._fused.__name__ = name
        self._plain = False  # it cannot be fused, as a chunk showed
        self._pickled: bytes | None = None

    def __call__(self, *blocks: Any) -> Any:
        # NumPy makes arrays or scalars of blocks without axes, by rules that a kernel does not know
        fits = any(getattr(block, "shape", ()) for block in blocks) and all(map(is_plain, blocks))
        if self._plain or not fits or contains_traced(blocks):
            return self.function(*blocks)
        failed = True
        with suppress(Exception):  # errors are to be NumPy's, if it has any
            result, agrees = self._fused(*blocks)
            if agrees:
                return result
            failed = False  # another chunk may fit, and what a chunk becomes must not depend on those before it
        result = self.function(*blocks)
        self._plain |= failed
        return result

    def _checked(self, *blocks: Any) -> tuple[Any, Any]:
        """Return the results, and whether NumPy's are the same."""
        result = self.function(*blocks)
        return result, _agrees(result)

    def __dask_tokenize__(self) -> Any:
        return "gpucompute.Compiled", self.token

    def __reduce__(self) -> Any:
        if self._pickled is None:
            self._pickled = dump(self.function)
        return _unpickled, (self.token, self._pickled, self.__name__, self.reduces)


def _agrees(result: Any) -> Any:
    """Return whether NumPy gives `result` too, for the values of a chunk.

    It makes other integers of floats that do not fit, and raises where an integer has a negative exponent.
    """
    agrees: Any = True
    seen: set[ir.Node] = set()
    stack = [(traced._tracer, traced._node) for traced in _outputs(result)]
    while stack:
        tracer, node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        sources = ir.children(node)
        stack += [(tracer, source) for source in sources]
        if not isinstance(node, ir.Map) or node.dtype.kind not in "iu":
            continue
        if node.op == "cast" and sources[0].dtype.kind == "f":
            value: Any = tracer.wrap(sources[0]).astype(np.float64)
            limits = np.iinfo(node.dtype)
            agrees = agrees & ((value > limits.min - 1.0) & (value < limits.max + 1.0)).all()
        elif node.op == "power" and node.dtype.kind == "i" and tracer.known_values(sources[1]) is None:
            exponent: Any = tracer.wrap(sources[1])
            agrees = agrees & (exponent >= 0).all()
    return agrees


def _outputs(result: Any) -> Iterator[Traced]:
    if isinstance(result, Traced):
        yield result
    elif isinstance(result, (dict, list, tuple)):
        for item in result.values() if isinstance(result, dict) else result:
            yield from _outputs(item)


def _unpickled(token: str, pickled: bytes, name: str, reduces: bool) -> Compiled:
    return remembered(  # type: ignore[no-any-return]
        (Compiled, token, name), lambda: Compiled(pickle.loads(pickled), name, reduces)
    )


def is_plain(value: Any) -> bool:
    """Tell whether a value is what a kernel takes: no masked, sparse or structured array."""
    if isinstance(value, np.ndarray | np.generic):
        return type(value) is np.ndarray or isinstance(value, np.generic)
    return isinstance(value, (bool, int, float)) or hasattr(value, "__cuda_array_interface__")
