"""What goes wrong on a device: words that kernels write, and the driver's errors as ours.

A kernel cannot raise. It writes into page-locked memory of the host, which the host reads without a copy and without
waiting: at a later launch, at the next synchronisation or copy through this package, or after each launch where
``GPUCOMPUTE_SYNC=1`` is set.
"""

from __future__ import annotations

import functools
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..config import integer
from ..errors import DeviceMemoryError, GpucomputeError, LaunchError
from . import drivers

_RECORDS = 512  # in a page of page-locked memory
_WORDS = 3

_lock = threading.Lock()
_free: list[np.ndarray[Any, np.dtype[np.int64]]] = []
_living: weakref.WeakSet[Record] = weakref.WeakSet()


class Record:
    """Three words that a kernel writes when an index is out of range: index, length, and last its site, from 1.

    Parameters
    ----------
    explain : callable
        ``explain(site: int, index: int, length: int) -> Exception``, what to raise.
    """

    def __init__(self, explain: Callable[[int, int, int], Exception]) -> None:
        with _lock:
            if not _free:
                page = drivers.preferred().pinned(_RECORDS * _WORDS * 8).view(np.int64).reshape(_RECORDS, _WORDS)
                page[:] = 0
                _free.extend(page)
            self._words = _free.pop()
        self._explain = explain
        _living.add(self)
        weakref.finalize(self, _free.append, self._words).atexit = False

    @property
    def address(self) -> int:
        """The address of the words, (site, index, length) as int64, for a kernel's parameter."""
        return int(self._words.ctypes.data)

    def check(self) -> None:
        """Raise what kernels have written so far, once."""
        if self._words[0]:
            site, index, length = self._words.tolist()
            self._words[:] = 0
            raise self._explain(site, index, length)


def check() -> None:
    """Raise what kernels have written so far into any record."""
    for record in list(_living):
        record.check()


@functools.cache
def synchronous() -> bool:
    """Whether to wait after each launch: ``GPUCOMPUTE_SYNC=1`` in the environment when it is first asked."""
    return integer("GPUCOMPUTE_SYNC", 0) != 0


def synchronize(driver: drivers.Driver, device: int, stream: Any, what: Callable[[], str]) -> None:
    """Wait for a stream, and raise what its kernels have left behind; `what` names the last of them."""
    try:
        driver.synchronize(device, stream)
    except Exception as error:
        raise translated(error, what()) from error
    check()


# What the driver says, found in PyCUDA's and CuPy's messages alike -> what to do.
_LOST = (
    "CUDA tells late: the fault may be an earlier kernel's, and the device cannot be used by this process any more. "
    "Start anew with GPUCOMPUTE_SYNC=1 in the environment to learn which kernel it is, and look for an index out of "
    "range with gpucompute.testing.check or compute-sanitizer"
)
_ADVICE = (
    (("no kernel image", "NO_BINARY_FOR_GPU"), "the code is for another architecture: `gpucompute cache clear`"),
    (
        ("kernel image is invalid", "INVALID_IMAGE", "unsupported toolchain", "UNSUPPORTED_PTX_VERSION"),
        (
            "the compiler's CUDA is newer than the driver: install the extra of the driver's version (cuda12 or "
            "cuda13; nvidia-smi shows it), or a newer driver"
        ),
    ),
    (("too many resources", "LAUNCH_OUT_OF_RESOURCES"), "use fewer threads in a block, or less shared memory"),
    (
        ("invalid argument", "INVALID_VALUE"),
        (
            "a grid is at most (2147483647, 65535, 65535), a block has at most 1024 threads, and dynamic shared memory "
            "is limited by the device; a kernel with __launch_bounds__ takes no larger blocks"
        ),
    ),
    (("named symbol not found",), 'the code has no kernel of this name: is it extern "C"?'),
    (("invalid resource handle", "invalid device context"), "the stream belongs to another device than the arrays"),
    (("illegal memory access", "misaligned address", "unspecified launch failure", "device-side assert"), _LOST),
    (
        ("initialization error", "NOT_INITIALIZED"),
        (
            "CUDA does not work in a process that was forked after it started: start workers with "
            "multiprocessing.get_context('spawn'), or use the GPU in the children only"
        ),
    ),
    (("illegal instruction", "invalid program counter", "stack"), _LOST),
)


def of_the_driver(error: Exception) -> bool:
    """Whether an error is one of PyCUDA or CuPy, and not a mistake in a call."""
    return type(error).__module__.partition(".")[0] in ("pycuda", "cupy", "cupy_backends")


def translated(error: Exception, what: str) -> GpucomputeError:
    """Return our error for one of PyCUDA or CuPy: what was done, what the driver says, what to do."""
    said = str(error).strip()
    if drivers.out_of_memory(error):
        return DeviceMemoryError(
            f"{what}: {said}, also after the idle blocks of the memory pool were freed. "
            "Delete arrays, work in smaller pieces, or see with nvidia-smi who else uses the device"
        )
    advice = next((text for words, text in _ADVICE if any(word in said for word in words)), "")
    return LaunchError(f"{what}: {said}" + (f". {advice}" if advice else ""))


def describe(operands: Sequence[Any]) -> str:
    """Return shapes and dtypes of arrays for an error, "float32 (3, 4), uint8 (10,)"."""
    texts = []
    for array in operands:
        interface = getattr(array, "__cuda_array_interface__", None)
        dtype = getattr(array, "dtype", None) if interface is None else np.dtype(interface["typestr"])
        shape = getattr(array, "shape", None) if interface is None else interface["shape"]
        texts.append(repr(array) if shape is None else f"{dtype} {tuple(shape)}")
    return ", ".join(texts)


def _after_fork() -> None:
    """Start anew in a child, which cannot use its parent's CUDA."""
    global _lock
    _lock = threading.Lock()
    _free.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
