"""Statistics of each channel in one pass: mean, sum of squared distances from it (m2) over a number, extrema.

The twin of ``kernels/cuda/statistics.cu``, whose header says what x, nodes and keys are. Both follow the tree of
``gpucompute/fusion/tree.py``: tiles of 256 elements folded by halving, joined in adjacent pairs.
"""

from __future__ import annotations

from typing import Any

from numba.extending import register_jitable
from numpy import float32, float64, int32, int64, nan, uint8

TILE = 256
STRIP = 32 * TILE  # elements of a channel that one node holds
SMALL, LARGE = 0x7FFFFFFF, -0x80000000  # keys of a node without elements
NAN = 0x7FC00000  # its bits
STEPS = 1 << 14  # bytes whose squares a lane of int32 can hold the sum of

Array = Any


def bytes_of_planes(x: Array, lo: int, hi: int, sums: Array) -> None:
    """x: (outer, channels, inner) uint8 -> sums: (channels, 4) int64, with elements [lo:hi] of the outer axis.

    Sum, sum of squares, smallest, largest; `sums` comes in as (0, 0, 255, 0) or what other elements made of it.
    """
    for o in range(lo, hi):
        for c in range(x.shape[1]):
            total, squares, small, large = int64(0), int64(0), uint8(255), uint8(0)
            for i in range(x.shape[2]):
                value = x[o, c, i]
                total += int64(value)
                squares += int64(int32(value) * int32(value))
                small = min(small, value)
                large = max(large, value)
            sums[c, 0] += total
            sums[c, 1] += squares
            sums[c, 2] = min(sums[c, 2], int64(small))
            sums[c, 3] = max(sums[c, 3], int64(large))


def bytes_of_pixels(x: Array, lo: int, hi: int, lanes: Array, sums: Array) -> None:
    """As bytes_of_planes for x: (n * channels,), interleaved. lanes: (4, a multiple of channels) int32, scratch."""
    channels, width = sums.shape[0], lanes.shape[1]
    totals, squares, smalls, larges = lanes[0], lanes[1], lanes[2], lanes[3]
    stop = hi * channels
    for start in range(lo * channels, stop, width * STEPS):
        for i in range(width):
            totals[i], squares[i], smalls[i], larges[i] = 0, 0, 255, 0
        for first in range(start, min(start + width * STEPS, stop), width):
            part = x[first : min(first + width, stop)]
            for i in range(part.shape[0]):
                value = int32(part[i])
                totals[i] += value
                squares[i] += value * value
                smalls[i] = min(smalls[i], value)
                larges[i] = max(larges[i], value)
        for i in range(width):
            c = i % channels
            sums[c, 0] += totals[i]
            sums[c, 1] += squares[i]
            sums[c, 2] = min(sums[c, 2], smalls[i])
            sums[c, 3] = max(sums[c, 3], larges[i])


def finish_bytes(sums: Array, n: int, over: int, mean: Array, variance: Array, small: Array, large: Array) -> None:
    """sums: (channels, 4) int64 of n elements -> mean, variance: (channels,) float64, small, large: uint8."""
    for c in range(sums.shape[0]):
        total, squares = sums[c, 0], sums[c, 1]
        whole = total // n
        rest = total - whole * n
        distance = squares - 2 * whole * total + n * whole * whole
        mean[c] = float64(total) / float64(n)
        m2 = float64(distance) - float64(rest) * float64(rest) / float64(n)
        variance[c] = m2 / float64(over) if over else nan
        small[c] = sums[c, 2]
        large[c] = sums[c, 3]


@register_jitable
def fold(x: Array, lanes: Array, count: int, columns: int) -> None:
    # x: (>= count * columns,) float32, `count` rows; their sum by halving goes to the first row of `lanes`
    half = TILE // 2
    while half >= count and half > 1:
        half //= 2
    pairs = max(count - half, 0) * columns
    width = half * columns
    for i in range(pairs):
        lanes[i] = x[i] + x[i + width]
    for i in range(pairs, min(half, count) * columns):
        lanes[i] = x[i]
    while half > 1:
        half //= 2
        width = half * columns
        upper = lanes[width : 2 * width]
        for i in range(width):
            lanes[i] += upper[i]


@register_jitable
def key(bits: int) -> int:
    # ordered as the floats are; its own inverse
    return int32(bits ^ ((bits >> 31) & 0x7FFFFFFF))


@register_jitable
def join(nodes: Array, keys: Array, a: int, b: int, left: int, right: int) -> None:
    # nodes: (N, 3, columns) float32: mean, m2, sum; keys: (N, 2, columns) int32; Chan's update of node a by node b
    total = float64(left + right)
    share = float32(float64(right) / total)
    weight = float32(float64(left) * float64(right) / total)
    for j in range(nodes.shape[2]):
        d = nodes[b, 0, j] - nodes[a, 0, j]
        nodes[a, 0, j] += d * share
        nodes[a, 1, j] = (nodes[a, 1, j] + nodes[b, 1, j]) + (d * d) * weight
        nodes[a, 2, j] += nodes[b, 2, j]
        keys[a, 0, j] = min(keys[a, 0, j], keys[b, 0, j])
        keys[a, 1, j] = max(keys[a, 1, j], keys[b, 1, j])


