"""Copies queued on a stream, page-locked memory, and counters: with a stand-in for CuPy, and PyCUDA's own code."""

from __future__ import annotations

import importlib.machinery
import inspect
import sys
import types
from typing import Any

import numpy as np
import pytest
from fake_cuda import machine_fixture, to_host  # noqa: F401 - a fixture

import gpucompute as gp
from gpucompute import detect
from gpucompute.launch import drivers, transfers
from gpucompute.testing.driver import Machine


class StandIn(types.ModuleType):
    """CuPy as far as copies go: `log` has what was copied, on which device and stream, and whether somebody waited."""

    def __init__(self) -> None:
        super().__init__("cupy")
        self.__spec__ = importlib.machinery.ModuleSpec("cupy", None)
        self.log: list[tuple[str, int, int, bool]] = []
        self.device, self.stream = 0, 0
        fake = self

        class ndarray:
            __module__ = "cupy"
            __cuda_array_interface__ = None  # that it has one is all that is asked

            def __init__(self, values: np.ndarray) -> None:
                self.values, self.device = values.copy(), types.SimpleNamespace(id=fake.device)
                self.shape, self.dtype = values.shape, values.dtype

            def get(self, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True) -> Any:
                fake.log.append(("get", fake.device, fake.stream, blocking))
                out[...] = self.values
                return out

        class Device:
            __module__ = "cupy.cuda.device"

            def __init__(self, index: int) -> None:
                self.id = index

            def __enter__(self) -> None:
                self.before, fake.device = fake.device, self.id

            def __exit__(self, *_: object) -> None:
                fake.device = self.before

        class Stream:
            __module__ = "cupy.cuda.stream"

            def __init__(self, ptr: int) -> None:
                self.ptr = ptr

            @classmethod
            def from_external(cls, stream: Any) -> Stream:
                return cls(stream.__cuda_stream__()[1])

            def __enter__(self) -> None:
                self.before, fake.stream = fake.stream, self.ptr

            def __exit__(self, *_: object) -> None:
                fake.stream = self.before

        self.ndarray = ndarray
        self.cuda = types.SimpleNamespace(Device=Device, Stream=Stream)

    def asarray(
        self, a: Any, dtype: Any = None, order: Any = None, *, copy: bool | None = None, blocking: bool = False
    ) -> Any:
        if isinstance(a, self.ndarray):
            return a
        self.log.append(("asarray", self.device, self.stream, blocking))
        return self.ndarray(np.asarray(a, dtype))


@pytest.fixture(name="cupy")
def cupy_fixture(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """The stand-in, on two devices."""
    fake = StandIn()
    gpus = [types.SimpleNamespace(name="fake", memory=1 << 30)] * 2
    found = types.SimpleNamespace(gpus=gpus, cupy=True, looked=[], counted=True)
    monkeypatch.setitem(sys.modules, "cupy", fake)
    monkeypatch.setattr(detect, "search", lambda: found)
    monkeypatch.setattr(drivers, "available", lambda: None)  # page-locked memory is ordinary memory then
    return fake


class Torch:
    cuda_stream = 0x51


class Protocol:
    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, 0x52


STREAMS = {"PyTorch": (Torch(), 0x51), "the protocol": (Protocol(), 0x52), "an address": (0x53, 0x53)}


@pytest.mark.parametrize("name", STREAMS)
def test_a_copy_is_queued_on_the_stream(cupy: StandIn, name: str) -> None:
    stream, handle = STREAMS[name]
    host = np.arange(6, dtype=np.float32).reshape(2, 3)
    there = gp.asarray(host, device="cuda:1", stream=stream)
    back = gp.asarray(there, device="cpu", stream=stream)
    assert cupy.log == [("asarray", 1, handle, False), ("get", 1, handle, False)], "on its device, and nobody waits"
    assert cupy.stream == cupy.device == 0, "what was current before is again"
    np.testing.assert_array_equal(back, host)


def test_a_stream_of_cupy_is_used_as_it_is(cupy: StandIn) -> None:
    stream = cupy.cuda.Stream(0x60)
    there = gp.asarray([1, 2], dtype=np.int16, device="cuda", stream=stream)
    assert (there.dtype, there.device.id, cupy.log) == (np.int16, 0, [("asarray", 0, 0x60, False)])
    assert gp.asarray(there, stream=stream) is there, "no copy is needed"


def test_without_a_stream_the_current_one_is_left_alone(cupy: StandIn) -> None:
    with cupy.cuda.Stream(0x70):
        gp.asarray(np.ones(2), device="cuda:1")
    assert cupy.log == [("asarray", 1, 0x70, False)]


def test_what_is_no_stream(cupy: StandIn) -> None:
    with pytest.raises(gp.OptionError, match="stream 'fast': expected a stream of CuPy, PyCUDA, PyTorch or numba"):
        gp.asarray(np.ones(2), device="cuda", stream="fast")


def test_the_stand_in_takes_what_cupy_takes() -> None:
    cupy = pytest.importorskip("cupy")
    theirs, ours = (inspect.signature(x).parameters.values() for x in (cupy.asarray, StandIn().asarray))
    assert [(p.name, p.kind, p.default) for p in theirs] == [(p.name, p.kind, p.default) for p in ours]
    assert "get(self, stream=None, order='C', out=None, blocking=True)" in cupy.ndarray.get.__doc__
    assert callable(cupy.cuda.Stream.from_external)


def test_page_locked_memory_is_filled_and_sent(machine: Machine) -> None:
    batch = gp.pinned_empty((3, 4), np.float32)
    batch[:] = np.arange(12).reshape(3, 4)
    machine.forget()
    there = drivers.with_memory(lambda: drivers.preferred().upload(batch, 1, None))
    assert machine.synchronisations() == 0 and machine.calls("cuMemcpyHtoDAsync_v2") == 1
    with drivers.preferred().active(1):
        np.testing.assert_array_equal(there.get(), batch)


def test_counters_are_zeroed_once_for_each_stream_and_device(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    first = transfers.counters(10, 0)
    assert first.dtype == np.int32 and first.size >= 10 and not to_host(first).any()
    assert transfers.counters(first.size, 0) is first
    larger = transfers.counters(first.size + 1, 0)
    assert larger.size > first.size and not to_host(larger).any()
    assert transfers.counters(10, 0) is larger
    other = transfers.counters(10, 1)
    assert other is not larger
    pycuda = drivers.preferred()
    with pycuda.active(0):
        streams = [drivers.pycuda()._driver.Stream() for _ in range(2)]
    for stream in streams:
        monkeypatch.setattr(transfers.streams, "choose", lambda given, device, stream=stream: (pycuda, stream))
        assert transfers.counters(10, 0) is not larger
        assert transfers.counters(10, 0) is transfers.counters(5, 0)
