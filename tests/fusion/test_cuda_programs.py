"""Fused functions as real PTX, executed by the interpreter, give the bits of the CPU; exact PTX contracts nothing.

Thousands of programs: ``python tests/fusion/programs.py --ptx --count 2000``.
"""

from __future__ import annotations

import math
import types
from random import Random
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba.cuda.cudadrv.nvvm", reason="numba-cuda is not installed")

import ptx_machine
from programs import make, run_ptx, same_bits
from ptx_machine import PtxMachine, compiled, program_for

import gpucompute as gp
from gpucompute.fusion.cuda import program, source, source_reduce
from gpucompute.fusion.interpret import interpret
from gpucompute.fusion.trace import trace
from gpucompute.launch import nvrtc

RANDOM = np.random.default_rng(0)


def normal(*shape: int, dtype: str = "f4") -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(dtype)


def small(*shape: int, dtype: str = "u1") -> np.ndarray:
    return RANDOM.integers(0, 256, shape).astype(dtype)


def check(function: Any, *args: Any) -> PtxMachine:
    """Compare a function's PTX with its meaning, which the CPU's kernels have; return the machine that ran it."""
    machine = PtxMachine()
    got = ptx_machine.run(function, *args, machine=machine)
    arrays, scalars = [a for a in args if hasattr(a, "dtype")], [a for a in args if not hasattr(a, "dtype")]
    expected = interpret(trace(function, args), arrays, scalars)
    pairs = zip(got if isinstance(got, tuple) else (got,), expected, strict=True)
    for number, (a, b) in enumerate(pairs):
        assert same_bits(a, b), f"result {number}: {a!r}, expected {b!r}"
    return machine


@pytest.mark.parametrize("number", range(11))
def test_generated_programs(number: int) -> None:
    made = make(Random(number))
    meaning = interpret(trace(made.function, made.args), made.arrays, made.scalars)
    # the first ones on all architectures, the others on one in turn
    for arch in range(number, number + (5 if number < 5 else 1)):
        got, machine = run_ptx(made, arch)
        for a, b in zip(got, meaning, strict=True):
            assert same_bits(a, b), machine.arch
        for ptx in set(machine.ptx):
            assert nvrtc.compile_ptx(ptx, machine.arch).startswith(b"\x7fELF")


def moments(axis: Any) -> Any:
    return lambda x: (x.mean(axis), x.std(axis), x.argmin(axis))


FORMS = {  # who holds which element depends on the number of elements and where they lie
    "rows of 3": (moments(1), normal(70, 3)),
    "rows of 50": (lambda x: x.sum(1), normal(9, 50)),
    "rows of 700": (lambda x: x.max(1), normal(9, 700)),
    "rows of 3000": (lambda x: x.prod(1), normal(2, 3000)),
    "rows of 40000": (moments(1), normal(2, 40000)),
    "columns of 3": (lambda x: x.std(0), normal(3, 70)),
    "columns of 50": (lambda x: x.min(1), normal(3, 50, 40)),
    "columns of 5000": (moments(0), normal(5000, 40)),
    "channels of bytes": (lambda x: (x.mean((0, 1, 2)), x.std((0, 1, 2))), small(2, 30, 40, 3)),
    "float16": (lambda x: x.sum(1), normal(4, 300, dtype="f2")),
    "booleans": (lambda x: ((x > 0).all(1), (x > 1).sum()), normal(4, 300)),
}


@pytest.mark.parametrize("name", FORMS)
def test_forms_of_reductions(name: str) -> None:
    check(*FORMS[name])


def softmax(x: Any) -> Any:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("shape", [(3, 1300), (2, 20000)])
def test_rows(shape: tuple[int, int]) -> None:
    machine = check(softmax, normal(*shape))
    assert len(machine.steps) == (1 if shape[1] <= source_reduce.LONGEST_ROW else 3)


@pytest.mark.parametrize("axis", [0, 1, None])
def test_reductions_are_finished_where_they_end(axis: int | None) -> None:
    x = normal(6000, 40) if axis == 0 else normal(3, 20000)
    machine = check(lambda x, scale: (x.mean(axis) * scale, x.std(axis), x.max(axis)), x, 2.5)
    assert len(machine.steps) == 1
    assert machine.steps[0].kernel.counters == {0: 2, 1: 3, None: 1}[axis]
    stored = check(lambda x: (x.sum(axis), x.sum(axis) > 0), x)
    assert len(stored.steps) == 1


def test_equal_reductions_of_different_arrays() -> None:
    for shape in ((3, 70), (2, 700)):
        check(lambda x, y: (x.sum(1), y.sum(1), (x * y).std(1), y.mean(1)), normal(*shape), normal(*shape))


@pytest.mark.parametrize("axis", [0, 1])
def test_blocks_join_the_states_of_blocks_level_by_level(axis: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_reduce, "COLUMN_TILES", 2)
    monkeypatch.setattr(source_reduce, "ROW_TILES", 8)
    x = normal(5000, 40) if axis == 0 else normal(2, 262145)
    machine = check(lambda x: (x.sum(axis), x.std(axis), x.argmax(axis)), x)
    # 10, 5, 3, 2, 1 nodes of a band of columns; 129, 17, 3, 1 of a row
    assert [step.kernel.counters for step in machine.steps] == [22 if axis == 0 else 42]


@pytest.mark.parametrize("name", ["rows of 700", "columns of 50"])
def test_indices_of_64_bits(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "NARROW_ITEMS", 0)
    machine = check(*FORMS[name])
    assert "base = int64(" in machine.steps[0].kernel.source


