"""Arrays of other libraries on the fake driver: whose stream is waited for, and whose pool gives and takes memory."""

from __future__ import annotations

import importlib
import sys
import types
from typing import Any

import numpy as np
import pytest
from fake_cuda import machine_fixture, pycuda, to_device, to_host  # noqa: F401 - a fixture

import gpucompute as gp
from gpucompute.launch import cuda, drivers
from gpucompute.testing.driver import Machine

SOURCE = 'extern "C" __global__ void increase(float *x, int n) { if (threadIdx.x < n) x[threadIdx.x] += 1; }'
INVALID_HANDLE = 400


class Foreign:
    """An array that is another library's: the interface, and as much of an array as `fuse` looks at."""

    def __init__(self, array: Any, **changes: Any) -> None:
        self.__cuda_array_interface__ = {**array.__cuda_array_interface__, "version": 3, **changes}
        self.shape, self.dtype, self.owner = self.__cuda_array_interface__["shape"], array.dtype, array


def ones(n: int = 8) -> Any:
    return to_device(np.ones(n, np.float32))


@pytest.mark.parametrize(
    ("named", "waits"),
    [
        (None, []),
        (1, []),  # the null stream, on which is launched
        (2, [(1, 2, 0)]),  # the thread's own
        (0x5100, [(1, 0x5100, 0)]),
    ],
)
def test_a_launch_waits_for_the_stream_that_makes_its_argument(machine: Machine, named: Any, waits: list[Any]) -> None:
    x = ones()
    machine.forget()
    gp.RawKernel(SOURCE, "increase")(1, 8, (Foreign(x, stream=named), 8))
    assert machine.waits == waits and len(machine.launches) == 1, "the wait stands before the launch"
    assert machine.calls("cuEventCreate") == machine.calls("cuEventDestroy_v2") == len(waits)
    assert machine.synchronisations() == 0 and machine.context_depth == 0
    np.testing.assert_array_equal(to_host(x), 2)


def test_on_a_stream_of_its_own(machine: Machine) -> None:
    x, kernel = ones(), gp.RawKernel(SOURCE, "increase")
    with pycuda().active(0):
        stream = importlib.import_module("pycuda.driver").Stream()
    kernel(1, 8, (Foreign(x, stream=stream.handle), 8), stream=stream)
    kernel(1, 8, (Foreign(x), 8), stream=stream)
    kernel(1, 8, (x, 8), stream=stream)
    assert machine.waits == []
    kernel(1, 8, (Foreign(x, stream=1), 8), stream=stream)
    assert machine.waits == [(stream.handle, 1, 3)]


def test_a_stream_that_is_gone(machine: Machine) -> None:
    x = ones()
    machine.fail("cuEventRecord", INVALID_HANDLE)
    with pytest.raises(gp.LaunchError, match=r"cuda:0: waiting for the stream 0x5100.*error 400.*names the stream in"):
        gp.RawKernel(SOURCE, "increase")(1, 8, (Foreign(x, stream=0x5100), 8))
    assert machine.calls("cuEventCreate") == machine.calls("cuEventDestroy_v2") == 1 and machine.launches == []


def test_fused_functions_wait_and_know_the_layout(machine: Machine) -> None:
    pytest.importorskip("numba.cuda.cudadrv.nvvm", reason="numba-cuda is not installed")
    host = np.arange(6, dtype=np.float32).reshape(2, 3)
    x = to_device(host)
    turned = Foreign(x, shape=(3, 2), strides=(4, 12), stream=0x5100)
    result = gp.fuse(lambda x: x * 2)(turned)
    assert [(wait.stream, wait.after) for wait in machine.waits] == [(1, 0x5100)]
    np.testing.assert_array_equal(to_host(result), 2 * host.T)


class Tensor:
    """What PyTorch's tensors on a GPU have: a dtype that NumPy does not know, and the interface without a stream."""

    __module__ = "torch"

    def __init__(self, array: Any, dtype: Any) -> None:
        self.array, self.dtype, self.shape = array, dtype, array.shape
        self.device = types.SimpleNamespace(index=0)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        address = int(self.array.gpudata)
        return {"shape": self.shape, "typestr": "<f4", "data": (address, False), "strides": None, "version": 2}


