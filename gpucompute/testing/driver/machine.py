"""The fake driver as tests see it: what is there, what shall fail, what was called, and what runs a kernel."""

from __future__ import annotations

import ctypes
import functools
import gc
import hashlib
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ... import detect
from ...launch import cubins, drivers, nvrtc, streams, transfers
from . import build

OUT_OF_MEMORY, INVALID_IMAGE, NO_BINARY_FOR_GPU, ILLEGAL_ADDRESS, LAUNCH_FAILED = 2, 200, 209, 700, 719

# What returns only when a device has done its work (CUDA Driver API, "API synchronization behavior").
_WAITING = "cuCtxSynchronize", "cuStreamSynchronize", "cuEventSynchronize", "cuMemcpyHtoD_v2", "cuMemcpyDtoH_v2"

# Runs a kernel: name, grid, block, bytes of shared memory, packed parameters.
Runner = Callable[[str, tuple[int, ...], tuple[int, ...], int, bytes], object]
Array = np.ndarray[Any, np.dtype[Any]]

_text = ctypes.POINTER(ctypes.c_char)
_LOADER = ctypes.CFUNCTYPE(
    ctypes.c_int, _text, ctypes.c_size_t, _text, ctypes.c_size_t, ctypes.POINTER(ctypes.c_uint64)
)
_dim = ctypes.POINTER(ctypes.c_uint)
_RUNNER = ctypes.CFUNCTYPE(
    *(ctypes.c_int, ctypes.c_uint64, ctypes.c_char_p, _dim, _dim, ctypes.c_uint),
    *(ctypes.c_void_p, ctypes.c_size_t, _text, ctypes.c_size_t),
)


class Launch(NamedTuple):
    """A kernel that was launched, and where: the device's index and the stream's handle (0: the null stream)."""

    name: str
    device: int
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    shared_mem: int
    stream: int


class Wait(NamedTuple):
    """A stream that was told to wait for another one, by their handles, and how many kernels were launched before."""

    stream: int
    after: int
    launches: int


class _Entry(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char * 256),
        ("device", ctypes.c_int),
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared", ctypes.c_uint),
        ("stream", ctypes.c_size_t),
    ]


class _Image(NamedTuple):
    """What an image stands for: a library of the emulator, made when it is loaded, or a runner for some kernels."""

    library: Callable[[], Path] | None
    run: Runner | None
    kernels: frozenset[str]


