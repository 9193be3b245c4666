"""Sizes of traced arrays: Python integers that stay run-time values when they meet an array.

What the user's function reads from ``x.shape`` and ``x.size`` is an `int` like any other: it can be compared, be the
bound of a loop, a slice or a shape. But written into a kernel as a constant it would make each new size compile
again. So it remembers that it came from a shape, through Python's arithmetic with other numbers, and the tracer makes
a run-time scalar of it. A conversion (``float(n)``, ``math.sqrt(n)``, ``np.float32(n)``) or a float on the left
(``0.5 * n``) gives a plain number: Python asks its own types first.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

_BINARY: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "truediv": operator.truediv,
    "floordiv": operator.floordiv,
    "mod": operator.mod,
    "pow": pow,
}
_UNARY: dict[str, Callable[..., Any]] = {
    "neg": operator.neg,
    "pos": operator.pos,
    "abs": abs,
    "round": round,
    "floor": math.floor,
    "ceil": math.ceil,
    "trunc": math.trunc,
}


class _Sized:
    """What `Size` and `Ratio` share.

    NumPy takes a subclass of int for an int64 that is not weak, so its functions get the plain number; those that
    an array of another kind takes part in are left to it.
    """

    origin: Any = ()

    def __divmod__(self, other: Any) -> Any:
        return self // other, self % other

    def __rdivmod__(self, other: Any) -> Any:
        return other // self, other % self

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if not all(isinstance(x, _KNOWN) or not hasattr(x, "__array_ufunc__") for x in inputs):
            return NotImplemented
        return getattr(ufunc, method)(*map(plain, inputs), **plain(kwargs))

    def __array_function__(self, func: Any, types: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not all(issubclass(kind, _KNOWN) for kind in types):
            return NotImplemented
        return func(*plain(args), **plain(kwargs))


class Size(_Sized, int):
    """An integer that follows from the shapes of arrays.

    Attributes
    ----------
    origin : hashable
        Where it came from. Numbers of one origin become one scalar; equal numbers of different origins do not, so
        that a square image has the kernels of all others.
    """

    def __reduce__(self) -> Any:
        return int, (int(self),)


class Ratio(_Sized, float):
    """A float that follows from the shapes of arrays."""

    def __reduce__(self) -> Any:
        return float, (float(self),)


_KNOWN = (_Sized, np.ndarray, np.generic)


def sized(number: Any, *origin: Any) -> Any:
    """Return `number` as one that follows from shapes; what is neither int nor float comes back as it is."""
    kind = {int: Size, float: Ratio}.get(type(number))
    if kind is None:
        return number
    result = kind(number)
    result.origin = origin
    return result


def plain(value: Any) -> Any:
    """Return a Python number without its origin, also in containers; other values come back as they are."""
    if type(value) in (list, tuple):
        return type(value)(map(plain, value))
    if type(value) is dict:
        return {key: plain(item) for key, item in value.items()}
    return int(value) if isinstance(value, Size) else float(value) if isinstance(value, Ratio) else value


def _origin(number: Any) -> Any:
    return number.origin if isinstance(number, (Size, Ratio)) else repr(number)


def _binary(name: str, function: Callable[..., Any], reflected: bool) -> Callable[..., Any]:
    def method(self: Any, other: Any, *modulus: Any) -> Any:
        if not isinstance(other, (int, float)) or isinstance(other, np.generic):
            return NotImplemented
        left, right = (other, self) if reflected else (self, other)
        number = function(plain(left), plain(right), *modulus)
        return sized(number, name, _origin(left), _origin(right), *modulus)

    return method


def _unary(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def method(self: Any, *digits: Any) -> Any:
        return sized(function(plain(self), *digits), name, _origin(self), *digits)

    return method


for _class in (Size, Ratio):
    for _name, _function in _BINARY.items():
        setattr(_class, f"__{_name}__", _binary(_name, _function, False))
        setattr(_class, f"__r{_name}__", _binary(_name, _function, True))
    for _name, _function in _UNARY.items():
        setattr(_class, f"__{_name}__", _unary(_name, _function))
