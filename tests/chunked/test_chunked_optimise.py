"""Ordinary Dask graphs compiled: the same results, no more tasks, and what is not known stays."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
from chunk_checks import cut, normal, tasks
from numpy.lib.stride_tricks import sliding_window_view

import gpucompute as gp
from gpucompute.chunked.foreign import Compiled

x = cut(normal(120, 8).astype(np.float64), 30, 4)
y = cut(normal(120, 8, seed=1).astype(np.float64), 30, 4)


def kernels(array):
    """Return the compiled tasks of a graph."""
    graph = gp.chunked.optimize(array).__dask_graph__()
    found = [task for task in dict(graph).values() if hasattr(task, "func")]
    inner = [part for task in found for arg in task.args if isinstance(arg, dict) for part in arg.values()]
    return [task.func for task in (*found, *inner) if isinstance(getattr(task, "func", None), Compiled)]


def runs_plain(task):
    """Tell whether what was compiled has run as NumPy does."""
    return task._plain


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


def together(*arrays):
    """Return how many tasks arrays take together, plain and compiled, after a check that results agree."""
    plain, before = dask.compute(*arrays, scheduler="sync"), tasks(*arrays).total()
    with gp.chunked.install():
        got, after = dask.compute(*arrays, scheduler="sync"), tasks(*arrays).total()
    for one, other in zip(got, plain, strict=True):
        assert one.dtype == other.dtype
        assert type(one) is type(other)
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)
    return before, after


def test_reductions_that_read_the_same_chunks_share_tasks():
    before, after = compare((x - x.mean(axis=0)) / x.std(axis=0), rtol=1e-12)
    assert after == before - 8
    before, after = together(x.min(), x.max(axis=0), da.nansum(x * 2 + 1, axis=1), (x > 0).any(), x.var(axis=1))
    assert after == before - 4 * 8
    before, after = together(x.sum(axis=0), y.sum(axis=0), (x * y).sum(axis=0))
    assert after == before  # three sets of chunks


def test_reductions_within_chunks_take_no_more_tasks():
    whole = x.rechunk((30, 8))
    assert len(set(together(whole.mean(axis=1), whole.std(axis=1), whole.max(axis=1)))) == 1
    masked = da.ma.masked_greater(x, 0.5)
    before, after = compare(da.ma.filled(masked.max(axis=0), 0) - da.ma.filled(masked.min(axis=0), 0))
    assert after == before - 8
    before, after = compare((x - x.mean(axis=0)) / x.std(axis=0, split_every=3), rtol=1e-12)
    assert after < before


def test_tasks_travel():
    deviations = (x - x.mean(axis=0)) / x.std(axis=0) * 2
    graph = dict(gp.chunked.optimize(deviations).__dask_graph__())
    arrived = pickle.loads(pickle.dumps(graph))
    keys = deviations.__dask_keys__()
    np.testing.assert_array_equal(dask.get(arrived, keys)[1], dask.get(graph, keys)[1])


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


row = np.array([1.0, -2.0, 3.0, 0.5])
WITH_ARRAYS = {
    "operands": lambda: (x * 2).map_blocks(np.subtract, row) * 3,
    "blockwise": lambda: da.blockwise(np.multiply, "ij", x + 1, "ij", row, None, dtype=x.dtype) - x,
    "indices": lambda: (x * 2).map_blocks(np.take, np.array([2, 0, 1, 1]), axis=1) + 1,
    "limits": lambda: (x * 2).map_blocks(np.clip, -row, row * 2) + 1,
    "counts": lambda: (x * 2).map_blocks(np.repeat, np.array([2, 0, 1, 1]), axis=1) + 1,
    "appended": lambda: (x * 2).map_blocks(np.append, np.zeros((30, 1)), axis=1, chunks=(30, 5)) + 1,
    "a list": lambda: (x * 2).map_blocks(np.add, [1, 2, 3, 4]) + 1,
}


@pytest.mark.parametrize("name", WITH_ARRAYS)
@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_arrays_among_the_arguments(name):
    compare(WITH_ARRAYS[name]())
    (task,) = set(kernels(WITH_ARRAYS[name]()))
    assert not runs_plain(task)


def of(dtype, *values):
    return cut(np.array(values, dtype), 2)


WITH_NUMBERS = {
    "comparisons beyond int64": lambda: (of("u8", 0, 2**64 - 1, 3) < 2**70) & (of("u8", 0, 2**64 - 1, 3) > 2**63),
    "sums beyond int64": lambda: (of("u8", 0, 7, 3) + 2**63) + 1,
    "a hash": lambda: (of("u8", 9, 2**64 - 1, 3) ^ (of("u8", 9, 2**64 - 1, 3) >> np.uint64(33))) * 0xFF51AFD7ED558CCD,
    "roots by powers": lambda: (of("f8", -np.inf, -0.0, 4) ** 0.5) * 1,
    "squares of truths": lambda: (of("?", 1, 0, 1) ** 2) + 1,
    "powers of two": lambda: 1 - (2 ** of("i8", 0, 5, 62)),
    "numbers of NumPy": lambda: (of("f4", 1, 2, 3) * np.float64(0.1) + np.float32(0.1)) * 2,
}


@pytest.mark.parametrize("name", WITH_NUMBERS)
@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_numbers_among_the_arguments(name):
    array = WITH_NUMBERS[name]()
    compare(array)
    got = gp.chunked.optimize(array).compute(scheduler="sync")
    np.testing.assert_array_equal(np.signbit(got), np.signbit(array.compute(scheduler="sync")))
    assert not any(map(runs_plain, kernels(array)))


def test_other_numbers_need_no_other_kernel():
    def program(array, factor):
        return da.where(array * factor > np.float32(factor), array / factor, -factor)

    (one,) = set(kernels(program(x, 2.5)))
    (other,) = set(kernels(program(y, 3.5)))
    assert other is one
    assert set(kernels(program(x, 2))) == {one}
    assert set(kernels(program(x, 2**70))) != {one}
    (square,), (cube,) = (set(kernels(x**power + 1)) for power in (2, 3))
    assert square is not cube


def tokens():
    turned = y[::-1]
    return sorted(
        {task.token for task in kernels((x * 2 + turned * 3) * (x - np.float32(1)) / (turned**3 + x * 5 + 7))}
    )


def test_tokens_are_those_of_other_processes():
    """Sets of texts have another order there."""
    code = "from test_chunked_optimise import tokens; print(*tokens())"
    said = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent,
        env={**os.environ, "PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.split() == tokens()


def test_errors_are_those_of_numpy():
    negative = 1 - (2 ** of("i8", 5, -1, 2))
    far = (x * 2).map_blocks(np.take, np.array([0, 99]), axis=1, dtype=x.dtype, meta=x._meta) + 1
    large = (of("i8", 1, 2).map_blocks(np.add, 2**63, dtype="i8", meta=np.empty(0, "i8"))) * 2
    for array in (negative, far, large):
        with pytest.raises(Exception) as plain:  # noqa: PT011 (whichever NumPy raises)
            array.compute(scheduler="sync")
        with gp.chunked.install(), pytest.raises(type(plain.value)) as got:
            array.compute(scheduler="sync")
        assert str(got.value) == str(plain.value)


@pytest.mark.parametrize("dtype", ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"])
@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_integers_of_floats_that_do_not_fit_are_those_of_numpy(dtype):
    limits = np.iinfo(dtype)
    inside = [limits.min / 2, 0.9, 99.5, np.nextafter(float(limits.max), 0)]
    outside = [limits.min - 2.0**12, np.inf, np.nan, 1e10]
    fits = (of("f8", *inside) * 1).astype(dtype)
    compare(fits)
    (task,) = set(kernels(fits))
    assert task._fused(np.array(inside), 1)[1]  # nothing is left to NumPy
    compare((of("f8", *inside, *outside) * 1).astype(dtype))
    compare((of("f2", 1, np.inf, np.nan, 3) * 1).astype(dtype))
    compare((of("f8", *inside, *outside) * 1).astype(dtype).max(axis=0))


def test_results_without_axes_are_of_numpys_kind():
    nothing = da.from_array(np.array(3.5))
    compare(da.where(nothing > 1, nothing * 2, 0))
    compare(da.where(nothing > 1, nothing * 2, 0) + 1)
    compare((nothing * 2).astype("f4"))


def test_optimize_returns_the_same_kind_of_collection():
    xarray = pytest.importorskip("xarray")
    field = xarray.DataArray(x, dims=("time", "place"))
    optimised = gp.chunked.optimize({"a": (field * 2 + 1) * field, "b": [x + 1]})
    assert isinstance(optimised["a"], xarray.DataArray)
    assert isinstance(optimised["b"][0], da.Array)
    np.testing.assert_array_equal(dask.compute(optimised, scheduler="sync")[0]["a"], (field * 2 + 1) * field)


def weather(xarray):
    """Return ten years of months at eight places, cut along both."""
    months = np.arange("2001-01", "2011-01", dtype="M8[M]").astype("M8[ns]")
    latitudes = np.linspace(-70, 70, 8)
    return xarray.DataArray(x, dims=("time", "lat"), coords={"time": months, "lat": latitudes})


def climatology(xarray, field):
    """xarray's "toy weather data"."""
    months = field.groupby("time.month")
    return months - months.mean("time")


