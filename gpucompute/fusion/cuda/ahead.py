"""Fused functions compiled before their first call, for GPUs that need not be here."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ...errors import FusionError, OptionError
from ..layout import Layout
from ..run import Fused
from ..trace import trace
from .device import cubin_of, key_of
from .program import CudaProgram, plan_for

_ARRAY = re.compile(r"(\w+)\[([\d,\s]*)\]")
_KEYWORD = re.compile(r"([A-Za-z_]\w*)=(.*)")


def fused(place: str) -> Fused:
    """Return the fused function ``package.module:name``; modules beside the working folder are found too.

    Raises
    ------
    OptionError
        There is no such module or name, or it is no fused function.
    """
    module, _, name = place.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise OptionError(f"function {place!r}: {error}; expected package.module:name") from None
    if not isinstance(found, Fused):
        raise OptionError(f"function {place!r} is {type(found).__name__}; expected one made by gpucompute.fuse")
    return found


def arguments(like: str) -> tuple[list[Any], dict[str, Any]]:
    """Return arguments as `like` describes them: arrays as ``dtype[shape]``, others as Python writes them.

    Raises
    ------
    OptionError
        Something in it is neither.

    Examples
    --------
    >>> (image, scale), others = arguments("uint8[4,8,8,3] 1.5 axis=0")
    >>> image.dtype, image.shape, scale, others
    (dtype('uint8'), (4, 8, 8, 3), 1.5, {'axis': 0})
    """
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for text in shlex.split(like):
        keyword = _KEYWORD.fullmatch(text)
        value = _value(text if keyword is None else keyword[2], like)
        if keyword is None:
            args.append(value)
        else:
            kwargs[keyword[1]] = value
    return args, kwargs


def _value(text: str, like: str) -> Any:
    array = _ARRAY.fullmatch(text)
    try:
        if array is None:
            return ast.literal_eval(text)
        return np.empty([int(n) for n in array[2].split(",") if n.strip()], array[1])
    except (SyntaxError, TypeError, ValueError):
        raise OptionError(
            f"{text!r} in {like!r}: expected an array such as 'float32[64,224,224,3]', or a number or string of Python"
        ) from None


def build(function: Fused, args: Sequence[Any], kwargs: dict[str, Any], arch: str) -> Iterator[tuple[str, int]]:
    """Compile the kernels of a call into the cache; yield what each does, and the bytes of its code.

    Parameters
    ----------
    function : Fused
    args, kwargs
        Of the call; arrays are NumPy's and stand for arrays of a GPU in C order. Their values are not read.
    arch : str
        Such as ``"sm_90"``.

    Raises
    ------
    FusionError
        It cannot be fused; or its kernels call what another process cannot know to be the same, so that the cache
        would be of no use.
    """
    arrays: list[Any] = []
    function._bind_slowly(tuple(args), kwargs, arrays, [])
    traced = trace(function.function, tuple(args), kwargs, function.static)
    inputs = [*arrays, *traced.captured]
    layouts = [Layout.contiguous(array.shape, array.dtype.itemsize) for array in inputs]
    program = CudaProgram(plan_for(traced.outputs, layouts), range(len(inputs)))
    fast = function.precision == "fast"
    for number, step in enumerate(program.steps, 1):
        what = f"{function.__name__}, kernel {number}"
        if key_of(step.kernel, fast) is None:
            raise FusionError(
                f"{what} calls a function that uses an array or another object from outside, which another process "
                "could not know to be the same; give it as an argument"
            )
        yield what, len(cubin_of(step.kernel, fast, arch))
