"""`PCA` of tables with many rows, in one pass."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import OptionError, ShapeError
from .covariances import table
from .estimator import DataError, Estimator, NotFittedError
from .scatter import Array, Factor, Kind, Partial, Squares, joined, scatter

KINDS: dict[str, Kind] = {"auto": Squares, "covariance_eigh": Squares, "tsqr": Factor}


class PCA(Estimator):
    """Principal components, with the names and meanings of ``sklearn.decomposition.PCA``.

    Parameters
    ----------
    n_components : int, float or None
        How many; between 0 and 1: as many as explain more than that share of the variance; None: all.
    whiten : bool
        Whether `transform` gives columns of variance 1.
    svd_solver : {"auto", "covariance_eigh", "tsqr"}
        "covariance_eigh", which "auto" means: eigenvectors of the covariance. "tsqr": singular vectors of the rows'
        triangular factor, which keeps components whose variance is below 1e-16 of the largest; slower.

    Attributes
    ----------
    components_ : (k, d) ndarray
        Orthonormal, by falling variance. The largest entry of each is positive.
    explained_variance_, explained_variance_ratio_, singular_values_ : (k,) ndarray
        k is ``n_components_``.
    mean_ : (d,) ndarray
    noise_variance_ : float
        The mean of the variances left out; 0 if there are none.
    n_components_, n_features_in_, n_samples_ : int

    Notes
    -----
    `fit` computes at once: one pass over the chunks of a Dask array or a store, then a d × d problem. `transform` and
    `inverse_transform` of Dask arrays are lazy. Attributes are float32 if `fit` was given float32, and results if they
    were too; all else is float64, as in scikit-learn, and so is what lies between. BLAS and LAPACK do the work: results
    are equal within tolerance for other chunks and machines.

    References
    ----------
    Chan, Golub and LeVeque, 1979; Demmel, Grigori, Hoemmen and Langou, "Communication-optimal parallel and sequential
    QR and LU factorizations", 2012.

    Examples
    --------
    >>> import numpy as np
    >>> import gpucompute as gp
    >>> x = np.array([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0], [3.0, 3.5]])
    >>> found = gp.stats.PCA(1).fit(x)
    >>> found.components_.round(3)
    array([[0.654, 0.757]])
    >>> bool(np.allclose(found.inverse_transform(found.transform(x)), x, atol=0.2))
    True
    """

    def __init__(self, n_components: float | None = None, *, whiten: bool = False, svd_solver: str = "auto") -> None:
        self.n_components = n_components
        self.whiten = whiten
        self.svd_solver = svd_solver

    def fit(self, X: Any, y: Any = None) -> PCA:
        """Find the components of (n, d) rows; `y` is ignored.

        Raises
        ------
        OptionError
            An option is not one of those it can have, or there are not so many components.
        ShapeError
            Fewer than two rows, or not two axes.
        DTypeError
            Numbers that are not real, or wider than 64 bits.
        ValueError
            Values are not finite, or so large that their squares overflow (`gpucompute.stats.estimator.DataError`).
        """
        if self.svd_solver not in KINDS:
            raise OptionError(f"svd_solver={self.svd_solver!r}: expected one of {', '.join(KINDS)}")
        given = table(X, "PCA")
        n, d = given.shape
        if n < 2:
            raise ShapeError(f"PCA of shape {given.shape}: expected two rows or more")
        self._check(min(n, d))
        state: Any = _state(KINDS[self.svd_solver], given)
        variances, vectors = _decomposed(state)
        self._keep(state, variances[: min(n, d)], vectors, np.float32 if given.dtype == np.float32 else np.float64)
        return self

    def _check(self, most: int) -> None:
        wanted: Any = self.n_components
        whole = isinstance(wanted, int | np.integer) and not isinstance(wanted, bool)
        share = isinstance(wanted, float | np.floating)
        if not (wanted is None or (whole and 0 <= wanted <= most) or (share and 0 < wanted < 1)):
            raise OptionError(
                f"n_components={wanted!r}: expected a whole number from 0 to min(n, d) = {most}, a share of the "
                "variance between 0 and 1, or None"
            )

    def _keep(self, state: Any, variances: Array, vectors: Array, dtype: Any) -> None:
        n, total = state.count, variances.sum()
        ratios = variances / total if total > 0 else np.zeros_like(variances)
        count = len(variances) if self.n_components is None else self.n_components
        if isinstance(count, float | np.floating):
            count = min(int(np.searchsorted(np.cumsum(ratios), count, side="right")) + 1, len(variances))
        self.n_components_ = int(count)
        self.n_samples_, self.n_features_in_ = n, len(state.mean)
        kept = slice(0, self.n_components_)
        rest = variances[self.n_components_ :]
        self.mean_ = state.mean.astype(dtype)
        self.components_ = vectors[kept].astype(dtype)
        self.explained_variance_ = variances[kept].astype(dtype)
        self.explained_variance_ratio_ = ratios[kept].astype(dtype)
        self.singular_values_ = np.sqrt(variances[kept] * (n - 1)).astype(dtype)
        self.noise_variance_ = float(rest.mean()) if len(rest) else 0.0

    def transform(self, X: Any) -> Any:
        """Return the (n, ``n_components_``) coordinates of rows along the components; lazy for chunks."""
        given = self._rows(X, "transform", "n_features_in_")
        matrix = self.components_.T / self._scale()
        return _mapped("pca-transform", given, matrix, -(self.mean_ @ matrix))

    def inverse_transform(self, X: Any) -> Any:
        """Return the (n, d) rows with such coordinates; lazy for chunks."""
        given = self._rows(X, "inverse_transform", "n_components_")
        return _mapped("pca-inverse", given, (self.components_.T * self._scale()).T, self.mean_)

    def fit_transform(self, X: Any, y: Any = None) -> Any:
        """Return ``fit(X).transform(X)``."""
        return self.fit(X).transform(X)

    def _scale(self) -> Any:
        """Return what the coordinates are divided by."""
        if not self.whiten:
            return self.components_.dtype.type(1)
        return np.maximum(np.sqrt(self.explained_variance_), np.finfo(self.components_.dtype).eps)

    def _rows(self, X: Any, name: str, columns: str) -> Any:
        if not hasattr(self, columns):
            raise NotFittedError(f"PCA.{name} before fit; call fit first")
        given, expected = table(X, f"PCA.{name}"), getattr(self, columns)
        if given.shape[1] != expected:
            raise ShapeError(f"PCA.{name} of shape {given.shape}: expected {expected} columns")
        return given


def _state(kind: Kind, x: Any) -> Any:
    """Return the state of all rows, computed."""
    if isinstance(x, np.ndarray):
        return scatter(kind, x)
    from . import passes

    partial = passes.partial_states("pca-partial", Partial(kind), x, nbytes=8 * x.shape[1] ** 2)
    return passes.computed(passes.joined("pca", partial, (0, 1), joined))


def _decomposed(state: Any) -> tuple[Array, Array]:
    """Return the variances, falling, and the directions in rows, with the largest entry of each positive."""
    matrix = state.squares if isinstance(state, Squares) else state.factor
    if not np.isfinite(matrix).all():
        raise DataError(
            "PCA: x holds NaN or infinity, or its squares overflow; expected finite values: fill in or leave out such "
            "rows, or scale x first"
        )
    if isinstance(state, Squares):
        values, columns = np.linalg.eigh(matrix / (state.count - 1))
        variances, vectors = np.maximum(values[::-1], 0), columns.T[::-1]
    else:
        _, singular, vectors = np.linalg.svd(matrix, full_matrices=False)
        variances = singular**2 / (state.count - 1)
    largest = np.take_along_axis(vectors, np.abs(vectors).argmax(axis=1)[:, None], axis=1)
    return variances, vectors * np.where(largest < 0, -1.0, 1.0)


def _mapped(name: str, x: Any, matrix: Array, offset: Array) -> Any:
    """Return ``x @ matrix + offset``, in chunks if `x` is."""
    dtype = np.dtype(np.float32 if x.dtype == matrix.dtype == np.float32 else np.float64)
    matrix = matrix.astype(dtype, copy=False)
    if isinstance(x, np.ndarray):
        return _affine(x, matrix, offset)
    from dask.base import tokenize

    from ..chunked import budget

    chunks = (x.chunks[0], (matrix.shape[1],))
    budget.check(name, budget.limit(x._meta), [(x.chunks, x.dtype)], [(chunks, dtype)], [])
    return x.map_blocks(
        _affine,
        matrix,
        offset,
        dtype=dtype,
        chunks=chunks,
        meta=np.empty((0, 0), dtype),
        name=f"{name}-{tokenize(x.name, matrix, offset)}",
    )


def _affine(x: Array, matrix: Array, offset: Array) -> Array:
    result: Array = x @ matrix
    result += offset
    return result
