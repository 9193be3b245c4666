"""Fused functions on arrays of a GPU, through the launcher and PyCUDA's own code, on the fake driver."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fake_cuda import machine_fixture, to_device, to_host  # noqa: F401 - a fixture

import gpucompute as gp
from gpucompute.fusion import run
from gpucompute.launch import faults
from gpucompute.testing.driver import Machine

pytest.importorskip("numba.cuda.cudadrv.nvvm", reason="numba-cuda is not installed")

RANDOM = np.random.default_rng(5)


@gp.fuse
def normalise(images: Any, mean: Any, std: Any) -> Any:
    x = images.astype(np.float32) / 255
    return ((x - mean) / std).transpose(0, 3, 1, 2)


@gp.fuse
def statistics(x: Any, scale: Any) -> Any:
    return {"mean": x.mean(0) * scale, "largest": x.max()}


@gp.fuse
def picked(x: Any, index: Any) -> Any:
    return np.take(x, index) * 2


def test_results_are_those_of_the_cpu_and_nobody_waits(machine: Machine) -> None:
    images = RANDOM.integers(0, 256, (2, 5, 7, 3)).astype(np.uint8)
    mean, std = np.float32([0.4, 0.5, 0.6]), np.float32([0.2, 0.3, 0.4])
    there = to_device(images)
    machine.forget()
    result = normalise(there, mean, std)  # NumPy's small arrays ride along
    again = normalise(there, mean, std)
    assert machine.synchronisations() == machine.frees() == 0 and len(machine.launches) == 2
    assert machine.calls("cuModuleLoadDataEx") == 1
    expected = normalise(images, mean, std)
    np.testing.assert_array_equal(to_host(result), expected)
    np.testing.assert_array_equal(to_host(again), expected)


def test_the_first_array_of_a_library_is_not_traced_twice(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    x = to_device(np.arange(4, dtype=np.float32))
    monkeypatch.delitem(run.DEVICE_ARRAYS, type(x), raising=False)
    traced = []

    @gp.fuse
    def double(x: Any) -> Any:
        traced.append(x)
        return x + x

    for _ in range(2):
        np.testing.assert_array_equal(to_host(double(x)), [0, 2, 4, 6])
    assert len(traced) == 1


def test_containers_scalars_and_several_kernels(machine: Machine) -> None:
    x = RANDOM.standard_normal((70, 40)).astype(np.float32)
    got, expected = statistics(to_device(x), 2.5), statistics(x, 2.5)
    assert got.keys() == expected.keys()
    for name in got:
        assert gp.digest(to_host(got[name])) == gp.digest(np.asarray(expected[name]))


def test_results_go_to_the_device_of_the_arguments(machine: Machine) -> None:
    x = np.arange(6, dtype=np.float32)
    result = gp.fuse(lambda x: x + 1)(to_device(x, 1))
    np.testing.assert_array_equal(to_host(result), x + 1)
    assert [launch.device for launch in machine.launches] == [1]
    with pytest.raises(gp.DeviceError, match="arrays on different devices: argument 0 on cuda:0, argument 1 on cuda:1"):
        gp.fuse(lambda x, y: x + y)(to_device(x, 0), to_device(x, 1))


def test_large_arrays_of_the_cpu_do_not_ride_along(machine: Machine) -> None:
    large = np.zeros(20_000, np.float32)
    with pytest.raises(gp.DeviceError, match=r"numpy.ndarray of float32 \(20000,\), 80000 bytes.*gpucompute.asarray"):
        gp.fuse(lambda x, y: x + y)(to_device(large), large)


def test_an_index_out_of_range_is_raised_later_with_its_line(machine: Machine) -> None:
    x = to_device(np.arange(5.0))
    picked(x, to_device(np.array([0, 7])))
    with pytest.raises(gp.OutOfRangeError, match=r"index 7 is out of bounds for an axis of size 5\n  at .*np.take"):
        faults.check()
    np.testing.assert_array_equal(to_host(picked(x, to_device(np.array([0, -1])))), [0, 8])


def test_out(machine: Machine) -> None:
    x = to_device(np.arange(4, dtype=np.float32))
    target = to_device(np.zeros(4, np.float32))
    function = gp.fuse(lambda x: x * 3)
    before = machine.used()
    assert function(x, out=target) is target
    assert machine.used() == before, "written in place"
    np.testing.assert_array_equal(to_host(target), [0, 3, 6, 9])
    with pytest.raises(
        gp.ShapeError, match=r"out is float32 \(4,\); expected a writable array of float32 \(2,\) on cuda:0"
    ):
        gp.fuse(lambda x: x[:2])(x, out=target)


def test_with_out_nothing_is_allocated(machine: Machine) -> None:
    x, target = (to_device(np.arange(4, dtype=np.float32)) for _ in range(2))
    function = gp.fuse(lambda x: x * 3)
    function(x, out=target)
    machine.forget()
    function(x, out=target)
    assert machine.calls("cuMemAlloc_v2") == machine.frees() == machine.synchronisations() == 0
    function(x)  # PyCUDA alone has no pool
    assert machine.calls("cuMemAlloc_v2") == machine.frees() == 1


def test_out_that_overlaps_an_argument(machine: Machine) -> None:
    x = to_device(np.arange(8, dtype=np.float32))
    function = gp.fuse(lambda x: x[::-1] + 0)
    machine.forget()
    result = function(x, out=x)
    assert machine.calls("cuMemAlloc_v2") == 1, "not in place: other blocks still read it"
    assert result is x and machine.context_depth == 0
    np.testing.assert_array_equal(to_host(x), np.arange(8)[::-1])


def test_profile_counts_what_a_kernel_reads_and_writes(machine: Machine) -> None:
    x = to_device(np.ones((1000, 10), np.float32))
    with gp.profile() as report:
        gp.fuse(lambda x: x[::100].sum())(x)
    assert [kernel.nbytes for kernel in report.kernels] == [10 * 10 * 4 + 4], "the slice, and the sum"


def test_explain_shows_the_kernels_of_the_gpu(machine: Machine) -> None:
    x = to_device(np.zeros((3, 600), np.float32))
    explanation = gp.fuse(lambda x: x / x.sum(axis=1, keepdims=True)).explain(x)
    assert "cuda.syncwarp()" in explanation.stages[0].source
    assert explanation.stages[0].bytes_written == x.nbytes


def test_a_mean_is_one_launch_on_every_stream_and_device(machine: Machine) -> None:
    x = RANDOM.standard_normal(50_000).astype(np.float32)
    mean = gp.fuse(lambda x: x.mean())
    stages = mean.explain(to_device(x)).stages
    assert [stage.name for stage in stages] == ["sum over all axes of 50000, then elementwise"]
    machine.forget()
    results = [mean(to_device(x, device)) for device in (0, 1, 0)]
    assert [launch.device for launch in machine.launches] == [0, 1, 0]
    assert machine.synchronisations() == 0
    for result in results:
        assert gp.digest(to_host(result)) == gp.digest(np.asarray(mean(x)))
