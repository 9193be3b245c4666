"""How chunks pass through the nodes of a graph.

The chunks of an axis are a tuple of lengths, or None where any will do (constants, NumPy arrays, axes in one chunk).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from math import prod

from ..fusion import ir

Chunks = tuple[int, ...] | None
Layout = tuple[Chunks, ...]


def unify(*given: Chunks) -> Chunks:
    """Return the chunks that arrays with these along one axis are brought to: the finest, the first of equals.

    No common refinement is made: of ``x[1:] - x[:-1]`` it would be chunks of one element between all others.
    """
    return max((chunks for chunks in given if chunks is not None), key=len, default=None)


def free(chunks: Sequence[int]) -> Chunks:
    """Return the chunks of an array's axis; those that are one chunk adapt to others."""
    return tuple(chunks) if len(chunks) > 1 else None


def starts(chunks: Sequence[int]) -> list[int]:
    """Return where each chunk begins, and the end."""
    return [0, *accumulate(chunks)]


def whole(layout: Layout, axes: Iterable[int]) -> bool:
    """Tell whether all of `axes` may be one chunk."""
    return all(layout[axis] is None for axis in axes)


def broadcast_to(layout: Layout, shape: ir.Shape, target: ir.Shape) -> Layout:
    """Return the layout of an array of `shape` as one of the shape `target`."""
    extra = len(target) - len(shape)
    kept = (chunks if n == m else None for chunks, n, m in zip(layout, shape, target[extra:], strict=True))
    return (None,) * extra + tuple(kept)


def of_map(node: ir.Map, layouts: Sequence[Layout]) -> Layout:
    """Return the layout of a map from those of its arguments."""
    spread = [broadcast_to(layout, arg.shape, node.shape) for layout, arg in zip(layouts, node.args, strict=True)]
    return tuple(unify(*axis) for axis in zip(*spread, strict=True))


def sliced(chunks: Sequence[int], start: int, step: int, length: int) -> tuple[int, ...]:
    """Return how many of the positions start, start + step, ... lie in each chunk, without the empty ones.

    Examples
    --------
    >>> sliced((4, 4, 2), 1, 2, 5)
    (2, 2, 1)
    """
    edges = starts(chunks)
    positions = range(start, start + step * length, step) if length else range(0)
    if step < 0:
        positions = positions[::-1]
    counts = []
    for lo, hi in pairwise(edges):
        first = max(0, -((positions.start - lo) // positions.step)) if length else 0
        last = max(0, -((positions.start - hi) // positions.step)) if length else 0
        counts.append(min(last, length) - min(first, length))
    counts = counts[::-1] if step < 0 else counts
    return tuple(count for count in counts if count)


def groups(old: ir.Shape, new: ir.Shape) -> list[tuple[range, range]]:
    """Return the smallest runs of axes that a reshape maps onto each other; arrays are not empty.

    Examples
    --------
    >>> groups((6, 4, 5), (6, 20))
    [(range(0, 1), range(0, 1)), (range(1, 3), range(1, 2))]
    """
    found = []
    i = j = 0
    while i < len(old) or j < len(new):
        a, b = i, j
        left = right = 1
        if i < len(old) and (j == len(new) or old[i] == 1 != new[j]):
            i += 1  # an axis of length 1 goes
        elif j < len(new) and (i == len(old) or new[j] == 1 != old[i]):
            j += 1  # one comes
        else:
            left, right = old[i], new[j]
            i, j = i + 1, j + 1
            while left != right:
                if left < right:
                    left, i = left * old[i], i + 1
                else:
                    right, j = right * new[j], j + 1
        found.append((range(a, i), range(b, j)))
    return found


def of_reshape(layout: Layout, old: ir.Shape, new: ir.Shape) -> Layout | None:
    """Return the layout after a reshape, None if elements would move between chunks.

    Of each run of axes only the first may be cut, the others lie whole within its chunks.
    """
    if 0 in old:
        return (None,) * len(new) if whole(layout, range(len(old))) else None
    result: list[Chunks] = [None] * len(new)
    for before, after in groups(old, new):
        if whole(layout, before):
            continue
        chunks = layout[before[0]]
        if chunks is None or not whole(layout, before[1:]) or not len(after):
            return None
        inner, outer = prod(old[axis] for axis in before[1:]), prod(new[axis] for axis in after[1:])
        if any(n * inner % outer for n in chunks):
            return None
        result[after[0]] = tuple(n * inner // outer for n in chunks)
    return tuple(result)
