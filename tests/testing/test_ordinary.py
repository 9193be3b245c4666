"""Kernels without bugs, in the styles of several libraries and books: right results, and no false alarm."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from gpucompute.testing import check, emulate

SOURCE = Path(__file__).with_name("kernels") / "ordinary.cu"
rng = np.random.default_rng(0)

i4, u4, f4 = np.int32, np.uint32, np.float32


class Case(NamedTuple):
    """A launch, and a function from its arguments, as they were, to what they must be: index of argument → array."""

    name: str
    grid: Any
    block: Any
    args: tuple[Any, ...]
    expected: Callable[..., dict[int, np.ndarray]]
    shared_mem: int = 0
    tolerance: float = 0.0


def ints(*shape: int, low: int = -50, high: int = 50) -> np.ndarray:
    return rng.integers(low, high, shape, dtype=i4)


def floats(*shape: int) -> np.ndarray:
    return rng.integers(-100, 100, shape).astype(f4) / 4  # sums of these are exact


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def smoothed(x: np.ndarray) -> np.ndarray:
    return np.convolve(x, [0.0625, 0.25, 0.375, 0.25, 0.0625], "same").astype(f4)


def heated(x: np.ndarray, out: np.ndarray) -> np.ndarray:
    out = out.copy()
    inner = x[1:-1, :-2] + x[1:-1, 2:] + x[:-2, 1:-1] + x[2:, 1:-1] - 4 * x[1:-1, 1:-1]
    out[1:-1, 1:-1] = x[1:-1, 1:-1] + f4(0.25) * inner
    return out


flags = rng.integers(0, 2, 256).astype(i4)
CASES = [
    Case("pycuda_reduce", 3, 128, (np.zeros(3, f4), floats(1000), u4(1000)),
         lambda out, x, n: {0: np.array([x[np.arange(1000) // 128 % 3 == b].sum() for b in range(3)])}),
    Case("hillis_steele_scan", 1, 64, (np.zeros(50, i4), ints(50), i4(50)), lambda out, x, n: {0: x.cumsum()}, 512),
    Case("blelloch_scan", 1, 64, (np.zeros(128, i4), ints(128), i4(128)),
         lambda out, x, n: {0: x.cumsum() - x}, 4 * (128 + 4)),
    Case("cub_scan<int, 128>", 1, 128, (np.zeros(100, i4), ints(100), i4(100)), lambda out, x, n: {0: x.cumsum()}),
    Case("cub_scan<double, 64>", 1, 64, (np.zeros(64), floats(64).astype("f8"), i4(64)),
         lambda out, x, n: {0: x.cumsum()}),
    Case("lookback_scan", 4, 64, (np.zeros(256, i4), flags, np.zeros(4, i4), np.zeros(4, i4), np.zeros(1, i4)),
         lambda out, x, *_: {0: x + np.repeat([0, *x.reshape(4, 64).sum(1).cumsum()[:-1]], 64)}),
    Case("last_block_sum", 5, 64, (floats(300), np.zeros(5, f4), np.zeros(1, f4), i4(300)),
         lambda x, *_: {2: x.sum(keepdims=True)}),
    Case("matmul<8>", (3, 2), (8, 8), (floats(10, 20), floats(20, 18), np.zeros((10, 18), f4), i4(10), i4(20), i4(18)),
         lambda a, b, *_: {2: a @ b}),
    Case("stencil", 3, 64, (floats(150), np.zeros(150, f4), i4(150)), lambda x, *_: {1: smoothed(x)}),
    Case("heat", (3, 2), (8, 4), (floats(7, 20), np.zeros((7, 20), f4), i4(7), i4(20)),
         lambda x, out, *_: {1: heated(x, out)}),
    Case("warp_histogram", 2, 128, (rng.integers(0, 256, 900, dtype=np.uint8), np.zeros(16, u4), i4(900)),
         lambda x, *_: {1: np.bincount(x // 16, minlength=16)}),
    Case("count_positive", 3, 64, (ints(150), np.zeros(1, i4), np.zeros(150, i4), i4(150)),
         lambda x, *_: {1: np.array([(x > 0).sum()]), 2: (x > 0) * 1}),
    Case("locked_sum", 6, 32, (np.zeros(1, i4), np.zeros(1, np.int64), ints(6)),
         lambda lock, total, x: {0: lock, 1: x.sum(keepdims=True)}),
    Case("softmax_rows", 2, (32, 4), (floats(7, 50), np.zeros((7, 50), f4), i4(7), i4(50)),
         lambda x, *_: {1: softmax(x)}, tolerance=1e-6),
    Case("tiles_of_eight", 1, 64, (ints(64), np.zeros(8, i4), np.zeros(64, i4)),
         lambda x, *_: {1: x.reshape(8, 8).sum(1), 2: x.reshape(8, 8).cumsum(1).ravel()}),
    Case("half_warp_sum", 1, 32, (floats(8), np.zeros(1, f4)), lambda x, out: {1: x.sum(keepdims=True)}),
    Case("warp_transpose", 1, (32, 2), (ints(2, 32, 32), np.zeros((2, 32, 32), i4)),
         lambda x, out: {1: x.transpose(0, 2, 1)}),
    Case("bitonic_sort", 1, 128, (ints(128),), lambda x: {0: np.sort(x)}),
    Case("half2_axpy", 2, 32, (floats(100).astype("f2"), floats(100).astype("f2"), f4(0.5), i4(50)),
         lambda y, x, a, n: {0: (x.astype("f8") * 0.5 + y).astype("f2")}),
    Case("grey", 2, 64, (rng.integers(0, 256, (100, 4), dtype=np.uint8), np.zeros(100, np.uint8), i4(100)),
         lambda p, *_: {1: (p[:, :3].astype("i8") @ [19595, 38470, 7471] + 32768) >> 16}),
    Case("guide_loops", 3, 64, (floats(150), np.zeros(1), np.full(3, -999, f4), np.zeros(4, np.uint8), i4(150)),
         lambda x, *_: {1: x.sum(keepdims=True), 2: np.repeat(x.max(), 3), 3: np.array([114, 114, 111, 111])}),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_results(case: Case) -> None:
    args = [a.copy() for a in case.args]
    emulate(SOURCE, case.name)(case.grid, case.block, args, shared_mem=case.shared_mem)
    for index, expected in case.expected(*case.args).items():
        np.testing.assert_allclose(args[index], expected, rtol=case.tolerance, atol=0)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_no_false_alarm(case: Case) -> None:
    report = check(SOURCE, case.name, case.grid, case.block, case.args, shared_mem=case.shared_mem)
    assert str(report) == f"{case.name}: no errors, no warnings"
