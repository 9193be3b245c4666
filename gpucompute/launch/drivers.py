"""PyCUDA and CuPy behind the same few calls. Both work in the primary context of a device, so their memory is shared.

PyCUDA comes first: a prepared call takes about 5 µs. Its stack of contexts is each thread's own, so the context is
pushed for each call and taken off again. It cannot be imported without a driver and is no dependency; without it CuPy
loads the same cubins.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import os
import re
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from .. import detect
from ..errors import DeviceError, LaunchError, MissingExtraError, OptionError

Result = TypeVar("Result")
# launch(grid, block, words, bytes of dynamic shared memory, stream)
Launcher = Callable[[tuple[int, ...], tuple[int, ...], Sequence[Any], int, Any], object]

# What a kernel's parameters are called, as in the module struct; "P" is an address.
SCALARS: dict[str, type[np.generic]] = {
    "?": np.bool_, "b": np.int8, "B": np.uint8, "h": np.int16, "H": np.uint16, "i": np.int32, "I": np.uint32,
    "q": np.int64, "Q": np.uint64, "P": np.uint64, "e": np.float16, "f": np.float32, "d": np.float64,
}  # fmt: skip
USUAL_SHARED = 48 << 10  # bytes of dynamic shared memory that a kernel may have without asking
_SHARED_LIMIT = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
_POINTER_DEVICE = 9  # CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL
_NO_TIMES = 2  # CU_EVENT_DISABLE_TIMING: such an event is cheaper


class Foreign(NamedTuple):
    """The handle of a stream that neither CuPy nor PyCUDA made, in CuPy's form."""

    ptr: int

    def __cuda_stream__(self) -> tuple[int, int]:
        """Return the version of this protocol, and the handle."""
        return 0, self.ptr


def handle_of(stream: Any) -> int:
    """Return the address of a stream of CuPy, PyTorch, numba or anyone who has ``__cuda_stream__``."""
    if isinstance(stream, int):
        return stream
    for name in ("ptr", "cuda_stream"):  # CuPy's name and PyTorch's
        if (value := getattr(stream, name, None)) is not None:
            return int(value)
    if hasattr(stream, "__cuda_stream__"):
        return int(stream.__cuda_stream__()[1])
    handle = getattr(stream, "handle", None)  # numba's, a ctypes pointer
    if handle is not None:
        return int(getattr(handle, "value", handle) or 0)
    raise OptionError(f"stream {stream!r}: expected a stream of CuPy, PyCUDA, PyTorch or numba, its address, or None")


def on_stream(cupy: Any, stream: Any) -> AbstractContextManager[Any]:
    """Return a context in which CuPy works on a stream of any library; None leaves its choice alone."""
    if stream is None:
        return contextlib.nullcontext()
    if type(stream).__module__.partition(".")[0] == "cupy":
        return stream  # type: ignore[no-any-return]
    return _as_cupy(cupy, handle_of(stream))  # type: ignore[no-any-return]


def _as_cupy(cupy: Any, handle: int) -> Any:
    if hasattr(cupy.cuda.Stream, "from_external"):  # CuPy 14, which deprecates the other
        return cupy.cuda.Stream.from_external(Foreign(handle))
    return cupy.cuda.ExternalStream(handle)


