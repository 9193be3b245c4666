"""Reductions: NumPy's functions as casts, `Reduce` nodes along the fixed tree, and what finishes them."""

from __future__ import annotations

from collections.abc import Callable
from math import prod as product
from typing import Any

import numpy as np

from . import ir
from .elementwise import select, static, store, tracer_of
from .location import fusion_error, user_line
from .proxy import Traced, implements
from .tracer import BOOL, INT64, DType, Tracer, native

F16, F32, F64 = (np.dtype(name) for name in ("float16", "float32", "float64"))
UINT64 = np.dtype(np.uint64)
NO = np._NoValue


class Reduction:
    """One reduction of one array: its axes, how many elements fall on each result, and the results' shape."""

    def __init__(self, tracer: Tracer, a: Any, axis: Any, keepdims: Any = False, where: Any = True) -> None:
        self.tracer = tracer
        self.node = tracer.node(a)
        shape = self.node.shape
        axis = static(axis, "axis")
        if axis is None or (not shape and axis in (0, -1)):  # NumPy lets a scalar be reduced along one axis
            axes: Any = range(len(shape))
        else:
            axes = _normalized(axis, len(shape))
        self.axes = tuple(sorted(axes))
        self.count = product(shape[axis] for axis in self.axes)
        self.result_shape = tuple(n for axis, n in enumerate(shape) if axis not in self.axes)
        if keepdims is not NO and keepdims:
            self.result_shape = tuple(1 if axis in self.axes else n for axis, n in enumerate(shape))
        self.where = None if where is True or where is NO else where
        if self.where is not None and tracer.broadcast_shapes(shape, tracer.node(where).shape) != shape:
            raise fusion_error(f"where= of shape {tracer.node(where).shape} is larger than the array, {shape}")

    def masked(self, node: ir.Node, instead: Any) -> ir.Node:
        """Return `node` with `instead` in place of the elements that ``where=`` leaves out."""
        if self.where is None:
            return node
        return select(self.tracer, self.where, node, self.tracer.builder.constant(instead, node.dtype))

    def reduce(self, op: str, node: ir.Node, dtype: DType, nothing: Any) -> ir.Node:
        """Return the reduction of `node` (this array after casts); `nothing` is the result of no elements.

        Half floats go by way of float32.
        """
        tracer = self.tracer
        if self.count == 0:
            return tracer.builder.broadcast(tracer.builder.constant(nothing, dtype), self.result_shape)
        if node.dtype == F16:
            node = tracer.cast(node, F32)
        wide = F32 if dtype == F16 else dtype
        if self.axes:
            result = tracer.builder.reduce(op, node, self.axes, wide)
        elif op in ("argmin", "argmax"):
            result = tracer.builder.broadcast(tracer.builder.constant(0, wide), node.shape)
        elif op == "m2":
            distance = tracer.cast(tracer.apply("subtract", node, node), wide)
            result = tracer.apply("multiply", distance, distance)
        else:
            result = node
        return tracer.cast(tracer.builder.reshape(result, self.result_shape), dtype)

    def sum(self, node: ir.Node) -> ir.Node:
        """Return the sum of `node` in its own dtype; small integers are summed in 64 bits and wrap at the end."""
        wide = self.tracer.cast(node, _accumulator(node.dtype))
        identity = -0.0 if wide.dtype.kind == "f" else 0
        return self.tracer.cast(self.reduce("sum", self.masked(wide, identity), wide.dtype, 0), node.dtype)

    def number(self) -> Any:
        """Return how many elements fall on each result: an int, or counts where a mask is given."""
        if self.where is None:
            return self.count
        mask = self.tracer.cast(self.tracer.cast(self.where, BOOL), INT64)
        return self.reduce("sum", self.tracer.builder.broadcast(mask, self.node.shape), INT64, 0)

    def divide(self, node: ir.Node, number: Any) -> ir.Node:
        """Return ``node / number`` in the dtype of `node`.

        NumPy divides in float64 and rounds. Where float32 holds the number, its own division rounds the same
        (Figueroa 1995, "When is double rounding innocuous?").
        """
        exact = not isinstance(number, ir.Node) and float(np.float32(number)) == number
        number = number if isinstance(number, ir.Node) else self.tracer.size(float(number), self.node, self.axes)
        if node.dtype == F64 or (node.dtype == F32 and exact):
            return self.tracer.apply("divide", node, self.tracer.cast(number, node.dtype))
        quotient = self.tracer.apply("divide", self.tracer.cast(node, F64), self.tracer.cast(number, F64))
        return self.tracer.cast(quotient, node.dtype)


