"""Python functions by value: pickled so that a process without their module has them, and told apart by content."""

from __future__ import annotations

import functools
import hashlib
import io
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
from ..launch.fingerprint import is_users, names_in, read_from

Function = Callable[..., Any]


def token_of(function: Function) -> str:
    """Return a text that is equal for functions that do the same, in every process.

    It follows from bytecode, constants and the values of the names that the function uses.
    """
    sha = hashlib.sha256()
    for part in _content(function, frozenset(), set()):
        sha.update(part + b"\n")
    return sha.hexdigest()[:32]


def _content(value: Any, names: frozenset[str], seen: set[Any]) -> Iterator[bytes]:
    """Yield what tells `value` from others to a function that uses these names."""
    if hasattr(type(value), "__dask_tokenize__"):
        yield repr(value.__dask_tokenize__()).encode()
    elif isinstance(value, types.FunctionType):
        if id(value) not in seen:
            seen.add(id(value))
            yield from _content_of_function(value, seen)
    elif isinstance(value, types.MethodType):
        yield from _content((value.__func__, value.__self__), names, seen)
    elif isinstance(value, types.CodeType):
        yield value.co_code + repr((value.co_names, value.co_varnames, value.co_argcount)).encode()
        yield from _content(value.co_consts, names, seen)
    elif isinstance(value, (tuple, list)):
        yield f"{type(value).__name__} {len(value)}".encode()
        for item in value:
            yield from _content(item, names, seen)
    elif isinstance(value, np.ndarray) and not value.dtype.hasobject:
        yield digest(value).encode()
    elif isinstance(value, types.ModuleType):
        yield value.__name__.encode()
        if (id(value), names) not in seen:
            seen.add((id(value), names))
            yield from _content([list(pair) for pair in read_from(value, names)], names, seen)
    elif isinstance(value, (types.BuiltinFunctionType, np.ufunc)):
        yield f"{getattr(value, '__module__', '')}.{value.__name__}".encode()
    elif isinstance(value, (bool, int, float, complex, str, bytes, type(None))):
        yield repr(value).encode()
    else:
        yield dump(value)


def _content_of_function(function: types.FunctionType, seen: set[Any]) -> Iterator[bytes]:
    yield function.__name__.encode()
    names = frozenset(names_in(function.__code__))
    scope = [(name, function.__globals__[name]) for name in sorted(names & function.__globals__.keys())]
    yield from _content([function.__code__, function.__defaults__, scope, _cells(function)], names, seen)
    yield from _content(sorted((function.__kwdefaults__ or {}).items()), names, seen)


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
    modules, names = _reached(value)
    file = io.BytesIO()
    with _by_value(cloudpickle, modules):
        _pickler(cloudpickle.Pickler)(file, names, outside).dump(value)
    return file.getvalue()


@functools.cache
def _pickler(base: Any) -> Any:
    """Return cloudpickle's class, changed so that of users' modules only what is read travels."""

    class Pickler(base):  # type: ignore[misc]
        def __init__(self, file: Any, names: set[str], outside: Any) -> None:
            super().__init__(file, buffer_callback=outside)
            self.names = names

        def reducer_override(self, value: Any) -> Any:
            if isinstance(value, types.ModuleType) and is_users(value.__name__):
                # what it holds is pickled after itself, since it may hold functions that read it
                return types.ModuleType, (value.__name__,), dict(read_from(value, self.names)), None, None, _fill
            return super().reducer_override(value)

    return Pickler


def _fill(module: types.ModuleType, content: dict[str, Any]) -> None:
    vars(module).update(content)


@contextmanager
def _by_value(cloudpickle: Any, modules: list[types.ModuleType]) -> Iterator[None]:
    with ExitStack() as stack:
        for module in modules:
            if module.__name__ not in cloudpickle.list_registry_pickle_by_value():
                cloudpickle.register_pickle_by_value(module)
                stack.callback(cloudpickle.unregister_pickle_by_value, module)
        yield


def _reached(value: Any) -> tuple[list[types.ModuleType], set[str]]:
    """Return the users' modules of the functions that `value` reaches, and the names that those use."""
    found: dict[str, types.ModuleType] = {}
    holders: list[types.ModuleType] = []
    names: set[str] = set()
    seen: set[int] = set()
    stack = [value]
    while stack:
        item = stack.pop()
        if id(item) not in seen:
            seen.add(id(item))
            for name in ("function", "_scalar_function", "_functions", "py_func", "__wrapped__"):
                inner = getattr(item, "__dict__", {}).get(name)
                if inner is not None:
                    stack.append(inner)
            if isinstance(item, (tuple, list)):
                stack += item
            elif isinstance(item, types.MethodType):
                stack += [item.__func__, item.__self__]
            elif isinstance(item, types.ModuleType):
                holders.append(item)
            elif isinstance(item, (types.FunctionType, type)):
                module = sys.modules.get(item.__module__ or "")
                if module is not None and is_users(module.__name__):
                    found[module.__name__] = module
            if isinstance(item, types.FunctionType) and is_users(item.__module__ or ""):
                used = names_in(item.__code__)
                names |= used
                stack += [item.__globals__[name] for name in used if name in item.__globals__]
                stack += _cells(item)
        if not stack:  # with all names known
            stack = [item for holder in holders for _, item in read_from(holder, names) if id(item) not in seen]
    return list(found.values()), names


def _cells(function: types.FunctionType) -> list[Any]:
    """Return what a function closes over, without what is not there yet."""
    found = []
    for cell in function.__closure__ or ():
        with suppress(ValueError):
            found.append(cell.cell_contents)
    return found
