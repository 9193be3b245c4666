"""Runs ``kernels/cpu/kmeans.py`` on a block of rows, on all threads.

What these functions return is the same for any number of threads, and, joined by `add` and `widen`, for any blocks.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..kernels.cpu import kmeans as kernels
from ..launch import cpu
from ..memory import ALIGNMENT
from ..stats.estimator import DataError
from .fixed import Scales, largest_distance

Array = NDArray[Any]
Result = tuple[Array, ...]

LANES = kernels.LANES
WORK = 1 << 19  # operations that a thread takes at once, about 20 µs
WIDTH = 256  # elements that are added to sums side by side
NOT_KEPT = np.empty(0, np.int32)


@dataclass(frozen=True)
class Block:
    """Rows as the kernels take them.

    Attributes
    ----------
    x : (n, d) float32 or float64 array
        In C order and read-only.
    weights : (n,) float64 array
        (0,) where all are 1.
    """

    x: Array
    weights: Array

    @classmethod
    def of(cls, x: Any, dtype: np.dtype[Any], weights: Array | None = None) -> Block:
        """Return a block of what NumPy can make rows of."""
        x = np.ascontiguousarray(x, dtype).view()
        weights = (np.empty(0) if weights is None else np.ascontiguousarray(weights, np.float64)).view()
        x.flags.writeable = weights.flags.writeable = False
        return cls(x, weights)


def add(parts: Sequence[Result]) -> Result:
    """Join results that are sums."""
    return tuple(np.sum(part, axis=0) for part in zip(*parts, strict=True))


def widen(parts: Sequence[Array]) -> Array:
    """Join results of `extent`."""
    both = np.stack(parts)
    return np.stack([both[:, 0].min(0), both[:, 1].max(0)])


def padded(centres: Array) -> Array:
    """Return centres with further columns of zeros, and with the last twice if they are an odd number."""
    k, d = centres.shape
    result = np.zeros((k + k % 2, d + -d % kernels.FEATURES), centres.dtype)
    result[:k, :d] = centres
    result[k:] = result[k - 1]
    return result


def _zeros(shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """Return zeros that begin where a line of the cache does: with others, vectors lie in two, and take 1.5 times."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    space = np.zeros(size + ALIGNMENT, np.uint8)
    start = -space.ctypes.data % ALIGNMENT
    return space[start : start + size].view(dtype).reshape(shape)


class Scratch:
    """What one thread works with, and the sums it makes."""

    def __init__(self, columns: int, dtype: np.dtype[Any], shapes: Sequence[tuple[int, ...]]) -> None:
        both = _zeros((columns + 3, LANES), dtype)
        self.tile, self.lanes = both[:columns], both[columns:]
        self.weight, self.label = _zeros((LANES,), np.float64), _zeros((LANES,), np.int32)
        self.weight.fill(1)
        self.sums = tuple(_zeros(shape, np.int64) for shape in shapes)


