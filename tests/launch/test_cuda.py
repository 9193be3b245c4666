"""The launcher, under PyCUDA's own code on the fake driver; kernels run in the emulator."""

from __future__ import annotations

import gc
import importlib
import threading
from typing import Any

import numpy as np
import pytest
from fake_cuda import machine_fixture, pycuda, to_device, to_host  # noqa: F401 - a fixture

import gpucompute as gp
from gpucompute import detect
from gpucompute.launch import arrays, cubins, cuda, drivers, faults, streams, transfers
from gpucompute.testing.driver import ILLEGAL_ADDRESS, NO_BINARY_FOR_GPU, OUT_OF_MEMORY, Machine

SOURCE = """
extern "C" __global__ void axpy(float *y, const float *x, float a, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] += a * x[i];
}
extern "C" __global__ void shared_sum(const float *x, float *out, int n) {
    extern __shared__ float values[];
    for (int i = threadIdx.x; i < n; i += blockDim.x) values[i] = x[i];
    __syncthreads();
    if (threadIdx.x == 0) { float s = 0; for (int i = 0; i < n; i++) s += values[i]; *out = s; }
}
extern "C" __global__ void fault(long long *record, long long index) {
    record[1] = index; record[2] = 10; record[0] = 1;
}
"""
GRID, BLOCK = (4, 1, 1), (32, 1, 1)


def image(arch: str) -> bytes:
    return cubins.from_cuda(SOURCE, arch).code


def axpy() -> cuda.Function:
    return cuda.Function(image, "axpy", "PPfi", label="y += a x")


def pair(device: int = 0) -> tuple[Any, Any, list[Any]]:
    y, x = to_device(np.zeros(100, np.float32), device), to_device(np.arange(100, dtype=np.float32), device)
    return y, x, [arrays.view(y).address, arrays.view(x).address, 2.0, 100]


def test_a_kernel_runs_and_nobody_waits(machine: Machine) -> None:
    y, x, words = pair()
    function = axpy()
    machine.forget()
    for _ in range(3):
        function.launch(GRID, BLOCK, words)
    assert machine.synchronisations() == 0
    assert [(one.name, one.device, one.grid, one.block, one.stream) for one in machine.launches] == [
        ("axpy", 0, GRID, BLOCK, 0)
    ] * 3
    assert machine.calls("cuModuleLoadDataEx") == 1 and machine.context_depth == 0
    np.testing.assert_array_equal(to_host(y), 3 * 2 * to_host(x))


def test_each_launch_goes_to_the_device_of_its_arrays(machine: Machine) -> None:
    function = axpy()
    for device in (1, 0, 1):
        y, x, words = pair(device)
        place = arrays.device_of({"y": y, "x": x})
        function.launch(GRID, BLOCK, words, device=place)
        np.testing.assert_array_equal(to_host(y), 2 * np.arange(100))
    assert [one.device for one in machine.launches] == [1, 0, 1]
    assert machine.calls("cuModuleLoadDataEx") == 2, "loaded once for each device"


def test_arrays_on_different_devices_are_named(machine: Machine) -> None:
    with pytest.raises(gp.DeviceError, match=r"y on cuda:0, x on cuda:1.*device='cuda:0'"):
        arrays.device_of({"y": pair(0)[0], "x": pair(1)[1]})


def test_a_grid_without_blocks_launches_nothing(machine: Machine) -> None:
    axpy().launch((0, 1, 1), BLOCK, pair()[2])
    assert machine.launches == []


def test_streams_of_pycuda_and_the_null_stream(machine: Machine) -> None:
    y, _, words = pair()
    function = axpy()
    with pycuda().active(0):
        stream = importlib.import_module("pycuda.driver").Stream()
    for given in (stream, None, 0):
        function.launch(GRID, BLOCK, words, stream=given)
    assert [one.stream for one in machine.launches] == [stream.handle, 0, 0]
    assert machine.synchronisations() == 0
    np.testing.assert_array_equal(to_host(y), 6 * np.arange(100))


def test_a_stream_that_only_cupy_could_use(machine: Machine) -> None:
    class Torch:
        cuda_stream = 0x7F00

    with pytest.raises(gp.DeviceError, match="install CuPy for other streams: pip install"):
        axpy().launch(GRID, BLOCK, pair()[2], stream=Torch())
    with pytest.raises(gp.OptionError, match="stream 'fast': expected a stream of CuPy, PyCUDA, PyTorch or numba"):
        axpy().launch(GRID, BLOCK, pair()[2], stream="fast")


