"""Run a function once with proxies for its arrays, and keep the graph of what it did."""

from __future__ import annotations

import array
import inspect
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..hardware import dtype_of
from . import functions, ir
from .location import fusion_error
from .proxy import Traced, contains_traced
from .selection import Selected
from .sizes import plain
from .tracer import WEAK_DTYPES, DType, Source, Tracer, Weak, check_kind, native, negative_power, refuse_lazy, weak_type

_BUFFERS = (memoryview, array.array)  # arrays without NumPy's attributes

# where a leaf lies: the argument's position or keyword, then indices and keys into the containers there
Path = tuple[Any, ...]


assert functions.__all__  # importing it has registered NumPy's functions


@dataclass(frozen=True)
class Derived:
    """A weak scalar that Python computes at each call from other scalars (`Source`) and literals."""

    function: Callable[..., Any]
    sources: tuple[Any, ...]
    kind: Weak
    where: str


@dataclass(frozen=True)
class Trace:
    """A function's graph for one combination of shapes, dtypes and static values.

    Attributes
    ----------
    outputs : tuple of Node
        One node for each array that the function returns, in the order of `rebuild`.
    inputs, scalars : tuple of Path
        Where the values of ``Input(index)`` and ``Scalar(index)`` lie in the arguments.
    captured : tuple of ndarray
        Arrays that the function closes over or makes, as they were when it was traced; their inputs follow those
        of the arguments.
    weak_casts : tuple of (int, dtype, str)
        Scalars that must fit an integer dtype, and the user's line.
    exponents : tuple of (int, str)
        Scalars that integers are raised to, which must not be negative, and the user's line.
    derived : tuple of Derived
        Scalars that follow those of the arguments.
    """

    outputs: tuple[ir.Node, ...]
    inputs: tuple[Path, ...]
    scalars: tuple[Path, ...]
    captured: tuple[np.ndarray[Any, Any], ...]
    weak_casts: tuple[tuple[int, DType, str], ...]
    exponents: tuple[tuple[int, str], ...]
    derived: tuple[Derived, ...]
    template: Any

    def rebuild(self, arrays: Sequence[Any]) -> Any:
        """Return what the user's function returns, with `arrays` in the places of `outputs`."""
        return _fill(self.template, arrays)

    def scalar_values(self, given: Sequence[Any]) -> list[Any]:
        """Return the values of all `Scalar` nodes, after the checks that NumPy makes of Python integers.

        Raises
        ------
        OverflowError
            An integer does not fit the dtype of the array that it meets.
        ValueError
            An integer array is raised to a negative integer.
        """
        values = list(given)
        for rule in self.derived:
            value = rule.function(*(values[s] if isinstance(s, Source) else s for s in rule.sources))
            if weak_type(value) is not rule.kind:
                raise TypeError(
                    f"the scalar {value!r} was expected to be {rule.kind.__name__}, as for other arguments of these "
                    f"types; compute it before the call\n  at {rule.where}"
                )
            values.append(value)
        for index, dtype, where in self.weak_casts:
            limits = np.iinfo(dtype)
            if not limits.min <= values[index] <= limits.max:
                raise OverflowError(f"Python integer {values[index]} out of bounds for {dtype}\n  at {where}")
        for index, where in self.exponents:
            if values[index] < 0:
                raise negative_power(values[index], where)
        for value in values:
            if type(value) is int and not -(2**63) <= value < 2**63:
                raise OverflowError(f"the scalar {value} is larger than int64; pass it as a NumPy scalar")
        return values


@dataclass(frozen=True)
class Leaf:
    """The place of output number `index` in what the function returns; `weak`: a Python number there."""

    index: int
    weak: Weak | None = None


def trace(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any] | None = None,
    static: Collection[str] = (),
) -> Trace:
    """Call `function` once with proxies and return its graph.

    Parameters
    ----------
    function : callable
        NumPy-style function of arrays and scalars, pure.
    args, kwargs
        Its arguments. Arrays (anything with shape and dtype) and NumPy scalars become inputs, Python numbers
        become run-time scalars; so do those in a list, tuple or dict that holds an array somewhere. All else is
        passed as it is.
    static : collection of str
        Names of parameters that are passed as they are.

    Raises
    ------
    FusionError
        The function does what a kernel cannot, or an argument has a dtype that kernels lack.
    """
    kwargs = kwargs or {}
    names = _parameter_names(function, len(args))
    leaves: dict[Path, Any] = {}
    for place, value in (*enumerate(args), *kwargs.items()):
        name = names[place] if isinstance(place, int) else place
        if name not in static:
            _collect(value, (place,), leaves)
    inputs = tuple(path for path, value in leaves.items() if weak_type(value) is None)
    scalars = tuple(path for path, value in leaves.items() if weak_type(value) is not None)
    tracer = Tracer(len(inputs), len(scalars))
    proxies: dict[Path, Traced] = {}
    for index, path in enumerate(inputs):
        value = leaves[path]
        node = tracer.builder.input(index, tuple(value.shape), native(dtype_of(value)))
        proxies[path] = tracer.wrap(node, owner="scalar" if isinstance(value, np.generic) else "argument")
    for index, path in enumerate(scalars):
        weak = weak_type(leaves[path])
        assert weak is not None
        proxies[path] = tracer.wrap(tracer.builder.scalar(index, WEAK_DTYPES[weak]), weak=weak)
    result = function(
        *(_replace(value, (place,), proxies) for place, value in enumerate(args)),
        **{place: _replace(value, (place,), proxies) for place, value in kwargs.items()},
    )
    outputs: list[ir.Node] = []
    template = _template(result, tracer, outputs)
    return Trace(
        tuple(outputs),
        inputs,
        scalars,
        tuple(tracer.captured),
        tuple(dict.fromkeys(tracer.weak_casts)),
        tuple(dict.fromkeys(tracer.exponents)),
        tuple(Derived(*rule) for rule in tracer.derived),
        template,
    )


