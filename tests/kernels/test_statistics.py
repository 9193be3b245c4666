"""The statistics kernels: `.cu` under the emulator, its CPU twin and the slow reference, to the bit."""

from __future__ import annotations

from functools import cache

import numpy as np
import nvcc
import pytest
import reference_statistics

import gpucompute as gp
from gpucompute.errors import DTypeError, OptionError, ShapeError
from gpucompute.launch import cubins
from gpucompute.stats import describe, device, host
from gpucompute.testing import check, emulate, run_ptx

(SOURCE,) = (path for path in cubins.own_files() if path.stem == "statistics")
kernel = cache(lambda name: emulate(SOURCE, name))


def launches(x, over=1):
    """Yield each launch of the plan for `x` with its arguments, and last the results."""
    todo = device.plan(x.dtype, *x.shape, over)
    held = {name: np.full(shape, 99, dtype) for name, (shape, dtype) in todo.buffers.items()}
    held["x"] = x
    for launch in todo.launches:
        yield launch, [held[arg] if isinstance(arg, str) else np.int64(arg) for arg in launch.args]
    yield None, [held[name] for name in device.RESULTS]


def emulated(x, over=1):
    for launch, args in launches(x, over):
        if launch is None:
            return args
        kernel(launch.name)(launch.grid, launch.block, args)
    raise AssertionError


def assert_all_agree(x):
    expected = reference_statistics.statistics(x)
    with np.errstate(all="ignore"):
        twin = host.statistics(x, 1)
    for name, value, *others in zip(device.RESULTS, expected, twin, emulated(x), strict=True):
        for other in others:
            assert other.dtype == value.dtype
            assert gp.digest(other) == gp.digest(value), (name, x.shape, value, other)


def data(random, shape, dtype, kind):
    if dtype == np.uint8:
        low, high = {"usual": (0, 256), "dark": (0, 3), "bright": (255, 256)}[kind]
        return random.integers(low, high, shape, dtype=np.uint8)
    x = random.standard_normal(shape).astype(np.float32)
    if kind == "wide":
        x *= np.float32(10.0) ** random.integers(-20, 20, shape).astype(np.float32)
    elif kind == "special":
        values = np.float32([0.0, -0.0, np.inf, -np.inf, np.nan, -np.nan, 1e-42, -3e38, 3e38, 1])
        x = values[random.integers(0, random.integers(1, 11), shape)]
    return x


SHAPES = [
    *[(1, 1, n) for n in (1, 2, 15, 16, 31, 255, 256, 257, 1000, 8191, 8192, 8193, 20000, 50000)],
    *[(n, c, 1) for n, c in ((1, 2), (1, 3), (5, 3), (300, 3), (40000, 3), (17000, 2), (9000, 4), (257, 4))],
    *[(n, c, 1) for n, c in ((1, 5), (300, 8), (300, 9), (700, 33), (8200, 40), (511, 64))],
    *((2, 3, 5), (40, 2, 49), (3, 3, 256), (5, 2, 300), (2, 2, 20000), (3, 40, 7), (30, 1, 9)),
]
KINDS = [(np.uint8, k) for k in ("usual", "dark", "bright")] + [(np.float32, k) for k in ("usual", "wide", "special")]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_edges_of_tiles_strips_and_runs(shape):
    random = np.random.default_rng(list(shape))
    small = np.prod(shape) < 20000
    for dtype, kind in KINDS if small else [KINDS[0], KINDS[-2]]:
        assert_all_agree(data(random, shape, dtype, kind))


@pytest.mark.parametrize("seed", range(60))
def test_any_shape(seed):
    random = np.random.default_rng(seed)
    outer, channels, inner = (int(2 ** random.uniform(0, top)) for top in (9, 4, 6))
    if seed % 3 == 0:
        inner = 1
    dtype, kind = KINDS[seed % len(KINDS)]
    assert_all_agree(data(random, (outer, channels, inner), dtype, kind))


def test_more_strips_than_one_block_joins():
    # the strips themselves are left out: 2500 nodes with known contents
    count, span = 2500, 8192
    n = count * span - 100
    random = np.random.default_rng(0)
    nodes, keys = random.random((count, 3, 1), np.float32), random.integers(-1000, 1000, (count, 2, 1), np.int32)
    words = np.concatenate([nodes.view(np.int32), keys], axis=1).reshape(1, count, 5)
    todo = [launch for launch in device.plan(np.dtype(np.float32), 1, 1, n, 1).launches if launch.name.endswith("join")]
    assert [launch.grid for launch in todo] == [(1, 3, 1), (1, 1, 1)]
    held = {"nodes": words, "nodes3": np.zeros((1, 3, 5), np.int32)}
    held |= {name: np.zeros(1, np.float32) for name in device.RESULTS}
    for launch in todo:
        args = [held[arg] if isinstance(arg, str) else np.int64(arg) for arg in launch.args]
        kernel(launch.name)(launch.grid, launch.block, args)
    from gpucompute.kernels.cpu import statistics as twin

    from gpucompute.launch import cpu

    cpu.compile(twin.join_pairs)(nodes, keys, span, n)
    assert held["mean"][0] == nodes[0, 2, 0] / np.float32(n)
    assert held["variance"][0] == nodes[0, 1, 0]
    assert held["small"].view(np.int32)[0] == twin.key(int(keys[0, 0, 0]))