def standardised_anomaly(xarray, field):
    """The same page: apply_ufunc of a function of the user's, group by group."""
    months = field.groupby("time.month")
    centre, spread = months.mean("time"), months.std("time")
    return xarray.apply_ufunc(lambda x, m, s: (x - m) / s, months, centre, spread, dask="allowed")


def seasonal_average(xarray, field):
    """xarray's "seasonal averages from time series of monthly means"."""
    days = field.time.dt.days_in_month.astype(np.float64).chunk(time=30)
    share = days.groupby("time.season") / days.groupby("time.season").sum()
    return (field * share).groupby("time.season").sum("time")


def area_weighted(xarray, field):
    """xarray's "compare weighted and unweighted mean temperature"."""
    return (field * 2 + 1).where(field > -1).weighted(np.cos(np.deg2rad(field.lat))).mean("lat")


def running_mean(xarray, field):
    return ((field - 3) * 2).rolling(time=5, center=True).mean() - field


def score(xarray, field):
    anomaly = climatology(xarray, field)
    return ((anomaly / anomaly.std("time")).where(anomaly > 0).fillna(0) ** 2).mean("lat")


@pytest.mark.parametrize(
    "program", [climatology, standardised_anomaly, seasonal_average, area_weighted, running_mean, score]
)
def test_programs_of_xarrays_documentation(program):
    xarray = pytest.importorskip("xarray")
    field = weather(xarray)
    compare(program(xarray, field), rtol=1e-11)
    assert kernels(program(xarray, field))


