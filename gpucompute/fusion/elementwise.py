"""Ufuncs and the other elementwise functions of NumPy, as maps."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import ops
from . import ir
from .location import fusion_error, user_line
from .proxy import HANDLERS, Traced, find_tracer, implements
from .tracer import BOOL, DType, Tracer, array_like, native, weak_type

_WHERE_WRAPS = np.lib.NumpyVersion(np.__version__) < "2.5.0"  # an integer too large for the dtype; later it raises
_CALL_KEYWORDS = {"out", "where", "casting", "order", "dtype", "subok", "signature", "sig"}


def tracer_of(*values: Any) -> Tracer:
    """Return the trace that the proxies among `values` belong to."""
    tracer = find_tracer(values)
    assert tracer is not None, "a handler was called without a proxy"
    return tracer


def traced(value: Any, tracer: Tracer) -> Traced:
    """Return `value` as a proxy."""
    return value if isinstance(value, Traced) and not value._weak else tracer.wrap(tracer.node(value))


def static(value: Any, what: str) -> Any:
    """Return `value`, or raise where a shape or another setting is given as a run-time value."""
    if find_tracer(value) is not None:
        raise fusion_error(
            f"{what} must be known when the function is traced, and this one is a run-time value: name the argument "
            "that it comes from in static_argnames"
        )
    return value


# ---- ufuncs


def call_ufunc(ufunc: np.ufunc, method: str, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Meaning of ``ufunc.method(*inputs, **kwargs)`` where a proxy is among the operands."""
    if method == "reduce":
        return _reduce(ufunc, inputs, kwargs)
    if method == "outer":
        tracer = tracer_of(*inputs)
        left, right = (traced(value, tracer) for value in inputs)
        left = HANDLERS[np.reshape](left, left.shape + (1,) * right.ndim)
        return call_ufunc(ufunc, "__call__", (left, right), kwargs)
    if method != "__call__":
        raise fusion_error(f"np.{ufunc.__name__}.{method} cannot be fused; call it outside the fused function")
    if ufunc.signature is not None:
        raise fusion_error(
            f"np.{ufunc.__name__} is a library call that cannot be fused; call it outside the fused function"
        )
    names = ops.SEVERAL.get(ufunc.__name__)
    if names is None:
        op = ops.find(ufunc.__name__)
        if op is None or op.nin != ufunc.nin:
            raise fusion_error(
                f"the ufunc {ufunc.__name__} cannot be fused: gpucompute has no kernel for it; call it outside the "
                "fused function, or write it as a scalar function with gp.vectorize"
            )
        names = (op.name,)
    unknown = set(kwargs) - _CALL_KEYWORDS
    if unknown:
        raise TypeError(f"{ufunc.__name__}() got an unexpected keyword argument {min(unknown)!r}")
    tracer = tracer_of(inputs, kwargs.get("out"), kwargs.get("where"))
    if names == ("power",):
        names, inputs = _literal_power(tracer, *inputs)
    inputs = _given_loop(ufunc, tracer, inputs, kwargs)
    nodes = [tracer.apply(name, *inputs) for name in names]
    if names == ("power",):
        tracer.check_exponent(nodes[0])
    outs = kwargs.get("out") or ()
    outs = outs if isinstance(outs, tuple) else (outs,)
    outs = tuple(outs) + (None,) * (len(nodes) - len(outs))
    where = kwargs.get("where", True)
    casting = kwargs.get("casting", "same_kind")
    results = tuple(store(tracer, node, out, where, casting) for node, out in zip(nodes, outs, strict=True))
    return results if len(results) > 1 else results[0]


_POWERS = {2: "square", 1: "positive", 0.5: "sqrt", -1: "reciprocal"}


def _literal_power(tracer: Tracer, base: Any, exponent: Any) -> tuple[tuple[str, ...], tuple[Any, ...]]:
    """Return the operation that NumPy takes in place of a power with a literal exponent."""
    kind = tracer.kind(base)
    if weak_type(exponent) in (int, float) and isinstance(kind, np.dtype):
        if kind.kind == "f" and exponent in _POWERS:
            return (_POWERS[exponent],), (base,)
        if kind.kind in "iu" and weak_type(exponent) is int and exponent == 2:
            return ("square",), (base,)
    return ("power",), (base, exponent)


