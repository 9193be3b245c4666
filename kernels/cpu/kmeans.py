"""K-means: squared distances of rows to centres, and sums over the rows of each cluster.

A distance is the sum of squared differences in the order of the features; a fused multiply-add squares and adds, and
rounds once. 256 rows at a time are laid out feature by feature in `tile`, one row in each lane, so that every loop runs
over rows: no sum is reordered, and any number of clusters fills the vectors. Two centres at a time share what is read
of the tile: 64 of them and 64 features take 30 µs, where the operations alone take 26 (AVX-512, 2.5 GHz).

What is summed over rows is first rounded to a multiple of a power of two, after which int64 sums are exact and do not
depend on their order. Distances, which spread over more magnitudes than values do, are split into two such numbers.

Arrays, by name:

- x: (n, d) float32 or float64; rows [lo:hi] are meant. weights: (n,) float64, or (0,) where all are 1.
- centres: (even, a multiple of FEATURES), of x's dtype, filled up with copies of the last row and columns of zeros;
  k of them are meant.
- tile: (columns of centres, LANES), zeros at first; lanes: (3, LANES), both of x's dtype; weight: (LANES,) float64,
  ones at first; label: (LANES,) int32. All of them begin on a line of the cache: with 16 bytes more, 64 centres take
  41 to 46 µs.
- fine, coarse: powers of two that `limbs` multiplies distances with.
"""

from __future__ import annotations

from typing import Any

from numba.extending import register_jitable
from numpy import float64, inf, int32, int64, sqrt

from .fma import fma
from .transpose import SIDE, transpose_words
from .wide import wide_loops

LANES = 256
FEATURES = 4
SHORT = 16
# Added to a float64 below 2**51 in magnitude, leaves the nearest whole number (ties to even) in the low bits.
MAGIC = 1.5 * 2.0**52
MAGIC_BITS = 0x4338000000000000

Array = Any


@register_jitable
def whole(value: float) -> int:
    # the nearest whole number; unlike a conversion, a vector operation on every processor
    return float64(value + MAGIC).view(int64) - MAGIC_BITS


@register_jitable
def limbs(value: float, coarse: float, fine: float) -> tuple[int, int]:
    # value ~ (first + second / fine) / coarse; |value * coarse| and fine are at most 2**51
    scaled = value * coarse
    rounded = (scaled + MAGIC) - MAGIC
    return whole(scaled), whole((scaled - rounded) * fine)


@register_jitable
def lay_out(x: Array, first: int, count: int, tile: Array) -> None:
    wide_loops()
    # SIDE rows at a time: 0.35 ns an element, ten times less than row by row, whose writes lie 1 kB apart. Squares in
    # registers, which there are for words, take 0.15.
    even, squares = count - count % SIDE, 0
    if x.itemsize == 4:
        squares = x.shape[1] - x.shape[1] % SIDE
    for start in range(0, even, SIDE):
        for j in range(0, squares, SIDE):
            source = x.ctypes.data + (first + start) * x.strides[0] + j * x.itemsize
            target = tile.ctypes.data + j * tile.strides[0] + start * tile.itemsize
            transpose_words(source, x.strides[0], target, tile.strides[0])
        for j in range(squares, x.shape[1]):
            column = tile[j]
            for r in range(start, start + SIDE):
                column[r] = x[first + r, j]
    for r in range(even, count):
        for j in range(x.shape[1]):
            tile[j, r] = x[first + r, j]


@register_jitable
def measure(tile: Array, a: Array, b: Array, to_a: Array, to_b: Array) -> None:
    # squared distances of the tile's rows to two centres
    wide_loops()
    for r in range(to_a.shape[0]):
        to_a[r], to_b[r] = 0, 0
    for j in range(0, tile.shape[0], FEATURES):
        t0, t1, t2, t3 = tile[j], tile[j + 1], tile[j + 2], tile[j + 3]
        a0, a1, a2, a3 = a[j], a[j + 1], a[j + 2], a[j + 3]
        b0, b1, b2, b3 = b[j], b[j + 1], b[j + 2], b[j + 3]
        for r in range(to_a.shape[0]):
            x0, x1, x2, x3 = t0[r], t1[r], t2[r], t3[r]
            d0, d1, d2, d3 = x0 - a0, x1 - a1, x2 - a2, x3 - a3
            to_a[r] = fma(d3, d3, fma(d2, d2, fma(d1, d1, fma(d0, d0, to_a[r]))))
            d0, d1, d2, d3 = x0 - b0, x1 - b1, x2 - b2, x3 - b3
            to_b[r] = fma(d3, d3, fma(d2, d2, fma(d1, d1, fma(d0, d0, to_b[r]))))


