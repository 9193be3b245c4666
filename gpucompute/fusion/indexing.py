"""Indexing: slices are views, integer arrays are gathers, assignments are new values of the handle."""

from __future__ import annotations

import operator
from math import prod
from typing import Any

import numpy as np

from . import ir
from .elementwise import select, store, traced, tracer_of
from .location import fusion_error, user_line
from .proxy import Step, Traced, contains_traced, implements
from .selection import Selected, spread_mask
from .tracer import BOOL, INT64, Tracer, weak_type
from .views import reshape_step

_ROWS_AND_COLUMNS = "index one of them at a time, for example x[..., 0][mask] = v or x[i][:, j]"


class Key:
    """An index taken apart: slices and integers, new axes, and what depends on values."""

    def __init__(self, x: Traced, key: Any) -> None:
        self.tracer = x._tracer
        entries = [_entry(self.tracer, item) for item in (key if isinstance(key, tuple) else (key,))]
        self.has_ellipsis = any(item is Ellipsis for item in entries)
        self.masks = [item for item in entries if isinstance(item, ir.Node) and item.dtype == BOOL]
        self.alone = len(entries) == 1
        if self.masks:
            return
        used = sum(item is not None and item is not Ellipsis for item in entries)
        if used > x.ndim:
            raise IndexError(
                f"too many indices for array: array is {x.ndim}-dimensional, but {used} were indexed\n"
                f"  at {user_line()}"
            )
        if not self.has_ellipsis:
            entries.append(Ellipsis)
        where = next(i for i, item in enumerate(entries) if item is Ellipsis)
        filled = [slice(None)] * (x.ndim - used)
        self.entries = entries[:where] + filled + entries[where + 1 :]
        self.arrays = [item for item in self.entries if isinstance(item, ir.Node)]
        advanced = [i for i, item in enumerate(self.entries) if isinstance(item, (int, ir.Node))]
        self.adjacent = not advanced or advanced[-1] - advanced[0] == len(advanced) - 1

    def steps(self, shape: ir.Shape) -> tuple[Step, Step]:
        """Return the slice, and the reshape that drops and adds axes, of the part without arrays."""
        params: list[tuple[int, int]] = []
        lengths: list[int] = []
        after: list[int] = []
        for item in self.entries:
            if item is None:
                after.append(1)
                continue
            axis = len(lengths)
            n = int(shape[axis])
            if isinstance(item, int):
                if not -n <= item < n:
                    raise IndexError(f"index {item} is out of bounds for axis {axis} with size {n}\n  at {user_line()}")
                params.append((item % n, 1))
                lengths.append(1)
                continue
            start, stop, step = (item if isinstance(item, slice) else slice(None)).indices(n)
            length = len(range(start, stop, step))
            params.append((start, step) if length else (0, 1))
            lengths.append(length)
            after.append(length)
        return slice_step(self.tracer, tuple(params), tuple(lengths)), reshape_step(
            self.tracer, tuple(lengths), tuple(after), "indexing"
        )

    def gathered(self) -> list[tuple[int, ir.Node]]:
        """Return the axis, after the steps, of each array, and the array."""
        result, axis = [], 0
        for item in self.entries:
            if isinstance(item, ir.Node):
                result.append((axis, item))
            axis += not isinstance(item, int)
        return result


def slice_step(tracer: Tracer, params: tuple[tuple[int, int], ...], part: ir.Shape) -> Step:
    """Return the view that takes `part` elements from the (start, step) of each axis."""
    build = tracer.builder

    def put(base: ir.Node, value: ir.Node) -> ir.Node:
        if part == base.shape and all(p == (0, 1) for p in params):
            return value
        return build.update(base, value, params, part)

    return Step(lambda node: build.slice(node, params, part), put, "indexing")


