"""Every planted bug is found, with its line; what `check` says of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from gpucompute.errors import LaunchError
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
    Bug("race_no_fence", 3, 32, (np.zeros(3, f4), np.zeros(1, f4), np.uint32(3)), "race", "blocks are not ordered"),
    Bug("race_variable", 1, 32, (counting,), "race", "data race on global"),
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
    Bug("divides", 1, 32, (counting, i4(0)), "arithmetic", "divided by zero"),
]


def run(bug: Bug) -> Report:
    return check(SOURCE, bug.name, bug.grid, bug.block, bug.args, shared_mem=bug.shared_mem)


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_found_with_its_line(bug: Bug) -> None:
    if bug.kind == "misaligned" and find_compiler().is_clang:
        pytest.skip("clang copies structs by memcpy, and does not tell their alignment")
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


def test_report_reads_well() -> None:
    report = run(BUGS[0])
    line = LINES["oob_global"]
    assert str(report) == (
        "oob_global: 1 error, no warnings\n"
        f"  error: bugs.cu:{line}: out-of-bounds write of 4 bytes: element 63 of x, which has 63 "
        "[block (1, 0, 0), thread (31, 0, 0)]"
    )
