"""Statistics that read their data once, or as often as they must: of arrays, of chunks, of stores.

What is given as a NumPy array is computed at once; a Dask array gives Dask arrays, and so does a store that has chunks
(a Zarr array, an HDF5 data set). Nothing of Dask is imported before it is needed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .covariances import covariance as covariance
    from .histograms import histogram as histogram
    from .moments import DescribeResult as DescribeResult
    from .moments import describe as describe
    from .principal import PCA as PCA
    from .quantiles import quantile as quantile
    from .sketch import QuantileSketch as QuantileSketch

_HOMES = {
    "DescribeResult": "moments",
    "PCA": "principal",
    "QuantileSketch": "sketch",
    "covariance": "covariances",
    "describe": "moments",
    "histogram": "histograms",
    "quantile": "quantiles",
}
__all__ = sorted(_HOMES)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name)
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
