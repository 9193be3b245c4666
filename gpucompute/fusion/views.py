"""Views: the same values at other indices."""

from __future__ import annotations

import operator
from math import prod
from typing import Any

import numpy as np

from . import ir
from .elementwise import static, traced, tracer_of
from .location import fusion_error, user_line
from .proxy import Step, Traced, implements
from .tracer import Tracer

normalize_axis_index = np.lib.array_utils.normalize_axis_index
normalize_axis_tuple = np.lib.array_utils.normalize_axis_tuple


def as_traced(value: Any) -> Traced:
    """Return the one array that a view is taken of."""
    return traced(value, tracer_of(value))


def permute(tracer: Tracer, axes: tuple[int, ...]) -> Step:
    """Return the view with the axes in another order."""
    inverse = tuple(int(axis) for axis in np.argsort(axes))
    build = tracer.builder
    return Step(lambda node: build.transpose(node, axes), lambda _, value: build.transpose(value, inverse), "transpose")


def reshape_step(tracer: Tracer, before: ir.Shape, after: ir.Shape, name: str) -> Step:
    """Return the reshape. Where only axes of length 1 come and go it is a view for sure, and can be written to."""
    build = tracer.builder
    same = [n for n in before if n != 1] == [n for n in after if n != 1]

    def put(_: ir.Node, value: ir.Node) -> ir.Node:
        return build.reshape(value, before)

    return Step(lambda node: build.reshape(node, after), put if same else None, name)


@implements(np.transpose, np.permute_dims)
def transpose(a: Any, axes: Any = None) -> Traced:
    x = as_traced(a)
    if axes is None:
        order = tuple(reversed(range(x.ndim)))
    else:
        order = normalize_axis_tuple(static(axes, "axes"), x.ndim)
        if len(order) != x.ndim:
            raise ValueError(f"axes don't match array\n  at {user_line()}")
    return x._view(permute(x._tracer, order))


@implements(np.matrix_transpose, np.linalg.matrix_transpose)
def matrix_transpose(x: Any, /) -> Traced:
    if x.ndim < 2:
        raise ValueError(f"Input array must be at least 2-dimensional, but it is {x.ndim}\n  at {user_line()}")
    return swapaxes(x, -1, -2)


@implements(np.swapaxes)
def swapaxes(a: Any, axis1: Any, axis2: Any) -> Traced:
    x = as_traced(a)
    order = list(range(x.ndim))
    i, j = (normalize_axis_index(operator.index(axis), x.ndim) for axis in (axis1, axis2))
    order[i], order[j] = order[j], order[i]
    return transpose(x, tuple(order))


@implements(np.moveaxis)
def moveaxis(a: Any, source: Any, destination: Any) -> Traced:
    x = as_traced(a)
    sources = normalize_axis_tuple(source, x.ndim, "source")
    targets = normalize_axis_tuple(destination, x.ndim, "destination")
    if len(sources) != len(targets):
        raise ValueError("`source` and `destination` arguments must have the same number of elements")
    order = [axis for axis in range(x.ndim) if axis not in sources]
    for target, axis in sorted(zip(targets, sources, strict=True)):
        order.insert(target, axis)
    return transpose(x, tuple(order))


@implements(np.rollaxis)
def rollaxis(a: Any, axis: int, start: int = 0) -> Traced:
    axis = normalize_axis_index(axis, a.ndim)
    start = start + a.ndim if start < 0 else start
    return moveaxis(a, axis, start - 1 if axis < start else start)


@implements(np.reshape)
def reshape(
    a: Any, /, shape: Any = None, order: Any = "C", *, newshape: Any = None, copy: bool | None = None
) -> Traced:
    x = as_traced(a)
    if order not in ("C", "A", None):
        raise fusion_error(f"reshape with order={order!r} cannot be fused; transpose, reshape and transpose back")
    shape = static(newshape if shape is None else shape, "the new shape")
    new = [operator.index(n) for n in (shape if isinstance(shape, (tuple, list, np.ndarray)) else (shape,))]
    known = prod(n for n in new if n >= 0)
    unknown = [i for i, n in enumerate(new) if n < 0]
    if len(unknown) > 1:
        raise ValueError(f"can only specify one unknown dimension\n  at {user_line()}")
    if unknown and known:
        new[unknown[0]] = x.size // known
    if prod(new) != x.size or (unknown and not known):
        raise ValueError(f"cannot reshape array of size {x.size} into shape {tuple(new)}\n  at {user_line()}")
    if copy:
        return x._tracer.wrap(x._tracer.builder.reshape(x._node, tuple(new)), owner="local")
    return x._view(reshape_step(x._tracer, x.shape, tuple(new), "reshape"))


@implements(np.ravel)
def ravel(a: Any, order: Any = "C") -> Traced:
    return reshape(a, -1 if a.size else (0,), order)


