"""CUDA C++ by hand: arguments, the CPU's stand-ins, and launches on the fake driver."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_cuda import machine_fixture, to_device, to_host  # noqa: F401 - a fixture

import gpucompute as gp
from gpucompute.testing.driver import Machine

SOURCE = """
extern "C" __global__ void axpy(float *y, const float *x, float a, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] += a * x[i];
}
template <typename T> __global__ void fill(T *x, T value, int n) {
    for (int i = threadIdx.x; i < n; i += blockDim.x) x[i] = value;
}
struct Range { float low, high; };
extern "C" __global__ void mixed(unsigned char *out, signed char a, double b, bool c, float4 v, Range r) {
    out[0] = a; out[1] = b; out[2] = c; out[3] = v.x + v.w; out[4] = r.high - r.low;
}
extern "C" __global__ void four(float4 *x) { x[threadIdx.x].w = 1; }
"""


def axpy_on_cpu(y: Any, x: Any, a: Any, n: Any) -> None:
    y[:n] += a * x[:n]


def pair() -> tuple[Any, Any]:
    return np.zeros(10, np.float32), np.arange(10, dtype=np.float32)


def test_numpy_arrays_run_the_function() -> None:
    seen: list[Any] = []
    kernel = gp.RawKernel(SOURCE, "axpy", cpu=lambda *args: seen.extend(args))
    y, x = pair()
    kernel((1,), (32,), (y, x, 2, 10))
    assert seen[0] is y and seen[1] is x
    assert type(seen[2]) is np.float32 and type(seen[3]) is np.int32, "Python numbers take the parameter's type"


def test_numpy_arrays_run_in_the_emulator() -> None:
    y, x = pair()
    gp.RawKernel(SOURCE, "axpy", cpu="emulate")(2, 8, (y, x, np.float32(2), np.int32(10)))
    np.testing.assert_array_equal(y, 2 * x)
    gp.RawKernel(SOURCE, "fill<float>", cpu="emulate")(1, 8, (y, 7, 10))
    assert set(y) == {7}


def test_without_cpu_the_error_says_what_to_do() -> None:
    with pytest.raises(gp.DeviceError, match=r"axpy: no argument is on a GPU.*cpu=function or cpu='emulate'"):
        gp.RawKernel(SOURCE, "axpy")(1, 32, (*pair(), 2, 10))


WRONG = [
    ({1: np.arange(10)}, gp.DTypeError, r"axpy: parameter 2, `const float \*x`: got an array of int64, expected float"),
    ({1: np.arange(20, dtype=np.float32)[::2]}, gp.ShapeError, r"parameter 2, .*not in C order.*ascontiguousarray"),
    ({2: np.float64(2)}, gp.DTypeError, "parameter 3, `float a`: got a NumPy scalar of float64, expected a NumPy sc"),
    ({3: 2.5}, gp.DTypeError, "parameter 4, `int n`: 2.5 is no value of int32"),
    ({3: 2**31}, gp.DTypeError, "parameter 4, `int n`: 2147483648 is no value of int32"),
    ({0: [1.0]}, gp.DeviceError, r"parameter 1, `float \*y`: got an object of type builtins.list, expected"),
]


@pytest.mark.parametrize(("changes", "error", "text"), WRONG)
def test_a_wrong_argument_is_named(changes: dict[int, Any], error: type[Exception], text: str) -> None:
    args = [*pair(), np.float32(2), np.int32(10)]
    for number, value in changes.items():
        args[number] = value
    with pytest.raises(error, match=text):
        gp.RawKernel(SOURCE, "axpy", cpu=axpy_on_cpu)(1, 32, args)


def test_other_mistakes() -> None:
    kernel = gp.RawKernel(SOURCE, "axpy", cpu=axpy_on_cpu)
    y, x = pair()
    y.flags.writeable = False
    with pytest.raises(gp.OptionError, match=r"parameter 1.*read-only; declare the parameter const"):
        kernel(1, 32, (y, x, 2, 10))
    with pytest.raises(gp.OptionError, match=r"axpy takes 4 arguments \(float \*y, .*int n\), got 3"):
        kernel(1, 32, (x, x, 2))
    for grid in ((1, 2, 3, 4), (), 1.5, (1, -1), "a"):
        with pytest.raises(gp.OptionError, match=r"grid=.*: expected a whole number, or a tuple of one to three$"):
            kernel(grid, 32, (x, x, 2, 10))  # type: ignore[arg-type]
    with pytest.raises(gp.OptionError, match="block=0: expected a whole number, or a tuple of one to three, 1 or more"):
        kernel(1, 0, (x, x, 2, 10))
    with pytest.raises(gp.OptionError, match=r"no kernel 'axpby'.*are: axpy, fill, mixed, four"):
        gp.RawKernel(SOURCE, "axpby")
    with pytest.raises(gp.OptionError, match="cpu='fast': expected a function, 'emulate' or None"):
        gp.RawKernel(SOURCE, "axpy", cpu="fast")  # type: ignore[arg-type]
    with pytest.raises(gp.OptionError, match=r"no such file: 'missing\.cu'"):
        gp.RawKernel("missing.cu", "axpy")


def test_a_vector_needs_its_alignment() -> None:
    kernel = gp.RawKernel(SOURCE, "four", cpu=lambda x: None)
    memory = np.zeros(64, np.float32)
    start = -memory.__array_interface__["data"][0] // 4 % 4
    kernel(1, 2, (memory[start : start + 8],))
    with pytest.raises(gp.ShapeError, match="no multiple of 16 bytes"):
        kernel(1, 2, (memory[start + 1 : start + 9],))


# ------------------------------------------------------------------------------------ on the fake driver


def test_a_launch_runs_and_does_not_wait(machine: Machine) -> None:
    kernel = gp.RawKernel(SOURCE, "axpy", cpu=axpy_on_cpu)
    y, x = map(to_device, pair())
    machine.forget()
    kernel((2,), (8,), (y, x, np.float32(2), np.int32(10)))
    kernel(2, 8, (y, x, 2, 10))
    assert machine.synchronisations() == 0 and machine.context_depth == 0
    assert [(one.name, one.grid, one.block) for one in machine.launches] == [("axpy", (2, 1, 1), (8, 1, 1))] * 2
    np.testing.assert_array_equal(to_host(y), 4 * np.arange(10))


def test_it_launches_where_the_arrays_are(machine: Machine) -> None:
    kernel = gp.RawKernel(SOURCE, "axpy")
    y, x = (to_device(array, 1) for array in pair())
    kernel(2, 8, (y, x, 2, 10))
    assert machine.launches[-1].device == 1
    with pytest.raises(gp.DeviceError, match="y on cuda:1, x on cuda:0"):
        kernel(2, 8, (y, to_device(pair()[1], 0), 2, 10))
    with pytest.raises(gp.DeviceError, match=r"parameter 2.*got a NumPy array of float32 \(10,\), but other arguments"):
        kernel(2, 8, (y, pair()[1], 2, 10))
    with pytest.raises(gp.DTypeError, match=r"parameter 2.*got an array of float64"):
        kernel(2, 8, (y, to_device(np.zeros(10), 1), 2, 10))


def test_addresses_and_instances_of_templates(machine: Machine) -> None:
    x = to_device(np.zeros(10, np.int64))
    gp.RawKernel(SOURCE, "fill<long long>")(1, 8, (int(x.gpudata), 7, 10))
    assert set(to_host(x)) == {7}


CHOSEN = """
#include <cuda_fp16.h>
#if 0
extern "C" __global__ void chosen(int *x, int a, int b) {}
#else
extern "C" __global__ void chosen(float *x) { if (x) x[0] = 1; }
#endif
"""


def test_a_null_pointer_is_none(machine: Machine) -> None:
    kernel = gp.RawKernel(CHOSEN, "chosen", cpu="emulate")
    host, there = np.zeros(1, np.float32), to_device(np.zeros(1, np.float32))
    kernel(1, 1, (host,))
    kernel(1, 1, (None,))
    gp.RawKernel(CHOSEN, "chosen")(1, 1, (there,))
    gp.RawKernel(CHOSEN, "chosen")(1, 1, (None,))
    assert host[0] == to_host(there)[0] == 1 and len(machine.launches) == 2
    with gp.profile() as report:
        gp.RawKernel(SOURCE, "axpy")(1, 1, (to_device(pair()[0]), None, 1, 0))
        gp.RawKernel(SOURCE, "axpy")(1, 1, (to_device(pair()[0]), int(there.gpudata), 1, 0))
    assert report.kernels[0].nbytes == 2 * 40, "addresses have no size"


def test_all_kinds_of_parameters_arrive(machine: Machine) -> None:
    out = to_device(np.zeros(5, np.uint8))
    pair_of_floats = np.zeros((), np.dtype([("low", "f4"), ("high", "f4")], align=True))
    pair_of_floats["high"] = 9
    args = (out, 1, 2.0, True, np.float32([1, 0, 0, 2]), pair_of_floats)
    gp.RawKernel(SOURCE, "mixed")(1, 1, args)
    assert to_host(out).tolist() == [1, 2, 1, 3, 9]
    with pytest.raises(gp.DTypeError, match="parameter 6, `Range r`: got 3 for a type that is not a number"):
        gp.RawKernel(SOURCE, "mixed")(1, 1, (*args[:5], 3))


def test_other_libraries_arrays(machine: Machine) -> None:
    class Array:
        """Nothing but the interface, and not in C order."""

        def __init__(self, array: Any, **changes: Any) -> None:
            self.__cuda_array_interface__ = {**array.__cuda_array_interface__, **changes}

    y, x = map(to_device, pair())
    kernel = gp.RawKernel(SOURCE, "axpy")
    kernel(2, 8, (Array(y), Array(x, strides=None), 2, 10))
    np.testing.assert_array_equal(to_host(y), 2 * np.arange(10))
    with pytest.raises(gp.ShapeError, match=r"parameter 2.*not in C order"):
        kernel(2, 8, (y, Array(x, shape=(5,), strides=(8,)), 2, 10))
    read_only = (x.__cuda_array_interface__["data"][0], True)
    kernel(2, 8, (y, Array(x, data=read_only), 2, 10))
    with pytest.raises(gp.OptionError, match=r"parameter 1.*read-only"):
        kernel(2, 8, (Array(x, data=read_only), x, 2, 10))


def test_a_module_compiles_its_kernels_together(machine: Machine, tmp_path: Path) -> None:
    path = tmp_path / "two.cu"
    path.write_text('#include "count.cuh"\nextern "C" __global__ void one(int *x) { *x += N; }\n'
                    'extern "C" __global__ void two(int *x) { *x *= N; }')  # fmt: skip
    (tmp_path / "count.cuh").write_text("#define N 3\n")
    module = gp.RawModule(str(path))
    assert module.names == ["one", "two"]
    x = to_device(np.int32([1]))
    for name in module.names:
        module.get_function(name)(1, 1, (x,))
    assert to_host(x)[0] == 12
    assert machine.calls("cuModuleLoadDataEx") == 1
    host = np.int32([1])
    module.get_function("one", cpu="emulate")(1, 1, (host,))
    assert host[0] == 4


def test_profile_reports_time_bytes_and_share(machine: Machine) -> None:
    kernel = gp.RawKernel(SOURCE, "axpy")
    y, x = map(to_device, pair())
    machine.forget()
    with gp.profile() as report:
        for _ in range(3):
            kernel(2, 8, (y, x, 2, 10))
        assert machine.synchronisations() == 0
    (times,) = report.kernels
    assert (times.name, times.device, times.launches, times.nbytes) == ("axpy", "cuda:0", 3, 3 * 80)
    assert times.seconds > 0 and times.share == pytest.approx(240 / times.seconds / report.bandwidth["cuda:0"])
    assert "axpy" in str(report) and "a copy moves" in str(report)
    machine.forget()
    kernel(2, 8, (y, x, 2, 10))
    assert machine.calls("cuEventRecord") == 0, "outside the block nothing is measured"
