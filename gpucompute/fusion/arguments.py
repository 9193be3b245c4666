"""Arguments of all kinds made ready for a fused call: containers, static values, arrays that need a copy."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import numpy as np

from ..hardware import for_numpy, library_of
from .location import fusion_error
from .trace import _collect, _parameter_names
from .tracer import weak_type


def describe(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    static: Collection[str],
    arrays: list[Any],
    scalars: list[Any],
) -> tuple[Any, ...]:
    """Fill `arrays` and `scalars` in the order in which a trace numbers them; return what the trace depends on."""
    names = _parameter_names(function, len(args))
    key: list[Any] = []
    for place, value in (*enumerate(args), *kwargs.items()):
        name = names[place] if isinstance(place, int) else place
        leaves: dict[Any, Any] = {}
        if name not in static:
            _collect(value, (place,), leaves)
        if not leaves:
            key.append((place, freeze(value)))
        for path, leaf in leaves.items():
            weak = weak_type(leaf)
            if weak is not None:
                scalars.append(leaf)
                key.append((path, weak))
            elif _on_gpu(leaf):
                from .cuda.device import describe as describe_device_array

                arrays.append(leaf)
                key.append((path, *describe_device_array(leaf)))
            else:
                array = readable(leaf)
                arrays.append(array)
                key.append((path, isinstance(leaf, np.generic), array.dtype, array.shape, array.strides))
    return tuple(key)


def _on_gpu(value: Any) -> bool:
    if isinstance(value, np.ndarray | np.generic):
        return False
    from ..launch import arrays

    return arrays.on_gpu(value)


def is_chunked(value: Any) -> bool:
    """Tell whether a Dask array is in `value` or in the containers that it is made of."""
    if isinstance(value, dict):
        return any(map(is_chunked, value.values()))
    return any(map(is_chunked, value)) if isinstance(value, (list, tuple)) else library_of(value) == "dask"


def readable(value: Any) -> np.ndarray[Any, Any]:
    """Return `value` as an aligned array in native byte order; a copy only where it is not one already."""
    if not isinstance(value, np.ndarray) and not hasattr(value, "__array__") and hasattr(value, "__dlpack__"):
        value = np.from_dlpack(value)
    array = np.asarray(for_numpy(value))
    if array.dtype.kind == "O" and array.shape != tuple(getattr(value, "shape", ())):  # NumPy cannot look into it
        raise fusion_error(
            f"a {type(value).__name__} of shape {value.shape} is no array that NumPy can read; make one of it before "
            "the call (of a sparse matrix x.toarray())"
        )
    array = array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
    return array if array.flags.aligned else array.copy()


def freeze(value: Any) -> Any:
    """Return a hashable stand-in for a static value."""
    if isinstance(value, (list, tuple)):
        return type(value).__name__, tuple(freeze(item) for item in value)
    if isinstance(value, dict):
        return "dict", tuple((key, freeze(item)) for key, item in value.items())
    if isinstance(value, slice):
        return "slice", value.start, value.stop, value.step
    if isinstance(value, np.ndarray):
        return "array", value.dtype.str, value.shape, value.tobytes()
    try:
        hash(value)
    except TypeError:
        return "object", id(value)
    return type(value), value