@implements(np.squeeze)
def squeeze(a: Any, axis: Any = None) -> Traced:
    x = as_traced(a)
    if axis is None:
        axes = tuple(i for i, n in enumerate(x.shape) if n == 1)
    else:
        axes = normalize_axis_tuple(static(axis, "axis"), x.ndim)
        if any(x.shape[i] != 1 for i in axes):
            raise ValueError(
                f"cannot select an axis to squeeze out which has size not equal to one: shape {x.shape}, axis {axis}\n"
                f"  at {user_line()}"
            )
    return reshape(x, tuple(n for i, n in enumerate(x.shape) if i not in axes))


@implements(np.expand_dims)
def expand_dims(a: Any, axis: Any) -> Traced:
    x = as_traced(a)
    axis = axis if isinstance(axis, (tuple, list)) else (axis,)
    axes = normalize_axis_tuple(axis, x.ndim + len(axis))
    rest = iter(x.shape)
    return reshape(x, tuple(1 if i in axes else next(rest) for i in range(x.ndim + len(axes))))


@implements(np.flip)
def flip(m: Any, axis: Any = None) -> Traced:
    x = as_traced(m)
    axes = range(x.ndim) if axis is None else normalize_axis_tuple(axis, x.ndim)
    return x[(*(slice(None, None, -1 if i in axes else 1) for i in range(x.ndim)), ...)]  # type: ignore[no-any-return]


@implements(np.flipud)
def flipud(m: Any) -> Traced:
    return flip(m, 0)


@implements(np.fliplr)
def fliplr(m: Any) -> Traced:
    return flip(m, 1)


@implements(np.rot90)
def rot90(m: Any, k: int = 1, axes: Any = (0, 1)) -> Traced:
    first, second = normalize_axis_tuple(axes, m.ndim)
    match static(k, "k") % 4:
        case 1:
            return swapaxes(flip(m, second), first, second)
        case 2:
            return flip(m, (first, second))
        case 3:
            return flip(swapaxes(m, first, second), second)
    return as_traced(m)[...]  # type: ignore[no-any-return]


def _read_only(base: ir.Node, value: ir.Node) -> ir.Node:
    raise ValueError(f"assignment destination is read-only: it was broadcast\n  at {user_line()}")


@implements(np.broadcast_to)
def broadcast_to(array: Any, shape: Any, subok: bool = False) -> Traced:
    x = as_traced(array)
    new = static(shape, "the new shape")
    shape = tuple(operator.index(n) for n in (new if isinstance(new, (tuple, list, np.ndarray)) else (new,)))
    if x._tracer.broadcast_shapes(x.shape, shape) != shape:
        raise ValueError(f"an array of shape {x.shape} cannot be broadcast to shape {shape}\n  at {user_line()}")
    return x._view(Step(lambda node: x._tracer.builder.broadcast(node, shape), _read_only, "broadcast_to"))


@implements(np.broadcast_arrays)
def broadcast_arrays(*args: Any, subok: bool = False) -> tuple[Traced, ...]:
    tracer = tracer_of(*args)
    arrays = [traced(value, tracer) for value in args]
    shape = tracer.broadcast_shapes(*(x.shape for x in arrays))
    return tuple(broadcast_to(x, shape) for x in arrays)


def _at_least(ndim: int, value: Any, tracer: Tracer) -> Traced:
    x = traced(value, tracer)
    if x.ndim >= ndim:
        return x
    match ndim, x.ndim:
        case 3, 2:
            return x[:, :, None]  # type: ignore[no-any-return]
        case 3, 1:
            return x[None, :, None]  # type: ignore[no-any-return]
    return reshape(x, (1,) * (ndim - x.ndim) + x.shape)


def _register_at_least(ndim: int, function: Any) -> None:
    @implements(function)
    def at_least(*arys: Any) -> Any:
        tracer = tracer_of(*arys)
        result = tuple(_at_least(ndim, value, tracer) for value in arys)
        return result[0] if len(result) == 1 else result


for _ndim, _function in enumerate((np.atleast_1d, np.atleast_2d, np.atleast_3d), 1):
    _register_at_least(_ndim, _function)


@implements(np.diagonal)
def diagonal(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Traced:
    x = moveaxis(a, (axis1, axis2), (-2, -1))
    rows, columns = x.shape[-2:]
    first = offset if offset >= 0 else -offset * columns
    length = max(0, min(rows + min(offset, 0), columns - max(offset, 0)))
    flat = reshape(x, (*x.shape[:-2], rows * columns))
    return flat[..., first :: columns + 1][..., :length]  # type: ignore[no-any-return]


@implements(np.linalg.diagonal)
def linalg_diagonal(x: Any, /, *, offset: int = 0) -> Traced:
    return diagonal(x, offset, -2, -1)


@implements(np.trace)
def trace(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1, dtype: Any = None, out: Any = None) -> Traced:
    return diagonal(a, offset, axis1, axis2).sum(-1, dtype=dtype, out=out)  # type: ignore[no-any-return]
