"""Devices: detection by stand-ins for the driver's libraries, choosing one, and arrays coming and going."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import importlib.machinery
import os
import pickle
import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import pytest

import gpucompute as gp
from gpucompute import detect, hardware

GIB = 1 << 30


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give every test a machine that has not been looked at, with no variables set."""
    for variable in ("GPUCOMPUTE_DEVICE", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(variable, raising=False)
    detect._search.cache_clear()
    yield
    detect._search.cache_clear()


class Driver:
    """The driver library, which must only ever be loaded: asking it for any function fails the test."""

    def __getattr__(self, name: str) -> None:
        pytest.fail(f"the CUDA driver's {name} was asked for")


class Nvml:
    """NVML's functions as real C function pointers, for GPUs given as (uuid, name, bytes)."""

    def __init__(self, *gpus: tuple[str, str, int]) -> None:
        out, buffer, uint = ctypes.POINTER(ctypes.c_void_p), ctypes.POINTER(ctypes.c_char), ctypes.c_uint
        self.open = 0

        def opened(step: int) -> int:
            self.open += step
            return 0

        def count(answer) -> int:  # type: ignore[no-untyped-def]
            answer[0] = len(gpus)
            return 0

        def handle(index: int, answer) -> int:  # type: ignore[no-untyped-def]
            answer[0] = index + 1
            return 0

        def by_uuid(uuid: bytes, answer) -> int:  # type: ignore[no-untyped-def]
            found = [i for i, gpu in enumerate(gpus) if gpu[0].encode() == uuid]
            answer[0] = found[0] + 1 if found else None
            return 0 if found else 6

        def text(field: int):  # type: ignore[no-untyped-def]
            def write(handle: int, answer, length: int) -> int:  # type: ignore[no-untyped-def]
                value = gpus[handle - 1][field].encode() + b"\0"  # type: ignore[union-attr]
                assert len(value) <= length
                ctypes.memmove(answer, value, len(value))
                return 0

            return ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, buffer, uint)(write)

        def memory(handle: int, answer) -> int:  # type: ignore[no-untyped-def]
            total = gpus[handle - 1][2]
            answer[0], answer[1], answer[2] = total, total // 4, total - total // 4
            return 0

        c = ctypes.CFUNCTYPE
        self.nvmlInit_v2 = c(ctypes.c_int)(lambda: opened(1))
        self.nvmlShutdown = c(ctypes.c_int)(lambda: opened(-1))
        self.nvmlDeviceGetCount_v2 = c(ctypes.c_int, ctypes.POINTER(uint))(count)
        self.nvmlDeviceGetHandleByIndex_v2 = c(ctypes.c_int, uint, out)(handle)
        self.nvmlDeviceGetHandleByUUID = c(ctypes.c_int, ctypes.c_char_p, out)(by_uuid)
        self.nvmlDeviceGetUUID = text(0)
        self.nvmlDeviceGetName = text(1)
        self.nvmlDeviceGetMemoryInfo = c(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(
            lambda handle, answer: memory(handle, ctypes.cast(answer, ctypes.POINTER(ctypes.c_ulonglong)))
        )


TWO = Nvml(("GPU-aaaa-1", "Fake A", 8 * GIB), ("GPU-bbbb-2", "Fake B", 16 * GIB))


def machine(
    monkeypatch: pytest.MonkeyPatch, *, driver: bool = True, nvml: Nvml | None = TWO, cupy: bool = True
) -> None:
    """Make this machine look as if it had these libraries."""
    libraries = {detect.DRIVER: Driver() if driver else None, detect.NVML: nvml}
    monkeypatch.setattr(detect, "load", libraries.__getitem__)
    module = types.ModuleType("cupy")
    module.__spec__ = importlib.machinery.ModuleSpec("cupy", None)
    if cupy:
        monkeypatch.setitem(sys.modules, "cupy", module)
    else:
        monkeypatch.delitem(sys.modules, "cupy", raising=False)
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)


def test_the_cpu_is_always_there() -> None:
    cpu = gp.devices()[0]
    assert (cpu.kind, cpu.index, str(cpu)) == ("cpu", 0, "cpu")
    assert cpu.name
    assert cpu.memory_total is not None and cpu.memory_total > GIB // 4
    assert cpu.memory_free is not None and 0 < cpu.memory_free <= cpu.memory_total
    assert pickle.loads(pickle.dumps(cpu)) == cpu == gp.Device("cpu")


def test_gpus_are_described_and_nvml_is_closed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch)
    described = [(str(gpu), gpu.name, gpu.memory_total, gpu.memory_free) for gpu in gp.devices()[1:]]
    assert described == [("cuda:0", "Fake A", 8 * GIB, 2 * GIB), ("cuda:1", "Fake B", 16 * GIB, 4 * GIB)]
    assert TWO.open == 0


