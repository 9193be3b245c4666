"""Arrays and stores in chunks that fit, and plans that cannot."""

from __future__ import annotations

import cloudpickle
import dask
import dask.array as da
import numpy as np
import pytest
from chunk_checks import assert_same, cut, normal, tasks

import gpucompute as gp
from gpucompute.chunked import budget

zarr = pytest.importorskip("zarr")
values = normal(4096, 10)


@pytest.fixture
def store(tmp_path):
    array = zarr.create_array(tmp_path / "x.zarr", shape=values.shape, dtype=values.dtype, chunks=(128, 10))
    array[:] = values
    return tmp_path / "x.zarr"


def standardise(x):
    return (x - x.mean(0)) / x.std(0)


def test_each_pass_over_a_store_reads_it_anew(store):
    x = gp.chunked.from_zarr(store, chunks=(1024, 10))
    assert_same(standardise, x)
    names = tasks(gp.fuse(standardise)(x))
    assert names == {"standardise-partial": 4, "standardise-reduced": 1, "standardise": 4}
    kept = tasks(gp.fuse(standardise)(gp.chunked.from_zarr(store, chunks=(1024, 10), reread=False)))
    assert kept.total() == 4 + names.total()
    np.testing.assert_array_equal((x + 1)[5:].sum(1).compute(scheduler="sync"), (values + 1)[5:].sum(1))


def test_a_result_goes_to_zarr_and_comes_back(store, tmp_path):
    x = gp.chunked.from_zarr(store, chunks=(512, 10))
    gp.chunked.to_zarr(gp.fuse(standardise)(x), tmp_path / "y.zarr")
    back = gp.chunked.from_zarr(tmp_path / "y.zarr")
    np.testing.assert_array_equal(back.compute(scheduler="sync"), gp.fuse(standardise)(values))
    uneven = cut(values, (1000, 96, 3000), 10)
    delayed = gp.chunked.to_zarr(uneven, tmp_path / "group.zarr", "a/b", compute=False)
    dask.compute(delayed, scheduler="sync")
    np.testing.assert_array_equal(zarr.open(tmp_path / "group.zarr", path="a/b", mode="r")[:], values)
    with pytest.raises(gp.OptionError, match=r"is a group; give component= .* b"):
        gp.chunked.from_zarr(tmp_path / "group.zarr", "a")


def test_a_memory_map_travels_as_its_file(tmp_path):
    mapped = np.memmap(tmp_path / "x.bin", np.float32, "w+", shape=values.shape)
    mapped[:] = values
    mapped.flush()
    x = gp.chunked.from_array(mapped[10:, ::2], chunks=(1024, 5))
    assert_same(lambda x: x * 2 + x.max(0), x)
    parcel = cloudpickle.dumps(gp.fuse(lambda x: x * 2)(x))
    assert len(parcel) < 5000
    np.testing.assert_array_equal(cloudpickle.loads(parcel).compute(scheduler="sync"), values[10:, ::2] * 2)


def test_automatic_chunks_fit_and_end_on_tiles():
    with dask.config.set({"array.chunk-size": "100 kB"}):
        assert budget.automatic((10**6, 10), np.dtype(np.float32)) == (2048, 10)
        assert budget.automatic((10**6, 10), np.dtype(np.float32), (1000, 10)) == (2000, 10)
        assert budget.automatic((10**6, 10), np.dtype(np.float32), (128, 10)) == (2048, 10)
        assert budget.automatic((50, 1000, 1000), np.dtype(np.float32)) == (1, 16, 1000)
        assert budget.automatic((100, 10), np.dtype(np.float32)) == (100, 10)
        assert budget.automatic((), np.dtype(np.float32)) == ()
        assert gp.chunked.from_array(np.zeros((10**5, 10))).chunks[0][0] == 1024


def test_a_plan_that_cannot_fit_says_so_before_it_runs(monkeypatch):
    monkeypatch.setattr(budget, "limit", lambda like: budget.Limit(100_000, "each of 2 threads of a worker"))
    x = da.zeros((4096, 10), chunks=(1024, 10))
    message = (
        r"fused: a task reads 320.00 kiB and makes 80 B \(axis 0 of the array of shape \(4096, 10\) becomes one "
        r"chunk\), but each of 2 threads of a worker may use 97.66 kiB; use smaller chunks"
    )
    with pytest.raises(gp.DeviceMemoryError, match=message):
        gp.fuse(lambda x: x[np.array([4000])])(x)
    with pytest.raises(gp.DeviceMemoryError, match=r"reads 80.00 kiB and makes 80.00 kiB, but"):
        gp.fuse(lambda x: x * 2)(x)
    gp.fuse(lambda x: x * 2)(x.rechunk((256, 10)))


def test_chunks_that_are_on_the_host_stay_there():
    x = cut(values, 1024, 10)
    assert gp.chunked.to_host(x) is x
    with pytest.raises(gp.DeviceError, match="'cuda' is not usable here"):
        gp.chunked.to_device(x)