def test_threads_walk_on_by_the_size_of_the_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "BLOCKS", 2)
    for function, array in (
        (lambda x: x + 1, normal(50, 61)),
        (softmax, normal(40, 300)),
        (lambda x: (x.sum(0), x.std(0)), normal(300, 140)),
        (lambda x: x.sum(1), normal(5, 40000)),
    ):
        machine = check(function, array)
        assert all(step.grid[0] <= 2 for step in machine.steps)


VECTORS = {
    "bytes": (lambda x: 255 - x, [small(64)], "ld.global.v4.u32"),
    "bytes and a rest": (lambda x: 255 - x, [small(67)], "ld.global.v4.u32"),
    "halves": (lambda x, y: x * y, [normal(64, dtype="f2"), normal(64, dtype="f2")], "st.global.v4.u32"),
    "bytes to floats": (lambda x, s: x / np.float32(255) * s[:, None], [small(4, 16), normal(4)], "st.global.v4.f32"),
    "booleans": (lambda x: (x > 0, x * 2), [normal(64)], "ld.global.v4.f32"),
    "backwards": (lambda x: x[::-1] + x, [normal(32)], "st.global.v4.f32"),
    "unaligned": (lambda x: x + 1, [normal(33)[1:]], "st.global.v4.f32"),
    "positions": (lambda x: x + np.arange(32), [normal(3, 32)], "st.global.v2.f64"),
    "images": (lambda x, m: (x / np.float32(255) - m).transpose(0, 3, 1, 2), [small(2, 6, 8, 3), normal(3)], "v4.f32"),
}


@pytest.mark.parametrize("name", VECTORS)
def test_vectors(name: str) -> None:
    function, arrays, instruction = VECTORS[name]
    machine = check(function, *arrays)
    assert instruction in machine.ptx[0]


def test_other_sizes_are_the_same_kernel() -> None:
    for function, shapes in (
        (lambda x: x * 2 + 1, [(64, 8), (1000, 64), (8, 4)]),
        (softmax, [(20, 300), (7, 2000), (100, 260)]),
        (lambda x: x.sum(0), [(300, 40), (900, 100)]),
    ):
        kernels = set()
        for shape in shapes:
            program = program_for(function, [np.zeros(shape, np.float32)])[1]
            kernels.add(tuple(step.kernel.source for step in program.steps[:1]))
        assert len(kernels) == 1


def test_an_index_out_of_range() -> None:
    with pytest.raises(gp.OutOfRangeError, match=r"index -6 is out of bounds for an axis of size 5\n  at .*np.take"):
        ptx_machine.run(lambda x, i: np.take(x, i), np.arange(5.0), np.array([0, -6, 1]))


def test_more_operands_than_one_launch_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "WORDS", 20)
    arrays = [normal(3, 5).T for _ in range(8)]
    for function in (
        lambda *a: tuple(x + 1 for x in a),
        lambda *a: tuple(x.mean(0) - y.min(0) for x, y in zip(a[::2], a[1::2], strict=True)),
    ):
        machine = check(function, *arrays)
        assert len(machine.steps) > 1
        assert all(step.parameters <= 20 + 2 for step in machine.steps)


# Users' functions


def helper(a: float) -> float:
    return math.exp(a) + np.sqrt(abs(a))


@gp.vectorize
def branches(a: Any, b: Any) -> Any:
    if a > 0:
        return helper(a) * b + a
    s = 0.0
    for i in range(5):
        s += math.sin(a * i) * b
    return s + np.maximum(a, b) + math.floor(b)


@gp.vectorize
def remainders(a: Any) -> Any:
    return a % 0.3 + a // 0.7 + (a**2) % 3.0


@gp.vectorize
def collatz(n: Any) -> Any:
    steps = 0
    while n > 1:
        n = n // 2 if n % 2 == 0 else 3 * n + 1
        steps += 1
    return steps


@gp.vectorize
def power(a: Any) -> Any:
    return abs(a) ** 1.7


tools = types.ModuleType("users_tools")
exec("import math\nSCALE = 3.0\ndef grow(v): return math.exp(v) * SCALE\n", vars(tools))


@gp.vectorize
def of_a_module(a: Any) -> Any:
    return tools.grow(a) - tools.SCALE


root_mean_square = gp.reduction(
    lambda x: (x * x, 1),
    lambda a, b: (a[0] + b[0], a[1] + b[1]),
    (0.0, 0),
    finalize=lambda s: math.sqrt(s[0] / s[1]),
)
log_sum = gp.reduction(lambda x: x, lambda a, b: np.logaddexp(a, b), -np.inf)


def test_functions_of_the_user() -> None:
    check(lambda a, b: branches(a, b), normal(40), normal(40, dtype="f8"))
    check(lambda a: remainders(a), normal(40, dtype="f8") * 100)
    check(lambda n: collatz(n), np.arange(1, 60))
    check(lambda a: of_a_module(a), normal(40))


def test_reductions_of_the_user() -> None:
    check(lambda x: root_mean_square(x, axis=1), normal(3, 300, dtype="f8"))
    check(lambda x: log_sum(x), normal(300))


def test_what_has_other_bits_on_a_gpu_is_refused() -> None:
    with pytest.raises(
        gp.FusionError, match=r"precision='exact' contains 'rcp.approx'.*it calls power. Write np.power"
    ):
        ptx_machine.run(lambda a: power(a), normal(4, dtype="f8"))


def test_fast_kernels_contract() -> None:
    def function(x: Any) -> Any:
        return np.exp(x) * 3 + x

    step = program_for(function, [normal(64)])[1].steps[0]
    assert "fma" in compiled(step, fast=True) and "fma" not in compiled(step)
    x = normal(64)
    got = ptx_machine.run(function, x, machine=PtxMachine(fast=True))
    np.testing.assert_allclose(got, function(x), rtol=1e-5)
