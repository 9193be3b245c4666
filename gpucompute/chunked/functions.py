"""Python functions by value: pickled so that a process without their module has them, and told apart by content."""

from __future__ import annotations

import hashlib
import pickle
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import numpy as np

from ..errors import MissingExtraError
from ..fusion.scalar_source import original, rewritten
from ..hashing import digest

Function = Callable[..., Any]

# packages that a worker has, or that are too large to send: their functions go by name
_INSTALLED = frozenset(["gpucompute", "numpy", "numba", "llvmlite", "dask", "distributed", "cupy", "scipy", "xarray"])


def token_of(function: Function) -> str:
    """Return a text that is equal for functions that do the same, in every process.

    It follows from bytecode, constants and the values of the names that the function uses.
    """
    sha = hashlib.sha256()
    for part in _content(function, set()):
        sha.update(part + b"\n")
    return sha.hexdigest()[:32]


def _content(value: Any, seen: set[int]) -> Iterator[bytes]:
    """Yield what tells `value` from others."""
    if hasattr(type(value), "__dask_tokenize__"):
        yield repr(value.__dask_tokenize__()).encode()
    elif isinstance(value, types.FunctionType):
        if id(value) not in seen:
            seen.add(id(value))
            yield from _content_of_function(value, seen)
    elif isinstance(value, types.MethodType):
        yield from _content((value.__func__, value.__self__), seen)
    elif isinstance(value, types.CodeType):
        yield value.co_code + repr((value.co_names, value.co_varnames, value.co_argcount)).encode()
        yield from _content(value.co_consts, seen)
    elif isinstance(value, (tuple, list)):
        yield f"{type(value).__name__} {len(value)}".encode()
        for item in value:
            yield from _content(item, seen)
    elif isinstance(value, np.ndarray) and not value.dtype.hasobject:
        yield digest(value).encode()
    elif isinstance(value, types.ModuleType):
        yield value.__name__.encode()
    elif isinstance(value, (types.BuiltinFunctionType, np.ufunc)):
        yield f"{getattr(value, '__module__', '')}.{value.__name__}".encode()
    elif isinstance(value, (bool, int, float, complex, str, bytes, type(None))):
        yield repr(value).encode()
    else:
        yield dump(value)


def _content_of_function(function: types.FunctionType, seen: set[int]) -> Iterator[bytes]:
    yield function.__name__.encode()
    used = sorted(_names(function.__code__) & function.__globals__.keys())
    scope = [(name, function.__globals__[name]) for name in used]
    yield from _content([function.__code__, function.__defaults__, scope, _cells(function)], seen)
    yield from _content(sorted((function.__kwdefaults__ or {}).items()), seen)


def pack(function: Function) -> bytes:
    """Return a scalar function as bytes, before the names that it uses were replaced by ours."""
    return dump(original(function))


def unpack(packed: bytes) -> Function:
    """Return the scalar function that `pack` was given, ready for kernels of this process."""
    return rewritten(pickle.loads(packed))


def reduced(make: Callable[..., Any], functions: Any, *settings: Any) -> Any:
    """Return what ``__reduce__`` returns for ``make(functions, *settings)``, with the functions by value.

    Arrays that they hold stay outside the pickle, so that who sends it need not copy them. Without cloudpickle the
    functions go by name, as all do.
    """
    arrays: list[Any] = []
    try:
        packed = dump(functions, lambda buffer: arrays.append(np.frombuffer(buffer.raw(), np.uint8)))
        return _made, (make, packed, arrays, settings)
    except MissingExtraError:
        return make, (functions, *settings)


def _made(make: Callable[..., Any], packed: bytes, arrays: list[Any], settings: tuple[Any, ...]) -> Any:
    return make(pickle.loads(packed, buffers=arrays), *settings)


def dump(value: Any, outside: Callable[[pickle.PickleBuffer], object] | None = None) -> bytes:
    """Return the pickle of `value` in which functions and classes of users' modules go by value.

    Parameters
    ----------
    value : object
    outside : callable, optional
        Takes the memory of each array, which is then not in the pickle.

    Raises
    ------
    MissingExtraError
        cloudpickle, which comes with Dask, is not installed.
    """
    try:
        import cloudpickle
    except ImportError:
        raise MissingExtraError("cloudpickle", "dask", "sending a function to other processes") from None
    with _by_value(cloudpickle, _modules(value)):
        pickled: bytes = cloudpickle.dumps(value, buffer_callback=outside)
    return pickled


@contextmanager
def _by_value(cloudpickle: Any, modules: list[types.ModuleType]) -> Iterator[None]:
    with ExitStack() as stack:
        for module in modules:
            if module.__name__ not in cloudpickle.list_registry_pickle_by_value():
                cloudpickle.register_pickle_by_value(module)
                stack.callback(cloudpickle.unregister_pickle_by_value, module)
        yield


def _modules(value: Any) -> list[types.ModuleType]:
    """Return the users' modules of the functions that `value` reaches."""
    found: dict[str, types.ModuleType] = {}
    seen: set[int] = set()
    stack = [value]
    while stack:
        item = stack.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        for name in ("function", "_scalar_function", "_functions", "py_func", "__wrapped__"):
            inner = getattr(item, "__dict__", {}).get(name)
            if inner is not None:
                stack.append(inner)
        if isinstance(item, (tuple, list)):
            stack += item
        elif isinstance(item, types.MethodType):
            stack += [item.__func__, item.__self__]
        elif isinstance(item, (types.FunctionType, type)):
            module = sys.modules.get(item.__module__ or "")
            if module is not None and _is_users(module.__name__):
                found[module.__name__] = module
        if isinstance(item, types.FunctionType) and _is_users(item.__module__ or ""):
            stack += [item.__globals__[name] for name in _names(item.__code__) if name in item.__globals__]
            stack += _cells(item)
    return list(found.values())


def _is_users(module: str) -> bool:
    root = module.partition(".")[0]
    return root not in _INSTALLED and root not in sys.stdlib_module_names and root != "builtins"


def _names(code: types.CodeType) -> set[str]:
    inner = (constant for constant in code.co_consts if isinstance(constant, types.CodeType))
    return {*code.co_names}.union(*map(_names, inner))


def _cells(function: types.FunctionType) -> list[Any]:
    """Return what a function closes over, without what is not there yet."""
    found = []
    for cell in function.__closure__ or ():
        with suppress(ValueError):
            found.append(cell.cell_contents)
    return found
