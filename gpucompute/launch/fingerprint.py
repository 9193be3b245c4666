"""A text that tells one user function from another, the same in every process."""

from __future__ import annotations

import re
import types
from collections.abc import Callable
from typing import Any

_PLAIN = (bool, int, float, complex, str, bytes, type(None))


def fingerprint(function: Callable[..., Any]) -> str | None:
    """Return what decides the code of `function`: bytecode, constants, and the values of the names it uses.

    None if it uses something whose meaning another process could not know (an array, an object).

    Examples
    --------
    >>> fingerprint(lambda x: x + 1) == fingerprint(lambda x: x + 2)
    False
    """
    parts: list[str] = []
    return "\n".join(parts) if _describe(function, parts, set()) else None


def without_addresses(text: str) -> str:
    """Return the repr of something without the addresses of functions, which differ between processes.

    For keys that have the functions' fingerprints besides.
    """
    return re.sub(" at 0x[0-9a-fA-F]+", "", text)


def _describe(value: Any, parts: list[str], seen: set[int]) -> bool:
    value = getattr(value, "py_func", value)  # a function that numba has decorated
    if isinstance(value, _PLAIN):
        parts.append(repr(value))
    elif isinstance(value, tuple):
        return all(_describe(item, parts, seen) for item in value)
    elif isinstance(value, types.ModuleType):
        parts.append(f"module {value.__name__}")
    elif isinstance(value, types.BuiltinFunctionType | type):
        parts.append(f"{value.__module__}.{value.__qualname__}")
    elif isinstance(value, types.FunctionType):
        if id(value) in seen:
            parts.append(f"again {value.__name__}")
            return True
        seen.add(id(value))
        return _describe_function(value, parts, seen)
    elif type(value).__module__ == "numpy" and hasattr(value, "__name__"):  # a ufunc
        parts.append(f"numpy.{value.__name__}")
    else:
        return False
    return True


def _describe_function(function: types.FunctionType, parts: list[str], seen: set[int]) -> bool:
    code = function.__code__
    parts.append(f"{function.__qualname__} {code.co_code.hex()} {code.co_names} {code.co_varnames} {code.co_argcount}")
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            parts.append(constant.co_code.hex() + repr(constant.co_consts))
        elif not _describe(constant, parts, seen):
            return False
    for name in code.co_names:
        if name in function.__globals__ and not _describe(function.__globals__[name], parts, seen):
            return False
    for cell in function.__closure__ or ():
        if not _describe(cell.cell_contents, parts, seen):
            return False
    return _describe(function.__defaults__ or (), parts, seen)
