"""What statistics take: NumPy arrays, which are computed at once, and chunks, which stay lazy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import DTypeError, MissingExtraError, OptionError, ShapeError
from ..hardware import library_of


def is_chunked(x: Any) -> bool:
    """Tell whether `x` is a Dask array, or a store that `gpucompute.chunked.from_array` cuts into chunks."""
    stored = all(hasattr(x, name) for name in ("shape", "dtype", "chunks", "__getitem__"))
    return library_of(x) == "dask" or (stored and not isinstance(x, np.ndarray))


def chunked(x: Any, name: str) -> Any:
    """Return the Dask array of something chunked, without empty chunks.

    Raises
    ------
    DTypeError
        Its chunks are not NumPy's or have masks, or it has more than numbers, as xarray's arrays do.
    ShapeError
        Their sizes are not known.
    MissingExtraError
        A store is given and Dask is not installed.
    """
    if library_of(x) != "dask":
        if hasattr(x, "__array_ufunc__"):  # no store, which is not computed with
            raise DTypeError(
                f"{name} of a {type(x).__name__}: what it holds besides its numbers (labels, units) would be lost; "
                "pass x.data of xarray"
            )
        try:
            from ..chunked.sources import from_array
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != "dask":
                raise
            raise MissingExtraError("dask", "dask", f"{name} of a {type(x).__name__}") from error
        x = from_array(x)
    check_mask(x._meta, name)
    if not isinstance(x._meta, np.ndarray):
        raise DTypeError(f"{name} of chunks of {type(x._meta).__name__}: bring them to the host, gp.chunked.to_host(x)")
    if any(np.isnan(n) for n in x.shape):
        raise ShapeError(
            f"{name} of a Dask array with chunks of unknown size (shape {x.shape}); call its compute_chunk_sizes() "
            "first"
        )
    if any(0 in along and len(along) > 1 for along in x.chunks):
        x = x.rechunk(tuple(tuple(n for n in along if n) or (0,) for along in x.chunks))
    return x


def host_array(x: Any, name: str) -> np.ndarray[Any, Any]:
    """Return an array of NumPy's; one on a GPU or with a mask is an error that says what to do."""
    from ..launch import arrays

    if arrays.on_gpu(x):
        raise DTypeError(f"{name} of an array on a GPU is not there yet: bring it to the host, gp.asnumpy(x)")
    check_mask(x, name)
    return np.asarray(x)


def check_mask(x: Any, name: str) -> None:
    """Refuse a masked array of NumPy's: what is masked would count."""
    if isinstance(x, np.ma.MaskedArray):
        raise DTypeError(
            f"{name} of a masked array: its mask would not be seen; fill it first, x.filled(0) or, in chunks, "
            "dask.array.ma.filled(x, 0), or leave out what is masked"
        )


def axes_of(axis: int | Sequence[int] | None, ndim: int) -> tuple[int, ...]:
    """Return the axes that are meant, ascending.

    Raises
    ------
    OptionError
        One is not there, or named twice.
    """
    given = tuple(range(ndim)) if axis is None else (axis,) if isinstance(axis, int | np.integer) else tuple(axis)
    if not all(-ndim <= a < ndim for a in given) or len({a % ndim for a in given}) != len(given):
        raise OptionError(f"axis={axis!r} for an array of {ndim} axes: expected different ones of them")
    return tuple(sorted(a % ndim for a in given))