def test_addresses_that_are_no_multiple_of_16():
    random = np.random.default_rng(0)
    for shape in ((1, 1, 5000), (1700, 3, 1), (1300, 4, 1), (1500, 2, 1)):
        flat = random.integers(0, 256, 8192, dtype=np.uint8)
        for start in (0, 1, 2, 3, 8, 15):
            assert_all_agree(flat[start : start + np.prod(shape)].reshape(shape))


CHECKED = [
    *[(shape, np.uint8) for shape in ((2, 2, 700), (700, 2, 1), (700, 3, 1), (700, 4, 1), (70, 37, 1))],
    *[(shape, np.float32) for shape in ((2, 2, 300), (600, 3, 1), (600, 34, 1), (1, 1, 300000))],
]


@pytest.mark.parametrize(("shape", "dtype"), CHECKED, ids=str)
def test_the_checker_finds_nothing(shape, dtype):
    x = data(np.random.default_rng(1), shape, dtype, "usual")
    for launch, args in launches(x):
        if launch is not None and not (x.size > 10000 and launch.name.endswith("lanes")):
            report = check(SOURCE, launch.name, launch.grid, launch.block, args)
            assert not report.errors and not report.warnings, str(report)


@nvcc.needed
@pytest.mark.parametrize(("shape", "dtype"), [c for c in CHECKED if np.prod(c[0]) < 100000], ids=str)
def test_the_ptx_of_a_gpu(shape, dtype):
    x = data(np.random.default_rng(1), shape, dtype, "usual")
    for launch, args in launches(x):
        if launch is None:
            assert gp.digest(*args) == gp.digest(*emulated(x))
        else:
            run_ptx(nvcc.ptx(SOURCE), launch.name, launch.grid, launch.block, args)


def test_the_checker_finds_nothing_where_a_block_takes_two_strips():
    x = data(np.random.default_rng(1), (8400, 9, 1), np.float32, "usual")
    launch, args = next(launches(x))
    report = check(SOURCE, launch.name, (1, 1), launch.block, args)
    assert not report.errors and not report.warnings, str(report)


def test_every_kernel_is_run():
    plans = [device.plan(np.dtype(t), *shape, 1) for shape in SHAPES for t in ("u1", "f4")]
    names = {launch.name for plan in plans for launch in plan.launches}
    assert names == set(gp.RawModule(SOURCE).names)


# ---------------------------------------------------------------- describe


def test_any_axes():
    random = np.random.default_rng(0)
    x = random.integers(0, 256, (3, 4, 5, 6), dtype=np.uint8)
    for axis in (None, 0, -1, 2, (0, 1), (0, 2, 3), (1, 2, 3), (0, 1, 2), (1, 3), (0, 3), [2, 1], (0, 1, 2, 3)):
        axes = tuple(axis) if isinstance(axis, list) else axis
        for values in (x, x.astype(np.float32), x[::-1, 1:, :, ::2]):
            found = describe(values, axis)
            assert found.nobs == values.size // max(1, np.size(values.mean(axes)))
            np.testing.assert_array_equal(found.minmax[0], values.min(axes))
            np.testing.assert_array_equal(found.minmax[1], values.max(axes))
            np.testing.assert_allclose(found.mean, values.mean(axes, dtype=float), rtol=1e-6)
            np.testing.assert_allclose(found.variance, values.var(axes, dtype=float, ddof=1), rtol=1e-5)
            assert np.shape(found.mean) == np.shape(values.mean(axes))


def test_ddof_is_what_the_count_is_lessened_by():
    for x in (np.uint8([[1, 4], [3, 4]]), np.float32([[1, 4], [3, 4]])):
        np.testing.assert_array_equal(describe(x, ddof=0).variance, [1, 0])
        np.testing.assert_array_equal(describe(x).variance, [2, 0])
        np.testing.assert_array_equal(describe(x, ddof=2).variance, [np.nan, np.nan])
        got = dict(zip(device.RESULTS, emulated(x.reshape(2, 2, 1), 0), strict=True))
        np.testing.assert_array_equal(got["variance"], [np.nan, np.nan])


def test_floats_have_the_bits_of_fuse():
    @gp.fuse
    def fused(x):
        return x.mean(axis=0), x.var(axis=0)

    x = np.random.default_rng(0).normal(3, 2, (10007, 3)).astype(np.float32)
    found = describe(x, ddof=0)
    mean, variance = fused(x)
    np.testing.assert_array_equal(found.mean, mean)
    np.testing.assert_array_equal(found.variance, variance)


def test_threads_do_not_change_a_bit():
    x = np.random.default_rng(0).normal(3, 2, (1, 3, 70001)).astype(np.float32)
    usual = gp.get_threads()
    try:
        results = set()
        for threads in (1, 2, 5):
            gp.set_threads(threads)
            results.add(gp.digest(*host.statistics(x, 1), *host.statistics(np.abs(x * 10).astype(np.uint8), 1)))
    finally:
        gp.set_threads(usual)
    assert len(results) == 1


@pytest.mark.parametrize(
    ("x", "axis", "error", "text"),
    [
        (np.zeros(3, complex), 0, DTypeError, "describe of complex128: expected real numbers"),
        (np.zeros((0, 3), np.uint8), 0, ShapeError, r"shape \(0, 3\) along axis=0: expected at least one element"),
        (np.zeros((2, 3), np.uint8), 2, OptionError, "axis=2 for an array of 2 axes"),
        (np.zeros((2, 3), np.uint8), (0, -2), OptionError, r"axis=\(0, -2\)"),
    ],
)
def test_errors_say_what_to_do(x, axis, error, text):
    with pytest.raises(error, match=text):
        describe(x, axis)
