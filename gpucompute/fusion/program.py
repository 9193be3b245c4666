"""A plan made ready to run: machine code, tables of numbers, and what differs between calls.

`Program.run` is the warm path. All that depends only on shapes and strides was computed before; a call fills one
table of addresses, takes result memory from the pool and runs each stage on the threads.
"""

from __future__ import annotations

import ctypes
from math import inf, prod
from time import perf_counter
from typing import Any

import numpy as np

from .. import memory
from ..errors import OutOfRangeError
from ..launch import cache, cpu, raised
from .codegen import Kernel, generate
from .plan import Buffer, Plan, Stage

SMALL = 200_000  # rough operations below which a second thread is not worth waking (about 20 µs of work)

_EMPTY = {"sum": 0, "prod": 1, "any": False, "all": True, "m2": 0}


class _Step:
    """One stage, ready to run."""

    def __init__(self, stage: Stage, kernel: Kernel, first_slot: int, fast: bool) -> None:
        code = cache.find(kernel, fast)
        self.kernel = kernel
        self.stage = stage
        self.numbers = np.array(kernel.numbers or [0], np.int64)
        called = {number: cache.find(part, fast) for number, part in kernel.parts}
        for number, part in called.items():
            self.numbers[number] = part.address
        raises = any(part.raises for part in (code, *called.values()))
        self.call = raised.Raising(code.call) if raises else code.call
        # How long users' functions take depends on values, and `run_kernel` cannot be interrupted.
        users = kernel.users or any(fold.user for fold in kernel.folds.values())
        self.address = None if users else code.address
        self.q = self.numbers.ctypes.data
        self.p = first_slot * 8
        self.items = kernel.items
        self.chunk = max(1, SMALL // 4 // max(kernel.cost, 1))
        self.inline = kernel.items * kernel.cost < SMALL
        self.seconds = inf  # that the last call took
        self.scratch = kernel.scratch
        self.rows = kernel.rows

    def run(self, p: int, k: int, e: Any) -> None:
        call, q, scratch = self.call, self.q, self.scratch
        p += self.p
        if self.inline:
            call(0, self.items, p, q, cpu.scratch_memory(scratch), k, e)
        else:
            began = perf_counter()
            if self.seconds < cpu.LONG and self.address is not None:
                words = p, q, k, ctypes.addressof(e) if e is not None else 0
                cpu.run_kernel(self.address, words, self.items, scratch, self.seconds)
            else:
                cpu.parallel_for(
                    lambda lo, hi: call(lo, hi, p, q, cpu.scratch_memory(scratch), k, e), self.items, chunk=self.chunk
                )
            self.seconds = perf_counter() - began
        if self.rows:
            call(0, -self.rows - 1, p, q, 0, k, e)


class Program:
    """The stages of a plan with their kernels.

    Parameters
    ----------
    plan : Plan
    fast : bool
        Whether kernels may contract and reassociate.
    """

    def __init__(self, plan: Plan, fast: bool) -> None:
        self.plan = plan
        self.made = plan.buffers
        self.steps: list[_Step] = []
        self.fills: list[tuple[Buffer, Any]] = []
        # For each slot: (input number, offset), (None, offset + index of a made buffer) or a plain number.
        self.from_inputs: list[tuple[int, int, int]] = []
        self.from_made: list[tuple[int, int, int]] = []
        self.partials: list[tuple[int, int]] = []
        fixed: list[int] = []
        where = {id(buffer): index for index, buffer in enumerate(self.made)}
        for stage in plan.stages:
            if 0 in stage.shape:
                kept = [n for axis, n in enumerate(stage.shape) if axis not in stage.axes]
                if prod(kept):
                    self.fills += [(r.buffer, _EMPTY[r.op]) for r in stage.reductions]
                continue
            kernel = generate(stage)
            first = len(fixed)
            for slot, (buffer, offset) in enumerate(kernel.operands, first):
                fixed.append(offset)
                if buffer is None:
                    continue
                if buffer.index is not None:
                    self.from_inputs.append((slot, buffer.index, offset))
                elif id(buffer) in where:
                    self.from_made.append((slot, where[id(buffer)], offset))
            if kernel.partials:
                assert kernel.partial_slot is not None
                self.partials.append((first + kernel.partial_slot, kernel.partials))
            self.steps.append(_Step(stage, kernel, first, fast))
        self.fixed = fixed or [0]
        self.table = ctypes.c_int64 * len(self.fixed)
        self.results = [(where[id(buffer)], shape) for buffer, shape in plan.results]
        self.errors = any(step.kernel.errors for step in self.steps)

    def run(self, arrays: list[np.ndarray[Any, Any]], scalars: Any, outs: dict[int, Any]) -> list[Any]:
        """Run on `arrays` and return the results.

        Parameters
        ----------
        arrays : list of ndarray
            The inputs, with the layouts of the plan.
        scalars : ctypes array or None
            The Python scalars, 8 bytes each.
        outs : dict
            Arrays to use for made buffers, by the buffer's position.
        """
        made = [outs[i] if i in outs else memory.empty(b.layout.shape, b.dtype) for i, b in enumerate(self.made)]
        slots = self.fixed.copy()
        starts = [array.__array_interface__["data"][0] for array in arrays]
        for slot, index, offset in self.from_inputs:
            slots[slot] = starts[index] + offset
        starts = [array.__array_interface__["data"][0] for array in made]
        for slot, index, offset in self.from_made:
            slots[slot] = starts[index] + offset
        keep = []
        for slot, nbytes in self.partials:
            block = memory.empty((nbytes // 8,), np.dtype(np.int64))
            keep.append(block)
            slots[slot] = block.__array_interface__["data"][0]
        for buffer, value in self.fills:
            made[self.made.index(buffer)][...] = value
        table = self.table(*slots)
        p = ctypes.addressof(table)
        k = ctypes.addressof(scalars) if scalars is not None else 0
        e = (ctypes.c_int64 * 3)() if self.errors else None
        for step in self.steps:
            step.run(p, k, e)
            if e is not None and e[0]:
                site = step.kernel.errors[e[0] - 1]
                raise OutOfRangeError(f"index {e[1]} is out of bounds for an axis of size {e[2]}\n  at {site}")
        return [made[i] if made[i].shape == shape else made[i].reshape(shape) for i, shape in self.results]
