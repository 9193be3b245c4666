"""Rewrite a traced graph so that each node can be computed chunk by chunk, and know every node's chunks.

What moves values between chunks becomes a leaf: an array that Dask makes. A slice along a cut axis goes through
elementwise operations to the inputs first, where Dask's own slicing takes it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..fusion import ir
from . import blocks
from .blocks import Chunks, Layout


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

    def localised(self, outputs: tuple[ir.Node, ...]) -> tuple[ir.Node, ...]:
        """Return `outputs` rewritten."""
        new: dict[int, ir.Node] = {}
        for node in ir.postorder(outputs):
            new[id(node)] = self._rewritten(node, [new[id(child)] for child in ir.children(node)])
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
                return build.gather(of[0], of[1], node.axis, node.where)
            case ir.Reduce():
                return build.reduce(node.op, of[0], node.axes, node.dtype)
            case ir.Concatenate():
                return self._concatenate(tuple(of), node.axis)
            case ir.Update():
                return build.update(of[0], of[1], node.params, node.part)
        raise AssertionError(node)

    def _slice(self, arg: ir.Node, params: tuple[tuple[int, int], ...], shape: ir.Shape) -> ir.Node:
        """Return a slice, taken as near to the inputs as it must be."""
        build = self.build
        layout = self.layout(arg)
        taken = zip(layout, params, shape, arg.shape, strict=True)
        if all(chunks is None or (p == (0, 1) and n == m) for chunks, p, n, m in taken):
            return build.slice(arg, params, shape)
        match arg:
            case ir.Map():
                return build.map(
                    arg.op, tuple(self._slice_below(a, params, shape, arg.shape) for a in arg.args), arg.dtype
                )
            case ir.View(kind="transpose"):
                order = [arg.params.index(axis) for axis in range(len(shape))]
                below = self._slice(arg.arg, tuple(params[i] for i in order), tuple(shape[i] for i in order))
                return build.transpose(below, arg.params)
            case ir.View(kind="broadcast"):
                return build.broadcast(self._slice_below(arg.arg, params, shape, arg.shape), shape)
            case ir.View(kind="slice"):
                both = tuple(
                    (s + start * t, t * step) for (s, t), (start, step) in zip(arg.params, params, strict=True)
                )
                return self._slice(arg.arg, both, shape)
        stored = self.stored(arg)
        assert isinstance(stored, ir.Input)
        key = tuple(
            slice(start, None if (stop := start + n * step) < 0 else stop, step) if n else slice(0, 0)
            for (start, step), n in zip(params, shape, strict=True)
        )
        return self._once(("slice", id(stored), params, shape), lambda: self.leaf(self.leaves[stored.index][key]))

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

    def _reshape(self, arg: ir.Node, shape: ir.Shape) -> ir.Node:
        if blocks.of_reshape(self.layout(arg), arg.shape, shape) is not None:
            return self.build.reshape(arg, shape)
        stored = self.stored(arg)
        assert isinstance(stored, ir.Input)
        array = self.leaves[stored.index]

        def moved() -> ir.Node:
            try:
                return self.leaf(array.reshape(shape))
            except NotImplementedError:  # Dask only merges and splits
                return self.leaf(array.rechunk(-1).reshape(shape))

        return self._once(("reshape", id(stored), shape), moved)

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


def concrete(layout: Sequence[Chunks], shape: ir.Shape) -> tuple[tuple[int, ...], ...]:
    """Return chunks as Dask writes them: one chunk where any would do."""
    return tuple((n,) if chunks is None else chunks for chunks, n in zip(layout, shape, strict=True))
