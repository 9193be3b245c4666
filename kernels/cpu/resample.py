"""Separable resampling of images: a horizontal and a vertical pass of weighted sums.

The meaning is that of Pillow's ``Resample.c``: bytes are weighted with 22-bit fixed-point coefficients, rounded,
clipped and stored as bytes between the two passes; float32 is weighted in float64 and stored as float32 between
them. The wrapper makes the tables, owns shapes and threads, and asks for no row or column that is not needed. The
twin is ``kernels/cuda/resample.cu``.

How the byte passes reach the vector units through plain loops:

- A pixel of C <= 4 channels is read as one word. A block of `LANES` rows is laid out column by column in `block`,
  so that the taps of an output pixel are `LANES` neighbouring words, weighted with the same coefficient.
- The number of taps and of channels must be constants, else the accumulators live in memory. Both are handed
  around as tuples of that length, whose length is part of their type. Filters of more than 6 taps run in steps
  of `STEP` taps, with their sums in memory between the steps.
- The sums stay in int32, as Pillow's do: 255 times the largest sum of |coefficients| is below 2**31.
"""

from __future__ import annotations

from typing import Any

from numba.extending import register_jitable
from numpy import float32, float64, int32, uint8, uint32

from .transpose import SIDE, transpose, transpose_back
from .wide import wide_loops

LANES = SIDE
STEP = 4
BITS = 22
HALF = 1 << (BITS - 1)

Array = Any


@register_jitable
def weigh_columns(block: Array, first: int, lo: Array, k: Array, packed: Array, taps: Any, channels: Any) -> None:
    # block: (columns, LANES) uint32, column 0 is `first`; lo: (w,), k: (w, len(taps)) int32 -> packed: (w, LANES)
    wide_loops()
    for x in range(lo.shape[0]):
        column = lo[x] - first
        for r in range(LANES):
            word = uint32(0)
            for c in range(len(channels)):
                total = int32(HALF)
                for j in range(len(taps)):
                    value = int32((block[column + j, r] >> uint32(8 * c)) & uint32(255))
                    total = int32(total + value * k[x, j])
                word |= uint32(min(max(total >> BITS, 0), 255)) << uint32(8 * c)
            packed[x, r] = word


@register_jitable
def weigh_many_columns(
    block: Array, first: int, lo: Array, k: Array, packed: Array, sums: Array, channels: Any
) -> None:
    # as weigh_columns for k: (w, a multiple of STEP); sums: (C, LANES) int32, scratch
    wide_loops()
    for x in range(lo.shape[0]):
        for c in range(len(channels)):
            for r in range(LANES):
                sums[c, r] = HALF
        for step in range(0, k.shape[1], STEP):
            column = lo[x] - first + step
            for r in range(LANES):
                for c in range(len(channels)):
                    total = sums[c, r]
                    for j in range(STEP):
                        value = int32((block[column + j, r] >> uint32(8 * c)) & uint32(255))
                        total = int32(total + value * k[x, step + j])
                    sums[c, r] = total
        for r in range(LANES):
            word = uint32(0)
            for c in range(len(channels)):
                word |= uint32(min(max(sums[c, r] >> BITS, 0), 255)) << uint32(8 * c)
            packed[x, r] = word


def horizontal(
    image: Array, words: Array, first_row: int, y0: int, y1: int, x0: int, x1: int, lo: Array, k: Array,
    block: Array, packed: Array, sums: Array, rows: Array, channels: Any,
) -> None:  # fmt: skip
    """Weigh the columns of rows y0 to y1.

    image: (H, W, C) uint8; words: (H, W or W - 1), the pixels as words of at least C bytes (the last column's may
    reach beyond the image); [x0, x1): the columns that lo: (w,), k: (w, taps) int32 use
    -> rows: (h, w) words of C bytes, row 0 is `first_row`.
    block: (x1 - x0 + taps, LANES), packed: (w, LANES) uint32, sums: (C, LANES) int32: scratch.
    Coefficients that pad a row of k are 0, and what they weigh may be anything.
    """
    readable = min(x1, words.shape[1])
    taps = k.shape[1]
    for top in range(y0, y1, LANES):
        height = min(LANES, y1 - top)
        # slices, because an index that may be negative costs a comparison at every use
        source = words[top : top + height, x0:readable]
        # read each row's lines once in order first, which the prefetcher follows better than 16 rows at a time:
        # 231 instead of 255 us for a 512 x 384 photograph that is not in the cache
        touched = uint32(0)
        for r in range(height):
            for x in range(0, source.shape[1], LANES):
                touched ^= source[r, x]
        sums[0, 0] = int32(touched)  # or the compiler leaves it out
        squares = source.shape[1] // SIDE if height == LANES else 0
        for i in range(squares):
            place = source.ctypes.data + i * SIDE * source.strides[1]
            transpose(place, source.strides[0], block.ctypes.data + i * SIDE * LANES * 4, channels)
        for x in range(squares * SIDE, source.shape[1]):
            for r in range(height):
                block[x, r] = source[r, x]
        for x in range(readable, x1):
            for r in range(height):
                word = uint32(0)
                for c in range(len(channels)):
                    word |= uint32(image[top + r, x, c]) << uint32(8 * c)
                block[x - x0, r] = word
        if taps == 1:
            weigh_columns(block, x0, lo, k, packed, (0,), channels)
        elif taps == 2:
            weigh_columns(block, x0, lo, k, packed, (0, 0), channels)
        elif taps == 3:
            weigh_columns(block, x0, lo, k, packed, (0, 0, 0), channels)
        elif taps == 4:
            weigh_columns(block, x0, lo, k, packed, (0, 0, 0, 0), channels)
        elif taps == 5:
            weigh_columns(block, x0, lo, k, packed, (0, 0, 0, 0, 0), channels)
        elif taps == 6:
            weigh_columns(block, x0, lo, k, packed, (0, 0, 0, 0, 0, 0), channels)
        else:
            weigh_many_columns(block, x0, lo, k, packed, sums, channels)
        target = rows[top - first_row : top - first_row + height]
        squares = lo.shape[0] // SIDE if height == LANES else 0
        for i in range(squares):
            place = target.ctypes.data + i * SIDE * target.strides[1]
            transpose_back(packed.ctypes.data + i * SIDE * LANES * 4, place, target.strides[0], channels)
        for r in range(height):
            for x in range(squares * SIDE, lo.shape[0]):
                target[r, x] = packed[x, r]