def test_a_fused_function_through_xarray():
    xarray = pytest.importorskip("xarray")
    field = weather(xarray)
    fused = gp.fuse(lambda x, m: np.where(x > 0, (x - m) / 2, 0))
    got = xarray.apply_ufunc(fused, field, field.mean("time"), dask="allowed")
    assert isinstance(got.data, da.Array)
    np.testing.assert_array_equal(got, xarray.where(field > 0, (field - field.mean("time")) / 2, 0))
    parallel = xarray.apply_ufunc(fused, field, field * 0, dask="parallelized", output_dtypes=[field.dtype])
    np.testing.assert_array_equal(parallel, xarray.where(field > 0, field / 2, 0))


def test_the_segmentation_of_dask_images_documentation():
    ndfilters = pytest.importorskip("dask_image.ndfilters")
    ndmeasure = pytest.importorskip("dask_image.ndmeasure")
    photo = cut(np.random.default_rng(0).random((40, 48, 3)), 20, 24, 3)
    grey = photo[..., 0] * 0.2125 + photo[..., 1] * 0.7154 + photo[..., 2] * 0.0721
    smoothed = ndfilters.gaussian_filter(grey, sigma=[1, 1])
    binary = (smoothed > ndfilters.threshold_local(smoothed, (9, 9))) & (grey > 0.2)
    labels, count = ndmeasure.label(binary)
    assert kernels(binary)
    with gp.chunked.install():
        found = dask.compute(labels, count, scheduler="sync")
    plain = dask.compute(labels, count, scheduler="sync")
    np.testing.assert_array_equal(found[0], plain[0])
    assert found[1] == plain[1] > 3


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
