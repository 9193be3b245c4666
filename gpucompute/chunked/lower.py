"""Write the nodes of one stage as a template, and say what its tasks read.

The stage has an index space; a spec says for each axis of a node how it lies in a block: an int is the length of an
axis that is whole, ``(axis, factor)`` is an axis that is cut with that axis of the space. The open length of an axis
counts in units, the greatest common divisor of its chunks, so that factors stay whole behind a reshape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import gcd, prod
from typing import Any

import numpy as np

from ..fusion import ir
from . import blocks
from .localise import EMBEDDED, Graph
from .sources import reader_of
from .template import Length, TemplateBuilder

Spec = tuple[Length, ...]


class NotLocal(Exception):
    """A node cannot be computed in blocks of the demanded spec, only whole."""


@dataclass(frozen=True)
class Read:
    """One input of a template.

    Attributes
    ----------
    source : array or StateOf or ndarray
        A Dask array, the states of reductions, or a NumPy array that travels with the task.
    item : int or None
        Which of the values of a block is read, where a block is a tuple.
    spec : Spec
    """

    source: Any
    item: int | None
    spec: Spec


@dataclass
class Lowering:
    """The template of a stage while it grows.

    Attributes
    ----------
    graph : Graph
    chunks : tuple
        The chunks of each axis of the index space; None: whole.
    states : mapping
        For each reduction over chunks (by id) the source and item of its result.
    """

    graph: Graph
    chunks: blocks.Layout
    states: dict[int, tuple[Any, int | None]]
    records: TemplateBuilder = field(default_factory=TemplateBuilder)
    reads: list[Read] = field(default_factory=list)
    scalars: list[int] = field(default_factory=list)
    starts: list[tuple[int, int]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # axes that had to become one chunk
    _memo: dict[Any, int] = field(default_factory=dict)
    _keys: dict[Any, int] = field(default_factory=dict)

    @cached_property
    def units(self) -> tuple[int, ...]:
        """What the open length of each axis counts in, in elements."""
        return tuple(1 if chunks is None else gcd(*chunks) for chunks in self.chunks)

    def space(self, shape: ir.Shape) -> Spec:
        """Return the spec of an array that fills the index space."""
        axes = zip(shape, self.chunks, self.units, strict=True)
        return tuple(n if chunks is None else (axis, unit) for axis, (n, chunks, unit) in enumerate(axes))

    def lower(self, node: ir.Node, spec: Spec) -> int:
        """Return the record of a node in blocks of `spec`."""
        key = (id(node), spec)
        if key not in self._memo:
            try:
                self._memo[key] = self._lower(node, spec)
            except NotLocal:
                self._memo[key] = self._lower(self.graph.stored(node), spec)
        return self._memo[key]

    def _lower(self, node: ir.Node, spec: Spec) -> int:
        add = self.records.add
        match node:
            case ir.Input():
                return self._input(node, spec)
            case ir.Scalar():
                return self._scalar(node)
            case ir.Constant():
                return self.records.constant(node)
            case ir.Iota():
                return self._iota(spec[0])
            case ir.Map():
                args = tuple(self.lower(arg, self._spread(arg.shape, node.shape, spec)) for arg in node.args)
                return add("map", self.records.op(node.op), args, node.dtype.str)
            case ir.View():
                return self._view(node, spec)
            case ir.Gather():
                rank = len(node.index.shape)
                inner = spec[node.axis : node.axis + rank]
                outer = (*spec[: node.axis], node.source.shape[node.axis], *spec[node.axis + rank :])
                return add(
                    "gather", self.lower(node.source, outer), self.lower(node.index, inner), node.axis, node.where
                )
            case ir.Reduce() if self.graph.is_tree(node):
                return self._state(node, spec)
            case ir.Reduce():
                kept = iter(spec)
                arg = tuple(n if axis in node.axes else next(kept) for axis, n in enumerate(node.arg.shape))
                return add("reduce", self.records.op(node.op), self.lower(node.arg, arg), node.axes, node.dtype.str)
            case ir.Concatenate():
                if not isinstance(spec[node.axis], int):
                    raise NotLocal
                parts = tuple(
                    self.lower(part, (*spec[: node.axis], part.shape[node.axis], *spec[node.axis + 1 :]))
                    for part in node.parts
                )
                return add("concatenate", parts, node.axis)
            case ir.Update():
                return self._update(node, spec)
        raise AssertionError(node)

    def _spread(self, shape: ir.Shape, target: ir.Shape, spec: Spec) -> Spec:
        """Return the spec of an array that is broadcast to one with `spec`."""
        extra = len(target) - len(shape)
        return tuple(n if n == 1 != m else s for n, m, s in zip(shape, target[extra:], spec[extra:], strict=True))

    def _view(self, node: ir.View, spec: Spec) -> int:
        add = self.records.add
        match node.kind:
            case "transpose":
                below = tuple(spec[node.params.index(axis)] for axis in range(len(spec)))
                return add("view", "transpose", node.params, spec, self.lower(node.arg, below))
            case "broadcast":
                below = self._spread(node.arg.shape, node.shape, spec)
                return add("view", "broadcast", (), spec, self.lower(node.arg, below))
            case "slice":
                taken = zip(spec, node.params, node.shape, node.arg.shape, strict=True)
                if any(not isinstance(s, int) and not (p == (0, 1) and n == m) for s, p, n, m in taken):
                    raise NotLocal
                below = tuple(m if isinstance(s, int) else s for s, m in zip(spec, node.arg.shape, strict=True))
                return add("view", "slice", node.params, spec, self.lower(node.arg, below))
        return add("view", "reshape", (), spec, self.lower(node.arg, self._before_reshape(node, spec)))

    def _before_reshape(self, node: ir.View, spec: Spec) -> Spec:
        old, new = node.arg.shape, node.shape
        if 0 in old:
            if not all(isinstance(s, int) for s in spec):
                raise NotLocal
            return old
        below: list[Length] = list(old)
        for before, after in blocks.groups(old, new):
            if all(isinstance(spec[axis], int) for axis in after):
                continue
            first = spec[after[0]]
            if isinstance(first, int) or not len(before) or not all(isinstance(spec[a], int) for a in after[1:]):
                raise NotLocal
            outer, inner = prod(new[a] for a in after[1:]), prod(old[a] for a in before[1:])
            axis, factor = first
            if factor * outer % inner:
                raise NotLocal
            below[before[0]] = (axis, factor * outer // inner)
        return tuple(below)

    def _update(self, node: ir.Update, spec: Spec) -> int:
        whole = [n == m and p == (0, 1) for n, m, p in zip(node.part, node.shape, node.params, strict=True)]
        if any(not isinstance(s, int) and not w for s, w in zip(spec, whole, strict=True)):
            raise NotLocal
        part = tuple(n if isinstance(s, int) else s for s, n in zip(spec, node.part, strict=True))
        value = self.lower(node.value, self._spread(node.value.shape, node.part, part))
        return self.records.add("update", self.lower(node.base, spec), value, node.params, part)

    # ---- leaves

    def _input(self, node: ir.Input, spec: Spec) -> int:
        array = self.graph.leaves[node.index]
        if not self.graph.is_chunked(node):
            if array.nbytes <= EMBEDDED:
                return self._read(np.asarray(array), None, spec, node, id(array))
            import dask.array as da

            array = da.from_array(array, chunks=self.wanted(spec))
        return self._chunked(array, spec, node)

    def _chunked(self, array: Any, spec: Spec, node: ir.Node) -> int:
        wanted = self.wanted(spec)
        reader = reader_of(array)
        if reader is not None:
            return self._read(reader, None, spec, node, reader.token)
        if array.chunks != wanted:
            for axis, (had, gets) in enumerate(zip(array.chunks, wanted, strict=True)):
                if len(had) > len(gets) == 1:
                    self.notes.append(f"axis {axis} of the array of shape {array.shape} becomes one chunk")
            array = array.rechunk(wanted)
        return self._read(array, None, spec, node, array.name)

    def wanted(self, spec: Spec) -> tuple[tuple[int, ...], ...]:
        """Return the chunks of an array with `spec`."""
        wanted: list[tuple[int, ...]] = []
        for s in spec:
            if isinstance(s, int):
                wanted.append((s,))
            else:
                wanted.append(tuple(n // self.units[s[0]] * s[1] for n in self.chunks[s[0]] or ()))
        return tuple(wanted)

    def _state(self, node: ir.Reduce, spec: Spec) -> int:
        source, item = self.states[id(node)]
        if self.wanted(spec) != source.chunks:
            return self._chunked(self.graph.materialise(node), spec, node)
        return self._read(source, item, spec, node, (source.name, item))

    def _read(self, source: Any, item: int | None, spec: Spec, node: ir.Node, key: Any) -> int:
        number = self._keys.setdefault((key, spec), len(self.reads))
        if number == len(self.reads):
            self.reads.append(Read(source, item, spec))
        return self.records.add("input", number)

    def _scalar(self, node: ir.Scalar) -> int:
        if node.index not in self.scalars:
            self.scalars.append(node.index)
        return self.records.add("scalar", "given", self.scalars.index(node.index))

    def _iota(self, length: Length) -> int:
        iota = self.records.add("iota", length)
        if isinstance(length, int):
            return iota
        if length not in self.starts:
            self.starts.append(length)
        start = self.records.add("scalar", "start", self.starts.index(length))
        start = self.records.add("map", "cast", (start,), "<i8")
        return self.records.add("map", "add", (iota, start), "<i8")


def numbered(records: Sequence[tuple[Any, ...]], given: int) -> list[tuple[Any, ...]]:
    """Return records in which the scalars of a call come before the starts of blocks, under one count."""
    return [("scalar", r[2] if r[1] == "given" else given + r[2]) if r[0] == "scalar" else r for r in records]
