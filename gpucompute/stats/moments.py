"""`describe`: count, extrema, mean and variance in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np

from ..errors import DTypeError, OptionError, ShapeError

DTYPES = ("uint8", "float32")


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
    x : (...) uint8 or float32 array
        NumPy's, or one on a GPU, where the results then are.
    axis : int, tuple of int or None
        The axes to reduce; None for all. ``(0, 1, 2)`` are the channels of an (N, H, W, C) batch, ``(0, 2, 3)`` those
        of an (N, C, H, W) one; neither copies anything.
    ddof : int
        The variance is the sum of squared distances from the mean over ``nobs - ddof``; NaN if that is not above 0.

    Returns
    -------
    DescribeResult
        ``nobs``, ``minmax`` (a pair), ``mean``, ``variance``. For uint8, mean and variance are float64 and come from
        exact integer sums. For float32 they are float32 and have the bits of ``x.mean(axis)`` and ``x.var(axis)``
        inside `fuse`; the same on every machine and for any number of threads. A NaN makes all four NaN; -0 is
        smaller than 0.

    Raises
    ------
    DTypeError, ShapeError, OptionError
        For other dtypes, nothing to reduce, and axes that are not there.

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
    from ..launch import arrays

    on_gpu = arrays.on_gpu(x)
    given = x if on_gpu else np.asarray(x)
    seen = arrays.view(x) if on_gpu else arrays.View(0, given.shape, given.dtype, given.flags.c_contiguous, False)
    if seen.dtype.name not in DTYPES:
        raise DTypeError(f"describe of {seen.dtype}: expected {' or '.join(DTYPES)}; convert it with .astype")
    order, shape, kept = _split(seen.shape, axis)
    n = shape[0] * shape[2]
    if n == 0:
        raise ShapeError(f"describe of shape {seen.shape} along axis={axis!r}: expected at least one element")
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


def _split(
    shape: tuple[int, ...], axis: int | Sequence[int] | None
) -> tuple[list[int], tuple[int, int, int], tuple[int, ...]]:
    """Return an order of the axes in which those that are kept are neighbours, and the sizes then.

    The sizes are (outer, channels, inner), of which the second is kept, and those of the axes kept.
    """
    ndim = len(shape)
    given = tuple(range(ndim)) if axis is None else (axis,) if isinstance(axis, int | np.integer) else tuple(axis)
    if not all(-ndim <= a < ndim for a in given) or len({a % ndim for a in given}) != len(given):
        raise OptionError(f"axis={axis!r} for an array of {ndim} axes: expected different ones of them")
    reduced = sorted(a % ndim for a in given)
    kept = [a for a in range(ndim) if a not in reduced]
    sizes = tuple(shape[a] for a in kept)
    order = list(range(ndim))
    if not kept:
        return order, (1, 1, prod(shape)), sizes
    if kept != list(range(kept[0], kept[-1] + 1)):
        order = [*reduced, *kept]
        return order, (prod(shape[a] for a in reduced), prod(sizes), 1), sizes
    return order, (prod(shape[: kept[0]]), prod(sizes), prod(shape[kept[-1] + 1 :])), sizes
