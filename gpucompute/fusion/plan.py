"""Cut a graph into stages: loops over one index space that read and write buffers.

`plan(trace outputs, layouts of the inputs)` lowers the graph: views are pushed to the leaves, where they become
offsets and strides, and only what must exist in memory gets a buffer. Every size is known here; the source that
`codegen` prints from a stage is free of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf, prod
from typing import Any, Literal

import numpy as np

from .. import ops
from . import ir
from .layout import Layout
from .short import written_out

DType = np.dtype[Any]
REPEATED = 16  # a slow value that so many rows share is computed once, into memory
SLOW = {"divide", "floor_divide", "remainder", "fmod", "reciprocal", "sqrt"}  # beside the transcendental functions
UNROLL = 8  # strides and inner extents up to this many elements are constants of the source


@dataclass(eq=False)
class Buffer:
    """Memory that stages read or write: an argument's (`index` says which) or one made for the run."""

    layout: Layout
    dtype: DType
    index: int | None = None  # the input's number; None: made by the run
    level: int = 0  # 0 for inputs, else 1 + the highest level of what it is made from
    is_output: bool = False


# Lowered expressions. Each has a value at every point of the stage's index space; equal ones are one object.


@dataclass(frozen=True, eq=False)
class Load:
    """A value read from a buffer; `layout` covers the index space."""

    buffer: Buffer
    layout: Layout
    dtype: DType


@dataclass(frozen=True, eq=False)
class GatherLoad:
    """A value read at a computed position of one axis: stride `stride` bytes, length `length`."""

    buffer: Buffer
    layout: Layout
    stride: int
    length: int
    index: Expr
    where: str
    dtype: DType


@dataclass(frozen=True, eq=False)
class Position:
    """An int64 that is an affine function of the index: `layout` counts in ones, not bytes."""

    layout: Layout
    dtype: DType


@dataclass(frozen=True, eq=False)
class Parameter:
    """A Python scalar given at the call, by number; bool, int64 or float64."""

    index: int
    dtype: DType


@dataclass(frozen=True, eq=False)
class Literally:
    """A constant."""

    value: Any
    dtype: DType


@dataclass(frozen=True, eq=False)
class Apply:
    """An operation on values: a name in `ops.OPS` or an `ir.UserFunction`."""

    op: Any
    args: tuple[Expr, ...]
    dtype: DType


Expr = Load | GatherLoad | Position | Parameter | Literally | Apply


@dataclass(eq=False)
class Store:
    """Write `expr` to the part of `buffer` that `layout` describes."""

    buffer: Buffer
    layout: Layout
    expr: Expr


@dataclass(eq=False)
class Reduction:
    """Reduce `expr` over the stage's reduced axes into `buffer`, whose layout covers the kept axes."""

    op: Any
    expr: Expr
    buffer: Buffer
    dtype: DType


@dataclass(eq=False)
class Phase:
    """One walk over the index space: stores or reductions."""

    stores: list[Store] = field(default_factory=list)
    reductions: list[Reduction] = field(default_factory=list)


@dataclass(eq=False)
class Stage:
    """Loops over `shape`. Axes in `axes` are reduced; with several phases each row is walked several times."""

    kind: Literal["map", "reduce", "rows"]
    shape: tuple[int, ...]
    axes: tuple[int, ...]
    phases: list[Phase]
    level: int
    reason: str
    stored: set[int] = field(default_factory=set)  # ids of the buffers that have memory
    finish: list[Store] = field(default_factory=list)  # over the kept axes, of nothing but this stage's reductions

    @property
    def stores(self) -> list[Store]:
        return [store for phase in self.phases for store in phase.stores]

    @property
    def reductions(self) -> list[Reduction]:
        return [reduction for phase in self.phases for reduction in phase.reductions]


@dataclass(eq=False)
class Plan:
    """The stages in order, the buffers to make, and the results: (buffer, shape) each."""

    stages: list[Stage]
    buffers: list[Buffer]
    results: list[tuple[Buffer, tuple[int, ...]]]


