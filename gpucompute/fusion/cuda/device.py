"""Fused functions on real devices: programs for the arrays of a call, their code from the cache, their launches."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DeviceError, OutOfRangeError, ShapeError
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
        layouts = [_layout(array) for array in (*arrays, *traced.captured)]
        aligned = [i for i, array in enumerate((*arrays, *traced.captured)) if _is_aligned(array)]
        self.program = CudaProgram(plan_for(traced.outputs, layouts), aligned)
        self.made, self.results, self.steps = self.program.made, self.program.results, self.program.steps
        self.functions = {
            id(step): cuda.Function(
                functools.partial(cubin_of, step.kernel, fast), "gpucompute_kernel", "q" * step.parameters,
                label=f"{name}, kernel {number}",
            )
            for number, step in enumerate(self.steps, 1)
        }  # fmt: skip
        whole = (*arrays, *traced.captured)
        self.riding = [i for i, array in enumerate(whole) if isinstance(array, np.ndarray)]
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
        taken = [_extent(array) for array in arrays if not isinstance(array, np.ndarray)]
        for target, (index, shape) in zip(targets, self.results, strict=True):
            dtype = self.made[index].dtype
            if not device_arrays.on_gpu(target) or target.shape != shape or target.dtype != dtype:
                got = f"{getattr(target, 'dtype', type(target).__name__)} {getattr(target, 'shape', '')}"
                raise ShapeError(f"out is {got}; expected an array of {dtype} {shape} on cuda:{self.device}")
            low, high = _extent(target)
            apart = all(high <= start or low >= end for start, end in taken)
            view = device_arrays.view(target)
            if apart and view.contiguous and _is_aligned(target) and index not in direct:
                direct[index] = target.reshape(self.made[index].layout.shape)
        results = self.run(arrays, scalars, direct)
        for target, result in zip(targets, results, strict=True):
            if device_arrays.view(target).address != device_arrays.view(result).address:
                target[...] = result
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
        self.functions[id(step)].launch(
            step.grid, step.block, words, step.shared, device=self.device, operands=operands
        )


def _strides(array: Any) -> tuple[int, ...]:
    """Return the strides of an array, in bytes; NumPy's go along as C-ordered copies."""
    given = None if isinstance(array, np.ndarray) else getattr(array, "strides", None)
    if given is None or not isinstance(given, tuple):
        given = Layout.contiguous(tuple(array.shape), array.dtype.itemsize).strides
    return given


def _layout(array: Any) -> Layout:
    return Layout(0, tuple(array.shape), _strides(array))


def _is_aligned(array: Any) -> bool:
    """Whether an array starts where vectors may; NumPy's go along into memory that does."""
    return isinstance(array, np.ndarray) or DeviceProgram.address(array) % VECTOR_BYTES == 0


def _extent(array: Any) -> tuple[int, int]:
    """Return the addresses of the first byte of an array, and after its last."""
    start = device_arrays.view(array).address
    low, high = start, start + array.dtype.itemsize
    for n, stride in zip(array.shape, _strides(array), strict=True):
        low += min(0, (n - 1) * stride)
        high += max(0, (n - 1) * stride)
    return low, high


def describe(array: Any) -> tuple[Any, ...]:
    """Return what of an array on a GPU decides a program."""
    kind: Any = type(array)
    if kind not in DEVICE_ARRAYS and device_arrays.asked(kind) is not None:
        DEVICE_ARRAYS[kind] = _described_quickly
    where = device_arrays.index_of(array)
    return "cuda", where, array.dtype, tuple(array.shape), _strides(array), _is_aligned(array)


def _described_quickly(array: Any) -> tuple[Any, ...]:
    """Do what `describe` does for an array of CuPy or PyCUDA."""
    aligned = DeviceProgram.address(array) % VECTOR_BYTES == 0
    return "cuda", device_arrays.index_of(array), array.dtype, array.shape, array.strides, aligned


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
