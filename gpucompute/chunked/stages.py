"""Cut a localised graph into stages and give each its layer."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise, product
from math import prod
from typing import Any

import dask.array as da
import numpy as np
from dask.array.utils import meta_from_array
from dask.base import tokenize

from ..fusion import ir
from ..fusion.run import Precision
from ..fusion.tree import TILE
from . import blocks, budget, layers
from .joins import join_of, parts_of
from .kernel import Kernel, kernel
from .localise import Graph, concrete
from .lower import Lowering, Spec, numbered
from .partial import Combine
from .sources import Reader, reader_of
from .tasks import Argument, Family, Inputs, MapTask, PartialTask
from .template import Length

JOINED_BYTES = 2**24  # of states that one task of a tree joins, if they are more than FAN_IN
FAN_IN = (4, 32)  # the least and the most states that one task joins


class Planner:
    """Makes Dask arrays of the outputs of one traced call.

    Parameters
    ----------
    name : str
        The user's name for the function.
    precision : {"exact", "fast"}
    leaves : sequence of array
        What ``Input(index)`` stands for.
    scalars : sequence
        What ``Scalar(index)`` stands for.
    """

    def __init__(self, name: str, precision: Precision, leaves: Sequence[Any], scalars: Sequence[Any]) -> None:
        self.name = name
        self.precision = precision
        self.scalars = scalars
        self.graph = Graph(leaves, self.materialise)
        self._given_leaves = len(leaves)
        self.like = next((leaf._meta for leaf in leaves if hasattr(leaf, "_meta")), np.empty(0))
        self.allowed = budget.limit(self.like)
        self._states: dict[int, tuple[layers.Tuples, int | None]] = {}
        self._arrays: dict[int, Any] = {}

    def materialise(self, node: ir.Node) -> Any:
        """Return the Dask array of a localised node."""
        return self.arrays((node,))[0]

    def arrays(self, outputs: tuple[ir.Node, ...]) -> list[Any]:
        """Return the Dask arrays of localised nodes."""
        todo = tuple(dict.fromkeys(node for node in outputs if id(node) not in self._arrays))
        level = self._reduce(todo)
        together: dict[Any, list[ir.Node]] = {}
        for node in todo:
            if self.graph.is_chunked(node):
                self._arrays[id(node)] = self._leaf(node.index)  # type: ignore[attr-defined]
                continue
            source, item = self._states.get(id(node), (None, None))
            if source is not None and item is None:
                self._arrays[id(node)] = layers.array(source.dask, source.name, source.chunks, node.dtype, self.like)
                continue
            # small results of states alone are tasks of their own, which saves those that take a tuple apart
            alone = id(node) if self._is_of_states(node) else None
            together.setdefault((node.shape, self.graph.layout(node), level[id(node)], alone), []).append(node)
        for nodes in together.values():
            for group in self._sharing(nodes):
                self._arrays.update(zip(map(id, group), self._map(group), strict=True))
        return [self._arrays[id(node)] for node in outputs]

    def _leaf(self, index: int) -> Any:
        """Return an array that Dask makes, of chunks that fit; the caller's own are as they are."""
        array = self.graph.leaves[index]
        if index >= self._given_leaves:
            budget.check(self.name, self.allowed, [], [(array.chunks, array.dtype)], [])
        return array

    # ---- maps

    def _sharing(self, nodes: list[ir.Node]) -> list[list[ir.Node]]:
        """Return nodes in groups, each made by one task of several results.

        These are those that have some work in common. Others would gain nothing, and need tasks that take tuples apart.
        """
        groups: list[tuple[set[int], list[ir.Node]]] = []
        for node in nodes:
            work, members = self._operations(node), [node]
            for other in [group for group in groups if group[0] & work]:
                groups.remove(other)
                work, members = work | other[0], other[1] + members
            groups.append((work, members))
        return [members for _, members in groups]

    def _operations(self, node: ir.Node) -> set[int]:
        """Return what must be done for a node in its own stage: operations, and the reading of stores."""
        found: set[int] = set()
        stack = [node]
        while stack:
            node = stack.pop()
            if id(node) in found or id(node) in self._states or isinstance(node, ir.Constant | ir.Scalar):
                continue
            if isinstance(node, ir.Input) and not self._is_read(node.index):
                continue
            found.add(id(node))
            stack += ir.children(node)
        return found

    def _is_read(self, index: int) -> bool:
        leaf = self.graph.leaves[index]
        return isinstance(leaf, da.Array) and reader_of(leaf) is not None

    def _map(self, nodes: list[ir.Node]) -> list[Any]:
        """Return the arrays of nodes with one shape and layout."""
        layout, shape = self.graph.layout(nodes[0]), nodes[0].shape
        work = Lowering(self.graph, layout, self._states)
        outputs = [work.lower(node, work.space(shape)) for node in nodes]
        chunks = concrete(layout, shape)
        inputs, sources, located = self._inputs(work, chunks)
        task = MapTask(inputs, self._kernel(work, outputs), self._given(work), tuple(work.starts))
        self._check(work, [(chunks, node.dtype) for node in nodes])
        name = f"{self.name}-{tokenize(task, [source.name for source, _ in sources], chunks)}"
        if len(nodes) == 1:
            graph = layers.blockwise_layer(name, task, sources, chunks, located)
            return [layers.array(graph, name, chunks, nodes[0].dtype, self.like)]
        several = name.replace(self.name, f"{self.name}-several", 1)
        graph = layers.blockwise_layer(several, task, sources, chunks, located)
        made = layers.Tuples(several, chunks, graph, self.like)
        return [self._item(made, i, node.dtype, f"{name}-{i}") for i, node in enumerate(nodes)]

    def _item(self, made: layers.Tuples, item: int, dtype: np.dtype[Any], name: str) -> Any:
        axes = tuple(range(len(made.chunks)))
        graph = layers.blockwise_layer(name, Item(item, self.name), [(made, axes)], made.chunks, located=False)
        return layers.array(graph, name, made.chunks, dtype, self.like)

    def _kernel(self, work: Lowering, outputs: list[int]) -> Kernel:
        work.records.records = numbered(work.records.records, len(work.scalars))
        return kernel(self.name, work.records.finish(outputs), len(work.reads), self.precision)

    def _given(self, work: Lowering) -> tuple[Any, ...]:
        return tuple(self.scalars[index] for index in work.scalars)

    def _inputs(
        self, work: Lowering, chunks: layers.Chunks, *, located: bool = False
    ) -> tuple[Inputs, list[tuple[Any, tuple[int | None, ...]]], bool]:
        """Return how the tasks of a stage read, its sources with the axes that their blocks follow, and `located`."""
        sources: list[tuple[Any, tuple[int | None, ...]]] = []
        arguments = []
        for read in work.reads:
            axes = tuple(_axis(length) for length in read.spec)
            if isinstance(read.source, np.ndarray | Reader):
                located |= any(axis is not None for axis in axes)
                arguments.append(Argument(None, None, read.source, read.spec))
                continue
            same = (i for i, (source, known) in enumerate(sources) if source.name == read.source.name and known == axes)
            position = next(same, len(sources))
            if position == len(sources):
                sources.append((read.source, axes))
            dtype = getattr(read.source, "dtype", None)  # that of states is known
            arguments.append(Argument(position, read.item, None, read.spec, dtype))
        cut = {axis for axis, along in enumerate(work.chunks) if along is not None}
        located |= bool(work.starts)
        units = tuple(u if axis in cut else None for axis, u in enumerate(work.units))
        return Inputs(self.name, tuple(arguments), units, located), sources, located

    def _check(self, work: Lowering, results: list[tuple[layers.Chunks, np.dtype[Any]]]) -> None:
        stored = [read for read in work.reads if isinstance(read.source, da.Array | Reader)]
        reads = [(work.wanted(read.spec), read.source.dtype) for read in stored]
        budget.check(self.name, self.allowed, reads, results, work.notes)

    # ---- reductions over chunks

    def _reduce(self, outputs: tuple[ir.Node, ...]) -> dict[int, int]:
        """Make the states of all reductions over chunks; return for each node how many lie below one another."""
        level: dict[int, int] = {}
        stages: dict[Any, list[ir.Reduce]] = {}
        for node in ir.postorder(outputs):
            below = max((level[id(child)] for child in ir.children(node)), default=0)
            tree = self.graph.is_tree(node)
            level[id(node)] = below + tree
            if tree and id(node) not in self._states:
                assert isinstance(node, ir.Reduce)
                key = (below, node.arg.shape, self.graph.layout(node.arg))
                stages.setdefault(key, []).append(node)
        for key in sorted(stages, key=lambda key: key[0]):
            self._trees(stages[key])
        return level

    def _trees(self, reductions: list[ir.Reduce]) -> None:
        """Make the states of reductions over the same chunks, in one pass."""
        first = reductions[0].arg
        layout = self.graph.layout(first)
        chunks = concrete(layout, first.shape)
        together: dict[Any, list[ir.Reduce]] = {}
        for node in reductions:
            together.setdefault((node.axes, node.op in ("argmin", "argmax")), []).append(node)
        families = [_family(nodes, chunks) for nodes in together.values()]
        work = Lowering(self.graph, layout, self._states)
        whole, of_tiles = _Parts(work, self.graph.build), _Parts(work, self.graph.build)
        symbol = len(chunks)
        made: list[dict[tuple[bool, bool] | None, list[int]]] = []
        for family, nodes in zip(families, together.values(), strict=True):
            if family.tiled:
                made.append(of_tiles.tiled(nodes, family, symbol))
                symbol += 2
            else:
                made.append({None: whole.plain(nodes)})
        inputs, sources, _ = self._inputs(work, chunks, located=True)
        work.records.records = numbered(work.records.records, len(work.scalars))
        kernels = {}
        for kind in product(*(_kinds(family, chunks) for family in families)):
            outputs = [number for family, k in zip(made, kind, strict=True) for number in family[k]]
            key = tuple(k for k in kind if k is not None)
            kernels[key] = kernel(self.name, work.records.finish(outputs), len(work.reads), self.precision)
        task = PartialTask(inputs, kernels, self._given(work), tuple(work.starts), tuple(families))
        fields = [fields_of(nodes, chunks) for nodes in together.values()]
        tiles = [_tiles(family, chunks) for family in families]
        made_of = zip(fields, tiles, strict=True)
        self._check(work, [((*kept, (n,)), dtype) for blocks, n in made_of for kept, dtype in blocks])
        name = f"{self.name}-partial-{tokenize(task, [source.name for source, _ in sources], chunks)}"
        graph = layers.blockwise_layer(name, task, sources, chunks, located=True)
        partial = layers.Tuples(name, chunks, graph, meta_from_array(self.like))
        for number, (family, nodes) in enumerate(zip(families, together.values(), strict=True)):
            states = self._tree(partial, number, family, self._fan_in(fields[number]))
            for item, node in enumerate(nodes):
                self._states[id(node)] = states, item if len(nodes) > 1 else None

    def _fan_in(self, fields: budget.Blocks) -> int:
        """Return how many states a task joins at most; two must fit into memory."""
        nbytes = max(sum(budget.largest(chunks, dtype) for chunks, dtype in fields), 1)
        most = max(FAN_IN[0], min(FAN_IN[1], JOINED_BYTES // nbytes))
        if self.allowed is not None:
            most = max(2, min(most, int((self.allowed.nbytes / nbytes - budget.MADE) / budget.READ)))
        budget.check(self.name, self.allowed, [*fields, *fields], fields, ["two states that are joined"])
        return most

    def _tree(self, partial: layers.Tuples, number: int, family: Family, fan_in: int) -> layers.Tuples:
        """Return the joined states of the family of that number, whose lists of nodes are in `partial`."""
        token = tokenize(partial, family.axes, number, family.joins, fan_in)

        def join(first: bool, last: bool) -> Combine:
            return Combine(family.joins, number if first else None, last=last)

        names = f"{self.name}-reduced-{token}", f"{self.name}-combine-{token}"
        return layers.tree(names, partial, family.axes, fan_in, join)

    def _is_of_states(self, node: ir.Node) -> bool:
        """Tell whether a node is made of nothing but states and scalars."""
        if id(node) in self._states:
            return True
        below = ir.children(node)
        return bool(below) and all(isinstance(n, ir.Constant | ir.Scalar) or self._is_of_states(n) for n in below)


class Item:
    """The task that takes one result out of a tuple."""

    def __init__(self, item: int, name: str) -> None:
        self.item = item
        self.__name__ = name

    def __call__(self, block: Any) -> Any:
        return block[self.item]

    def __dask_tokenize__(self) -> Any:
        return "gpucompute.Item", self.item


class _Parts:
    """Records of the reductions whose results make the states of a stage."""

    def __init__(self, work: Lowering, build: ir.Builder) -> None:
        self.work = work
        self.build = build

    def plain(self, nodes: list[ir.Reduce]) -> list[int]:
        """Reduce the whole block."""
        return [self._reduce(op, self._block(arg), axes, dtype) for op, arg, axes, dtype in self._all(nodes)]

    def tiled(self, nodes: list[ir.Reduce], family: Family, symbol: int) -> dict[tuple[bool, bool] | None, list[int]]:
        """Reduce each whole tile and the rest; `symbol` counts the tiles, the next one the elements of the rest."""
        bodies: list[int] = []
        exact: list[int] = []
        rests: list[int] = []
        alone: list[int] = []
        add = self.work.records.add
        for op, arg, axes, dtype in self._all(nodes):
            spec = self.work.space(arg.shape)
            before, after = spec[: axes[0]], spec[axes[-1] + 1 :]
            axis, unit = spec[axes[0]]  # type: ignore[misc]
            elements = (axis, unit * (family.row or 1))
            flat = self._block(arg)
            if len(axes) > 1:
                flat = add("view", "reshape", (), (*before, elements, *after), flat)
            tiles, rest = (symbol, TILE), (symbol + 1, 1)
            stay = [(0, 1)] * len(before), [(0, 1)] * len(after)
            front = add("view", "slice", (*stay[0], (0, 1), *stay[1]), (*before, tiles, *after), flat)
            end = add("view", "slice", (*stay[0], (tiles, 1), *stay[1]), (*before, rest, *after), flat)
            split: Spec = (*before, (symbol, 1), TILE, *after)
            place = len(before)
            for body, source in ((bodies, front), (exact, flat)):
                body.append(self._reduce(op, add("view", "reshape", (), split, source), (place + 1,), dtype))
            rests.append(self._reduce(op, end, (place,), dtype))
            alone.append(self._reduce(op, flat, (place,), dtype))
        return {(True, False): exact, (True, True): bodies + rests, (False, True): alone}

    def _all(self, nodes: list[ir.Reduce]) -> list[tuple[Any, ir.Node, tuple[int, ...], np.dtype[Any]]]:
        return [(op, arg, node.axes, dtype) for node in nodes for op, arg, dtype in parts_of(node, self.build)]

    def _block(self, arg: ir.Node) -> int:
        return self.work.lower(arg, self.work.space(arg.shape))

    def _reduce(self, op: Any, arg: int, axes: tuple[int, ...], dtype: np.dtype[Any]) -> int:
        return self.work.records.add("reduce", self.work.records.op(op), arg, axes, dtype.str)


def _axis(length: Length) -> int | None:
    return None if isinstance(length, int) else length[0]


def _family(nodes: list[ir.Reduce], chunks: layers.Chunks) -> Family:
    """Return reductions over the same axes, and which leaves their tree has."""
    axes, shape = nodes[0].axes, nodes[0].arg.shape
    joins = tuple(map(join_of, nodes))
    build = ir.Builder()
    fields = tuple(len(parts_of(node, build)) for node in nodes)
    row = None if all(join.exact for join in joins) else _row(axes, shape, chunks)
    tiled = row is not None and (any(join.needs_tiles for join in joins) or not _are_nodes(chunks[axes[0]], row))
    lengths, numbers = tuple(shape[a] for a in axes), tuple(len(chunks[a]) for a in axes)
    return Family(axes, joins, fields, lengths, numbers, row, tiled)


def _row(axes: tuple[int, ...], shape: ir.Shape, chunks: layers.Chunks) -> int | None:
    """Return how many elements lie at an index of the first reduced axis if all chunks end on tiles, else None."""
    first, rest = axes[0], axes[1:]
    adjacent = axes == tuple(range(first, first + len(axes)))
    row = prod(shape[axis] for axis in rest)
    if not adjacent or any(len(chunks[axis]) > 1 for axis in rest):
        return None
    return None if any(start * row % TILE for start in blocks.starts(chunks[first])[:-1]) else row


def _are_nodes(along: tuple[int, ...], row: int) -> bool:
    """Tell whether each chunk is one node of the tree of tiles."""
    edges = blocks.starts(along)
    for start, stop in pairwise(edges):
        first, tiles = start * row // TILE, -(-(stop - start) * row // TILE)
        size = 1 << (tiles - 1).bit_length()
        if first % size or (tiles != size and stop != edges[-1]):
            return False
    return True


def _kinds(family: Family, chunks: layers.Chunks) -> set[Any]:
    """Return which kinds of blocks there are: with whole tiles, with a rest; {None} without tiles."""
    if not family.tiled:
        return {None}
    found = {family.tiles(length) for length in chunks[family.axes[0]]}
    return {(tiles > 0, rest > 0) for tiles, rest in found}


def fields_of(nodes: list[ir.Reduce], chunks: layers.Chunks) -> list[tuple[layers.Chunks, np.dtype[Any]]]:
    """Return the chunks and dtype of each field of the joined states of some reductions over the same axes."""
    kept = tuple(along for axis, along in enumerate(chunks) if axis not in nodes[0].axes)
    build = ir.Builder()
    return [(kept, dtype) for node in nodes for _, _, dtype in parts_of(node, build)]


def _tiles(family: Family, chunks: layers.Chunks) -> int:
    """Return how many states the largest chunk has before they are joined."""
    if not family.tiled:
        return 1
    pairs = [family.tiles(length) for length in chunks[family.axes[0]]]
    return max(tiles + (rest > 0) for tiles, rest in pairs)