def _run(
    x: Array, centres: Array, call: Callable[[Scratch, int, int], object], *shapes: tuple[int, ...]
) -> tuple[Array, ...]:
    """Call ``call(scratch, lo, hi)`` for pieces of the rows, and return the sums over all threads."""
    idle: deque[Scratch] = deque()

    def body(lo: int, hi: int) -> None:
        try:
            mine = idle.pop()
        except IndexError:
            mine = Scratch(centres.shape[1], x.dtype, shapes)
        call(mine, lo * LANES, min(hi * LANES, len(x)))
        idle.append(mine)

    cpu.parallel_for(body, -(-len(x) // LANES), chunk=1 + WORK // (2 * LANES * centres.size))
    empty = tuple(np.zeros(shape, np.int64) for shape in shapes)
    return add([empty, *(scratch.sums for scratch in idle)])


def assign(block: Block, centres: Array, scales: Scales, labels: Array = NOT_KEPT) -> Result:
    """Return the sums of rows and weights of each cluster, (k, d + 1), and of the distances, (2,); fill `labels`."""
    kernel, wide, distances = cpu.compile(kernels.assign), padded(centres), scales.distances

    def call(mine: Scratch, lo: int, hi: int) -> None:
        kernel(
            block.x, block.weights, lo, hi, wide, scales.values, distances.scale, distances.fine, mine.tile, mine.lanes,
            mine.weight, mine.label, labels, *mine.sums,
        )  # fmt: skip

    return _run(block.x, wide, call, (len(centres), block.x.shape[1] + 1), (2,))


def label(block: Block, centres: Array) -> tuple[Array, Array]:
    """Return the labels of the rows, int32, and their squared distances."""
    kernel, wide = cpu.compile(kernels.label_rows), padded(centres)
    x = block.x
    labels, distances = np.empty(len(x), np.int32), np.empty(len(x), x.dtype)

    def call(mine: Scratch, lo: int, hi: int) -> None:
        kernel(x, lo, hi, wide, mine.tile, mine.lanes, mine.label, labels, distances)

    _run(x, wide, call)
    return labels, distances


def predict(x: Any, centres: Array) -> Array:
    """Return the labels of rows that nobody has looked at."""
    return label(_checked(x, centres), centres)[0]


def transform(x: Any, centres: Array) -> Array:
    """Return the distances to all centres, (n, k), of rows that nobody has looked at."""
    rows, k = _checked(x, centres).x, len(centres)
    kernel, wide, out = cpu.compile(kernels.measure_rows), padded(centres), np.empty((len(rows), k), rows.dtype)
    _run(rows, wide, lambda mine, lo, hi: kernel(rows, lo, hi, wide, k, mine.tile, mine.lanes, out))
    return out


def _checked(x: Any, centres: Array) -> Block:
    block = Block.of(x, centres.dtype)
    largest_distance(extent(block), centres)
    return block


def come_closer(block: Block, closest: Array | None, centres: Array) -> Array:
    """Return the squared distance of each row to the nearest of one centre and those that made `closest`."""
    kernel, wide, x = cpu.compile(kernels.come_closer), padded(centres), block.x
    nearer = np.full(len(x), np.inf, x.dtype) if closest is None else closest.copy()
    _run(x, wide, lambda mine, lo, hi: kernel(x, lo, hi, wide, mine.tile, mine.lanes, nearer))
    return nearer


def choose(
    block: Block, closest: Array | None, chosen: Array, candidates: Array, scales: Scales
) -> tuple[Array, Array]:
    """Let a centre be there, and return the distances to the nearest one then, and the `potentials` of candidates."""
    closest = come_closer(block, closest, chosen)
    return closest, potentials(block, closest, candidates, scales)


def potentials(block: Block, closest: Array, centres: Array, scales: Scales) -> Array:
    """Return for each centre the sum, (k, 2), of the distances that would remain if it were there."""
    kernel, wide, k = cpu.compile(kernels.potentials), padded(centres), len(centres)
    coarse, fine = scales.distances.scale, scales.distances.fine

    def call(mine: Scratch, lo: int, hi: int) -> None:
        kernel(
            block.x,
            block.weights,
            lo,
            hi,
            wide,
            k,
            closest,
            coarse,
            fine,
            mine.tile,
            mine.lanes,
            mine.weight,
            *mine.sums,
        )

    return _run(block.x, wide, call, (k, 2))[0]


def locate(block: Block, closest: Array, chosen: Array, thresholds: Sequence[int], scales: Scales) -> Array:
    """Return the rows at which running sums of distances first exceed the ascending thresholds.

    Distances are those to the nearest of `chosen`, one centre, and of those that made `closest`.
    """
    closest = come_closer(block, closest, chosen)
    fixed, found = scales.distances, np.zeros(len(thresholds), np.int64)
    split = np.array([fixed.split(threshold) for threshold in thresholds], np.int64)
    cpu.compile(kernels.locate)(block.weights, closest, fixed.scale, fixed.fine, fixed.bits, split, found)
    return block.x[found]


def extent(block: Block) -> Array:
    """Return the smallest and largest value of each feature, (2, d).

    Raises
    ------
    DataError
        A value is NaN or infinite.
    """
    kernel, x, d = cpu.compile(kernels.extent), block.x, block.x.shape[1]
    width = max(1, WIDTH // d) * d
    flat = x.reshape(-1)
    parts: list[Array] = [np.stack([np.full(d, np.inf, x.dtype), np.full(d, -np.inf, x.dtype)])]

    def body(lo: int, hi: int) -> None:
        low, high, check = (np.full(width, start, x.dtype) for start in (np.inf, -np.inf, 0))
        kernel(flat, lo * d, hi * d, low, high, check)
        if np.isnan(check).any():
            raise DataError("x holds NaN or infinity; expected finite values: fill in or leave out such rows first")
        parts.append(np.stack([low.reshape(-1, d).min(0), high.reshape(-1, d).max(0)]))

    cpu.parallel_for(body, len(x), chunk=1 + WORK // (4 * d))
    return widen(parts)


def moments(block: Block, centre: Array, scale: Array, square_scale: Array) -> Result:
    """Return the sums, (2, d), of the distances of each feature from `centre`, and of their squares."""
    kernel, x, d = cpu.compile(kernels.moments), block.x, block.x.shape[1]
    side_by_side = max(1, WIDTH // d)
    wide = [np.tile(each, side_by_side) for each in (centre, scale, square_scale)]
    flat = x.reshape(-1)
    parts: list[Result] = [(np.zeros((2, d), np.int64),)]

    def body(lo: int, hi: int) -> None:
        sums = np.zeros((2, side_by_side * d), np.int64)
        kernel(flat, lo * d, hi * d, *wide, sums)
        parts.append((sums.reshape(2, -1, d).sum(1),))

    cpu.parallel_for(body, len(x), chunk=1 + WORK // (4 * d))
    return add(parts)


def farthest(block: Block, centres: Array, count: int) -> Result:
    """Return distances, labels, weights and values of the rows farthest from their centres, the first of equals."""
    labels, distances = label(block, centres)
    rows = np.argsort(-distances, kind="stable")[:count]
    weights = block.weights[rows] if len(block.weights) else np.ones(len(rows))
    return distances[rows], labels[rows], weights, block.x[rows]


def join_farthest(parts: Sequence[Result], count: int) -> Result:
    """Join results of `farthest`, given in the order of the blocks."""
    fields = [np.concatenate(field) for field in zip(*parts, strict=True)]
    rows = np.argsort(-fields[0], kind="stable")[:count]
    return tuple(field[rows] for field in fields)