def _given_loop(ufunc: np.ufunc, tracer: Tracer, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """Cast the operands where ``dtype=`` or ``signature=`` chooses the loop."""
    dtype, signature = kwargs.get("dtype"), kwargs.get("signature", kwargs.get("sig"))
    if dtype is None and signature is None:
        return inputs
    if dtype is not None:
        # as the ufunc does: the dtype of the outputs, except for comparisons, whose dtype= must be bool
        signature = (None,) * ufunc.nin + (native(dtype),) * ufunc.nout
    kinds = [tracer.kind(value) for value in inputs]
    try:
        loop = ufunc.resolve_dtypes(
            (*kinds, *[None] * ufunc.nout), signature=signature, casting=kwargs.get("casting", "same_kind")
        )
    except (TypeError, ValueError) as error:
        raise fusion_error(str(error)) from None
    return tuple(tracer.cast(value, native(dt)) for value, dt in zip(inputs, loop, strict=False))


def store(tracer: Tracer, node: ir.Node, out: Any, where: Any = True, casting: Any = "same_kind") -> Traced:
    """Return a result, written to `out` (a proxy) where there is one, only where `where` holds."""
    if out is not None and not isinstance(out, Traced):
        raise fusion_error(
            "out= is a NumPy array made inside the function, which a kernel cannot write to; make it with "
            "np.zeros_like(x) or np.zeros(shape, like=x), or use the value that the function returns"
        )
    if out is None:
        if where is True:
            return tracer.wrap(node)
        # NumPy leaves the other elements as they were in fresh memory: any value is right
        return tracer.wrap(tracer.apply("where", where, node, tracer.builder.constant(0, node.dtype)))
    if not np.can_cast(node.dtype, out.dtype, casting):
        raise fusion_error(
            f"cannot cast a result of {node.dtype} to the {out.dtype} of the array that it is assigned to (rule "
            f"{casting!r}); write x = x + y to get a new array, or cast with .astype"
        )
    value = tracer.cast(node, out.dtype)
    if where is not True:
        value = tracer.apply("where", where, value, out._node)
    if tracer.broadcast_shapes(value.shape, out.shape) != out.shape:
        raise fusion_error(f"a result of shape {value.shape} does not fit into the array of shape {out.shape}")
    out._assign(tracer.builder.broadcast(value, out.shape))
    return out


_REDUCTIONS: dict[str, Callable[..., Any]] = {
    "add": np.sum,
    "multiply": np.prod,
    "maximum": np.max,
    "minimum": np.min,
    "logical_and": np.all,
    "logical_or": np.any,
}


def _reduce(ufunc: np.ufunc, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    function = _REDUCTIONS.get(ufunc.__name__)
    if function is None:
        raise fusion_error(
            f"np.{ufunc.__name__}.reduce cannot be fused; gp.reduction(map, combine, identity) makes a reduction of "
            "your own, or call it outside the fused function"
        )
    names = ("axis", "dtype", "out", "keepdims", "initial", "where")
    kwargs = dict(zip(names, inputs[1:], strict=False)) | kwargs
    out = kwargs.pop("out", None)
    kwargs["out"] = out[0] if isinstance(out, tuple) else out
    kwargs.setdefault("axis", 0)
    if function in (np.max, np.min, np.all, np.any) and kwargs.pop("dtype", None) is not None:
        raise fusion_error(f"np.{ufunc.__name__}.reduce with dtype= cannot be fused; cast with .astype first")
    return HANDLERS[function](inputs[0], **{k: v for k, v in kwargs.items() if v is not np._NoValue})


# ---- casts and selections


def astype(x: Traced, dtype: Any, *, casting: Any = "unsafe", copy: bool = True) -> Traced:
    """``x.astype(dtype)``."""
    target = native(dtype)
    if not np.can_cast(x.dtype, target, casting):
        raise fusion_error(f"Cannot cast array data from {x.dtype} to {target} according to the rule {casting!r}")
    if not copy and target == x.dtype:
        return x
    return x._tracer.wrap(x._tracer.cast(x, target))


@implements(np.astype)
def _astype(x: Traced, dtype: Any, /, *, copy: bool = True, device: Any = None) -> Traced:
    return astype(x, dtype, copy=copy)


@implements(np.where)
def where(condition: Any, x: Any = None, y: Any = None) -> Traced:
    if x is None or y is None:
        raise fusion_error(
            "np.where(condition) alone gives as many indices as there are true values, which is known only when the "
            "kernel runs; use np.where(condition, x, y), or call it outside the fused function"
        )
    tracer = tracer_of(condition, x, y)
    return tracer.wrap(select(tracer, condition, x, y), owner="local")


def select(tracer: Tracer, condition: Any, x: Any, y: Any) -> ir.Node:
    """Return ``where(condition, x, y)`` with the dtype of `x` and `y`."""
    dtype = result_type(tracer, x, y)
    convert = tracer.wrapped if _WHERE_WRAPS else tracer.cast
    return tracer.apply("where", tracer.cast(condition, BOOL), convert(x, dtype), convert(y, dtype))


def _bound(tracer: Tracer, value: Any, dtype: DType, nearer: Callable[..., int]) -> Any:
    """Return a bound for integers of `dtype`: NumPy ignores Python integers that no value of `dtype` passes."""
    value = tracer.lifted(value)
    if value is None or tracer.kind(value) is not int:
        return value
    limit = int(np.iinfo(dtype).min if nearer is builtins.max else np.iinfo(dtype).max)
    if weak_type(value) is None:
        return tracer.derive(lambda bound: nearer(bound, limit), value)
    return None if nearer(value, limit) == limit else value


@implements(np.clip)
def clip(
    a: Any, a_min: Any = None, a_max: Any = None, out: Any = None, *, min: Any = None, max: Any = None, **kwargs: Any
) -> Traced:
    unknown = set(kwargs) - _CALL_KEYWORDS
    if unknown:
        raise fusion_error(f"clip() got an unexpected keyword argument {builtins.min(unknown)!r}")
    if kwargs.get("dtype") is not None:
        raise fusion_error("clip with dtype= cannot be fused; cast with .astype first")
    low = min if a_min is None or a_min is np._NoValue else a_min
    high = max if a_max is None or a_max is np._NoValue else a_max
    low, high = (None if bound is np._NoValue else bound for bound in (low, high))
    tracer = tracer_of(a, low, high)
    kind = tracer.kind(a)
    if isinstance(kind, np.dtype) and kind.kind in "iu":
        low, high = _bound(tracer, low, kind, builtins.max), _bound(tracer, high, kind, builtins.min)
    given = [bound for bound in (low, high) if bound is not None]
    # one bound is NumPy's maximum or minimum, none its positive
    name = "clip" if len(given) == 2 else "maximum" if high is None else "minimum"
    node = tracer.apply(name, a, *given) if given else tracer.node(a)
    return store(tracer, node, out, kwargs.get("where", True), kwargs.get("casting", "same_kind"))


@implements(np.select)
def np_select(condlist: Sequence[Any], choicelist: Sequence[Any], default: Any = 0) -> Traced:
    tracer = tracer_of(condlist, choicelist, default)
    if len(condlist) != len(choicelist) or not condlist:
        raise ValueError("list of cases must be same length as list of conditions, and not empty")
    dtype = result_type(tracer, *choicelist, default)
    result = tracer.wrapped(default, dtype)
    for condition, choice in zip(reversed(condlist), reversed(choicelist), strict=True):
        if tracer.kind(condition) not in (bool, BOOL):
            raise TypeError("invalid entry in condlist: should be boolean ndarray")
        result = tracer.apply("where", condition, tracer.wrapped(choice, dtype), result)
    return tracer.wrap(result, owner="local")


@implements(np.piecewise)
def piecewise(x: Any, condlist: Any, funclist: Any, *args: Any, **kw: Any) -> Traced:
    tracer = tracer_of(x, condlist)
    if not isinstance(condlist, (list, tuple)):
        condlist = [condlist]
    choices = [value(x, *args, **kw) if callable(value) else value for value in funclist]
    if len(choices) not in (len(condlist), len(condlist) + 1):
        n = len(condlist)
        raise ValueError(f"with {n} condition(s), either {n} or {n + 1} functions are expected\n  at {user_line()}")
    dtype = tracer.node(x).dtype
    result = tracer.cast(choices[len(condlist)] if len(choices) > len(condlist) else 0, dtype)
    for condition, choice in zip(condlist, choices, strict=False):  # a later condition wins
        result = tracer.apply("where", tracer.cast(condition, BOOL), tracer.cast(choice, dtype), result)
    return tracer.wrap(tracer.builder.broadcast(result, tracer.node(x).shape), owner="local")


@implements(np.choose)
def choose(a: Any, choices: Any, out: Any = None, mode: str = "raise") -> Traced:
    raise fusion_error("np.choose cannot be fused; use np.select or np.where")


def result_type(tracer: Tracer, *values: Any) -> DType:
    """Return NumPy's result dtype of proxies, arrays, dtypes and Python scalars."""
    given: list[Any] = []
    for value in values:
        if isinstance(value, (np.dtype, type)):
            given.append(np.dtype(value))
            continue
        kind = tracer.kind(value)
        given.append(kind(1) if isinstance(kind, type) else kind)
    return native(np.result_type(*given))


@implements(np.result_type)
def _result_type(*values: Any) -> DType:
    return result_type(tracer_of(*values), *values)


@implements(np.can_cast)
def _can_cast(from_: Any, to: Any, casting: Any = "safe") -> bool:
    return np.can_cast(from_.dtype if isinstance(from_, Traced) else from_, to, casting)


# ---- elementwise functions that NumPy lacks


def elementwise_function(name: str, text: str) -> Callable[..., Any]:
    """Return a function that is a map of operation `name` on proxies, and fused by itself on arrays."""
    fused: list[Any] = []

    def function(x: Any, /, out: Any = None) -> Any:
        tracer = find_tracer((x, out))
        if tracer is not None:
            return store(tracer, tracer.apply(name, x), out)
        if not fused:
            from .run import fuse

            fused.append(fuse(function))
        return fused[0](array_like(x), out=out)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = text
    return function
