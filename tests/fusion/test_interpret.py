from __future__ import annotations

from fractions import Fraction
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from programs import make, near_numpy, programs
from tracing import agrees, meaning, verified

from gpucompute.errors import OutOfRangeError
from gpucompute.fusion import tree
from gpucompute.fusion.interpret import interpret


@settings(max_examples=60, deadline=None)
@given(programs)
def test_generated_programs_are_near_numpy(program):
    traced = verified(program.function, *program.args)
    near_numpy(program, traced.rebuild(interpret(traced, program.arrays, program.scalars)))


@pytest.mark.parametrize("first", range(0, 300, 100))
def test_programs_of_fixed_seeds(first):
    for seed in range(first, first + 100):
        program = make(Random(seed))
        traced = verified(program.function, *program.args)
        near_numpy(program, traced.rebuild(interpret(traced, program.arrays, program.scalars)))


def test_the_tree_of_a_tile():
    fold = lambda n: tree.fold_tile([str(i) for i in range(n)], lambda a, b: f"({a}{b})")  # noqa: E731
    assert [fold(n) for n in (1, 2, 3, 4, 6)] == ["0", "(01)", "((02)1)", "((02)(13))", "(((04)2)((15)3))"]


@pytest.mark.parametrize(("tiles", "shape"), [(1, "0"), (2, "(01)"), (3, "((01)2)"), (5, "(((01)(23))4)")])
def test_the_tree_of_tiles(tiles, shape):
    assert tree.join_tiles([str(i) for i in range(tiles)], lambda a, b: f"({a}{b})") == shape


@pytest.mark.parametrize("n", [1, 15, 16, 17, 255, 256, 257, 511, 513, 1300])
def test_reductions_of_all_lengths(n):
    x = np.random.default_rng(n).normal(size=(n, 2)).astype(np.float32)
    wide = x.astype(np.float64)
    total, var = meaning(lambda x: (x.sum(0), x.var(0)), x)
    assert np.all(np.abs(total - wide.sum(0)) <= 2**-23 * np.abs(wide).sum(0))
    np.testing.assert_allclose(var, wide.var(0), rtol=2e-6, atol=1e-12)
    agrees(lambda x: (x.min(0), x.argmax(0), (x > 0).sum(0), x.max()), x)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16])
def test_variance_of_small_integers_is_exact_but_for_three_roundings(dtype):
    limits = np.iinfo(dtype)
    x = np.random.default_rng(0).integers(limits.min, limits.max, 999, dtype, endpoint=True)
    values = [int(v) for v in x]
    mean = Fraction(sum(values), len(values))
    exact = sum((v - mean) ** 2 for v in values) / len(values)
    assert abs(Fraction(float(meaning(lambda x: x.var(), x))) / exact - 1) < Fraction(4, 2**53)


OPTIONS = {
    "ddof": lambda x: (x.var(0, ddof=1), x.std(ddof=2), np.var(x, axis=1, correction=1)),
    "where": lambda x: (x.sum(0, where=x > 0), x.mean(1, where=x > -1), x.var(1, where=x > -1), x.prod(where=x > 2)),
    "initial": lambda x: (x.sum(initial=3), x.max(0, initial=0), x.min(1, initial=9, where=x > 0)),
    "mean=": lambda x: x.var(1, mean=x.mean(1, keepdims=True)),
    "dtype": lambda x: (x.sum(dtype=np.float64), x.mean(0, dtype=np.float64), x.prod(1, dtype=np.float64)),
    "integers": lambda x: (
        (x * 9).astype(np.int8).mean(0),
        (x * 9).astype(np.int64).var(),
        (x > 0).mean(),
        (x > 0).std(),
    ),
    "nan": lambda x: (np.nansum(np.sqrt(x), 0), np.nanvar(np.sqrt(abs(x) - 0.1), axis=1), np.nanmax(np.sqrt(x))),
    "weights": lambda x: (np.average(x, weights=x**2), np.average(x, 1, np.arange(5.0), keepdims=True)),
    "norms": lambda x: (np.linalg.norm(x), np.linalg.norm(x, 1, axis=0), np.linalg.norm(x[0], np.inf)),
    "no axes": lambda x: (x.sum(()), x.var(()), x.max(())),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_of_reductions(name):
    agrees(OPTIONS[name], np.random.default_rng(5).normal(size=(4, 5)))


def test_nan_wins_and_is_first():
    x = np.array([[3, np.nan, -1, np.nan], [np.inf, 2, 2, -np.inf]])
    agrees(lambda x: (x.min(1), x.max(1), x.argmin(1), x.argmax(1), x.min(), np.nanmin(x, axis=1)), x)


def test_half_floats_are_rounded_after_each_operation():
    x = np.array([1.0, 1e-3, 2048, 65504], np.float16)
    agrees(lambda x: (x + x * x, x * 3 + 1, x / 3, np.sqrt(x), x.astype(np.float32) * x), x, rtol=0)


def test_casts_out_of_range_are_defined():
    x = np.array([np.nan, np.inf, -np.inf, 1e30, -1.9, 300.7])
    got = meaning(lambda x: (x.astype(np.uint8), x.astype(np.int64)), x)
    assert got[0].tolist() == [0, 0, 0, 0, 255, 44]
    assert got[1].tolist() == [-(2**63)] * 4 + [-1, 300]


def test_an_index_out_of_range_names_the_line():
    text = r"index 9 is out of bounds for axis 0 with size 4\n  at .*test_interpret.py:\d+: .*x\[i\]"
    with pytest.raises(OutOfRangeError, match=text):
        meaning(lambda x, i: x[i], np.ones(4), np.array([0, 9]))


@pytest.mark.parametrize("op", ["sum", "min", "m2"])
def test_the_reference_folds_columns_side_by_side(op):
    x = np.random.default_rng(3).normal(size=(700, 3)).astype(np.float32)
    together = tree.reduce_rows(op, x)
    alone = [tree.reduce_rows(op, x[:, [j]])[0] for j in range(3)]
    assert together.tolist() == [float(v) for v in alone]
