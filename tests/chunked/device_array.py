"""A strict stand-in for CuPy: NumPy inside, no silent way to the host, and every crossing counted.

What CuPy refuses raises here too: conversion by ``numpy.asarray`` or by assignment to a NumPy array, NumPy arrays
among the operands of a ufunc or function, functions and options that CuPy lacks (looked up in CuPy if it is installed;
importing it takes no GPU). This tests plumbing: which calls Dask makes, and what crosses. It tests no kernel.
"""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np

try:
    import cupy as real
except ImportError:
    real = None

to_host: list[int] = []  # bytes of each crossing
to_device: list[int] = []

# Functions of CuPy that take NumPy arrays, and send them to the GPU
_SENDERS = {"array", "asarray", "asanyarray", "ascontiguousarray", "take", "percentile", "quantile", "histogram"}
# Where CuPy takes what the signature of its function does not show (``**kwargs``)
_OPTIONS = {"einsum": {"dtype", "optimize", "out"}}


class ndarray:  # CuPy's name, by which libraries know it
    __module__ = "cupy"
    __array_priority__ = 100
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, shape: Any, dtype: Any = float) -> None:
        self._host = np.empty(shape, dtype)

    # ---- what crosses

    def get(self, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True) -> Any:
        to_host.append(self.nbytes)
        if out is None:
            return self._host.copy(order)
        out[...] = self._host
        return out

    def item(self, *index: Any) -> Any:
        return self.get().item(*index)

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()` ...")

    def __reduce__(self) -> Any:
        return sys.modules["cupy"].array, (self.get(order="A"),)

    def __bool__(self) -> bool:
        return bool(self.get())

    def __int__(self) -> int:
        return int(self.get())

    def __float__(self) -> float:
        return float(self.get())

    __index__ = __int__

    # ---- protocols

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        if real is not None and not hasattr(getattr(real, ufunc.__name__, None), method):
            return NotImplemented
        if "out" in options:
            options["out"] = tuple(map(_operand, options["out"]))
        return _wrapped(getattr(ufunc, method)(*map(_operand, inputs), **options))

    def __array_function__(self, function: Any, kinds: Any, args: Any, options: Any) -> Any:
        module = sys.modules["cupy"]
        for name in function.__module__.split(".")[1:]:
            module = getattr(module, name, None)
        found = getattr(module, function.__name__, None)
        if found is None or not all(issubclass(kind, (ndarray, np.ndarray)) for kind in kinds):
            return NotImplemented
        return found(*args, **options)

    @property
    def __cuda_array_interface__(self) -> Any:
        return {**self._host.__array_interface__, "version": 3}

    # ---- the rest of an array

    def __getitem__(self, key: Any) -> Any:
        return _wrapped(self._host[_index(key)])

    def __setitem__(self, key: Any, value: Any) -> None:
        self._host[_index(key)] = _operand(value)

    def __len__(self) -> int:
        return len(self._host)

    def __iter__(self) -> Iterator[Any]:
        return map(_wrapped, self._host)

    def __repr__(self) -> str:
        return f"on the device: {self._host!r}"

    @property
    def device(self) -> Any:
        return nullcontext()


def _property(name: str) -> Any:
    return property(lambda self: _wrapped(getattr(self._host, name)))


def _method(name: str) -> Any:
    def method(self: Any, *args: Any, **options: Any) -> Any:
        options = {key: _operand(value) for key, value in options.items()}
        return _wrapped(getattr(self._host, name)(*map(_operand, args), **options))

    return method


def _operator(name: str) -> Any:
    def operator(self: Any, *others: Any) -> Any:
        if any(not isinstance(x, (ndarray, np.ndarray, np.generic, int, float, complex)) for x in others):
            return NotImplemented
        return _wrapped(getattr(self._host, name)(*map(_operand, others)))

    return operator


_PROPERTIES = "shape dtype ndim size nbytes itemsize strides flags T real imag"
_METHODS = """
all any argmax argmin argsort astype clip conj copy cumprod cumsum diagonal dot fill flatten max mean min nonzero prod
ravel repeat reshape round sort squeeze std sum swapaxes take transpose var view
"""
_BINARY = "add sub mul truediv floordiv mod pow matmul and or xor lshift rshift"
_OTHER = "lt le gt ge eq ne neg pos invert abs"

for _name in _PROPERTIES.split():
    setattr(ndarray, _name, _property(_name))
for _name in _METHODS.split():
    setattr(ndarray, _name, _method(_name))
for _name in (*_OTHER.split(), *(form + name for name in _BINARY.split() for form in ("", "r", "i"))):
    if hasattr(np.ndarray, f"__{_name}__"):
        setattr(ndarray, f"__{_name}__", _operator(f"__{_name}__"))


def wrap(array: Any) -> Any:
    """Return an array as if it were on the device already."""
    made = ndarray.__new__(ndarray)
    made._host = np.asarray(array)
    return made


def values(array: Any) -> Any:
    """Return what the device holds; tests may look without crossing."""
    assert type(array) is ndarray, type(array)
    return array._host


def _wrapped(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)):
        return wrap(value)
    return tuple(map(_wrapped, value)) if type(value) is tuple and any(map(_is_array, value)) else value


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray)


def _operand(value: Any, *, sends: bool = False) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(_operand(item, sends=sends) for item in value)
    if isinstance(value, np.ndarray):
        if not sends:
            raise TypeError(f"Unsupported type {type(value)}")
        to_device.append(value.nbytes)
    return value._host if isinstance(value, ndarray) else value


def _index(key: Any) -> Any:
    return _operand(key, sends=True)


def _function(name: str, module: Any = np, there: Any = real) -> Any:
    """Return the function of a module as CuPy has it."""
    original = getattr(module, name)
    known = None if there is None else getattr(there, name)  # AttributeError: CuPy has none
    if not callable(original) or isinstance(original, type):
        return original

    def function(*args: Any, **options: Any) -> Any:
        like = options.pop("like", None)
        assert like is None or isinstance(like, ndarray)
        _check_options(name, known, args, options)
        given = [_operand(x, sends=name in _SENDERS) for x in args]
        return _wrapped(original(*given, **{k: _operand(v, sends=name in _SENDERS) for k, v in options.items()}))

    function.__name__, function.__qualname__, function.__module__ = name, name, "cupy"
    return function


def _check_options(name: str, known: Any, args: Any, options: dict[str, Any]) -> None:
    if options.keys() - _OPTIONS.get(name, options.keys()):
        raise TypeError(f"{name}() got unexpected keyword arguments {sorted(options)}")
    try:
        signature = inspect.signature(known)
    except (TypeError, ValueError):  # not installed, or compiled
        return
    signature.bind(*args, **options)


def asnumpy(a: Any, stream: Any = None, order: str = "C", out: Any = None, *, blocking: bool = True) -> Any:
    return a.get(stream, order, out, blocking) if isinstance(a, ndarray) else np.asarray(a)


class _Module(types.ModuleType):
    __version__ = "14.2.0"

    def __init__(self, name: str, numpys: Any, reals: Any) -> None:
        super().__init__(name)
        self._modules = numpys, reals

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        found = _function(name, *self._modules)
        setattr(self, name, found)
        return found


def module() -> Any:
    """Return a module to stand for ``cupy``."""
    made = _Module("cupy", np, real)
    made.ndarray, made.asnumpy = ndarray, asnumpy
    made.linalg = _Module("cupy.linalg", np.linalg, getattr(real, "linalg", None))
    made.fft = _Module("cupy.fft", np.fft, getattr(real, "fft", None))
    made.asarray = made.asanyarray = _asarray(made.array)
    return made


def _asarray(array: Any) -> Any:
    def asarray(a: Any, *args: Any, **options: Any) -> Any:
        options.pop("like", None)
        options.pop("copy", None)
        return a if isinstance(a, ndarray) and not (args or options.get("dtype")) else array(a, *args, **options)

    asarray.__module__ = "cupy"
    return asarray


@contextmanager
def installed() -> Iterator[Any]:
    """Let the stand-in be CuPy, for Dask too, whose tables are as new in the block and as before after it."""
    from dask.array import backends, chunk_types, dispatch
    from dask.sizeof import register_cupy, sizeof
    from dask.tokenize import normalize_token

    lookups = [value for name, value in vars(dispatch).items() if name.endswith(("_lookup", "_dispatch"))]
    tables = [*lookups, normalize_token, sizeof]
    before = [(table, dict(table._lookup), dict(table._lazy)) for table in tables]
    loaded = sys.modules.get("cupy")
    handled = list(chunk_types._HANDLED_CHUNK_TYPES)
    sys.modules["cupy"] = module()
    for name in ("tensordot", "concatenate", "take", "nannumel", "numel"):
        getattr(dispatch, f"{name}_lookup").register_lazy("cupy", backends.register_cupy)
    dispatch.to_numpy_dispatch.register_lazy("cupy", backends.register_cupy)
    sizeof.register_lazy("cupy", register_cupy)
    chunk_types.register_chunk_type(ndarray)
    to_host.clear()
    to_device.clear()
    try:
        yield sys.modules["cupy"]
    finally:
        chunk_types._HANDLED_CHUNK_TYPES[:] = handled
        for table, lookup, lazy in before:
            table._lookup, table._lazy = lookup, lazy
        if loaded is None:
            sys.modules.pop("cupy", None)
        else:
            sys.modules["cupy"] = loaded
