"""Instructions that say what comes next: branches, calls, ends and the barriers of a block."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .assembler import Assembler, Built, Reader, Writer
from .external import FUNCTIONS
from .machine import STOP, Machine, Parked, Step, Threads
from .memory import Fault
from .operation import Modifiers, UnknownForm
from .syntax import Function, Instruction, Label, Name, Operand, Targets, Variable, Vector
from .types import PREDICATE, TYPES, Array

U32 = TYPES["u32"]


def _branch(assembler: Assembler, instruction: Instruction, function: Function) -> Built:
    target = assembler.label(function, instruction.operands[0])
    return (lambda machine, threads: target), False


def _indexed_branch(assembler: Assembler, instruction: Instruction, function: Function) -> Built:
    """``brx.idx index, targets``: a jump table."""
    index, name = instruction.operands[:2]
    targets = assembler.find(name.name) if isinstance(name, Name) else None
    if "idx" not in instruction.modifiers or not isinstance(targets, Targets):
        raise UnknownForm
    read = assembler.read(index, U32)
    labels = [instruction.scope.find(label) for label in targets.labels]
    steps = [assembler.bases[function] + label.index for label in labels if isinstance(label, Label)]

    def step(machine: Machine, threads: Threads) -> int:
        machine.active = threads
        chosen = read(machine, threads)
        outside = chosen >= len(steps)
        if outside.any():
            position = int(np.flatnonzero(outside)[0])
            raise Fault(f"a jump to target {chosen[position]} of {len(steps)}", position)
        return _spread(machine, threads, np.array(steps)[chosen])

    return step, False


def _spread(machine: Machine, threads: Threads, targets: Array) -> int:
    """Send each thread of a group where it wants to go on."""
    if (targets == targets[0]).all():
        return int(targets[0])
    numbers = machine.numbers(threads)
    for target in np.unique(targets):
        machine.add(int(target), numbers[targets == target])
    return STOP


# Calls


def _places(assembler: Assembler, operands: tuple[Operand, ...]) -> list[int]:
    """Return where in the frame the variables are that a call names."""
    variables: list[Any] = [assembler.find(o.name) if isinstance(o, Name) else None for o in operands]
    if not all(isinstance(v, Variable) and assembler.in_frame(v) for v in variables):
        assembler.fail("expected variables of the param space as values of a call")
    return [assembler.places[variable] for variable in variables]


def _copies(assembler: Assembler, own: tuple[Operand, ...], formal: list[Variable]) -> list[tuple[int, int, int]]:
    """Pair the variables named in a call with the parameters of the function: both places, and the bytes."""
    if len(own) != len(formal):
        assembler.fail(f"got {len(own)} values, expected {len(formal)}")
    pairs = zip(_places(assembler, own), formal, strict=True)
    return [(place, assembler.places[parameter], parameter.nbytes or 0) for place, parameter in pairs]


def _copy(machine: Machine, threads: Threads, to: int, source: int, nbytes: int) -> None:
    frames = machine.memory.named["local"].data.reshape(machine.n, -1)
    where: Any = slice(None) if threads is None else threads
    frames[where, to : to + nbytes] = frames[where, source : source + nbytes]


def _call(assembler: Assembler, instruction: Instruction, function: Function) -> Built:
    callee = assembler.callee(instruction)
    if callee is None:
        assembler.fail("calls through registers are not supported")
    if callee.problem:
        assembler.fail(f"the kernel calls {callee.name}, which cannot be run: {callee.problem}")
    if callee.body is not None and (callee is function or callee not in assembler.bases):
        assembler.fail(f"{callee.name} calls itself; recursive device functions are not supported")
    lists = [operand.items for operand in instruction.operands if isinstance(operand, Vector)]
    results = lists.pop(0) if callee.results and lists else ()
    values = lists.pop(0) if lists else ()
    if callee.body is None:
        return _external(assembler, callee, values), True
    arguments = _copies(assembler, values, callee.parameters)
    start, after = assembler.bases[callee], assembler.pc + 1
    assembler.returns[after] = _copies(assembler, results, callee.results)

    def step(machine: Machine, threads: Threads) -> int:
        for own, formal, nbytes in arguments:
            _copy(machine, threads, formal, own, nbytes)
        if start not in machine.returns:
            machine.returns[start] = np.full(machine.n, STOP)
        machine.returns[start][machine.numbers(threads)] = after
        return start

    return step, False


def _external(assembler: Assembler, callee: Function, values: tuple[Operand, ...]) -> Step:
    """A function that the text only declares: one of `external`, or an error when it is called."""
    function = FUNCTIONS.get(callee.name)
    if function is None:

        def undefined(machine: Machine, threads: Threads) -> None:
            machine.active = threads
            raise Fault(f"the kernel calls {callee.name}, which this PTX does not define")

        return undefined
    places = _places(assembler, values)
    return lambda machine, threads: function(machine, threads, places)


def finish(assembler: Assembler, function: Function) -> Built:
    """Build the end of a function: back to where each thread came from, or the thread's end."""
    if function is assembler.entry:
        return _exit, False
    start, returns = assembler.bases[function], assembler.returns

    def step(machine: Machine, threads: Threads) -> int:
        numbers = machine.numbers(threads)
        targets = machine.returns[start][numbers]
        for target in np.unique(targets):
            for own, formal, nbytes in returns[int(target)]:
                _copy(machine, numbers[targets == target], own, formal, nbytes)
        return _spread(machine, threads, targets)

    return step, False


