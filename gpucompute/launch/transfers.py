"""Between the memory of the CPU and that of a device, without waiting."""

from __future__ import annotations

import hashlib
import math
import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from .. import memory
from . import drivers, faults, forks, streams

LARGEST = 64 << 10  # bytes of an array that rides along
KEPT = 64  # such arrays

_PER_THREAD = 2  # the handle of a stream that is another one in each thread

_constants: OrderedDict[tuple[Any, ...], Any] = OrderedDict()
_counters: dict[tuple[Any, ...], Any] = {}
_lock = forks.renewed_lock(globals())


def pinned_empty(shape: int | Sequence[int], dtype: DTypeLike = np.float64) -> np.ndarray[Any, Any]:
    """Return an uninitialised NumPy array in page-locked memory, from which copies to a GPU run asynchronously.

    Page-locked memory is never swapped out, so a device reads and writes it while the CPU does other work. It is dear
    to make and taken from everyone's memory: make few arrays and fill them again and again. Without a GPU it is
    ordinary memory.

    Parameters
    ----------
    shape : int or sequence of int
    dtype : data-type

    Returns
    -------
    numpy.ndarray
        In C order.

    Raises
    ------
    DeviceMemoryError
        The system has not so much memory that it can lock.

    Examples
    --------
    >>> import gpucompute as gp
    >>> batch = gp.pinned_empty((8, 3), gp.uint8)
    >>> batch.shape, batch.flags.c_contiguous
    ((8, 3), True)
    """
    whole = (shape,) if isinstance(shape, int) else tuple(shape)
    kind = np.dtype(dtype)
    driver = drivers.available()
    if driver is None:
        return memory.empty(whole, kind)
    nbytes = math.prod(whole) * kind.itemsize
    try:
        block = drivers.with_memory(lambda: driver.pinned(nbytes))
    except Exception as error:
        raise faults.translated(error, f"page-locked memory of {nbytes} bytes for {kind} {whole}") from error
    return block.view(kind).reshape(whole)


def constant(array: np.ndarray[Any, Any], device: int, stream: Any = None) -> Any:
    """Return a copy of a small NumPy array on a device, kept by content for the next call.

    A copy belongs to the stream that it was made on, where it is complete before the next kernel; another stream gets
    a copy of its own, so that nobody waits.
    """
    driver, native = streams.choose(stream, device)
    content = hashlib.blake2b(np.ascontiguousarray(array).data, digest_size=16).digest()
    key = (os.getpid(), driver, device, streams.number_of(native), array.shape, array.dtype.str, content)
    with _lock:
        kept = _constants.get(key)
        if kept is None:
            kept = _constants[key] = drivers.with_memory(lambda: driver.upload(array, device, native))
            if len(_constants) > KEPT:
                _constants.popitem(last=False)
        else:
            _constants.move_to_end(key)
    return kept


def counters(count: int, device: int) -> Any:
    """Return at least `count` int32 on a device that are 0 for the next kernel on the current stream.

    They are zeroed once: kernels leave them as they were. Each stream has its own, for kernels of one stream run one
    after the other; so has each thread on the stream that CUDA calls per-thread.
    """
    driver, native = streams.choose(None, device)
    stream = streams.number_of(native)
    key = (os.getpid(), driver, device, stream, threading.get_ident() if stream == _PER_THREAD else 0)
    with _lock:
        kept = _counters.get(key)
        if kept is None or kept.size < count:
            zeros = np.zeros(max(1024, 1 << (count - 1).bit_length()), np.int32)
            kept = _counters[key] = drivers.with_memory(lambda: driver.upload(zeros, device, native))
    return kept


def clear() -> None:
    """Forget the copies that `constant` keeps, and the counters."""
    with _lock:
        _constants.clear()
        _counters.clear()
