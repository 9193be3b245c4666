"""Ordinary Dask graphs compiled: the same results, no more tasks, and what is not known stays."""

from __future__ import annotations

import dask
import dask.array as da
import numpy as np
import pytest
from chunk_checks import cut, normal, tasks
from numpy.lib.stride_tricks import sliding_window_view

import gpucompute as gp
from gpucompute.chunked.optimise import Compiled

x = cut(normal(120, 8).astype(np.float64), 30, 4)
y = cut(normal(120, 8, seed=1).astype(np.float64), 30, 4)


def kernels(array):
    """Return the compiled tasks of a graph."""
    graph = gp.chunked.optimize(array).__dask_graph__()
    found = [task for task in dict(graph).values() if hasattr(task, "func")]
    inner = [part for task in found for arg in task.args if isinstance(arg, dict) for part in arg.values()]
    return [task.func for task in (*found, *inner) if isinstance(getattr(task, "func", None), Compiled)]


def compare(array, *, rtol=0.0):
    """Assert that compiled and plain results agree; return how many tasks each took."""
    plain = array.compute(scheduler="sync")
    before = tasks(array).total()
    with gp.chunked.install():
        after = tasks(array).total()
        got = array.compute(scheduler="sync")
    assert got.dtype == plain.dtype
    assert type(got) is type(plain)
    np.testing.assert_allclose(got, plain, rtol=rtol, atol=rtol)
    assert after <= before
    return before, after


PROGRAMS = {
    "arithmetic": lambda: (x * 2 + 1) / (abs(y) + 1) - x,
    "selections": lambda: da.where((x > 0.3) & ~(y < 0), x, -1).astype("f4").clip(0, 1),
    "views": lambda: ((x + 1).T * 2).T,
    "integers": lambda: (x * 10).astype(int) % 3 << 2,
    "a row for all": lambda: (x - x.max(axis=0)) * 2,
}
NEAR = {
    "functions": lambda: da.exp(-x) * da.sqrt(abs(y)) + da.tanh(x),
    "standardised": lambda: (x - x.mean(axis=0)) / x.std(axis=0),
    "a sum": lambda: (x * y + 1).sum(axis=0),
    "a mean without NaN": lambda: da.nanmean(da.where(x > 0, x, np.nan) * 2, axis=0),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_results_are_equal(name):
    compare(PROGRAMS[name]())
    assert kernels(PROGRAMS[name]())


@pytest.mark.parametrize("name", NEAR)
def test_results_are_near(name):
    compare(NEAR[name](), rtol=1e-12)
    assert kernels(NEAR[name]())


def test_what_two_stages_read_is_no_task_of_its_own():
    rooted = da.sqrt(abs(x) + 1)
    before, after = compare(rooted / rooted.sum(axis=0), rtol=1e-14)
    assert after == before - 8


def test_what_reads_several_arrays_is_computed_once():
    turned = y[::-1]
    both = x + turned
    before, after = compare(both / both.max(axis=0))
    assert after == before


def test_fused_functions_that_follow_one_another_are_one_kernel():
    first, second = gp.fuse(lambda x: x * 2 + 1), gp.fuse(lambda x: np.sqrt(abs(x)))
    compare(second(first(x)) - 1)
    compare(x.map_blocks(first) * 3)
    (task,) = set(kernels(second(first(x))))  # nothing else was there to compile
    assert task.__name__ == "fused"


def test_what_is_not_known_stays():
    random = da.random.default_rng(0).random((40, 8), chunks=(20, 4))
    compare((random + 1) * random)
    compare(x.map_blocks(lambda block: block[::-1]) * 2 + 1)
    assert not kernels(x.map_blocks(lambda block: block * 2))
    assert not kernels(x + 1)  # alone it gains nothing


def test_blocks_that_a_kernel_cannot_take_run_as_they_are():
    masked = da.ma.masked_greater(x, 0.5)
    got = da.ma.filled(masked * 2 + 1, -7)
    compare(got)
    compare(((x + 1j) * (y - 1j)).real + 1)
    times = cut(np.arange(12).astype("M8[s]"), 4)
    compare(((times + np.timedelta64(1, "s")) - times).astype(int) + 1)


def test_optimize_returns_the_same_kind_of_collection():
    xarray = pytest.importorskip("xarray")
    field = xarray.DataArray(x, dims=("time", "place"))
    optimised = gp.chunked.optimize({"a": (field * 2 + 1) * field, "b": [x + 1]})
    assert isinstance(optimised["a"], xarray.DataArray)
    assert isinstance(optimised["b"][0], da.Array)
    np.testing.assert_array_equal(dask.compute(optimised, scheduler="sync")[0]["a"], (field * 2 + 1) * field)


def test_an_xarray_climatology():
    xarray = pytest.importorskip("xarray")
    months = np.arange(120) // 10
    field = xarray.DataArray(x, dims=("time", "place"), coords={"month": ("time", months)})
    anomaly = field.groupby("month") - field.groupby("month").mean("time")
    score = ((anomaly / anomaly.std("time")).where(anomaly > 0).fillna(0) ** 2).mean("place")
    plain = score.compute(scheduler="sync")
    with gp.chunked.install():
        xarray.testing.assert_allclose(score.compute(scheduler="sync"), plain, rtol=1e-11)


def test_smoothing_and_threshold_as_dask_image_does():
    """Overlap, a filter that is not ours, then elementwise steps and a reduction."""

    def box(block):
        windows = sliding_window_view(np.pad(block, 1, mode="edge"), (3, 3))
        return windows.mean((-2, -1))

    smoothed = ((x * 2 + 1) * x).map_overlap(box, depth=1, boundary="reflect")
    compare((da.where(smoothed > 1, smoothed * 2 - 1, 0) * smoothed).sum(axis=1), rtol=1e-12)


def test_an_error_in_the_users_function_is_theirs():
    def fail(block):
        raise KeyError("theirs")

    broken = (x.map_blocks(fail, dtype=x.dtype, meta=x._meta) + 1) * 2
    with gp.chunked.install(), pytest.raises(KeyError, match="theirs"):
        broken.compute(scheduler="sync")
