"""`histogram`: counts between edges, in one pass; two if the edges depend on the data."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DTypeError, OptionError
from ..hardware import library_of
from ..kernels.cpu import histogram as kernels
from . import radix
from .sources import chunked, host_array, is_chunked

Array = NDArray[Any]


def histogram(
    x: Any,
    bins: Any = 10,
    range: tuple[float, float] | None = None,
    *,
    weights: Any = None,
    density: bool = False,
) -> tuple[Any, Any]:
    """Return counts between edges and the edges, as ``numpy.histogram`` does.

    Parameters
    ----------
    x : array of integers, floats or booleans
        NumPy's or Dask's, or a store with chunks; of any shape.
    bins : int, str or array_like
        So many bins of one width; for NumPy arrays one of NumPy's rules, such as ``"fd"``; or edges that ascend.
    range : (float, float), optional
        Where the bins begin and end; None: at the smallest and the largest value.
    weights : array, optional
        Of the shape of `x`: what each element counts; chunks are computed if those of `x` are in memory. Sums of
        floats may be rounded differently for other chunks; those of small integers wrap and of booleans say whether
        there is one that is true, as NumPy's do.
    density : bool
        Divide by the sum and the widths of the bins.

    Returns
    -------
    counts : (bins,) ndarray or dask.array.Array
        int64, of the dtype of `weights`, or float64 with `density`.
    edges : (bins + 1,) ndarray or dask.array.Array
        Lazy only where chunks must be read to know them.

    Raises
    ------
    OptionError
        Where NumPy raises ValueError: edges that do not ascend, a range that is not finite, no bins, weights of another
        shape. For chunks whose extent must be found first, when it is computed.
    DTypeError
        Numbers that are not real, or wider than 64 bits.

    Notes
    -----
    Counts are NumPy's for the same edges. Integers of up to 16 bits are counted value by value, so one pass finds their
    extent too. For others without `range`, smallest and largest value take a pass of their own, which is part of the
    lazy graph; for edges of float64, integers beyond 2**53 are rounded first.

    Examples
    --------
    >>> import numpy as np
    >>> import gpucompute as gp
    >>> gp.stats.histogram(np.array([1, 2, 2, 9], np.uint8), bins=4)
    (array([3, 0, 0, 1]), array([1., 3., 5., 7., 9.]))
    >>> import dask.array as da
    >>> counts, edges = gp.stats.histogram(da.arange(1000, chunks=100), bins=4, range=(0, 1000))
    >>> counts.compute(), edges
    (array([250, 250, 250, 250]), array([   0.,  250.,  500.,  750., 1000.]))
    """
    lazy = is_chunked(x)
    given = chunked(x, "histogram") if lazy else host_array(x, "histogram")
    if given.dtype.kind not in "biuf" or given.dtype.itemsize > 8:
        raise DTypeError(f"histogram of {given.dtype}: expected integers, booleans or floats of up to 64 bits")
    if given.dtype == bool:
        given = given.view(np.uint8) if isinstance(given, np.ndarray) else given.astype(np.uint8)
    if not given.dtype.isnative:
        given = given.astype(given.dtype.newbyteorder("="))
    if range is not None and any(library_of(end) == "dask" for end in range):
        raise OptionError(
            "histogram: range of Dask arrays; expected numbers: dask.compute(*range); without a range bins begin and "
            "end at the smallest and the largest value"
        )
    if not np.isscalar(bins) and not isinstance(bins, np.ndarray):
        bins = np.asarray(bins)
    if lazy:
        from . import chunked_histograms

        return chunked_histograms.histogram(given, bins, range, weights, density)
    if weights is not None:
        return weighted(given, bins, range, np.asarray(weights), density)
    if isinstance(bins, str):
        bins, range = _by_rule(given, bins, range)
    if counted_by_value(given.dtype):
        return of_values(value_counts(given), given.dtype, bins, range, density)
    extent = None if range is not None or np.ndim(bins) or not given.size else (given.min(), given.max())
    edges = edges_of(given.dtype, bins, range, extent)
    counts = counts_between(given, edges, even=np.ndim(bins) == 0)
    return (counts / np.diff(edges).astype(float) / counts.sum() if density else counts), edges


def _by_rule(x: Array, rule: str, range: tuple[float, float] | None) -> tuple[int, tuple[float, float] | None]:
    try:
        return len(np.histogram_bin_edges(x, rule, range)) - 1, range
    except ValueError as error:
        raise OptionError(str(error)) from None


def weighted(x: Array, bins: Any, range: Any, weights: Any, density: bool = False) -> tuple[Array, Array]:
    """Return NumPy's histogram, with its errors as ours."""
    try:
        return np.histogram(x, bins, range, density=density, weights=weights)
    except ValueError as error:
        raise OptionError(str(error)) from None


def edges_of(dtype: np.dtype[Any], bins: Any, range: Any, extent: tuple[Any, Any] | None = None) -> Array:
    """Return the edges that NumPy gives values of a dtype that lie in `extent`.

    Raises
    ------
    OptionError
        Where NumPy raises ValueError.
    """
    try:
        return np.histogram_bin_edges(np.array([] if extent is None else extent, dtype), bins, range)
    except ValueError as error:
        raise OptionError(str(error)) from None


def counts_between(x: Array, edges: Array, *, even: bool) -> Array:
    """Return the counts of all elements of `x`; `even` says that the edges lie evenly."""
    from ..launch import cpu

    bins = len(edges) - 1
    if bins < 1 or not x.size:
        return np.zeros(max(bins, 0), np.int64)
    common = edges.dtype if even else np.result_type(x, edges)
    common = np.dtype(np.float32) if common == np.float16 else common
    limits = edges.astype(common)
    first = float(limits[0])
    scale = bins / (float(limits[-1]) - first) if even else 0.0
    kernel = cpu.compile(kernels.count_even if even else kernels.count_between)
    settings = (limits, first, scale) if even else (limits,)

    def count(part: Array, made: tuple[Array, ...]) -> None:
        kernel(part, *settings, *made)

    (counts,) = radix.in_parallel(x.ravel(order="K"), [(bins,)], count, common)
    return counts


def counted_by_value(dtype: np.dtype[Any]) -> bool:
    """Tell whether a dtype has so few values that each has a count."""
    return dtype.kind in "iu" and dtype.itemsize <= 2


def value_counts(x: Array) -> Array:
    """Return how often each value of an integer dtype is there, from the lowest on."""
    counts, _ = radix.count_first(x.ravel(order="K").reshape(-1, 1), radix.Keys(x.dtype), x.dtype.itemsize * 8)
    of_all: Array = counts[0]
    return of_all


def of_values(counts: Array, dtype: np.dtype[Any], bins: Any, range: Any, density: bool = False) -> tuple[Array, Array]:
    """Return the histogram of integers from how often each value is there."""
    (present,) = counts.nonzero()
    values = (present + np.iinfo(dtype).min).astype(dtype)
    return weighted(values, bins, range, counts[present], density)