def test_fused_functions_take_tensors_of_pytorch(machine: Machine) -> None:
    pytest.importorskip("numba.cuda.cudadrv.nvvm", reason="numba-cuda is not installed")
    x = to_device(np.arange(4, dtype=np.float32))
    double = gp.fuse(lambda x: x * 2)
    np.testing.assert_array_equal(to_host(double(Tensor(x, object()))), [0, 2, 4, 6])
    target = ones(4)
    assert double(x, out=Tensor(target, object())).array is target
    np.testing.assert_array_equal(to_host(target), [0, 2, 4, 6])


def test_fused_functions_take_tensors_of_the_cpu() -> None:
    torch = pytest.importorskip("torch")
    standardise = gp.fuse(lambda x, scale: {"mean": x.mean(0) * scale, "turned": x.T})
    tensor = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    for given in (tensor, tensor.T.contiguous().T):
        result = standardise(given, 2.0)
        assert type(result["mean"]) is np.ndarray and result["mean"].tolist() == [3, 5, 7]
        np.testing.assert_array_equal(result["turned"], tensor.T.numpy())
    with pytest.raises((gp.FusionError, gp.DTypeError), match="bfloat16"):  # the one with ml_dtypes, the other without
        standardise(tensor.bfloat16(), 2.0)


# ---------------------------------------------------------------------------- CuPy's pools, and RMM in their place


class Pool:
    """Counts how often its idle blocks were freed."""

    def __init__(self) -> None:
        self.freed = 0
        self.given: list[int] = []

    def malloc(self, nbytes: int) -> int:
        self.given.append(nbytes)
        return nbytes

    def free_all_blocks(self) -> None:
        self.freed += 1


class OutOfMemoryError(Exception):
    __module__ = "cupy.cuda.memory"


class StandIn(types.ModuleType):
    """CuPy as far as memory goes."""

    def __init__(self) -> None:
        super().__init__("cupy")
        self.own, self.pinned = Pool(), Pool()
        self.allocator: Any = self.own.malloc
        self.full = 0  # how many allocations fail before one succeeds
        self.cuda = types.SimpleNamespace(
            runtime=types.SimpleNamespace(getDeviceCount=lambda: 1),
            Device=lambda index: pycuda().active(index),
            get_allocator=lambda: self.allocator,
            set_allocator=lambda allocator: setattr(self, "allocator", allocator),
        )

    def get_default_memory_pool(self) -> Pool:
        return self.own

    def get_default_pinned_memory_pool(self) -> Pool:
        return self.pinned

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        self.full -= 1
        if self.full >= 0:
            raise OutOfMemoryError("Out of memory allocating 32 bytes")
        array = pycuda().empty(shape, np.dtype(dtype), 0)
        self.allocator(array.nbytes)
        return array


@pytest.fixture(name="cupy")
def cupy_fixture(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """The stand-in, where results are allocated."""
    fake = StandIn()
    monkeypatch.setitem(sys.modules, "cupy", fake)
    driver = drivers.Cupy()
    monkeypatch.setattr(drivers, "cupy", lambda: driver)
    return fake


def rmm_cupy_allocator(nbytes: int) -> int:
    """RMM's is a plain function, too."""
    return RMM.malloc(nbytes)


RMM = Pool()


def test_results_come_from_the_allocator_that_cupy_has_set(cupy: StandIn) -> None:
    RMM.given.clear()
    cupy.cuda.set_allocator(rmm_cupy_allocator)
    cuda.empty((2, 4), np.float32)
    assert (RMM.given, cupy.own.given) == ([32], [])


def test_a_full_device_frees_the_pools_that_are_in_use(cupy: StandIn) -> None:
    current = Pool()
    for allocator, freed in ((current.malloc, [1, 1, 1]), (rmm_cupy_allocator, [2, 2, 1])):
        cupy.cuda.set_allocator(allocator)
        cupy.full = 1
        assert cuda.empty((2, 4), np.float32).nbytes == 32
        assert [pool.freed for pool in (cupy.own, cupy.pinned, current)] == freed
    cupy.full = 2
    with pytest.raises(gp.DeviceMemoryError, match=r"an array of float32 \(2, 4\) on cuda:0: Out of memory"):
        cuda.empty((2, 4), np.float32)