@register_jitable
def nearest(tile: Array, centres: Array, lanes: Array, label: Array) -> None:
    # for each row the first of the nearest centres, to `label`, and the distance, to lanes[2]
    wide_loops()
    to_a, to_b, best = lanes[0], lanes[1], lanes[2]
    for r in range(best.shape[0]):
        best[r], label[r] = inf, 0
    for k in range(0, centres.shape[0], 2):
        measure(tile, centres[k], centres[k + 1], to_a, to_b)
        a, b = int32(k), int32(k + 1)
        for r in range(best.shape[0]):
            found, distance = label[r], best[r]
            found = a if to_a[r] < distance else found
            distance = to_a[r] if to_a[r] < distance else distance
            label[r] = b if to_b[r] < distance else found
            best[r] = to_b[r] if to_b[r] < distance else distance


@register_jitable
def load_weights(weights: Array, first: int, count: int, weight: Array) -> None:
    if weights.shape[0] > 0:
        for r in range(count):
            weight[r] = weights[first + r]


@register_jitable
def add_values(
    x: Array, first: int, count: int, tile: Array, weight: Array, label: Array, scales: Array, sums: Array
) -> None:
    wide_loops()
    features = x.shape[1]
    for r in range(count):
        sums[label[r], features] += whole(weight[r] * scales[features])
    if features < SHORT:  # 6 ns a row of three features; loops over rows that short take 35
        for j in range(features):
            column, scale = tile[j], scales[j]
            for r in range(count):
                sums[label[r], j] += whole((float64(column[r]) * weight[r]) * scale)
        return
    for r in range(count):
        row, target, factor = x[first + r], sums[label[r]], weight[r]
        for j in range(features):
            target[j] += whole((float64(row[j]) * factor) * scales[j])


@register_jitable
def add_distances(distances: Array, count: int, weight: Array, coarse: float, fine: float, totals: Array) -> None:
    wide_loops()
    high, low = int64(0), int64(0)
    for r in range(count):
        one, two = limbs(float64(distances[r]) * weight[r], coarse, fine)
        high += one
        low += two
    totals[0] += high
    totals[1] += low


def assign(
    x: Array, weights: Array, lo: int, hi: int, centres: Array, scales: Array, coarse: float, fine: float, tile: Array,
    lanes: Array, weight: Array, label: Array, labels: Array, sums: Array, totals: Array,
) -> None:  # fmt: skip
    """One step of Lloyd's: label the rows, and add up the rows of each cluster and all distances.

    scales: (d + 1,) float64, what values and weights are multiplied with before they are rounded
    labels: (n,) int32, or (0,): not kept -> sums: (k, d + 1) int64, of rows and weights; totals: (2,) int64
    """
    kept = labels.shape[0] > 0
    for first in range(lo, hi, LANES):
        count = min(LANES, hi - first)
        lay_out(x, first, count, tile)
        load_weights(weights, first, count, weight)
        nearest(tile, centres, lanes, label)
        if kept:
            for r in range(count):
                labels[first + r] = label[r]
        add_values(x, first, count, tile, weight, label, scales, sums)
        add_distances(lanes[2], count, weight, coarse, fine, totals)


def label_rows(
    x: Array, lo: int, hi: int, centres: Array, tile: Array, lanes: Array, label: Array, labels: Array, distances: Array
) -> None:
    """Label the rows. -> labels: (n,) int32, distances: (n,) of x's dtype, squared."""
    for first in range(lo, hi, LANES):
        count = min(LANES, hi - first)
        lay_out(x, first, count, tile)
        nearest(tile, centres, lanes, label)
        for r in range(count):
            labels[first + r] = label[r]
            distances[first + r] = lanes[2, r]


