"""Fused functions on real devices: programs for the arrays of a call, their code from the cache, their launches."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DeviceError, OutOfRangeError, ShapeError
from ...hardware import import_cupy
from ...launch import arrays as device_arrays
from ...launch import cubins, cuda, drivers, faults, transfers
from ...launch.fingerprint import fingerprint, without_addresses
from ..layout import Layout
from ..run import DEVICE_ARRAYS
from ..trace import Trace
from .intrinsics import VECTOR_BYTES
from .program import CudaProgram, Step, plan_for
from .source import CudaKernel

Array = Any  # of CuPy, or anything else with __cuda_array_interface__


class DeviceProgram:
    """A program on one device, called as `fusion.program.Program` is.

    Parameters
    ----------
    name : str
        What errors and profiles call the function.
    traced : Trace
    arrays : sequence of array
        Those of the first call.
    fast : bool
    """

    def __init__(self, name: str, traced: Trace, arrays: Sequence[Any], fast: bool) -> None:
        given = {f"argument {i}": a for i, a in enumerate(arrays) if not isinstance(a, np.ndarray)}
        self.device = device_arrays.device_of(given)
        whole = [_seen(array) for array in (*arrays, *traced.captured)]
        aligned = [i for i, array in enumerate(whole) if array.address % VECTOR_BYTES == 0]
        layouts = [Layout(0, array.shape, _strides(array)) for array in whole]
        self.program = CudaProgram(plan_for(traced.outputs, layouts), aligned)
        self.made, self.results, self.steps = self.program.made, self.program.results, self.program.steps
        self.functions = {
            id(step): cuda.Function(
                functools.partial(cubin_of, step.kernel, fast), "gpucompute_kernel", "q" * step.parameters,
                label=f"{name}, kernel {number}",
            )
            for number, step in enumerate(self.steps, 1)
        }  # fmt: skip
        self.riding = [i for i, array in enumerate((*arrays, *traced.captured)) if isinstance(array, np.ndarray)]
        self.reach = {i: _reach(whole[i]) for i in range(len(whole)) if i not in self.riding}
        self.record = faults.Record(self._out_of_range) if self.program.sites else None

    def _out_of_range(self, site: int, index: int, length: int) -> Exception:
        where = self.program.sites[site - 1]
        return OutOfRangeError(f"index {index} is out of bounds for an axis of size {length}\n  at {where}")

    def run(self, arrays: Sequence[Any], scalars: Any, outs: dict[int, Any]) -> list[Any]:
        """Launch on the current stream and return the results; see `Program.run`."""
        if self.record is not None:
            self.record.check()
        errors = 0 if self.record is None else self.record.address
        if self.riding:
            arrays = list(arrays)
            for index in self.riding:
                arrays[index] = self._there(arrays[index])
        return self.program.run(self, arrays, scalars or (), outs, errors)

    def _there(self, array: np.ndarray[Any, Any]) -> Array:
        """Return a small array of NumPy's on this device."""
        if array.nbytes > transfers.LARGEST:
            raise DeviceError(
                f"an argument is a numpy.ndarray of {array.dtype} {array.shape}, {array.nbytes} bytes, and others are "
                f"on cuda:{self.device}; only arrays up to {transfers.LARGEST} bytes are copied along: move it once "
                f"with gpucompute.asarray(x, device='cuda:{self.device}')"
            )
        return transfers.constant(np.ascontiguousarray(array), self.device)

    def into(self, out: Any, traced: Trace, arrays: Sequence[Any], scalars: Any) -> Any:
        """Run with results in the arrays `out`: in place where memory allows, else copied."""
        targets = list(out) if isinstance(out, (tuple, list)) else [out]
        if len(targets) != len(self.results):
            count = len(self.results)
            raise ShapeError(f"out has {len(targets)} arrays, but the function returns {count}; give one for each")
        direct: dict[int, Any] = {}
        copied: list[int] = []
        starts = [(self.address(arrays[i]), *reach) for i, reach in self.reach.items()]
        for number, (target, (index, shape)) in enumerate(zip(targets, self.results, strict=True)):
            made = self.made[index]
            seen = device_arrays.view(target) if device_arrays.on_gpu(target) else None
            if seen is None or seen.shape != shape or seen.dtype != made.dtype or not seen.writable:
                got = f"{getattr(target, 'dtype', type(target).__name__)} {getattr(target, 'shape', '')}"
                expected = f"a writable array of {made.dtype} {shape} on cuda:{self.device}"
                raise ShapeError(f"out is {got}; expected {expected}")
            start, nbytes = seen.address, prod(shape) * made.dtype.itemsize
            apart = all(start + nbytes <= other + low or start >= other + high for other, low, high in starts)
            if apart and seen.contiguous and start % VECTOR_BYTES == 0 and index not in direct:
                direct[index] = target if shape == made.layout.shape else target.reshape(made.layout.shape)
            else:
                copied.append(number)
        results = self.run(arrays, scalars, direct)
        if copied:
            with drivers.for_arrays().active(self.device):
                for number in copied:
                    _assign(targets[number], results[number])
        return traced.rebuild(targets)

    def bandwidth(self) -> float:
        """Return the bytes per second that a copy on this device moves."""
        from ...profiling import copy_bandwidth

        return copy_bandwidth(drivers.preferred(), self.device)

    # What `CudaProgram.run` asks

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Return new memory of this device."""
        return cuda.empty(shape, dtype, self.device)

    def counters(self, count: int) -> Array:
        """Return at least `count` int32 that are 0, and that kernels leave so."""
        return transfers.counters(count, self.device)

    @staticmethod
    def address(array: Array) -> int:
        """Return where an array starts."""
        ask = device_arrays.asked(array.__class__)
        return device_arrays.view(array).address if ask is None else ask.address(array)

    def launch(self, step: Step, words: list[int], operands: Sequence[Any]) -> None:
        """Launch a kernel on the current stream."""
        nbytes = None if cuda.observer is None else _moved(step)
        self.functions[id(step)].launch(step.grid, step.block, words, step.shared, None, self.device, operands, nbytes)


def _moved(step: Step) -> int:
    """Return the bytes that a kernel must read and write; an array may be much larger than what is read of it."""
    from ..explain import _describe

    stage = _describe(step.stage, "")
    return stage.bytes_read + stage.bytes_written


def _seen(array: Any) -> device_arrays.View:
    """Return what a kernel sees of an array; one of NumPy goes along, in C order, to memory where vectors may start."""
    if isinstance(array, np.ndarray):
        return device_arrays.View(0, array.shape, array.dtype, True, False)
    return device_arrays.view(array)


def _strides(seen: device_arrays.View) -> tuple[int, ...]:
    """Return the strides of an array, in bytes."""
    return Layout.contiguous(seen.shape, seen.dtype.itemsize).strides if seen.strides is None else seen.strides


def _reach(seen: device_arrays.View) -> tuple[int, int]:
    """Return where the first byte of an array lies, and the one after its last, from where it starts."""
    ends = [(n - 1) * stride for n, stride in zip(seen.shape, _strides(seen), strict=True)]
    return sum(end for end in ends if end < 0), sum(end for end in ends if end > 0) + seen.dtype.itemsize


def _assign(target: Any, result: Array) -> None:
    """Copy a result over an array, with CuPy where the array is another library's."""
    known = device_arrays.asked(target.__class__) is not None
    (target if known else import_cupy().asarray(target))[...] = result


