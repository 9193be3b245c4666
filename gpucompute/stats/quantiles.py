"""`quantile`: exact in a few passes over the data, or in one within a stated error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DTypeError, OptionError, ShapeError
from . import radix, ranks
from .sketch import QuantileSketch
from .sources import axes_of, chunked, host_array, is_chunked

Array = NDArray[Any]

SMALL = 1 << 16  # elements below which NumPy's partition is quicker than counting
COLUMNS = 16  # side by side, beyond which it is too


def quantile(
    x: Any,
    q: Any,
    axis: int | Sequence[int] | None = None,
    *,
    method: str = "linear",
    exact: bool = True,
    error: float = 0.001,
) -> Any:
    """Return quantiles, as ``numpy.quantile`` means them.

    Parameters
    ----------
    x : array of integers or floats
        NumPy's or Dask's, or a store with chunks.
    q : float or array_like of floats
        In [0, 1].
    axis : int, tuple of int or None
        The axes to reduce; None for all.
    method : str
        One of the 13 of ``numpy.quantile``.
    exact : bool
        True: the order statistics themselves, found by counting digits of the numbers' bits. Integers of up to 16 bits
        take one pass over the data, 32 bits two, 64 bits up to four, usually two or three; more where many columns or
        quantiles make digits shorter. False: one pass, with a `QuantileSketch` for each column.
    error : float
        With ``exact=False``: how far an order statistic may be off, relative to itself.

    Returns
    -------
    ndarray, scalar or dask.array.Array
        Of shape ``np.shape(q)`` and then that of the axes kept, with NumPy's dtype (float64 with ``exact=False``). A
        column that has a NaN gives NaN. Lazy for chunks. The same bits for any chunks and number of threads: a result
        that is 0 is +0, whatever zeros `x` has.

    Raises
    ------
    OptionError
        `q` is not in [0, 1], or there is no such method or axis.
    DTypeError
        Numbers that are neither integers nor floats of up to 64 bits, or that have masks.
    ShapeError
        There is nothing to reduce.
    DeviceMemoryError
        A task cannot hold a chunk.

    Notes
    -----
    A pass reads a store anew. Chunks that are computed are kept by Dask from the first pass to the last: write large
    ones to a store first, or take ``exact=False``.

    A task holds its chunk, and counts: at most 16 MiB, or 256 bytes for each column and quantile if that is more. Where
    the reduced axes have one chunk, each task calls ``numpy.quantile``.

    References
    ----------
    Hyndman and Fan, "Sample quantiles in statistical packages", 1996; Knuth, "The Art of Computer Programming",
    volume 3, 5.2.5 (radix); Masson, Rim and Lee, "DDSketch", PVLDB 12 (12), 2019.

    Examples
    --------
    >>> import numpy as np
    >>> import gpucompute as gp
    >>> x = np.arange(200_001, dtype=np.float32).reshape(-1, 1)
    >>> gp.stats.quantile(x, [0.25, 0.5])
    array([ 50000., 100000.])
    >>> import dask.array as da
    >>> gp.stats.quantile(da.from_array(x, chunks=(50_000, 1)), 0.75, axis=0)
    dask.array<quantile, shape=(1,), dtype=float32, chunksize=(1,), chunktype=numpy.ndarray>
    """
    values = ranks.checked(q, method)
    if not 0 < error < 1:
        raise OptionError(f"error={error!r}: expected a number above 0 and below 1")
    given = chunked(x, "quantile") if is_chunked(x) else host_array(x, "quantile")
    if given.dtype.kind not in "iuf" or given.dtype.itemsize > 8:
        raise DTypeError(f"quantile of {given.dtype}: expected integers or floats of up to 64 bits")
    if not given.dtype.isnative:
        given = given.astype(given.dtype.newbyteorder("="))
    axes = axes_of(axis, given.ndim)
    wanted = Wanted(given.dtype, prod(given.shape[a] for a in axes), axes, values, type(q) in (int, float), method)
    if wanted.n == 0:
        raise ShapeError(f"quantile of shape {given.shape} along axis={axis!r}: expected at least one element")
    shape = (*values.shape, *wanted.kept(given.shape))
    if 0 in shape:  # no quantiles, or of no columns
        none = np.empty(shape, wanted.result_dtype() if exact else np.float64)
        if isinstance(given, np.ndarray):
            return none
        from dask.array import from_array

        return from_array(none)
    if not isinstance(given, np.ndarray):
        from . import chunked_quantiles

        return chunked_quantiles.exact(wanted, given) if exact else chunked_quantiles.sketched(wanted, given, error)
    if exact:
        return _exact(wanted, given)
    return wanted.result(wanted.kept(given.shape), sketched_values(sketches(wanted, given, error), wanted))


@dataclass(frozen=True)
class Wanted:
    """Which quantiles of which numbers.

    Attributes
    ----------
    dtype : numpy.dtype
    n : int
        Elements that are reduced to one.
    axes : tuple of int
        The axes that are reduced.
    q : array
    weak : bool
        Whether `q` was a number of Python's.
    method : str
    """

    dtype: np.dtype[Any]
    n: int
    axes: tuple[int, ...]
    q: Array
    weak: bool
    method: str

    @property
    def ranks(self) -> tuple[int, ...]:
        """Return the order statistics that the quantiles are made of, ascending, counted from 0."""
        places = ranks.positions(self.n, self.q, self.method)
        return tuple(np.unique([places.previous, places.following]).tolist())

    def kept(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return what is left of a shape when the axes are reduced."""
        return tuple(length for axis, length in enumerate(shape) if axis not in self.axes)

    def of_whole(self, x: Array) -> Any:
        """Return the quantiles of an array by sorting."""
        with np.errstate(invalid="ignore", over="ignore"):
            q = self.q.item() if self.weak else self.q
            found = np.quantile(x, q, axis=self.axes, method=self.method)  # type: ignore[call-overload]
            return found + 0  # partitions leave 0 and -0 in any order

    def result(self, kept: tuple[int, ...], found: Array) -> Any:
        """Return the quantiles from order statistics, (columns, ranks)."""
        places = ranks.positions(self.n, self.q, self.method)
        known = np.array(self.ranks)

        def at(place: Array) -> Array:
            return found[:, np.searchsorted(known, place.reshape(-1))].T.reshape((*place.shape, *kept))

        return ranks.interpolated(at(places.previous), at(places.following), places.share, weak=self.weak)[()]

    def result_dtype(self) -> np.dtype[Any]:
        """Return the dtype of exact quantiles."""
        dtype: np.dtype[Any] = self.result((), np.zeros((1, len(self.ranks)), self.dtype)).dtype
        return dtype

    def search(self, kept: tuple[int, ...], bits: tuple[int, int]) -> radix.Search:
        """Return the beginning of a search for the order statistics."""
        return radix.Search.start(radix.Keys(self.dtype), bits, self.n, self.ranks, kept)


def _exact(wanted: Wanted, x: Array) -> Any:
    columns = x.size // wanted.n
    if wanted.n < SMALL or columns > COLUMNS:
        return wanted.of_whole(x)
    bits = radix.digit_bits(x.dtype.itemsize * 8, columns, len(wanted.ranks))
    search = wanted.search(wanted.kept(x.shape), bits)
    table = radix.by_columns(x, wanted.axes)
    while not search.done:
        search = radix.advanced(search.part(table))
    return wanted.result(search.kept, search.values)


def sketches(wanted: Wanted, x: Array, error: float) -> list[QuantileSketch]:
    """Return a sketch of each column."""
    return [QuantileSketch(error).update(column) for column in radix.by_columns(x, wanted.axes).T]


def sketched_values(columns: list[QuantileSketch], wanted: Wanted) -> Array:
    """Return the order statistics as sketches know them, (columns, ranks) float64."""
    return np.array([sketch.order_statistics(wanted.ranks) for sketch in columns])
