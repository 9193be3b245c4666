"""Order statistics without sorting: a few passes that count digits of ordered keys.

Each pass narrows the candidates for every rank to the keys with one more digit in common. Counts are whole numbers, so
neither chunks nor threads can change what is found. When few candidates are left they are collected instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..kernels.cpu import digits as kernels
from ..launch import cpu

Array = NDArray[Any]

MOST_BITS, LEAST_BITS = 16, 4  # of a digit: 16 bits are 512 KiB of counts, which a core's second cache holds
COUNTS = 1 << 21  # that a task holds
COLLECTED = 1 << 18  # candidates that are sorted at the end rather than counted again
AT_ONCE = 1 << 16  # elements that a thread takes at once
LOWEST = -(2**63)


@dataclass(frozen=True)
class Keys:
    """Numbers as whole numbers of 64 bits in the same order; -0 comes before 0.

    Parameters
    ----------
    dtype : numpy.dtype
        Integers, or floats of up to 64 bits.
    """

    dtype: np.dtype[Any]

    @property
    def width(self) -> int:
        """Bits of a number."""
        return self.dtype.itemsize * 8

    @property
    def flip(self) -> int:
        """The bits that are inverted in negative floats."""
        return (1 << (self.width - 1)) - 1 if self.dtype.kind == "f" else 0

    @property
    def sign(self) -> int:
        """What is inverted in every number."""
        return LOWEST if self.dtype == np.uint64 else 0

    @property
    def top(self) -> int:
        """The key of infinity: those beyond it, and beyond that of -infinity, are NaNs."""
        if self.dtype.kind != "f":
            return 2**63 - 1
        return int(np.array(np.inf, self.dtype).view(f"i{self.dtype.itemsize}"))

    def bias(self, bits: int) -> int:
        """What makes the first digit, of `bits` bits, begin at 0."""
        return 0 if self.dtype.kind == "u" and self.width < 64 else 1 << (bits - 1)

    def bits(self, x: Array) -> Array:
        """Return a view of `x` that the kernels take."""
        return x.view(f"{'u' if self.dtype.kind == 'u' and self.width < 64 else 'i'}{self.dtype.itemsize}")

    def keys(self, x: Array) -> Array:
        """Return the int64 keys of numbers."""
        k = self.bits(x).astype(np.int64)
        return k ^ ((k >> 63) & self.flip) ^ self.sign

    def values(self, keys: Array) -> Array:
        """Return the numbers of int64 keys."""
        k = keys ^ self.sign
        return (k ^ ((k >> 63) & self.flip)).astype(f"i{self.dtype.itemsize}").view(self.dtype)


def count_first(x: Array, keys: Keys, bits: int) -> tuple[Array, Array]:
    """Return counts of the first digit, (columns, 2**bits) int64, and of NaNs, (columns,), of (n, columns).

    The elements are counted as the dtype of `keys`.
    """
    kernel, columns = cpu.compile(kernels.count_first), x.shape[1]
    settings = (keys.flip, keys.sign, keys.top, keys.width - bits, keys.bias(bits))

    def count(part: Array, made: tuple[Array, ...]) -> None:
        kernel(keys.bits(part), *settings, *made)

    shapes: list[tuple[int, ...]] = [(columns, 1 << bits), (columns,)]
    counts, nans = in_parallel(x, shapes, count, keys.dtype)
    return counts, nans


def in_parallel(
    x: Array, shapes: list[tuple[int, ...]], count: Callable[[Array, tuple[Array, ...]], None], dtype: np.dtype[Any]
) -> list[Array]:
    """Call `count` for pieces of `x`, as `dtype`, with counts of each thread's own, and add these up.

    Parameters
    ----------
    x : (n, ...) array
    shapes : list of tuple
        Of the counts, which are int64.
    count : callable
        ``count(piece, counts)``; adds to the counts.
    dtype : numpy.dtype
    """
    made: list[tuple[Array, ...]] = []
    free: list[tuple[Array, ...]] = []
    rows = max(1, AT_ONCE // max(1, prod(x.shape[1:])))

    def body(lo: int, hi: int) -> None:
        try:
            mine = free.pop()
        except IndexError:
            mine = tuple(np.zeros(shape, np.int64) for shape in shapes)
            made.append(mine)
        step = hi - lo if x.dtype == dtype else rows
        for start in range(lo, hi, step):
            count(x[start : min(start + step, hi)].astype(dtype, copy=False), mine)
        free.append(mine)

    cpu.parallel_for(body, len(x), chunk=rows)
    return [np.sum(arrays, axis=0) for arrays in zip(*made, strict=True)] or [np.zeros(s, np.int64) for s in shapes]


def _table(keys: Keys, first: int, known: int, columns: int, column: Array, prefixes: Array) -> tuple[Array, Array]:
    """Return the shifts and the table that the kernels look prefixes of `known` bits up with."""
    bias = keys.bias(first)
    table = np.full((2, columns, 1 << first), -1, np.int32)
    place = column * table.shape[2] + (prefixes >> (known - first)) + bias
    starts = np.flatnonzero(np.diff(place, prepend=-1))  # prefixes with one first digit follow one another
    table.reshape(2, -1)[:, place[starts]] = starts, [*starts[1:], len(place)]
    return np.array([keys.width - first, bias, keys.width - known]), table


def count_prefixes(x: Array, keys: Keys, bits: int) -> tuple[Array, Array, int]:
    """Return which prefixes of `bits` bits the keys of (n,) elements have, ascending, how often, and the NaNs."""
    first = min(bits, MOST_BITS)
    column = x.reshape(-1, 1)
    dense, nans = count_first(column, keys, first)
    (digits,) = dense[0].nonzero()
    prefixes, rest = digits - keys.bias(first), bits - first
    if not rest:
        return prefixes, dense[0][digits], int(nans[0])
    if len(digits) << rest > COUNTS:
        prefixes, counts = np.unique(keys.keys(x.astype(keys.dtype)) >> (keys.width - bits), return_counts=True)
        return prefixes, counts, int(nans[0])
    kernel = cpu.compile(kernels.count_next)
    shifts, table = _table(keys, first, first, 1, np.zeros_like(prefixes), prefixes)

    def count(part: Array, made: tuple[Array, ...]) -> None:
        kernel(keys.bits(part), keys.flip, keys.sign, shifts, rest, table, prefixes, made[0])

    (counts,) = in_parallel(column, [(len(prefixes), 1 << rest)], count, keys.dtype)
    group, digits = counts.nonzero()
    return (prefixes[group] << rest) | digits, counts[group, digits], int(nans[0])


@dataclass(frozen=True)
class Groups:
    """The prefixes that are asked for: ascending in each column, those of a column after those of the one before."""

    prefixes: Array  # (groups,) int64
    column: Array  # (groups,)
    index: Array  # (columns, ranks): the group of each rank
    sizes: Array  # (groups,): candidates


@dataclass(frozen=True)
class Search:
    """What is known of the order statistics of each column.

    Attributes
    ----------
    keys : Keys
    bits : tuple of int
        Of the first digit, and of the others.
    known : int
        Bits of the keys that are known.
    ranks : (columns, ranks) int64
        Ascending; counted among the candidates.
    prefixes : (columns, ranks) int64
        The bits that are known.
    sizes : (columns, ranks) int64
        How many candidates there are.
    nans : (columns,) bool
        Whether the column has a NaN.
    kept : tuple of int
        The shape that the columns have.
    """

    keys: Keys
    bits: tuple[int, int]
    known: int
    ranks: Array
    prefixes: Array
    sizes: Array
    nans: Array
    kept: tuple[int, ...]

    @classmethod
    def start(cls, keys: Keys, bits: tuple[int, int], n: int, ranks: Sequence[int], kept: tuple[int, ...]) -> Search:
        """Return a search in columns of `n` elements."""
        wanted = np.tile(np.array(ranks, np.int64), (prod(kept), 1))
        zeros = np.zeros_like(wanted)
        return cls(keys, bits, 0, wanted, zeros, np.full_like(wanted, n), np.zeros(len(wanted), bool), kept)

    @property
    def done(self) -> bool:
        """Whether all keys are known."""
        return self.known == self.keys.width

    @property
    def values(self) -> Array:
        """The order statistics, (columns, ranks); NaN in columns that have one."""
        found = self.keys.values(self.prefixes)
        if self.nans.any():
            found[self.nans] = np.nan
        return found

    def groups(self) -> Groups:
        """Return the prefixes that the next pass asks for."""
        columns, ranks = self.prefixes.shape
        new = np.ones((columns, ranks), bool)
        new[:, 1:] = self.prefixes[:, 1:] != self.prefixes[:, :-1]
        index = np.cumsum(new.reshape(-1)).reshape(columns, ranks) - 1
        return Groups(self.prefixes[new], new.nonzero()[0], index, self.sizes[new])

    def part(self, x: Array) -> Part:
        """Return what (n, columns) elements add to the search."""
        if self.done:
            return Part(self)
        if not self.known:
            counts, nans = count_first(x, self.keys, self._digit)
            return Part(self, counts, nans)
        groups = self.groups()
        seen = self.keys.bits(x)
        columns = len(self.ranks)
        shifts, table = _table(self.keys, self.bits[0], self.known, columns, groups.column, groups.prefixes)
        if groups.sizes.sum() <= COLLECTED:
            return self._collected(seen, shifts, table, groups)
        kernel = cpu.compile(kernels.count_next)

        def count(part: Array, made: tuple[Array, ...]) -> None:
            kernel(part, self.keys.flip, self.keys.sign, shifts, self._digit, table, groups.prefixes, made[0])

        (counts,) = in_parallel(seen, [(len(groups.prefixes), 1 << self._digit)], count, seen.dtype)
        return Part(self, counts)

    @property
    def _digit(self) -> int:
        """Bits of the next digit."""
        return min(self.bits[self.known > 0], self.keys.width - self.known)

    def _collected(self, seen: Array, shifts: Array, table: Array, groups: Groups) -> Part:
        kernel, flip, sign = cpu.compile(kernels.collect), self.keys.flip, self.keys.sign
        room = int(groups.sizes.sum())
        found: list[tuple[Array, Array]] = []

        def body(lo: int, hi: int) -> None:
            size = min(room, (hi - lo) * seen.shape[1])
            which, keys = np.empty(size, np.int32), np.empty(size, np.int64)
            count = kernel(seen[lo:hi], flip, sign, shifts, table, groups.prefixes, which, keys)
            found.append((which[:count].copy(), keys[:count].copy()))

        cpu.parallel_for(body, len(seen), chunk=max(1, AT_ONCE // max(1, seen.shape[1])))
        return joined([Part(self, which, keys, collected=True) for which, keys in found])

    def advanced(self, part: Part) -> Search:
        """Return what is known after a pass whose states, joined, are `part`."""
        if part.first is None:
            return self
        if part.collected:
            return self._sorted(part)
        index = self.groups().index
        sums = np.cumsum(part.first, axis=1)
        digits, ranks, sizes = (np.empty_like(self.ranks) for _ in range(3))
        for place, group in np.ndenumerate(index):
            digit = int(np.searchsorted(sums[group], self.ranks[place], side="right"))
            below = sums[group, digit - 1] if digit else 0
            digits[place], ranks[place], sizes[place] = digit, self.ranks[place] - below, sums[group, digit] - below
        bits = self._digit
        if not self.known:
            assert part.second is not None
            digits -= self.keys.bias(bits)
            return replace(self, known=bits, ranks=ranks, prefixes=digits, sizes=sizes, nans=part.second > 0)
        prefixes = (self.prefixes << bits) | digits
        return replace(self, known=self.known + bits, ranks=ranks, prefixes=prefixes, sizes=sizes)

    def _sorted(self, part: Part) -> Search:
        assert part.first is not None and part.second is not None
        groups = self.groups()
        order = np.lexsort((part.second, part.first))
        starts = np.concatenate([[0], np.cumsum(groups.sizes)])
        keys = part.second[order][starts[groups.index] + self.ranks]
        return replace(self, known=self.keys.width, prefixes=keys)


@dataclass(frozen=True)
class Part:
    """What some elements add to a search.

    Attributes
    ----------
    search : Search
    first, second : array or None
        Counts of digits and, in the first pass, of NaNs; if `collected`, groups and keys. None: the search was over.
    """

    search: Search
    first: Array | None = None
    second: Array | None = None
    collected: bool = False


def joined(parts: list[Part]) -> Part:
    """Return what all of the parts add, in any order."""
    head = parts[0]
    firsts = [part.first for part in parts if part.first is not None]
    seconds = [part.second for part in parts if part.second is not None]
    if head.collected:
        return Part(head.search, np.concatenate(firsts), np.concatenate(seconds), collected=True)
    first, second = (np.sum(arrays, axis=0) if arrays else None for arrays in (firsts, seconds))
    return Part(head.search, first, second)


def advanced(part: Part) -> Search:
    """Return the search after a pass."""
    return part.search.advanced(part)


def digit_bits(width: int, columns: int, ranks: int) -> tuple[int, int]:
    """Return the bits of the first digit and of the others, so that counts stay within `COUNTS`."""
    return tuple(  # type: ignore[return-value]
        min(width, MOST_BITS, max(LEAST_BITS, (COUNTS // max(1, rows)).bit_length() - 1))
        for rows in (columns, columns * ranks)
    )


def passes(width: int, bits: tuple[int, int]) -> int:
    """Return how many passes find any order statistic, at most."""
    return 1 + -(-(width - bits[0]) // bits[1])


def by_columns(x: Array, axes: tuple[int, ...]) -> Array:
    """Return `x` as (n, columns): the axes that are reduced, and the others."""
    if len(axes) == x.ndim:
        return x.ravel(order="K").reshape(-1, 1)
    kept = [axis for axis in range(x.ndim) if axis not in axes]
    return x.transpose(*axes, *kept).reshape(prod(x.shape[a] for a in axes), -1)
