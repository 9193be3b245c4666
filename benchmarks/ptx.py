"""Threads per second of the PTX interpreter.

    python benchmarks/ptx.py          # the stored kernels of the tests, best of five runs

For each kernel: a large grid, and a small launch with its time for one call, which is what generated programs cost.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from gpucompute.testing.ptx import instructions, numba_arguments, run_ptx

SAMPLES = Path(__file__).parents[1] / "tests" / "testing" / "ptx_samples"
RANDOM = np.random.default_rng(0)

Launch = tuple[str, str, int, int, list[Any], int]  # text, kernel, grid, block, arguments, shared memory


def launches(n: int) -> list[Launch]:
    """Every kernel on n elements."""
    blocks = -(-n // 256)
    count = np.int32(n)
    x, y = RANDOM.random(n, dtype=np.float32), np.zeros(n, np.float32)
    whole = RANDOM.integers(-9, 9, blocks * 256).astype(np.int32)
    double = RANDOM.random(n)
    return [
        ("kernels_75", "axpy", blocks, 256, [np.float32(2), x, y, count], 0),
        ("kernels_75", "smooth", blocks, 256, [x, y, count], 0),
        ("kernels_75", "scan", blocks, 256, [whole, whole.copy()], 2048),
        ("kernels_75", "histogram", blocks, 256, [x.view(np.uint8), np.zeros(256, np.uint32), count], 0),
        ("kernels_75", "compact", blocks, 256, [whole, whole.copy(), np.zeros(1, np.int32), count], 0),
        ("kernels_75", "polynomials", blocks, 256, [double, double.copy(), count], 0),
        ("numba_waves", "waves", blocks, 256, numba_arguments(double, double.copy()), 0),
        ("numba_block_sums", "block_sums", blocks, 256, numba_arguments(x, np.zeros(1, np.float32)), 0),
    ]


def best(function: Callable[[], object], repeats: int = 5) -> float:
    """Seconds of the fastest run."""
    times = []
    for _ in range(repeats):
        start = perf_counter()
        function()
        times.append(perf_counter() - start)
    return min(times)


def run(launch: Launch) -> None:
    """Execute one launch."""
    text, kernel, grid, block, args, shared = launch
    for arg in args:
        if isinstance(arg, np.ndarray) and arg.size == 1:
            arg[:] = 0  # sums and counters
    run_ptx(TEXTS[text], kernel, grid, block, args, shared_mem=shared)


TEXTS = {path.stem: path.read_text() for path in SAMPLES.glob("*.ptx")}


def main() -> int:
    """Print the table."""
    print(f"{'kernel':<12} {'instructions':>12} {'million threads/s':>18} {'1024 threads, ms':>17}")
    for large, small in zip(launches(200_000), launches(1024), strict=True):
        first = perf_counter()
        run(small)
        first = perf_counter() - first
        text, kernel, grid, block, *_ = large
        count = sum(instructions(TEXTS[text], kernel).values())
        rate = grid * block / best(lambda launch=large: run(launch)) / 1e6
        print(f"{kernel:<12} {count:>12} {rate:>18.2f} {best(lambda launch=small: run(launch), 20) * 1e3:>17.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