class _Needs(Exception):
    """Lowering cannot go on before `node` has a buffer."""

    def __init__(self, node: ir.Node, reason: str) -> None:
        self.node = node
        self.reason = reason


Action = tuple[str, tuple[Any, ...], tuple[int, ...], ir.Node | None]  # a view, and the node to store if it fails


class _Planner:
    def __init__(self, layouts: list[Layout]) -> None:
        self.inputs = layouts
        self.buffers: dict[int, Buffer] = {}  # id(node) -> buffer
        self.alive: list[ir.Node] = []  # keeps the ids above valid
        self.made: list[Buffer] = []
        self.stages: list[Stage] = []
        self.memo: dict[Any, Expr] = {}
        self.once: dict[Any, Expr] = {}
        self.builder = ir.Builder()
        self.short: dict[int, ir.Node | None] = {}  # id(reduction) -> the same as maps

    # Lowering

    def lower(self, node: ir.Node, actions: tuple[Action, ...]) -> Expr:
        key = (id(node), tuple(action[:3] for action in actions))
        found = self.memo.get(key)
        if found is None:
            expr = self._lower(node, actions)
            found = self.memo[key] = self.once.setdefault(_contents(expr), expr)
        return found

    def _lower(self, node: ir.Node, actions: tuple[Action, ...]) -> Expr:
        buffer = self._buffer(node)
        if buffer is not None:
            return Load(buffer, _apply(buffer.layout, actions), buffer.dtype)
        match node:
            case ir.Constant():
                return Literally(node.value, node.dtype)
            case ir.Scalar():
                return Parameter(node.index, node.dtype)
            case ir.Iota():
                return Position(_apply(Layout(0, node.shape, (1,)), actions), node.dtype)
            case ir.View():
                return self.lower(node.arg, ((node.kind, node.params, node.shape, node.arg), *actions))
            case ir.Map():
                args = []
                for arg in node.args:
                    spread: tuple[Action, ...] = ()
                    if arg.shape != node.shape:
                        if self._buffer(arg) is None and _repeats_slowly(arg, node.shape):
                            raise _Needs(arg, "it is slow to compute and the same for many rows")
                        spread = (("broadcast", (), node.shape, None),)
                    args.append(self.lower(arg, spread + actions))
                return Apply(node.op, tuple(args), node.dtype)
            case ir.Gather():
                return self._lower_gather(node, actions)
            case ir.Reduce():
                short = self._written_out(node)
                if short is not None:
                    return self.lower(short, actions)
        raise _Needs(node, _WHY[type(node)])

    def _written_out(self, node: ir.Reduce) -> ir.Node | None:
        if id(node) not in self.short:
            self.short[id(node)] = written_out(node, self.builder)
            self.alive.append(node)
        return self.short[id(node)]

    def _lower_gather(self, node: ir.Gather, actions: tuple[Action, ...]) -> Expr:
        source = self.lower(node.source, ()) if _is_stored(node.source, self._buffer) else None
        if not isinstance(source, Load):
            raise _Needs(node.source, "a gather reads it at computed positions")
        axis, rank = node.axis, len(node.index.shape)
        strides = source.layout.strides
        layout = Layout(source.layout.offset, node.shape, strides[:axis] + (0,) * rank + strides[axis + 1 :])
        pre, post = axis, len(node.source.shape) - axis - 1
        spread: tuple[Action, ...] = (
            ("reshape", (), (1,) * pre + node.index.shape + (1,) * post, node.index),
            ("broadcast", (), node.shape, None),
        )
        index = self.lower(node.index, spread + actions)
        length = node.source.shape[axis]
        return GatherLoad(source.buffer, _apply(layout, actions), strides[axis], length, index, node.where, node.dtype)

    def _buffer(self, node: ir.Node) -> Buffer | None:
        buffer = self.buffers.get(id(node))
        if buffer is None and isinstance(node, ir.Input):
            buffer = self._remember(node, Buffer(self.inputs[node.index], node.dtype, index=node.index))
        return buffer

    def _remember(self, node: ir.Node, buffer: Buffer) -> Buffer:
        self.buffers[id(node)] = buffer
        self.alive.append(node)
        for key in [key for key in self.memo if key[0] == id(node)]:
            del self.memo[key]  # from now on it is read, not computed
        return buffer

    # Storing

    def store(self, node: ir.Node, reason: str, *, is_output: bool = False) -> Buffer:
        """Give `node` a C-ordered buffer and the stages that fill it."""
        known = self.buffers.get(id(node))
        if known is not None and known.index is None:
            known.is_output |= is_output
            return known
        buffer = Buffer(Layout.contiguous(node.shape, node.dtype.itemsize), node.dtype, is_output=is_output)
        self.made.append(buffer)
        match node:
            case ir.Reduce() if self._written_out(node) is None:
                expr = self._ready(node.arg, ())
                buffer.level = _level(expr) + 1
                phase = Phase(reductions=[Reduction(node.op, expr, buffer, node.dtype)])
                self._add(Stage("reduce", node.arg.shape, node.axes, [phase], buffer.level, reason))
            case ir.Concatenate():
                start = 0
                for part in node.parts:
                    params = tuple((start if a == node.axis else 0, 1) for a in range(len(node.shape)))
                    self._write(part, buffer, buffer.layout.apply("slice", params, part.shape), reason)
                    start += part.shape[node.axis]
            case ir.Update():
                self._write(node.base, buffer, buffer.layout, reason)
                target = buffer.layout.apply("slice", node.params, node.part)
                spread: tuple[Action, ...] = (("broadcast", (), node.part, None),)
                expr = self._ready(node.value, () if node.value.shape == node.part else spread)
                buffer.level = max(buffer.level, _level(expr)) + 1
                assert target is not None
                self._add(Stage("map", node.part, (), [Phase([Store(buffer, target, expr)])], buffer.level, reason))
            case _:
                self._write(node, buffer, buffer.layout, reason)
        return self._remember(node, buffer)

    def _write(self, node: ir.Node, buffer: Buffer, layout: Layout | None, reason: str) -> None:
        expr = self._ready(node, ())
        assert layout is not None
        level = _level(expr) + 1
        buffer.level = max(buffer.level, level)
        self._add(Stage("map", node.shape, (), [Phase([Store(buffer, layout, expr)])], level, reason))

    def _ready(self, node: ir.Node, actions: tuple[Action, ...]) -> Expr:
        """Lower `node`, storing first whatever lowering turns out to need."""
        while True:
            try:
                return self.lower(node, actions)
            except _Needs as needs:
                self.store(needs.node, needs.reason)

    def _add(self, stage: Stage) -> None:
        if 0 not in stage.shape or stage.kind == "reduce":
            self.stages.append(stage)


