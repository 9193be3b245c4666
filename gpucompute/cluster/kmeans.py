"""`KMeans`, with the parameters, methods and attributes of ``sklearn.cluster.KMeans``."""

from __future__ import annotations

import math
import operator
import warnings
from typing import Any

import numpy as np

from ..errors import OptionError, ShapeError
from ..stats.estimator import Estimator, NotFittedError
from . import rows as sources
from . import seeding
from .host import Array
from .lloyd import Data, Found, Pass, iterate

INITS = ("k-means++", "random")


class KMeans(Estimator):
    """K-means clustering by Lloyd's iteration, on NumPy arrays, Dask arrays and stores.

    The interface is that of ``sklearn.cluster.KMeans``, with the ``partial_fit`` of its ``MiniBatchKMeans``.

    Parameters
    ----------
    n_clusters : int
    init : {"k-means++", "random"}, (n_clusters, d) array or callable
        Where the centres start. "k-means++": greedy, each the best of 2 + log(n_clusters) rows; "random": rows drawn
        at random; a callable is called with x, n_clusters and a `numpy.random.Generator`.
    n_init : "auto" or int
        How many starts to try, of which the one with the least inertia is taken. "auto": 1 for "k-means++", 10 for
        "random" and callables. An array is tried once.
    max_iter : int
    tol : float
        The end is reached when the sum of the squared movements of the centres is at most this times the mean of the
        features' variances, or when no row changes its cluster.
    verbose : int
        Whether to print a line for each iteration.
    random_state : int, numpy.random.Generator, numpy.random.RandomState or None
        An int gives the same result each time (another than scikit-learn's, which draws in another way).
    algorithm : {"lloyd"}

    Attributes
    ----------
    cluster_centers_ : (n_clusters, d) array
        float32 for float32 rows, else float64.
    labels_ : (n,) int32 array
        The cluster of each row. For a Dask array or a store a lazy Dask array in the chunks of the rows, which are
        read once more when it is computed.
    inertia_ : float
        The sum of the squared distances of the rows to their centres, times their weights.
    n_iter_ : int
    n_features_in_ : int
    n_steps_ : int
        How many batches `partial_fit` has seen.

    Notes
    -----
    **Same bits.** Centres, labels, inertia and the number of iterations are the same to the bit for any chunks, number
    of threads and of workers, and for a Dask array and the NumPy array that it holds. A squared distance is the sum of
    squared differences in the order of the features, in the dtype of x; of equally near centres the first is taken.
    Sums over rows are made of multiples of a power of two, which int64 adds exactly in any order. For a feature whose
    magnitudes are at most M, a coordinate of a centre of n rows in all is thereby wrong by at most M × 2**-b with
    b = min(51, 62 - log2(n) rounded up), times the largest weight over the mean one of the cluster: by less than
    M × 10**-12 for a million rows. In float32 that is far below the last place of M.

    **Empty clusters** move to the rows that are farthest from their centres, as in scikit-learn.

    **Chunks.** Each iteration takes one task for each chunk, which labels its rows and adds them up, and a small tree
    that joins the sums. k-means++ takes one pass for each centre. Data that fits into the memory of the workers should
    be kept there, ``x = x.persist()``, or each pass reads it anew. Rows of other dtypes than float32 and float64 are
    converted to float64, chunk by chunk; an array in memory is converted whole.

    References
    ----------
    Lloyd, "Least squares quantization in PCM", IEEE Trans. Information Theory 28, 1982. Arthur and Vassilvitskii,
    "k-means++: the advantages of careful seeding", SODA 2007. Sculley, "Web-scale k-means clustering", WWW 2010.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[1, 2], [1, 4], [1, 0], [10, 2], [10, 4], [10, 0]])
    >>> model = KMeans(n_clusters=2, random_state=0).fit(x)
    >>> model.labels_[0] == model.labels_[1], model.labels_[0] == model.labels_[3]
    (np.True_, np.False_)
    >>> sorted(model.cluster_centers_.tolist()), model.inertia_
    ([[1.0, 2.0], [10.0, 2.0]], 16.0)
    >>> model.predict([[0, 0], [12, 3]]) == model.labels_[[0, 3]]
    array([ True,  True])
    """

    _kind = "clusterer"

    def __init__(
        self, n_clusters: int = 8, *, init: Any = "k-means++", n_init: Any = "auto", max_iter: int = 300,
        tol: float = 1e-4, verbose: int = 0, random_state: Any = None, algorithm: str = "lloyd",
    ) -> None:  # fmt: skip
        # kept as given and looked at by fit, as scikit-learn's clone and set_params expect
        self.n_clusters = n_clusters
        self.init = init
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.verbose = verbose
        self.random_state = random_state
        self.algorithm = algorithm

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> KMeans:
        """Find the centres.

        Parameters
        ----------
        X : (n, d) array, Dask array or store
            Real numbers, finite. A store (Zarr, HDF5) is read as `gpucompute.chunked.from_array` does.
        y : ignored
        sample_weight : (n,) array, optional
            How often each row counts; not negative. One of Dask's is computed.

        Returns
        -------
        KMeans
            This object.

        Raises
        ------
        ShapeError
            X is not two-dimensional or has fewer rows than there shall be clusters, or other shapes do not fit.
        DTypeError
            X holds no real numbers, or has a mask or labels, or lies on a GPU, for which there is no kernel yet.
        OptionError
            A parameter of this object has a wrong value.
        DeviceMemoryError
            A task cannot hold a chunk.
        ValueError
            Values are not finite, or so large that distances overflow (`gpucompute.stats.estimator.DataError`).
        """
        x, data, rng = self._begin(X, sample_weight)
        tolerance = data.tolerance(self.tol)
        best: Found | None = None
        for _ in range(self._starts()):
            found = iterate(data, self._initial(x, data, rng), self.max_iter, tolerance, bool(self.verbose))
            if best is None or found.last.inertia < best.last.inertia:
                best, labels = found, data.rows.labels.copy()
        assert best is not None
        weights = best.last.cluster_weights()
        if not weights.all():
            warnings.warn(
                f"KMeans: {np.count_nonzero(weights)} of {len(weights)} clusters have rows; X may have fewer different "
                "rows than n_clusters",
                RuntimeWarning,
                stacklevel=2,
            )
        self.cluster_centers_, self._counts, self.n_iter_ = best.centres, weights, best.n_iter
        self.inertia_, self.n_features_in_ = best.last.inertia, x.shape[1]
        self.labels_ = labels if isinstance(x, np.ndarray) else sources.labels_of(x, best.centres)
        return self

    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> KMeans:
        """Go on with a batch of rows: each centre becomes the mean of all rows that it was ever nearest to.

        The first batch also makes the centres, as `init` says. This is the update of scikit-learn's ``MiniBatchKMeans``
        with ``reassignment_ratio=0``. The bits do not depend on the chunks of a batch; what is in a batch matters.

        Parameters
        ----------
        X, y, sample_weight
            As in `fit`. After it, `labels_` and `inertia_` are those of this batch and the moved centres.
        """
        first = not hasattr(self, "cluster_centers_")
        x, data, rng = self._begin(X, sample_weight, None if first else self.cluster_centers_.dtype)
        centres = self._initial(x, data, rng) if first else self.cluster_centers_
        counts = np.zeros(len(centres)) if first else self._counts
        found = Pass.over(data, centres)
        weights = found.cluster_weights()
        sums = found.sums / found.scales.values[:-1]
        counted, seen = counts + weights, weights > 0
        moved = centres.copy()
        before = centres[seen].astype(np.float64) * counts[seen, None]
        moved[seen] = (before + sums[seen]) / counted[seen, None]
        self.cluster_centers_, self._counts, self.n_features_in_ = moved, counted, x.shape[1]
        self.n_steps_ = getattr(self, "n_steps_", 0) + 1
        self.inertia_ = Pass.over(data, moved).inertia
        self.labels_ = data.rows.labels if isinstance(x, np.ndarray) else sources.labels_of(x, moved)
        return self

    def predict(self, X: Any) -> Any:
        """Return the number of the nearest centre of each row, int32; lazy for a Dask array or a store."""
        x = self._rows(X, "predict")
        sources.check_fits("KMeans.predict", x, self.cluster_centers_.dtype)
        return sources.labels_of(x, self.cluster_centers_)

    def transform(self, X: Any) -> Any:
        """Return the distance of each row to each centre, (n, n_clusters); lazy for a Dask array or a store."""
        x = self._rows(X, "transform")
        sources.check_fits("KMeans.transform", x, self.cluster_centers_.dtype, len(self.cluster_centers_))
        return sources.distances_of(x, self.cluster_centers_)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Return minus the sum of the squared distances of the rows to the nearest centres, times their weights."""
        x = self._rows(X, "score")
        rows = sources.rows_of(x, self.cluster_centers_.dtype, self._weights(sample_weight, x.shape[0]))
        return -Pass.over(Data.of(rows), self.cluster_centers_).inertia

    def fit_predict(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """Return `labels_` after `fit`."""
        return self.fit(X, sample_weight=sample_weight).labels_

    def fit_transform(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """Return what `transform` does, after `fit`."""
        return self.fit(X, sample_weight=sample_weight).transform(X)

    def _begin(
        self, given: Any, sample_weight: Any, dtype: np.dtype[Any] | None = None
    ) -> tuple[Any, Data, np.random.Generator]:
        """Look at the parameters and the rows."""
        self._check()
        x = sources.given(given, "KMeans") if dtype is None else self._rows(given, "partial_fit")
        if dtype is None:
            dtype = np.dtype(np.float32 if x.dtype == np.float32 else np.float64)
            if x.shape[0] < self.n_clusters:
                raise ShapeError(f"KMeans of {x.shape[0]} rows: expected at least n_clusters={self.n_clusters}")
        rows = sources.rows_of(x, dtype, self._weights(sample_weight, x.shape[0]))
        return x, Data.of(rows), _generator(self.random_state)

    def _rows(self, given: Any, name: str) -> Any:
        """Look at rows for centres that are there."""
        if not hasattr(self, "cluster_centers_"):
            raise NotFittedError(f"KMeans.{name} before fit; call fit or partial_fit first")
        x = sources.given(given, f"KMeans.{name}")
        if x.shape[1] != self.n_features_in_:
            raise ShapeError(f"KMeans.{name} of {x.shape[1]} features: it was fitted with {self.n_features_in_}")
        return x

    def _check(self) -> None:
        for name in ("n_clusters", "max_iter"):
            _whole(name, getattr(self, name))
        if self.n_init != "auto":
            _whole("n_init", self.n_init, '"auto" or ')
        if not (isinstance(self.tol, int | float | np.number) and 0 <= self.tol < math.inf):
            raise OptionError(f"KMeans: tol={self.tol!r}; expected a number, 0 or more")
        if self.algorithm != "lloyd":
            raise OptionError(f"KMeans: algorithm={self.algorithm!r}; expected 'lloyd'")
        if isinstance(self.init, str) and self.init not in INITS:
            raise OptionError(f"KMeans: init={self.init!r}; expected one of {INITS}, an array or a callable")

    def _starts(self) -> int:
        if not (isinstance(self.init, str) or callable(self.init)):
            return 1
        if self.n_init != "auto":
            return int(self.n_init)
        return 1 if isinstance(self.init, str) and self.init == "k-means++" else 10

    def _initial(self, x: Any, data: Data, rng: np.random.Generator) -> Array:
        """Return centres to start from."""
        if isinstance(self.init, str):
            if self.init == "random":
                return seeding.random_rows(data.rows, self.n_clusters, rng)
            return seeding.plus_plus(data.rows, self.n_clusters, rng, data.scales())
        found = self.init(x, self.n_clusters, rng) if callable(self.init) else self.init
        centres = np.array(found, data.rows.dtype, order="C")
        if centres.shape != (self.n_clusters, x.shape[1]):
            raise ShapeError(f"KMeans: init of shape {centres.shape}; expected {(self.n_clusters, x.shape[1])}")
        return centres

    def _weights(self, sample_weight: Any, n: int) -> Array | None:
        """Return weights as float64, None without them."""
        if sample_weight is None:
            return None
        weights: Array = np.array(sample_weight, np.float64)
        if weights.shape != (n,):
            raise ShapeError(f"KMeans: sample_weight of shape {weights.shape}; expected {(n,)}")
        if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.any()):
            raise OptionError("KMeans: sample_weight must be finite, not negative and not all 0")
        return weights


def _whole(name: str, value: Any, other: str = "") -> None:
    try:
        found = operator.index(value)
    except TypeError:
        found = 0
    if found < 1:
        raise OptionError(f"KMeans: {name}={value!r}; expected {other}a whole number, 1 or more")


def _generator(random_state: Any) -> np.random.Generator:
    if isinstance(random_state, np.random.RandomState):
        random_state = random_state.randint(2**31 - 1)
    try:
        return np.random.default_rng(random_state)
    except (TypeError, ValueError):
        raise OptionError(
            f"KMeans: random_state={random_state!r}; expected an int, 0 or more, a numpy.random.Generator or None"
        ) from None
