"""Elementwise functions of NumPy that are made of several ufuncs, and what asks only for shapes."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from .elementwise import result_type, static, store, traced, tracer_of
from .location import fusion_error
from .proxy import HANDLERS, Traced, implements


@implements(np.round, np.around)
def round(a: Any, decimals: int = 0, out: Any = None) -> Traced:
    decimals = static(decimals, "decimals")
    tracer = tracer_of(a)
    node = tracer.node(a)
    if node.dtype.kind == "b":
        if decimals:
            raise fusion_error(f"round of bool to {decimals} decimals: cast to a float first with .astype")
        node = tracer.cast(node, np.dtype(np.float16))
    if node.dtype.kind == "f" and decimals == 0:
        node = tracer.apply("rint", node)
    elif node.dtype.kind == "f":
        # as ndarray.round: scale, round to even, scale back
        first, last = ("multiply", "divide") if decimals > 0 else ("divide", "multiply")
        factor = float(10 ** abs(decimals))
        node = tracer.apply(last, tracer.apply("rint", tracer.apply(first, node, factor)), factor)
    elif decimals < 0:
        factor = float(10**-decimals)
        scaled = tracer.apply("multiply", tracer.apply("rint", tracer.apply("divide", node, factor)), factor)
        node = tracer.cast(scaled, node.dtype)
    return store(tracer, node, out, casting="unsafe")


@implements(np.nan_to_num)
def nan_to_num(x: Any, copy: bool = True, nan: Any = 0.0, posinf: Any = None, neginf: Any = None) -> Traced:
    tracer = tracer_of(x)
    node = tracer.node(x)
    if node.dtype.kind == "f":
        limits = np.finfo(node.dtype)
        zero = tracer.builder.constant(0, node.dtype)
        infinite = tracer.apply("isinf", node)
        positive = tracer.apply("logical_and", infinite, tracer.apply("greater", node, zero))
        negative = tracer.apply("logical_and", infinite, tracer.apply("less", node, zero))
        for condition, value in (
            (tracer.apply("isnan", node), nan),
            (positive, limits.max if posinf is None else posinf),
            (negative, limits.min if neginf is None else neginf),
        ):
            node = tracer.apply("where", condition, tracer.cast(value, node.dtype), node)
    if not copy and isinstance(x, Traced):
        x._assign(node)
        return x
    return tracer.wrap(node)


@implements(np.fix)
def fix(x: Any, out: Any = None) -> Traced:
    tracer = tracer_of(x)
    return store(tracer, tracer.apply("trunc", x), out)


@implements(np.isposinf)
def isposinf(x: Any, out: Any = None) -> Traced:
    tracer = tracer_of(x)
    return store(tracer, tracer.apply("equal", x, np.inf), out)


@implements(np.isneginf)
def isneginf(x: Any, out: Any = None) -> Traced:
    tracer = tracer_of(x)
    return store(tracer, tracer.apply("equal", x, -np.inf), out)


@implements(np.isclose)
def isclose(a: Any, b: Any, rtol: Any = 1e-5, atol: Any = 1e-8, equal_nan: bool = False) -> Traced:
    tracer = tracer_of(a, b, rtol, atol)
    y = tracer.node(b)
    if y.dtype.kind != "f":
        y = tracer.cast(y, result_type(tracer, y, 1.0))
    x = tracer.node(a)
    tolerance = tracer.apply("add", atol, tracer.apply("multiply", rtol, tracer.apply("absolute", y)))
    close = tracer.apply("less_equal", tracer.apply("absolute", tracer.apply("subtract", x, y)), tolerance)
    close = tracer.apply("logical_and", close, tracer.apply("isfinite", y))
    close = tracer.apply("logical_or", close, tracer.apply("equal", x, y))
    if equal_nan:
        both = tracer.apply("logical_and", tracer.apply("isnan", x), tracer.apply("isnan", y))
        close = tracer.apply("logical_or", close, both)
    return tracer.wrap(close)


@implements(np.allclose)
def allclose(a: Any, b: Any, rtol: Any = 1e-5, atol: Any = 1e-8, equal_nan: bool = False) -> Traced:
    return HANDLERS[np.all](isclose(a, b, rtol, atol, equal_nan))  # type: ignore[no-any-return]


@implements(np.array_equal)
def array_equal(a1: Any, a2: Any, equal_nan: bool = False) -> Any:
    tracer = tracer_of(a1, a2)
    x, y = traced(a1, tracer), traced(a2, tracer)
    if x.shape != y.shape:
        return False
    same = tracer.apply("equal", x, y)
    if equal_nan:
        both = tracer.apply("logical_and", tracer.apply("isnan", x), tracer.apply("isnan", y))
        same = tracer.apply("logical_or", same, both)
    return HANDLERS[np.all](tracer.wrap(same))


@implements(np.sinc)
def sinc(x: Any) -> Traced:
    tracer = tracer_of(x)
    node = tracer.node(x)
    if node.dtype.kind != "f":
        node = tracer.cast(node, np.dtype(np.float64))
    y = tracer.apply("multiply", np.pi, node)
    zero = tracer.apply("equal", y, 0.0)
    y = tracer.apply("where", zero, float(np.finfo(node.dtype).eps), y)
    return tracer.wrap(tracer.apply("divide", tracer.apply("sin", y), y))


@implements(np.real, np.real_if_close)
def real(val: Any, tol: float = 100) -> Any:
    return val


@implements(np.iscomplexobj)
def iscomplexobj(x: Any) -> bool:
    return False


@implements(np.isrealobj)
def isrealobj(x: Any) -> bool:
    return True


@implements(np.shape)
def shape(a: Any) -> Any:
    return a.shape


@implements(np.ndim)
def ndim(a: Any) -> int:
    return int(a.ndim)


@implements(np.size)
def size(a: Any, axis: Any = None) -> int:
    if axis is None:
        return a.size  # type: ignore[no-any-return]
    axes = np.lib.array_utils.normalize_axis_tuple(axis, a.ndim)
    return prod(a.shape[axis] for axis in axes)