_WHY = {
    ir.Reduce: "a reduction is complete only after all of its elements",
    ir.Concatenate: "parts of a concatenation are written one after the other",
    ir.Update: "a part of it is assigned",
}


def _repeats_slowly(node: ir.Node, shape: ir.Shape) -> bool:
    """Whether a value, broadcast to `shape`, would be computed again in many rows, and slowly.

    A value that is the same along the last axis is computed once before the loop anyway.
    """
    last = node.shape[-1] if node.shape else 1
    if last <= UNROLL or prod(shape) < REPEATED * prod(node.shape):
        return False
    return _is_slow(node)


def _is_slow(node: ir.Node) -> bool:
    """Whether a value takes more than the cheap operations on what lies in memory."""
    while isinstance(node, ir.View):
        node = node.arg
    if isinstance(node, ir.Reduce):
        return True  # of a few elements, or it would be stored anyway
    if not isinstance(node, ir.Map):
        return False
    slow = node.op in SLOW or isinstance(node.op, ir.UserFunction) or (node.op in ops.OPS and ops.OPS[node.op].ulp)
    return bool(slow) or any(_is_slow(arg) for arg in node.args)


def _contents(expr: Expr) -> tuple[Any, ...]:
    """Return what equal expressions have in common: their parts, other expressions and buffers by identity."""
    parts: list[Any] = [type(expr)]
    for name in expr.__dataclass_fields__:
        value = getattr(expr, name)
        if isinstance(value, Buffer | Expr):
            value = id(value)
        elif isinstance(value, tuple):
            value = tuple(id(item) for item in value)
        elif isinstance(value, np.generic):
            value = value.tobytes()
        parts.append(value)
    return tuple(parts)


