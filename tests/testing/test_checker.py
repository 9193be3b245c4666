"""Every planted bug is found, with its line; what `check` says of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from gpucompute.errors import DTypeError, LaunchError, ShapeError
from gpucompute.testing import Report, check, emulate
from gpucompute.testing.emulator.compiler import find_compiler

SOURCE = Path(__file__).with_name("kernels") / "bugs.cu"
LINES = {
    match[1]: number
    for number, line in enumerate(SOURCE.read_text().splitlines(), 1)
    if (match := re.search(r"// BUG (\w+)", line))
}

i4, f4 = np.int32, np.float32
counting = np.arange(64, dtype=i4)
numbers = np.arange(64, dtype=f4)


class Bug(NamedTuple):
    """A launch, and the kind and the words that the report must have for the kernel's line."""

    name: str
    grid: int
    block: int
    args: tuple[Any, ...]
    kind: str
    words: str
    shared_mem: int = 0


BUGS = [
    Bug("oob_global", 2, 32, (np.zeros(63, f4), i4(63)), "out of bounds", "write of 4 bytes: element 63 of x"),
    Bug("oob_before", 1, 64, (counting, np.zeros(64, i4)), "out of bounds", "read of 4 bytes: element -1 of x"),
    Bug("oob_shared", 1, 64, (numbers,), "out of bounds", "element 64 of s, which has 64"),
    Bug("oob_tile", 1, 64, (numbers,), "out of bounds", "element 64 of tile, which has 64"),
    Bug("oob_dynamic", 1, 64, (numbers,), "out of bounds", "element 64 of s, which has 64", 256),
    Bug("null_pointer", 1, 32, (None, numbers), "out of bounds", "belongs to nothing"),
    Bug("oob_atomic", 1, 64, (np.zeros(8, i4), counting % 9), "out of bounds", "element 8 of count, which has 8"),
    Bug("oob_variable", 1, 32, (numbers,), "out of bounds", "element 48 of scratch, which has 48"),
    Bug("oob_constant", 1, 32, (numbers,), "out of bounds", "read of 8 bytes: element 3 of weight, which has 3"),
    Bug("oob_variable_far", 1, 1, (numbers, i4(-8000)), "out of bounds", "element -8000 of scratch, which has 48"),
    Bug("oob_local", 1, 1, (numbers, i4(12)), "out of bounds", "a local array of the function that ends here was"),
    Bug("misaligned", 1, 1, (numbers, np.zeros(4, f4)), "misaligned", "read of 16 bytes at x, byte 4"),
    Bug("misaligned_parts", 1, 1, (numbers, np.zeros(1, f4)), "misaligned", "read of 8 bytes at x, byte 4"),
    Bug("race_forward", 1, 64, (numbers,), "race", "write here, read by thread (31, 0, 0)"),
    Bug("race_previous", 1, 64, (numbers,), "race", "read here, write by thread (0, 0, 0)"),
    Bug("race_reuse", 1, 64, (numbers, np.zeros(64, f4)), "race", "data race on shared s"),
    Bug("race_global", 2, 64, (np.zeros(4, i4), counting % 4, i4(64)), "race", "data race on global counts"),
    Bug("race_blocks", 2, 32, (np.zeros(1, i4),), "race", "of another block at line"),
    Bug("race_bytes", 1, 64, (np.zeros(64, np.uint8),), "race", "data race on global x, element"),
    Bug("race_warp", 1, 32, (numbers, np.zeros(1, f4)), "race", "__syncwarp(), a barrier"),
    Bug("race_plain_and_atomic", 1, 32, (np.zeros(1, i4), counting), "race", "atomic here, read by thread (0, 0, 0)"),
    Bug("race_read_and_swap", 1, 32, (np.zeros(1, i4), counting), "race", "read here, atomic by thread (0, 0, 0)"),
    Bug("race_no_fence", 3, 32, (np.zeros(3, f4), np.zeros(1, f4), np.uint32(3)), "race", "blocks are not ordered"),
    Bug("race_variable", 1, 32, (counting,), "race", "data race on global counter, element 0"),
    Bug("uninitialised", 1, 64, (numbers,), "uninitialised", "shared s, element 63, is read before"),
    Bug("uninitialised_dynamic", 1, 32, (np.zeros(8, i4),), "uninitialised", "shared bins, element 0", 32),
    Bug("divergent", 1, 64, (numbers,), "barrier", "divergent barrier"),
    Bug(
        "divergent_late",
        1,
        64,
        (numbers,),
        "barrier",
        "divergent barrier: it waits here, and thread (31, 0, 0) went past",
    ),
    Bug("two_barriers", 1, 64, (numbers,), "barrier", "mismatched barriers"),
    Bug("unequal_loops", 1, 64, (numbers, np.zeros(64, f4), i4(40)), "barrier", "divergent barrier"),
    Bug("different_votes", 1, 64, (counting,), "barrier", "mismatched barriers"),
    Bug("shuffle_partial", 1, 32, (numbers,), "warp", "lane 16 never comes: it waits at __syncthreads"),
    Bug("shuffle_inactive", 1, 32, (counting,), "warp", "reads lane 20, which does not take part"),
    Bug("foreign_mask", 1, 32, (counting,), "warp", "lane 0 is not in its own mask 0xffff0000"),
    Bug("different_functions", 1, 32, (counting,), "warp", "different warp functions"),
    Bug("asserts", 1, 32, (counting,), "stopped", "assertion failed: x[threadIdx.x] < 10"),
    Bug("inline_ptx", 1, 1, (counting,), "stopped", "inline PTX cannot be emulated; guard it with"),
    Bug("divides", 1, 32, (counting, i4(0)), "arithmetic", "divided by zero"),
]