class Machine:
    """The fake devices of this process. There is one; `running` gives it."""

    def __init__(self) -> None:
        self._library = library = ctypes.CDLL(str(build.library()))
        library.fake_configure.argtypes = [ctypes.c_int, ctypes.c_size_t, ctypes.c_int, ctypes.c_int]
        library.fake_fail.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_int, ctypes.c_long]
        library.fake_calls.argtypes, library.fake_calls.restype = [ctypes.c_char_p], ctypes.c_long
        library.fake_launch.argtypes, library.fake_launch.restype = [ctypes.c_long], ctypes.POINTER(_Entry)
        library.fake_launches.restype = library.fake_blocks.restype = ctypes.c_long
        library.fake_wait.argtypes, library.fake_wait.restype = [ctypes.c_long], ctypes.POINTER(ctypes.c_size_t)
        library.fake_waits.restype = ctypes.c_long
        library.fake_used.restype = ctypes.c_size_t
        self._images: dict[str, _Image] = {}
        self._loaded: list[_Image] = []
        self._callbacks = _LOADER(self._load), _RUNNER(self._run)  # the library holds only their addresses
        library.fake_callbacks(*self._callbacks)

    def configure(self, devices: int = 1, memory: int = 1 << 30, capability: tuple[int, int] = (9, 0)) -> None:
        """Say how many devices there are (8 at most), how many bytes each has, and their compute capability."""
        self._library.fake_configure(devices, memory, *capability)

    def fail(self, function: str, status: int, *, times: int = 1, after: int = 0) -> None:
        """Make a driver function return `status`: `times` times, after it was called `after` times more.

        `function` is the exported name: ``"cuMemAlloc_v2"``, ``"cuLaunchKernel"``, ``"cuStreamSynchronize"``.
        """
        self._library.fake_fail(function.encode(), status, times, after)

    def forget(self) -> None:
        """Forget failures that were asked for, counts and launches."""
        self._library.fake_forget()

    def calls(self, *functions: str) -> int:
        """Return how often driver functions were called since `forget`."""
        return sum(self._library.fake_calls(name.encode()) for name in functions)

    def synchronisations(self) -> int:
        """Return how often anyone waited for a device since `forget`, by a copy that blocks too."""
        return self.calls(*_WAITING)

    def frees(self) -> int:
        """Return how often memory of a device was freed since `forget`; a real device is waited for each time."""
        return self.calls("cuMemFree_v2")

    @property
    def waits(self) -> list[Wait]:
        """The streams that were told to wait for another one since `forget`, the last 256 times."""
        count = self._library.fake_waits()
        return [Wait(*self._library.fake_wait(i)[:3]) for i in range(max(0, count - 256), count)]

    @property
    def launches(self) -> list[Launch]:
        """The launches since `forget`, the last 256 of them."""
        count = self._library.fake_launches()
        entries = [self._library.fake_launch(i).contents for i in range(max(0, count - 256), count)]
        return [Launch(e.name.decode(), e.device, tuple(e.grid), tuple(e.block), e.shared, e.stream) for e in entries]

    @property
    def context_depth(self) -> int:
        """How many contexts lie on this thread's stack."""
        return int(self._library.fake_depth())

    def used(self, device: int = 0) -> int:
        """Return the bytes that are allocated on a device."""
        return int(self._library.fake_used(device))

    def memory(self) -> list[Array]:
        """Return all living device and page-locked memory, as arrays of bytes."""
        room = self._library.fake_blocks(None, None, 0)
        starts, sizes = (ctypes.c_size_t * room)(), (ctypes.c_size_t * room)()
        count = self._library.fake_blocks(starts, sizes, room)
        pairs = zip(starts[:count], sizes[:count], strict=True)
        return [np.frombuffer((ctypes.c_ubyte * size).from_address(start), np.uint8) for start, size in pairs if size]

    def stand_in(
        self,
        image: bytes,
        *,
        library: Callable[[], Path] | None = None,
        run: Runner | None = None,
        kernels: Sequence[str] = (),
    ) -> None:
        """Say what runs when `image` is loaded as a module: an emulator's library, or `run` for these `kernels`."""
        self._images[_key(image)] = _Image(library, run, frozenset(kernels))

    def call_it(self, symbol: str, name: str) -> None:
        """Say that the emulator's libraries know the kernel `symbol` as `name`."""
        self._library.fake_alias(symbol.encode(), name.encode())

    def _load(self, image: Any, size: int, path: Any, room: int, number: Any) -> int:
        known = self._images.get(_key(ctypes.string_at(image, size)))
        if known is None:
            return NO_BINARY_FOR_GPU
        if known.library is None:
            self._loaded.append(known)
            number[0] = len(self._loaded) - 1
            return 0
        try:
            text = os.fsencode(known.library()) + b"\0"
        except Exception:  # noqa: BLE001 - nothing may leave a callback from C; it is printed instead
            sys.excepthook(*sys.exc_info())
            return INVALID_IMAGE
        ctypes.memmove(path, text[:room], min(len(text), room))
        return 0

    def _run(
        self, number: int, kernel: bytes, grid: Any, block: Any, shared: int, words: int, size: int, *error: Any
    ) -> int:
        image, name = self._loaded[number], kernel.decode()
        if not grid:  # the question whether there is such a kernel
            return int(name not in image.kernels)
        assert image.run is not None
        try:
            image.run(name, tuple(grid[:3]), tuple(block[:3]), shared, ctypes.string_at(words, size))
        except Exception as failure:  # noqa: BLE001 - becomes the text of the driver's error
            text = f"{type(failure).__name__}: {failure}".encode()[: error[1] - 1] + b"\0"
            ctypes.memmove(error[0], text, len(text))
            return 1
        return 0


def _key(image: bytes) -> str:
    return hashlib.sha256(image.rstrip(b"\0")).hexdigest()