@pytest.mark.parametrize(
    ("visible", "names"),
    [
        ("1,0", ["Fake B", "Fake A"]),
        ("GPU-bbbb", ["Fake B"]),
        ("GPU-", []),  # two begin so: names neither
        ("0,7,1", ["Fake A"]),  # the first entry that names no device ends the list
        ("", []),
        ("-1", []),
        ("MIG-1234", ["CUDA device (MIG)"]),
    ],
)
def test_cuda_visible_devices(monkeypatch: pytest.MonkeyPatch, visible: str, names: list[str]) -> None:
    machine(monkeypatch)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [device.name for device in gp.devices()[1:]] == names


def test_without_nvml_the_number_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, nvml=None)
    monkeypatch.setattr(detect.glob, "glob", lambda pattern: [pattern])
    device = gp.devices()[1]
    assert (str(device), device.memory_total, device.memory_free) == ("cuda:0", None, None)
    with gp.use("cuda:3") as chosen:  # nobody knows that it is not there
        assert str(chosen) == "cuda:3"


def test_a_driver_library_alone_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, nvml=None)
    monkeypatch.setattr(detect.glob, "glob", lambda pattern: [])
    assert len(gp.devices()) == 1
    with pytest.raises(gp.DeviceError, match=r"NVML .*not found, and no GPU under /dev"):
        gp.use("cuda")


def test_asking_for_cuda_says_what_was_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, driver=False, cupy=False)
    with pytest.raises(gp.DeviceError) as error:
        gp.use("cuda")
    text = str(error.value)
    assert "'cuda' is not usable here; usable: 'cpu'" in text
    for line in (
        "pip install 'gpucompute[cuda13]'",
        "CUDA_VISIBLE_DEVICES: not set",
        f"driver library {detect.DRIVER}: not found",
    ):
        assert line in text

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(gp.DeviceError, match="CUDA_VISIBLE_DEVICES='': hides every GPU"):
        gp.use("cuda")


def test_an_index_too_large_lists_the_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch)
    with pytest.raises(gp.DeviceError, match=r"'cuda:2' is not usable here; usable: 'cpu', 'cuda:0', 'cuda:1'"):
        gp.use("cuda:2")


def test_a_gpu_without_cupy_is_listed_but_not_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, cupy=False)
    assert len(gp.devices()) == 3
    with pytest.raises(gp.DeviceError, match="package cupy: not installed"):
        gp.use("cuda")


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "cpu:1", ""])
def test_a_wrong_name_lists_the_valid_ones(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    with pytest.raises(gp.OptionError, match="expected 'cpu', 'cuda' or 'cuda:<index>'; usable here: 'cpu'"):
        gp.use(name)
    if name:
        monkeypatch.setenv("GPUCOMPUTE_DEVICE", name)
        with pytest.raises(gp.OptionError, match=f"GPUCOMPUTE_DEVICE={name!r}: expected"):
            gp.device()


def test_use_nests_and_the_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch)
    assert str(gp.device()) == "cpu"
    monkeypatch.setenv("GPUCOMPUTE_DEVICE", "cuda:1")
    assert str(gp.device()) == "cuda:1"
    with gp.use("cpu"):
        with contextlib.suppress(KeyError), gp.use("cuda"):
            assert str(gp.device()) == "cuda:0"
            raise KeyError
        assert str(gp.device()) == "cpu"
    assert str(gp.device()) == "cuda:1"


