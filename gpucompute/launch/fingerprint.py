"""A text that tells one user function from another, the same in every process; and what functions read."""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Callable, Collection, Iterator
from typing import Any

_PLAIN = (bool, int, float, complex, str, bytes, type(None))
# packages that every process has alike: what they hold goes by name
_INSTALLED = frozenset(["gpucompute", "numpy", "numba", "llvmlite", "dask", "distributed", "cupy", "scipy", "xarray"])


def is_users(module: str) -> bool:
    """Tell whether a module, by its name, is a user's own."""
    root = module.partition(".")[0]
    return root not in _INSTALLED and root not in sys.stdlib_module_names and root != "builtins"


def names_in(code: types.CodeType) -> set[str]:
    """Return the names that a function and those inside it look up: globals and attributes."""
    inner = (constant for constant in code.co_consts if isinstance(constant, types.CodeType))
    return {*code.co_names}.union(*map(names_in, inner))


def read_from(holder: types.ModuleType | type, names: Collection[str]) -> Iterator[tuple[str, Any]]:
    """Yield the attributes of a user's module or class that code with these names may read; none of others."""
    if is_users(holder.__name__ if isinstance(holder, types.ModuleType) else holder.__module__):
        for name in sorted(names):
            if hasattr(holder, name):
                yield name, getattr(holder, name)


def fingerprint(function: Callable[..., Any]) -> str | None:
    """Return what decides the code of `function`: bytecode, constants, and the values of the names it uses.

    Attributes of users' modules and classes are among these.

    None if it uses something whose meaning another process could not know (an array, an object).

    Examples
    --------
    >>> fingerprint(lambda x: x + 1) == fingerprint(lambda x: x + 2)
    False
    """
    parts: list[str] = []
    return "\n".join(parts) if _describe(function, frozenset(), parts, set()) else None


def without_addresses(text: str) -> str:
    """Return the repr of something without the addresses of functions, which differ between processes.

    For keys that have the functions' fingerprints besides.
    """
    return re.sub(" at 0x[0-9a-fA-F]+", "", text)


def _describe(value: Any, names: frozenset[str], parts: list[str], seen: set[Any]) -> bool:
    """Append what `value` is to a function that uses these names; return False where nobody can tell."""
    value = getattr(value, "py_func", value)  # a function that numba has decorated
    if isinstance(value, _PLAIN):
        parts.append(repr(value))
    elif isinstance(value, tuple):
        return all(_describe(item, names, parts, seen) for item in value)
    elif isinstance(value, types.ModuleType | type):
        parts.append(f"{type(value).__name__} {getattr(value, '__module__', '')} {value.__name__}")
        if (id(value), names) in seen:
            return True
        seen.add((id(value), names))
        for name, item in read_from(value, names):
            parts.append(f".{name}")
            if not _describe(item, names, parts, seen):
                return False
    elif isinstance(value, types.BuiltinFunctionType):
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


def _describe_function(function: types.FunctionType, parts: list[str], seen: set[Any]) -> bool:
    names = frozenset(names_in(function.__code__))
    parts.append(function.__qualname__)
    used = [function.__globals__[name] for name in sorted(names & function.__globals__.keys())]
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    defaults = (function.__defaults__, *sorted((function.__kwdefaults__ or {}).items()))
    return _describe_code(function.__code__, parts) and _describe((*used, *cells, *defaults), names, parts, seen)


def _describe_code(code: types.CodeType, parts: list[str]) -> bool:
    parts.append(f"{code.co_code.hex()} {code.co_names} {code.co_varnames} {code.co_freevars} {code.co_argcount}")
    return all(
        _describe_code(constant, parts) if isinstance(constant, types.CodeType) else
        _describe(constant, frozenset(), parts, set())
        for constant in code.co_consts
    )  # fmt: skip