def run(bug: Bug) -> Report:
    return check(SOURCE, bug.name, bug.grid, bug.block, bug.args, shared_mem=bug.shared_mem)


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_found_with_its_line(bug: Bug) -> None:
    if find_compiler().is_clang and bug.kind == "misaligned":
        pytest.skip("clang copies structs by memcpy, and does not tell their alignment")
    if find_compiler().is_clang and bug.name == "oob_local":
        pytest.skip("clang gives the end of a function, where the canary is looked at, no line")
    before = [np.copy(a) for a in bug.args]
    report = run(bug)
    found = [e for e in report.errors if e.kind == bug.kind]
    assert found, report
    assert (found[0].file, found[0].line) == ("bugs.cu", LINES[bug.name])
    assert bug.words in found[0].message
    assert found[0].thread is not None
    for old, new in zip(before, bug.args, strict=True):
        np.testing.assert_array_equal(old, new)  # the caller's arrays are as they were


def test_every_bug_of_the_file_is_looked_for() -> None:
    kernels = set(re.findall(r"__global__ void (\w+)", SOURCE.read_text()))
    assert kernels == {bug.name for bug in BUGS} | {"early_exit", "shuffle_missing", "spins"}


def test_order_of_threads_shows_without_the_checker_seeing_why() -> None:
    # the lanes 4 to 7 take values of lanes that are not there: what they are is chance
    report = check(SOURCE, "shuffle_missing", 1, 32, (counting,))
    (error,) = report.errors
    assert error.kind == "order"
    assert "x, element 4, is" in error.message
    assert "reads lane 8, which does not take part in it" in error.message


def test_early_exit_is_a_warning() -> None:
    report = check(SOURCE, "early_exit", 1, 64, (numbers, i4(48)))
    assert not report.errors
    (warning,) = report.warnings
    assert (warning.kind, warning.line) == ("early exit", LINES["early_exit"])


def test_threads_that_spin_for_ever_are_stopped() -> None:
    with pytest.raises(LaunchError, match="spins: threads spin, waiting for a value"):
        emulate(SOURCE, "spins")(1, 32, (np.zeros(1, i4),))


def test_faults_are_errors_of_the_launch() -> None:
    with pytest.raises(LaunchError, match=r"divides: an integer was divided by zero \[block \(0, 0, 0\), thread"):
        emulate(SOURCE, "divides")(1, 32, (counting.copy(), i4(0)))
    with pytest.raises(LaunchError, match="null_pointer: illegal or misaligned address"):
        emulate(SOURCE, "null_pointer")(1, 32, (None, numbers.copy()))
    y = numbers.copy()
    emulate(SOURCE, "oob_global")(1, 32, (y, i4(32)))  # and the process goes on
    assert y[0] == 1


def test_writes_of_the_same_value_are_a_warning() -> None:
    code = """extern "C" __global__ void mark(int *any, const int *x) {
      if (x[threadIdx.x] > 3) any[0] = 1;
    }"""
    report = check(code, "mark", 1, 64, (np.zeros(1, i4), counting))
    assert not report.errors
    assert [(w.kind, w.line) for w in report.warnings] == [("same value", 2)]


def test_results_by_atomics_may_depend_on_the_order() -> None:
    code = """extern "C" __global__ void compact(const int *x, int *out, int *count) {
      if (x[threadIdx.x] % 3) out[atomicAdd(count, 1)] = x[threadIdx.x];
    }
    extern "C" __global__ void sum(const float *x, float *out) { atomicAdd(out, x[threadIdx.x]); }"""
    report = check(code, "compact", 1, 64, (counting, np.zeros(64, i4), np.zeros(1, i4)))
    assert not report.errors
    assert [w.kind for w in report.warnings] == ["order"]
    assert "the kernel uses atomic functions, so this may be meant" in str(report)
    tenths = (numbers / 10).astype(f4)
    assert str(check(code, "sum", 1, 64, (tenths, np.zeros(1, f4)))) == "sum: no errors, no warnings"


