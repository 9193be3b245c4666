"""Calls of fused functions with Dask arrays among the arguments."""

from __future__ import annotations

import types
from typing import Any

import dask.array as da
import numpy as np
from dask.array.utils import meta_from_array

from ..errors import FusionError, ShapeError
from ..fusion import ir
from ..fusion.arguments import readable
from ..fusion.depth import deep
from ..fusion.run import Fused
from ..fusion.trace import Trace, trace
from ..fusion.tracer import check_kind
from . import device_chunks
from .stages import Planner


def call(fused: Fused, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any = None) -> Any:
    """Return what the function returns, with lazy Dask arrays in the places of its results.

    Raises
    ------
    FusionError
        ``out=`` is given.
    ShapeError
        An array has chunks of unknown size.
    """
    if out is not None:
        raise FusionError(f"{fused!r} got out= with Dask arrays, which cannot be written to; use its result")
    traced, planner = prepared(fused, args, kwargs)
    return traced.rebuild(results(traced, planner, given(traced, args, kwargs)))


def prepared(
    fused: Fused, args: tuple[Any, ...], kwargs: dict[str, Any], kind: type[Planner] = Planner
) -> tuple[Trace, Planner]:
    """Return the trace of a call with the whole shapes, and a planner of that kind for its outputs.

    Raises
    ------
    ShapeError
        An array has chunks of unknown size.
    """
    device_chunks.watch()
    _check_chunks([*args, *kwargs.values()])
    traced = trace(fused.function, args, kwargs, fused.static)
    leaves = [_leaf(value) for value in given(traced, args, kwargs)]
    scalars = traced.scalar_values([_at(path, args, kwargs) for path in traced.scalars])
    scalars = [_plain(value) for value in scalars]
    return traced, kind(_name(fused), fused.precision, [*leaves, *traced.captured], scalars)


def given(traced: Trace, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """Return the arrays among the arguments, in the order of the trace's inputs."""
    return [_at(path, args, kwargs) for path in traced.inputs]


def results(traced: Trace, planner: Planner, arrays: list[Any]) -> list[Any]:
    """Return the Dask arrays of a call with the given arrays."""
    with deep(len(ir.postorder(traced.outputs))):
        nodes = planner.graph.localised(traced.outputs)
        made = planner.arrays(nodes)
    lazy = [array for array in arrays if isinstance(array, da.Array)]
    swapped = {array.dtype.newbyteorder("=") for array in lazy if not array.dtype.isnative}
    for i, node in enumerate(nodes):
        if isinstance(node, ir.Input) and node.dtype in swapped:  # no kernel has written it
            made[i] = made[i].map_blocks(native, dtype=node.dtype)
    return made


def native(block: Any) -> Any:
    """Return a chunk in native byte order."""
    return block.astype(block.dtype.newbyteorder("="), copy=False)


def _at(path: tuple[Any, ...], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return the argument, or the item of one, that a trace names by its path."""
    value = args[path[0]] if isinstance(path[0], int) else kwargs[path[0]]
    for key in path[1:]:
        value = value[key]
    return value


def _check_chunks(value: Any) -> None:
    """Raise where the size of a Dask array somewhere in `value` is not known, or its chunks cannot be fused."""
    if isinstance(value, (list, tuple, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            _check_chunks(item)
    elif isinstance(value, da.Array):
        check_kind(value._meta, "each chunk of a Dask array")
        if any(np.isnan(n) for n in value.shape):
            raise ShapeError(
                f"a Dask array has chunks of unknown size (shape {value.shape}), which a fused function cannot be "
                "traced with; call its compute_chunk_sizes() first"
            )


def _leaf(value: Any) -> Any:
    """Return an array made ready for stages: of the native dtype that tasks give its chunks, without empty chunks."""
    if not isinstance(value, da.Array):
        return readable(value)
    if not value.dtype.isnative:
        meta = native(meta_from_array(value._meta, value.ndim))
        value = da.Array(value.dask, value.name, value.chunks, meta=meta)
    if any(0 in chunks and len(chunks) > 1 for chunks in value.chunks):
        value = value.rechunk(tuple(tuple(n for n in chunks if n) or (0,) for chunks in value.chunks))
    return value


def _plain(value: Any) -> Any:
    """Return a scalar as Python's own type: subclasses need not be known where the task runs."""
    return next(kind(value) for kind in (bool, int, float) if isinstance(value, kind))


def _name(fused: Fused) -> str:
    """Return the user's name for a function, as a part of Dask's keys."""
    function: Any = fused.function
    if isinstance(function, types.MethodType) and function.__name__ in ("__call__", "_apply"):
        function = function.__self__
    name = getattr(function, "__name__", "fused")
    return "fused" if name == "<lambda>" else name
