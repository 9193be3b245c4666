"""What the CUDA skeletons share: words for parameters, indices in 32 or 64 bits, addresses, values.

A kernel is ``kernel(p0, …, w0, …, k0, …, record, sites)``, all 64-bit words: addresses of operands, numbers that differ
between calls (extents, strides), Python scalars, the address of the error words, and the number of sites before this
kernel's. Operands, merged axes and values are those of the CPU path (`operands.py`, `emit.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from ... import ops
from .. import ir
from ..emit import Access, Emitter, memory_type
from ..layout import Layout
from ..operands import Operands, Writer
from ..plan import UNROLL, Apply, Buffer, Expr, GatherLoad, Parameter, Position, Stage, leaves

if TYPE_CHECKING:
    from .folds import TileFold

THREADS = 256  # in a block
BLOCKS = 1 << 16  # in a grid at most; threads walk on by the size of the grid
NARROW_ITEMS = 1 << 30  # points of an index space up to which an index and a step over the grid fit 32 bits
NARROW_BYTES = 1 << 31  # distance between elements of one operand up to which it fits 32 bits
TUPLE = 64  # numbers that are narrowed at once
WORDS = 480  # parameters of a kernel may take 4 KiB
PARTIAL = Buffer(Layout(0, (), ()), np.dtype(np.int64))  # stands for the partial results of a reduction
COUNTERS = Buffer(Layout(0, (), ()), np.dtype(np.int32))  # for the counts of blocks that have theirs ready


@dataclass(frozen=True)
class SharedFunction:
    """A function that many kernels call, compiled once: its source, and the folds that it calls ``f0``, ``f1``, ..."""

    source: str
    tiles: tuple[TileFold, ...]


@dataclass(eq=False)
class CudaKernel:
    """Source, and what a launch needs.

    operands : for each address the buffer (`PARTIAL`: partial results) and the byte offset in it; numbers : the words
    after the addresses; scalars : which Python scalars follow; tiles, functions, users : what it calls; arrays : names
    of arrays in the source, and how `intrinsics` makes them; partials : bytes of partial results that blocks leave for
    one another; counters : how many of them count those blocks.
    """

    source: str
    operands: list[tuple[Buffer | None, int]]
    numbers: list[int]
    scalars: list[int]
    errors: list[str]
    tiles: dict[str, TileFold]
    functions: dict[str, SharedFunction]
    users: dict[str, ir.UserFunction]
    arrays: dict[str, tuple[str, tuple[Any, ...]]]
    grid: int
    block: int = THREADS
    partials: int = 0
    counters: int = 0


@dataclass
class CudaEmitter(Emitter):
    """Prints values; Python scalars are parameters of their own."""

    scalars: list[int] = field(default_factory=list)

    def _text(self, expr: Expr, u: int | None) -> str:
        if not isinstance(expr, Parameter):
            return super()._text(expr, u)
        if expr.index not in self.scalars:
            self.scalars.append(expr.index)
        word = f"k{expr.index}"
        return {"f": f"float_of({word})", "b": f"{word} != 0"}.get(expr.dtype.kind, word)

    def _constant_quotient(self, expr: Apply, u: int | None) -> str | None:
        return None  # a product in float64 is slower than a division here, or 64 times slower


class CudaOperands(Operands):
    """The operands of a stage, their addresses and the printing of a kernel's head."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage, Writer(depth=1))
        self.scalars: list[int] = []
        self.arrays: dict[str, tuple[str, tuple[Any, ...]]] = {}
        self.tiles: dict[str, TileFold] = {}  # by the prefix of their functions' names
        self.shared_functions: dict[str, SharedFunction] = {}
        self.functions: list[str] = []  # what the kernel calls beside the scalar functions
        self.narrow = self._fits()
        self.index = "int32" if self.narrow else "int64"
        self.layouts: list[tuple[Any, Any]] = [(leaf, leaf.layout) for leaf in self.leaves]
        self.layouts += [(store, store.layout) for store in stage.stores]
        self.layouts += [(reduction, reduction.buffer.layout) for reduction in stage.reductions]
        self.layouts += [(store, store.layout) for store in stage.finish]

    def _fits(self) -> bool:
        """Whether indices and distances fit 32 bits."""
        extents = self.kept + self.reduced
        if prod(extents) >= NARROW_ITEMS:
            return False
        for kept, reduced in zip(self.kept_strides, self.reduced_strides, strict=True):
            if sum(abs(s) * (n - 1) for s, n in zip(kept + reduced, extents, strict=True)) >= NARROW_BYTES:
                return False
        return True

    def number(self, value: int) -> str:
        """Return the name of a number that the kernel is given."""
        return f"q{self._named(value)}"

    def decode(self, left: str, extents: list[int], prefix: str) -> list[str]:
        """Print the indices along `extents` of the position `left`; return their names."""
        names = [f"{prefix}{axis}" for axis in range(len(extents))]
        for axis in range(len(extents) - 1, 0, -1):
            n = self.number(extents[axis])
            above = f"{prefix}r{axis}"
            self.w.add(f"{above} = {self.quotient(left, n, extents[axis])}")
            self.w.add(f"{names[axis]} = rest({left}, {above}, {n})")
            left = above
        if names:
            self.w.add(f"{names[0]} = {left}")
        return names

    def quotient(self, left: str, n: str, value: int) -> str:
        """Return source for `left` divided by the number `n`, whose value now is `value`."""
        if not self.narrow:
            return f"quotient64({left}, {n})"
        shift = max(value - 1, 0).bit_length()
        factor = (1 << 32) * ((1 << shift) - value) // value + 1
        return f"quotient({left}, {self.number(factor)}, {self.number(shift)})"

    def distance(self, names: list[str], strides: list[int], *, small: int = 0) -> str:
        """Return source for the bytes (items for a position) from the start; "" if it is the start itself.

        The stride of the last axis is a constant of the source up to `UNROLL` items of `small` bytes.
        """
        terms = []
        for axis, (name, stride) in enumerate(zip(names, strides, strict=True)):
            if stride == 0:
                continue
            constant = small and axis == len(names) - 1 and -small <= stride <= UNROLL * small
            terms += [name, str(stride) if constant else self.number(stride)]
        return f"distance({', '.join(terms)})" if terms else ""

    def open(self, names: list[str], axes: int) -> list[int]:
        """Print the address ``a<slot>`` of every operand at the first `axes` kept indices; return the slots."""
        slots = []
        for position, (what, layout) in enumerate(self.layouts):
            slot = self._slot(None if isinstance(what, Position) else what.buffer, layout.offset)
            slots.append(slot)
            self.w.add(f"a{slot} = {self.moved(f'p{slot}', position, names, self.kept_strides[position][:axes])}")
            if isinstance(what, GatherLoad):
                step = what.stride // what.dtype.itemsize
                self.w.add(f"n{slot} = {self.number(what.length)}", f"d{slot} = {self.number(step)}")
        return slots

    def moved(self, base: str, position: int, names: list[str], strides: list[int]) -> str:
        """Return source for the address `base` of operand number `position`, moved along `strides`."""
        distance = self.distance(names, strides, small=self.itemsize(position))
        return f"{base} + {distance}" if distance else base

    def itemsize(self, position: int) -> int:
        """Return the bytes of an element of operand number `position` (1 for a position, which counts itself)."""
        what = self.layouts[position][0]
        return 1 if isinstance(what, Position) else int(getattr(what, "buffer", what).dtype.itemsize)

    def access(self, position: int, slot: int, between: int = 0) -> Access:
        """Return how operand number `position` is read or written at its pointer.

        `between` are the bytes from lane to lane.
        """
        what = self.layouts[position][0]
        leaf = what if position < len(self.leaves) else None
        return Access(slot, f"x{slot}", leaf, "0", self.stride(between, self.itemsize(position)))

    def point(self, accesses: dict[int, Access], used: list[Expr], base: str) -> None:
        """Print the typed pointers of what `used` reads; `base` is the prefix of their addresses."""
        wanted = {id(leaf) for expr in used for leaf in leaves(expr)}
        for leaf in self.leaves:
            access = accesses.get(id(leaf))
            if access is None or id(leaf) not in wanted:
                continue
            if isinstance(leaf, Position):
                if base != "b":
                    self.w.add(f"b{access.slot} = {base}{access.slot}")
            else:
                self.w.add(f"x{access.slot} = ptr_{memory_type(leaf.dtype)}({base}{access.slot})")

    def emitter(self, accesses: dict[int, Access]) -> CudaEmitter:
        """Return a printer of values for the points that `accesses` read."""
        return CudaEmitter(accesses, "0", self.row_values, self.users, self.errors, scalars=self.scalars)

    def kernel(self, grid: int, block: int = THREADS, partials: int = 0, counters: int = 0) -> CudaKernel:
        """Return what was printed so far."""
        names = [f"p{i}" for i in range(len(self.operands))]
        names += [f"w{i}" for i in range(len(self.numbers))]
        names += [f"k{i}" for i in self.scalars]
        head = [f"def kernel({', '.join([*names, 'record', 'sites'])}):", "    e = (record, sites)"]
        for first in range(0, len(self.numbers), TUPLE):
            some = range(first, min(first + TUPLE, len(self.numbers)))
            given = "".join(f"w{i}, " for i in some)
            head.append(f"    {''.join(f'q{i}, ' for i in some)}= {f'narrowed({given})' if self.narrow else given}")
        return CudaKernel(
            source="\n".join([*self.functions, *head, *self.w.lines]) + "\n",
            operands=self.operands,
            numbers=self.numbers,
            scalars=self.scalars,
            errors=self.errors,
            tiles=self.tiles,
            functions=self.shared_functions,
            users=self.users,
            arrays=self.arrays,
            grid=grid,
            block=block,
            partials=partials,
            counters=counters,
        )


def blocks_for(items: int, each: int) -> int:
    """Return how many blocks share `items`, of which one block takes `each` at a time."""
    return min(max(1, -(-items // each)), BLOCKS)


def cost(expr: Expr) -> int:
    """Return a rough number of instructions for one value."""
    if not isinstance(expr, Apply):
        return 2 + (cost(expr.index) if isinstance(expr, GatherLoad) else 0)
    named = isinstance(expr.op, str) and expr.op in ops.OPS
    own = (60 if expr.dtype == np.float64 else 25) if not named or ops.OPS[expr.op].ulp else 2
    return own + sum(cost(arg) for arg in expr.args)
