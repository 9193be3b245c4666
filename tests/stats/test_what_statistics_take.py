"""What all statistics refuse: masks, labels, and chunks that no task can hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import xarray

import gpucompute as gp
from gpucompute.chunked import budget
from gpucompute.cluster import KMeans
from gpucompute.stats import PCA, QuantileSketch, covariance, describe, histogram, quantile

x = np.random.default_rng(0).normal(size=(400, 4)).astype(np.float32)
KMEANS, COMPONENTS = KMeans(2, random_state=0).fit(x), PCA(2).fit(x)
CALLS: dict[str, Callable[[Any], Any]] = {
    "covariance": covariance,
    "describe": describe,
    "histogram": histogram,
    "quantile": lambda x: quantile(x, 0.5),
    "QuantileSketch.update": QuantileSketch().update,
    "PCA": PCA().fit,
    "PCA.transform": COMPONENTS.transform,
    "KMeans": KMeans(2).fit,
    "KMeans.predict": KMEANS.predict,
    "KMeans.partial_fit": KMeans(2).fit(x).partial_fit,
}


@pytest.mark.parametrize("name", CALLS)
def test_masks_and_labels_are_not_lost(name: str) -> None:
    masked = np.ma.masked_greater(x, 1)
    for given in (masked, da.from_array(masked, chunks=(100, 4))):
        with pytest.raises(gp.DTypeError, match=rf"^{name} of a masked array: its mask would not be seen; fill it"):
            CALLS[name](given)
    CALLS[name](da.ma.filled(da.from_array(masked, chunks=(100, 4)), 0))
    labelled = xarray.DataArray(da.from_array(x, chunks=(100, 4)))
    for given in (labelled, xarray.DataArray(x)):
        with pytest.raises(gp.DTypeError, match=rf"^{name} of a DataArray: .*; pass x\.data of xarray"):
            CALLS[name](given)
    CALLS[name](labelled.data)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("quantile", lambda x: quantile(x, 0.5, axis=0)),
        ("quantile-count", lambda x: quantile(x.rechunk((50_000, 4)), 0.5, axis=0)),
        ("KMeans", KMeans(1, max_iter=1).fit),
        ("KMeans.predict", KMEANS.predict),
        ("KMeans.transform", KMEANS.transform),
        ("pca-transform", COMPONENTS.transform),
        ("pca-inverse", lambda x: COMPONENTS.inverse_transform(x.rechunk((-1, 2))[:, :2])),
    ],
)
def test_chunks_that_do_not_fit_are_refused_at_once(
    monkeypatch: pytest.MonkeyPatch, name: str, call: Callable[[Any], Any]
) -> None:
    chunks = da.ones((100_000, 4), chunks=(-1, 4), dtype=np.float32)  # 1.6 MB
    with dask.config.set(scheduler="sync"):
        monkeypatch.setattr(budget, "memory_available", lambda: 160 << 20)
        call(chunks)
        monkeypatch.setattr(budget, "memory_available", lambda: 8 << 20)
        with pytest.raises(gp.DeviceMemoryError, match=rf"^{name}: a task reads .* use smaller chunks"):
            call(chunks)


def test_copies_in_another_dtype_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "memory_available", lambda: 80 << 20)  # an eighth of it for chunks
    chunks = da.ones((100_000, 8), chunks=(-1, 8), dtype=np.uint8)
    with dask.config.set(scheduler="sync"):
        covariance(chunks)
        with pytest.raises(gp.DeviceMemoryError, match=r"KMeans: a task reads 781.25 kiB and makes 6.87 MiB"):
            KMeans(1).fit(chunks)
        assert KMeans(1).fit(chunks.persist()).labels_.shape == (100_000,)  # no tasks
