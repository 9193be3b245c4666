"""Sums over rows that do not depend on their order: values as multiples of a power of two, added as int64.

With n rows and all magnitudes below 2**e, a value is rounded to a multiple of 2**(e - b), where b is such that the sum
of n of them is below 2**62. Adding is then exact in any order, and the error of a mean is at most half such a multiple:
2**-b times the largest magnitude. This is the simplest of the reproducible sums of Demmel and Nguyen ("Parallel
reproducible summation", IEEE Trans. Computers 64, 2015); knowing the largest value costs a pass over the data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..stats.estimator import DataError

Array = NDArray[Any]

MOST_BITS = 51  # what the kernels' rounding can do
LEAST_EXPONENT = -900  # the powers of two shall be normal numbers; smaller values are rounded coarsely


def bits_for(n: int) -> int:
    """Return b: n numbers of up to 2**b in magnitude add up to 2**62 at most."""
    return min(MOST_BITS, 62 - (n - 1).bit_length())


def exponent(bound: float) -> int:
    """Return e with bound < 2**e."""
    return max(math.frexp(bound)[1], LEAST_EXPONENT)


@dataclass(frozen=True)
class Fixed:
    """How values below 2**exponent in magnitude become whole numbers of up to 2**bits."""

    exponent: int
    bits: int

    @property
    def scale(self) -> float:
        """What values are multiplied with."""
        return math.ldexp(1.0, self.bits - self.exponent)

    @property
    def fine(self) -> float:
        """What the rest of a value is multiplied with, for a second number."""
        return math.ldexp(1.0, self.bits)

    def whole(self, totals: Array) -> int:
        """Return the sum of two numbers per value as one whole number."""
        return (int(totals[0]) << self.bits) + int(totals[1])

    def split(self, total: int) -> tuple[int, int]:
        """Return the two numbers of a whole one, the second not negative."""
        return total >> self.bits, total & ((1 << self.bits) - 1)

    def value(self, total: int) -> float:
        """Return what a whole number stands for, rounded once."""
        return math.ldexp(total / (1 << 2 * self.bits), self.exponent)


@dataclass(frozen=True)
class Scales:
    """The powers of two of a data set, for its values, weights and distances.

    Attributes
    ----------
    values : (d + 1,) float64
        For each feature times a weight, and for the weights.
    distances : Fixed
        For squared distances times weights.
    """

    values: Array
    distances: Fixed


def scales(extent: Array, centres: Array | None, n: int, heaviest: float) -> Scales:
    """Return the scales for n rows.

    Parameters
    ----------
    extent : (2, d)
        Smallest and largest value of each feature.
    centres : (k, d), optional
        Centres that lie outside of `extent`, perhaps.
    n : int
    heaviest : float
        The largest weight, 1 without weights.

    Raises
    ------
    DataError
        Distances would overflow.
    """
    bits = bits_for(n)
    low, high = extent.astype(np.float64)
    largest = np.maximum(np.abs(low), np.abs(high))
    values = [Fixed(exponent(value * heaviest), bits).scale for value in (*largest.tolist(), 1.0)]
    return Scales(np.array(values), Fixed(exponent(largest_distance(extent, centres, heaviest)), bits))


def largest_distance(extent: Array, centres: Array | None, heaviest: float = 1.0) -> float:
    """Return a bound of the squared distances, as they are computed, between rows and centres, times weights.

    Raises
    ------
    DataError
        They would overflow.
    """
    low, high = extent.astype(np.float64)
    if centres is not None:
        low, high = np.minimum(low, centres.min(0)), np.maximum(high, centres.max(0))
    with np.errstate(over="ignore"):
        squares = np.square(high - low).tolist()
    # centres may lie beyond rows by a rounding, and distances are rounded: by less than these parts
    largest = math.fsum(squares) * (1 + 1e-3) if all(map(math.isfinite, squares)) else math.inf
    if not largest * max(1.0, heaviest) < float(np.finfo(extent.dtype).max):
        raise DataError(
            f"squared distances of up to {largest:.3g} overflow {extent.dtype}; expected smaller values: scale x, or "
            "convert it with .astype('float64')"
        )
    return largest * heaviest


def means(sums: Array, scale: Array, weights: Array) -> Array:
    """Return sums of fixed-point values over weights. sums: (k, d) int64, scale: (d,), weights: (k,) -> (k, d)."""
    return sums.astype(np.float64) / scale / weights[:, None]


def variances(sums: Array, n: int, scale: Array, square_scale: Array) -> list[float]:
    """Return the variance of each feature from the sums of distances to some value and of their squares."""
    found: list[float] = np.maximum(sums[1] / square_scale / n - np.square(sums[0] / scale / n), 0).tolist()
    return found
