"""The operands of a stage: what a kernel reads and writes, along which axes, from which addresses.

Axes that every operand walks as one are merged first. The numbers that differ between calls go to the table ``q``,
and the kernel's source reads them by position, so the source stays the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from . import ir
from .emit import Access, Emitter, memory_type
from .folds import Fold, FoldPart
from .layout import merge
from .plan import UNROLL, Buffer, Expr, GatherLoad, Load, Position, Stage, calls_user, leaves

UNKNOWN = 1000  # operations that a user's function is taken for


@dataclass
class Writer:
    """Lines of source, indented."""

    lines: list[str] = field(default_factory=list)
    depth: int = 0

    def add(self, *lines: str) -> None:
        self.lines += ["    " * self.depth + line for line in lines]

    def block(self, header: str) -> Indent:
        self.add(header)
        return Indent(self)


class Indent:
    """Indents what a `Writer` prints inside a ``with``."""

    def __init__(self, writer: Writer) -> None:
        self.writer = writer

    def __enter__(self) -> None:
        self.writer.depth += 1

    def __exit__(self, *error: object) -> None:
        self.writer.depth -= 1


class Operands:
    """The operands of a stage: their slots, merged axes, addresses, and how a loop reads them."""

    def __init__(self, stage: Stage, writer: Writer) -> None:
        self.stage = stage
        self.w = writer
        self.numbers: list[int] = []
        self.operands: list[tuple[Buffer | None, int]] = []
        self.partial_slot: int | None = None
        self.users: dict[str, ir.UserFunction] = {}
        self.errors: list[str] = []
        self.folds: dict[str, Fold] = {}
        self.parts: list[tuple[int, FoldPart]] = []  # numbers that are addresses of parts of folds
        self._printed: set[str] = set()  # pointers of the current walk that exist already
        self.row_values: dict[int, str] = {}  # id of a leaf that reads a row's reduction -> its name
        self.row_maxima: dict[int, Expr] = {}  # id of such a leaf -> the values whose maximum it reads
        self.reads: list[int] = []  # numbers that the kernel reads at its start
        self.scratch = self.partials = self.rows = 0
        users = any(isinstance(reduction.op, ir.UserReduction) for reduction in stage.reductions)
        self.unknown = UNKNOWN if users or any(map(calls_user, self._exprs())) else 0  # operations, beside our own
        self._collect()

    def _collect(self) -> None:
        """Number the operands, and merge the axes that all of them walk as one."""
        stage = self.stage
        rank = len(stage.shape)
        kept = [axis for axis in range(rank) if axis not in stage.axes]
        order = kept + list(stage.axes)
        row_buffers = {id(r.buffer): r for r in stage.reductions} if stage.kind == "rows" else {}
        self.leaves: list[Load | GatherLoad | Position] = []
        self.row_leaves: list[Load] = []
        for expr in self._exprs():
            for leaf in leaves(expr):
                if isinstance(leaf, Load) and id(leaf.buffer) in row_buffers:
                    self.row_leaves.append(leaf)
                elif isinstance(leaf, Load | GatherLoad | Position) and leaf not in self.leaves:
                    self.leaves.append(leaf)
        strides: list[list[int]] = []
        for leaf in self.leaves:
            strides.append([leaf.layout.strides[axis] for axis in order])
        for store in stage.stores:
            strides.append([store.layout.strides[axis] for axis in order])
        for reduction in stage.reductions:
            strides.append([*reduction.buffer.layout.strides, *[0] * len(stage.axes)])
        for store in stage.finish:
            strides.append([*store.layout.strides, *[0] * len(stage.axes)])
        groups = [0] * len(kept) + [1] * len(stage.axes)
        extents, strides, groups = merge([stage.shape[axis] for axis in order], strides, groups)
        count = groups.count(0)
        self.kept = extents[:count]
        self.reduced = extents[count:]
        self.kept_strides = [s[:count] for s in strides]
        self.reduced_strides = [s[count:] for s in strides]

    def _exprs(self) -> list[Expr]:
        return [s.expr for s in self.stage.stores] + [r.expr for r in self.stage.reductions]

    def stride(self, nbytes: int, itemsize: int) -> str:
        """Return source for a stride in items: a constant where it is small."""
        items = nbytes // itemsize
        return str(items) if -1 <= items <= UNROLL else f"q{self._named(items)}"

    def _named(self, value: int) -> int:
        """Put `value` into q, read once at the start of the kernel as ``q<number>``."""
        self.numbers.append(int(value))
        self.reads.append(len(self.numbers) - 1)
        return len(self.numbers) - 1

    def _slot(self, buffer: Buffer | None, offset: int) -> int:
        self.operands.append((buffer, offset))
        return len(self.operands) - 1

    def _columns_are_closer(self) -> bool:
        """Whether most operands step less from column to column than from element to element of a reduction."""
        votes = 0
        for index in range(len(self.leaves)):
            column = abs(self.kept_strides[index][-1])
            element = abs(self.reduced_strides[index][-1]) if self.reduced else 0
            if column and element:
                votes += 1 if column < element else -1
        return votes > 0

    def _decode(self, row: str, extents: list[int]) -> list[str]:
        """Print the indices of the axes `extents` of the work item `row`; return their names."""
        names = [f"i{axis}" for axis in range(len(extents))]
        left = row
        for axis in range(len(extents) - 1, -1, -1):
            if axis == 0:
                self.w.add(f"i0 = {left}")
            else:
                n = f"q{self._named(extents[axis])}"
                self.w.add(f"r{axis} = {left} // {n}", f"i{axis} = {left} - r{axis} * {n}")
                left = f"r{axis}"
        return names

    def _address(self, base: str, names: list[str], strides: list[int]) -> str:
        terms = [base]
        for name, stride in zip(names, strides, strict=True):
            terms.append(f"{name} * q{self._named(stride)}")
        return " + ".join(terms)

    def _access(
        self, leaf: Load | GatherLoad | Position | None, slot: int, inner: int, unrolled: int, itemsize: int
    ) -> Access:
        return Access(slot, f"x{slot}", leaf, self.stride(inner, itemsize), self.stride(unrolled, itemsize))

    def _open(self, names: list[str], kept_axes: int, extra: dict[int, str] | None = None) -> list[int]:
        """Print the address ``a<slot>`` of every operand at the current outer indices; return the slots."""
        slots = []
        operands: list[tuple[Any, Any]] = [(leaf, leaf.layout) for leaf in self.leaves]
        operands += [(store, store.layout) for store in self.stage.stores]
        operands += [(reduction, reduction.buffer.layout) for reduction in self.stage.reductions]
        operands += [(store, store.layout) for store in self.stage.finish]
        for index, (what, layout) in enumerate(operands):
            buffer = None if isinstance(what, Position) else what.buffer
            slot = self._slot(buffer, layout.offset)
            slots.append(slot)
            strides = self.kept_strides[index][:kept_axes]
            text = self._address(f"p[{slot}]", names, strides)
            self.w.add(f"a{slot} = {text}")
            if isinstance(what, GatherLoad):
                step = what.stride // what.dtype.itemsize
                self.w.add(f"n{slot} = q{self._named(what.length)}", f"d{slot} = q{self._named(step)}")
        return slots

    def _emitter(self, variable: str, accesses: dict[int, Access]) -> Emitter:
        return Emitter(accesses, variable, self.row_values, self.users, self.errors, maxima=self.row_maxima)

    def _pointers(self, accesses: dict[int, Access], used: list[Expr], base: str) -> None:
        """Print the typed pointers of the operands that `used` reads; `base` is the prefix of their addresses."""
        for expr in used:
            for leaf in leaves(expr):
                access = accesses.get(id(leaf))
                if access is None or access.expr is None:
                    continue
                if isinstance(leaf, Position):
                    line = f"b{access.slot} = {base}{access.slot}"
                else:
                    line = f"{access.name} = ptr_{memory_type(leaf.dtype)}({base}{access.slot})"
                if line != f"b{access.slot} = b{access.slot}" and line not in self._printed:
                    self._printed.add(line)
                    self.w.add(line)