@register_jitable
def weigh_rows(rows: Array, first: int, k: Array, line: Array, taps: Any) -> None:
    # rows: (h, >= n) uint8; k: (len(taps),) int32 -> line: (n,) uint8
    wide_loops()
    for i in range(line.shape[0]):
        total = int32(HALF)
        for j in range(len(taps)):
            total = int32(total + int32(rows[first + j, i]) * k[j])
        line[i] = uint8(min(max(total >> BITS, 0), 255))


@register_jitable
def weigh_many_rows(rows: Array, first: int, k: Array, line: Array, sums: Array) -> None:
    # as weigh_rows for k: (a multiple of STEP,); sums: (n,) int32, scratch
    wide_loops()
    for i in range(line.shape[0]):
        sums[i] = HALF
    for step in range(0, k.shape[0], STEP):
        for i in range(line.shape[0]):
            total = sums[i]
            for j in range(STEP):
                total = int32(total + int32(rows[first + step + j, i]) * k[step + j])
            sums[i] = total
    for i in range(line.shape[0]):
        line[i] = uint8(min(max(sums[i] >> BITS, 0), 255))


def vertical(
    rows: Array, first_row: int, y0: int, y1: int, lo: Array, k: Array, line: Array, sums: Array,
    table: Array, out: Array, top: int, left: int, channels: Any,
) -> None:  # fmt: skip
    """Weigh the rows that make output rows y0 to y1, look their bytes up in `table` and store them.

    rows: (h, >= w * C) uint8, row 0 is `first_row`; lo: (n,), k: (n, taps) int32; table: (C, 256) T or None
    -> out: (H, W * C), or (C, H, W) if it has three dimensions, T or uint8; output row 0 lies at (top, left).
    line: (w * C,) uint8, sums: (w * C,) int32: scratch.
    """
    taps = k.shape[1]
    width = line.shape[0] // len(channels)
    for y in range(y0, y1):
        first = lo[y] - first_row
        if taps == 1:
            weigh_rows(rows, first, k[y], line, (0,))
        elif taps == 2:
            weigh_rows(rows, first, k[y], line, (0, 0))
        elif taps == 3:
            weigh_rows(rows, first, k[y], line, (0, 0, 0))
        elif taps == 4:
            weigh_rows(rows, first, k[y], line, (0, 0, 0, 0))
        elif taps == 5:
            weigh_rows(rows, first, k[y], line, (0, 0, 0, 0, 0))
        elif taps == 6:
            weigh_rows(rows, first, k[y], line, (0, 0, 0, 0, 0, 0))
        else:
            weigh_many_rows(rows, first, k[y], line, sums)
        if out.ndim == 3:
            for c in range(len(channels)):
                plane = out[c, top + y, left : left + width]
                for x in range(width):
                    plane[x] = table[c, line[x * len(channels) + c]]
        else:
            pixels = out[top + y, left * len(channels) : (left + width) * len(channels)]
            if table is None:
                for i in range(line.shape[0]):
                    pixels[i] = line[i]
            else:
                for x in range(width):
                    for c in range(len(channels)):
                        pixels[x * len(channels) + c] = table[c, line[x * len(channels) + c]]


def horizontal_float(
    image: Array, lo: Array, n: Array, k: Array, y0: int, y1: int, first_row: int, rows: Array
) -> None:
    """image: (H, W, C) float32; lo, n: (w,) int64, k: (w, taps) float64 -> rows[y - first_row]: (h, w, C) float32.

    The taps are added in order, from 0, in float64: the order is part of the result.
    """
    for y in range(y0, y1):
        for x in range(lo.shape[0]):
            for c in range(image.shape[2]):
                total = float64(0)
                for j in range(n[x]):
                    total += image[y, lo[x] + j, c] * k[x, j]
                rows[y - first_row, x, c] = float32(total)


def vertical_float(
    rows: Array, first_row: int, lo: Array, n: Array, k: Array, y0: int, y1: int, sums: Array, out: Array
) -> None:
    """rows: (h, m) float32, row 0 is `first_row`; lo, n: (N,) int64, k: (N, taps) float64 -> out[y0:y1]: (N, m).

    sums: (m,) float64, scratch. The taps are added in order, from 0, in float64.
    """
    for y in range(y0, y1):
        for i in range(sums.shape[0]):
            sums[i] = 0
        for j in range(n[y]):
            row = rows[lo[y] - first_row + j]
            for i in range(sums.shape[0]):
                sums[i] += row[i] * k[y, j]
        for i in range(sums.shape[0]):
            out[y, i] = float32(sums[i])