def _parameter_names(function: Callable[..., Any], count: int) -> list[str | None]:
    """Return the parameter name of each positional argument, None where there is none."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return [None] * count
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names: list[str | None] = [p.name for p in parameters if p.kind in positional]
    rest = next((p.name for p in parameters if p.kind is inspect.Parameter.VAR_POSITIONAL), None)
    return (names + [rest] * count)[:count]


def _is_array(value: Any) -> bool:
    if isinstance(value, type):
        return False
    if isinstance(value, _BUFFERS) or (hasattr(value, "shape") and hasattr(value, "dtype")):
        return True
    return callable(getattr(value, "__array_ufunc__", None)) and weak_type(value) is None


def _has_array(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_array, value.values()))
    return any(map(_has_array, value)) if isinstance(value, (list, tuple)) else _is_array(value)


def _items(value: Any) -> list[tuple[Any, Any]] | None:
    """Return keys and items of a container with an array somewhere inside, None for other values."""
    if isinstance(value, (list, tuple)) and _has_array(value):
        return list(enumerate(value))
    return list(value.items()) if isinstance(value, dict) and _has_array(value) else None


def _collect(value: Any, path: Path, leaves: dict[Path, Any]) -> None:
    """Put the arrays and run-time scalars of an argument into `leaves`."""
    items = _items(value)
    if items is not None:
        for key, item in items:
            _collect(item, (*path, key), leaves)
    elif isinstance(value, Selected):
        value.refuse("an argument of a fused function")
    elif _is_array(value) or weak_type(value) is not None:
        check_kind(value, f"argument {path[0]!r}")
        leaves[path] = np.asarray(value) if isinstance(value, _BUFFERS) else value
    elif isinstance(value, complex):
        raise fusion_error(f"argument {path[0]!r} is complex ({value}), which cannot be fused; give it as two floats")


def _replace(value: Any, path: Path, proxies: dict[Path, Traced]) -> Any:
    """Return `value` with proxies in the places of its leaves."""
    if path in proxies:
        return proxies[path]
    items = _items(value)
    if items is None or not any(known[: len(path)] == path for known in proxies):
        return value
    return _like(value, [(key, _replace(item, (*path, key), proxies)) for key, item in items])


def _like(container: Any, items: list[tuple[Any, Any]]) -> Any:
    """Return a container of the kind of `container` (list, tuple, named tuple, dict) with other items."""
    if isinstance(container, dict):
        return dict(items)
    values = [item for _, item in items]
    if isinstance(container, list):
        return values
    return type(container)(*values) if hasattr(container, "_fields") else tuple(values)


def _template(value: Any, tracer: Tracer, outputs: list[ir.Node]) -> Any:
    """Return the user's result with a `Leaf` for each traced array, whose nodes go to `outputs`."""
    if isinstance(value, Traced):
        node = tracer.node(value)
        outputs.append(node)
        return Leaf(len(outputs) - 1, value._weak)
    if isinstance(value, dict):
        return {key: _template(item, tracer, outputs) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return _like(value, [(key, _template(item, tracer, outputs)) for key, item in enumerate(value)])
    if isinstance(value, Selected):
        value.refuse("a result")
    if contains_traced(getattr(value, "__dict__", None)):
        raise fusion_error(
            f"the function returns a {type(value).__name__} that holds arrays; return an array, or a tuple, list, "
            "named tuple or dict of arrays"
        )
    refuse_lazy(value, "returns")
    return plain(value)


def _fill(template: Any, arrays: Sequence[Any]) -> Any:
    if isinstance(template, Leaf):
        array = arrays[template.index]
        return array if template.weak is None else template.weak(array[()])
    if isinstance(template, dict):
        return {key: _fill(item, arrays) for key, item in template.items()}
    if isinstance(template, (list, tuple)):
        return _like(template, [(key, _fill(item, arrays)) for key, item in enumerate(template)])
    return template.copy() if isinstance(template, np.ndarray) else template
