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
from .selection import Selected, check_mask, spread_mask
from .tracer import BOOL, INT64, Tracer, weak_type
from .views import reshape_step

_ROWS_AND_COLUMNS = "index one of them at a time, for example x[..., 0][mask] = v or x[i][:, j]"
_INDICES = "integers, slices, ..., None, and arrays of integers or of bool"


class Key:
    """An index taken apart: slices and integers, new axes, arrays of integers (nodes), and masks.

    A mask whose values are known now is an ndarray, one that is computed is a node.
    """

    def __init__(self, x: Traced, key: Any) -> None:
        self.tracer = x._tracer
        entries = [_entry(self.tracer, item) for item in (key if isinstance(key, tuple) else (key,))]
        self.has_ellipsis = any(item is Ellipsis for item in entries)
        self.alone = len(entries) == 1
        used = sum(map(_axes_of, entries))
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
        self.masks = [item for item in self.entries if _is_mask(item)]
        axis = 0
        for item in self.entries:
            if _is_mask(item):
                check_mask(item.shape, x.shape, axis)
            axis += _axes_of(item)

    @property
    def arrays(self) -> list[ir.Node]:
        """The arrays of integers."""
        return [item for item in self.entries if isinstance(item, ir.Node) and item.dtype != BOOL]

    @property
    def adjacent(self) -> bool:
        """Whether no slice and no new axis lies between the integers, arrays and masks."""
        advanced = [i for i, item in enumerate(self.entries) if isinstance(item, (int, ir.Node, np.ndarray))]
        return not advanced or advanced[-1] - advanced[0] == len(advanced) - 1

    def counted(self) -> bool:
        """Put integers in the place of masks whose values are known; tell whether that was all of them."""
        self.entries = [
            part
            for item in self.entries
            for part in (map(self.tracer.node, np.nonzero(item)) if isinstance(item, np.ndarray) else [item])
        ]
        return not any(map(_is_mask, self.entries))

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


def _is_mask(item: Any) -> bool:
    return isinstance(item, (ir.Node, np.ndarray)) and item.dtype == BOOL


def _axes_of(item: Any) -> int:
    """Return how many axes of the array an entry is for."""
    return 0 if item is None or item is Ellipsis else len(item.shape) if _is_mask(item) else 1


def _whole(item: Any) -> int:
    """Return an index that is one number as Python's."""
    try:
        return operator.index(item)
    except TypeError:
        raise IndexError(f"an index of type {type(item).__name__}; expected {_INDICES}\n  at {user_line()}") from None


def _entry(tracer: Tracer, item: Any) -> Any:
    """Return None, Ellipsis, a slice, an int, the node of an index array or a mask, or a known mask as an ndarray."""
    if item is None or item is Ellipsis:
        return item
    if isinstance(item, slice):
        if contains_traced([item.start, item.stop, item.step]):
            raise fusion_error(
                "the bounds of a slice are run-time values, so the result's shape is not known; name the argument "
                "that they come from in static_argnames, or use np.where over the whole axis"
            )
        for bound in (item.start, item.stop, item.step):
            if bound is not None and not hasattr(bound, "__index__"):
                raise fusion_error(f"a bound of a slice is {bound!r}; expected an integer or None, for example n // 2")
        return item
    known = np.asarray(item) if isinstance(item, (np.ndarray, list, tuple)) and not contains_traced(item) else None
    if isinstance(item, (bool, np.bool)) or (known is not None and known.dtype == BOOL and not known.ndim):
        raise fusion_error(f"x[{item}] adds an axis that may be empty and cannot be fused; use np.where")
    if not isinstance(item, (Traced, np.ndarray, list, tuple)):
        return _whole(item)
    if known is not None and known.dtype == BOOL:
        return known.copy()
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
    if parts.masks and not parts.counted():
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
        if len(parts.masks) > 1 or parts.arrays or not parts.adjacent:
            raise fusion_error(f"assignment to a mask with other indices cannot be fused; {_ROWS_AND_COLUMNS} = v")
        _set_masked(x, parts, value)
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
    if not _broadcasts(node.shape, target.shape):
        raise ValueError(
            f"could not broadcast input array from shape {node.shape} into shape {target.shape}\n  at {user_line()}"
        )
    target._assign(tracer.builder.broadcast(node, target.shape))


def _set_masked(x: Traced, parts: Key, value: Any) -> None:
    """``x[key] = value`` with one mask in the key: `where` on the view that the rest of the key takes."""
    place = next(i for i, item in enumerate(parts.entries) if _is_mask(item))
    mask = parts.entries[place]
    axis = sum(not isinstance(item, int) for item in parts.entries[:place])
    ndim = len(mask.shape)
    if not parts.alone:
        rest = (*parts.entries[:place], *[slice(None)] * ndim, *parts.entries[place + 1 :])
        x = getitem(x, rest)
    tracer = x._tracer
    node = tracer.node(mask)
    whole = isinstance(value, Selected)
    new = tracer.cast(value.full_for(node) if isinstance(value, Selected) else value, x.dtype)
    if not whole:
        new = _placed(tracer, new, mask, x.shape[:axis], x.shape[axis + ndim :])
    spread = spread_mask(tracer, node, x.shape, axis)
    x._assign(tracer.builder.broadcast(select(tracer, spread, new, x._node), x.shape))


def _placed(tracer: Tracer, new: ir.Node, mask: Any, before: ir.Shape, after: ir.Shape) -> ir.Node:
    """Return an array of which `where` takes the elements that NumPy puts at the true places of a mask.

    `new` has one axis in the place of those of the mask; `before` and `after` are the extents of the other axes.
    """
    one = (*before, 1, *after)
    if _broadcasts(new.shape, one):
        if len(new.shape) > len(after):
            rest = new.shape[len(new.shape) - len(after) :]
            lead = new.shape[: len(new.shape) - len(after) - 1]
            new = tracer.builder.reshape(new, (*lead, *[1] * len(mask.shape), *rest))
        return new
    if not isinstance(mask, np.ndarray):
        raise fusion_error(
            f"x[mask] = v with v of shape {new.shape}: NumPy counts the true values of the mask to place v, and their "
            f"number is known only when the kernel runs; expected a scalar or a shape that broadcasts to {one}. "
            "np.where(mask, v, x) takes v at the places of the mask"
        )
    chosen = (*before, int(mask.sum()), *after)
    if not _broadcasts(new.shape, chosen):
        raise ValueError(
            f"shape mismatch: value array of shape {new.shape} could not be broadcast to indexing result of shape "
            f"{chosen}\n  at {user_line()}"
        )
    if 0 in chosen:
        return tracer.builder.constant(0, new.dtype)  # which no place takes
    rank = np.maximum(np.cumsum(mask) - 1, 0).reshape(mask.shape)  # of each true value among them
    return gather(tracer, tracer.builder.broadcast(new, chosen), tracer.node(rank), len(before))


def _broadcasts(shape: ir.Shape, target: ir.Shape) -> bool:
    """Tell whether an array of `shape` broadcasts to `target`."""
    return len(shape) <= len(target) and all(n in (1, m) for n, m in zip(shape[::-1], target[::-1], strict=False))


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
