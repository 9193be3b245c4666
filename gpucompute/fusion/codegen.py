"""Print the Python source of a stage's kernel, and the numbers it is called with.

A kernel is ``kernel(lo, hi, p, q, s, k, e)``: work items lo to hi; p, the start address of each operand; q, the
numbers that differ between calls (extents, strides); s, scratch memory of the calling thread; k, the table of Python
scalars; e, an error word. The source depends on dtypes, the number of merged axes, which strides are 0, ±1 or
small, and inner extents up to 8; all other sizes are in q, so arrays of other sizes run the same machine code.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import ir
from .codegen_reduce import ReduceSource
from .emit import Access, memory_type, writing
from .folds import Fold, FoldPart
from .operands import Operands, Writer
from .plan import UNROLL, Buffer, Position, Stage

LOOP = 16384  # elements of an innermost loop that one work item runs
FEW = 32  # the same where users' functions are called: nobody knows how long these take, and Ctrl-C waits for an item


@dataclass
class Kernel:
    """Source, and what `run` needs to call it."""

    source: str
    operands: list[tuple[Buffer | None, int]]  # for each slot of p: the buffer and the byte offset in it
    partial_slot: int | None  # the slot of p that takes the address of the partial results
    numbers: list[int]  # q
    items: int  # work items
    cost: int  # rough number of operations in a work item, to share the work fairly
    scratch: int  # bytes of scratch for each thread
    partials: int  # bytes for partial results
    rows: int  # work items of the second call that joins partial results (0: none)
    folds: dict[str, Fold]  # by the prefix of their names in the source
    parts: list[tuple[int, FoldPart]]  # which numbers are the addresses of parts of folds
    users: dict[str, ir.UserFunction]
    errors: list[str]
    words: int = 0  # the arguments are those of a stage
    interleave: int = 2  # vectors side by side, on processors with 512 bits


def generate(stage: Stage) -> Kernel:
    """Return the kernel of `stage`."""
    body = Writer(depth=1)
    printer = MapSource(stage, body) if stage.kind == "map" else ReduceSource(stage, body)
    items, cost = printer.print()
    head = ["def kernel(lo, hi, p, q, s, k, e):", "    wide_vectors()", *(f"    q{i} = q[{i}]" for i in printer.reads)]
    return Kernel(
        source="\n".join(head + body.lines) + "\n",
        operands=printer.operands,
        partial_slot=printer.partial_slot,
        numbers=printer.numbers,
        items=items,
        cost=cost,
        scratch=printer.scratch,
        partials=printer.partials,
        rows=printer.rows,
        folds=printer.folds,
        parts=printer.parts,
        users=printer.users,
        errors=printer.errors,
    )


class MapSource(Operands):
    """Print a stage of stores only."""

    def print(self) -> tuple[int, int]:
        """Stores over all axes: the last is the loop, a small last one is unrolled inside the loop before it."""
        extents = self.kept or [1]
        strides = [s or [0] for s in self.kept_strides]
        self.kept_strides = strides
        small = len(extents) > 1 and extents[-1] <= UNROLL
        unrolled = extents[-1] if small else None
        loop = len(extents) - (2 if small else 1)
        outer = extents[:loop]
        rows = int(np.prod(outer, dtype=np.int64))
        length = extents[loop]
        per_item = max(1, (FEW if self.unknown else LOOP) // (unrolled or 1))
        blocks = max(1, -(-length // per_item))
        w = self.w
        n, size, count = (f"q{self._named(v)}" for v in (length, per_item, blocks))
        with w.block("for item in range(lo, hi):"):
            w.add(f"row = item // {count}", f"j0 = (item - row * {count}) * {size}", f"run = min({size}, {n} - j0)")
            names = self._decode("row", outer)
            slots = self._open(names, loop)
            # Addresses move to the block, so that the loop counts from 0: from elsewhere numba's ranges gather.
            for slot, steps in zip(slots, strides, strict=True):
                if steps[loop]:
                    w.add(f"a{slot} += j0 * q{self._named(steps[loop])}")
            accesses: dict[int, Access] = {}
            for index, leaf in enumerate(self.leaves):
                itemsize = 1 if isinstance(leaf, Position) else leaf.dtype.itemsize
                accesses[id(leaf)] = self._access(
                    leaf, slots[index], strides[index][loop], strides[index][-1] if small else 0, itemsize
                )
            targets = []
            for index, store in enumerate(self.stage.stores, len(self.leaves)):
                itemsize = store.buffer.dtype.itemsize
                targets.append(
                    self._access(None, slots[index], strides[index][loop], strides[index][-1] if small else 0, itemsize)
                )
            self._printed = set()
            self._pointers(accesses, self._exprs(), "a")
            for store, target in zip(self.stage.stores, targets, strict=True):
                w.add(f"{target.name} = ptr_{memory_type(store.buffer.dtype)}(a{target.slot})")
            emitter = self._emitter("j", accesses)
            for u in range(unrolled) if unrolled is not None else [None]:
                for store, target in zip(self.stage.stores, targets, strict=True):
                    value = writing(emitter.value(store.expr, u), store.buffer.dtype)
                    emitter.inside.append(f"{target.name}[{target.index('j', u)}] = {value}")
            w.add(*emitter.before)
            with w.block("for j in range(run):"):
                w.add(*emitter.inside)
        lines = len(emitter.inside) + self.unknown
        return rows * blocks, min(length, per_item) * lines
