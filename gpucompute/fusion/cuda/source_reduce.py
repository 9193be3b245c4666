"""Print the kernels of reductions, and of stages that work row by row.

A team of threads folds one row (or 32 neighbouring columns) at a time, tile by tile; the states of its tiles lie in
shared memory and are joined there in adjacent pairs. A row of more tiles than fit there is shared between teams,
whose states a second kernel joins. `folds.py` has the folds; `Form` says who holds which element.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from math import prod

from ..emit import Access, memory_type, value_type, writing
from ..folds import fold_for
from ..operands import Writer
from ..plan import Expr, Phase, Reduction, Stage
from .folds import TileFold
from .source import PARTIAL, THREADS, CudaKernel, CudaOperands, SharedFunction, blocks_for, cost

TILE = 256
COLUMNS = 32  # columns side by side: a warp reads them at once
ROW_TILES = 64  # tiles of a row that one block folds: 16384 elements
COLUMN_TILES = 16
LONGEST_ROW = TILE * ROW_TILES  # elements of a row that is finished by the team that folds it
JOINED = 1024  # threads of the block that joins partial results
UNROLLED = 1024  # operations on the elements of one thread up to which they are computed without a loop
_OUTSIDE = re.compile(r"\b(?:[apqndk]\d+|row\d+|e)\b")  # names of a kernel that its functions are given


@dataclass(frozen=True)
class Form:
    """Who holds which element.

    A thread is number ``((team * workers + worker) * lanes + lane) * columns + column`` of its block. The elements of
    a tile are dealt to the lanes in turn, `elements` to each; tiles to the workers of a team; `slots` tiles (per
    column) have states in shared memory at once. With columns, lanes are warps; they hand their values over through
    shared memory, and warp w goes on with column w.
    """

    columns: int
    lanes: int
    elements: int
    workers: int
    slots: int

    @property
    def team(self) -> int:
        """Threads in a team."""
        return self.columns * self.lanes * self.workers

    @property
    def threads(self) -> int:
        """Threads in a block."""
        return max(self.team, THREADS)

    @property
    def teams(self) -> int:
        """Teams in a block."""
        return self.threads // self.team

    @property
    def turned(self) -> bool:
        """Whether columns are handed over to warps."""
        return self.columns > 1 and self.lanes > 1

    @staticmethod
    def choose(length: int, by_column: bool) -> Form:
        """Return the form for a row of `length` elements."""
        if by_column:
            if length <= 8:
                return Form(COLUMNS, 1, _power(length), 1, 1)
            if length <= TILE:
                return Form(COLUMNS, 32, _power(-(-length // 32)), 1, 1)
            return Form(COLUMNS, 32, 8, 1, COLUMN_TILES)
        if length <= TILE:
            lanes = _power(-(-length // 8))
            return Form(1, lanes, 8 if lanes > 1 else _power(length), 1, 1)
        if length <= 8 * TILE:
            return Form(1, 32, 8, 1, 8)
        return Form(1, 32, 8, 8, ROW_TILES)


def _power(n: int) -> int:
    """Return the smallest power of two that is not below `n`."""
    return 1 << (n - 1).bit_length()


class ReduceSource(CudaOperands):
    """The skeleton of reductions and rows."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self.length = prod(self.reduced)
        self.by_column = self._columns_are_closer()
        self.form = Form.choose(self.length, self.by_column)
        self.outer = self.kept[:-1] if self.by_column else self.kept
        self.columns = self.kept[-1] if self.by_column else 1

    def _columns_are_closer(self) -> bool:
        """Whether most operands step less from column to column than from element to element of a reduction."""
        if self.stage.kind != "reduce" or not self.kept or self.kept[-1] < COLUMNS or not self.reduced:
            return False
        votes = 0
        for index in range(len(self.leaves)):
            column, element = abs(self.kept_strides[index][-1]), abs(self.reduced_strides[index][-1])
            if column and element:
                votes += 1 if column < element else -1
        return votes > 0

    def print(self) -> CudaKernel:
        """Return the kernel; it has a second one in `then` where rows are shared between teams."""
        form, w = self.form, self.w
        bands = -(-self.columns // form.columns)
        chunk = TILE * form.slots
        self.chunks = -(-self.length // chunk) if self.stage.kind == "reduce" else 1
        rows = prod(self.outer)
        items = rows * bands * self.chunks
        n = self.number(self.length)
        index = self.index
        w.add(
            "thread = int32(cuda.threadIdx.x)",
            f"column = thread & {form.columns - 1}",
            f"lane = int32(thread >> {form.columns.bit_length() - 1}) & {form.lanes - 1}",
            f"worker = int32(thread >> {(form.columns * form.lanes).bit_length() - 1}) & {form.workers - 1}",
            f"team = int32(thread >> {form.team.bit_length() - 1})",
            "rank = thread & 31" if form.turned else "rank = lane",  # lane and column of the thread after the exchange
            f"held = {'thread >> 5' if form.turned else 'column'}",
            f"base = {index}(cuda.blockIdx.x * {form.teams})",
            f"step = {index}(cuda.gridDim.x * {form.teams})",
            f"items = {self.number(items)}",
        )
        with w.block("while base < items:"):
            # The last teams go along with an item that is not theirs, so that all threads meet at barriers.
            w.add(f"item = {index}(base + team)", "active = item < items")
            w.add(f"item = item if active else {index}(items - 1)")
            left = "item"
            if self.stage.kind == "reduce" and form.slots > 1:
                nc = self.number(self.chunks)
                w.add(f"group = {self.quotient(left, nc, self.chunks)}", f"part = rest(item, group, {nc})")
                left = "group"
                w.add(f"begin = {index}(part * {chunk})", f"end = min({n}, {index}(begin + {chunk}))")
            else:
                w.add(f"begin = {index}(0)", f"end = {n}")
            names: list[str] = []
            if self.by_column:
                nb = self.number(bands)
                w.add(f"row = {self.quotient(left, nb, bands)}", f"band = rest({left}, row, {nb})")
                width = self.number(self.columns)
                w.add(f"c = {index}(band * {form.columns} + column)", f"active = active and c < {width}")
                w.add(f"c = c if active else {index}({width} - 1)")
                left = "row"
            names = self.decode(left, self.outer, "i") + (["c"] if self.by_column else [])
            slots = self.open(names, len(names))
            for phase in self.stage.phases:
                if phase.reductions:
                    self._reduce(phase, slots)
                    if self.stage.kind == "rows":
                        self._row_values(phase, slots, n)
                    else:
                        self._results(phase, slots, n)
                if phase.stores:
                    self._walk(phase, slots, n)
            w.add(f"base = {index}(base + step)")
        partials = 0
        then = None
        if self.chunks > 1:
            count = rows * bands * self.chunks * form.columns
            partials = count * 8 * sum(len(tile.fields) for _, tile, _ in self.folded)
            then = self._joining(rows * bands)
        return self.kernel(blocks_for(items, form.teams), form.threads, partials, then)

    # One team's fold

    def _plan(self, phase: Phase) -> None:
        """Choose the folds of a phase, and which of them gives each result."""
        form = self.form
        exchange = "turn" if form.turned else "shuffle"
        self.folded: list[tuple[str, TileFold, Expr]] = []
        self.values: list[tuple[str, int | None]] = []  # for each reduction: its fold, the field of another's
        sums = {id(f.operand(r)) for r in phase.reductions if (f := fold_for(r)).sum_field is not None}
        for reduction in phase.reductions:
            fold = fold_for(reduction)
            operand = fold.operand(reduction)
            if reduction.op == "sum" and id(operand) in sums:
                continue  # the fold of m2 has it
            if not any(tile.fold == fold and known is operand for _, tile, known in self.folded):
                tile = TileFold(fold, form.lanes, form.elements, exchange)
                self.folded.append((self._name(tile), tile, operand))
        for reduction in phase.reductions:
            fold = fold_for(reduction)
            operand = fold.operand(reduction)
            mine = [name for name, tile, known in self.folded if tile.fold == fold and known is operand]
            if mine:
                self.values.append((mine[0], None))
            else:
                of = next((n, t) for n, t, o in self.folded if o is operand and t.fold.sum_field is not None)
                self.values.append((of[0], of[1].fold.sum_field))

    def _name(self, tile: TileFold) -> str:
        for name, known in self.tiles.items():
            if known == tile:
                return name
        name = f"{tile.fold.name}{len(self.tiles)}"
        self.tiles[name] = tile
        return name

    def _fields(self, prefix: str, number: int, tile: TileFold) -> list[str]:
        return [f"{prefix}{number}_{field}" for field in range(len(tile.fields))]

    def _slot_arrays(self) -> None:
        """Print the arrays of states in shared memory, once for each number of a fold, field and dtype."""
        size = self.form.teams * self.form.slots * self.form.columns
        for number, (_, tile, _) in enumerate(self.folded):
            for name, dtype in zip(self._fields("m", number, tile), tile.fields, strict=True):
                label = f"{name}_{dtype.name}"
                self.arrays[f"shared_{label}"] = ("shared_array", (dtype.name, size, label))
                self.w.add(f"{name} = shared_{label}()")

    def _reduce(self, phase: Phase, slots: list[int]) -> None:
        """Print the folding of elements begin to end: the states are in slot 0 of each column, or in its thread."""
        form, w = self.form, self.w
        self._plan(phase)
        self.alone = form.slots == 1 and form.lanes == 1 and self.stage.kind == "reduce"
        if not self.alone:
            self._slot_arrays()
            first = f"team * {form.slots * form.columns}"
            w.add(f"kept = int32({first} + held)", f"own = int32({first} + column)")
        if form.slots == 1:
            w.add(f"count = {self.index}(end - begin)", "r = begin")
            self._tile(phase, slots, "kept")
        else:
            w.add(f"tiles = int32((end - begin + {TILE - 1}) >> 8)", "t = worker")
            with w.block("while t < tiles:"):
                w.add(
                    f"r = {self.index}(begin + t * {TILE})", f"count = min({self.index}({TILE}), {self.index}(end - r))"
                )
                self._tile(phase, slots, f"kept + t * {form.columns}")
                w.add(f"t = int32(t + {form.workers})")
        if not self.alone:
            w.add(self._barrier())
        if form.slots > 1:
            self._join_slots()

    def _barrier(self) -> str:
        return "cuda.syncwarp()" if self.form.team <= 32 else "cuda.syncthreads()"

    def _tile(self, phase: Phase, slots: list[int], place: str) -> None:
        """Print the evaluation and folding of elements r to r + count."""
        form, w = self.form, self.w
        operands: list[Expr] = []
        kinds: list[str] = []
        for _, tile, operand in self.folded:
            if not any(known is operand for known in operands):
                operands.append(operand)
                kinds.append(tile.element_type.name)
        call = self._element(operands, kinds, slots)
        many = form.elements * sum(map(cost, operands)) > UNROLLED
        if many:
            for number, kind in enumerate(kinds):
                self.arrays[f"own_{kind}"] = ("own_array", (kind, form.elements))
                w.add(f"e{number} = own_{kind}()")
            names = [[f"e{number}[{k}]" for number in range(len(operands))] for k in range(form.elements)]
            with w.block(f"for k in range({form.elements}):"):
                w.add(f"{', '.join(f'e{number}[k]' for number in range(len(operands)))} = {call('k')}")
        else:
            names = [[f"e{number}_{k}" for number in range(len(operands))] for k in range(form.elements)]
            w.add(*(f"{', '.join(name)} = {call(str(k))}" for k, name in enumerate(names)))
        for number, (name, tile, operand) in enumerate(self.folded):
            which = next(i for i, known in enumerate(operands) if known is operand)
            values = ", ".join(names[k][which] for k in range(form.elements))
            fields = self._fields("s", number, tile)
            w.add(f"{', '.join(fields)} = {name}_tile({values}, lane, rank, int64(r), count)")
        if self.alone:
            return
        with w.block("if rank == 0:"):
            for number, (_, tile, _) in enumerate(self.folded):
                for memory, field in zip(self._fields("m", number, tile), self._fields("s", number, tile), strict=True):
                    w.add(f"{memory}[{place}] = {field}")

    def _element(self, operands: list[Expr], kinds: list[str], slots: list[int]) -> Callable[[str], str]:
        """Print a function of its own for the values of one element; return source for a call of it.

        Called once for each element of a thread it is compiled once by numba, and NVVM sees loads that do not wait
        for one another.
        """
        outer, self.w = self.w, Writer(depth=1)
        # Beyond the end the last element is read again, and not folded.
        self.w.add(f"z = {self.index}(r + min({self.index}(lane + k * {self.form.lanes}), {self.index}(count - 1)))")
        accesses = self._at("z", operands, slots)
        emitter = self.emitter(accesses)
        emitter.known = dict(self.row_values)
        values = [f"{kind}({emitter.value(operand)})" for operand, kind in zip(operands, kinds, strict=True)]
        self.w.add(*emitter.before, f"return {', '.join(values)}")
        body, self.w = self.w.lines, outer
        given = sorted({name for line in body for name in _OUTSIDE.findall(line)})
        name = f"element{len(self.functions)}"
        self.functions.append("\n".join([f"def {name}({', '.join(['r', 'k', 'lane', 'count', *given])}):", *body]))
        return lambda k: f"{name}({', '.join(['r', f'int32({k})', 'lane', 'count', *given])})"

    def _at(self, place: str, used: list[Expr], slots: list[int]) -> dict[int, Access]:
        """Print the addresses of the element `place` of a row; return how to read there."""
        w = self.w
        names = self.decode(place, self.reduced, "z") if self.reduced else []
        accesses = {}
        for position, leaf in enumerate(self.leaves):
            slot = slots[position]
            w.add(f"b{slot} = {self.moved(f'a{slot}', position, names, self.reduced_strides[position])}")
            accesses[id(leaf)] = self.access(position, slot)
        self.point(accesses, used, "b")
        return accesses

    def _join_slots(self) -> None:
        """Print the joining of the states of a team's tiles in adjacent pairs: a function of the folds and the form."""
        form = self.form
        memory = [self._fields("m", number, tile) for number, (_, tile, _) in enumerate(self.folded)]
        flat = ["own", "turn", "tiles", "extent", *(name for names in memory for name in names)]
        w = Writer(depth=1)
        w.add("near = int32(1)")
        with w.block("while near < tiles:"):
            w.add("t = int32(turn * 2 * near)")
            with w.block("while t + near < tiles:"):
                w.add(
                    f"a = own + t * {form.columns}",
                    f"b = a + near * {form.columns}",
                    f"here = near * {TILE}",
                    f"there = min(extent, (t + 2 * near) * {TILE}) - (t + near) * {TILE}",
                )
                for number, names in enumerate(memory):
                    left, right = [f"{m}[a]" for m in names], [f"{m}[b]" for m in names]
                    w.add(f"{', '.join(left)} = f{number}_join({', '.join([*left, 'here', *right, 'there'])})")
                w.add(f"t = int32(t + {2 * form.team // form.columns} * near)")
            w.add(self._barrier(), "near = int32(near * 2)")
        text = "\n".join([f"def join_slots({', '.join(flat)}):", *w.lines]) + "\n"
        name = f"join_slots{len(self.shared_functions)}"
        self.shared_functions[name] = SharedFunction(text, tuple(tile for _, tile, _ in self.folded))
        self.w.add(f"turn = int32(worker * {form.lanes} + lane)", "extent = int32(end - begin)")
        self.w.add(f"{name}({', '.join(flat)})")

    # What becomes of a state

    def _state(self, number: int, tile: TileFold) -> list[str]:
        if self.alone:
            return self._fields("s", number, tile)
        return [f"{name}[own]" for name in self._fields("m", number, tile)]

    def _value(self, index: int, n: str) -> str:
        """Return source for the result of the phase's reduction number `index`."""
        name, field = self.values[index]
        number = next(i for i, (known, _, _) in enumerate(self.folded) if known == name)
        state = self._state(number, self.folded[number][1])
        return f"{name}_value({', '.join(state)}, int64({n}))" if field is None else state[field]

    def _results(self, phase: Phase, slots: list[int], n: str) -> None:
        """Print the writing of a team's results, or of its states for the kernel that joins them."""
        form, w = self.form, self.w
        with w.block(f"if active and lane == 0{' and worker == 0' if form.workers > 1 else ''}:"):
            if self.chunks == 1:
                for index, reduction in enumerate(phase.reductions):
                    self._write(reduction, self._value(index, n), f"a{slots[len(self.leaves) + index]}")
            else:
                slot = self.partial_slot = self._slot(PARTIAL, 0)
                total = self.number(prod(self.outer) * -(-self.columns // form.columns) * self.chunks * form.columns)
                w.add(f"q = p{slot} + 8 * (int64(item) * {form.columns} + column)")
                field = 0
                for number, (_, tile, _) in enumerate(self.folded):
                    for name, dtype in zip(self._state(number, tile), tile.fields, strict=True):
                        w.add(f"ptr_{dtype.name}(q + {8 * field} * int64({total}))[0] = {name}")
                        field += 1
        if not self.alone:
            w.add(self._barrier())

    def _write(self, reduction: Reduction, value: str, address: str) -> None:
        dtype = reduction.buffer.dtype
        stored = writing(f"{value_type(dtype)}({value})", dtype)
        self.w.add(f"ptr_{memory_type(dtype)}({address})[0] = {stored}")

    def _row_values(self, phase: Phase, slots: list[int], n: str) -> None:
        """Print the results of a row as values for the phases after it; every thread of the team has them."""
        order = {id(r): i for i, r in enumerate(self.stage.reductions)}
        for index, reduction in enumerate(phase.reductions):
            number = order[id(reduction)]
            dtype = reduction.buffer.dtype
            self.w.add(f"row{number} = {value_type(dtype)}({self._value(index, n)})")
            for leaf in self.row_leaves:
                if leaf.buffer is reduction.buffer:
                    self.row_values[id(leaf)] = f"row{number}"
            if id(reduction.buffer) in self.stage.stored:
                slot = slots[len(self.leaves) + len(self.stage.stores) + number]
                with self.w.block("if active and lane == 0 and worker == 0:"):
                    self._write(reduction, f"row{number}", f"a{slot}")
        self.w.add(self._barrier())  # before the next phase uses the memory of the states

    def _walk(self, phase: Phase, slots: list[int], n: str) -> None:
        """Print the writing of a row's elements."""
        form, w = self.form, self.w
        threads = form.team
        w.add(f"z = {self.index}(worker * {form.lanes} + lane)")
        with w.block(f"while active and z < {n}:"):
            accesses = self._at("z", [store.expr for store in phase.stores], slots)
            emitter = self.emitter(accesses)
            for store in phase.stores:
                position = len(self.leaves) + self.stage.stores.index(store)
                slot = slots[position]
                names = [f"z{axis}" for axis in range(len(self.reduced))]
                address = self.moved(f"a{slot}", position, names, self.reduced_strides[position])
                value = writing(emitter.value(store.expr), store.buffer.dtype)
                emitter.before.append(f"ptr_{memory_type(store.buffer.dtype)}({address})[0] = {value}")
            w.add(*emitter.before)
            w.add(f"z = {self.index}(z + {threads})")

    # The second kernel

    def _joining(self, groups: int) -> CudaKernel:
        """Return the kernel that joins the states that teams found of one group of rows or columns."""
        return JoinSource(self, groups).print()


class JoinSource(CudaOperands):
    """A block for each group of columns: its partial states are joined in adjacent pairs, in place."""

    def __init__(self, first: ReduceSource, groups: int) -> None:
        super().__init__(first.stage)
        self.first = first
        self.groups = groups
        self.tiles = first.tiles

    def print(self) -> CudaKernel:
        """Return the kernel."""
        first, w, index = self.first, self.w, self.index
        columns, chunks = first.form.columns, first.chunks
        chunk = TILE * first.form.slots
        slot = self._slot(PARTIAL, 0)
        parts, n = self.number(chunks), self.number(first.length)
        total = self.number(self.groups * chunks * columns)
        w.add("thread = int32(cuda.threadIdx.x)", f"group = {index}(cuda.blockIdx.x)")
        w.add(f"groups = {self.number(self.groups)}")
        with w.block("while group < groups:"):
            w.add(f"start = p{slot} + 8 * int64(group) * {parts} * {columns}", f"near = {index}(1)")
            with w.block(f"while near < {parts}:"):
                w.add(f"t = {index}(thread >> {columns.bit_length() - 1})", f"column = thread & {columns - 1}")
                w.add(f"t = {index}(t * 2 * near)")
                with w.block(f"while t + near < {parts}:"):
                    w.add(
                        f"here = int64(near) * {chunk}",
                        f"there = min(int64({n}), (int64(t) + 2 * near) * {chunk}) - (int64(t) + near) * {chunk}",
                        f"a = start + 8 * (int64(t) * {columns} + column)",
                        f"b = a + 8 * int64(near) * {columns}",
                    )
                    for number, (name, tile, _) in enumerate(first.folded):
                        left, right = self._states(number, tile, "a", total), self._states(number, tile, "b", total)
                        w.add(f"{', '.join(left)} = {name}_join({', '.join([*left, 'here', *right, 'there'])})")
                    w.add(f"t = {index}(t + {2 * JOINED // columns} * near)")
                w.add("cuda.syncthreads()", f"near = {index}(near * 2)")
            self._finish(total, n)
            w.add("cuda.syncthreads()", f"group = {index}(group + {index}(cuda.gridDim.x))")
        return self.kernel(blocks_for(self.groups, 1), block=JOINED)

    def _states(self, number: int, tile: TileFold, base: str, total: str) -> list[str]:
        """Return source for the fields of a state in memory."""
        field = sum(len(known.fields) for _, known, _ in self.first.folded[:number])
        return [
            f"ptr_{dtype.name}({base} + {8 * (field + i)} * int64({total}))[0]" for i, dtype in enumerate(tile.fields)
        ]

    def _finish(self, total: str, n: str) -> None:
        first, w, index = self.first, self.w, self.index
        names: list[str] = []
        w.add(f"column = thread & {first.form.columns - 1}")
        left = "group"
        condition = f"thread < {first.form.columns}"
        if first.by_column:
            bands = -(-first.columns // first.form.columns)
            nb = self.number(bands)
            w.add(f"row = {self.quotient(left, nb, bands)}", f"band = rest({left}, row, {nb})")
            w.add(f"c = {index}(band * {first.form.columns} + column)")
            condition += f" and c < {self.number(first.columns)}"
            left = "row"
        names = self.decode(left, first.outer, "i") + (["c"] if first.by_column else [])
        w.add("a = start + 8 * int64(column)")
        with w.block(f"if {condition}:"):
            for position, reduction in enumerate(self.stage.phases[0].reductions):
                number, field = self._source(position)
                name, tile, _ = first.folded[number]
                state = self._states(number, tile, "a", total)
                value = f"{name}_value({', '.join(state)}, int64({n}))" if field is None else state[field]
                dtype = reduction.buffer.dtype
                slot = self._slot(reduction.buffer, reduction.buffer.layout.offset)
                strides = self.kept_strides[len(self.leaves) + position]
                address = self.moved(f"p{slot}", len(self.leaves) + position, names, strides)
                stored = writing(f"{value_type(dtype)}({value})", dtype)
                w.add(f"ptr_{memory_type(dtype)}({address})[0] = {stored}")

    def _source(self, position: int) -> tuple[int, int | None]:
        """Return the number of the fold that has the result number `position`, and the field if it is another's."""
        name, field = self.first.values[position]
        return next(i for i, (known, _, _) in enumerate(self.first.folded) if known == name), field