def _entry(tracer: Tracer, item: Any) -> Any:
    """Return None, Ellipsis, a slice or an int, or the node of an index array or a mask."""
    if item is None or item is Ellipsis:
        return item
    if isinstance(item, slice):
        if contains_traced([item.start, item.stop, item.step]):
            raise fusion_error(
                "the bounds of a slice are run-time values, so the result's shape is not known; name the argument "
                "that they come from in static_argnames, or use np.where over the whole axis"
            )
        return item
    if isinstance(item, (bool, np.bool)):
        raise fusion_error(f"x[{item}] adds an axis that may be empty and cannot be fused; use np.where")
    if not isinstance(item, (Traced, np.ndarray, list, tuple)):
        return operator.index(item)
    node = tracer.cast(item, INT64) if getattr(item, "_weak", None) is int else tracer.node(item)
    if node.dtype == BOOL:
        return node
    if not isinstance(item, Traced) and node.size == 0:
        node = tracer.cast(node, INT64)
    if node.dtype.kind not in "iu":
        raise IndexError(f"arrays used as indices must be of integer or boolean type\n  at {user_line()}")
    if isinstance(item, np.ndarray) and item.ndim == 0:
        return operator.index(item.item())
    return tracer.cast(node, INT64)


def getitem(x: Traced, key: Any) -> Any:
    """``x[key]``."""
    parts = Key(x, key)
    if parts.masks:
        if not parts.alone:
            raise fusion_error(f"a mask together with other indices cannot be fused; {_ROWS_AND_COLUMNS}")
        return Selected(x, parts.masks[0])
    first, second = parts.steps(x.shape)
    view = x._view(first)._view(second)
    if not parts.arrays:
        return view if view.shape or parts.has_ellipsis else x._tracer.wrap(view._node)
    return x._tracer.wrap(_gather(x._tracer, view._node, parts.gathered(), parts.adjacent))


def _gather(tracer: Tracer, source: ir.Node, indices: list[tuple[int, ir.Node]], adjacent: bool) -> ir.Node:
    """Return `source` at integer arrays along some of its axes, its other axes whole."""
    axes = [axis for axis, _ in indices]
    first = axes[0]
    if not adjacent:
        others = [axis for axis in range(len(source.shape)) if axis not in axes]
        source, first = tracer.builder.transpose(source, (*axes, *others)), 0
    extents = source.shape[first : first + len(axes)]
    for (_, index), length in zip(indices, extents, strict=True):
        check_range(tracer, index, length, first)
    index = indices[0][1] if len(indices) == 1 else flat_index(tracer, [node for _, node in indices], extents)
    merged = (*source.shape[:first], prod(extents), *source.shape[first + len(axes) :])
    return gather(tracer, tracer.builder.reshape(source, merged), index, first)


def check_range(tracer: Tracer, index: ir.Node, length: int, axis: int) -> None:
    """Raise IndexError at once where the values of `index` are known and one lies outside."""
    values = tracer.known_values(index)
    if values is None:
        return
    outside = values[(values < -length) | (values >= length)]
    if outside.size:
        raise IndexError(f"index {outside[0]} is out of bounds for axis {axis} with size {length}\n  at {user_line()}")


def flat_index(tracer: Tracer, indices: list[ir.Node], extents: ir.Shape) -> ir.Node:
    """Return the position in the merged axes; one out of range stays out of range."""
    total = tracer.size(prod(extents), *indices)
    flat: Any = 0
    bad: Any = None
    for axis, (index, extent) in enumerate(zip(indices, extents, strict=True)):
        length = tracer.size(extent, axis, *indices)
        inside = tracer.apply("where", tracer.apply("less", index, 0), tracer.apply("add", index, length), index)
        outside = tracer.apply(
            "logical_or", tracer.apply("less", inside, 0), tracer.apply("greater_equal", inside, length)
        )
        bad = outside if bad is None else tracer.apply("logical_or", bad, outside)
        flat = inside if isinstance(flat, int) else tracer.apply("add", tracer.apply("multiply", flat, length), inside)
    return tracer.apply("where", bad, total, flat)


def setitem(x: Traced, key: Any, value: Any) -> None:
    """``x[key] = value``."""
    parts = Key(x, key)
    if parts.masks:
        if not parts.alone:
            raise fusion_error(f"assignment to a mask with other indices cannot be fused; {_ROWS_AND_COLUMNS} = v")
        _set_where(x, parts.masks[0], value)
        return
    if parts.arrays:
        raise fusion_error(
            "assignment at integer arrays (a scatter) cannot be fused: two indices may name the same element; use "
            "np.where with a mask, or do it outside the fused function"
        )
    first, second = parts.steps(x.shape)
    if x._is_scalar:
        x._assign(x._node)  # raises
    write(x._view(first)._view(second), value)