def _is_stored(node: ir.Node, buffer: Any) -> bool:
    while buffer(node) is None:
        if not isinstance(node, ir.View):
            return False
        node = node.arg
    return True


def _apply(layout: Layout, actions: tuple[Action, ...]) -> Layout:
    for kind, params, shape, node in actions:
        changed = layout.apply(kind, params, shape)
        if changed is None:
            assert node is not None
            raise _Needs(node, "its reshape cannot be expressed by strides")
        layout = changed
    return layout


def leaves(expr: Expr) -> list[Expr]:
    """Return the leaves and gathers below `expr`, each once."""
    return [e for e in _below(expr) if not isinstance(e, Apply)]


def calls_user(expr: Expr) -> bool:
    """Whether a user's function computes a part of `expr`."""
    return any(isinstance(e, Apply) and isinstance(e.op, ir.UserFunction) for e in _below(expr))


def _below(expr: Expr) -> list[Expr]:
    """Return `expr` and all that it is computed from, each once, after what it is computed from itself."""
    found: list[Expr] = []
    seen: set[int] = set()

    def visit(e: Expr) -> None:
        if id(e) in seen:
            return
        seen.add(id(e))
        for arg in e.args if isinstance(e, Apply) else (e.index,) if isinstance(e, GatherLoad) else ():
            visit(arg)
        found.append(e)

    visit(expr)
    return found


def _level(expr: Expr) -> int:
    return max((e.buffer.level for e in leaves(expr) if isinstance(e, Load | GatherLoad)), default=0)


def plan(
    outputs: tuple[ir.Node, ...], layouts: list[Layout], *, finish: bool = False, longest_row: float = inf
) -> Plan:
    """Return the stages that compute `outputs` from inputs with these layouts.

    finish : whether a stage of reductions may also store values made of its results; longest_row : elements of a row
    up to which it is reduced and read again by one stage.
    """
    planner = _Planner(layouts)
    results = []
    for node in outputs:
        shape = node.shape
        while isinstance(node, ir.View) and node.kind == "reshape":
            node = node.arg  # a fresh C-ordered result takes any shape for nothing
        results.append((planner.store(node, "it is returned", is_output=True), shape))
    stages = _join_rows(_group(planner.stages), longest_row)
    if finish:
        stages = _finish_reductions(stages)
    kept = _used(stages, [buffer for buffer, _ in results], planner.made)
    return Plan(stages, kept, results)


def _group(stages: list[Stage]) -> list[Stage]:
    """Put stages of one level and index space together, and order them by level."""
    groups: dict[Any, Stage] = {}
    for stage in stages:
        key = (stage.level, stage.kind, stage.shape, stage.axes)
        known = groups.get(key)
        if known is None:
            groups[key] = stage
        else:
            known.phases[0].stores += stage.phases[0].stores
            known.phases[0].reductions += stage.phases[0].reductions
            if stage.reason not in known.reason:
                known.reason += "; " + stage.reason
    return sorted(groups.values(), key=lambda s: s.level)


