"""`QuantileSketch`: quantiles in one pass, within a relative error, mergeable in any order."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, log2
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DTypeError, OptionError
from . import radix, ranks
from .sources import chunked, host_array, is_chunked

Array = NDArray[Any]

KEYS = radix.Keys(np.dtype(np.float64))
FRACTION = 52  # bits of a float64 after its sign and exponent


class QuantileSketch:
    """Counts of numbers in buckets whose width is a fixed share of their values.

    Parameters
    ----------
    error : float
        How far an order statistic may be off, relative to itself: above 0, below 1. Values nearer to 0 than 2.2e-308
        count as 0.

    Attributes
    ----------
    error : float
    count : int
        How many numbers were taken in, NaNs included.
    minimum, maximum : float
        Exact; NaN before anything was taken in.

    Notes
    -----
    A bucket holds the numbers whose sign, exponent and first bits of the fraction agree, as many bits as the error
    needs: 512 buckets for each power of two at 0.001. Which bucket a number belongs to is thus a matter of its bits
    alone, without logarithms, and merging adds whole numbers. So a sketch is the same, bit for bit, for any order,
    chunks, threads and machine. It takes 16 bytes for each bucket that is not empty; nothing is ever dropped.

    References
    ----------
    Masson, Rim and Lee, "DDSketch: a fast and fully-mergeable quantile sketch with relative-error guarantees", PVLDB 12
    (12), 2019; the buckets are those of its "linearly interpolated" mapping, with as many for each power of two as a
    power of two says.

    Examples
    --------
    >>> import numpy as np
    >>> one, other = QuantileSketch(0.01), QuantileSketch(0.01)
    >>> one.update(np.arange(1, 501)).merge(other.update(np.arange(501, 1001))).count
    1000
    >>> bool(abs(one.quantile(0.9) / 900 - 1) < 0.01)
    True
    """

    def __init__(self, error: float = 0.001) -> None:
        if not 0 < error < 1:
            raise OptionError(f"error={error!r}: expected a number above 0 and below 1")
        self.error = error
        self._shift = FRACTION - min(FRACTION, max(0, ceil(-log2(error)) - 1))
        self._buckets: Array = np.empty(0, np.int64)  # ascending
        self._counts: Array = np.empty(0, np.int64)
        self._nans = 0
        self._extent = (np.inf, -np.inf)

    @property
    def count(self) -> int:
        """How many numbers were taken in, NaNs included."""
        return int(self._counts.sum())

    @property
    def minimum(self) -> float:
        """The smallest number."""
        return self._extent[0] if len(self._buckets) and not self._nans else np.nan

    @property
    def maximum(self) -> float:
        """The largest number."""
        return self._extent[1] if len(self._buckets) and not self._nans else np.nan

    def __repr__(self) -> str:
        return f"<QuantileSketch error={self.error} count={self.count} buckets={len(self._buckets)}>"

    def update(self, x: Any) -> QuantileSketch:
        """Take in all elements of `x`; chunks are read at once, each in a task.

        Parameters
        ----------
        x : array of integers or floats
            NumPy's or Dask's, or a store with chunks. Integers beyond 2**53 are rounded.

        Returns
        -------
        QuantileSketch
            This one.
        """
        if is_chunked(x):
            from . import chunked_quantiles

            return self.merge(chunked_quantiles.sketch(chunked(x, "QuantileSketch.update"), self.error))
        given = host_array(x, "QuantileSketch.update")
        if given.dtype.kind not in "iuf" or given.dtype.itemsize > 8:
            raise DTypeError(f"QuantileSketch of {given.dtype}: expected integers or floats of up to 64 bits")
        flat, bits = given.ravel(order="K"), 64 - self._shift
        if not len(flat):
            return self
        buckets, counts, nan = radix.count_prefixes(flat, KEYS, bits)
        self._add(buckets, counts)
        self._nans += nan
        if not nan:
            self._extend(float(flat.min()), float(flat.max()))
        return self

    def _extend(self, least: float, most: float) -> None:
        self._extent = min(self._extent[0], least + 0.0), max(self._extent[1], most + 0.0)  # -0 is 0

    def _add(self, buckets: Array, counts: Array) -> None:
        """Take in counts of buckets."""
        together = np.concatenate([self._buckets, buckets])
        self._buckets, places = np.unique(together, return_inverse=True)
        total = np.zeros(len(self._buckets), np.int64)
        np.add.at(total, places, np.concatenate([self._counts, counts]))
        self._counts = total

    def empty(self) -> QuantileSketch:
        """Return a sketch of nothing, with the same error."""
        return QuantileSketch(self.error)

    def merge(self, other: QuantileSketch) -> QuantileSketch:
        """Take in what `other` has taken in, as if its numbers had been given to `update`.

        Raises
        ------
        OptionError
            Its error is another.
        """
        if other._shift != self._shift:
            raise OptionError(f"merge of sketches with error={self.error} and error={other.error}: expected the same")
        self._add(other._buckets, other._counts)
        self._nans += other._nans
        self._extend(*other._extent)
        return self

    def quantile(self, q: Any, *, method: str = "linear") -> Any:
        """Return quantiles, float64 of the shape of `q`.

        Each of the order statistics that a quantile is made of is within the error; see `gpucompute.stats.quantile`
        for `method`. NaN if a NaN was taken in, or nothing.

        Raises
        ------
        OptionError
            `q` is not in [0, 1], or there is no such method.
        """
        wanted = ranks.checked(q, method)
        places = ranks.positions(max(self.count, 1), wanted, method)
        previous, following = (
            self.order_statistics(place.reshape(-1)).reshape(place.shape)
            for place in (places.previous, places.following)
        )
        return ranks.interpolated(previous, following, places.share, weak=False)[()]

    def order_statistics(self, places: Sequence[int] | Array) -> Array:
        """Return the values at places among the ordered numbers, counted from 0; the first and the last are exact."""
        wanted = np.asarray(places, np.int64)
        if self._nans or not len(self._buckets):
            return np.full(wanted.shape, np.nan)
        sums = np.cumsum(self._counts)
        values = self._values(self._buckets[np.searchsorted(sums, wanted, side="right")])
        return np.where(wanted == 0, self._extent[0], np.where(wanted == sums[-1] - 1, self._extent[1], values))

    def _values(self, buckets: Array) -> Array:
        """Return the middle of each bucket, and 0 and the infinities themselves."""
        half = (1 << self._shift) >> 1
        middle = KEYS.values((buckets << self._shift) + half)
        infinite = KEYS.keys(np.array([np.inf, -np.inf])) >> self._shift
        middle = np.where(buckets == infinite[0], np.inf, np.where(buckets == infinite[1], -np.inf, middle))
        return np.clip(np.where(np.abs(middle) < np.finfo(np.float64).tiny, 0.0, middle), *self._extent)
