"""What the tasks of a stage call: from blocks to results, or to nodes of a tree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from ..errors import DTypeError, ShapeError
from ..fusion.tree import TILE
from .joins import Join, State, UserJoin
from .kernel import Kernel
from .partial import Node, fold_tiles
from .template import Length

# the place of a block: for each axis its number, where it begins and how long it is
Place = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class Argument:
    """Where one input of a kernel comes from.

    Attributes
    ----------
    position : int or None
        The argument of the task; None: `literal`.
    item : int or None
        Which value of a block that is a tuple.
    literal : ndarray or None
        An array that travels with the task, of which each task takes its part.
    spec : tuple of Length
    dtype : dtype or None
        What the chunks of an array should be of.
    """

    position: int | None
    item: int | None
    literal: Any
    spec: tuple[Length, ...]
    dtype: np.dtype[Any] | None = None


@dataclass(frozen=True)
class Inputs:
    """How a task finds the inputs of its kernel, and the open lengths.

    Attributes
    ----------
    name : str
        The user's name for the function.
    arguments : tuple of Argument
    units : tuple of int or None
        What the open length of each axis of the space counts in; None: the axis is whole.
    located : bool
        Whether the last argument is the block's `Place`.
    """

    name: str
    arguments: tuple[Argument, ...]
    units: tuple[int | None, ...]
    located: bool

    def of(self, given: Sequence[Any]) -> tuple[list[Any], tuple[int, ...]]:
        """Return the inputs of the kernel and the open lengths."""
        place: Place | None = given[-1] if self.located else None
        blocks: list[Any] = [None if a.position is None else _item(given[a.position], a.item) for a in self.arguments]
        symbols = [0] * len(self.units)
        for axis, unit in enumerate(self.units):
            if unit is not None and place is not None:
                symbols[axis] = place[axis][2] // unit
            elif unit is not None:
                symbols[axis] = self._length(axis, blocks)
        arrays = []
        for argument, block in zip(self.arguments, blocks, strict=True):
            expected = tuple(n if isinstance(n, int) else symbols[n[0]] * n[1] for n in argument.spec)
            if argument.position is None:
                arrays.append(self._part(argument, expected, place))
                continue
            if np.shape(block) != expected:
                raise ShapeError(
                    f"{self.name}: a chunk has shape {np.shape(block)}, but its Dask array says {expected}; give the "
                    "right chunks= where the array is made (map_blocks, from_delayed)"
                )
            wanted = argument.dtype
            found: Any = getattr(block, "dtype", wanted)
            if wanted is not None and found.newbyteorder("=") != wanted:
                raise DTypeError(
                    f"{self.name}: a chunk is of {found}, but its Dask array says {wanted}; give the right dtype= "
                    "where the array is made (map_blocks, from_delayed), or convert the chunks there"
                )
            arrays.append(block)
        return arrays, tuple(symbols)

    def _length(self, axis: int, blocks: list[Any]) -> int:
        for argument, block in zip(self.arguments, blocks, strict=True):
            for i, length in enumerate(argument.spec):
                if block is not None and not isinstance(length, int) and length[0] == axis:
                    return int(np.shape(block)[i]) // length[1]
        raise AssertionError(axis)

    def _part(self, argument: Argument, expected: tuple[int, ...], place: Place | None) -> Any:
        key = []
        for length, n in zip(argument.spec, expected, strict=True):
            if isinstance(length, int):
                key.append(slice(None))
                continue
            unit = self.units[length[0]]
            assert place is not None and unit is not None
            start = place[length[0]][1] // unit * length[1]
            key.append(slice(start, start + n))
        return argument.literal[tuple(key)]


def _item(block: Any, item: int | None) -> Any:
    return block if item is None else block[item]


@dataclass(frozen=True)
class MapTask:
    """The task of a stage that makes one block of each of its results.

    Attributes
    ----------
    inputs : Inputs
    kernel : Kernel
    scalars : tuple
        The run-time scalars of the call.
    starts : tuple of (axis, factor)
        Further scalars: where the block begins along an axis of the space, times a factor.
    """

    inputs: Inputs
    kernel: Kernel
    scalars: tuple[Any, ...]
    starts: tuple[tuple[int, int], ...]

    @property
    def __name__(self) -> str:
        return self.inputs.name

    def __call__(self, *given: Any) -> Any:
        arrays, symbols = self.inputs.of(given)
        results = self.kernel(arrays, (*self.scalars, *self._offsets(given)), symbols)
        return results if len(results) > 1 else results[0]

    def _offsets(self, given: Sequence[Any]) -> list[int]:
        return [given[-1][axis][1] // (self.inputs.units[axis] or 1) * factor for axis, factor in self.starts]


@dataclass(frozen=True)
class Family:
    """Reductions of one array over the same axes.

    Attributes
    ----------
    axes : tuple of int
    joins : tuple of Join
    fields : tuple of int
        How many results of the kernel make the state of each reduction.
    shape : tuple of int
        Of the whole array, along `axes`.
    blocks : tuple of int
        How many chunks there are along `axes`.
    row : int or None
        The leaves of the tree are tiles of 256 elements, and this many elements lie at each index of the first of
        `axes`. None: the leaves are chunks.
    tiled : bool
        Whether the kernel gives the states of tiles, which are joined here; else one of the whole block.
    """

    axes: tuple[int, ...]
    joins: tuple[Join | UserJoin, ...]
    fields: tuple[int, ...]
    shape: tuple[int, ...]
    blocks: tuple[int, ...]
    row: int | None
    tiled: bool

    def tiles(self, length: int) -> tuple[int, int]:
        """Return how many whole tiles lie in a chunk of that length, and how many elements remain."""
        assert self.row is not None
        return divmod(length * self.row, TILE)

    def nodes(self, place: Place, results: list[Any]) -> list[Node]:
        """Return the nodes of a block, taking its states from the front of `results`."""
        along = [place[axis] for axis in self.axes]
        count = prod(length for _, _, length in along)
        if self.row is None:
            number = int(np.ravel_multi_index(tuple(number for number, _, _ in along), self.blocks))
            return [self._node(number, 1, count, along, results)]
        first = along[0][1] * self.row // TILE
        if not self.tiled:
            return [self._node(first, -(-count // TILE), count, along, results)]
        tiles, rest = self.tiles(along[0][2])
        nodes: list[Node] = []
        if tiles:
            kept = self.axes[0]  # the axis of tiles stands where the first reduced axis was
            states = self._states(TILE, along, results)
            front = tuple(tuple(np.moveaxis(field, kept, 0) for field in state) for state in states)
            nodes = fold_tiles(self.joins, front, first)
        if rest:
            nodes.append(self._node(first + tiles, 1, rest, along, results))
        return nodes

    def _node(self, first: int, size: int, count: int, along: list[Any], results: list[Any]) -> Node:
        return Node(first, size, count, self._states(count, along, results))

    def _states(self, count: int, along: list[Any], results: list[Any]) -> tuple[State, ...]:
        states = []
        for join, fields in zip(self.joins, self.fields, strict=True):
            state = tuple(results[:fields])
            del results[:fields]
            with np.errstate(all="ignore"):
                states.append(join.made(state, count, lambda local: self._global(local, along)))
        return tuple(states)

    def _global(self, local: Any, along: list[Any]) -> Any:
        """Return the indices in the whole array, in C order along `axes`, of those in a block."""
        inside = np.unravel_index(local, tuple(length for _, _, length in along))
        whole = tuple(i + start for i, (_, start, _) in zip(inside, along, strict=True))
        return np.ravel_multi_index(whole, self.shape)


@dataclass(frozen=True)
class PartialTask:
    """The task of a stage that reduces a block, all reductions in one pass over it.

    Attributes
    ----------
    inputs : Inputs
    kernels : dict
        By family with tiles, whether the block has whole tiles and a rest: the kernel for such blocks.
    scalars, starts : tuple
        As in `MapTask`.
    families : tuple of Family
    """

    inputs: Inputs
    kernels: dict[tuple[tuple[bool, bool], ...], Kernel]
    scalars: tuple[Any, ...]
    starts: tuple[tuple[int, int], ...]
    families: tuple[Family, ...]

    @property
    def __name__(self) -> str:
        return self.inputs.name

    def __call__(self, *given: Any) -> list[list[Node]]:
        arrays, symbols = self.inputs.of(given)
        place: Place = given[-1]
        kind = []
        for family in self.families:
            if family.tiled:
                tiles, rest = family.tiles(place[family.axes[0]][2])
                kind.append((tiles > 0, rest > 0))
                symbols += (tiles, rest)
        offsets = [place[axis][1] // (self.inputs.units[axis] or 1) * factor for axis, factor in self.starts]
        results = list(self.kernels[tuple(kind)](arrays, (*self.scalars, *offsets), symbols))
        return [family.nodes(place, results) for family in self.families]
