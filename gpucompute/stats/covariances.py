"""`covariance` of the columns of a table, in one pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import DTypeError, ShapeError
from .scatter import Array, Partial, Squares, joined, scatter
from .sources import chunked, host_array, is_chunked


def covariance(x: Any, *, ddof: int = 1) -> Any:
    """Return the covariance of the columns, as ``numpy.cov(x, rowvar=False, ddof=ddof)`` does.

    Parameters
    ----------
    x : (n, d) array of integers, booleans or floats
        NumPy's or Dask's, or a store with chunks; an observation in each row. Chunks are read once; columns that are
        cut come together first.
    ddof : int
        Sums of products are divided by ``n - ddof``; NaN if that is not above 0.

    Returns
    -------
    (d, d) ndarray or dask.array.Array
        float64; lazy for chunks. One column gives (1, 1).

    Raises
    ------
    ShapeError
        Not two axes, or no rows.
    DTypeError
        Numbers that are not real, or wider than 64 bits.

    Notes
    -----
    Each chunk gives its mean and the products of the distances from it, and these are joined (Chan, Golub and LeVeque,
    1979), so large means cost no digits. A task holds its chunk, 1 MiB for each thread, and up to 17 matrices of d × d.

    The products are BLAS's, whose roundings differ by machine and number of threads: results are equal within
    tolerance, not to the bit.

    Examples
    --------
    >>> import dask.array as da
    >>> import numpy as np
    >>> import gpucompute as gp
    >>> x = np.array([[0.0, 2.0], [1.0, 1.0], [2.0, 0.0]])
    >>> gp.stats.covariance(x)
    array([[ 1., -1.],
           [-1.,  1.]])
    >>> gp.stats.covariance(da.from_array(x, chunks=(2, 2)), ddof=0)
    dask.array<covariance, shape=(2, 2), dtype=float64, chunksize=(2, 2), chunktype=numpy.ndarray>
    """
    given = table(x, "covariance")
    finish = Divide(ddof)
    if isinstance(given, np.ndarray):
        return finish(scatter(Squares, given))
    from . import passes

    d = given.shape[1]
    partial = passes.partial_states("covariance-partial", Partial(Squares), given, nbytes=8 * d * d)
    return passes.array_of(passes.joined("covariance", partial, (0, 1), joined, finish, front=2), (d, d), np.float64)


@dataclass(frozen=True)
class Divide:
    """What makes a covariance of the sums of products."""

    ddof: int

    def __call__(self, state: Squares) -> Array:
        over = state.count - self.ddof
        return state.squares / over if over > 0 else np.full_like(state.squares, np.nan)


def table(x: Any, name: str) -> Any:
    """Return an (n, d) NumPy or Dask array of real numbers, the latter in chunks of whole rows.

    Raises
    ------
    ShapeError
        Not two axes, or one of them is empty.
    DTypeError
        Other numbers.
    """
    given = chunked(x, name) if is_chunked(x) else host_array(x, name)
    if given.ndim != 2 or 0 in given.shape:
        raise ShapeError(f"{name} of shape {given.shape}: expected (observations, variables), one at least of each")
    if given.dtype.kind not in "biuf" or given.dtype.itemsize > 8:
        raise DTypeError(f"{name} of {given.dtype}: expected integers, booleans or floats of up to 64 bits")
    if not isinstance(given, np.ndarray) and given.numblocks[1] > 1:
        given = given.rechunk({1: -1})
    return given
