"""Arguments of a launch, checked against the kernel's parameters."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...errors import DTypeError, ShapeError
from .library import Kernel, Parameter


def pack(kernel: Kernel, args: Sequence[Any]) -> tuple[Any, list[Any]]:
    """Return the array of pointers that a launch takes, and what must live as long as it.

    Raises
    ------
    DTypeError
        For a wrong number of arguments or a wrong dtype; it names the parameter.
    ShapeError
        For an array that is not C-contiguous.
    """
    parameters = kernel.parameters
    if len(args) != len(parameters):
        shown = ", ".join(f"{p.name}: {p}" for p in parameters)
        raise DTypeError(f"{kernel.name} takes {len(parameters)} arguments ({shown}), got {len(args)}")
    values = [
        _pointer(kernel, parameter, argument) if parameter.pointer else _scalar(kernel, parameter, argument)
        for parameter, argument in zip(parameters, args, strict=True)
    ]
    addresses = [value.ctypes.data for value in values]
    return (ctypes.c_void_p * max(1, len(addresses)))(*addresses), [values, args]


def _pointer(kernel: Kernel, parameter: Parameter, argument: Any) -> np.ndarray[Any, Any]:
    who = f"{kernel.name}, parameter {parameter.name} ({parameter})"
    if argument is None:
        return np.zeros(1, np.uintp)
    if not isinstance(argument, np.ndarray):
        raise DTypeError(f"{who}: got {_described(argument)}, expected a NumPy array, or None for a null pointer")
    if not _fits(parameter, argument.dtype):
        advice = f"; use x.astype(numpy.{parameter.dtype})" if parameter.dtype is not None else ""
        raise DTypeError(f"{who}: got an array of {argument.dtype}{advice}")
    if not argument.flags.c_contiguous:
        raise ShapeError(f"{who}: the array is not C-contiguous; use numpy.ascontiguousarray")
    if not (parameter.constant or argument.flags.writeable):
        raise DTypeError(f"{who}: the array is read-only, and the kernel may write to it; pass a copy")
    return np.array([argument.ctypes.data], np.uintp)


def _fits(parameter: Parameter, dtype: np.dtype[Any]) -> bool:
    """Whether an array of `dtype` may be behind a pointer parameter."""
    wanted = parameter.dtype
    if parameter.kind == "v" or dtype.kind == "V":
        return True
    if parameter.kind == "B":
        return dtype.name == "bfloat16" or dtype == np.uint16
    if wanted is None:
        return parameter.bytes > 0 and dtype.itemsize == parameter.bytes
    if dtype.kind == "c":  # float2 is what complex numbers are in CUDA
        return parameter.elements == 2 and dtype.itemsize == 2 * parameter.bytes
    if wanted.itemsize == 1:  # char, unsigned char and bool are all used for bytes
        return dtype.itemsize == 1
    return dtype == wanted


def _scalar(kernel: Kernel, parameter: Parameter, argument: Any) -> np.ndarray[Any, Any]:
    who = f"{kernel.name}, parameter {parameter.name} ({parameter})"
    size = parameter.bytes * parameter.elements
    scalar = isinstance(argument, np.generic) or (isinstance(argument, np.ndarray) and argument.ndim == 0)
    if parameter.kind == "s" or parameter.elements > 1:  # a struct by value: anything of its size
        if isinstance(argument, np.generic | np.ndarray) and argument.nbytes == size:
            return np.ascontiguousarray(argument).reshape(-1).copy()
        raise DTypeError(f"{who}: got {_described(argument)}, expected a NumPy value of {size} bytes")
    fits = scalar and (
        argument.dtype == parameter.dtype
        or (parameter.kind == "B" and (argument.dtype.name == "bfloat16" or argument.dtype == np.uint16))
        or (size == 1 and argument.dtype.kind in "iub" and argument.dtype.itemsize == 1)
    )
    if not fits:
        wanted = parameter.dtype if parameter.dtype is not None else "uint16"
        raise DTypeError(f"{who}: got {_described(argument)}; pass numpy.{wanted}(...)")
    return np.array([argument])


def _described(argument: Any) -> str:
    if isinstance(argument, np.generic):
        return f"a numpy.{argument.dtype}"
    if isinstance(argument, np.ndarray):
        return f"an array of {argument.dtype}"
    return f"a Python {type(argument).__name__}"
