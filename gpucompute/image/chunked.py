"""Dask arrays of images: every function of this package runs chunk by chunk, later, in one task for each.

`takes_chunks` is what the functions and `Compose` have in common. An image never depends on its neighbours, so a
chunk of whole images gives the bytes that they have in the whole array.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from math import isnan
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from ..errors import ShapeError
from ..hardware import library_of

if TYPE_CHECKING:
    import dask.array as da

Function = TypeVar("Function", bound=Callable[..., Any])


def takes_chunks(function: Function) -> Function:
    """Let a function of images, the first of its arguments, take a Dask array of them too.

    The function must take an (0, H, W, C) NumPy array and give an array of the shape and dtype that others have.
    """

    @functools.wraps(function)
    def either(images: Any, *args: Any, **kwargs: Any) -> Any:
        if is_chunked(images):
            return over_chunks(either, images, args, kwargs)
        return function(images, *args, **kwargs)

    return cast(Function, either)


def is_chunked(images: Any) -> bool:
    """Tell whether images are a Dask array, or a list with one in it."""
    return any(library_of(item) == "dask" for item in (images if isinstance(images, list | tuple) else (images,)))


def over_chunks(function: Any, images: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
    """Return the lazy result of a function of images for a Dask array, with a task for each chunk along N.

    Parameters
    ----------
    function : callable
        Takes (N, H, W, C) arrays and gives arrays of N.
    images : (N, H, W, C) dask.array.Array
        Height, width and channels are brought into one chunk if they are cut.
    args, kwargs
        What else the function is given.

    Returns
    -------
    dask.array.Array
        Cut as `images` is along N. Nothing is computed: shape and dtype come from a call with no images.

    Raises
    ------
    ShapeError
        If `images` is not an (N, H, W, C) array, is in a list, or has images of unknown size.
    DeviceMemoryError
        If a chunk and its result are more than a task may use.
    """
    from ..chunked import budget

    _check(images)
    cut = [axis for axis in (1, 2, 3) if images.numblocks[axis] > 1]
    notes = [f"axis {axis} of the array of shape {images.shape} becomes one chunk" for axis in cut]
    whole: da.Array = images.rechunk(dict.fromkeys(cut, -1)) if cut else images
    task = _Task(function, args, kwargs or {})
    one = task(np.empty((0, *whole.shape[1:]), whole.dtype))
    chunks = (whole.chunks[0], *((n,) for n in one.shape[1:]))
    if not any(map(isnan, whole.chunks[0])):
        blocks = [(whole.chunks, whole.dtype)], [(chunks, one.dtype)]
        budget.check(task.__name__, budget.limit(whole._meta), *blocks, notes)
    return _layer(task, whole, chunks, one.dtype)


def _layer(task: _Task, whole: da.Array, chunks: Any, dtype: np.dtype[Any]) -> Any:
    from dask.array.utils import meta_from_array
    from dask.base import tokenize

    name = f"{task.__name__}-{tokenize(task, whole.name)}"
    return whole.map_blocks(task, name=name, chunks=chunks, meta=meta_from_array(whole._meta, 4, dtype))


def _check(images: Any) -> None:
    if isinstance(images, list | tuple):
        raise ShapeError(
            "images is a list with Dask arrays in it; give one (N, H, W, C) Dask array (dask.array.stack), or images "
            "of different sizes to a task for each batch, such as dask.delayed(function)(images)"
        )
    if images.ndim != 4:
        raise ShapeError(
            f"images is a Dask array of shape {images.shape}; expected a batch (N, height, width, channels): add the "
            "axes that lack, such as images[None] or images[..., None]"
        )
    if any(map(isnan, images.shape[1:])):
        raise ShapeError(
            f"images is a Dask array of shape {images.shape}, with unknown sizes; only N may be unknown: call its "
            "compute_chunk_sizes() first"
        )


class _Task:
    """What the task of a chunk calls; a process makes one of those that come with the same bytes."""

    def __init__(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.call = function, args, kwargs
        name = getattr(function, "__name__", type(function).__name__.lower())
        self.__name__ = name.replace("_", "-")  # of "array-center_crop", two tasks in one, Dask's displays show "array"
        self._pickled: bytes | None = None

    def __call__(self, block: Any) -> Any:
        function, args, kwargs = self.call
        return function(block, *args, **kwargs)

    def __dask_tokenize__(self) -> Any:
        function, args, kwargs = self.call
        return "gpucompute.image", self.__name__, function, args, sorted(kwargs.items())

    def __reduce__(self) -> Any:
        from ..chunked.functions import dump

        if self._pickled is None:
            self._pickled = dump(self.call)
        return _unpickled, (self._pickled,)


def _unpickled(pickled: bytes) -> Any:
    """Return the task of this process with that content, so that tables of filters are made once."""
    import pickle

    from ..chunked.kernel import remembered

    return remembered((_Task, pickled), lambda: _Task(*pickle.loads(pickled)))
