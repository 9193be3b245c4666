"""The fake driver: PyCUDA's own code on it, failures on demand, and what runs a kernel."""

from __future__ import annotations

import importlib
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from fake_cuda import machine_fixture, pycuda, to_device, to_host  # noqa: F401 - a fixture

from gpucompute import testing
from gpucompute.launch import arrays, cubins, cuda
from gpucompute.testing import driver
from gpucompute.testing.driver import build

SOURCE = 'extern "C" __global__ void twice(int *x, int n) { for (int i = threadIdx.x; i < n; i += 4) x[i] *= 2; }'
PTX = """
.version 7.0
.target sm_75
.address_size 64
.visible .entry add(.param .u64 p, .param .u32 n, .param .f64 unused)
{
    .reg .b64 %rd<4>;
    .reg .b32 %r<4>;
    ld.param.u64 %rd1, [p];
    ld.param.u32 %r1, [n];
    cvta.to.global.u64 %rd2, %rd1;
    mov.u32 %r2, %tid.x;
    mul.wide.u32 %rd3, %r2, 4;
    add.s64 %rd2, %rd2, %rd3;
    ld.global.u32 %r3, [%rd2];
    add.s32 %r3, %r3, %r1;
    st.global.u32 [%rd2], %r3;
    ret;
}
"""


def call_in_context(name: str, *arguments: Any) -> Any:
    with pycuda().active(0):
        return getattr(importlib.import_module("pycuda.driver"), name)(*arguments)


def test_devices_and_memory(machine: driver.Machine) -> None:
    assert pycuda().devices == 2
    module = importlib.import_module("pycuda.driver")
    assert module.Device(1).name() == "Fake CUDA device 1" and module.Device(1).compute_capability() == (9, 0)
    assert call_in_context("mem_get_info") == (64 << 20, 64 << 20)
    array = to_device(np.arange(1000, dtype=np.int32), 1)
    assert (machine.used(0), machine.used(1)) == (0, 4096)
    assert any(block.tobytes() == np.arange(1000, dtype=np.int32).tobytes() for block in machine.memory())
    del array
    assert machine.used(1) == 0 and machine.context_depth == 0
    with pytest.raises(module.LogicError, match="invalid device ordinal"):
        module.Device(2)
    with pytest.raises(module.MemoryError, match="out of memory"):
        call_in_context("mem_alloc", 65 << 20)


def test_calls_need_a_context(machine: driver.Machine) -> None:
    module = importlib.import_module("pycuda.driver")
    with pytest.raises(module.LogicError, match="invalid device context"):
        module.mem_alloc(100)


def test_failures_on_demand_and_counts(machine: driver.Machine) -> None:
    module = importlib.import_module("pycuda.driver")
    machine.fail("cuMemAlloc_v2", driver.OUT_OF_MEMORY, times=2, after=1)  # PyCUDA tries twice
    kept = [to_device(np.zeros(1))]
    with pytest.raises(module.MemoryError, match="cuMemAlloc failed: out of memory"):
        to_device(np.zeros(1))
    kept.append(to_device(np.zeros(1)))
    assert machine.calls("cuMemAlloc_v2") == 4
    machine.forget()
    assert machine.calls("cuMemAlloc_v2") == 0
    call_in_context("Stream").synchronize()
    assert machine.synchronisations() == 1


def test_events_and_streams_are_pycudas(machine: driver.Machine) -> None:
    with pycuda().active(0):
        module = importlib.import_module("pycuda.driver")
        stream, start, end = module.Stream(), module.Event(), module.Event()
        start.record(stream)
        end.record(stream)
        stream.wait_for_event(end)
        end.synchronize()
        assert end.time_since(start) >= 0 and stream.is_done()


def test_an_emulator_library_is_itself_an_image(machine: driver.Machine) -> None:
    from gpucompute.testing.emulator import build as emulator
    from gpucompute.testing.emulator.source import load

    image = emulator.library(load(SOURCE + "\n")).read_bytes()
    x = to_device(np.arange(10, dtype=np.int32))
    cuda.Function(image, "twice", "Pi").launch((1, 1, 1), (4, 1, 1), [arrays.view(x).address, 10])
    assert to_host(x).tolist() == list(range(0, 20, 2))


def test_ptx_runs_in_the_interpreter(machine: driver.Machine) -> None:
    pytest.importorskip("gpucompute.testing.ptx")
    if not hasattr(testing, "run_ptx"):
        pytest.skip("no interpreter")
    x = to_device(np.arange(8, dtype=np.int32))
    function = cuda.Function(lambda arch: cubins.from_ptx(PTX, arch), "add", "Pid")
    function.launch((1, 1, 1), (8, 1, 1), [arrays.view(x).address, 100, 0.0])
    assert to_host(x).tolist() == list(range(100, 108))


def test_an_image_that_nobody_knows(machine: driver.Machine) -> None:
    module = importlib.import_module("pycuda.driver")
    with pytest.raises(module.Error, match="no kernel image is available"):
        call_in_context("module_from_buffer", b".version 7.0 unheard of")


def test_a_runner_that_raises_is_the_drivers_error(machine: driver.Machine) -> None:
    def run(*arguments: Any) -> None:
        raise ValueError("no such luck")

    machine.stand_in(b"// an image", run=run, kernels=["k"])
    with pytest.raises(Exception, match=r"kernel 'k' on cuda:0.*ValueError: no such luck"):
        cuda.Function(b"// an image", "k", "i").launch((1, 1, 1), (1, 1, 1), [1])


def test_what_it_lacks_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "extension", lambda: None)
    if build.compiler() is not None and sys.platform == "linux":
        assert build.missing() == "PyCUDA is not installed (python tools/build_pycuda.py builds it without a GPU)"


def test_the_process_ends_cleanly(machine: driver.Machine) -> None:
    code = """
import numpy as np
import gpucompute as gp
from gpucompute.launch import cuda, drivers
from gpucompute.testing import driver
with driver.running() as machine:
    x = drivers.pycuda().upload(np.zeros(4, np.int32), 0, None)
    gp.RawKernel('extern "C" __global__ void k(int *x) { x[threadIdx.x] = 1; }', "k")(1, 4, (x,))
    cuda.synchronize()
    print(machine.launches[0].name)
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "k", "")
