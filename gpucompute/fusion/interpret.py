"""The slow meaning of a graph, node by node. What `run` gives equals it, to the bit.

Structure (views, joins) is NumPy's on whole arrays; each map calls the plain scalar function for one element after
the other; reductions follow `tree.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from .. import ops
from ..errors import OutOfRangeError
from . import ir, tree
from .scalar_source import compiled
from .trace import Trace
from .user import reduce_elements

Array = np.ndarray[Any, Any]
HALF = np.dtype(np.float16)


def interpret(program: Trace | tuple[ir.Node, ...], arrays: Sequence[Any], scalars: Sequence[Any] = ()) -> list[Array]:
    """Return the value of each output.

    Parameters
    ----------
    program : Trace or tuple of Node
        What to compute.
    arrays : sequence of array_like
        The values of the inputs; those that a trace captured are added.
    scalars : sequence of int, float or bool
        The values of the run-time scalars; those that a trace derives are added.
    """
    outputs = program
    if isinstance(program, Trace):
        outputs = program.outputs
        arrays = [*arrays, *program.captured]
        scalars = program.scalar_values(scalars)
    assert isinstance(outputs, tuple)
    values: dict[int, Array] = {}
    with np.errstate(all="ignore"):
        for node in ir.postorder(outputs):
            value = np.asarray(_evaluate(node, values, arrays, scalars))
            assert value.shape == node.shape, (node, value.shape)
            values[id(node)] = value.astype(node.dtype, copy=False)
    return [values[id(node)].copy() for node in outputs]


def _evaluate(node: ir.Node, values: dict[int, Array], arrays: Sequence[Any], scalars: Sequence[Any]) -> Any:
    of = [values[id(child)] for child in ir.children(node)]
    match node:
        case ir.Input():
            return np.asarray(arrays[node.index])
        case ir.Scalar():
            return node.dtype.type(scalars[node.index])
        case ir.Constant():
            return node.value
        case ir.Iota():
            return np.arange(node.shape[0], dtype=np.int64)
        case ir.Map():
            return _map(node, of)
        case ir.View():
            return _view(node, of[0])
        case ir.Gather():
            return _gather(node, *of)
        case ir.Concatenate():
            return np.concatenate(of, node.axis)
        case ir.Update():
            result = of[0].copy()
            result[_key(node.params, node.part)] = of[1]
            return result
        case ir.Reduce():
            return _reduce(node, of[0])
    raise AssertionError(node)


def _map(node: ir.Map, args: list[Array]) -> Array:
    result = np.empty(node.shape, node.dtype)
    convert = node.dtype.type
    if isinstance(node.op, ir.UserFunction):
        function = compiled(node.op.function)
    else:
        plain = ops.scalar_namespace()
        if node.op == "cast":
            name = ops.cast_scalar(node.args[0].dtype, node.dtype)
        else:
            name = ops.OPS[node.op].scalar([arg.dtype for arg in node.args])
        function = plain[name]
        if node.dtype == HALF and node.op != "cast":
            function = _rounded(function, plain["half_round"])
    flat = [np.broadcast_to(_widened(arg), node.shape).ravel() for arg in args]
    out = result.reshape(-1)
    for position in range(out.size):
        out[position] = convert(function(*(arg[position] for arg in flat)))
    return result


def _widened(array: Array) -> Array:
    """Return half floats as the float32 they are computed in."""
    return array.astype(np.float32) if array.dtype == HALF else array


def _rounded(function: Any, half_round: Any) -> Any:
    return lambda *args: half_round(function(*args))


def _key(params: tuple[Any, ...], shape: ir.Shape) -> tuple[slice, ...]:
    """Return the index of the slice whose (start, step) and lengths are given."""
    key = []
    for (start, step), length in zip(params, shape, strict=True):
        stop = start + length * step
        key.append(slice(0, 0) if not length else slice(start, None if stop < 0 else stop, step))
    return tuple(key)


def _view(node: ir.View, array: Array) -> Array:
    match node.kind:
        case "transpose":
            return array.transpose(node.params)
        case "slice":
            return array[_key(node.params, node.shape)]
        case "reshape":
            return array.reshape(node.shape)
        case "broadcast":
            return np.broadcast_to(array, node.shape)


def _gather(node: ir.Gather, source: Array, index: Array) -> Array:
    length = source.shape[node.axis]
    outside = index[(index < -length) | (index >= length)]
    if outside.size:
        raise OutOfRangeError(
            f"index {outside[0]} is out of bounds for axis {node.axis} with size {length}\n  at {node.where}"
        )
    return np.take(source, index, node.axis)


def _reduce(node: ir.Reduce, array: Array) -> Any:
    kept = tuple(axis for axis in range(array.ndim) if axis not in node.axes)
    rows = array.transpose(node.axes + kept)
    rows = rows.reshape(prod(array.shape[axis] for axis in node.axes), *(array.shape[axis] for axis in kept))
    if isinstance(node.op, ir.UserReduction):
        result = np.empty(node.shape, node.dtype)
        for position in np.ndindex(node.shape):
            result[position] = reduce_elements(node.op, rows[:, *position])
        return result
    return tree.reduce_rows(node.op, rows)
