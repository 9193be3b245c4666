"""The memory bandwidth of this machine, measured."""

from __future__ import annotations

import functools
from pathlib import Path
from time import perf_counter

import numpy as np

MOST = 128 << 20  # bytes of each of the two buffers
TIMES_CACHE = 4  # a buffer is so many times the last cache, so that little of it is found there again
REPEATS = 7
PIECE = 1 << 20  # bytes handed to a thread at least


@functools.cache
def measure() -> float:
    """Return the bytes per second that a large copy moves on all threads, read and written ones counted both.

    The best of seven copies between two buffers that were touched before, each four times as large as the last
    cache but at most 128 MiB. Measured once in a process; takes about 0.2 s. A copy as in STREAM (McCalpin 1995).
    """
    from .cpu import parallel_for

    size = max(16 << 20, min(MOST, TIMES_CACHE * last_cache_bytes()))
    source, target = np.ones(size, np.uint8), np.ones(size, np.uint8)

    def copy(lo: int, hi: int) -> None:
        np.copyto(target[lo:hi], source[lo:hi])

    best = float("inf")
    for _ in range(REPEATS):
        started = perf_counter()
        parallel_for(copy, size, chunk=PIECE)
        best = min(best, perf_counter() - started)
    return 2 * size / best


def last_cache_bytes() -> int:
    """Return the size of the last level of cache as Linux tells it, 32 MiB where it is not known."""
    sizes = []
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        try:
            sizes.append(int(path.read_text().strip().removesuffix("K")) << 10)
        except (OSError, ValueError):
            continue
    return max(sizes, default=32 << 20)
