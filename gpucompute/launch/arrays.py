"""Arrays on devices, whoever made them: is it one, where is it, what is its address.

CuPy's and PyCUDA's arrays are asked directly, in 0.3 µs; others through ``__cuda_array_interface__``, which takes 1 µs
and more.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from .. import hardware
from ..errors import DeviceError
from . import drivers


class View(NamedTuple):
    """What a kernel needs to know of an array."""

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    contiguous: bool  # in C order
    writable: bool
    strides: tuple[int, ...] | None = None  # in bytes; None: in C order


@functools.lru_cache(maxsize=1024)
def _is_c_order(shape: tuple[int, ...], strides: tuple[int, ...], step: int) -> bool:
    for length, stride in zip(reversed(shape), reversed(strides), strict=True):
        if length != 1 and stride != step:
            return False
        step *= length
    return True


class Asked(NamedTuple):
    """How arrays of a type are asked for what a launch needs."""

    address: Callable[[Any], int]
    contiguous: Callable[[Any], bool]
    device: Callable[[Any], int]


_CUPY = Asked(*map(operator.attrgetter, ("data.ptr", "flags.c_contiguous", "device.id")))
# PyCUDA computes `flags` and `ptr` anew at each access, in 2 µs.
_PYCUDA = Asked(
    lambda x: int(x.gpudata or 0),
    lambda x: _is_c_order(x.shape, x.strides, x.dtype.itemsize),
    lambda x: drivers.device_of_address(int(x.gpudata or 0)),
)


@functools.lru_cache(maxsize=256)
def asked(kind: Any) -> Asked | None:
    """Return how arrays of a type are asked; None for those of other libraries."""
    if hardware.library_of_type(kind) == "cupy":
        return _CUPY
    names = {(base.__module__, base.__name__) for base in kind.__mro__}
    return _PYCUDA if ("pycuda.gpuarray", "GPUArray") in names else None


@functools.lru_cache(maxsize=256)
def _offers(kind: Any) -> bool:
    return hasattr(kind, "__cuda_array_interface__")


def on_gpu(x: Any) -> bool:
    """Whether `x` is an array on a GPU."""
    kind: Any = type(x)
    if not _offers(kind):
        # numba and others set it on the instance; plain numbers are the common case and quick to tell
        return not isinstance(x, np.ndarray | np.generic | int | float) and hasattr(x, "__cuda_array_interface__")
    # PyTorch has the attribute for all tensors, and raises AttributeError for those of the CPU.
    return asked(x.__class__) is not None or hasattr(x, "__cuda_array_interface__")


def view(x: Any) -> View:
    """Return address, shape, dtype and layout of an array on a GPU."""
    ask = asked(x.__class__)
    if ask is not None:
        return View(ask.address(x), x.shape, x.dtype, ask.contiguous(x), True, x.strides)
    interface = x.__cuda_array_interface__
    address, read_only = interface["data"]
    shape, dtype = tuple(interface["shape"]), np.dtype(interface["typestr"])
    strides = interface.get("strides")
    plain = strides is None or 0 in shape or _is_c_order(shape, tuple(strides), dtype.itemsize)
    return View(address or 0, shape, dtype, plain, not read_only, None if strides is None else tuple(strides))


def address_if(x: Any, dtype: np.dtype[Any], typestr: str, constant: bool) -> int:
    """Return the address of an array on a GPU of `dtype`, in C order, that may be written if it must be; else 0.

    The quick check before a launch, in which `typestr` is ``dtype.str``; `view` tells what did not fit.
    """
    ask = asked(x.__class__)
    if ask is not None:
        return ask.address(x) if x.dtype == dtype and ask.contiguous(x) else 0
    interface = getattr(x, "__cuda_array_interface__", None)
    if interface is None or interface["typestr"] != typestr:
        return 0
    address, read_only = interface["data"]
    if read_only and not constant:
        return 0
    strides = interface.get("strides")
    return address if strides is None or _is_c_order(interface["shape"], strides, dtype.itemsize) else 0


def index_of(x: Any) -> int:
    """Return the CUDA index of the device whose memory an array lies in."""
    if drivers.count() == 1:
        return 0
    ask = asked(x.__class__)
    if ask is not None:
        return ask.device(x)
    if type(x).__module__.partition(".")[0] == "torch":
        return int(x.device.index)
    return drivers.device_of_address(view(x).address)


def device_of(operands: Mapping[str, Any]) -> int:
    """Return the index of the one device that holds all these arrays, given by the names that an error shall use.

    Raises
    ------
    DeviceError
        They are on different devices; the message says which is where.
    """
    if drivers.count() == 1:
        return 0
    places = {name: index_of(x) for name, x in operands.items()}
    if len(set(places.values())) > 1:
        where = ", ".join(f"{name} on cuda:{index}" for name, index in places.items())
        raise DeviceError(
            f"arrays on different devices: {where}; a kernel runs on one device: move them with "
            f"gpucompute.asarray(x, device='cuda:{min(places.values())}')"
        )
    return next(iter(places.values()), 0)


def nbytes(x: Any) -> int:
    """Return the bytes of an array on a GPU; 0 of what stands for one, an address or None."""
    if x is None or isinstance(x, int | np.integer):
        return 0
    size = getattr(x, "nbytes", None)
    if size is not None:
        return int(size)
    seen = view(x)
    return math.prod(seen.shape) * seen.dtype.itemsize
