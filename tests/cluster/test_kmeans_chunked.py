"""`KMeans` over chunks: the bits of the array in memory, lazy results, tasks, stores, processes."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("dask.array", reason="the extra 'dask' is not installed")

import dask
import dask.array as da
from dask.array.optimization import optimize
from dask.callbacks import Callback
from dask.task_spec import Task

import gpucompute as gp
from gpucompute.cluster import KMeans

CHUNKS = ((1024, -1), (333, 2), ((1, 2500, 499), -1))


@pytest.fixture(name="threads", params=[1, 2])
def threads_fixture(request: pytest.FixtureRequest) -> Iterator[int]:
    before = gp.get_threads()
    yield request.param
    gp.set_threads(before)


def rows(dtype: str = "float32", d: int = 3) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).normal(5, 1, (3000, d)).astype(dtype)


def digest(model: KMeans) -> str:
    labels = np.ascontiguousarray(model.labels_)
    assert labels.dtype == np.int32
    found = hashlib.sha256(model.cluster_centers_.tobytes() + labels.tobytes())
    found.update(f"{model.inertia_!r} {model.n_iter_}".encode())
    return found.hexdigest()


@pytest.mark.parametrize(
    ("dtype", "init", "weighted"),
    [
        ("float32", "k-means++", False),
        ("float32", "array", True),
        ("float64", "k-means++", True),
        ("float64", "random", False),
    ],
)
def test_chunks_and_threads_do_not_change_bits(dtype: str, init: str, weighted: bool, threads: int) -> None:
    x = rows(dtype, 20 if init == "array" else 3)
    weights = np.random.default_rng(1).uniform(0, 3, 3000) if weighted else None
    start = x[:6] if init == "array" else init
    options: dict[str, Any] = {"init": start, "n_init": 2, "random_state": 3, "max_iter": 4}
    gp.set_threads(1)
    found = {digest(KMeans(6, **options).fit(x, sample_weight=weights))}
    gp.set_threads(threads)
    found.add(digest(KMeans(6, **options).fit(x, sample_weight=weights)))
    for chunks in CHUNKS:
        chunked = da.from_array(x, chunks=chunks)
        found.add(digest(KMeans(6, **options).fit(chunked, sample_weight=weights)))
        found.add(digest(KMeans(6, **options).fit(chunked + 0, sample_weight=weights)))
    assert len(found) == 1


def test_labels_are_lazy_and_follow_the_chunks() -> None:
    x = da.from_array(rows(), chunks=(1000, 2))
    model = KMeans(4, random_state=0).fit(x)
    plain = KMeans(4, random_state=0).fit(rows())
    for lazy, expected in [
        (model.labels_, plain.labels_),
        (model.predict(x), plain.predict(rows())),
        (model.transform(x), plain.transform(rows())),
        (KMeans(4, random_state=0).fit_transform(x), plain.transform(rows())),
    ]:
        assert isinstance(lazy, da.Array)
        assert lazy.chunks == ((1000, 1000, 1000), (4,))[: lazy.ndim]
        assert (lazy.dtype, lazy._meta.ndim) == (expected.dtype, expected.ndim)
        da.utils.assert_eq(lazy, expected)
    assert model.predict(x).name == model.labels_.name
    assert model.score(x) == plain.score(rows()) == -plain.inertia_


def test_integers_in_chunks() -> None:
    x = np.random.default_rng(2).integers(0, 256, (500, 3)).astype(np.uint8)
    model = KMeans(5, random_state=0).fit(da.from_array(x, chunks=(77, 3)))
    assert digest(model) == digest(KMeans(5, random_state=0).fit(x))
    assert model.transform(da.from_array(x, chunks=(77, 3))).dtype == model.cluster_centers_.dtype == np.float64


def test_one_task_for_each_chunk_and_pass() -> None:
    counts: Counter[str] = Counter()

    class Count(Callback):  # type: ignore[misc]
        def _pretask(self, key: Any, dsk: Any, state: Any) -> None:
            counts[dask.utils.key_split(key)] += 1

    asked = 0

    def counting(*arguments: Any, **options: Any) -> Any:
        nonlocal asked
        asked += 1
        return dask.get(*arguments, **options)

    x = da.from_array(rows(), chunks=(300, -1)) + 0
    with Count():
        model = KMeans(5, init=rows()[:5], max_iter=3, tol=0).fit(x)
    assert model.n_iter_ == 3
    assert counts["kmeans-assign"] == 10 * 4  # a pass for each iteration, and one with the last centres
    assert counts["kmeans-assign-join"] == 3 * 4  # ten results, eight at a time
    assert counts["kmeans-extent"] == 10
    assert "kmeans-moments" not in counts  # nothing asks for the variance
    assert "kmeans-predict" not in counts
    counts.clear()
    with Count():
        model = KMeans(2, init=rows()[:2], tol=0).fit(x)
    assert counts["kmeans-assign"] == 10 * model.n_iter_  # none more: the last centres stayed
    counts.clear()
    with Count():
        KMeans(4, max_iter=1, tol=0, random_state=0).fit(x)
    assert counts["kmeans-choose"] == 10 * 4
    assert counts["kmeans-locate"] <= 3 * 3  # three trials, each in one chunk
    counts.clear()
    here = x.persist(scheduler="sync")
    with Count():
        model = KMeans(4, max_iter=1, random_state=0).fit(here)
    assert not counts  # chunks that are there need no tasks
    assert isinstance(model.labels_, da.Array)
    with dask.config.set(scheduler=counting):
        KMeans(4, max_iter=1, random_state=0).fit(here)
    assert asked > 3  # but another scheduler gets them


def test_rows_are_optimised_once_as_arrays_are() -> None:
    asked, counts = [], Counter[str]()

    class Count(Callback):  # type: ignore[misc]
        def _pretask(self, key: Any, dsk: Any, state: Any) -> None:
            counts[dask.utils.key_split(key)] += isinstance(dsk[key], Task)

    def optimised(graph: Any, keys: Any, **options: Any) -> Any:
        asked.append(keys)
        return optimize(graph, keys, **options)

    x = (da.from_array(rows(), chunks=(300, -1)) - 1) * 2 + 3
    with Count(), dask.config.set(array_optimize=optimised):  # where `gp.chunked.install` waits
        KMeans(5, init=rows()[:5] * 2 + 1, max_iter=1, tol=0).fit(x)
    assert len(asked) == 1
    assert counts["array-add"] == counts["kmeans-assign"] + counts["kmeans-extent"] == 30
    assert not {"sub", "mul", "add"} & set(+counts)


def test_partial_fit_takes_batches_in_any_chunks() -> None:
    plain, chunked = KMeans(4, random_state=0), KMeans(4, random_state=0)
    for batch in np.array_split(rows(), 3):
        plain.partial_fit(batch)
        chunked.partial_fit(da.from_array(batch, chunks=(333, -1)))
        np.testing.assert_array_equal(plain.cluster_centers_, chunked.cluster_centers_)
        assert plain.inertia_ == chunked.inertia_
        da.utils.assert_eq(chunked.labels_, plain.labels_)


def test_empty_clusters_over_chunks() -> None:
    x = np.repeat(rows()[:300], 2, 0)  # equally far rows: the first is taken
    start = np.full((5, 3), 50.0)
    start[0] = 5
    expected = KMeans(5, init=start).fit(x)
    for chunks in (100, 199):
        assert digest(KMeans(5, init=start).fit(da.from_array(x, chunks=(chunks, 3)))) == digest(expected)


def test_stores_and_memory_maps(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    x = rows()
    store = zarr.create_array(tmp_path / "x.zarr", shape=x.shape, dtype=x.dtype, chunks=(500, 3))
    store[:] = x
    mapped = np.memmap(tmp_path / "x.bin", x.dtype, "w+", shape=x.shape)
    mapped[:] = x
    expected = digest(KMeans(4, random_state=0).fit(x))
    model = KMeans(4, random_state=0).fit(store)
    assert isinstance(model.labels_, da.Array)
    assert digest(model) == digest(KMeans(4, random_state=0).fit(mapped)) == expected
    da.utils.assert_eq(model.predict(store), KMeans(4, random_state=0).fit(x).labels_)


def test_errors_of_chunks() -> None:
    x = da.from_array(rows(), chunks=(1000, 3))
    with pytest.raises(
        gp.ShapeError, match=r"KMeans of a Dask array with chunks of unknown size .*compute_chunk_sizes"
    ):
        KMeans().fit(x[x[:, 0] > 5])
    bad = da.where(x == x[1500, 1], np.nan, x)
    with pytest.raises(ValueError, match="x holds NaN or infinity"):
        KMeans(2).fit(bad)
    model = KMeans(2, random_state=0).fit(x)
    with pytest.raises(ValueError, match="x holds NaN or infinity"):
        model.predict(bad).compute()


def test_two_processes() -> None:
    distributed = pytest.importorskip("distributed")
    x = rows()
    expected = digest(KMeans(3, random_state=0, max_iter=3).fit(x))
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0"}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster):
        chunked = da.from_array(x, chunks=(750, 3)).persist()
        weights = np.ones(3000)
        assert digest(KMeans(3, random_state=0, max_iter=3).fit(chunked)) == expected
        weighted = KMeans(5, init=x[:5], max_iter=2).fit(chunked, sample_weight=weights)
    assert weighted.inertia_ == KMeans(5, init=x[:5], max_iter=2).fit(x).inertia_
