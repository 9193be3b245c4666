"""A plan made ready for a GPU: kernels, and the words that they are launched with.

The program knows no GPU. It asks a `Machine` for memory and launches, so the PTX interpreter of the tests, the fake
driver and the real one run the same program.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from math import prod
from typing import Any, Protocol

import numpy as np

from ...errors import FusionError
from .. import ir
from ..layout import Layout
from ..plan import Buffer, GatherLoad, Load, Phase, Plan, Stage, leaves, plan
from .source import COUNTERS, PARTIAL, WORDS, CudaKernel
from .source_map import MapSource

_EMPTY = {"sum": 0, "prod": 1, "any": False, "all": True, "m2": 0}


class Machine(Protocol):
    """What runs a program."""

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        """Return new C-ordered memory."""

    def address(self, array: Any) -> int:
        """Return where an array starts."""

    def counters(self, count: int) -> Any:
        """Return at least `count` int32 that are 0, and that kernels leave so."""

    def launch(self, step: Step, words: list[int], operands: Sequence[Any]) -> None:
        """Run the kernel of `step`; `operands` are the arrays that the addresses lie in."""


class Step:
    """One kernel of a program.

    Attributes
    ----------
    kernel : CudaKernel
    stage : Stage
    grid, block : tuple of int
    shared : int
        Bytes of dynamic shared memory.
    words : list of int
        The parameters, as far as they are the same in all calls.
    addresses : list of (int, int)
        Which words are addresses: the word, and the number of the array, in (inputs, made, partial results, counters).
        The word holds the offset in it.
    scalars : list of (int, int)
        Which words are Python scalars: the word, and the number of the scalar.
    operands : list of int
        The numbers of the arrays that it uses.
    """

    def __init__(self, kernel: CudaKernel, stage: Stage, number_of: Callable[[Any], int | None], sites: int) -> None:
        self.kernel = kernel
        self.stage = stage
        self.grid = (kernel.grid, 1, 1)
        self.block = (kernel.block, 1, 1)
        self.shared = 0
        self.words = [offset for _, offset in kernel.operands] + kernel.numbers
        numbers = [number_of(buffer) for buffer, _ in kernel.operands]
        self.addresses = [(word, number) for word, number in enumerate(numbers) if number is not None]
        self.operands = sorted({number for _, number in self.addresses})
        self.scalars = [(len(self.words) + i, index) for i, index in enumerate(kernel.scalars)]
        self.words += [0] * len(kernel.scalars) + [0, sites]

    @property
    def parameters(self) -> int:
        """The number of 64-bit words of a launch."""
        return len(self.words)


def plan_for(outputs: tuple[ir.Node, ...], layouts: list[Layout]) -> Plan:
    """Return the plan of a graph for a GPU, where one block finishes a row."""
    from .source_reduce import LONGEST_ROW

    return plan(outputs, layouts, finish=True, longest_row=LONGEST_ROW)


def generate(stage: Stage, aligned: Collection[int]) -> CudaKernel:
    """Return the kernel of `stage`."""
    if stage.kind == "map":
        return MapSource(stage, aligned).print()
    from .source_reduce import ReduceSource

    return ReduceSource(stage).print()


class CudaProgram:
    """The stages of a plan with their kernels.

    Parameters
    ----------
    plan : Plan
    aligned : collection of int
        The inputs that start at a multiple of 16 bytes, by number. What a run allocates must.

    Attributes
    ----------
    plan : Plan
    made : list of Buffer
        What a run allocates, results among them.
    results : list of (int, tuple)
        The number of each result among `made`, and its shape.
    steps : list of Step
    sites : list of str
        Where the user's function indexes, for errors of kernels; they count from 1.
    """

    def __init__(self, plan: Plan, aligned: Collection[int] = ()) -> None:
        self.plan = plan
        self.made = plan.buffers
        self.forms = [(buffer.layout.shape, buffer.dtype) for buffer in self.made]
        where = {id(buffer): index for index, buffer in enumerate(self.made)}
        self.results = [(where[id(buffer)], shape) for buffer, shape in plan.results]
        self.fills: list[tuple[int, Any]] = []
        self.steps: list[Step] = []
        self.sites: list[str] = []
        self.inputs = 1 + max((b.index for b in _read(plan) if b.index is not None), default=-1)

        def number_of(buffer: Buffer | None) -> int | None:
            if buffer is PARTIAL or buffer is COUNTERS:
                return self.inputs + len(self.made) + (buffer is COUNTERS)
            if buffer is None or buffer.index is not None:
                return None if buffer is None else buffer.index
            index = where.get(id(buffer))
            return None if index is None else self.inputs + index

        for stage in map(_useful, plan.stages):
            if 0 in stage.shape:
                kept = [n for axis, n in enumerate(stage.shape) if axis not in stage.axes]
                if prod(kept):
                    self.fills += [(where[id(r.buffer)], _EMPTY[r.op]) for r in stage.reductions]
                continue
            if not stage.stores and not stage.reductions:
                continue
            for part, kernel in _kernels(stage, aligned):
                self.steps.append(Step(kernel, part, number_of, len(self.sites)))
                self.sites += kernel.errors

    def run(
        self, machine: Machine, arrays: Sequence[Any], scalars: Sequence[int], outs: dict[int, Any], errors: int = 0
    ) -> list[Any]:
        """Launch everything; return the results.

        Parameters
        ----------
        machine : Machine
        arrays : sequence of array
            The inputs, with the layouts of the plan.
        scalars : sequence of int
            The Python scalars, a word of 64 bits each (see `words_of`).
        outs : dict
            Arrays to use for made buffers, by the buffer's position.
        errors : int
            The address of three int64 into which kernels write an index out of range: site, index, length.
        """
        made = [outs[i] if i in outs else machine.empty(*form) for i, form in enumerate(self.forms)]
        for index, value in self.fills:
            made[index].fill(value)
        known = [*arrays[: self.inputs], *made]
        starts = [*map(machine.address, known), 0, 0]
        known += None, None
        for step in self.steps:
            if step.kernel.partials:
                known[-2:] = (
                    machine.empty((step.kernel.partials // 8,), np.dtype(np.int64)),
                    machine.counters(step.kernel.counters),
                )
                starts[-2:] = map(machine.address, known[-2:])
            words = step.words.copy()
            for word, number in step.addresses:
                words[word] += starts[number]
            for word, index in step.scalars:
                words[word] = scalars[index]
            words[-2] = errors
            machine.launch(step, words, [known[number] for number in step.operands])
        return [made[i] if made[i].shape == shape else made[i].reshape(shape) for i, shape in self.results]


def _useful(stage: Stage) -> Stage:
    """Return a stage without what has no memory because nothing reads it (an empty slice of it, say)."""
    finish = [store for store in stage.finish if id(store.buffer) in stage.stored]
    read = stage.stored | {id(leaf.buffer) for s in finish for leaf in leaves(s.expr) if isinstance(leaf, Load)}
    phases = []
    for phase in stage.phases:
        stores = [store for store in phase.stores if id(store.buffer) in stage.stored]
        inside = stage.kind == "rows"  # where later phases read them
        phases.append(Phase(stores, [r for r in phase.reductions if inside or id(r.buffer) in read]))
    return replace(stage, phases=phases, finish=finish)


def _read(plan: Plan) -> list[Buffer]:
    """Return the buffers that the stages of a plan read."""
    found = []
    for stage in plan.stages:
        for expr in [*(s.expr for s in stage.stores), *(r.expr for r in stage.reductions)]:
            found += [leaf.buffer for leaf in leaves(expr) if isinstance(leaf, Load | GatherLoad)]
    return found


def words_of(scalars: Sequence[Any]) -> list[int]:
    """Return Python scalars as the words that kernels take."""
    return [_bits(value) for value in scalars]


def _bits(value: Any) -> int:
    """Return a Python scalar as the signed word that a kernel takes."""
    if isinstance(value, float):
        return int(struct.unpack("q", struct.pack("d", value))[0])
    return int(value)


def _kernels(stage: Stage, aligned: Collection[int]) -> list[tuple[Stage, CudaKernel]]:
    """Return the kernels of a stage: one, or several where its words would not fit one launch."""
    kernel = generate(stage, aligned)
    if len(kernel.operands) + len(kernel.numbers) + len(kernel.scalars) <= WORDS:
        return [(stage, kernel)]
    units = _units(stage)
    if stage.kind == "rows" or len(units) < 2:
        raise FusionError(
            f"a kernel over {stage.shape} needs {len(kernel.operands)} arrays and {len(kernel.numbers)} sizes, more "
            f"than the {WORDS} that a launch on a GPU takes; split the fused function"
        )
    return [kernel for half in (0, 1) for kernel in _kernels(_together(stage, units[half::2]), aligned)]


def _units(stage: Stage) -> list[Stage]:
    """Return the parts of a stage that need nothing of one another."""
    units = [replace(stage, phases=[Phase([store])], finish=[]) for store in stage.stores]
    units += [replace(stage, phases=[Phase([], [reduction])], finish=[]) for reduction in stage.reductions]
    for store in stage.finish:
        read = {id(leaf.buffer) for leaf in leaves(store.expr) if isinstance(leaf, Load)}
        used = [unit for unit in units if any(id(reduction.buffer) in read for reduction in unit.reductions)]
        whole = _together(stage, [*used, replace(stage, phases=[], finish=[store])])
        units = [*(unit for unit in units if unit not in used), whole]
    return units


def _together(stage: Stage, parts: list[Stage]) -> Stage:
    """Return the stage that does what these parts of `stage` do."""
    stores, reductions = [s for part in parts for s in part.stores], [r for part in parts for r in part.reductions]
    return replace(stage, phases=[Phase(stores, reductions)], finish=[s for part in parts for s in part.finish])