def write(target: Traced, value: Any) -> None:
    """``target[...] = value``."""
    tracer = target._tracer
    node = tracer.cast(value, target.dtype)
    extra = len(node.shape) - target.ndim
    if extra > 0 and node.shape[:extra] == (1,) * extra:
        node = tracer.builder.reshape(node, node.shape[extra:])
    if tracer.broadcast_shapes(node.shape, target.shape) != target.shape:
        raise ValueError(
            f"could not broadcast input array from shape {node.shape} into shape {target.shape}\n  at {user_line()}"
        )
    target._assign(tracer.builder.broadcast(node, target.shape))


def _set_where(x: Traced, mask: ir.Node, value: Any) -> None:
    tracer = x._tracer
    whole = isinstance(value, Selected)
    node = tracer.cast(value.full_for(mask) if isinstance(value, Selected) else value, x.dtype)
    rest = x.shape[len(mask.shape) :]
    if tracer.broadcast_shapes(node.shape, (1, *rest)) != (1, *rest) and not whole:
        raise fusion_error(
            f"x[mask] = v with v of shape {node.shape}: NumPy counts the true values of the mask to place v, and their "
            f"number is known only when the kernel runs; expected a scalar or a shape that broadcasts to {rest}. "
            "np.where(mask, v, x) takes v at the places of the mask"
        )
    mask = spread_mask(tracer, mask, x.shape)
    x._assign(tracer.builder.broadcast(select(tracer, mask, node, x._node), x.shape))


@implements(np.take)
def take(a: Any, indices: Any, axis: Any = None, out: Any = None, mode: str = "raise") -> Any:
    tracer = tracer_of(a, indices)
    source = traced(a, tracer)
    if axis is None or not source.shape:  # NumPy takes a scalar for an array of one element
        source, axis = source.reshape(-1), 0 if axis is None else axis
    axis = np.lib.array_utils.normalize_axis_index(axis, source.ndim)
    length = source.shape[axis]
    index = tracer.node(indices)
    if index.dtype.kind not in "iub":
        raise TypeError(f"Cannot cast index data from {index.dtype} to int64\n  at {user_line()}")
    index = tracer.cast(index, INT64)
    if mode == "wrap":
        index = tracer.apply("remainder", index, tracer.size(length, source._node, axis))
    elif mode == "clip":
        index = tracer.apply("clip", index, 0, tracer.size(length - 1, source._node, axis))
    result = source.shape[:axis] + index.shape + source.shape[axis + 1 :]
    if 0 not in result:
        check_range(tracer, index, length, axis)
    return store(tracer, gather(tracer, source._node, index, axis), out)


def gather(tracer: Tracer, source: ir.Node, index: ir.Node, axis: int) -> ir.Node:
    """Return the gather; one without elements reads nothing, so its indices may be anything."""
    shape = source.shape[:axis] + index.shape + source.shape[axis + 1 :]
    if 0 in shape:
        return tracer.builder.broadcast(tracer.builder.constant(0, source.dtype), shape)
    return tracer.builder.gather(source, index, axis, user_line())


@implements(np.take_along_axis)
def take_along_axis(arr: Any, indices: Any, axis: Any = -1) -> Any:
    tracer = tracer_of(arr, indices)
    source, index = traced(arr, tracer), traced(indices, tracer)
    if axis is None:
        source, axis = source.reshape(-1), 0
    axis = np.lib.array_utils.normalize_axis_index(axis, source.ndim)
    if index.ndim != source.ndim:
        raise ValueError(f"`indices` and `arr` must have the same number of dimensions\n  at {user_line()}")
    coordinates = []
    for position, length in enumerate(source.shape):
        if position == axis:
            coordinates.append(tracer.cast(index, INT64))
            continue
        along = tuple(length if i == position else 1 for i in range(source.ndim))
        coordinates.append(tracer.builder.reshape(tracer.builder.iota(length), along))
    flat = flat_index(tracer, coordinates, source.shape)
    return tracer.wrap(gather(tracer, source.reshape(-1)._node, flat, 0))


@implements(np.copyto)
def copyto(dst: Any, src: Any, casting: Any = "same_kind", where: Any = True) -> None:
    tracer = tracer_of(dst, src, where)
    node = tracer.literal(src, dst.dtype) if weak_type(src) is not None else tracer.node(src)
    store(tracer, node, dst, where, casting)
