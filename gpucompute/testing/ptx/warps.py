"""Instructions in which the threads of a warp exchange values: shfl, vote, match, redux, activemask, bar.warp.

A thread waits until all threads that its mask names have come, or ended; instructions of the same form meet even at
different places. Threads of a warp with the same mask form a row; a row's values are a line of 32 in a table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np

from . import floating
from .assembler import Assembler, Built, Reader, Writer
from .machine import STOP, Machine, Parked, Threads
from .memory import Fault
from .operation import COMBINATIONS, Modifiers, UnknownForm
from .syntax import Function, Instruction, Literal, Pair
from .types import PREDICATE, TYPES, Array, Type

U32 = TYPES["u32"]
FULL = 0xFFFFFFFF
ABSENT = 0xCBCBCBCB  # what a shuffle gives from a thread that does not take part, which PTX leaves undefined


class Rows:
    """The threads that execute together, as rows of 32 lanes.

    Attributes
    ----------
    row, lane : ndarray of int64
        Of each thread.
    bits : ndarray of uint32
        For each thread the lanes of its row that are here.
    """

    def __init__(self, machine: Machine, numbers: Array, masks: Array) -> None:
        warp, self.lane = machine.warp[numbers], machine.lane[numbers]
        if masks.shape[0] == 1:
            self.row, self.count = warp, machine.warps
        else:
            found, inverse = np.unique((warp << 32) | masks.astype(np.int64), return_inverse=True)
            self.row, self.count = inverse.reshape(-1), len(found)
        here = self.table(np.ones(1, bool), False)
        self.bits = np.packbits(here, axis=1, bitorder="little").view(np.uint32)[:, 0][self.row]
        self.waited_for = masks & machine.live_bits()[warp] & ~self.bits

    def table(self, values: Array, fill: Any) -> Array:
        """Return values as rows × 32 lanes, `fill` where no thread is."""
        table = np.full((self.count, 32), fill, values.dtype)
        table[self.row, self.lane] = values
        return table


Exchange = Callable[..., Sequence[Array]]  # of the rows, the masks and the operands


class WarpMeeting:
    """A warp instruction: a `machine.Meeting`."""

    def __init__(
        self, key: str, pc: int, mask: Reader, readers: list[Reader], exchange: Exchange, writers: list[Writer | None]
    ) -> None:
        self.key, self.pc, self.mask = key, pc, mask
        self.readers, self.exchange, self.writers = readers, exchange, writers

    def describe(self) -> str:
        return "the threads that its mask names"

    def __call__(self, machine: Machine, threads: Threads) -> int:
        """Execute at once if all have come, else park (a step of the machine)."""
        machine.active = threads
        masks = self.mask(machine, threads)
        numbers = machine.numbers(threads)
        rows = Rows(machine, numbers, masks)
        self._check(rows, masks)
        if rows.waited_for.any():
            machine.park(self, self.pc, threads)
            return STOP
        operands = [read(machine, threads) for read in self.readers]
        self._write(machine, threads, self.exchange(rows, masks, *operands), slice(None))
        return self.pc + 1

    def _check(self, rows: Rows, masks: Array) -> None:
        missing = (masks >> rows.lane.astype(np.uint32)) & np.uint32(1) == 0
        if missing.any():
            position = int(np.flatnonzero(missing)[0])
            lane, mask = rows.lane[position], int(masks[position if masks.shape[0] > 1 else 0])
            raise Fault(f"the thread is lane {lane}, which its mask {mask:#010x} does not name", position)

    def _write(self, machine: Machine, threads: Threads, results: Sequence[Array], part: Any) -> None:
        for write, result in zip(self.writers, results, strict=False):
            if write is not None:
                write(machine, threads, result[part])

    def resolve(self, machine: Machine, parked: list[Parked]) -> list[Parked]:
        meetings = [cast(WarpMeeting, p.meeting) for p in parked]
        numbers = np.concatenate([p.threads for p in parked])
        masks = _joined([m.mask(machine, p.threads) for m, p in zip(meetings, parked, strict=True)], parked)
        ready = Rows(machine, numbers, masks).waited_for == 0
        if not ready.any():
            return parked
        operands = [
            _joined([m.readers[k](machine, p.threads) for m, p in zip(meetings, parked, strict=True)], parked)[ready]
            for k in range(len(self.readers))
        ]
        rows = Rows(machine, numbers[ready], masks[ready])
        results = [np.broadcast_to(r, len(rows.lane)) for r in self.exchange(rows, masks[ready], *operands)]
        origin = np.repeat(np.arange(len(parked)), [len(p.threads) for p in parked])
        left: list[Parked] = []
        for k, (meeting, entry) in enumerate(zip(meetings, parked, strict=True)):
            go, waits = numbers[(origin == k) & ready], numbers[(origin == k) & ~ready]
            if len(go):
                meeting._write(machine, go, results, origin[ready] == k)
                machine.add(entry.pc + 1, go)
            if len(waits):
                left.append(Parked(entry.meeting, entry.pc, waits))
        return left


def _joined(values: list[Array], parked: list[Parked]) -> Array:
    return np.concatenate([np.broadcast_to(v, len(p.threads)) for v, p in zip(values, parked, strict=True)])


# What each instruction exchanges


def _shuffle(mode: str) -> Exchange:
    def exchange(rows: Rows, masks: Array, value: Array, by: Array, clamp: Array) -> Sequence[Array]:
        lane = rows.lane
        by, segment, limit = by.astype(np.int64) & 31, (clamp.astype(np.int64) >> 8) & 31, clamp.astype(np.int64) & 31
        last = (lane & segment) | (limit & ~segment)
        source = {
            "up": lane - by,
            "down": lane + by,
            "bfly": lane ^ by,
            "idx": (lane & segment) | (by & ~segment),
        }[mode]
        inside = source >= last if mode == "up" else source <= last
        table = rows.table(value, value.dtype.type(ABSENT))
        return table[rows.row, np.where(inside, source, lane)], inside

    return exchange


def _vote(mode: str) -> Exchange:
    def exchange(rows: Rows, masks: Array, value: Array) -> Sequence[Array]:
        table = rows.table(value, False)
        ballot = np.packbits(table, axis=1, bitorder="little").view(np.uint32)[:, 0][rows.row]
        if mode == "ballot":
            return (ballot,)
        if mode == "any":
            return (ballot != 0,)
        return (ballot == rows.bits if mode == "all" else (ballot == 0) | (ballot == rows.bits),)

    return exchange


def _match(mode: str) -> Exchange:
    def exchange(rows: Rows, masks: Array, value: Array) -> Sequence[Array]:
        value = np.broadcast_to(value, len(rows.lane))
        table = rows.table(value, value.dtype.type(0))
        equal = (table[rows.row] == value[:, None]) & rows.table(np.ones(1, bool), False)[rows.row]
        same = np.packbits(equal, axis=1, bitorder="little").view(np.uint32)[:, 0]
        if mode == "any":
            return (same,)
        agreed = same == rows.bits
        return np.where(agreed, same, np.uint32(0)), agreed

    return exchange


def _reduction(name: str, kind: Type, nan: bool, absolute: bool) -> Exchange:
    def exchange(rows: Rows, masks: Array, value: Array) -> Sequence[Array]:
        if kind.is_float:
            value = np.abs(value) if absolute else value
            table = rows.table(value, kind.dtype.type(np.nan if not nan else np.inf if name == "min" else -np.inf))
            choose = floating.extremum(name, kind)
            while table.shape[1] > 1:
                half = table.shape[1] // 2
                table = choose(table[:, :half], table[:, half:], nan)
            return (table[:, 0][rows.row],)
        limits = np.iinfo(kind.dtype)
        neutral = {"min": limits.max, "max": limits.min, "and": limits.max if kind.kind != "s" else -1}.get(name, 0)
        table = rows.table(value, neutral)
        return (COMBINATIONS[name].reduce(table, axis=1, dtype=kind.dtype)[rows.row],)

    return exchange


def _elect(rows: Rows, masks: Array) -> Sequence[Array]:
    lowest = rows.bits & (~rows.bits + np.uint32(1))
    leader = np.bitwise_count(lowest - np.uint32(1)).astype(np.uint32)
    return leader, leader == rows.lane


# Building


def _destinations(instruction: Instruction) -> list[Any]:
    first = instruction.operands[0]
    return [first.first, first.second] if isinstance(first, Pair) else [first]


def _meeting(
    assembler: Assembler,
    instruction: Instruction,
    results: list[Type],
    operands: list[Type],
    exchange: Exchange,
    masked: bool,
) -> Built:
    """Build a warp instruction whose last operand is the mask of its threads, if it has one (`masked`)."""
    sources = list(instruction.operands[1:])
    mask = assembler.read(sources.pop() if masked else Literal(FULL), U32)
    if len(sources) != len(operands):
        raise UnknownForm
    names = _destinations(instruction)
    writers: list[Writer | None] = [assembler.write(n, k) for n, k in zip(names, results, strict=False)]
    readers = [assembler.read(source, kind) for source, kind in zip(sources, operands, strict=True)]
    if masked:
        return WarpMeeting(instruction.text, assembler.pc, mask, readers, exchange, writers), False

    def step(machine: Machine, threads: Threads) -> None:
        """Without a mask: among the threads that happen to be here."""
        every = np.full(1, FULL, np.uint32)
        found = exchange(Rows(machine, machine.numbers(threads), every), every, *[r(machine, threads) for r in readers])
        for write, result in zip(writers, found, strict=False):
            if write is not None:
                write(machine, threads, result)

    return step, True


def _shfl(assembler: Assembler, instruction: Instruction, function: Function) -> Built:
    modifiers = Modifiers(instruction.modifiers, 0)
    masked, mode = modifiers.flag("sync"), modifiers.choice("up", "down", "bfly", "idx")
    kind = modifiers.type()
    modifiers.finish()
    return _meeting(assembler, instruction, [kind, PREDICATE], [kind, U32, U32], _shuffle(mode), masked)


def _vote_step(assembler: Assembler, instruction: Instruction, function: Function) -> Built:
    modifiers = Modifiers(instruction.modifiers, 0)
    masked, mode = modifiers.flag("sync"), modifiers.choice("all", "any", "uni", "ballot")
    result = modifiers.type()
    modifiers.finish()
    return _meeting(assembler, instruction, [result], [PREDICATE], _vote(mode), masked)


def _match_step(assembler: Assembler, instruction: Instruction, function: Function) -> Built:
    modifiers = Modifiers(instruction.modifiers, 0)
    masked, mode = modifiers.flag("sync"), modifiers.choice("any", "all")
    kind = modifiers.type()
    modifiers.finish()
    return _meeting(assembler, instruction, [U32, PREDICATE], [kind], _match(mode), masked)


def _redux(assembler: Assembler, instruction: Instruction, function: Function) -> Built:
    modifiers = Modifiers(instruction.modifiers, 0)
    masked, name = modifiers.flag("sync"), modifiers.choice(*COMBINATIONS)
    nan, absolute = modifiers.flag("NaN"), modifiers.flag("abs")
    kind = modifiers.type()
    modifiers.finish()
    return _meeting(assembler, instruction, [kind], [kind], _reduction(name, kind, nan, absolute), masked)


def _elect_step(assembler: Assembler, instruction: Instruction, function: Function) -> Built:
    return _meeting(assembler, instruction, [U32, PREDICATE], [], _elect, "sync" in instruction.modifiers)


def _active_mask(assembler: Assembler, instruction: Instruction, function: Function) -> Built:
    return _meeting(assembler, instruction, [U32], [], lambda rows, masks: (rows.bits,), False)


def warp_barrier(assembler: Assembler, instruction: Instruction, function: Function) -> Built | None:
    """``bar.warp.sync mask``; None for the other bars."""
    if "warp" not in instruction.modifiers:
        return None
    mask = assembler.read(instruction.operands[0], U32)
    return WarpMeeting(instruction.text, assembler.pc, mask, [], lambda rows, masks: (), []), False


TABLE: dict[str, Callable[[Assembler, Instruction, Function], Built | None]] = {
    "shfl": _shfl,
    "vote": _vote_step,
    "match": _match_step,
    "redux": _redux,
    "elect": _elect_step,
    "activemask": _active_mask,
    "bar": warp_barrier,
}