def test_use_is_seen_by_its_own_thread_and_task_only(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch)
    seen: list[str] = []
    with gp.use("cuda:1"):
        thread = threading.Thread(target=lambda: seen.append(str(gp.device())))
        thread.start()
        thread.join()
    assert seen == ["cpu"]

    async def task(name: str) -> str:
        with gp.use(name):
            await asyncio.sleep(0)  # let the others choose theirs
            return str(gp.device())

    async def together() -> list[str]:
        return list(await asyncio.gather(*map(task, ["cuda:0", "cpu", "cuda:1"])))

    assert asyncio.run(together()) == ["cuda:0", "cpu", "cuda:1"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_looks_for_itself() -> None:
    code = """
import os, gpucompute as gp
from gpucompute import detect
before = gp.devices()
if os.fork() == 0:
    gp.devices()
    os._exit(0 if gp.devices() == before and detect._search.cache_info().misses == 2 else 1)
raise SystemExit(os.waitstatus_to_exitcode(os.wait()[1]))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_asarray_on_the_cpu() -> None:
    x = np.arange(6.0).reshape(2, 3)
    assert gp.asarray(x) is x
    assert gp.asnumpy(x) is x
    assert gp.asarray([[1, 2]], dtype=gp.float32, device="cpu").dtype == np.float32
    assert gp.asarray(x, copy=True) is not x
    assert gp.asarray(x, order="F").flags.f_contiguous
    with pytest.raises(ValueError, match="copy"):
        gp.asarray(x, dtype="int8", copy=False)


def test_tensors_of_pytorch_are_not_copied() -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.arange(3)
    for array in (gp.asarray(tensor), gp.asnumpy(tensor), gp.from_dlpack(tensor)):
        assert array.__array_interface__["data"][0] == tensor.data_ptr()
    assert str(hardware.resolve(tensor.device)) == "cpu"


def test_bfloat16_of_pytorch_is_that_of_ml_dtypes(monkeypatch: pytest.MonkeyPatch) -> None:
    torch, ml_dtypes = pytest.importorskip("torch"), pytest.importorskip("ml_dtypes")
    tensor = torch.tensor([[1.5, -2.0]], dtype=torch.bfloat16)
    for array in (gp.asarray(tensor), gp.asnumpy(tensor)):
        assert array.dtype == ml_dtypes.bfloat16 and array.astype(np.float32).tolist() == [[1.5, -2.0]]
        assert array.__array_interface__["data"][0] == tensor.data_ptr()
    assert gp.asarray(tensor, dtype=np.float32).tolist() == [[1.5, -2.0]]
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(gp.DTypeError, match=r"torch.bfloat16 \(1, 2\).*pip install ml_dtypes.*x.float\(\)"):
        gp.asarray(tensor)


def test_the_dtype_of_arrays_of_all_libraries() -> None:
    class OnGpu:
        dtype = "torch.float32"
        __cuda_array_interface__: ClassVar = {"typestr": "<f2"}

    assert hardware.dtype_of(np.zeros(1, np.int8)) == np.int8
    assert hardware.dtype_of(OnGpu()) == np.float16
    torch = pytest.importorskip("torch")
    assert hardware.dtype_of(torch.zeros(1, dtype=torch.uint8)) == np.uint8


def test_arrays_of_dask_stay_lazy() -> None:
    da = pytest.importorskip("dask.array")
    x = da.arange(10, chunks=5)
    assert gp.asarray(x) is x
    assert gp.asarray(x, dtype="float32").dtype == np.float32
    assert isinstance(gp.asarray(x, device="cpu"), da.Array)
    assert gp.asnumpy(x).tolist() == list(range(10))


class FakeCupy(types.ModuleType):
    """Stands in for CuPy to show which of its functions are called and on which device; it computes nothing."""

    def __init__(self) -> None:
        super().__init__("cupy")
        self.current = 0
        fake = self

        class ndarray:
            __module__ = "cupy"
            __cuda_array_interface__: ClassVar = {"version": 3}

            def __init__(self, values: object) -> None:
                self.values, self.index = np.asarray(values), fake.current

            def get(self) -> np.ndarray:
                return self.values

        class Device:
            __module__ = "cupy.cuda.device"

            def __init__(self, index: int) -> None:
                self.id = index

            def __enter__(self) -> None:
                self.before, fake.current = fake.current, self.id

            def __exit__(self, *_: object) -> None:
                fake.current = self.before

        self.ndarray = ndarray
        self.cuda = types.SimpleNamespace(Device=Device)

    def asarray(self, x: object, **_: object) -> object:
        return x if isinstance(x, self.ndarray) else self.ndarray(x)

    def zeros(self, shape: int) -> object:
        return self.ndarray(np.zeros(shape))


class Traced:
    """Stands in for the proxies of `fuse`."""

    __module__ = "gpucompute.fusion.proxy"

    def __array_function__(self, function: object, *_: object) -> object:
        return function


def test_the_way_to_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch)
    cupy = FakeCupy()
    cupy.__spec__ = importlib.machinery.ModuleSpec("cupy", None)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    host = np.ones(3)

    with gp.use("cuda:1"):
        there, zeros, spaced = gp.asarray(host), gp.zeros(3), gp.geomspace(1, 4, 3)
        assert gp.linspace(0, Traced(), 3) is np.linspace
    assert [type(x) for x in (there, zeros, spaced)] == [cupy.ndarray] * 3
    assert [x.index for x in (there, zeros, spaced)] == [1, 1, 1]
    assert gp.asarray(host, device=cupy.cuda.Device(1)).index == 1
    assert gp.ones_like(host, device="cuda").get().tolist() == [1, 1, 1]

    assert gp.asarray(there) is there, "nobody chose a device: it stays"
    with gp.use("cpu"):
        assert type(gp.asarray(there)) is np.ndarray
        assert gp.array(there).tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match="must be copied to reach cpu"):
        gp.asarray(there, device="cpu", copy=False)
    assert gp.asnumpy(there) is there.values