class Driver(Protocol):
    """What `cuda.py` and `gpucompute.profile` need of a library that drives CUDA."""

    name: str
    devices: int  # how many there are

    def capability(self, device: int) -> tuple[int, int]:
        """Return the compute capability of a device."""

    def memory_free(self, device: int) -> int:
        """Return the free memory of a device, in bytes."""

    def active(self, device: int) -> AbstractContextManager[Any]:
        """Make the primary context of a device this thread's current one inside a ``with`` block."""

    def load(self, device: int, code: bytes) -> Any:
        """Load a cubin and return the module; it stays loaded until the process ends."""

    def launcher(self, device: int, module: Any, symbol: str, parameters: str, shared: int) -> Launcher:
        """Return a function that launches a kernel of a module; `shared`: bytes that it may ask for."""

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any], device: int) -> Any:
        """Return an uninitialised array on a device."""

    def pinned(self, nbytes: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Return page-locked memory that all devices can address."""

    def upload(self, array: np.ndarray[Any, Any], device: int, stream: Any) -> Any:
        """Return a copy of `array` on a device, made in the order of `stream`."""

    def copy(self, target: Any, source: Any, device: int, stream: Any) -> None:
        """Copy one array on a device over another."""

    def record(self, device: int, stream: Any) -> Any:
        """Record an event on a stream."""

    def milliseconds(self, start: Any, end: Any) -> float:
        """Wait for `end` and return the time between two events."""

    def synchronize(self, device: int, stream: Any) -> None:
        """Wait until a stream has done its work."""

    def free(self) -> None:
        """Give the idle memory of the pool back to the devices."""


class PyCuda:
    """PyCUDA; a stream is one of its own, or None for the null stream."""

    name = "PyCUDA"

    def __init__(self) -> None:
        import pycuda.driver

        self._driver = pycuda.driver
        self._local = threading.local()
        self._driver.init()
        self.devices = int(self._driver.Device.count())

    def capability(self, device: int) -> tuple[int, int]:
        major, minor = self._driver.Device(device).compute_capability()
        return major, minor

    def owns(self, stream: Any) -> bool:
        return isinstance(stream, self._driver.Stream)

    def _context(self, device: int) -> Any:
        # Each thread's own object for the one primary context: PyCUDA frees arrays and events only in the thread that
        # made the object, and otherwise warns and leaks them.
        contexts: dict[str, Any] = self._local.__dict__
        name = f"of device {device}"
        context = contexts.get(name)
        if context is None:
            context = contexts[name] = _keep(self._driver.Device(device).retain_primary_context())
        return context

    @contextmanager
    def active(self, device: int) -> Iterator[None]:
        context = self._context(device)
        context.push()
        try:
            yield
        finally:
            context.pop()

    def memory_free(self, device: int) -> int:
        with self.active(device):
            return int(self._driver.mem_get_info()[0])

    def load(self, device: int, code: bytes) -> Any:
        with self.active(device):
            return _keep(self._driver.module_from_buffer(code))

    def launcher(self, device: int, module: Any, symbol: str, parameters: str, shared: int) -> Launcher:
        with self.active(device):
            function = module.get_function(symbol)
            if shared > USUAL_SHARED:
                function.set_attribute(self._driver.function_attribute.MAX_DYNAMIC_SHARED_SIZE_BYTES, shared)
        context = self._context(device)
        push, pop = context.push, context.pop
        # The words are packed here, so that all layouts go the same way. This is what PyCUDA's prepared calls end in,
        # after 3 µs of Python and a deprecated call of the driver that sets the shape of blocks.
        pack = struct.Struct(parameters).pack
        call = function._launch_kernel

        def launch(grid: Any, block: Any, words: Sequence[Any], shared: int, stream: Any) -> None:
            packed = pack(*words)
            push()
            try:
                call(grid, block, packed, shared, stream)
            finally:
                pop()

        return launch

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any], device: int) -> Any:
        from pycuda.gpuarray import GPUArray

        with self.active(device):
            return GPUArray(shape, dtype)  # PyCUDA's pool aborts where an array dies while no context is current

    def pinned(self, nbytes: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        flags = self._driver.host_alloc_flags
        with self.active(0):
            memory = self._driver.pagelocked_empty(max(nbytes, 1), np.uint8, mem_flags=flags.PORTABLE | flags.DEVICEMAP)
        return memory[:nbytes]  # type: ignore[no-any-return]

    def upload(self, array: np.ndarray[Any, Any], device: int, stream: Any) -> Any:
        target = self.empty(array.shape, array.dtype, device)
        if array.size:
            with self.active(device):
                self._driver.memcpy_htod_async(target.gpudata, np.ascontiguousarray(array), stream)
        return target

    def copy(self, target: Any, source: Any, device: int, stream: Any) -> None:
        with self.active(device):
            self._driver.memcpy_dtod_async(target.gpudata, source.gpudata, source.nbytes, stream)

    def record(self, device: int, stream: Any) -> Any:
        with self.active(device):
            return device, self._driver.Event().record(stream)

    def milliseconds(self, start: Any, end: Any) -> float:
        with self.active(end[0]):
            end[1].synchronize()
            return float(end[1].time_since(start[1]))

    def synchronize(self, device: int, stream: Any) -> None:
        with self.active(device):
            if stream is None:
                self._driver.Context.synchronize()
            else:
                stream.synchronize()

    def free(self) -> None:
        """Do nothing: PyCUDA frees an array when it dies."""


def _keep(owner: Any) -> Any:
    """Keep an object of PyCUDA until the process ends.

    PyCUDA frees a module only in the thread that made the context, and leaves a primary context that it gives back on
    the thread's stack.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(owner))
    return owner


def _scalar(count: str, letter: str) -> Callable[[Any], Any]:
    """Return what makes CuPy's argument of a word: a NumPy scalar, or for bytes a structure."""
    return SCALARS[letter] if letter != "s" else lambda word: np.frombuffer(word, f"V{count}")[0]


class Cupy:
    """CuPy; a stream is anything with a `ptr`, or None for the current one."""

    name = "CuPy"

    def __init__(self) -> None:
        import cupy

        self._cupy = cupy
        self.devices = int(cupy.cuda.runtime.getDeviceCount())

    def capability(self, device: int) -> tuple[int, int]:
        text = self._cupy.cuda.Device(device).compute_capability
        return int(text[:-1]), int(text[-1])

    def active(self, device: int) -> AbstractContextManager[Any]:
        return self._cupy.cuda.Device(device)  # type: ignore[no-any-return]

    def _stream(self, stream: Any) -> Any:
        if stream is None:
            return self._cupy.cuda.get_current_stream()
        return stream if hasattr(stream, "synchronize") else _as_cupy(self._cupy, stream.ptr)

    def memory_free(self, device: int) -> int:
        with self.active(device):
            return int(self._cupy.cuda.runtime.memGetInfo()[0])

    def load(self, device: int, code: bytes) -> Any:
        with self.active(device):
            module = self._cupy.cuda.function.Module()
            module.load(code)
        return module

    def launcher(self, device: int, module: Any, symbol: str, parameters: str, shared: int) -> Launcher:
        with self.active(device):
            function = module.get_function(symbol)
            if shared > USUAL_SHARED:
                self._cupy.cuda.driver.funcSetAttribute(function.ptr, _SHARED_LIMIT, shared)
        kinds = [_scalar(*code) for code in re.findall(r"(\d*)([^\d<x])", parameters)]
        current = self._cupy.cuda.Device

        def launch(grid: Any, block: Any, words: Sequence[Any], shared: int, stream: Any) -> None:
            values = [kind(word) for kind, word in zip(kinds, words, strict=True)]
            with current(device):
                function(grid, block, values, shared_mem=shared, stream=stream)

        return launch

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any], device: int) -> Any:
        with self.active(device):
            return self._cupy.empty(shape, dtype)

    def pinned(self, nbytes: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        memory = self._cupy.cuda.alloc_pinned_memory(max(nbytes, 1))
        return np.frombuffer(memory, np.uint8, nbytes)

    def upload(self, array: np.ndarray[Any, Any], device: int, stream: Any) -> Any:
        with self.active(device), on_stream(self._cupy, stream):
            return self._cupy.asarray(array, blocking=False)

    def copy(self, target: Any, source: Any, device: int, stream: Any) -> None:
        with self.active(device), on_stream(self._cupy, stream):
            target.data.copy_from_device_async(source.data, source.nbytes)

    def record(self, device: int, stream: Any) -> Any:
        with self.active(device):
            event = self._cupy.cuda.Event()
            event.record(self._stream(stream))
        return event

    def milliseconds(self, start: Any, end: Any) -> float:
        end.synchronize()
        return float(self._cupy.cuda.get_elapsed_time(start, end))

    def synchronize(self, device: int, stream: Any) -> None:
        with self.active(device):
            self._stream(stream).synchronize()

    def free(self) -> None:
        # What allocates now may be another pool than CuPy's own: cupy.cuda.set_allocator, using_allocator.
        current = getattr(self._cupy.cuda.get_allocator(), "__self__", None)
        pools = [self._cupy.get_default_memory_pool(), self._cupy.get_default_pinned_memory_pool(), current]
        for pool in pools:
            if hasattr(pool, "free_all_blocks"):
                pool.free_all_blocks()


@functools.cache
def _make(kind: type[PyCuda | Cupy]) -> Any:
    try:
        driver = kind()
        return driver if driver.devices else None
    except Exception:  # noqa: BLE001 - not installed, no libcuda, or no device: each library has its own errors
        return None


def forget() -> None:
    """Look again for what is there at the next call."""
    for cached in (_make, count, _library):
        cached.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=forget)  # CUDA tells the child that it cannot use its parent's