def _normalized(axis: Any, ndim: int) -> tuple[int, ...]:
    """Return the axes that ``axis=`` names, from 0; NumPy's errors with the user's line."""
    try:
        return np.lib.array_utils.normalize_axis_tuple(axis, ndim, "axis")
    except np.exceptions.AxisError as error:
        raise np.exceptions.AxisError(f"{error}\n  at {user_line()}") from None
    except TypeError:
        raise fusion_error(f"axis={axis!r}: expected an integer, a tuple of integers, or None") from None


def _accumulator(dtype: DType) -> DType:
    """Return what sums and products of `dtype` are computed in."""
    return {"b": INT64, "i": INT64, "u": UINT64}.get(dtype.kind, dtype)


def _sum_like(op: str, identity: int, of_bools: str, join: str) -> Callable[..., Any]:
    def reduction(
        a: Any,
        axis: Any = None,
        dtype: Any = None,
        out: Any = None,
        keepdims: Any = False,
        initial: Any = NO,
        where: Any = True,
    ) -> Traced:
        tracer = tracer_of(a, where, initial)
        work = Reduction(tracer, a, axis, keepdims, where)
        result = _accumulator(work.node.dtype) if dtype is None else native(dtype)
        node = tracer.cast(work.node, result)
        if result.kind == "b":
            node = work.reduce(of_bools, work.masked(node, identity), BOOL, identity)
        elif op == "sum":
            node = work.sum(node)
        else:
            node = tracer.cast(node, _accumulator(result))
            node = tracer.cast(work.reduce(op, work.masked(node, identity), node.dtype, identity), result)
        if initial is not NO:
            node = tracer.apply(join, node, tracer.cast(initial, result))
        return store(tracer, node, out)

    return reduction


sum_ = implements(np.sum)(_sum_like("sum", 0, "any", "add"))
prod = implements(np.prod)(_sum_like("prod", 1, "all", "multiply"))


def _lowest(dtype: DType) -> Any:
    return -np.inf if dtype.kind == "f" else False if dtype.kind == "b" else np.iinfo(dtype).min


def _highest(dtype: DType) -> Any:
    return np.inf if dtype.kind == "f" else True if dtype.kind == "b" else np.iinfo(dtype).max


def _extremum(op: str, join: str, identity: Callable[[DType], Any]) -> Callable[..., Any]:
    def reduction(
        a: Any, axis: Any = None, out: Any = None, keepdims: Any = False, initial: Any = NO, where: Any = True
    ) -> Traced:
        tracer = tracer_of(a, where, initial)
        work = Reduction(tracer, a, axis, keepdims, where)
        if initial is NO and work.where is not None:
            raise ValueError(
                f"reduction operation '{join}' does not have an identity, so to use a where mask one has to specify "
                f"'initial'\n  at {user_line()}"
            )
        if initial is NO and work.count == 0:
            raise ValueError(f"zero-size array to reduction operation {join} which has no identity\n  at {user_line()}")
        dtype = work.node.dtype
        node = work.reduce(op, work.masked(work.node, identity(dtype)), dtype, identity(dtype))
        if initial is not NO:
            node = tracer.apply(join, node, tracer.cast(initial, dtype))
        return store(tracer, node, out)

    return reduction


min_ = implements(np.min, np.amin)(_extremum("min", "minimum", _highest))
max_ = implements(np.max, np.amax)(_extremum("max", "maximum", _lowest))


def _position(op: str) -> Callable[..., Any]:
    def reduction(a: Any, axis: Any = None, out: Any = None, *, keepdims: Any = False) -> Traced:
        tracer = tracer_of(a)
        work = Reduction(tracer, a, axis, keepdims)
        if work.count == 0:
            raise ValueError(f"attempt to get {op} of an empty sequence\n  at {user_line()}")
        return store(tracer, work.reduce(op, work.node, INT64, 0), out)

    return reduction


