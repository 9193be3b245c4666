"""Where the elements of an array lie: an offset and one stride for each axis.

The views of the IR act on a `Layout` as they act on an array, so a kernel reads an input through any chain of
views without knowing of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """Element (i, j, …) lies at ``offset + i * strides[0] + j * strides[1] + …`` (bytes, or items for an index)."""

    offset: int
    shape: Shape
    strides: Shape

    @staticmethod
    def contiguous(shape: Shape, itemsize: int) -> Layout:
        """Return the layout of a C-ordered array."""
        strides = []
        step = itemsize
        for n in reversed(shape):
            strides.append(step)
            step *= max(n, 1)
        return Layout(0, shape, tuple(reversed(strides)))

    def apply(self, kind: str, params: tuple[Any, ...], shape: Shape) -> Layout | None:
        """Return the layout after a view of the IR; None for a reshape that strides cannot express."""
        if kind == "transpose":
            return Layout(self.offset, shape, tuple(self.strides[axis] for axis in params))
        if kind == "slice":
            offset = self.offset
            strides = []
            for (start, step), length, stride in zip(params, shape, self.strides, strict=True):
                offset += start * stride if length else 0
                strides.append(stride * step)
            return Layout(offset, shape, tuple(strides))
        if kind == "broadcast":
            new = len(shape) - len(self.shape)
            kept = (s if n == m else 0 for s, n, m in zip(self.strides, self.shape, shape[new:], strict=True))
            return Layout(self.offset, shape, (0,) * new + tuple(kept))
        return self._reshape(shape)

    def _reshape(self, shape: Shape) -> Layout | None:
        kept = len(shape)
        if self.shape[:kept] == shape and all(n == 1 for n in self.shape[kept:]):
            # NumPy would take other strides for a length of 1, and so would need code of its own.
            return Layout(self.offset, shape, self.strides[:kept])
        # NumPy knows best which reshapes strides can express; its array here is never read.
        array = np.lib.stride_tricks.as_strided(np.empty(1, np.int8), self.shape, self.strides)
        try:
            strides = np.reshape(array, shape, copy=False).strides
        except ValueError:
            return None
        return Layout(self.offset, shape, strides)


def merge(
    extents: list[int], layouts: list[list[int]], groups: list[int]
) -> tuple[list[int], list[list[int]], list[int]]:
    """Merge neighbouring axes that every layout walks as one.

    `layouts` holds the strides of each operand; `groups` marks each axis, and only axes of one group merge.
    Returns the same three for the merged axes.
    """
    if not extents:
        return [], [[] for _ in layouts], []
    new_extents = [extents[0]]
    new_layouts = [[strides[0]] for strides in layouts]
    new_groups = [groups[0]]
    for axis in range(1, len(extents)):
        n = extents[axis]
        together = groups[axis] == new_groups[-1] and all(
            merged[-1] == n * strides[axis] for merged, strides in zip(new_layouts, layouts, strict=True)
        )
        if together:
            new_extents[-1] *= n
        else:
            new_extents.append(n)
            new_groups.append(groups[axis])
        for merged, strides in zip(new_layouts, layouts, strict=True):
            if together:
                merged[-1] = strides[axis]
            else:
                merged.append(strides[axis])
    return new_extents, new_layouts, new_groups