def test_a_stream_of_cupy_goes_to_cupys_loader(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    class Loader:
        def __init__(self) -> None:
            self.launched: list[Any] = []

        def load(self, device: int, code: bytes) -> bytes:
            return code

        def launcher(self, device: int, module: bytes, symbol: str, parameters: str, shared: int) -> Any:
            return lambda *arguments: self.launched.append((device, module, symbol, arguments))

    class Stream:
        ptr = 0x1234

    class Cupy:
        class cuda:
            @staticmethod
            def get_current_stream(device: int) -> Stream:
                return Stream()

    loader = Loader()
    monkeypatch.setattr(streams, "cupy_in_use", lambda: Cupy)
    monkeypatch.setattr(drivers, "cupy", lambda: loader)
    y, x, words = pair(1)
    axpy().launch(GRID, BLOCK, words, device=1)
    (device, module, symbol, arguments) = loader.launched[0]
    assert (device, module, symbol) == (1, image("sm_90"), "axpy"), "the same bytes"
    assert arguments[:4] == (GRID, BLOCK, words, 0) and arguments[4].ptr == 0x1234
    Stream.ptr = 0  # CuPy's default: the null stream, which PyCUDA can use
    axpy().launch(GRID, BLOCK, words, device=1)
    assert len(loader.launched) == 1 and machine.launches[-1].device == 1
    np.testing.assert_array_equal(to_host(y), 2 * to_host(x))


def test_threads_have_contexts_of_their_own(machine: Machine) -> None:
    function, failures = axpy(), []

    def work(device: int) -> None:
        try:
            y, _, words = pair(device)
            function.launch(GRID, BLOCK, words, device=device)
            np.testing.assert_array_equal(to_host(y), 2 * np.arange(100))
            assert machine.context_depth == 0
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    threads = [threading.Thread(target=work, args=(i % 2,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_large_shared_memory_is_asked_for(machine: Machine) -> None:
    n = 15_000  # 60,000 bytes: above the 48 KiB that every kernel may have
    x, out = to_device(np.ones(n, np.float32)), to_device(np.zeros(1, np.float32))
    function = cuda.Function(image, "shared_sum", "PPi")
    words = [arrays.view(x).address, arrays.view(out).address, n]
    for size in (n, 100, n):
        words[2] = size
        function.launch((1, 1, 1), BLOCK, words, 4 * size)
        assert to_host(out)[0] == size


def test_large_shared_memory_of_several_devices_and_functions(machine: Machine) -> None:
    def total(function: cuda.Function, device: int, n: int) -> float:
        x, out = to_device(np.ones(n, np.float32), device), to_device(np.zeros(1, np.float32), device)
        words = [arrays.view(x).address, arrays.view(out).address, n]
        function.launch((1, 1, 1), BLOCK, words, 4 * n, device=device)
        return float(to_host(out)[0])

    module = cuda.Module(image)
    one, other = (cuda.Function(module, "shared_sum", "PPi") for _ in range(2))
    with pytest.raises(gp.LaunchError, match="dynamic shared memory is limited by the device"):
        total(one, 0, 100_000)
    calls = [(one, 0, 100), (one, 1, 15_000), (one, 0, 15_000), (other, 0, 14_000), (one, 0, 15_000)]
    for function, device, n in calls:
        assert total(function, device, n) == n
    # a refusal, and one for each device and function above 48 KiB
    assert machine.calls("cuFuncSetAttribute") == 4


def test_the_driver_is_loaded_once_to_ask_where_an_array_is(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []
    load = detect.load
    monkeypatch.setattr(detect, "load", lambda name: (loaded.append(name), load(name))[1])
    y, x, _ = pair(1)
    drivers.forget()
    for _ in range(3):
        assert arrays.device_of({"y": y, "x": x}) == 1
    assert loaded == [detect.DRIVER]


# ------------------------------------------------------------------------------------------- errors


def test_errors_say_kernel_grid_and_arrays(machine: Machine) -> None:
    y, x, words = pair()
    function = axpy()
    with pytest.raises(gp.LaunchError) as error:
        function.launch(GRID, (2048, 1, 1), words, operands=(y, x))
    text = str(error.value)
    assert "kernel 'y += a x' on cuda:0, grid (4, 1, 1), block (2048, 1, 1)" in text
    assert "arrays float32 (100,), float32 (100,)" in text
    assert "invalid argument" in text and "a block has at most 1024 threads" in text

    machine.fail("cuLaunchKernel", ILLEGAL_ADDRESS)
    with pytest.raises(gp.LaunchError, match=r"illegal memory access.*GPUCOMPUTE_SYNC=1.*testing.check"):
        function.launch(GRID, BLOCK, words)
    machine.fail("cuModuleLoadDataEx", NO_BINARY_FOR_GPU)
    with pytest.raises(gp.LaunchError, match=r"no kernel image.*gpucompute cache clear"):
        axpy().launch(GRID, BLOCK, words)
    with pytest.raises(gp.LaunchError, match='no kernel of this name: is it extern "C"'):
        cuda.Function(image, "nothing", "P").launch(GRID, BLOCK, words[:1])
    assert machine.context_depth == 0
    function.launch(GRID, BLOCK, words)  # none of this broke the launcher


def test_a_bug_in_a_kernel_surfaces_with_its_place(machine: Machine) -> None:
    source = 'extern "C" __global__ void stuck(int *x) { if (threadIdx.x < 3) __syncthreads(); }'
    function = cuda.Function(lambda arch: cubins.from_cuda(source, arch).code, "stuck", "P")
    with pytest.raises(gp.LaunchError, match=r"kernel 'stuck' on cuda:0.*barrier"):
        function.launch((1, 1, 1), BLOCK, [arrays.view(pair()[0]).address])


def test_out_of_memory_frees_and_tries_once_more(machine: Machine) -> None:
    y, _, words = pair()
    machine.fail("cuLaunchKernel", OUT_OF_MEMORY)
    axpy().launch(GRID, BLOCK, words)
    np.testing.assert_array_equal(to_host(y), 2 * np.arange(100))
    machine.fail("cuLaunchKernel", OUT_OF_MEMORY, times=2)
    with pytest.raises(gp.DeviceMemoryError, match=r"'y \+= a x'.*out of memory, also after.*Delete arrays"):
        axpy().launch(GRID, BLOCK, words)


def test_allocation_frees_what_only_a_cycle_holds(machine: Machine) -> None:
    gc.disable()
    try:
        cycle: list[Any] = [cuda.empty((40 << 20,), np.uint8)]
        cycle.append(cycle)
        del cycle
        assert cuda.empty((40 << 20,), np.uint8).nbytes == 40 << 20
    finally:
        gc.enable()
    with pytest.raises(MemoryError, match=r"an array of float32 \(100000000,\) on cuda:1.*out of memory"):
        cuda.empty(100_000_000, np.float32, 1)


def test_free_idle_asks_every_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    class Pool:
        freed = 0

        def free(self) -> None:
            Pool.freed += 1

    monkeypatch.setattr(drivers, "pycuda", Pool)
    monkeypatch.setattr(drivers, "cupy", Pool)
    drivers.free_idle()
    assert Pool.freed == 2


# ------------------------------------------------------------------------------- records of kernels


def explain(site: int, index: int, length: int) -> Exception:
    return gp.OutOfRangeError(f"site {site}: index {index} of {length}")


def test_a_kernels_record_is_raised_without_waiting(machine: Machine) -> None:
    record = faults.Record(explain)
    record.check()
    cuda.Function(image, "fault", "Pq").launch((1, 1, 1), (1, 1, 1), [record.address, 77])
    assert machine.synchronisations() == 0
    with pytest.raises(gp.OutOfRangeError, match="site 1: index 77 of 10"):
        record.check()
    record.check()  # raised once
    cuda.Function(image, "fault", "Pq").launch((1, 1, 1), (1, 1, 1), [record.address, 78])
    with pytest.raises(gp.OutOfRangeError, match="index 78"):
        cuda.synchronize()
    assert machine.synchronisations() == 1


def test_with_sync_the_launch_itself_raises(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUCOMPUTE_SYNC", "1")
    faults.synchronous.cache_clear()
    try:
        record = faults.Record(explain)
        with pytest.raises(gp.OutOfRangeError, match="index 5 of 10"):
            cuda.Function(image, "fault", "Pq").launch((1, 1, 1), (1, 1, 1), [record.address, 5])
        machine.fail("cuCtxSynchronize", ILLEGAL_ADDRESS)
        _y, _x, words = pair()  # they must live: the kernel has run before the driver reports
        with pytest.raises(gp.LaunchError, match=r"kernel 'y .= a x'.*illegal memory access"):
            axpy().launch(GRID, BLOCK, words)
    finally:
        faults.synchronous.cache_clear()


# ------------------------------------------------------------------------------------- transfers


def test_constants_are_uploaded_once_for_each_device(machine: Machine) -> None:
    mean = np.float32([0.4, 0.5, 0.6])
    first = transfers.constant(mean, 0)
    copies = machine.calls("cuMemcpyHtoDAsync_v2")
    assert transfers.constant(mean.copy(), 0) is first
    assert machine.calls("cuMemcpyHtoDAsync_v2") == copies
    assert transfers.constant(mean, 1) is not first
    assert transfers.constant(mean.astype(np.float64), 0) is not first
    assert transfers.constant(mean.reshape(3, 1), 0) is not first
    assert machine.synchronisations() == 0
    np.testing.assert_array_equal(to_host(first), mean)
    assert machine.synchronisations() == 1, "a copy that blocks is counted"


def test_pinned_memory(machine: Machine) -> None:
    batch = gp.pinned_empty((3, 4), np.float32)
    assert batch.shape == (3, 4) and batch.dtype == np.float32 and batch.flags.c_contiguous
    batch[:] = 1
    assert machine.calls("cuMemHostAlloc") == 1
    assert gp.pinned_empty(0, np.int8).size == 0
    machine.fail("cuMemHostAlloc", OUT_OF_MEMORY, times=2)
    with pytest.raises(gp.DeviceMemoryError, match=r"page-locked memory of 48 bytes for float32 \(3, 4\)"):
        gp.pinned_empty((3, 4), np.float32)


def test_without_a_gpu_memory_is_ordinary_and_launching_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drivers, "available", lambda: None)
    assert gp.pinned_empty((2, 2)).dtype == np.float64
    with pytest.raises(gp.DeviceError, match=r"no GPU that CUDA can use. Looked at:\n  - package cupy"):
        drivers.preferred()
