"""What users' functions raise inside a kernel reaches the caller, and so does Ctrl-C."""

from __future__ import annotations

import gc
import math
import sys
from typing import Any

import numpy as np
import pytest

import gpucompute as gp
from gpucompute.launch import cpu

TABLE = np.arange(4.0)


def small_only(x: float) -> float:
    if x > 2:
        raise ValueError("larger than two")
    return x


def add(a: float, b: float) -> float:
    return a + b


def add_small(a: float, b: float) -> float:
    return small_only(a) + small_only(b)


checked = gp.vectorize(small_only)


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "_chosen", request.param)


@pytest.mark.parametrize("size", [3, 300_000])
@pytest.mark.parametrize(
    "function",
    [
        checked,
        gp.fuse(lambda x: checked(x) * 2 + 1),
        gp.fuse(lambda x: checked(x).sum()),
        gp.reduction(small_only, add, 0.0),
        gp.reduction(lambda x: x, add_small, 0.0),
    ],
    ids=["vectorize", "fuse", "sum", "map", "combine"],
)
def test_exceptions_reach_the_caller(function: Any, size: int, threads: None) -> None:
    x = np.zeros(size)
    fine = function(x)
    x[size * 2 // 3] = 3
    for _ in range(3):  # the later calls know how long it takes
        with pytest.raises(ValueError, match="larger than two"):
            function(x)
    x[size * 2 // 3] = 0
    np.testing.assert_array_equal(function(x), fine)


@pytest.mark.parametrize("index", [4, -5, 10**12])
def test_look_ups_are_checked(index: int) -> None:
    captured = (1.0, 2.0, 3.0, 4.0)
    for look_up in (lambda i: TABLE[i], lambda i: captured[i]):
        picked = gp.vectorize(look_up)
        with pytest.raises(IndexError):
            picked(np.array([0, index]))
    np.testing.assert_array_equal(gp.vectorize(lambda i: TABLE[i])(np.array([0, 3, -1])), [0, 3, 3])


def test_what_others_raise_goes_where_it_went(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: found.append(unraisable.exc_type))
    with pytest.raises(ValueError, match="two"):
        checked(np.array([3.0]))

    class Fails:
        def __del__(self) -> None:
            raise KeyError

    Fails()
    gc.collect()
    assert found == [KeyError]


def slow(steps: float) -> float:
    s = 0.0
    for i in range(int(steps)):
        s += math.sin(s + i)
    return s


@pytest.mark.parametrize("function", [gp.vectorize(slow), gp.reduction(slow, add, 0.0)], ids=["vectorize", "reduction"])
def test_few_elements_are_work_for_all_threads(function: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces: list[tuple[int, int]] = []
    parallel_for = cpu.parallel_for

    def watched(body: Any, n: int, *, chunk: int = 1) -> None:
        parallel_for(lambda lo, hi: (pieces.append((lo, hi)), body(lo, hi)), n, chunk=chunk)

    monkeypatch.setattr(cpu, "_chosen", 2)
    monkeypatch.setattr(cpu, "parallel_for", watched)
    function(np.ones(2000))
    pieces.clear()
    function(np.full(2000, 2e4))  # the call before was short, but the values are others
    assert len(pieces) >= 4, "an interruption would wait for half of the work"
