"""Launches ``kernels/cuda/statistics.cu``: which kernels, on which grids, for an array of a given shape."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

Shape = tuple[int, ...]
Dim = tuple[int, int, int]
Args = tuple[str | int, ...]

# as in statistics.cu
CHUNK, STRIP, JOINED, WORDS = 16384, 8192, 1024, 5
BLOCK, WARPS, LANES = 256, 8, 32
PIXELS = (2, 3, 4)  # interleaved channels that have kernels of their own
FEW = 8  # interleaved float32 channels up to which lanes along the pixels are quicker than lanes along the channels
BLOCKS = 2048  # about twice what a large GPU runs at once
MOST = 65535  # blocks along y
RESULTS = ("mean", "variance", "small", "large")


class Launch(NamedTuple):
    """One launch: arguments are names of buffers, then whole numbers."""

    name: str
    grid: Dim
    block: Dim
    args: Args


class Plan(NamedTuple):
    """Launches in order, and the buffers besides "x" that they use; the results are mean, variance, small and large."""

    launches: list[Launch]
    buffers: dict[str, tuple[Shape, Any]]


def plan(dtype: np.dtype[Any], outer: int, channels: int, inner: int, over: int) -> Plan:
    """Return what makes the statistics of an (outer, channels, inner) array, the variance as m2 / over."""
    if channels == 1:
        outer, inner = 1, outer * inner
    return (_plan_bytes if dtype == np.uint8 else _plan_floats)(outer, channels, inner, over)


def _plan_bytes(outer: int, channels: int, inner: int, over: int) -> Plan:
    n = outer * inner
    if inner == 1 and channels in PIXELS:
        slices = _at_most(-(-n // CHUNK), BLOCKS)
        args: Args = ("x", "partial", n)
        first = Launch(f"statistics_u1_pixels{channels}", (1, slices, 1), (BLOCK, 1, 1), args)
    elif inner == 1 and channels > 1:
        wide = -(-channels // LANES)
        slices = _at_most(-(-n // (64 * WARPS)), BLOCKS // wide)
        args = ("x", "partial", n, channels)
        first = Launch("statistics_u1_columns", (wide, slices, 1), (LANES, WARPS, 1), args)
    else:
        slices = _at_most(outer * -(-inner // CHUNK), BLOCKS // channels)
        args = ("x", "partial", outer, channels, inner)
        first = Launch("statistics_u1_planar", (channels, slices, 1), (BLOCK, 1, 1), args)
    args = ("partial", *RESULTS, slices, n, over)
    last = Launch("statistics_u1_finish", (channels, 1, 1), (LANES, 1, 1), args)
    buffers = {"partial": ((channels, slices, 4), np.uint64), **_results(channels, np.float64, np.uint8)}
    return Plan([first, last], buffers)


def _plan_floats(outer: int, channels: int, inner: int, over: int) -> Plan:
    n = outer * inner
    count, span = -(-n // STRIP), STRIP
    if inner == 1 and channels > FEW:
        grid = (-(-channels // LANES), _at_most(count, MOST), 1)
        launches = [Launch("statistics_f4_columns", grid, (LANES, WARPS, 1), ("x", "nodes", n, channels))]
    else:
        grid = (_at_most(-(-count * channels // WARPS), 1 << 20), 1, 1)
        args: Args = ("x", "nodes", outer, channels, inner)
        launches = [Launch("statistics_f4_lanes", grid, (BLOCK, 1, 1), args)]
    buffers = {"nodes": ((channels, count, WORDS), np.int32), **_results(channels, np.float32, np.float32)}
    source = "nodes"
    while True:
        left = -(-count // JOINED)
        target = f"nodes{left}" if left > 1 else source  # not written to by the last one
        block = LANES if count <= LANES else JOINED
        args = (source, target, *RESULTS, count, span, n, over)
        launches.append(Launch("statistics_f4_join", (channels, left, 1), (block, 1, 1), args))
        if left == 1:
            return Plan(launches, buffers)
        buffers[target] = ((channels, left, WORDS), np.int32)
        source, count, span = target, left, span * JOINED


def _at_most(wanted: int, limit: int) -> int:
    return max(1, min(wanted, limit))


def _results(channels: int, moments: Any, extrema: Any) -> dict[str, tuple[Shape, Any]]:
    return {name: ((channels,), kind) for name, kind in zip(RESULTS, (moments, moments, extrema, extrema), strict=True)}


def statistics(x: Any, shape: tuple[int, int, int], kept: Shape, over: int) -> tuple[Any, ...]:
    """Return mean, m2 / over, small and large of the channels.

    Parameters
    ----------
    x : array on a GPU
        uint8 or float32, in C order.
    shape : (outer, channels, inner)
        What to see it as.
    kept : tuple of int
        The shape of the results.
    over : int
    """
    from ..launch import arrays, cuda

    device = arrays.device_of({"x": x})
    todo = plan(arrays.view(x).dtype, *shape, over)
    held = {
        name: cuda.empty(kept if name in RESULTS else size, dtype, device)
        for name, (size, dtype) in todo.buffers.items()
    }
    held["x"] = x
    for launch in todo.launches:
        operands = [held[arg] for arg in launch.args if isinstance(arg, str)]
        words = [arrays.view(held[arg]).address if isinstance(arg, str) else arg for arg in launch.args]
        letters = "".join("P" if isinstance(arg, str) else "q" for arg in launch.args)
        kernel = cuda.own_kernel("statistics", launch.name, letters)
        kernel.launch(launch.grid, launch.block, words, device=device, operands=operands)
    return tuple(held[name] for name in RESULTS)
