"""The tree along which every reduction is folded, written for reading.

The tree is fixed by the number of elements alone, so the bits of a result depend neither on threads nor on the
machine: tiles of 256 elements, the last one shorter; a tile of n elements is folded by halving (with h the largest
power of two below n, element i takes in element i + h, and n becomes h) until one is left; tiles are joined in
adjacent pairs, an odd last one carried up. The compiled folds of `kernels/cpu/reduce.py` must give what these
functions give.

An element may be a scalar or an array of columns that are folded side by side.

Sources: Higham, "The accuracy of floating point summation", 1993 (pairwise sums); Chan, Golub and LeVeque,
"Updating formulae and a pairwise algorithm for computing sample variances", 1983.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

TILE = 256

State = Any
Join = Callable[[State, State], State]


def fold_tile(values: Iterable[State], combine: Join) -> State:
    """Fold 1 to 256 elements."""
    lanes = list(values)
    half = TILE // 2
    while half:
        pairs = min(half, max(len(lanes) - half, 0))
        lanes = [combine(lanes[i], lanes[i + half]) for i in range(pairs)] + lanes[pairs:half]
        half //= 2
    return lanes[0]


def join_tiles(tiles: list[State], join: Join) -> State:
    """Join the states of tiles in adjacent pairs."""
    while len(tiles) > 1:
        pairs = [join(a, b) for a, b in zip(tiles[::2], tiles[1::2], strict=False)]
        tiles = pairs + tiles[2 * len(pairs) :]
    return tiles[0]


def fold(values: Sequence[State] | np.ndarray[Any, Any], combine: Join) -> State:
    """Fold any number of elements, at least one."""
    tiles = [values[start : start + TILE] for start in range(0, len(values), TILE)]
    return join_tiles([fold_tile(tile, combine) for tile in tiles], combine)


def squares(values: np.ndarray[Any, Any]) -> Any:
    """Return the sum of squared distances from the mean, along the first axis, of floats.

    A state is (count, mean, sum of squares).
    """
    dtype = values.dtype.type

    def of_tile(tile: np.ndarray[Any, Any]) -> State:
        mean = fold_tile(tile, np.add) / dtype(len(tile))
        distance = tile - mean
        return len(tile), mean, fold_tile(distance * distance, np.add)

    def join(a: State, b: State) -> State:
        (count_a, mean_a, squares_a), (count_b, mean_b, squares_b) = a, b
        count = count_a + count_b
        share = dtype(np.float64(count_b) / np.float64(count))
        weight = dtype(np.float64(count_a) * np.float64(count_b) / np.float64(count))
        distance = mean_b - mean_a
        total = (squares_a + squares_b) + (distance * distance) * weight
        return count, mean_a + distance * share, total

    return join_tiles([of_tile(values[k : k + TILE]) for k in range(0, len(values), TILE)], join)[2]


def squares_of_integers(values: np.ndarray[Any, Any]) -> Any:
    """Return the same for 8- and 16-bit integers: exact sums, rounded three times at the end (float64)."""
    count = len(values)
    wide = values.astype(np.int64)
    total, of_squares = wide.sum(0), (wide * wide).sum(0)
    mean = total // count
    rest = total - mean * count
    distance = of_squares - 2 * mean * total + count * mean * mean
    return np.float64(distance) - np.float64(rest) * np.float64(rest) / np.float64(count)


def smaller(a: Any, b: Any) -> Any:
    """The smaller of two; a NaN wins; the first of equals."""
    return np.where((a <= b) | (a != a), a, b)


def larger(a: Any, b: Any) -> Any:
    """The larger of two; a NaN wins; the first of equals."""
    return np.where((a >= b) | (a != a), a, b)


def reduce_rows(op: str, values: np.ndarray[Any, Any]) -> Any:
    """Return the reduction `op` of `values` along the first axis, which is not empty."""
    dtype = values.dtype
    match op:
        case "sum":
            return fold(values, np.add)
        case "prod":
            return fold(values, np.multiply)
        case "min" | "all":
            return fold(values, smaller)
        case "max" | "any":
            return fold(values, larger)
        case "argmin" | "argmax":
            return getattr(np, op)(values, axis=0)  # the first of equals, a NaN before all
        case "m2" if dtype.kind == "f":
            return squares(values)
        case "m2":
            return squares_of_integers(values)
    raise AssertionError(op)