def measure_rows(x: Array, lo: int, hi: int, centres: Array, k: int, tile: Array, lanes: Array, out: Array) -> None:
    """Measure distances to all centres. -> out: (n, k) of x's dtype, not squared."""
    for first in range(lo, hi, LANES):
        count = min(LANES, hi - first)
        lay_out(x, first, count, tile)
        for a in range(0, centres.shape[0], 2):
            measure(tile, centres[a], centres[a + 1], lanes[0], lanes[1])
            for c in range(a, min(a + 2, k)):
                for r in range(count):
                    out[first + r, c] = sqrt(lanes[c - a, r])


def come_closer(x: Array, lo: int, hi: int, centres: Array, tile: Array, lanes: Array, closest: Array) -> None:
    """Let two more centres be there. -> closest: (n,) of x's dtype, squared distances to the nearest so far."""
    for first in range(lo, hi, LANES):
        count = min(LANES, hi - first)
        lay_out(x, first, count, tile)
        measure(tile, centres[0], centres[1], lanes[0], lanes[1])
        for r in range(count):
            closest[first + r] = min(closest[first + r], lanes[0, r], lanes[1, r])


def potentials(
    x: Array, weights: Array, lo: int, hi: int, centres: Array, k: int, closest: Array, coarse: float, fine: float,
    tile: Array, lanes: Array, weight: Array, totals: Array,
) -> None:  # fmt: skip
    """For each centre: the sum of the distances that would remain if it were there. -> totals: (k, 2) int64."""
    for first in range(lo, hi, LANES):
        count = min(LANES, hi - first)
        lay_out(x, first, count, tile)
        load_weights(weights, first, count, weight)
        for a in range(0, centres.shape[0], 2):
            measure(tile, centres[a], centres[a + 1], lanes[0], lanes[1])
            for c in range(a, min(a + 2, k)):
                distances = lanes[c - a]
                for r in range(count):
                    distances[r] = min(closest[first + r], distances[r])
                add_distances(distances, count, weight, coarse, fine, totals[c])


def locate(
    weights: Array, closest: Array, coarse: float, fine: float, bits: int, thresholds: Array, found: Array
) -> None:
    """Find where running sums of `closest` first exceed the thresholds.

    thresholds: (m, 2) int64 in ascending order, the second from 0 to 2**bits - 1 -> found: (m,) int64
    """
    high, low, at, weighted = int64(0), int64(0), 0, weights.shape[0] > 0
    for i in range(closest.shape[0]):
        distance = float64(closest[i])
        if weighted:
            distance *= weights[i]
        one, two = limbs(distance, coarse, fine)
        low += two
        carry = low >> bits
        high += one + carry
        low -= carry << bits
        while high > thresholds[at, 0] or (high == thresholds[at, 0] and low > thresholds[at, 1]):
            found[at] = i
            at += 1
            if at == thresholds.shape[0]:
                return


def extent(flat: Array, lo: int, hi: int, low: Array, high: Array, check: Array) -> None:
    """flat: (n * d,); elements [lo:hi], both multiples of d -> low, high, check: (a multiple of d,).

    All of flat's dtype; `check` becomes NaN where an element is not finite.
    """
    for start in range(lo, hi, low.shape[0]):
        part = flat[start : min(start + low.shape[0], hi)]
        for i in range(part.shape[0]):
            value = part[i]
            low[i] = value if value < low[i] else low[i]
            high[i] = value if value > high[i] else high[i]
            check[i] += value - value


def moments(flat: Array, lo: int, hi: int, centre: Array, scale: Array, square_scale: Array, sums: Array) -> None:
    """Sums of the distances from `centre` and of their squares. -> sums: (2, a multiple of d) int64.

    flat, lo, hi: as in extent; the others: (a multiple of d,) float64.
    """
    totals, squares = sums[0], sums[1]
    for start in range(lo, hi, totals.shape[0]):
        part = flat[start : min(start + totals.shape[0], hi)]
        for i in range(part.shape[0]):
            distance = float64(part[i]) - centre[i]
            totals[i] += whole(distance * scale[i])
            squares[i] += whole((distance * distance) * square_scale[i])