def join_pairs(nodes: Array, keys: Array, span: int, n: int) -> None:
    """nodes: (N, 3, columns) float32, keys: (N, 2, columns) int32 -> joined in adjacent pairs into the first.

    Each has `span` elements, the last of them what is left of n.
    """
    count, h = nodes.shape[0], 1
    while h < count:
        for a in range(0, count - h, 2 * h):
            join(nodes, keys, a, a + h, span * h, min(span * h, n - (a + h) * span))
        h *= 2


@register_jitable
def load(x: Array, channel: int, columns: int, first: int, count: int, values: Array) -> None:
    # `count` elements from `first` on of `columns` channels, side by side
    inner = x.shape[2]
    if inner == 1:
        for i in range(count):
            row = x[first + i, channel : channel + columns, 0]
            for j in range(columns):
                values[i * columns + j] = row[j]
        return
    run, at, filled = first // inner, first % inner, 0
    while filled < count:
        part = x[run, channel, at : min(at + count - filled, inner)]
        target = values[filled : filled + part.shape[0]]
        for i in range(part.shape[0]):
            target[i] = part[i]
        filled += part.shape[0]
        run, at = run + 1, 0


@register_jitable
def spread(row: Array, columns: int, size: int) -> None:
    # repeat the first `columns` values up to `size`
    filled = columns
    while filled < size:
        target = row[filled : min(2 * filled, size)]
        for i in range(target.shape[0]):
            target[i] = row[i]
        filled += target.shape[0]


def strips(
    x: Array, side_by_side: int, lo: int, hi: int, lanes: Array, bits: Array, extrema: Array, all_tiles: Array,
    all_keys: Array, nodes: Array, keys: Array,
) -> None:  # fmt: skip
    """Fold strips, each of so many channels side by side; [lo:hi]: item i is group i % groups of strip i // groups.

    x: (outer, channels, inner) float32; only if inner is 1 may channels lie side by side
    -> nodes: (strips, 3, channels) float32, keys: (strips, 2, channels) int32
    lanes: (4, 256 * side_by_side) float32, bits: its first row as int32, extrema: (2, 256 * side_by_side) int32,
    all_tiles: (32, 3, side_by_side) float32, all_keys: (32, 2, side_by_side) int32: scratch.
    """
    n, channels = x.shape[0] * x.shape[2], x.shape[1]
    groups = (channels + side_by_side - 1) // side_by_side
    values, work, means, squares = lanes[0], lanes[1], lanes[2], lanes[3]
    smalls, larges = extrema[0], extrema[1]
    for item in range(lo, hi):
        strip, channel = item // groups, item % groups * side_by_side
        columns = min(side_by_side, channels - channel)
        tiles, tile_keys = all_tiles[:, :, :columns], all_keys[:, :, :columns]
        start = strip * STRIP
        stop = min(start + STRIP, n)
        smalls[:] = SMALL
        larges[:] = LARGE
        count = 0
        for first in range(start, stop, TILE):
            here = min(TILE, stop - first)
            size = here * columns
            load(x, channel, columns, first, here, values)
            for i in range(size):
                k = key(bits[i])
                smalls[i] = min(smalls[i], k)
                larges[i] = max(larges[i], k)
            fold(values, work, here, columns)
            for j in range(columns):
                tiles[count, 2, j] = work[j]
                means[j] = work[j] / float32(here)
                tiles[count, 0, j] = means[j]
            spread(means, columns, size)
            for i in range(size):
                d = values[i] - means[i]
                squares[i] = d * d
            fold(squares, work, here, columns)
            for j in range(columns):
                tiles[count, 1, j] = work[j]
            count += 1
        for i in range(columns, TILE * columns):
            j = i % columns
            smalls[j] = min(smalls[j], smalls[i])
            larges[j] = max(larges[j], larges[i])
        for t in range(count):
            for j in range(columns):
                tile_keys[t, 0, j] = smalls[j]
                tile_keys[t, 1, j] = larges[j]
        h = 1
        while h < count:
            for a in range(0, count - h, 2 * h):
                join(tiles, tile_keys, a, a + h, TILE * h, min(TILE * h, stop - start - (a + h) * TILE))
            h *= 2
        for j in range(columns):
            for f in range(3):
                nodes[strip, f, channel + j] = tiles[0, f, j]
            for f in range(2):
                keys[strip, f, channel + j] = tile_keys[0, f, j]


def finish_floats(nodes: Array, keys: Array, n: int, over: int, mean: Array, variance: Array, extrema: Array) -> None:
    """nodes: (3, channels) float32, keys: (2, channels) int32 -> mean, variance: (channels,) float32, extrema: bits.

    extrema: (2, channels) int32. A NaN lies beyond the infinities, which makes both extrema NaN.
    """
    for j in range(nodes.shape[1]):
        mean[j] = nodes[2, j] / float32(n)
        variance[j] = nodes[1, j] / float32(over) if over else float32(nan)
        found = keys[0, j] < key(int32(-0x800000)) or keys[1, j] > 0x7F800000
        extrema[0, j] = NAN if found else key(keys[0, j])
        extrema[1, j] = NAN if found else key(keys[1, j])