def pycuda() -> PyCuda | None:
    """Return PyCUDA if it is installed and finds a device."""
    return _make(PyCuda)  # type: ignore[no-any-return]


def cupy() -> Cupy | None:
    """Return CuPy if it is installed and finds a device."""
    return _make(Cupy)  # type: ignore[no-any-return]


def available() -> Driver | None:
    """Return PyCUDA, or else CuPy, or None where neither finds a device."""
    return pycuda() or cupy()


def preferred() -> Driver:
    """Return PyCUDA, or else CuPy.

    Raises
    ------
    MissingExtraError
        There are GPUs, and neither is installed.
    DeviceError
        There is no GPU that they could use.
    """
    driver = available()
    if driver is not None:
        return driver
    found = detect.search()
    if found.gpus and not found.cupy:
        raise MissingExtraError("cupy", "cuda13", "launching on a GPU")
    raise DeviceError(
        "no GPU that CUDA can use. Looked at:" + "".join(f"\n  - {line}" for line in found.looked) + "\n"
        "`gpucompute info` says what is missing."
    )


@functools.cache
def count() -> int:
    """Return how many devices the preferred driver has."""
    return preferred().devices


@functools.cache
def _library() -> Any:
    """Return the driver's library itself, for what PyCUDA cannot be asked; None where it is not found."""
    library = detect.load(detect.DRIVER)
    if library is not None:
        library.cuPointerGetAttribute.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_uint64]
        library.cuEventCreate.argtypes = [ctypes.c_void_p, ctypes.c_uint]
        library.cuEventRecord.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
        library.cuStreamWaitEvent.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint]
        library.cuEventDestroy_v2.argtypes = [ctypes.c_void_p]
    return library


