"""Statistics of 1e7 numbers, as an array and in 16 chunks, against NumPy, scikit-learn and dask.array."""

from harness import OURS, PEER, Case, WrongResult, options, run, size  # isort: split

from collections.abc import Callable
from typing import Any

import dask
import dask.array as da
import numpy as np

import gpucompute as gp

dask.config.set(scheduler="threads", num_workers=options.threads)
random = np.random.default_rng(0)
COUNT = size(10_000_000)
COLUMNS = 20


def add(case: Case, name: str, group: str, function: Callable[[], Any]) -> None:
    """Add a contender; what it returns is computed."""
    case.add(name, group)(lambda: lambda: dask.compute(function())[0])


def equal(reference: Any) -> Callable[[Any], float]:
    """Return a check for the largest difference, relative to the largest value."""
    wanted = np.asarray(reference, float)

    def check(result: Any) -> float:
        found = np.asarray(result, float)
        if found.shape != wanted.shape:
            raise WrongResult(f"shape {found.shape}, expected {wanted.shape}")
        return float(np.abs(found - wanted).max() / np.abs(wanted).max())

    return check


def chunked(array: np.ndarray[Any, Any]) -> da.Array:
    """Return an array in 16 chunks along its first axis."""
    return da.from_array(array, chunks=(-(-len(array) // 16), *array.shape[1:]))


def histograms(title: str, x: np.ndarray[Any, Any], limits: tuple[float, float]) -> Case:
    """Return a case of 100 bins."""
    lazy = chunked(x)
    case = Case(f"histogram of {title}, 100 bins", equal(np.histogram(x, 100, limits)[0]), 0)
    add(case, "gpucompute", OURS, lambda: gp.stats.histogram(x, 100, limits)[0])
    add(case, "gpucompute, chunks", OURS, lambda: gp.stats.histogram(lazy, 100, limits)[0])
    add(case, "NumPy", PEER, lambda: np.histogram(x, 100, limits)[0])
    add(case, "dask.array", PEER, lambda: da.histogram(lazy, 100, limits)[0])
    case.target("gpucompute", ("NumPy", "dask.array"))
    return case


def medians(title: str, x: np.ndarray[Any, Any], tolerance: float = 0.01) -> Case:
    """Return a case of quantiles; only those of exact contenders are NumPy's to the bit."""
    lazy, q = chunked(x), [0.1, 0.5, 0.9]
    case = Case(f"three quantiles of {title}", equal(np.quantile(x, q)), tolerance)
    add(case, "gpucompute", OURS, lambda: gp.stats.quantile(x, q))
    add(case, "gpucompute, chunks", OURS, lambda: gp.stats.quantile(lazy, q))
    add(case, "gpucompute, sketch of chunks", OURS, lambda: gp.stats.quantile(lazy, q, exact=False))
    add(case, "NumPy", PEER, lambda: np.quantile(x, q))
    add(case, "dask.array.percentile, approximate", PEER, lambda: da.percentile(lazy, [10, 50, 90]))
    case.target("gpucompute", ("NumPy", "dask.array"))
    return case


def covariances(x: np.ndarray[Any, Any]) -> Case:
    """Return a case of a tall table."""
    lazy = chunked(x)
    case = Case(f"covariance of {COLUMNS} columns, float64", equal(np.cov(x, rowvar=False)), 1e-9)
    add(case, "gpucompute", OURS, lambda: gp.stats.covariance(x))
    add(case, "gpucompute, chunks", OURS, lambda: gp.stats.covariance(lazy))
    add(case, "NumPy", PEER, lambda: np.cov(x, rowvar=False))
    add(case, "dask.array", PEER, lambda: da.cov(lazy, rowvar=False))
    case.target("gpucompute", ("NumPy", "dask.array"))
    return case


def components(x: np.ndarray[Any, Any]) -> Case:
    """Return a case of five components."""
    lazy = chunked(x)
    variances = np.linalg.eigvalsh(np.cov(x, rowvar=False))[:-6:-1]
    case = Case(f"five principal components of {COLUMNS} columns, float64", equal(variances), 1e-9)
    add(case, "gpucompute", OURS, lambda: gp.stats.PCA(5).fit(x).explained_variance_)
    add(case, "gpucompute, chunks", OURS, lambda: gp.stats.PCA(5).fit(lazy).explained_variance_)
    add(
        case, "gpucompute, chunks, tsqr", OURS, lambda: gp.stats.PCA(5, svd_solver="tsqr").fit(lazy).explained_variance_
    )

    @case.add("scikit-learn", PEER, needs="sklearn.decomposition")
    def _(decomposition):
        return lambda: decomposition.PCA(5, svd_solver="covariance_eigh").fit(x).explained_variance_

    case.target("gpucompute", "scikit-learn")
    return case


if __name__ == "__main__":
    singles = random.standard_normal(COUNT, np.float32)
    doubles = random.standard_normal(COUNT)
    integers = random.integers(0, 256, COUNT, np.uint8)
    table = doubles.reshape(-1, COLUMNS) * np.geomspace(1, 9, COLUMNS) + 5
    run(
        histograms("float32", singles, (-4, 4)),
        histograms("uint8", integers, (0, 256)),
        medians("float32", singles),
        medians("float64", doubles),
        medians("uint8", integers),
        covariances(table),
        components(table),
    )
