"""Users' scalar functions made ready for numba: our elementary functions for those of `math` and NumPy.

libm gives other bits on other machines, so a user's ``math.exp`` or ``np.exp`` becomes the function that `fuse`
uses for ``np.exp``. Plain Python functions that the user's function calls are compiled too. Nothing else changes:
what the function means is what numba makes of it.
"""

from __future__ import annotations

import functools
import math
import types
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from .. import ops
from ..launch.fingerprint import is_users, names_in, read_from

Function = Callable[..., Any]

_OURS = "_gpucompute_rewritten"  # marks functions that need no rewriting
_COMPILED = "_gpucompute_compiled"
_ORIGINAL = "_gpucompute_original"


def compiled(function: Function) -> Any:
    """Return `function`, rewritten, as numba's dispatcher."""
    copy = rewritten(function)
    if _COMPILED not in copy.__dict__:
        import numba

        copy.__dict__[_COMPILED] = numba.njit(error_model="numpy", boundscheck=True)(copy)
    return copy.__dict__[_COMPILED]


def rewritten(function: Function) -> types.FunctionType:
    """Return a copy of `function` that sees our functions under the names it uses; a copy is its own copy."""
    function = getattr(function, "py_func", function)  # one that numba has decorated
    if not isinstance(function, types.FunctionType):
        raise TypeError(f"expected a Python function, got {type(function).__name__}: wrap it in a def or lambda")
    if _OURS in function.__dict__:
        return function
    names = names_in(function.__code__)
    used = names & function.__globals__.keys()
    scope = {name: _ours(function.__globals__[name], function, names) for name in used}
    cells = tuple(types.CellType(_ours(cell.cell_contents, function, names)) for cell in function.__closure__ or ())
    scope["__name__"] = function.__module__ or "user"
    copy = types.FunctionType(function.__code__, scope, function.__name__, function.__defaults__, cells)
    copy.__qualname__ = function.__qualname__
    copy.__dict__[_OURS] = True
    copy.__dict__[_ORIGINAL] = function
    return copy


def original(function: Function) -> Function:
    """Return the user's function that a copy was made of."""
    found: Function = function.__dict__.get(_ORIGINAL, function)
    return found


def _ours(value: Any, caller: types.FunctionType, names: set[str]) -> Any:
    """Return what stands for `value`, which the user's function reads; `names` are those that it uses."""
    if value is math or value is np:
        return _module(value)
    if isinstance(value, types.ModuleType):
        return _users_module(value, caller, names)
    value = getattr(value, "_scalar_function", value)  # another gp.vectorize
    value = getattr(value, "py_func", value)
    if getattr(value, "__dict__", {}).get(_OURS):
        return value
    if isinstance(value, types.FunctionType) and value is not caller:
        return compiled(value)
    if isinstance(value, (types.BuiltinFunctionType, np.ufunc)):
        return _elementary(value)
    return value


def _users_module(module: types.ModuleType, caller: types.FunctionType, names: set[str]) -> types.ModuleType:
    """Return a stand-in for a user's module, with what may be read of it; another's module as it is."""
    if not is_users(module.__name__):
        return module
    return module_of(module.__name__, ((name, _ours(value, caller, names)) for name, value in read_from(module, names)))


def module_of(name: str, content: Iterable[tuple[str, Any]]) -> types.ModuleType:
    """Return a module that nobody can import."""
    module = types.ModuleType(name)
    vars(module).update(content)
    return module


@functools.cache
def _module(module: types.ModuleType) -> types.ModuleType:
    """Return a stand-in for `math` or NumPy."""
    ours = types.ModuleType(module.__name__)
    for name in module.__all__ if hasattr(module, "__all__") else dir(module):
        value = getattr(module, name)
        callable_ = isinstance(value, (types.BuiltinFunctionType, np.ufunc))
        setattr(ours, name, _elementary(value) if callable_ else value)
    return ours


@functools.cache
def _elementary(function: Any) -> Any:
    """Return our function of the same name, where there is one in floats, else `function`."""
    of_math = getattr(function, "__module__", None) == "math"
    op = ops.find(function.__name__) if of_math or isinstance(function, np.ufunc) else None
    if op is None or not {"f4", "f8"} <= set(op.functions) or not op.ulp:
        return function
    return _stub(op.name, op.nin, op.functions["f4"], op.functions["f8"])


@functools.cache
def _stub(name: str, nin: int, single: str, double: str) -> Any:
    """Return a function that numba replaces by that for float32 or that for float64."""
    from numba import types as numba_types
    from numba.extending import overload

    scalars = _scalars()
    f4, f8 = scalars[single], scalars[double]
    float64 = np.float64

    def one(x: Any) -> Any:
        raise NotImplementedError

    def two(x: Any, y: Any) -> Any:
        raise NotImplementedError

    # numba wants the same signature, annotations included, as that of the lambdas
    def choose_one(x):  # type: ignore[no-untyped-def]
        if x == numba_types.float32:
            return lambda x: f4(x)
        return (lambda x: f8(float64(x))) if isinstance(x, numba_types.Number | numba_types.Boolean) else None

    def choose_two(x, y):  # type: ignore[no-untyped-def]
        if x == y == numba_types.float32:
            return lambda x, y: f4(x, y)
        return lambda x, y: f8(float64(x), float64(y))

    stub, choose = (one, choose_one) if nin == 1 else (two, choose_two)
    stub.__name__ = stub.__qualname__ = name
    stub.__dict__[_OURS] = True
    overload(stub, inline="never")(choose)
    return stub


_scalars = functools.cache(ops.compiled_namespace)
