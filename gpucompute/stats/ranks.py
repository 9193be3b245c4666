"""Which order statistics make a quantile, and how: the 13 methods of ``numpy.quantile``.

Hyndman and Fan, "Sample quantiles in statistical packages", The American Statistician 50 (4), 1996.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import OptionError

Array = NDArray[Any]


class Positions(NamedTuple):
    """A quantile lies between two order statistics, counted from 0, at a share of the way; None: it is the first."""

    previous: Array
    following: Array
    share: Array | None


# Which place among n ordered values, counted from 0, is at q? These are whole numbers ...
DISCRETE: dict[str, Callable[[int, Array], Array]] = {
    "inverted_cdf": lambda n, q: _up_unless(n * q - 1, lambda rest, place: rest == 0),
    "closest_observation": lambda n, q: _up_unless(
        n * q - 1.5, lambda rest, place: (rest == 0) & (np.floor(place) % 2 == 1)
    ),
    "lower": lambda n, q: np.floor((n - 1) * q),
    "higher": lambda n, q: np.ceil((n - 1) * q),
    "nearest": lambda n, q: np.around((n - 1) * q),
}
# ... and these lie between two.
CONTINUOUS: dict[str, Callable[[int, Array], Array]] = {
    "averaged_inverted_cdf": lambda n, q: n * q - 1,
    "interpolated_inverted_cdf": lambda n, q: _place(n, q, 0, 1),
    "hazen": lambda n, q: _place(n, q, 0.5, 0.5),
    "weibull": lambda n, q: _place(n, q, 0, 0),
    "linear": lambda n, q: (n - 1) * q,
    "median_unbiased": lambda n, q: _place(n, q, 1 / 3.0, 1 / 3.0),
    "normal_unbiased": lambda n, q: _place(n, q, 3 / 8.0, 3 / 8.0),
    "midpoint": lambda n, q: 0.5 * (np.floor((n - 1) * q) + np.ceil((n - 1) * q)),
}
# Methods that take only some shares of the way.
SHARES: dict[str, Callable[[Array, Array], Array]] = {
    "averaged_inverted_cdf": lambda share, place: np.where(share == 0, 0.5, 1.0),
    "midpoint": lambda share, place: np.where(place % 1 == 0, 0.0, 0.5),
}


def _place(n: int, q: Array, alpha: float, beta: float) -> Array:
    return n * q + (alpha + q * (1 - alpha - beta)) - 1


def _up_unless(place: Array, stays: Callable[[Array, Array], Array]) -> Array:
    below = np.floor(place)
    return np.maximum(np.where(stays(place - below, place), below, below + 1), 0)


def checked(q: Any, method: str) -> Array:
    """Return `q` as an array.

    Raises
    ------
    OptionError
        A quantile is not in [0, 1], `q` has more than two axes, or there is no such method.
    """
    if method not in DISCRETE and method not in CONTINUOUS:
        raise OptionError(f"method={method!r}: expected one of {', '.join([*DISCRETE, *CONTINUOUS])}")
    values = np.asarray(q)
    if values.ndim > 2 or values.dtype.kind not in "iuf" or not np.all((values >= 0) & (values <= 1)):
        raise OptionError(f"q={q!r}: expected numbers in [0, 1], in an array of at most two axes")
    return values


def positions(n: int, q: Array, method: str) -> Positions:
    """Return which of `n` ordered values the quantiles `q` are made of."""
    if method in DISCRETE or (method == "linear" and q.dtype.kind != "f"):
        place = DISCRETE[method](n, q) if method in DISCRETE else (n - 1) * q
        whole = np.asarray(place).astype(np.int64)
        return Positions(whole, whole, None)
    place = np.asarray(CONTINUOUS[method](n, q))
    below = np.floor(place)
    # NumPy takes the share from where the last value is written as -1; there both values are the same
    share = np.asarray(SHARES[method](place - below, place) if method in SHARES else place - below, place.dtype)
    last = place >= n - 1
    previous = np.where(last, n - 1, np.maximum(below, 0)).astype(np.int64)
    following = np.where(last, n - 1, np.where(place < 0, 0, below + 1)).astype(np.int64)
    return Positions(previous, following, share)


def interpolated(previous: Array, following: Array, share: Array | None, *, weak: bool) -> Any:
    """Return the quantiles, with NumPy's roundings, and 0 for -0.

    Parameters
    ----------
    previous, following : array
        The order statistics, of shape (quantiles..., columns...).
    share : array or None
        Of shape (quantiles...).
    weak : bool
        Whether q was a number of Python's, which leaves float32 what it is.
    """
    if share is None:
        return previous + 0
    t: Any = float(share) if weak else share.reshape(share.shape + (1,) * (previous.ndim - share.ndim))
    with np.errstate(invalid="ignore", over="ignore"):
        distance = following - previous
        return np.where(np.asarray(t) >= 0.5, following - distance * (1 - t), previous + distance * t) + 0
