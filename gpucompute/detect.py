"""Find the CUDA devices of this machine without starting CUDA.

A CUDA context, and already ``cuInit``, makes the process unusable after a fork and costs hundreds of
milliseconds; so nothing here calls the driver. What is looked at, cheapest first, with the times of one
machine: ``CUDA_VISIBLE_DEVICES``, the package CuPy by `importlib.util.find_spec` (0.2 ms), the driver library by
loading it (4 ms; loading initialises nothing), and NVML, which counts devices without a context (4 ms).

NVML numbers devices in PCI order, CUDA by default the fastest first: with different GPUs in one machine set
``CUDA_DEVICE_ORDER=PCI_BUS_ID`` so that names and indices agree.
"""

from __future__ import annotations

import ctypes
import functools
import glob
import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

WINDOWS = sys.platform == "win32"
DRIVER = "nvcuda.dll" if WINDOWS else "libcuda.so.1"
NVML = "nvml.dll" if WINDOWS else "libnvidia-ml.so.1"
# A GPU without NVML (Jetson, some containers) shows as one of these; the driver library alone proves nothing,
# because CUDA's compatibility package installs it on machines without a GPU.
NODES = ("/dev/nvidia[0-9]*", "/dev/nvhost-gpu", "/dev/nvgpu", "/dev/dxg")


class Gpu(NamedTuple):
    """One visible GPU: its NVML identifier ("" without NVML), name and memory in bytes (None where unknown)."""

    uuid: str
    name: str
    memory: int | None


class Search(NamedTuple):
    """The outcome of looking for GPUs."""

    gpus: tuple[Gpu, ...]
    counted: bool  # False where no library could count them: then there may be more than are listed
    cupy: bool  # CuPy is installed
    looked: tuple[str, ...]  # one line for each thing looked at, for error messages


class _Memory(ctypes.Structure):
    _fields_ = [("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong)]


def search() -> Search:
    """Return the GPUs that CUDA would show this process."""
    # Keyed by process as well: what a forked child finds is its own.
    return _search(os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES"))


def memory_free(gpu: Gpu) -> int | None:
    """Return the free memory of `gpu` now, in bytes, or None where NVML cannot say."""
    if not gpu.uuid:
        return None
    with _nvml() as nvml:
        memory = None if nvml is None else _memory(nvml, _by_uuid(nvml, gpu.uuid))
    return None if memory is None else int(memory.free)


def extra() -> str:
    """Return the extra of this package that fits the driver: that of its CUDA version, the newest where unknown."""
    version = ctypes.c_int(0)
    with _nvml() as nvml:
        if nvml is not None and hasattr(nvml, "nvmlSystemGetCudaDriverVersion_v2"):
            nvml.nvmlSystemGetCudaDriverVersion_v2(ctypes.byref(version))
    return "cuda12" if 0 < version.value < 13000 else "cuda13"


@functools.lru_cache(maxsize=4)
def _search(_pid: int, visible: str | None) -> Search:
    cupy = importlib.util.find_spec("cupy") is not None
    package = "installed" if cupy else "not installed (pip install 'gpucompute[cuda13]')"
    looked = [f"package cupy: {package}"]

    def outcome(gpus: tuple[Gpu, ...] = (), *, counted: bool = True) -> Search:
        return Search(gpus, counted, cupy, tuple(looked))

    if visible is not None and visible.split(",")[0].strip() in ("", "-1"):
        looked.append(f"CUDA_VISIBLE_DEVICES={visible!r}: hides every GPU")
        return outcome()
    looked.append("CUDA_VISIBLE_DEVICES: " + ("not set" if visible is None else repr(visible)))
    if load(DRIVER) is None:
        looked.append(f"driver library {DRIVER}: not found (it comes with the NVIDIA driver)")
        return outcome()
    looked.append(f"driver library {DRIVER}: found")
    with _nvml() as nvml:
        if nvml is not None:
            gpus = _list(nvml)
            looked.append(f"NVML ({NVML}): lists {len(gpus)} GPU(s)")
            return outcome(_shown(gpus, visible))
    if WINDOWS or any(glob.glob(pattern) for pattern in NODES):
        looked.append(f"NVML ({NVML}): not found, so the GPUs cannot be counted")
        return outcome((Gpu("", "CUDA device", None),), counted=False)
    looked.append(f"NVML ({NVML}): not found, and no GPU under /dev")
    return outcome()


def load(name: str) -> ctypes.CDLL | None:
    """Load a shared library of the system, or return None where it is not there."""
    try:
        return ctypes.CDLL(name)
    except OSError:
        return None


@contextmanager
def _nvml() -> Iterator[Any]:
    """Open NVML for one enquiry, or give None; left open it would hold file descriptors across a fork."""
    nvml = load(NVML)
    if nvml is None or nvml.nvmlInit_v2() != 0:
        yield None
        return
    try:
        yield nvml
    finally:
        nvml.nvmlShutdown()


def _list(nvml: Any) -> list[Gpu]:
    count = ctypes.c_uint(0)
    if nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)) != 0:
        return []
    handles = []
    for index in range(count.value):
        handle = ctypes.c_void_p()
        if nvml.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(index), ctypes.byref(handle)) == 0:
            handles.append(handle)
    return [_describe(nvml, handle) for handle in handles]


def _describe(nvml: Any, handle: ctypes.c_void_p) -> Gpu:
    memory = _memory(nvml, handle)
    return Gpu(
        _text(nvml.nvmlDeviceGetUUID, handle),
        _text(nvml.nvmlDeviceGetName, handle) or "CUDA device",
        None if memory is None else int(memory.total),
    )


def _by_uuid(nvml: Any, uuid: str) -> ctypes.c_void_p | None:
    handle = ctypes.c_void_p()
    found = nvml.nvmlDeviceGetHandleByUUID(uuid.encode(), ctypes.byref(handle)) == 0
    return handle if found else None


def _memory(nvml: Any, handle: ctypes.c_void_p | None) -> _Memory | None:
    memory = _Memory()
    found = handle is not None and nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)) == 0
    return memory if found else None


def _text(function: Any, handle: ctypes.c_void_p) -> str:
    buffer = ctypes.create_string_buffer(96)  # NVML_DEVICE_NAME_V2_BUFFER_SIZE and the UUID's size
    return buffer.value.decode(errors="replace") if function(handle, buffer, ctypes.c_uint(96)) == 0 else ""


def _shown(gpus: list[Gpu], visible: str | None) -> tuple[Gpu, ...]:
    """Return what ``CUDA_VISIBLE_DEVICES`` leaves of `gpus`, in its order.

    As the CUDA programming guide says: entries are indices or the beginnings of UUIDs, and the first entry that
    names no device ends the list.
    """
    if visible is None:
        return tuple(gpus)
    shown: list[Gpu] = []
    for entry in (text.strip() for text in visible.split(",")):
        if entry.isdecimal():
            named = gpus[int(entry) : int(entry) + 1]
        elif entry.startswith("MIG-"):
            # A slice of a GPU; NVML lists only whole ones.
            named = [Gpu(entry, "CUDA device (MIG)", None)]
        else:
            named = [gpu for gpu in gpus if entry and gpu.uuid.startswith(entry)]
        if len(named) != 1:
            break
        shown += named
    return tuple(shown)
