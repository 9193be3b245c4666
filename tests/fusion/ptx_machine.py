"""Fused functions compiled for a GPU and run as their real PTX, by the interpreter, on NumPy arrays."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpucompute.errors import OutOfRangeError
from gpucompute.fusion.arguments import readable
from gpucompute.fusion.cuda.compile import ENTRY, compile_kernel
from gpucompute.fusion.cuda.program import CudaProgram, Step, plan_for, words_of
from gpucompute.fusion.layout import Layout
from gpucompute.fusion.trace import Trace, trace
from gpucompute.testing import run_ptx

Array = np.ndarray[Any, Any]
ARCHITECTURES = ("sm_75", "sm_80", "sm_90", "sm_100", "sm_120")
POISON = 0xCB  # what memory is full of before a kernel writes it


class PtxMachine:
    """Runs the steps of a program; `steps` are those that ran, `ptx` their code."""

    def __init__(self, *, fast: bool = False, arch: str = "sm_90") -> None:
        self.errors = np.zeros(3, np.int64)
        self.fast, self.arch = fast, arch
        self.counts = np.zeros(0, np.int32)
        self.steps: list[Step] = []
        self.ptx: list[str] = []

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        nbytes = max(1, int(np.prod(shape))) * dtype.itemsize
        room = np.full(nbytes + 16, POISON, np.uint8)
        start = -room.ctypes.data % 16
        return room[start : start + nbytes].view(dtype)[: int(np.prod(shape))].reshape(shape)

    def address(self, array: Array) -> int:
        return int(array.__array_interface__["data"][0])

    def counters(self, count: int) -> Array:
        self.counts = np.zeros(count, np.int32)
        return self.counts

    def launch(self, step: Step, words: list[int], operands: Sequence[Any]) -> None:
        self.steps.append(step)
        self.ptx.append(compiled(step, self.fast, self.arch))
        assert len(words) == step.parameters
        arrays = {a.__array_interface__["data"][0]: a for a in map(_whole, operands) if a is not None}
        memory = [*arrays.values(), self.errors]
        run_ptx(self.ptx[-1], ENTRY, step.grid, step.block, [np.int64(w) for w in words], memory=memory)
        assert not self.counts.any(), "counters are left as they were found"


def _whole(array: Any) -> Array | None:
    """Return the bytes of the memory that a view lies in."""
    if array is None:
        return None
    while isinstance(array.base, np.ndarray):
        array = array.base
    if not array.nbytes:
        return None
    low, high = np.lib.array_utils.byte_bounds(array)
    return np.frombuffer((ctypes.c_char * (high - low)).from_address(low), np.uint8)


def compiled(step: Step, fast: bool = False, arch: str = "sm_90") -> str:
    """Return the PTX of a step; equal kernels are compiled once."""
    kernel = step.kernel
    parts = repr(sorted(kernel.tiles.items())), repr(kernel.functions), tuple(kernel.users.items())
    key = (kernel.source, *parts, fast, arch)
    if key not in _compiled:
        _compiled[key] = compile_kernel(step.kernel, fast, arch)
    return _compiled[key]


_compiled: dict[Any, str] = {}


def program_for(function: Callable[..., Any], args: Sequence[Any]) -> tuple[Trace, CudaProgram, list[Array], list[int]]:
    """Return the trace of a call, its program, its arrays and its Python scalars."""
    traced = trace(function, tuple(args))
    arrays = [*(readable(a) for a in args if hasattr(a, "dtype")), *traced.captured]
    scalars = words_of(traced.scalar_values([a for a in args if not hasattr(a, "dtype")]))
    layouts = [Layout(0, a.shape, a.strides) for a in arrays]
    aligned = [i for i, a in enumerate(arrays) if a.__array_interface__["data"][0] % 16 == 0]
    return traced, CudaProgram(plan_for(traced.outputs, layouts), aligned), arrays, scalars


def run(function: Callable[..., Any], *args: Any, machine: PtxMachine | None = None) -> Any:
    """Return what `function`, fused, makes of arrays and numbers on a GPU."""
    machine = machine or PtxMachine()
    traced, program, arrays, scalars = program_for(function, args)
    results = program.run(machine, arrays, scalars, {}, int(machine.errors.ctypes.data))
    if machine.errors[0]:
        site, index, length = machine.errors.tolist()
        where = program.sites[site - 1]
        raise OutOfRangeError(f"index {index} is out of bounds for an axis of size {length}\n  at {where}")
    return traced.rebuild([r if r.shape else r[()] for r in results])