@functools.cache
def unavailable() -> str:
    """Return why the fake driver cannot run in this process, in one line; empty if it can."""
    if detect.search().gpus:
        return "this machine has a real CUDA driver"
    return build.missing()


@functools.cache
def _machine() -> Machine:
    return Machine()


@contextmanager
def running(devices: int = 1, memory: int = 1 << 30, capability: tuple[int, int] = (9, 0)) -> Iterator[Machine]:
    """Give the fake driver; what is compiled in the block runs in the emulator or the PTX interpreter.

    Parameters
    ----------
    devices : int
        How many there are, 8 at most.
    memory : int
        Bytes of each.
    capability : (int, int)
        Compute capability, which decides for what architecture is compiled.

    Notes
    -----
    The library stays loaded until the process ends, and PyCUDA with it. Compiled kernels are kept in a folder that is
    removed afterwards, because an image has to be compiled in this process for the machine to know what it stands for.
    """
    machine = _machine()
    machine.configure(devices, memory, capability)
    machine.forget()
    drivers.forget()
    before = nvrtc.compile_cuda, nvrtc.compile_ptx, cubins.folder, drivers.cupy, streams.cupy_in_use

    def compile_cuda(source: str, arch: str, options: Sequence[str] = (), **names: Any) -> tuple[bytes, dict[str, str]]:
        code, symbols = before[0](source, arch, options, **names)
        for expression, symbol in symbols.items():
            machine.call_it(symbol, expression)
        emulated = functools.partial(_emulated, source, tuple(options), tuple(names.get("expressions", ())))
        machine.stand_in(code, library=emulated)
        return code, symbols

    def compile_ptx(ptx: str, arch: str, **name: Any) -> bytes:
        code = before[1](ptx, arch, **name)
        machine.stand_in(code, run=functools.partial(_interpret, machine, ptx), kernels=_entries(ptx))
        return code

    with tempfile.TemporaryDirectory() as folder:
        nvrtc.compile_cuda, nvrtc.compile_ptx = compile_cuda, compile_ptx
        cubins.folder = lambda arch: Path(folder) / arch
        drivers.cupy = streams.cupy_in_use = lambda: None
        cubins.clear()
        try:
            yield machine
        finally:
            nvrtc.compile_cuda, nvrtc.compile_ptx, cubins.folder, drivers.cupy, streams.cupy_in_use = before
            transfers.clear()
            gc.collect()  # PyCUDA can free arrays only in the thread that made them, so those in cycles die now
            machine.configure(devices=0)
            drivers.forget()
            cubins.clear()
            machine.forget()


def _emulated(source: str, options: tuple[str, ...], names: tuple[str, ...]) -> Path:
    from ..emulator import build
    from ..emulator.source import load

    text = source if "\n" in source else f"{source}\n"  # never the path of a file
    return Path(build.library(load(text, options), tuple(name for name in names if "<" in name)))


_ENTRY = re.compile(r"\.entry\s+([\w$]+)\s*\((.*?)\)", re.DOTALL)
_PARAMETER = re.compile(r"\.param\s+(?:\.align\s+\d+\s+)?\.([a-z]+)(\d+)(?:\s+\.ptr[^,]*?)?\s+[\w$]+(?:\[(\d+)\])?")


def _entries(ptx: str) -> tuple[str, ...]:
    return tuple(name for name, _ in _ENTRY.findall(ptx))


def _interpret(
    machine: Machine, ptx: str, name: str, grid: tuple[int, ...], block: tuple[int, ...], shared: int, packed: bytes
) -> None:
    from .. import run_ptx

    parameters = _PARAMETER.findall(dict(_ENTRY.findall(ptx))[name])
    arguments, offset = [], 0
    for kind, bits, count in parameters:
        size = int(bits) // 8 * int(count or 1)
        offset = -(-offset // min(size, 8)) * min(size, 8)
        dtype = f"V{size}" if count else f"{ {'f': 'f', 's': 'i'}.get(kind, 'u') }{size}"
        arguments.append(np.frombuffer(packed, dtype, 1, offset)[0])
        offset += size
    run_ptx(ptx, name, grid, block, arguments, shared_mem=shared, memory=machine.memory())
