"""Mean and scatter of the rows of a table, mergeable: two states, and how they are joined.

Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979, in
matrices; Demmel, Grigori, Hoemmen and Langou, "Communication-optimal parallel and sequential QR and LU factorizations",
SIAM J. Sci. Comput. 34 (1), 2012 (TSQR).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..launch import cpu

Array = NDArray[Any]

PIECES = 16  # at most, of a table: as many states wait to be joined
ROWS = 4096  # of a piece, at least
SLAB = 1 << 17  # elements that are centred at once: 1 MiB, which stays in a core's second cache


class Scatter(Protocol):
    """What is known of some rows: their number, their mean, and what `of` and `join` make of the distances from it."""

    @property
    def count(self) -> int: ...
    @property
    def mean(self) -> Array: ...


@dataclass(frozen=True)
class Squares:
    """The state of a covariance.

    Attributes
    ----------
    count : int
    mean : (d,) float64
    squares : (d, d) float64
        Sums of products of distances from the mean.
    """

    count: int
    mean: Array
    squares: Array

    @classmethod
    def of(cls, rows: Array) -> Squares:
        """Return the state of (n, d) float64 rows, which are written over."""
        mean = rows.mean(axis=0)
        rows -= mean
        return cls(len(rows), mean, rows.T @ rows)

    def join(self, other: Squares) -> Squares:
        """Return the state of the rows of both."""
        count, mean, distance, weight = _together(self, other)
        return Squares(count, mean, self.squares + other.squares + np.outer(distance, distance * weight))


@dataclass(frozen=True)
class Factor:
    """The same as a triangular factor R of the distances, whose R.T @ R the squares are; squaring loses nothing here.

    Attributes
    ----------
    count : int
    mean : (d,) float64
    factor : (at most d, d) float64
    """

    count: int
    mean: Array
    factor: Array

    @classmethod
    def of(cls, rows: Array) -> Factor:
        """Return the state of (n, d) float64 rows, which are written over."""
        mean = rows.mean(axis=0)
        rows -= mean
        return cls(len(rows), mean, np.asarray(np.linalg.qr(rows, mode="r")))

    def join(self, other: Factor) -> Factor:
        """Return the state of the rows of both."""
        count, mean, distance, weight = _together(self, other)
        stacked = np.concatenate([self.factor, other.factor, [distance * np.sqrt(weight)]])
        return Factor(count, mean, np.asarray(np.linalg.qr(stacked, mode="r")))


Kind = type[Squares] | type[Factor]


def _together(a: Scatter, b: Scatter) -> tuple[int, Array, Array, float]:
    """Return count and mean of both, their distance, and the weight of its square."""
    count = a.count + b.count
    distance = b.mean - a.mean
    return count, a.mean + distance * (b.count / count), distance, a.count * b.count / count


def joined(states: list[Any]) -> Any:
    """Join states in adjacent pairs, an odd last one going up."""
    while len(states) > 1:
        with np.errstate(invalid="ignore", over="ignore"):
            pairs = [a.join(b) for a, b in zip(states[::2], states[1::2], strict=False)]
        states = pairs + states[2 * len(pairs) :]
    return states[0]


def scatter(kind: Kind, x: Array) -> Any:
    """Return the state of the rows of an (n, d) table; how it is cut depends on its shape alone."""
    n, d = x.shape
    pieces = max(1, min(PIECES, n // max(ROWS, PIECES * d)))
    edges = [n * i // pieces for i in range(pieces + 1)]
    slab = max(1, d, SLAB // max(1, d))
    states: list[Any] = [None] * pieces

    def body(lo: int, hi: int) -> None:
        for i in range(lo, hi):
            state: Any = None
            for start in range(edges[i], edges[i + 1], slab):
                rows = np.array(x[start : min(start + slab, edges[i + 1])], np.float64, order="C")
                with np.errstate(invalid="ignore", over="ignore"):  # the result says it
                    new = kind.of(rows)
                    state = new if state is None else state.join(new)
            states[i] = state

    cpu.parallel_for(body, pieces)
    return joined(states)


@dataclass(frozen=True)
class Partial:
    """The task that makes the state of a chunk."""

    kind: Kind

    def __call__(self, read: Callable[[], Any]) -> Any:
        return scatter(self.kind, read())
