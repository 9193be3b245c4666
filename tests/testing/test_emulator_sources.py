"""Sources of which only a part can be emulated: what a kernel does not need, or never reaches, does no harm."""

from __future__ import annotations

import re

import numpy as np
import pytest

from gpucompute.errors import CompileError, LaunchError
from gpucompute.testing import check, emulate

i4 = np.int32

ASSEMBLY = r"""
__device__ unsigned lane_id() {
  unsigned id;
  asm volatile("mov.u32 %0, %laneid;"
               : "=r"(id));
  return id;
}
__global__ void with_it(int *x, int n) {
  float kept = 1;
  asm volatile("" : "+f"(kept) :: "memory");
  x[threadIdx.x] = 3;
  if (n) x[threadIdx.x] = lane_id();
}
__global__ void without(int *x) { x[threadIdx.x] = 5; }
"""

UNKNOWN = r"""
struct Op { int by; };
__device__ int unknown_below(int v) { return __unknown_to_all(v) + 1; }
__device__ int unknown(int v, Op op = Op{2}) { return unknown_below(v) * op.by; }
template <class T> __device__ T scaled(T v);
template <int BY> __device__ __forceinline__ int times(int v) { return BY * v; }
__device__ int doubled(int v) { return times<2>(v); }
__constant__ int offset = 1;
__global__ void bad(int *x) { x[0] = unknown(x[0]); }
__global__ void __launch_bounds__(64) good(int *x) { x[threadIdx.x] = doubled(7) + offset; }
namespace inner {
template <int N> __global__ void any(int *x) { x[threadIdx.x] = doubled(N); }
}
template <int N> __global__ void bad_too(int *x) { x[threadIdx.x] = __unknown_too(x); }
"""


def test_inline_ptx_is_an_error_where_a_thread_comes_to_it() -> None:
    x = np.zeros(32, i4)
    emulate(ASSEMBLY, "without")(1, 32, (x,))
    assert set(x.tolist()) == {5}
    emulate(ASSEMBLY, "with_it")(1, 32, (x, i4(0)))
    assert set(x.tolist()) == {3}
    with pytest.raises(LaunchError, match=r"^with_it: kernel.cu:4: inline PTX cannot be emulated; guard it with"):
        emulate(ASSEMBLY, "with_it")(1, 32, (x, i4(1)))
    assert not check(ASSEMBLY, "with_it", 1, 32, (x, i4(0))).errors
    (error,) = check(ASSEMBLY, "with_it", 1, 32, (x, i4(1))).errors
    assert (error.kind, error.line) == ("stopped", 4)


def test_kernels_are_compiled_without_what_they_do_not_need() -> None:
    x = np.zeros(32, i4)
    emulate(UNKNOWN, "good")(1, 32, (x,))
    assert set(x.tolist()) == {15}
    emulate(UNKNOWN, "inner::any<4>")(1, 32, (x,))
    assert set(x.tolist()) == {8}
    assert not check(UNKNOWN, "good", 1, 32, (x,)).errors


@pytest.mark.parametrize(
    ("name", "line", "unknown"), [("bad", 3, "__unknown_to_all"), ("bad_too<3>", 14, "__unknown_too")]
)
def test_what_a_kernel_needs_and_nobody_knows_is_named(name: str, line: int, unknown: str) -> None:
    with pytest.raises(CompileError) as caught:
        emulate(UNKNOWN, name)
    errors = re.findall(r"kernel\.cu:(\d+):\d+: error: .*?(__\w+)", str(caught.value))
    assert errors[0] == (str(line), unknown)
    assert {word for _, word in errors} == {unknown}  # not what others need


def test_a_kernel_that_is_not_there_is_named() -> None:
    with pytest.raises(CompileError, match="no kernel is named 'gone'; there are: bad, good"):
        emulate(UNKNOWN, "gone")
