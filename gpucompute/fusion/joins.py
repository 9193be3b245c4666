"""Arrays put together from others, and taken apart."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from .elementwise import static, store, traced, tracer_of
from .location import fusion_error, user_line
from .proxy import HANDLERS, Traced, find_tracer, implements
from .tracer import DType, native
from .views import (
    as_traced,
    broadcast_to,
    expand_dims,
    moveaxis,
    normalize_axis_index,
    normalize_axis_tuple,
    reshape,
)


def _same_rank(arrays: Sequence[Traced], axis: int) -> None:
    first = arrays[0]
    for i, x in enumerate(arrays):
        if x.ndim != first.ndim or any(
            n != m for k, (n, m) in enumerate(zip(x.shape, first.shape, strict=True)) if k != axis
        ):
            raise ValueError(
                "all the input array dimensions except for the concatenation axis must match exactly: array 0 has "
                f"shape {first.shape}, array {i} has shape {x.shape}, axis {axis}\n  at {user_line()}"
            )


@implements(np.concatenate)
def concatenate(
    arrays: Any, /, axis: Any = 0, out: Any = None, *, dtype: Any = None, casting: Any = "same_kind"
) -> Traced:
    tracer = tracer_of(arrays, out)
    given = [traced(x, tracer) for x in _sequence(arrays)]
    if axis is None:
        given, axis = [reshape(x, -1 if x.size else 0) for x in given], 0
    if any(x.ndim == 0 for x in given):
        raise ValueError(f"zero-dimensional arrays cannot be concatenated\n  at {user_line()}")
    axis = normalize_axis_index(operator.index(axis), given[0].ndim)
    _same_rank(given, axis)
    target = native(dtype) if dtype is not None else native(np.result_type(*(x.dtype for x in given)))
    if not all(np.can_cast(x.dtype, target, casting) for x in given):
        raise TypeError(f"Cannot cast {given[0].dtype} to {target} by the rule {casting!r}\n  at {user_line()}")
    parts = tuple(tracer.cast(x, target) for x in given)
    filled = tuple(part for part in parts if part.shape[axis]) or parts[:1]
    return store(tracer, filled[0] if len(filled) == 1 else tracer.builder.concatenate(filled, axis), out)


def _sequence(arrays: Any) -> list[Any]:
    """Return the arrays to join; one array stands for its rows."""
    return [arrays[i] for i in range(len(arrays))] if isinstance(arrays, Traced) else list(arrays)


@implements(np.concat)
def concat(arrays: Any, /, axis: Any = 0, **kwargs: Any) -> Traced:
    return concatenate(arrays, axis, **kwargs)


@implements(np.stack)
def stack(arrays: Any, axis: int = 0, out: Any = None, *, dtype: Any = None, casting: Any = "same_kind") -> Traced:
    tracer = tracer_of(arrays, out)
    given = [traced(x, tracer) for x in _sequence(arrays)]
    if any(x.shape != given[0].shape for x in given):
        shapes = [x.shape for x in given]
        raise ValueError(f"all input arrays must have the same shape, got {shapes}\n  at {user_line()}")
    return concatenate([expand_dims(x, axis) for x in given], axis, out, dtype=dtype, casting=casting)


def _joined(at_least: Any, axis: int | None) -> Any:
    def join(tup: Any, *, dtype: Any = None, casting: Any = "same_kind") -> Traced:
        tracer = tracer_of(tup)
        given = at_least(*(traced(x, tracer) for x in _sequence(tup)))
        given = given if isinstance(given, tuple) else (given,)
        where = (0 if given[0].ndim == 1 else 1) if axis is None else axis
        return concatenate(given, where, dtype=dtype, casting=casting)

    return join


hstack = implements(np.hstack)(_joined(HANDLERS[np.atleast_1d], None))
vstack = implements(np.vstack)(_joined(HANDLERS[np.atleast_2d], 0))
dstack = implements(np.dstack)(_joined(HANDLERS[np.atleast_3d], 2))


@implements(np.column_stack)
def column_stack(tup: Any) -> Traced:
    tracer = tracer_of(tup)
    given = [traced(x, tracer) for x in _sequence(tup)]
    return concatenate([reshape(x, (x.size, 1)) if x.ndim < 2 else x for x in given], 1)


@implements(np.append)
def append(arr: Any, values: Any, axis: Any = None) -> Traced:
    return concatenate((arr, values), axis)


@implements(np.array_split)
def array_split(ary: Any, indices_or_sections: Any, axis: int = 0) -> list[Traced]:
    x = as_traced(ary)
    axis = normalize_axis_index(axis, x.ndim)
    n = x.shape[axis]
    where = static(indices_or_sections, "where to split")
    if isinstance(where, (int, np.integer)):
        base, extra = divmod(n, int(where))
        edges = [0]
        for part in range(int(where)):
            edges.append(edges[-1] + base + (part < extra))
    else:
        edges = [0, *(operator.index(i) for i in where), n]
    whole = (slice(None),) * axis
    return [x[(*whole, slice(a, b))] for a, b in pairwise(edges)]


@implements(np.split)
def split(ary: Any, indices_or_sections: Any, axis: int = 0) -> list[Traced]:
    if isinstance(indices_or_sections, (int, np.integer)) and ary.shape[axis] % indices_or_sections:
        raise ValueError(f"array split does not result in an equal division\n  at {user_line()}")
    return array_split(ary, indices_or_sections, axis)


@implements(np.hsplit)
def hsplit(ary: Any, indices_or_sections: Any) -> list[Traced]:
    return split(ary, indices_or_sections, 1 if ary.ndim > 1 else 0)


@implements(np.vsplit)
def vsplit(ary: Any, indices_or_sections: Any) -> list[Traced]:
    return split(ary, indices_or_sections, 0)


@implements(np.dsplit)
def dsplit(ary: Any, indices_or_sections: Any) -> list[Traced]:
    return split(ary, indices_or_sections, 2)


@implements(np.unstack)
def unstack(x: Any, /, *, axis: int = 0) -> tuple[Traced, ...]:
    return tuple(moveaxis(x, axis, 0))


@implements(np.roll)
def roll(a: Any, shift: Any, axis: Any = None) -> Traced:
    x = as_traced(a)
    shift = static(shift, "the shift")
    if axis is None:
        return reshape(roll(reshape(x, -1 if x.size else 0), shift, 0), x.shape)
    axes = normalize_axis_tuple(axis, x.ndim, allow_duplicate=True)
    for step, along in np.broadcast(shift, axes):
        n = x.shape[along]
        k = int(step) % n if n else 0
        if k:
            whole = (slice(None),) * int(along)
            x = concatenate((x[(*whole, slice(n - k, None))], x[(*whole, slice(0, n - k))]), int(along))
    return x.copy()


@implements(np.tile)
def tile(A: Any, reps: Any) -> Traced:
    x = as_traced(A)
    reps = static(reps, "the number of repetitions")
    times = tuple(int(n) for n in (reps if np.ndim(reps) else (reps,)))
    times = (1,) * (x.ndim - len(times)) + times
    shape = (1,) * (len(times) - x.ndim) + x.shape
    paired = reshape(x, tuple(k for n in shape for k in (1, n)))
    spread = broadcast_to(paired, tuple(k for t, n in zip(times, shape, strict=True) for k in (t, n)))
    return reshape(spread, tuple(t * n for t, n in zip(times, shape, strict=True))).copy()


@implements(np.repeat)
def repeat(a: Any, repeats: Any, axis: Any = None) -> Traced:
    x = as_traced(a)
    counts = np.asarray(static(repeats, "the number of repetitions"))
    if axis is None or not x.shape:  # NumPy takes a scalar for an array of one element
        x, axis = reshape(x, -1 if x.size else 0), 0 if axis is None else axis
    axis = normalize_axis_index(axis, x.ndim)
    if counts.size > 1:
        return HANDLERS[np.take](x, np.repeat(np.arange(x.shape[axis]), counts), axis)  # type: ignore[no-any-return]
    count = int(counts.reshape(()))
    new = expand_dims(x, axis + 1)
    shape = (*x.shape[: axis + 1], count, *x.shape[axis + 1 :])
    flat = (*x.shape[:axis], x.shape[axis] * count, *x.shape[axis + 1 :])
    return reshape(broadcast_to(new, shape), flat).copy()


@implements(np.pad)
def pad(array: Any, pad_width: Any, mode: Any = "constant", **kwargs: Any) -> Traced:
    x = as_traced(array)
    if isinstance(pad_width, dict):
        pad_width = [pad_width.get(axis, pad_width.get(axis - x.ndim, (0, 0))) for axis in range(x.ndim)]
    widths = np.broadcast_to(np.asarray(static(pad_width, "the pad width")), (x.ndim, 2)).tolist()
    if any(n < 0 for pair in widths for n in pair):
        raise ValueError(f"index can't contain negative values\n  at {user_line()}")
    if mode == "constant":
        values = kwargs.pop("constant_values", 0)
        if find_tracer(values) is None or not isinstance(values, Traced):
            values = np.broadcast_to(np.asarray(values, dtype=object), (x.ndim, 2)).tolist()
        else:
            values = [[values, values]] * x.ndim
    elif mode not in ("edge", "reflect", "symmetric", "wrap") or kwargs.pop("reflect_type", "even") != "even":
        raise fusion_error(
            f"np.pad with mode={mode!r} cannot be fused; expected constant, edge, reflect, symmetric or wrap"
        )
    if kwargs:
        raise ValueError(f"unsupported keyword arguments for mode {mode!r}: {set(kwargs)}")
    for axis, (before, after) in enumerate(widths):
        if not before and not after:
            continue
        if mode == "constant":
            x = _pad_constant(x, axis, (before, after), values[axis])
        else:
            # NumPy's own answer for the positions along the axis
            source = np.pad(np.arange(x.shape[axis]), (before, after), mode=mode)
            x = HANDLERS[np.take](x, source, axis)
    return x.copy()


def _pad_constant(x: Traced, axis: int, widths: tuple[int, int], values: Sequence[Any]) -> Traced:
    tracer = x._tracer
    parts = [x]
    for place, width, value in zip((0, 2), widths, values, strict=True):
        if width:
            shape = (*x.shape[:axis], width, *x.shape[axis + 1 :])
            filled = tracer.wrap(tracer.builder.broadcast(tracer.cast(value, x.dtype), shape))
            parts.insert(place, filled)
    return concatenate(parts, axis)


@implements(np.diff)
def diff(a: Any, n: int = 1, axis: int = -1, prepend: Any = np._NoValue, append: Any = np._NoValue) -> Traced:
    x = as_traced(a)
    axis = normalize_axis_index(axis, x.ndim)
    ends = []
    for end in (prepend, append):
        if end is not np._NoValue:
            end = traced(end, x._tracer)
            if end.ndim == 0:
                end = broadcast_to(end, tuple(1 if i == axis else m for i, m in enumerate(x.shape)))
        ends.append(end)
    pieces = [piece for piece in (ends[0], x, ends[1]) if piece is not np._NoValue]
    if len(pieces) > 1:
        x = concatenate(pieces, axis)
    whole = (slice(None),) * axis
    for _ in range(static(n, "the order of the difference")):
        later, earlier = x[(*whole, slice(1, None))], x[(*whole, slice(None, -1))]
        x = later != earlier if x.dtype.kind == "b" else later - earlier
    return x


# ---- arrays made like another


def _filled(prototype: Any, value: Any, dtype: Any, shape: Any) -> Traced:
    tracer = tracer_of(prototype, value)
    kind: DType = native(dtype) if dtype is not None else tracer.node(prototype).dtype
    new = tracer.node(prototype).shape if shape is None else shape
    new = static(new, "the shape")
    lengths = tuple(operator.index(n) for n in (new if isinstance(new, (tuple, list)) else (new,)))
    return tracer.wrap(tracer.builder.broadcast(tracer.cast(value, kind), lengths), owner="local")


@implements(np.zeros_like, np.empty_like)
def zeros_like(
    prototype: Any, dtype: Any = None, order: str = "K", subok: bool = True, shape: Any = None, *, device: Any = None
) -> Traced:
    return _filled(prototype, 0, dtype, shape)


@implements(np.ones_like)
def ones_like(
    a: Any, dtype: Any = None, order: str = "K", subok: bool = True, shape: Any = None, *, device: Any = None
) -> Traced:
    return _filled(a, 1, dtype, shape)


@implements(np.full_like)
def full_like(
    a: Any,
    fill_value: Any,
    dtype: Any = None,
    order: str = "K",
    subok: bool = True,
    shape: Any = None,
    *,
    device: Any = None,
) -> Traced:
    return _filled(a, fill_value, dtype, shape)


@implements(np.copy)
def copy(a: Any, order: str = "K", subok: bool = False) -> Traced:
    tracer = tracer_of(a)
    return tracer.wrap(tracer.node(a), owner="local")


def _triangle(m: Any, k: int, keep_lower: bool) -> Traced:
    x = as_traced(m)
    if x.ndim < 2:
        x = broadcast_to(x, (x.shape[0], x.shape[0]))
    build = x._tracer.builder
    rows, columns = x.shape[-2:]
    row = build.reshape(build.iota(rows), (rows, 1))
    lower = x._tracer.apply("less_equal", build.iota(columns), x._tracer.apply("add", row, static(k, "k")))
    zero = build.constant(0, x.dtype)
    choices = (x._node, zero) if keep_lower else (zero, x._node)
    return x._tracer.wrap(x._tracer.apply("where", lower, *choices))


@implements(np.tril)
def tril(m: Any, k: int = 0) -> Traced:
    return _triangle(m, k, True)


@implements(np.triu)
def triu(m: Any, k: int = 0) -> Traced:
    return _triangle(m, static(k, "k") - 1, False)


@implements(np.meshgrid)
def meshgrid(*xi: Any, copy: bool = True, sparse: bool = False, indexing: str = "xy") -> tuple[Traced, ...]:
    tracer = tracer_of(*xi)
    arrays = [traced(x, tracer) for x in xi]
    order = list(range(len(arrays)))
    if indexing == "xy" and len(order) > 1:
        order[:2] = [1, 0]
    grids = []
    for place, x in zip(order, arrays, strict=True):
        grids.append(reshape(x, tuple(x.size if i == place else 1 for i in range(len(arrays)))))
    if sparse:
        return tuple(grids)
    shape = tracer.broadcast_shapes(*(x.shape for x in grids))
    return tuple(broadcast_to(x, shape).copy() for x in grids)
