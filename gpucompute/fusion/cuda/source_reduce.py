"""Print the kernels of reductions, and of stages that work row by row.

A team of threads folds one row (or 32 neighbouring columns) at a time, tile by tile; the states of its tiles lie in
shared memory and are joined there in adjacent pairs. A row of more tiles than fit there is shared between blocks;
the last block to be ready joins their states. `folds.py` has the folds; `Form` says who holds which element.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from math import prod

from ..emit import Access, memory_type, value_type, writing
from ..folds import folds_of
from ..operands import Writer
from ..plan import Expr, Load, Phase, Reduction, Stage, leaves
from .folds import TileFold
from .source import COUNTERS, PARTIAL, THREADS, CudaKernel, CudaOperands, SharedFunction, blocks_for, cost

TILE = 256
COLUMNS = 32  # columns side by side: a warp reads them at once
ROW_TILES = 64  # tiles of a row that one block folds: 16384 elements
COLUMN_TILES = 16
LONGEST_ROW = TILE * ROW_TILES  # elements of a row that is finished by the team that folds it
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
        """Whether a warp shall read neighbouring columns."""
        if self.stage.kind != "reduce" or not self.kept or self.kept[-1] < COLUMNS:
            return False
        return super()._columns_are_closer()

    def print(self) -> CudaKernel:
        """Return the kernel."""
        form, w = self.form, self.w
        bands = -(-self.columns // form.columns)
        chunk = TILE * form.slots
        self.chunks = -(-self.length // chunk) if self.stage.kind == "reduce" else 1
        self.groups = prod(self.outer) * bands
        items = self.groups * self.chunks
        n = self.number(self.length)
        index = self.index
        w.add(
            "thread = int32(cuda.threadIdx.x)",
            f"column = digit(thread, 1, {form.columns})",
            f"lane = digit(thread, {form.columns}, {form.lanes})",
            f"worker = digit(thread, {form.columns * form.lanes}, {form.workers})",
            f"team = digit(thread, {form.team}, {form.teams})",
            "rank = digit(thread, 1, 32)" if form.turned else "rank = lane",  # lane and column after the exchange
            f"held = {'digit(thread, 32, 32)' if form.turned else 'column'}",
            f"base = {index}(cuda.blockIdx.x * {form.teams})",
            f"step = {index}(cuda.gridDim.x * {form.teams})",
            f"items = {self.number(items)}",
        )
        with w.block("while base < items:"):
            # The last teams go along with an item that is not theirs, so that all threads meet at barriers.
            w.add("item = distance(base, 1, team, 1)", "active = item < items")
            w.add("item = min(item, distance(items, 1, 1, -1))")
            left = "item"
            if self.stage.kind == "reduce" and form.slots > 1:
                nc = self.number(self.chunks)
                w.add(f"group = {self.quotient(left, nc, self.chunks)}", f"part = rest(item, group, {nc})")
                left = "group"
                w.add(f"begin = distance(part, {chunk})", f"end = min({n}, distance(begin, 1, 1, {chunk}))")
            else:
                w.add(f"begin = {index}(0)", f"end = {n}")
            names: list[str] = []
            if self.by_column:
                nb = self.number(bands)
                w.add(f"row = {self.quotient(left, nb, bands)}", f"band = rest({left}, row, {nb})")
                width = self.number(self.columns)
                w.add(f"c = distance(band, {form.columns}, column, 1)", f"active = active & (c < {width})")
                w.add(f"c = min(c, distance({width}, 1, 1, -1))")
                left = "row"
            names = self.decode(left, self.outer, "i") + (["c"] if self.by_column else [])
            slots = self.open(names, len(names))
            for phase in self.stage.phases:
                if phase.reductions:
                    self._reduce(phase, slots)
                    if self.stage.kind == "rows":
                        self._row_values(phase, slots, n)
                    elif self.chunks > 1:
                        self._climb(phase, slots, n)
                    else:
                        self._results(phase, slots, n)
                if phase.stores:
                    self._walk(phase, slots, n)
            w.add("base = distance(base, 1, step, 1)")
        levels = self._levels() if self.chunks > 1 else []
        fields = sum(len(tile.fields) for _, tile, _ in self.folded)
        partials = 8 * fields * self.groups * sum(levels[:-1]) * form.columns
        return self.kernel(blocks_for(items, form.teams), form.threads, partials, self.groups * sum(levels[1:]))

    # One team's fold

    def _plan(self, phase: Phase) -> None:
        """Choose the folds of a phase, and which of them gives each result."""
        form = self.form
        exchange = "turn" if form.turned else "shuffle"
        self.folded: list[tuple[str, TileFold, Expr]] = []
        folds, self.values = folds_of(phase.reductions)
        for fold, operand in folds:
            tile = TileFold(fold, form.lanes, form.elements, exchange)
            self.folded.append((self._name(tile), tile, operand))

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
            first = f"team, {form.slots * form.columns}"
            w.add(f"kept = distance({first}, held, 1)", f"own = distance({first}, column, 1)")
        if form.slots == 1:
            w.add("count = distance(end, 1, begin, -1)", "r = begin")
            self._tile(phase, slots, "kept")
        else:
            w.add(f"tiles = int32((end - begin + {TILE - 1}) >> 8)", "t = worker")
            with w.block("while t < tiles:"):
                w.add(
                    f"r = distance(begin, 1, t, {TILE})", f"count = min(distance(1, {TILE}), distance(end, 1, r, -1))"
                )
                w.add(f"into = distance(kept, 1, t, {form.columns})")
                self._tile(phase, slots, "into")
                w.add(f"t = distance(t, 1, 1, {form.workers})")
        if not self.alone:
            w.add(self._barrier())
        if form.slots > 1:
            w.add(
                f"turn = distance(worker, {form.lanes}, lane, 1)",
                "extent = int64(end - begin)",
                f"unit = int64({TILE})",
            )
            if self.chunks == 1:
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
            with w.block(f"for k in range({form.elements}):"):
                w.add(f"{', '.join(f'e{number}[k]' for number in range(len(operands)))} = {call('int32(k)')}")
            for number in range(len(operands)):
                w.add(f"e{number} = ({''.join(f'e{number}[{k}], ' for k in range(form.elements))})")
        else:
            self.arrays["each"] = ("each", (form.elements,))
            w.add(f"{', '.join(f'e{number}' for number in range(len(operands)))} = {call('')}")
        for number, (name, tile, operand) in enumerate(self.folded):
            which = next(i for i, known in enumerate(operands) if known is operand)
            fields = self._fields("s", number, tile)
            w.add(f"{', '.join(fields)} = {name}_tile(e{which}, lane, rank, int64(r), count)")
        if self.alone:
            return
        with w.block("if rank == 0:"):
            for number, (_, tile, _) in enumerate(self.folded):
                for memory, field in zip(self._fields("m", number, tile), self._fields("s", number, tile), strict=True):
                    w.add(f"{memory}[{place}] = {field}")

    def _element(self, operands: list[Expr], kinds: list[str], slots: list[int]) -> Callable[[str], str]:
        """Print a function of its own for the values of one element; return source for calls of it.

        It is compiled once by numba, and NVVM sees loads that do not wait for one another. The source is asked for with
        the number of the element; "" gives the tuple of all elements of a thread.
        """
        outer, self.w = self.w, Writer(depth=1)
        # Beyond the end the last element is read again, and not folded.
        last = "distance(count, 1, 1, -1)"
        self.w.add(f"z = distance(r, 1, min(distance(r, 0, lane, 1, k, {self.form.lanes}), {last}), 1)")
        accesses = self._at("z", operands, slots)
        emitter = self.emitter(accesses)
        emitter.known = dict(self.row_values)
        values = [f"{kind}({emitter.value(operand)})" for operand, kind in zip(operands, kinds, strict=True)]
        self.w.add(*emitter.before, f"return {', '.join(values)}")
        body, self.w = self.w.lines, outer
        given = sorted({name for line in body for name in _OUTSIDE.findall(line)})
        name = f"element{len(self.functions)}"
        self.functions.append("\n".join([f"def {name}({', '.join(['r', 'k', 'lane', 'count', *given])}):", *body]))
        rest = ", ".join(["lane", "count", *given])
        return lambda k: f"{name}(r, {k}, {rest})" if k else f"each({name}, r, {rest})"

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
        flat = ["own", "turn", "tiles", "extent", "unit", *(name for names in memory for name in names)]
        w = Writer(depth=1)
        w.add("near = int64(1)")
        with w.block("while near < tiles:"):
            w.add("t = turn * near * 2")
            with w.block("while t + near < tiles:"):
                w.add(
                    f"a = distance(own, 1, t, {form.columns})",
                    f"b = distance(a, 1, near, {form.columns})",
                    "here = near * unit",
                    "there = min(here, extent - (t + near) * unit)",
                )
                for number, names in enumerate(memory):
                    left, right = [f"{m}[a]" for m in names], [f"{m}[b]" for m in names]
                    w.add(f"{', '.join(left)} = f{number}_join({', '.join([*left, 'here', *right, 'there'])})")
                w.add(f"t = distance(t, 1, near, {2 * form.team // form.columns})")
            w.add(self._barrier(), "near = near * 2")
        text = "\n".join([f"def join_slots({', '.join(flat)}):", *w.lines]) + "\n"
        name = f"join_slots{len(self.shared_functions)}"
        self.shared_functions[name] = SharedFunction(text, tuple(tile for _, tile, _ in self.folded))
        self.w.add(f"{name}({', '.join(flat)})")

    # What becomes of a state

    def _state(self, number: int, tile: TileFold) -> list[str]:
        if self.alone:
            return self._fields("s", number, tile)
        return [f"{name}[own]" for name in self._fields("m", number, tile)]

    def _value(self, index: int, n: str) -> str:
        """Return source for the result of the phase's reduction number `index`."""
        number, field = self.values[index]
        name, tile, _ = self.folded[number]
        state = self._state(number, tile)
        return f"{name}_value({', '.join(state)}, int64({n}))" if field is None else state[field]

    @property
    def _first(self) -> str:
        """Source for: the thread is the first of its team, or of its column."""
        return "(lane == 0) & (worker == 0)" if self.form.workers > 1 else "(lane == 0)"

    def _results(self, phase: Phase, slots: list[int], n: str) -> None:
        """Print the writing of a team's results, and of what is made of nothing but them."""
        w = self.w
        with w.block(f"if active & {self._first}:"):
            emitter = self.emitter({})
            for index, reduction in enumerate(phase.reductions):
                dtype, name = reduction.buffer.dtype, f"row{index}"
                w.add(f"{name} = {value_type(dtype)}({self._value(index, n)})")
                if id(reduction.buffer) in self.stage.stored:
                    self._write(reduction, name, f"a{slots[len(self.leaves) + index]}")
                for leaf in self._finished():
                    if leaf.buffer is reduction.buffer:
                        emitter.known[id(leaf)] = name
            for slot, store in zip(slots[len(slots) - len(self.stage.finish) :], self.stage.finish, strict=True):
                value = writing(emitter.value(store.expr), store.buffer.dtype)
                emitter.before.append(f"ptr_{memory_type(store.buffer.dtype)}(a{slot})[0] = {value}")
            w.add(*emitter.before)
        if not self.alone:
            w.add(self._barrier())

    def _finished(self) -> list[Load]:
        """Return what the values read that are made of nothing but this stage's reductions."""
        return [leaf for store in self.stage.finish for leaf in leaves(store.expr) if isinstance(leaf, Load)]

    def _levels(self) -> list[int]:
        """Return how many nodes a row has on each level above the tiles: the chunks of blocks first, one last."""
        nodes = [self.chunks]
        while nodes[-1] > 1:
            nodes.append(-(-nodes[-1] // self.form.slots))
        return nodes

    def _climb(self, phase: Phase, slots: list[int], n: str) -> None:
        """Print the joining of the states of blocks: up to `slots` neighbours by the last of their blocks to be ready.

        It takes them into its shared memory, where they are joined as tiles are, and goes on one level up. Nobody
        waits for another block.
        """
        form, w = self.form, self.w
        shift, columns = form.slots.bit_length() - 1, form.columns
        partial, counters = self._slot(PARTIAL, 0), self._slot(COUNTERS, 0)
        total, groups = (self.number(x) for x in (self.groups * sum(self._levels()[:-1]) * columns, self.groups))
        w.add(f"nodes = int64({self.number(self.chunks)})", "place = int64(part)", "below = int64(0)")
        w.add("counted = int64(0)")
        with w.block("while True:"):
            self._join_slots()
            with w.block("if nodes == 1:"):
                self._results(phase, slots, n)
                w.add("break")
            w.add(
                f"up = place >> {shift}",
                f"ahead = (nodes + {form.slots - 1}) >> {shift}",
                f"tiles = int32(min(int64({form.slots}), distance(nodes, 1, up, {-form.slots})))",
                f"first = distance(below, 1, int64(group) * nodes, 1, up, {form.slots})",
                f"start = distance(p{partial}, 1, first, {8 * columns}, column, 8)",
            )
            with w.block(f"if {self._first}:"):
                w.add(f"mine = distance(start, 1, place & {form.slots - 1}, {8 * columns})")
                w.add(*(f"{there} = {here}" for here, there in self._moved("own", "mine", total)))
            w.add(f"counter = distance(p{counters}, 1, counted, 4, int64(group) * ahead, 4, up, 4)")
            with w.block("if not last_to_come(counter, tiles):"):
                w.add("break")
            with w.block("if turn < tiles:"):  # a team has a thread for each slot of a column
                w.add(f"other = distance(start, 1, turn, {8 * columns})", f"slot = distance(own, 1, turn, {columns})")
                w.add(*(f"{here} = {there}" for here, there in self._moved("slot", "other", total)))
            w.add(
                self._barrier(),
                f"below = distance(below, 1, nodes, {groups})",
                f"counted = distance(counted, 1, ahead, {groups})",
                f"unit = distance(unit, {form.slots})",
                f"extent = min(int64({n}) - (up << {shift}) * unit, distance(unit, {form.slots}))",
                "place = up",
                "nodes = ahead",
            )

    def _moved(self, slot: str, address: str, total: str) -> list[tuple[str, str]]:
        """Return source for the fields of the states in a slot of shared memory, and at an address."""
        places: list[tuple[str, str]] = []
        for number, (_, tile, _) in enumerate(self.folded):
            for name, dtype in zip(self._fields("m", number, tile), tile.fields, strict=True):
                places.append(
                    (f"{name}[{slot}]", f"ptr_{dtype.name}(distance({address}, 1, {total}, {8 * len(places)}))[0]")
                )
        return places

    def _write(self, reduction: Reduction, value: str, address: str) -> None:
        dtype = reduction.buffer.dtype
        self.w.add(f"ptr_{memory_type(dtype)}({address})[0] = {writing(value, dtype)}")

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
                with self.w.block(f"if active & {self._first}:"):
                    self._write(reduction, f"row{number}", f"a{slot}")
        self.w.add(self._barrier())  # before the next phase uses the memory of the states

    def _walk(self, phase: Phase, slots: list[int], n: str) -> None:
        """Print the writing of a row's elements."""
        form, w = self.form, self.w
        threads = form.team
        w.add(f"z = {self.index}(worker * {form.lanes} + lane)")
        with w.block(f"while active & (z < {n}):"):
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
            w.add(f"z = distance(z, 1, 1, {threads})")
