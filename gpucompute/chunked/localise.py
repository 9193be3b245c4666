"""Rewrite a traced graph so that each node can be computed chunk by chunk, and know every node's chunks.

What moves values between chunks becomes a leaf: an array that Dask makes. A slice along a cut axis goes through
elementwise operations to the input, if there is one, where Dask's own slicing takes it. If there are several it is
taken of the computed value: Dask merges a slice with the task before it, and with the one behind if that reads
nothing else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np

from ..fusion import ir
from . import blocks
from .blocks import Chunks, Layout

Axes = tuple[int | None, ...]

EMBEDDED = 64 * 1024  # bytes; NumPy arrays up to this travel with the task, larger ones are cut into chunks by Dask


class Graph:
    """A graph whose inputs are Dask's and NumPy's arrays.

    Parameters
    ----------
    leaves : sequence of array
        What ``Input(index)`` stands for.
    materialise : callable
        ``materialise(node)`` returns the Dask array of a node of this graph.
    """

    def __init__(self, leaves: Sequence[Any], materialise: Callable[[ir.Node], Any]) -> None:
        self.leaves = list(leaves)
        self.materialise = materialise
        self.build = ir.Builder()
        self._layouts: dict[int, Layout] = {}  # by id: the builder keeps its nodes
        self._made: dict[Any, ir.Node] = {}
        self._slices: Counter[int] = Counter()  # how many are taken of a node, by id
        self._read: dict[Any, frozenset[tuple[ir.Node, Axes]]] = {}  # `_sources`

    def localised(self, outputs: tuple[ir.Node, ...]) -> tuple[ir.Node, ...]:
        """Return `outputs` rewritten."""
        new: dict[int, ir.Node] = {}
        order = list(ir.postorder(outputs))
        slices = Counter(id(node.arg) for node in order if isinstance(node, ir.View) and node.kind == "slice")
        for node in order:
            new[id(node)] = self._rewritten(node, [new[id(child)] for child in ir.children(node)])
            self._slices[id(new[id(node)])] += slices[id(node)]
        return tuple(new[id(node)] for node in outputs)

    def leaf(self, array: Any) -> ir.Node:
        """Return the node of a new leaf."""
        self.leaves.append(array)
        return self.build.input(len(self.leaves) - 1, tuple(map(int, array.shape)), np.dtype(array.dtype))

    def stored(self, node: ir.Node) -> ir.Node:
        """Return a leaf with the values of `node`."""
        if isinstance(node, ir.Input):
            return node
        return self._once(("stored", id(node)), lambda: self.leaf(self.materialise(node)))

    def is_chunked(self, node: ir.Node) -> bool:
        """Tell whether a node is an array of Dask's."""
        return isinstance(node, ir.Input) and not isinstance(self.leaves[node.index], (np.ndarray, np.generic))

    def is_tree(self, node: ir.Node) -> bool:
        """Tell whether a node is a reduction over chunks."""
        return isinstance(node, ir.Reduce) and not blocks.whole(self.layout(node.arg), node.axes)

    def layout(self, node: ir.Node) -> Layout:
        """Return the chunks of each axis of a node."""
        for below in ir.postorder((node,)) if id(node) not in self._layouts else ():
            if id(below) not in self._layouts:
                self._layouts[id(below)] = self._layout(below)
        return self._layouts[id(node)]

    def _once(self, key: Any, make: Callable[[], ir.Node]) -> ir.Node:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def _rewritten(self, node: ir.Node, of: list[ir.Node]) -> ir.Node:
        build = self.build
        match node:
            case ir.Input():
                return build.input(node.index, node.shape, node.dtype)
            case ir.Scalar():
                return build.scalar(node.index, node.dtype)
            case ir.Constant():
                return build.constant(node.value, node.dtype)
            case ir.Iota():
                return build.iota(node.shape[0])
            case ir.Map():
                return build.map(node.op, tuple(of), node.dtype)
            case ir.View(kind="transpose"):
                return build.transpose(of[0], node.params)
            case ir.View(kind="broadcast"):
                return build.broadcast(of[0], node.shape)
            case ir.View(kind="slice"):
                return self._slice(of[0], node.params, node.shape)
            case ir.View():
                return self._reshape(of[0], node.shape)
            case ir.Gather():
                return self._gather(of[0], of[1], node.axis, node.where)
            case ir.Reduce():
                return build.reduce(node.op, of[0], node.axes, node.dtype)
            case ir.Concatenate():
                return self._concatenate(tuple(of), node.axis)
            case ir.Update():
                return build.update(of[0], of[1], node.params, node.part)
        raise AssertionError(node)

    def _slice(self, arg: ir.Node, params: tuple[tuple[int, int], ...], shape: ir.Shape) -> ir.Node:
        """Return a slice: of the one input that it depends on, where there is one, else of the computed value."""
        build = self.build
        given = zip(self.layout(arg), params, shape, arg.shape, strict=True)
        in_memory = isinstance(arg, ir.Input) and not self.is_chunked(arg)  # is sliced here
        if all((chunks is None and not in_memory) or (p == (0, 1) and n == m) for chunks, p, n, m in given):
            return build.slice(arg, params, shape)
        key = "slice", id(arg), params, shape
        if key in self._made:
            return self._made[key]
        match arg:
            case ir.Map() if not self._is_stored_first(arg, params, shape):
                args = [self._slice_below(a, params, shape, arg.shape) for a in arg.args]
                made = build.map(arg.op, tuple(args), arg.dtype)
            case ir.View(kind="transpose"):
                order = [arg.params.index(axis) for axis in range(len(shape))]
                below = self._slice(arg.arg, tuple(params[i] for i in order), tuple(shape[i] for i in order))
                made = build.transpose(below, arg.params)
            case ir.View(kind="broadcast"):
                made = build.broadcast(self._slice_below(arg.arg, params, shape, arg.shape), shape)
            case ir.View(kind="slice"):
                both = tuple(
                    (s + start * t, t * step) for (s, t), (start, step) in zip(arg.params, params, strict=True)
                )
                made = self._slice(arg.arg, both, shape)
            case ir.Input():
                taken = tuple(
                    slice(start, None if (stop := start + n * step) < 0 else stop, step) if n else slice(0, 0)
                    for (start, step), n in zip(params, shape, strict=True)
                )
                made = self.leaf(self.leaves[arg.index][taken])
            case _:
                made = self._slice(self.stored(arg), params, shape)
        self._made[key] = made
        return made

    def _is_stored_first(self, arg: ir.Node, params: tuple[tuple[int, int], ...], shape: ir.Shape) -> bool:
        """Tell whether a slice of a computed value takes fewer tasks than slices of all that it is computed from.

        Where chunks do not agree it does not: those of what is sliced may be fewer than those of the whole.
        """
        layout = self.layout(arg)
        sources = self._sources(arg, tuple(range(len(shape))))
        if len(sources) < 2:
            return False
        taken = zip(layout, params, shape, arg.shape, strict=True)
        cut = [axis for axis, (chunks, p, n, m) in enumerate(taken) if chunks and (p != (0, 1) or n != m)]
        tasks = 0  # that slices of the sources would be
        for node, axes in sources:
            along = {axis: chunks for axis, chunks in zip(axes, self.layout(node), strict=True) if chunks}
            if any(along.get(axis, layout[axis]) != layout[axis] for axis in cut):
                return False
            tasks += prod(map(len, along.values())) if any(axis in along for axis in cut) else 0
        return self._slices[id(arg)] < 2 or tasks >= prod(len(chunks or (1,)) for chunks in layout)

    def _sources(self, node: ir.Node, axes: Axes) -> frozenset[tuple[ir.Node, Axes]]:
        """Return what tasks that compute `node` in chunks read from other tasks, with the axes on which theirs lie."""
        key = id(node), axes
        if key not in self._read:
            self._read[key] = self._sources_below(node, axes)
        return self._read[key]

    def _sources_below(self, node: ir.Node, axes: Axes) -> frozenset[tuple[ir.Node, Axes]]:
        match node:
            case ir.Map():
                found = [self._sources(arg, _behind(axes, arg.shape, node.shape)) for arg in node.args]
                return frozenset().union(*found)
            case ir.View(kind="transpose"):
                return self._sources(node.arg, tuple(axes[node.params.index(axis)] for axis in range(len(axes))))
            case ir.View(kind="broadcast"):
                return self._sources(node.arg, _behind(axes, node.arg.shape, node.shape))
            case ir.Input():
                rides = not self.is_chunked(node) and self.leaves[node.index].nbytes <= EMBEDDED
                return frozenset() if rides else frozenset([(node, axes)])
            case ir.Iota():  # its slices would be computed apart
                return frozenset([(node, axes)])
        below = [self._sources(child, (None,) * len(child.shape)) for child in ir.children(node)]
        return frozenset([(node, axes)]) if self.is_tree(node) or any(below) else frozenset()

    def _slice_below(
        self, arg: ir.Node, params: tuple[tuple[int, int], ...], shape: ir.Shape, spread: ir.Shape
    ) -> ir.Node:
        """Return the slice of an argument that is spread to a shape before it is sliced to `shape`."""
        extra = len(spread) - len(arg.shape)
        own, part = [], []
        for p, n, m, s in zip(params[extra:], shape[extra:], arg.shape, spread[extra:], strict=True):
            own.append(p if m == s else (0, 1))
            part.append(n if m == s else 1)
        return self._slice(arg, tuple(own), tuple(part))

    def _gather(self, source: ir.Node, index: ir.Node, axis: int, where: str) -> ir.Node:
        """Return values at positions; a cut axis that is among them as a whole and in order, as in `pad`, stays cut."""
        cut = self.layout(source)[axis] is not None
        if cut and isinstance(index, ir.Input) and len(index.shape) == 1 and not self.is_chunked(index):
            positions, n = self.leaves[index.index], source.shape[axis]
            ends_fit = (positions[: max(len(positions) - n + 1, 0)] == 0) & (positions[n - 1 :] == n - 1)
            starts = np.flatnonzero(ends_fit)
            start = next((i for i in starts if np.array_equal(positions[i : i + n], np.arange(n))), None)
            if start is not None and positions.min() >= 0 and positions.max() < n:
                ends = (self._narrow(source, p, axis, where) for p in (positions[:start], positions[start + n :]))
                before, after = ([end] if end.shape[axis] else [] for end in ends)
                return self._concatenate((*before, source, *after), axis)
        return self.build.gather(source, index, axis, where)

    def _narrow(self, source: ir.Node, positions: np.ndarray[Any, Any], axis: int, where: str) -> ir.Node:
        """Return values at positions along a cut axis, of the part of it that they lie in."""
        first, stop = (int(positions.min()), int(positions.max()) + 1) if positions.size else (0, 0)
        params = tuple((first if a == axis else 0, 1) for a in range(len(source.shape)))
        part = self._slice(source, params, _with(source.shape, axis, stop - first))
        index = self._once(("positions", (positions - first).tobytes()), lambda: self.leaf(positions - first))
        return self._gather(part, index, axis, where)

    def _reshape(self, arg: ir.Node, shape: ir.Shape) -> ir.Node:
        if blocks.of_reshape(self.layout(arg), arg.shape, shape) is not None:
            return self.build.reshape(arg, shape)
        copies = self._copies(arg, shape)
        if copies is not None:
            return copies
        stored = self.stored(arg)
        assert isinstance(stored, ir.Input)
        array = self.leaves[stored.index]

        def moved() -> ir.Node:
            try:
                return self.leaf(array.reshape(shape))
            except NotImplementedError:  # Dask only merges and splits
                return self.leaf(array.rechunk(-1).reshape(shape))

        return self._once(("reshape", id(stored), shape), moved)

    def _copies(self, arg: ir.Node, shape: ir.Shape) -> ir.Node | None:
        """Return a reshape that puts copies one after the other along a cut axis, as in `tile`; None for others."""
        if not isinstance(arg, ir.View) or arg.kind != "broadcast" or 0 in arg.shape:
            return None
        once = (1,) * (len(arg.shape) - len(arg.arg.shape)) + arg.arg.shape
        for before, after in blocks.groups(arg.shape, shape):
            first = next((axis for axis in before if arg.shape[axis] > 1), None)
            if first is None or once[first] > 1 or blocks.whole(self.layout(arg), before):
                continue
            along = next(axis for axis in after if shape[axis] > 1)
            times, rest = arg.shape[first], shape[along] // arg.shape[first]
            if shape[along] % times:
                continue
            single = self.build.broadcast(self.build.reshape(arg.arg, once), _with(arg.shape, first, 1))
            return self._concatenate((self._reshape(single, _with(shape, along, rest)),) * times, along)
        return None

    def _concatenate(self, parts: tuple[ir.Node, ...], axis: int) -> ir.Node:
        if all(self.layout(part)[axis] is None for part in parts):
            return self.build.concatenate(parts, axis)
        import dask.array as da

        stored = [self.stored(part) for part in parts]
        arrays = [self.leaves[node.index] for node in stored if isinstance(node, ir.Input)]
        key = ("concatenate", axis, *map(id, stored))
        return self._once(key, lambda: self.leaf(da.concatenate(arrays, axis)))

    def _layout(self, node: ir.Node) -> Layout:
        of = [self._layouts[id(child)] for child in ir.children(node)]
        match node:
            case ir.Input():
                if not self.is_chunked(node):
                    return (None,) * len(node.shape)
                return tuple(blocks.free(chunks) for chunks in self.leaves[node.index].chunks)
            case ir.Map():
                return blocks.of_map(node, of)
            case ir.View(kind="transpose"):
                return tuple(of[0][axis] for axis in node.params)
            case ir.View(kind="broadcast"):
                return blocks.broadcast_to(of[0], node.arg.shape, node.shape)
            case ir.View(kind="slice"):
                return of[0]  # an axis that is cut is taken whole
            case ir.View():
                reshaped = blocks.of_reshape(of[0], node.arg.shape, node.shape)
                assert reshaped is not None
                return reshaped
            case ir.Gather():
                return of[0][: node.axis] + of[1] + of[0][node.axis + 1 :]
            case ir.Reduce():
                return tuple(chunks for axis, chunks in enumerate(of[0]) if axis not in node.axes)
            case ir.Concatenate():
                return tuple(
                    None if a == node.axis else blocks.unify(*cs) for a, cs in enumerate(zip(*of, strict=True))
                )
            case ir.Update():
                value = blocks.broadcast_to(of[1], node.value.shape, node.part)
                covered = zip(of[0], value, node.part, node.shape, node.params, strict=True)
                return tuple(blocks.unify(a, b) if n == m and p == (0, 1) else None for a, b, n, m, p in covered)
        return (None,) * len(node.shape)


def _behind(axes: Axes, shape: ir.Shape, spread: ir.Shape) -> Axes:
    """Return the axes of an array of `shape` that is spread to one on `axes`; None where it has one element."""
    extra = len(spread) - len(shape)
    return tuple(axis if n == m else None for axis, n, m in zip(axes[extra:], shape, spread[extra:], strict=True))


def _with(shape: ir.Shape, axis: int, length: int) -> ir.Shape:
    """Return a shape with another length along an axis."""
    return (*shape[:axis], length, *shape[axis + 1 :])


def concrete(layout: Sequence[Chunks], shape: ir.Shape) -> tuple[tuple[int, ...], ...]:
    """Return chunks as Dask writes them: one chunk where any would do."""
    return tuple((n,) if chunks is None else chunks for chunks, n in zip(layout, shape, strict=True))
