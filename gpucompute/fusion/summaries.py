"""Functions of NumPy made of reductions: ranges, weighted means, norms, and the ones that skip NaNs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import ir, reductions
from .elementwise import result_type, store, traced, tracer_of
from .location import fusion_error
from .proxy import Traced, implements
from .reductions import F64, Reduction
from .tracer import Tracer
from .views import normalize_axis_tuple, reshape


@implements(np.ptp)
def ptp(a: Any, axis: Any = None, out: Any = None, keepdims: Any = False) -> Traced:
    tracer = tracer_of(a)
    largest, smallest = reductions.max_(a, axis, keepdims=keepdims), reductions.min_(a, axis, keepdims=keepdims)
    return store(tracer, tracer.apply("subtract", largest, smallest), out)


@implements(np.average)
def average(a: Any, axis: Any = None, weights: Any = None, returned: bool = False, *, keepdims: Any = False) -> Any:
    tracer = tracer_of(a, weights)
    x = traced(a, tracer)
    if weights is None:
        mean = reductions.mean(x, axis, keepdims=keepdims)
        count = Reduction(tracer, x, axis).count
        return (mean, np.full(mean.shape, count, mean.dtype)) if returned else mean
    w = traced(weights, tracer)
    dtype = result_type(tracer, x, w, *([F64] if x.dtype.kind in "biu" else []))
    if w.shape != x.shape:
        if axis is None:
            raise TypeError("Axis must be specified when shapes of a and weights differ.")
        axes = normalize_axis_tuple(axis, x.ndim)
        if w.shape != tuple(x.shape[i] for i in axes):
            raise ValueError("Shape of weights must be consistent with shape of a along specified axis.")
        order = np.argsort(axes)
        w = reshape(w.transpose(*order), tuple(n if i in axes else 1 for i, n in enumerate(x.shape)))
    spread = tracer.wrap(tracer.builder.broadcast(tracer.node(w), x.shape))
    scale = reductions.sum_(spread, axis, dtype, keepdims=keepdims)
    product = tracer.wrap(tracer.apply("multiply", tracer.cast(x, dtype), tracer.cast(w, dtype)))
    mean = tracer.wrap(tracer.apply("divide", reductions.sum_(product, axis, keepdims=keepdims), scale))
    return (mean, scale) if returned else mean


def _present(tracer: Tracer, a: Any) -> Any:
    """Return the mask of what is not NaN; True where there can be none."""
    node = tracer.node(a)
    return tracer.apply("logical_not", tracer.apply("isnan", node)) if node.dtype.kind == "f" else True


def _without_nan(reduction: Callable[..., Any]) -> Callable[..., Any]:
    def function(a: Any, *args: Any, **kwargs: Any) -> Traced:
        return reduction(a, *args, where=_present(tracer_of(a), a), **kwargs)  # type: ignore[no-any-return]

    return function


for _function, _reduction in {
    np.nansum: reductions.sum_,
    np.nanprod: reductions.prod,
    np.nanmean: reductions.mean,
    np.nanvar: reductions.var,
    np.nanstd: reductions.std,
}.items():
    implements(_function)(_without_nan(_reduction))


def _extremum_without_nan(reduction: Callable[..., Any], worst: float) -> Callable[..., Any]:
    def function(a: Any, axis: Any = None, out: Any = None, keepdims: Any = False) -> Traced:
        tracer = tracer_of(a)
        present = _present(tracer, a)
        if present is True or not tracer.node(a).size:
            return reduction(a, axis, out, keepdims)  # type: ignore[no-any-return]
        found = reduction(a, axis, keepdims=keepdims, initial=worst, where=present)
        some = reductions.any_(tracer.wrap(present), axis, keepdims=keepdims)
        nan = tracer.builder.constant(np.nan, found.dtype)
        return store(tracer, tracer.apply("where", some, found, nan), out)

    return function


nanmin = implements(np.nanmin)(_extremum_without_nan(reductions.min_, np.inf))
nanmax = implements(np.nanmax)(_extremum_without_nan(reductions.max_, -np.inf))


@implements(np.linalg.norm)
def norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Traced:
    tracer = tracer_of(x)
    given = traced(x, tracer)
    if axis is None and ord is not None and given.ndim != 1:
        axis = tuple(range(given.ndim))
    many = len(normalize_axis_tuple(axis, given.ndim)) > 1 if axis is not None else False
    if many and ord not in (None, "fro"):
        raise fusion_error("a matrix norm cannot be fused; call np.linalg.norm outside the fused function")
    return vector_norm(given, axis=axis, keepdims=keepdims, ord=2 if ord in (None, "fro") else ord)


@implements(np.linalg.vector_norm)
def vector_norm(x: Any, /, *, axis: Any = None, keepdims: bool = False, ord: Any = 2) -> Traced:
    tracer = tracer_of(x)
    node: ir.Node = tracer.node(x)
    if node.dtype.kind != "f":
        node = tracer.cast(node, F64)
    size = tracer.wrap(tracer.apply("absolute", node))
    match ord:
        case np.inf:
            return reductions.max_(size, axis, keepdims=keepdims)  # type: ignore[no-any-return]
        case x if x == -np.inf:
            return reductions.min_(size, axis, keepdims=keepdims)  # type: ignore[no-any-return]
        case 1:
            return reductions.sum_(size, axis, keepdims=keepdims)  # type: ignore[no-any-return]
        case 2:
            square = tracer.wrap(tracer.apply("square", node))
            return tracer.wrap(tracer.apply("sqrt", reductions.sum_(square, axis, keepdims=keepdims)))
    raise fusion_error(f"a norm of order {ord!r} cannot be fused; expected 1, 2, inf or -inf")