def device_of_address(address: int) -> int:
    """Return the index of the device whose memory an address lies in; 0 where it lies in none (an empty array)."""
    index = ctypes.c_int(0)
    library = _library()
    if library is None or library.cuPointerGetAttribute(ctypes.byref(index), _POINTER_DEVICE, address):
        return 0
    return max(0, index.value)


def order(driver: Driver, device: int, before: int, after: int) -> None:
    """Make the stream `after` wait for what the stream `before` holds now, both given by their handles.

    PyCUDA records events only on streams of its own, so the driver is called itself.
    """
    library, event = _library(), ctypes.c_void_p()
    with driver.active(device):
        status = library.cuEventCreate(ctypes.byref(event), _NO_TIMES)
        if not status:
            status = library.cuEventRecord(event, before) or library.cuStreamWaitEvent(after, event, 0)
            library.cuEventDestroy_v2(event)  # CUDA keeps it until it has been reached
    if status:
        raise LaunchError(
            f"cuda:{device}: waiting for the stream {before:#x}, on which an argument is being made, failed with "
            f"CUDA's error {status}; the array names the stream in __cuda_array_interface__"
        )


def for_arrays() -> Driver:
    """Return the driver that allocates: CuPy, whose arrays users expect; else PyCUDA."""
    return cupy() or preferred()


def out_of_memory(error: BaseException) -> bool:
    """Whether an error of PyCUDA or CuPy says that a device is full."""
    return "out of memory" in str(error).lower() or "OutOfMemory" in type(error).__name__


def free_idle() -> None:
    """Give all idle blocks of the pools back to the devices."""
    gc.collect()  # arrays in reference cycles hold blocks too
    for driver in (pycuda(), cupy()):
        if driver is not None:
            driver.free()


def with_memory(call: Callable[[], Result]) -> Result:
    """Return ``call()``; where a device is full, free the idle blocks of the pools and try once more."""
    try:
        return call()
    except Exception as error:
        if not out_of_memory(error):
            raise
    free_idle()
    return call()