def test_arrays_given_twice_stay_one() -> None:
    code = """__global__ void shift(const int *x, int *out) { out[threadIdx.x] = x[(threadIdx.x + 1) % 64]; }"""
    assert not check(code, "shift", 1, 64, (counting, counting.copy())).errors
    assert [e.kind for e in check(code, "shift", 1, 64, (counting, counting)).errors][:1] == ["race"]


def test_kernels_find_variables_as_they_were_loaded() -> None:
    code = """__device__ int calls = 5, seen[2];
    __constant__ const int step[] = {2, 3};
    __global__ void count(int *out) {
      assert(step[1] == 3);
      if (threadIdx.x == 0) out[0] = calls += step[0], out[1] = seen[1] += step[1];
    }"""
    out = np.zeros(2, i4)
    assert str(check(code, "count", 1, 32, (out,))) == "count: no errors, no warnings"  # in each of the orders
    emulate(code, "count")(1, 32, (out,))
    assert out.tolist() == [7, 3]


def test_variables_that_need_no_room() -> None:
    code = """extern __device__ float late[4];
    __device__ float late[4];
    __device__ const int EXTENT = 4;
    __device__ constexpr float FACTORS[EXTENT] = {1, 2, 3, 4};
    __device__ struct { int n; } nameless;
    struct Members { static constexpr int two = 2; __device__ int three() const { return 3; } };
    template <class T> __device__ T of_any_type;
    namespace { struct Hidden { float v; }; __device__ Hidden hidden[2]; }
    __device__ float *pointer = late, (*function)(float) = nullptr;
    __global__ void k(float *out) {
      static const int table[EXTENT] = {5, 6, 7, 8};
      int i = threadIdx.x;
      late[i] = table[i], hidden[i % 2].v = 1;
      __syncthreads();
      out[i] = late[i] + FACTORS[i] + nameless.n + of_any_type<float> + pointer[0] + Members().three() + Members::two;
    }"""
    out = np.zeros(4, f4)
    emulate(code, "k")(1, 4, (out,))
    assert out.tolist() == [5 + i + 1 + i + 5 + 3 + 2 for i in range(4)]
    report = check(code, "k", 1, 4, (out,))
    assert not report.errors, report


def test_arrays_that_are_reached_through_addresses() -> None:
    code = """struct Rows { int n; float *first; };
    __global__ void k(float **rows, Rows own, int n) {
      if (threadIdx.x < n) rows[blockIdx.x][threadIdx.x] = own.first[threadIdx.x];
    }"""
    rows, own = np.zeros((2, 40), f4), np.arange(40, dtype=f4)
    addresses = rows.ctypes.data + np.arange(2, dtype=np.uint64) * np.uint64(rows.strides[0])
    struct = np.array((40, own.ctypes.data), np.dtype([("n", "i4"), ("first", "u8")], align=True))[()]
    launch = code, "k", 2, 64, (addresses, struct, i4(40))
    assert "check(memory=[...]) takes the arrays that are reached" in check(*launch).errors[0].message
    assert str(check(*launch, memory=[rows, own])) == "k: no errors, no warnings"
    assert not rows.any()  # as it was
    (error,) = check(*launch[:4], (addresses, struct, i4(41)), memory=[rows, own]).errors
    assert "element 40 of memory[1], which has 40" in error.message
    assert not rows.any()
    with pytest.raises(ShapeError, match=r"memory\[1\]: expected an array that is C-contiguous"):
        check(*launch, memory=[rows, own[::2]])
    with pytest.raises(DTypeError, match=r"memory\[0\]: got a list"):
        check(*launch, memory=[[1]])  # type: ignore[list-item]


def test_an_argument_may_be_reached_through_an_address_too() -> None:
    code = """__global__ void k(int **rows, int *x) { x[threadIdx.x] = rows[0][(threadIdx.x + 1) % 32]; }"""
    addresses = np.array([counting.ctypes.data], np.uint64)
    report = check(code, "k", 1, 32, (addresses, counting), memory=[counting])
    assert "data race on global memory[0], element 1" in report.errors[0].message


def test_prints_once(capfd: pytest.CaptureFixture[str]) -> None:
    code = """__global__ void k() { printf("%d\\n", threadIdx.x); printf("and\\n"); printf("."); }"""
    assert not check(code, "k", 1, 2, ()).errors
    assert capfd.readouterr().out == "0\nand\n.1\nand\n."


def test_report_reads_well() -> None:
    report = run(BUGS[0])
    line = LINES["oob_global"]
    assert str(report) == (
        "oob_global: 1 error, no warnings\n"
        f"  error: bugs.cu:{line}: out-of-bounds write of 4 bytes: element 63 of x, which has 63 "
        "[block (1, 0, 0), thread (31, 0, 0)]"
    )
