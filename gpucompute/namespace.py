"""The NumPy-like functions of gpucompute: a namespace of the array API standard, revision 2025.12.

NumPy's functions already dispatch on their arguments, by the protocols ``__array_ufunc__`` and
``__array_function__`` (NEPs 13 and 18), which CuPy, Dask and the proxies of `fuse` implement. So most names are
NumPy's own objects, at no cost, with their signatures, and known to numba. Three tables say where that is not
enough:

- `CREATION`: functions without an array argument to dispatch on. They follow the current device.
- `LIKE`: functions that take their place from an array, or from ``device=``.
- the functions below, where the standard asks for more than NumPy gives.

References
----------
Python array API standard, https://data-apis.org/array-api/2025.12/
"""

from __future__ import annotations

import builtins
import difflib
import functools
import importlib
import types
from collections.abc import Callable
from typing import Any

import numpy as np

from . import hardware


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


CREATION = _words(
    """arange array asanyarray asarray_chkfinite ascontiguousarray asfortranarray bartlett blackman empty eye
    frombuffer fromfile fromfunction fromiter fromstring full genfromtxt geomspace hamming hanning identity indices
    kaiser linspace load loadtxt logspace ones tri tril_indices triu_indices zeros"""
)
LIKE = frozenset(["empty_like", "full_like", "ones_like", "zeros_like"])
STANDARD = frozenset(["__array_namespace_info__", "argsort", "astype", "finfo", "from_dlpack", "iinfo", "sort", "take"])
# Elementwise functions that NumPy lacks; they are ours, so that every device gives the same bits.
EXTRA_OPS = ("erf", "erfc", "sigmoid")
# NumPy's public names that are about NumPy itself, and its submodules (`linalg` and `fft` are ours).
NOT_OURS = _words(
    """char core ctypeslib dtypes emath exceptions f2py fft lib linalg ma polynomial random rec strings testing
    typing get_include show_config show_runtime test"""
)


def names() -> list[str]:
    """Return the names that `lookup` gives."""
    # NumPy 2.1 lists some private names among its public ones.
    public = {name for name in np.__all__ if not name.startswith("_")}
    return sorted({*public, *STANDARD, *EXTRA_OPS} - NOT_OURS)


def lookup(name: str) -> Any:
    """Return the function, dtype or constant called `name`.

    Raises
    ------
    AttributeError
        There is none; the message says what comes nearest.
    """
    if name in STANDARD:
        return globals()[name]
    if name in EXTRA_OPS:
        return getattr(importlib.import_module("gpucompute.fusion.functions"), name)
    if name in np.__all__ and name not in NOT_OURS:
        value = getattr(np, name)
        return created(value) if name in CREATION else _like(value) if name in LIKE else value
    raise unknown("gpucompute", name, names(), f"numpy.{name}" if name in np.__all__ else "")


def unknown(module: str, name: str, known: list[str], elsewhere: str = "") -> AttributeError:
    """Return the error for a `name` that `module` lacks."""
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; it is NumPy's own, use {elsewhere}" if elsewhere else f"; did you mean {near[0]!r}?" if near else ""
    return AttributeError(f"module {module!r} has no attribute {name!r}{hint}", name=name)


def lookup_in(module: types.ModuleType, name: str) -> Any:
    """Return the public `name` of NumPy's submodule `module`, for ours of the same name."""
    if name in module.__all__:
        return getattr(module, name)
    raise unknown(module.__name__.replace("numpy", "gpucompute"), name, module.__all__)


def created(make: Callable[..., Any]) -> Callable[..., Any]:
    """Return NumPy's creation function `make` with ``device=``, working on the current device."""
    name = make.__name__

    @functools.wraps(make)
    def create(*args: Any, device: Any = None, **kwargs: Any) -> Any:
        target = hardware.chosen(device)
        libraries = set(map(hardware.library_of, args))
        if "traced" in libraries or kwargs.get("like") is not None:
            return make(*args, **kwargs)
        if "dask" in libraries:
            return getattr(importlib.import_module("dask.array"), name, make)(*args, **kwargs)
        if (target is None and "cupy" in libraries) or (target is not None and target.kind == "cuda"):
            cupy = hardware.import_cupy()
            with hardware.on(target):
                native = getattr(cupy, name, None)
                return cupy.asarray(make(*args, **kwargs)) if native is None else native(*args, **kwargs)
        if "cupy" in libraries:
            args = tuple(hardware.asnumpy(x) if hardware.library_of(x) == "cupy" else x for x in args)
        return make(*args, **kwargs)

    create.__module__ = "gpucompute"  # where pickle finds it
    return create