def _return(assembler: Assembler, instruction: Instruction, function: Function) -> Built:
    return finish(assembler, function)


def _exit(machine: Machine, threads: Threads) -> int:
    machine.end(threads)
    return STOP


def _trap(machine: Machine, threads: Threads) -> int:
    machine.active = threads
    raise Fault("the kernel executed a trap")


# Barriers of a block


class Barrier:
    """``bar.sync``, ``bar.red`` and ``bar.arrive``: a `machine.Meeting`."""

    key = "barrier"

    def __init__(
        self, pc: int, number: Reader, count: Reader | None, value: Reader | None, kind: str, write: Writer | None
    ) -> None:
        self.pc, self.number, self.count, self.value, self.kind, self.write = pc, number, count, value, kind, write

    def describe(self) -> str:
        return "the other threads of the block"

    def __call__(self, machine: Machine, threads: Threads) -> int:
        """Pass if every thread of every block is here, else park (a step of the machine)."""
        if threads is None and self.count is None and self.number(machine, threads).shape[0] == 1:
            if self.write is not None:
                self.write(machine, threads, self._result(self._values(machine, machine.thread), machine.block))
            return self.pc + 1
        if self.kind == "arrive":
            assert self.count is not None
            numbers = machine.numbers(threads)
            which = np.broadcast_to(self.number(machine, threads), len(numbers))
            for number in np.unique(which):
                here = machine.arrivals.setdefault(int(number), np.zeros(machine.blocks, np.int64))
                np.add.at(here, machine.block[numbers[which == number]], 1)
            return self.pc + 1
        machine.park(self, self.pc, threads)
        return STOP

    def _values(self, machine: Machine, threads: Array) -> Array:
        """Return the operand of a reduction, for other barriers False."""
        value = np.zeros(1, bool) if self.value is None else self.value(machine, threads)
        return np.broadcast_to(value, len(threads))

    def _result(self, values: Array, group: Array) -> Any:
        """Reduce the values of each group (a number for each thread) and give every thread its group's result."""
        true = np.bincount(group, weights=values)[group].astype(np.uint32)
        return {"popc": true, "and": true == np.bincount(group)[group], "or": true > 0}[self.kind]

    def resolve(self, machine: Machine, parked: list[Parked]) -> list[Parked]:
        numbers = np.concatenate([p.threads for p in parked])
        sizes = [len(p.threads) for p in parked]
        origin = np.repeat(np.arange(len(parked)), sizes)
        barriers: list[Barrier] = [p.meeting for p in parked]  # type: ignore[misc]

        def of_all(readers: list[Any], missing: int) -> Array:
            parts = [
                np.full(n, missing) if read is None else np.broadcast_to(read(machine, p.threads), n)
                for read, p, n in zip(readers, parked, sizes, strict=True)
            ]
            return np.concatenate(parts).astype(np.int64)

        which = of_all([b.number for b in barriers], 0)
        needed = of_all([b.count for b in barriers], -1)
        block = machine.block[numbers]
        living = np.bincount(machine.block[machine.live], minlength=machine.blocks)
        needed = np.where(needed < 0, living[block], needed)
        key = which * machine.blocks + block
        present = np.bincount(key, minlength=int(key.max()) + 1)
        for number, here in machine.arrivals.items():
            start = number * machine.blocks
            if start < len(present):
                present[start : start + machine.blocks] += here[: len(present) - start]
        go = present[key] >= needed
        values = np.concatenate([b._values(machine, p.threads) for b, p in zip(barriers, parked, strict=True)])
        for number, here in machine.arrivals.items():
            here[block[go & (which == number)]] = 0
        left = []
        for k, entry in enumerate(parked):
            mine = origin == k
            passed, waits = numbers[mine & go], numbers[mine & ~go]
            write = barriers[k].write
            if len(passed):
                if write is not None:
                    write(machine, passed, barriers[k]._result(values[go], key[go])[mine[go]])
                machine.add(entry.pc + 1, passed)
            if len(waits):
                left.append(Parked(entry.meeting, entry.pc, waits))
        return left


def _barrier(assembler: Assembler, instruction: Instruction, function: Function) -> Built:
    modifiers = Modifiers(instruction.modifiers, 0)
    modifiers.ignore("cta", "aligned")
    kind = modifiers.choice("sync", "arrive", "red", default="sync")
    operands = list(instruction.operands)
    write = value = None
    if kind == "red":
        kind = modifiers.choice("popc", "and", "or")
        result = modifiers.type()
        write = assembler.write(operands.pop(0), result)
        value = assembler.read(operands.pop(), PREDICATE)
    modifiers.finish()
    number, *count = [assembler.read(operand, U32) for operand in operands]
    return Barrier(assembler.pc, number, count[0] if count else None, value, kind, write), False


TABLE: dict[str, Callable[[Assembler, Instruction, Function], Built | None]] = {
    "bra": _branch,
    "brx": _indexed_branch,
    "call": _call,
    "ret": _return,
    "exit": lambda assembler, instruction, function: (_exit, False),
    "trap": lambda assembler, instruction, function: (_trap, False),
    "brkpt": lambda assembler, instruction, function: (_trap, False),
    "bar": _barrier,
    "barrier": _barrier,
}
