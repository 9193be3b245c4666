"""One batch of blocks in execution: registers of all threads, and which threads are where.

Threads that are at the same instruction form a group and execute it together, as NumPy arrays over the group. A
branch splits a group. The group at the lowest instruction goes first, and a group that reaches another joins it:
compilers lay out code so that this brings threads together again where their paths meet. Threads that wait for others
(barriers, warp instructions) are parked until all that must come have come.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from ...errors import PtxError
from .memory import Fault, Memory
from .types import Array

if TYPE_CHECKING:
    from .assembler import Program

Threads = Array | None  # sorted numbers of threads in the batch; None for all of them
STOP = -1  # what a step returns when its threads do not go on by themselves
SPINS = 64  # jumps backwards before waiting groups get a turn: these may hold what the group spins for


class Parked(NamedTuple):
    """Threads that wait at an instruction."""

    meeting: Meeting
    pc: int
    threads: Array


class Meeting(Protocol):
    """An instruction at which threads wait for others."""

    key: str  # instructions with the same key meet each other

    def resolve(self, machine: Machine, parked: list[Parked]) -> list[Parked]:
        """Let go whom nobody keeps waiting (`machine.add`), and return who must wait on."""
        ...

    def describe(self) -> str:
        """Say what is waited for."""
        ...


@dataclass(frozen=True)
class Shape:
    """A launch: grid and block in x, y, z, bytes of dynamic shared memory."""

    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    dynamic_shared: int

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return self.block[0] * self.block[1] * self.block[2]

    @property
    def blocks(self) -> int:
        """Blocks of the grid."""
        return self.grid[0] * self.grid[1] * self.grid[2]


class Machine:
    """The blocks `first` to `first + count - 1` of a launch.

    Attributes
    ----------
    registers : list of ndarray
        By slot: one element per thread, or one element if all threads have the same. Never shared between slots.
    live : ndarray of bool
        Which threads have not ended.
    block, lane, warp : ndarray of int64
        Of each thread: its block within the batch, its lane, its warp within the batch.
    parameters : ndarray of uint8
        The kernel's arguments.
    active : Threads
        Of the instruction that may fail, for the error.
    """

    def __init__(
        self, program: Program, shape: Shape, first: int, count: int, memory: Memory, lanes: Lanes, parameters: Array
    ) -> None:
        self.program: Program = program
        self.memory, self.parameters = memory, parameters
        self.shape: Shape = shape
        self.first, self.blocks, self.n = first, count, count * shape.threads
        self.block, self.lane, self.warp, self.warps = lanes.block, lanes.lane, lanes.warp, lanes.warps
        self.thread = lanes.thread
        self.registers: list[Array] = list(program.initial)
        self.returns: dict[int, Array] = {}
        self.live = np.ones(self.n, bool)
        self.arrivals: dict[int, Array] = {}  # barrier: bar.arrive's threads of each block
        self.active: Threads = None
        self.pending: dict[int, list[Threads]] = {}
        self.parked: dict[str, list[Parked]] = {}
        self.lanes = lanes
        self.special: dict[str, Array] = {}
        self._live_bits: Array | None = None
        self.pc = 0
        self.spinning, self.turns = False, 0

    # Groups

    def add(self, pc: int, threads: Threads) -> None:
        """Let threads go on at an instruction."""
        self.pending.setdefault(pc, []).append(threads)

    def park(self, meeting: Meeting, pc: int, threads: Threads) -> None:
        """Let threads wait."""
        self.parked.setdefault(meeting.key, []).append(Parked(meeting, pc, self.numbers(threads)))

    def numbers(self, threads: Threads) -> Array:
        """Return the numbers of threads, of all for None."""
        return self.thread if threads is None else threads

    def end(self, threads: Threads) -> None:
        """Note that threads have ended."""
        self.live[self.numbers(threads)] = False
        self._live_bits = None

    def live_bits(self) -> Array:
        """Return for each warp the lanes that have not ended, as bits."""
        if self._live_bits is None:
            self._live_bits = np.zeros(self.warps, np.uint32)
            alive = np.flatnonzero(self.live)
            np.bitwise_or.at(self._live_bits, self.warp[alive], np.uint32(1) << self.lane[alive].astype(np.uint32))
        return self._live_bits

    def _take(self, pc: int) -> Threads:
        groups = self.pending.pop(pc)
        threads = groups[0]
        if len(groups) > 1:
            threads = np.sort(np.concatenate([self.numbers(group) for group in groups]))
        return None if threads is None or len(threads) == self.n else threads

    def run(self) -> None:
        """Execute until every thread has ended.

        Raises
        ------
        PtxError
            If a thread does something wrong, or threads wait for each other for ever.
        """
        self.add(self.program.start, None)
        try:
            while self.pending or self._resolve():
                order = sorted(self.pending)
                turn = self.spinning
                pc = order[self.turns % len(order)] if turn else order[0]
                self.turns, self.spinning = self.turns + turn, False
                self._group(pc, self._take(pc), turn)
        except Fault as fault:
            raise PtxError(self._message(fault)) from None

    def _group(self, pc: int, threads: Threads, turn: bool) -> None:
        """Execute one group until it stops or another one must go first; one that has its `turn` until it goes back."""
        steps, is_plain, pending = self.program.steps, self.program.is_plain, self.pending
        end = len(steps)
        limit = end if turn else min(pending, default=end)
        spins = SPINS if turn else 0
        while pc < limit:
            self.pc = pc
            if is_plain[pc]:
                steps[pc](self, threads)
                pc += 1
                continue
            target = steps[pc](self, threads)
            if target < 0:
                return
            if not turn:
                limit = min(pending, default=end)
            if target <= pc:
                spins += 1
                if spins > SPINS and (pending or self.parked):
                    self._release()
                    self.spinning, limit = True, STOP
            pc = target
        self.add(pc, threads)

    def _release(self) -> None:
        """Let go whoever waits for nobody any more."""
        for key in list(self.parked):
            waiting = self.parked.pop(key)
            left = waiting[0].meeting.resolve(self, waiting)
            if left:
                self.parked.setdefault(key, []).extend(left)

    def _resolve(self) -> bool:
        """When no group can go on: let go whoever may; tell whether somebody can."""
        self._release()
        if not self.pending and self.parked:
            raise PtxError(self._deadlock())
        return bool(self.pending)

    # Errors

    def _name(self, thread: int) -> str:
        index = self.first + int(self.block[thread])
        number = thread % self.shape.threads
        return f"thread {unravel(number, self.shape.block)} of block {unravel(index, self.shape.grid)}"

    def _where(self, pc: int) -> str:
        line, text = self.program.lines[pc]
        return f"{self.program.name}, PTX line {line} ({text})"

    def _message(self, fault: Fault) -> str:
        thread = fault.position if self.active is None else int(self.active[fault.position])
        return f"{self._where(self.pc)}, {self._name(thread)}: {fault}"

    def _deadlock(self) -> str:
        waiting = [parked for group in self.parked.values() for parked in group]
        parts = [
            f"{self._name(int(p.threads[0]))} and {len(p.threads) - 1} more wait at {self._where(p.pc)} "
            f"for {p.meeting.describe()}"
            for p in waiting[:4]
        ]
        return "threads wait for others that never come: " + "; ".join(parts)


def unravel(index: int, extent: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return x, y, z of a number that counts x first."""
    return index % extent[0], index // extent[0] % extent[1], index // (extent[0] * extent[1])


class Lanes:
    """Where each thread of a batch of `count` blocks is: the same for every batch of this size."""

    def __init__(self, shape: Shape, count: int) -> None:
        threads = shape.threads
        self.thread = np.arange(count * threads)
        self.block = np.repeat(np.arange(count), threads)
        number = np.tile(np.arange(threads), count)
        self.number = number
        self.lane = number & 31
        per_block = (threads + 31) // 32
        self.warp = self.block * per_block + (number >> 5)
        self.warps = count * per_block
        self.special: dict[str, Array] = {}  # special registers that are the same in every batch


Step = Callable[[Machine, Threads], Any]
