"""Runs ``kernels/cpu/statistics.py`` on all threads."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..kernels.cpu import statistics as kernels
from ..launch import cpu

Array = NDArray[Any]
Results = tuple[Array, Array, Array, Array]

LANES = 256  # sums of interleaved bytes that are kept apart, for the vector units
COLUMNS = 64  # channels that are folded side by side: tiles of 64 kB
AT_ONCE = 1 << 16  # bytes that a thread takes at once


def statistics(x: Array, over: int) -> Results:
    """x: (outer, channels, inner) uint8 or float32, in C order -> mean, m2 / over, small, large: (channels,)."""
    return _bytes(x, over) if x.dtype == np.uint8 else _floats(x, over)


def _bytes(x: Array, over: int) -> Results:
    channels = x.shape[1]
    x = _read_only(x if channels > 1 else x.reshape(-1, 1, 1))  # one after the other: any number of threads
    flat = x.reshape(-1)
    planes, pixels = cpu.compile(kernels.bytes_of_planes), cpu.compile(kernels.bytes_of_pixels)
    width = channels * max(1, LANES // channels)
    parts: list[Array] = []

    def body(lo: int, hi: int) -> None:
        sums = np.tile(np.array([0, 0, 255, 0]), (channels, 1))
        if x.shape[2] == 1:
            pixels(flat, lo, hi, np.empty((4, width), np.int32), sums)
        else:
            planes(x, lo, hi, sums)
        parts.append(sums)  # in any order: all are exact

    cpu.parallel_for(body, len(x), chunk=max(1, AT_ONCE // max(1, x[0].size)))
    every = np.stack(parts)
    sums = np.stack([every[..., 0].sum(0), every[..., 1].sum(0), every[..., 2].min(0), every[..., 3].max(0)], axis=1)
    mean, variance, small, large = (np.empty(channels, t) for t in (np.float64, np.float64, np.uint8, np.uint8))
    cpu.compile(kernels.finish_bytes)(sums, x.shape[0] * x.shape[2], over, mean, variance, small, large)
    return mean, variance, small, large


def _floats(x: Array, over: int) -> Results:
    outer, channels, inner = x.shape
    n = outer * inner
    kernel = cpu.compile(kernels.strips)
    x = _read_only(x)
    count = -(-n // kernels.STRIP)
    nodes, keys = np.empty((count, 3, channels), np.float32), np.empty((count, 2, channels), np.int32)
    columns = min(COLUMNS, channels) if inner == 1 else 1

    def body(lo: int, hi: int) -> None:
        lanes, extrema = np.empty((4, 256 * columns), np.float32), np.empty((2, 256 * columns), np.int32)
        tiles, tile_keys = np.empty((32, 3, columns), np.float32), np.empty((32, 2, columns), np.int32)
        bits = lanes[0].view(np.int32)
        kernel(x, columns, lo, hi, lanes, bits, extrema, tiles, tile_keys, nodes, keys)

    cpu.parallel_for(body, count * -(-channels // columns))
    cpu.compile(kernels.join_pairs)(nodes, keys, kernels.STRIP, n)
    mean, variance = np.empty(channels, np.float32), np.empty(channels, np.float32)
    extrema = np.empty((2, channels), np.int32)
    cpu.compile(kernels.finish_floats)(nodes[0], keys[0], n, over, mean, variance, extrema)
    small, large = extrema.view(np.float32)
    return mean, variance, small, large


def _read_only(array: Array) -> Array:
    view = array.view()
    view.flags.writeable = False
    return view