def _join_rows(stages: list[Stage], longest_row: float) -> list[Stage]:
    """Join a reduction along the last axes with the stages that read its result row by row.

    Each row is then reduced and read again while it is in the cache. A reduction over everything has one row
    and is left alone, since one row cannot be shared between threads.
    """
    result: list[Stage] = []
    for stage in stages:
        for index in range(len(result) - 1, -1, -1):
            first = result[index]
            later = [buffer for other in result[index + 1 :] for buffer in _written(other)]
            length = prod(first.shape[axis] for axis in first.axes)
            if length <= longest_row and _can_follow(first, stage, later):
                first.phases.append(stage.phases[0])
                if first.kind != "rows":
                    first.kind = "rows"
                    first.reason += "; each row is finished while it is in the cache"
                break
        else:
            result.append(stage)
    return result


def _can_follow(first: Stage, stage: Stage, later: list[Buffer]) -> bool:
    rank = len(first.shape)
    kept = rank - len(first.axes)
    if first.kind == "map" or not kept or first.axes != tuple(range(kept, rank)) or stage.shape != first.shape:
        return False
    if 0 in first.shape or (stage.kind == "reduce" and stage.axes != first.axes):
        return False
    rows = {id(reduction.buffer) for reduction in first.reductions}
    walked = {id(store.buffer) for store in first.stores}
    reads = False
    for expr in _exprs(stage):
        for leaf in leaves(expr):
            if not isinstance(leaf, Load | GatherLoad):
                continue
            if id(leaf.buffer) in walked or any(leaf.buffer is buffer for buffer in later):
                return False
            if id(leaf.buffer) in rows:
                natural = leaf.buffer.layout.strides + (0,) * (rank - kept)
                same = all(s == t or n == 1 for s, t, n in zip(leaf.layout.strides, natural, first.shape, strict=True))
                if isinstance(leaf, GatherLoad) or leaf.layout.offset or not same:
                    return False
                reads = True
    return reads


def _finish_reductions(stages: list[Stage]) -> list[Stage]:
    """Move what is made of nothing but a stage's reductions (a mean of a sum) into that stage."""
    result: list[Stage] = []
    for stage in stages:
        for first in result:
            if stage.kind == "map":
                moved = [store for store in stage.stores if _finishes(store, first)]
                first.finish += moved
                stage.phases[0].stores = [store for store in stage.stores if store not in moved]
        if stage.kind != "map" or stage.stores:
            result.append(stage)
    return result


def _finishes(store: Store, first: Stage) -> bool:
    kept = tuple(n for axis, n in enumerate(first.shape) if axis not in first.axes)
    if first.kind != "reduce" or 0 in first.shape or store.layout.shape != kept:
        return False
    made = {id(reduction.buffer) for reduction in first.reductions}
    loads = [leaf for leaf in leaves(store.expr) if not isinstance(leaf, Parameter | Literally)]
    return bool(loads) and all(
        isinstance(leaf, Load) and id(leaf.buffer) in made and leaf.layout == leaf.buffer.layout for leaf in loads
    )


def _exprs(stage: Stage) -> list[Expr]:
    return [store.expr for store in stage.stores] + [reduction.expr for reduction in stage.reductions]


def _written(stage: Stage) -> list[Buffer]:
    stores = stage.stores + stage.finish
    return [store.buffer for store in stores] + [reduction.buffer for reduction in stage.reductions]


def _used(stages: list[Stage], outputs: list[Buffer], made: list[Buffer]) -> list[Buffer]:
    """Return the made buffers that need memory: results, and those that another stage reads."""
    needed = {id(buffer) for buffer in outputs}
    for stage in stages:
        inside = {id(r.buffer) for r in stage.reductions} if stage.kind == "rows" else set()
        for expr in _exprs(stage):
            for leaf in leaves(expr):
                if isinstance(leaf, Load | GatherLoad) and id(leaf.buffer) not in inside:
                    needed.add(id(leaf.buffer))
    for stage in stages:
        stage.stored = needed
    return [buffer for buffer in made if id(buffer) in needed]