def describe(array: Any) -> tuple[Any, ...]:
    """Return what of an array on a GPU decides a program."""
    kind: Any = type(array)
    ask = device_arrays.asked(kind)
    if ask is not None:
        DEVICE_ARRAYS[kind] = functools.partial(_described_quickly, ask.address, ask.device)
    seen, where = device_arrays.view(array), device_arrays.index_of(array)
    return "cuda", where, seen.dtype, seen.shape, _strides(seen), seen.address % VECTOR_BYTES == 0


def _described_quickly(address: Callable[[Any], int], device: Callable[[Any], int], array: Any) -> tuple[Any, ...]:
    """Do what `describe` does for an array of CuPy or PyCUDA."""
    where = 0 if drivers.count() == 1 else device(array)
    return "cuda", where, array.dtype, array.shape, array.strides, address(array) % VECTOR_BYTES == 0


# Code


def cubin_of(kernel: CudaKernel, fast: bool, arch: str) -> bytes:
    """Return the machine code of a kernel for an architecture: from memory, from disk, or compiled now."""

    def make() -> bytes:
        from .compile import compile_kernel

        return cubins.from_ptx(compile_kernel(kernel, fast, arch), arch)

    key = key_of(kernel, fast)
    return make() if key is None else cubins.cached(key, arch, make)


def key_of(kernel: CudaKernel, fast: bool) -> list[str] | None:
    """Return all that decides the code of a kernel; None if it calls what only this process knows."""
    called = without_addresses(f"{sorted(kernel.tiles.items())!r} {kernel.functions!r}")
    parts = ["fuse", str(fast), _sources(), kernel.source, called]
    users = [(name, fingerprint(user.function)) for name, user in sorted(kernel.users.items())]
    for name, tile in sorted(kernel.tiles.items()):
        users += [(f"{name}.{part}", text) for part, text in tile.fold.fingerprints()]
    if any(text is None for _, text in users):
        return None
    return [*parts, repr(users)]


@functools.cache
def _sources() -> str:
    """Return a digest of the functions that kernels call, and of what prints and compiles them."""
    from ... import kernels as package

    digest = hashlib.sha256()
    places = [*(Path(root) for root in package.__path__), Path(__file__).parent]
    for path in sorted(path for place in places for path in place.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
