"""What of the GPU side works on this machine, and the command that mends what does not."""

from __future__ import annotations

import importlib
import importlib.util
import shutil
from collections.abc import Callable
from typing import NamedTuple

PROBE = 'extern "C" __global__ void probe(int *x) { *x = 1; }'
PTX = ".version 7.0\n.target sm_75\n.address_size 64\n.visible .entry probe() { ret; }\n"
ARCHITECTURE = "sm_90"


class Part(NamedTuple):
    """A part: whether it works, what was seen, and what to do if it does not ("" for nothing)."""

    name: str
    works: bool
    why: str
    mend: str


def look() -> list[Part]:
    """Try each part; a GPU is asked for its number of devices only."""
    return [part() for part in (_gpu, _cupy, _nvrtc, _nvjitlink, _numba, _pycuda, _emulator)]


def _gpu() -> Part:
    from .. import detect

    found = detect.search()
    if found.gpus:
        return Part("gpu", True, ", ".join(gpu.name for gpu in found.gpus), "")
    return Part("gpu", False, found.looked[-1], "install NVIDIA's driver; without a GPU the emulator runs kernels")


def _install() -> str:
    from .. import detect

    return f"pip install 'gpucompute[{detect.extra()}]'"


def _cupy() -> Part:
    if importlib.util.find_spec("cupy") is None:
        return Part("cupy", False, "arrays on a GPU need it; not installed", _install())
    try:
        cupy = importlib.import_module("cupy")
        count = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:  # noqa: BLE001 - CuPy's own errors, and those of an extension that does not load
        return Part("cupy", False, _line(error), f"once there is a GPU: {_install()}")
    return Part("cupy", True, f"{cupy.__version__}, {count} device(s)", "")


def _tried(name: str, purpose: str, call: Callable[[], object]) -> Part:
    from ..errors import CompileError, MissingExtraError

    try:
        call()
    except MissingExtraError:
        return Part(name, False, f"{purpose}; not installed", _install())
    except (CompileError, OSError, RuntimeError) as error:
        return Part(name, False, f"{purpose}; {_line(error)}", _install())
    return Part(name, True, f"{purpose}; compiled a kernel for {ARCHITECTURE}", "")


def _nvrtc() -> Part:
    from ..launch import nvrtc

    return _tried("nvrtc", "compiles CUDA C++", lambda: nvrtc.compile_cuda(PROBE, ARCHITECTURE))


def _nvjitlink() -> Part:
    from ..launch import nvrtc

    return _tried("nvjitlink", "assembles fused kernels", lambda: nvrtc.compile_ptx(PTX, ARCHITECTURE))


def _numba() -> Part:
    # numba itself has a `numba.cuda`, old and without a compiler; the package's own module tells them apart.
    if importlib.util.find_spec("numba_cuda") is None:
        return Part("numba-cuda", False, "compiles fused kernels; not installed", _install())
    return Part("numba-cuda", True, "compiles fused kernels", "")


def _pycuda() -> Part:
    purpose = "launches with less overhead, not needed"
    if importlib.util.find_spec("pycuda") is None:
        return Part("pycuda", False, f"{purpose}; not installed", "pip install 'gpucompute[pycuda]' (see the README)")
    try:
        driver = importlib.import_module("pycuda.driver")
        driver.init()
        return Part("pycuda", True, f"{purpose}; {driver.Device.count()} device(s)", "")
    except Exception as error:  # noqa: BLE001 - ImportError without libcuda, PyCUDA's own errors without a device
        return Part("pycuda", False, f"{purpose}; {_line(error)}", "it needs NVIDIA's driver and a GPU")


def _emulator() -> Part:
    compiler = next(filter(None, map(shutil.which, ("g++", "clang++", "c++"))), None)
    if compiler is None:
        return Part("emulator", False, "runs CUDA C++ on the CPU; no C++ compiler", "install g++ or clang++")
    return Part("emulator", True, f"runs CUDA C++ on the CPU; {compiler}", "")


def _line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