def _like(make: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(make)
    def create(x: Any, /, *args: Any, device: Any = None, **kwargs: Any) -> Any:
        made = make(x, *args, **kwargs)
        return made if device is None else hardware.asarray(made, device=device)

    create.__module__ = "gpucompute"
    return create


def astype(x: Any, dtype: Any, /, *, copy: bool = True, device: Any = None) -> Any:
    """Return the array `x` with another dtype.

    Parameters
    ----------
    x : array
        Of any library; a list has no dtype to change, give it to `asarray`.
    dtype : dtype
    copy : bool
        False: return `x` itself where it has the dtype already.
    device : str or Device, optional
        Where the result shall be; by default where `x` is.

    Returns
    -------
    array
        Of the shape of `x`.

    Raises
    ------
    TypeError
        `x` is no array.

    Examples
    --------
    >>> import gpucompute as gp
    >>> gp.astype(gp.asarray([1.7, -1.7]), gp.int8)
    array([ 1, -1], dtype=int8)
    """
    if not hasattr(x, "astype"):
        raise TypeError(f"astype takes an array, got {type(x).__name__}; use asarray(x, dtype=...)")
    cast = x.astype(dtype, copy=copy)
    return cast if device is None else hardware.asarray(cast, device=device)


def from_dlpack(x: Any, /, *, device: Any = None, copy: bool | None = None) -> Any:
    """Return an array over the memory of `x`, which speaks DLPack (PyTorch, JAX, CuPy, ...).

    Parameters
    ----------
    x : object
        With the methods ``__dlpack__`` and ``__dlpack_device__``.
    device : str or Device, optional
        Where the result shall be; by default where `x` is.
    copy : bool, optional
        True: always copy. False: raise where a copy is needed. None: copy where needed.

    Returns
    -------
    numpy.ndarray or cupy.ndarray

    Examples
    --------
    >>> import numpy as np, gpucompute as gp
    >>> x = np.arange(3.0)
    >>> np.shares_memory(x, gp.from_dlpack(x))
    True
    """
    target = None if device is None else hardware.resolve(device)
    # 2 and 13 are DLPack's kDLCUDA and kDLCUDAManaged.
    if x.__dlpack_device__()[0] in (2, 13):
        here = hardware.import_cupy().from_dlpack(x)
        return hardware.asarray(here, device=target or hardware.resolve(here.device), copy=copy)
    if target is None or target.kind == "cpu":
        return np.from_dlpack(x, copy=copy)
    return hardware.asarray(np.from_dlpack(x), device=target, copy=copy)


def _dtype_of(x: Any) -> Any:
    dtype = getattr(x, "dtype", None)
    return dtype if isinstance(dtype, np.dtype) else x


def finfo(type: Any, /) -> np.finfo[Any]:
    """Return `numpy.finfo` of a floating-point dtype, or of the dtype of an array."""
    return np.finfo(_dtype_of(type))


def iinfo(type: Any, /) -> np.iinfo[Any]:
    """Return `numpy.iinfo` of an integer dtype, or of the dtype of an array."""
    return np.iinfo(_dtype_of(type))


def sort(
    x: Any, /, axis: int | None = -1, kind: Any = None, *, descending: bool = False, stable: bool | None = None
) -> Any:
    """Return a sorted copy of `x`: `numpy.sort` with the standard's ``descending``.

    Parameters
    ----------
    x : array_like
    axis : int or None
        The axis to sort along; None: the flattened array.
    kind : str, optional
        As for `numpy.sort`.
    descending : bool
        From the largest to the smallest, NaNs first.
    stable : bool, optional
        True keeps the order of elements that compare equal, which shows only in the signs of zeros.

    Returns
    -------
    array
        Of the shape and dtype of `x`.

    Examples
    --------
    >>> import gpucompute as gp
    >>> gp.sort([3, 1, 2], descending=True)
    array([3, 2, 1])
    """
    ascending = np.sort(x, axis=axis, kind="stable" if stable else kind)
    return np.flip(ascending, -1 if axis is None else axis) if descending else ascending


def argsort(
    x: Any, /, axis: int | None = -1, kind: Any = None, *, descending: bool = False, stable: bool = True
) -> Any:
    """Return the indices that sort `x`: `numpy.argsort`, but stable by default, and with ``descending``.

    Parameters
    ----------
    x : array_like
    axis : int or None
        The axis to sort along; None: the flattened array.
    kind : str, optional
        As for `numpy.argsort`; overrules `stable`.
    descending : bool
        From the largest to the smallest, NaNs first.
    stable : bool
        Elements that compare equal keep their order.

    Returns
    -------
    array
        Of integers, and of the shape of `x`.

    Examples
    --------
    >>> import gpucompute as gp
    >>> gp.argsort([2, 1, 2], descending=True)
    array([0, 2, 1])
    """
    kind = kind or ("stable" if stable else None)
    if not descending:
        return np.argsort(x, axis=axis, kind=kind)
    if axis is None:
        x, axis = np.ravel(x), -1
    # Equal elements come out backwards from the flipped array, and forwards when that is flipped again.
    backwards = np.argsort(np.flip(x, axis), axis=axis, kind=kind)
    return np.flip(np.shape(x)[axis] - 1 - backwards, axis)


def take(a: Any, indices: Any, axis: int | None = None, out: Any = None, mode: Any = "raise") -> Any:
    """Return elements of `a` by their numbers: `numpy.take`, also where only the numbers are no array of NumPy's.

    So that a table can be looked up inside a fused function, and with the chunks of a Dask array.

    Parameters
    ----------
    a : array_like
    indices : array_like of int
    axis : int, optional
        The axis that is counted along; None: the flattened array.
    out : array, optional
    mode : {"raise", "wrap", "clip"}
        What numbers beyond the end mean.

    Returns
    -------
    array
        Of the dtype of `a`; the axis is replaced by those of `indices`.

    Examples
    --------
    >>> import numpy as np, gpucompute as gp
    >>> table = np.array([0, 10, 20])
    >>> gp.fuse(lambda i: gp.take(table, i) + 1)(np.array([2, 0]))
    array([21,  1])
    """
    options = {} if out is None and mode == "raise" else {"out": out, "mode": mode}
    if _protocol_of(a) is None and (protocol := _protocol_of(indices)) is not None:
        if axis is None:
            a, axis = np.ravel(a), 0  # Dask's own default is 0
        return protocol(indices, np.take, (type(indices),), (a, indices, axis), options)
    return np.take(a, indices, axis, **options)


def _protocol_of(x: Any) -> Any:
    """Return ``__array_function__`` of arrays that are not NumPy's, else None."""
    return None if isinstance(x, np.ndarray) else getattr(type(x), "__array_function__", None)


class __array_namespace_info__:
    """What the namespace offers, as the array API standard asks: call it, then one of its methods.

    Examples
    --------
    >>> import gpucompute as gp
    >>> gp.__array_namespace_info__().devices()[0]
    'cpu'
    """

    def capabilities(self) -> dict[str, Any]:
        """Return which optional parts of the standard are there, and the largest number of dimensions."""
        return np.__array_namespace_info__().capabilities()  # type: ignore[return-value]

    def default_device(self) -> str:
        """Return the name of the current device."""
        return str(hardware.device())

    def devices(self) -> tuple[str, ...]:
        """Return the names that ``device=`` takes."""
        return tuple(map(str, hardware.devices()))

    def default_dtypes(self, *, device: Any = None) -> dict[str, Any]:
        """Return the dtype of each kind that is used when none is asked for; the same on every device."""
        hardware.chosen(device)
        return {**np.__array_namespace_info__().default_dtypes()}

    def dtypes(self, *, device: Any = None, kind: Any = None) -> dict[str, np.dtype[Any]]:
        """Return the standard's dtypes by name, those of `kind` if given; the same on every device."""
        hardware.chosen(device)
        return dict(np.__array_namespace_info__().dtypes(kind=kind))


def starred() -> list[str]:
    """Return the names for ``from gpucompute import *``: all but those that would hide a built-in.

    NumPy's ``max(a, b)`` takes `b` as an axis, so a hidden `max` would change the meaning of code that is
    already there.
    """
    return [name for name in names() if not name.startswith("_") and not hasattr(builtins, name)]
