"""States of a reduction over chunks, and the tree that joins them.

A node of the tree stands for a run of leaves. The leaves are the tiles of 256 elements of the unchunked reduction
where chunks end on their edges, else the chunks. Siblings join as soon as both are there, so any grouping of tasks
gives the same tree; at the end an odd last node goes up unchanged.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..fusion.tree import TILE
from .joins import Join, State, UserJoin

Joins = Sequence[Join | UserJoin]


@dataclass(frozen=True)
class Node:
    """The states of several reductions over the leaves ``first`` to ``first + size``, which hold `count` elements."""

    first: int
    size: int
    count: int
    states: tuple[State, ...]


def joined(joins: Joins, a: Node, b: Node) -> Node:
    """Return the parent of two nodes."""
    with np.errstate(all="ignore"):
        pairs = zip(joins, a.states, b.states, strict=True)
        states = tuple(join.join(x, y, a.count, b.count) for join, x, y in pairs)
    return Node(a.first, a.size + b.size, a.count + b.count, states)


def merge(joins: Joins, nodes: Iterable[Node]) -> list[Node]:
    """Join siblings among nodes that follow one another."""
    stack: list[Node] = []
    for node in nodes:
        stack.append(node)
        while len(stack) > 1 and _are_siblings(*stack[-2:]):
            right = stack.pop()
            stack.append(joined(joins, stack.pop(), right))
    return stack


def _are_siblings(a: Node, b: Node) -> bool:
    return a.size == b.size and a.first % (2 * a.size) == 0 and a.first + a.size == b.first


def root(joins: Joins, nodes: Iterable[Node]) -> Node:
    """Return the node of all leaves."""
    stack = merge(joins, nodes)
    while len(stack) > 1:
        right = stack.pop()
        stack.append(joined(joins, stack.pop(), right))
    return stack[0]


def fold_tiles(joins: Joins, states: Sequence[State], first: int) -> list[Node]:
    """Return the nodes of whole tiles that follow one another; fields have an axis of tiles in front."""
    tiles = len(states[0][0])
    left: list[Node] = []
    right: list[Node] = []
    size = 1
    while tiles:
        if first // size % 2:
            left.append(_picked(states, 0, first, size))
            states, first, tiles = _cut(states, 1, tiles), first + size, tiles - 1
        if tiles % 2:
            right.append(_picked(states, tiles - 1, first + (tiles - 1) * size, size))
            states, tiles = _cut(states, 0, tiles - 1), tiles - 1
        if tiles:
            a, b = (_every_second(states, start) for start in (0, 1))
            pair = joined(joins, Node(first, size, size * TILE, a), Node(first + size, size, size * TILE, b))
            states, tiles, size = pair.states, tiles // 2, 2 * size
    return left + right[::-1]


def _picked(states: Sequence[State], place: int, first: int, size: int) -> Node:
    return Node(first, size, size * TILE, tuple(tuple(field[place] for field in state) for state in states))


def _cut(states: Sequence[State], start: int, stop: int) -> tuple[State, ...]:
    return tuple(tuple(field[start:stop] for field in state) for state in states)


def _every_second(states: Sequence[State], start: int) -> tuple[State, ...]:
    return tuple(tuple(field[start::2] for field in state) for state in states)


@dataclass(frozen=True)
class Combine:
    """The task that joins the nodes of several tasks.

    Attributes
    ----------
    joins : tuple of Join
    family : int or None
        Which of the node lists of a task of the stage is meant; None: a task of this kind made them.
    last : bool
        Whether this is the end: the results are wanted, not the nodes.
    """

    joins: tuple[Join | UserJoin, ...]
    family: int | None
    last: bool

    def __call__(self, *given: Any) -> Any:
        lists = given if self.family is None else [nodes[self.family] for nodes in given]
        nodes = [node for part in lists for node in part]
        if not self.last:
            return merge(self.joins, nodes)
        top = root(self.joins, nodes)
        with np.errstate(all="ignore"):
            pairs = zip(self.joins, top.states, strict=True)
            results = tuple(join.finish(state, top.count) for join, state in pairs)
        return results if len(results) > 1 else results[0]