argmin = implements(np.argmin)(_position("argmin"))
argmax = implements(np.argmax)(_position("argmax"))


def _truth(op: str, identity: bool) -> Callable[..., Any]:
    def reduction(a: Any, axis: Any = None, out: Any = None, keepdims: Any = False, *, where: Any = True) -> Traced:
        tracer = tracer_of(a, where)
        work = Reduction(tracer, a, axis, keepdims, where)
        node = work.masked(tracer.cast(work.node, BOOL), identity)
        return store(tracer, work.reduce(op, node, BOOL, identity), out)

    return reduction


any_ = implements(np.any)(_truth("any", False))
all_ = implements(np.all)(_truth("all", True))


@implements(np.count_nonzero)
def count_nonzero(a: Any, axis: Any = None, *, keepdims: bool = False) -> Traced:
    tracer = tracer_of(a)
    work = Reduction(tracer, a, axis, keepdims)
    return tracer.wrap(work.reduce("sum", tracer.cast(tracer.cast(work.node, BOOL), INT64), INT64, 0))


@implements(np.mean)
def mean(
    a: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: Any = False, *, where: Any = True
) -> Traced:
    tracer = tracer_of(a, where)
    work = Reduction(tracer, a, axis, keepdims, where)
    given = work.node.dtype
    result = native(dtype) if dtype is not None else F64 if given.kind in "biu" else given
    if dtype is None and given.kind in "biu" and given.itemsize < 8:
        total = tracer.cast(work.sum(tracer.cast(work.node, INT64)), F64)  # exact
    else:
        total = work.sum(tracer.cast(work.node, F32 if dtype is None and given == F16 else result))
    return store(tracer, tracer.cast(work.divide(total, work.number()), result), out, casting="unsafe")


def _variance(
    a: Any,
    axis: Any = None,
    dtype: Any = None,
    out: Any = None,
    ddof: Any = 0,
    keepdims: Any = False,
    *,
    where: Any = True,
    mean: Any = NO,
    correction: Any = NO,
    root: bool,
) -> Traced:
    tracer = tracer_of(a, where, mean)
    if correction is not NO:
        if ddof != 0:
            raise ValueError("ddof and correction can't be provided simultaneously.")
        ddof = correction
    ddof = static(ddof, "ddof")
    work = Reduction(tracer, a, axis, keepdims, where)
    given = work.node.dtype
    result = native(dtype) if dtype is not None else F64 if given.kind in "biu" else given
    if result.kind != "f":
        raise fusion_error(f"a variance in {result} cannot be fused; expected a float dtype")
    if work.where is None and mean is NO:
        if given.kind in "biu" and given.itemsize < 4:
            arg, wide = (tracer.cast(work.node, np.dtype(np.uint8)) if given == BOOL else work.node), F64
        else:
            wide = F32 if result == F16 else result
            arg = tracer.cast(work.node, wide)
        squares = work.reduce("m2", arg, wide, 0)
    else:
        squares = _squares_about_mean(work, tracer.cast(work.node, F32 if result == F16 else result), mean)
    number = work.number()
    if isinstance(number, ir.Node):
        number = tracer.apply("maximum", tracer.apply("subtract", number, ddof), 0)
    else:
        number = max(number - ddof, 0)
    node = tracer.cast(work.divide(squares, number), result)
    return store(tracer, tracer.apply("sqrt", node) if root else node, out, casting="unsafe")


def _squares_about_mean(work: Reduction, node: ir.Node, mean: Any) -> ir.Node:
    """Return the sum of squared distances from a given mean, or from that of the elements of a mask."""
    tracer = work.tracer
    if mean is NO:
        centre = work.divide(work.sum(node), work.number())
        kept = tuple(1 if axis in work.axes else n for axis, n in enumerate(node.shape))
        centre = tracer.builder.reshape(centre, kept)
    else:
        centre = tracer.cast(mean, node.dtype)
    return work.sum(tracer.apply("square", tracer.apply("subtract", node, centre)))


@implements(np.var)
def var(*args: Any, **kwargs: Any) -> Traced:
    return _variance(*args, **kwargs, root=False)


@implements(np.std)
def std(*args: Any, **kwargs: Any) -> Traced:
    return _variance(*args, **kwargs, root=True)
