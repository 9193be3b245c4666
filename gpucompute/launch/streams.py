"""On which stream a kernel runs, and who can put it there.

This is the one place that asks CuPy for its current stream. PyCUDA launches on the null stream and on streams that it
made itself, for it takes no handle; on any other stream CuPy launches.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from typing import Any

from ..errors import DeviceError
from . import arrays, drivers

LEGACY = 1  # the null stream, as ``__cuda_array_interface__`` names it


def cupy_in_use() -> Any:
    """Return the module CuPy if this process has loaded it and it has a driver; None otherwise."""
    cupy = sys.modules.get("cupy")
    return cupy if cupy is not None and _works(cupy) else None


@functools.lru_cache(maxsize=1)
def _works(cupy: Any) -> bool:
    try:
        return bool(cupy.cuda.runtime.getDeviceCount())
    except Exception:  # noqa: BLE001 - CuPy's own error for a missing driver, or one too old for it
        return False


def number_of(native: Any) -> int:
    """Return the handle of a stream that `choose` gave; 0 for the null stream."""
    return 0 if native is None else drivers.handle_of(native)


def choose(stream: Any, device: int) -> tuple[drivers.Driver, Any]:
    """Return who launches on `stream` (None: the current one) of a device, and the stream as it knows it.

    Raises
    ------
    DeviceError
        The stream is another library's and CuPy, which could use it, is missing.
    OptionError
        It is no stream.
    """
    if stream is None:
        cupy = cupy_in_use()
        if cupy is None:
            return drivers.preferred(), None
        stream = cupy.cuda.get_current_stream(device)
    pycuda = drivers.pycuda()
    if pycuda is not None and pycuda.owns(stream):
        return pycuda, stream
    handle = drivers.handle_of(stream)
    if handle == 0 and pycuda is not None:
        return pycuda, None
    other = drivers.cupy()
    if other is None:
        raise DeviceError(
            f"stream {stream!r}: PyCUDA launches on the null stream and on its own streams "
            "(pycuda.driver.Stream) only; install CuPy for other streams: pip install 'gpucompute[cuda13]'"
        )
    return other, stream if hasattr(stream, "ptr") else drivers.Foreign(handle)


def follow(operands: Sequence[Any], driver: drivers.Driver, device: int, native: Any) -> None:
    """Order a stream that `choose` gave after those on which arrays of other libraries are being made.

    Version 3 of ``__cuda_array_interface__`` names that stream: 1 the null stream, 2 the thread's own, else a handle;
    None asks for nothing. The stream waits, the CPU does not.
    """
    own = number_of(native) or LEGACY
    foreign = [x for x in operands if arrays.asked(x.__class__) is None]
    named = [(getattr(x, "__cuda_array_interface__", None) or {}).get("stream") for x in foreign]
    for made_on in {int(stream) or LEGACY for stream in named if stream is not None} - {own}:
        drivers.order(driver, device, made_on, own)
