"""`describe`: count, extrema, mean and variance in one pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from math import prod
from typing import Any, NamedTuple

import numpy as np

from ..errors import DTypeError, ShapeError
from .sources import axes_of, chunked, host_array, is_chunked

OWN = ("uint8", "float32")  # dtypes with a kernel of their own; others are fused


class DescribeResult(NamedTuple):
    """What `describe` returns; the arrays have the axes that were not reduced."""

    nobs: int
    minmax: tuple[Any, Any]
    mean: Any
    variance: Any


def describe(x: Any, axis: int | Sequence[int] | None = 0, *, ddof: int = 1) -> DescribeResult:
    """Return count, smallest and largest value, mean and variance along an axis or several, reading `x` once.

    Parameters
    ----------
    x : (...) array of bool, integers or floats of up to 64 bits
        NumPy's, or one on a GPU, where the results then are; or Dask's or a store with chunks, for which they are lazy.
    axis : int, tuple of int or None
        The axes to reduce; None for all. ``(0, 1, 2)`` are the channels of an (N, H, W, C) batch, ``(0, 2, 3)`` those
        of an (N, C, H, W) one; neither copies anything.
    ddof : int
        The variance is the sum of squared distances from the mean over ``nobs - ddof``; NaN if that is not above 0.

    Returns
    -------
    DescribeResult
        ``nobs``, ``minmax`` (a pair), ``mean``, ``variance``. Mean and variance of integers are float64, those of
        floats have their dtype, and both have the bits of ``x.mean(axis)`` and ``x.var(axis)`` inside `fuse`; the same
        on every machine and for any number of threads. For uint8 they come from exact integer sums. A NaN makes all
        four NaN.

        For Dask arrays ``nobs`` is a number, the others are Dask arrays, and computed together they take one pass. The
        bits are those without chunks: for uint8 always, for floats where chunks end on multiples of 256 elements (but
        for the sign of an extremum that is 0); else the order of float sums follows the chunks.

    Raises
    ------
    DTypeError, ShapeError, OptionError
        For values that are no real numbers, nothing to reduce or chunks of unknown size, and axes that are not there.

    Notes
    -----
    The words are those of ``scipy.stats.describe``, without skewness and kurtosis.

    References
    ----------
    Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979.

    Examples
    --------
    >>> import numpy as np
    >>> import gpucompute as gp
    >>> batch = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)
    >>> found = gp.stats.describe(batch, axis=(0, 1, 2))
    >>> found.nobs, found.mean
    (40, array([58.5, 59.5, 60.5]))
    >>> found.minmax
    (array([0, 1, 2], dtype=uint8), array([117, 118, 119], dtype=uint8))
    >>> found.variance
    array([1230., 1230., 1230.])
    """
    if is_chunked(x):
        x = chunked(x, "describe")
        return _by_fusion(x, _count(x, axis), axis, ddof)
    from ..launch import arrays

    on_gpu = arrays.on_gpu(x)
    given = x if on_gpu else host_array(x, "describe")
    seen = arrays.view(x) if on_gpu else arrays.View(0, given.shape, given.dtype, given.flags.c_contiguous, False)
    n = _count(seen, axis)
    if seen.dtype.name not in OWN or not seen.dtype.isnative:
        return _by_fusion(given, n, axis, ddof)
    order, shape, kept = _split(seen.shape, axis)
    if order != sorted(order):
        given = given.transpose(*order).copy(order="C")
    elif not seen.contiguous:
        given = given.copy(order="C")
    over = max(0, n - ddof)
    if on_gpu:
        from . import device

        mean, variance, small, large = device.statistics(given, shape, kept, over)
        return DescribeResult(n, (small, large), mean, variance)
    from . import host

    mean, variance, small, large = (found.reshape(kept)[()] for found in host.statistics(given.reshape(shape), over))
    return DescribeResult(n, (small, large), mean, variance)


def _count(x: Any, axis: int | Sequence[int] | None) -> int:
    """Return how many elements are reduced to one."""
    if x.dtype.kind not in "buif" or x.dtype.itemsize > 8:
        raise DTypeError(f"describe of {x.dtype}: expected real numbers of up to 64 bits; convert it with .astype")
    n: int = prod(x.shape[a] for a in axes_of(axis, len(x.shape)))
    if n == 0:
        raise ShapeError(f"describe of shape {x.shape} along axis={axis!r}: expected at least one element")
    return n


def _by_fusion(x: Any, n: int, axis: int | Sequence[int] | None, ddof: int) -> DescribeResult:
    small, large, mean, variance = _fused(axes_of(axis, x.ndim), ddof if n > ddof else None)(x)
    return DescribeResult(n, (small, large), mean, variance)


@cache
def _fused(axes: tuple[int, ...], ddof: int | None) -> Callable[..., Any]:
    """Return a fused function that gives the statistics; the variance is NaN without a `ddof`."""
    from ..fusion import fuse

    def describe(x: Any) -> Any:
        variance = x.var(axes, ddof=ddof or 0)
        return x.min(axes), x.max(axes), x.mean(axes), variance if ddof is not None else variance * np.nan

    return fuse(describe)


def _split(
    shape: tuple[int, ...], axis: int | Sequence[int] | None
) -> tuple[list[int], tuple[int, int, int], tuple[int, ...]]:
    """Return an order of the axes in which those that are kept are neighbours, and the sizes then.

    The sizes are (outer, channels, inner), of which the second is kept, and those of the axes kept.
    """
    ndim = len(shape)
    reduced = list(axes_of(axis, ndim))
    kept = [a for a in range(ndim) if a not in reduced]
    sizes = tuple(shape[a] for a in kept)
    order = list(range(ndim))
    if not kept:
        return order, (1, 1, prod(shape)), sizes
    if kept != list(range(kept[0], kept[-1] + 1)):
        order = [*reduced, *kept]
        return order, (prod(shape[a] for a in reduced), prod(sizes), 1), sizes
    return order, (prod(shape[: kept[0]]), prod(sizes), prod(shape[kept[-1] + 1 :])), sizes
