from __future__ import annotations

import functools
import math
import types
from math import exp

import numpy as np
import pytest
from tracing import meaning, verified

from gpucompute.errors import FusionError, OptionError
from gpucompute.fusion import ir
from gpucompute.fusion.functions import erf
from gpucompute.fusion.scalar_source import compiled
from gpucompute.fusion.user import reduction, vectorize


def helper(value):
    return math.sin(value) + np.exp(value)


@vectorize
def branches(x, y):
    if x > y:
        return math.exp(x)
    return helper(y) + exp(x) + abs(x)


@vectorize
def collatz(n):
    steps = 0
    while n > 1:
        n = n // 2 if n % 2 == 0 else 3 * n + 1
        steps += 1
    return steps


def test_branches_and_helpers():
    x = np.linspace(-2, 2, 9, dtype=np.float32)
    got = meaning(lambda x: branches(x, 0.5), x)
    want = [math.exp(v) if v > 0.5 else math.sin(0.5) + math.exp(0.5) + math.exp(v) + abs(v) for v in x.tolist()]
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_elementary_functions_are_those_of_fuse():
    x = np.linspace(0.1, 5, 50)
    theirs = meaning(lambda x: (np.exp(x), np.log(x), x**1.5, np.arctan2(x, 2.0)), x)
    mine = vectorize(lambda x: math.exp(x)), vectorize(lambda x: np.log(x))
    assert (meaning(lambda x: mine[0](x), x) == theirs[0]).all()
    assert (meaning(lambda x: mine[1](x), x) == theirs[1]).all()
    assert (meaning(lambda x: vectorize(lambda x: math.pow(x, 1.5))(x), x) == theirs[2]).all()
    assert (meaning(lambda x: vectorize(lambda x: math.atan2(x, 2))(x), x) == theirs[3]).all()


def test_functions_and_numbers_of_a_users_module():
    tools = types.ModuleType("users_tools")
    exec("import math\nSCALE = 3.0\ndef grow(v): return math.exp(v) * SCALE\n", vars(tools))
    function = vectorize(lambda x: tools.grow(x) + tools.SCALE)
    x = np.linspace(0, 1, 9)
    assert (meaning(lambda x: function(x), x) == meaning(lambda x: np.exp(x) * 3 + 3, x)).all()


def test_loops_inside_a_fused_function():
    assert meaning(lambda n: collatz(n) + 1, np.array([1, 7, 27], np.int32)).tolist() == [1, 17, 112]


def test_dtypes_follow_numba():
    (node,) = verified(lambda x: branches(x, 0.5), np.ones(3, np.float16)).outputs
    assert isinstance(node.op, ir.UserFunction)
    assert node.op.in_dtypes == (np.float32, np.float32)
    assert verified(lambda x, s: branches(x, s), np.ones(3, np.int8), 2).outputs[0].dtype == np.float64


def test_arguments_are_counted():
    with pytest.raises(TypeError, match=r"branches\(x, y\): missing a required argument: 'y'"):
        branches(np.ones(3))
    with pytest.raises(TypeError, match=r"branches\(x, y\): got an unexpected keyword argument 'z'"):
        branches(np.ones(3), 2, z=3)
    with pytest.raises(FusionError, match="expected plain positional ones"):
        vectorize(lambda *x: x[0])


@vectorize
def scaled(value, factor=2):
    return value * factor


def test_arguments_by_name_and_defaults():
    x = np.arange(3)
    assert scaled(x).tolist() == [0, 2, 4]
    assert scaled(factor=0.5, value=x).tolist() == [0.0, 0.5, 1.0]
    assert meaning(lambda x: scaled(x, factor=x) + scaled(x), x).tolist() == [0, 3, 8]


@pytest.mark.parametrize("given", [[1, 2], (1, 2), range(1, 3), [np.int64(1), 2], memoryview(np.array([1, 2]))])
def test_what_numpy_makes_arrays_of(given):
    assert scaled(given).tolist() == [2, 4]
    assert largest(given) == 2
    np.testing.assert_array_equal(erf(given), erf(np.array([1, 2])))


def test_nested_lists_and_numbers():
    assert scaled([[1, 2], [3, 4]]).tolist() == [[2, 4], [6, 8]]
    assert scaled(3) == 6
    assert scaled([1, 2], [[1], [2]]).tolist() == [[1, 2], [2, 4]]
    assert largest([[1, 5], [3, 4]], axis=0, keepdims=True).tolist() == [[3, 5]]
    assert largest(7) == 7


def test_out_inside_a_fused_function():
    def into(x):
        result = np.zeros_like(x)
        scaled(x, out=result)
        return result

    assert meaning(into, np.arange(3)).tolist() == [0, 2, 4]


@pytest.mark.parametrize("given", [3, np.sin, math.sin, functools.partial(math.pow, 2), int])
def test_what_is_no_python_function(given):
    with pytest.raises(OptionError, match=r"the function given to vectorize is .*; expected a Python function"):
        vectorize(given)
    with pytest.raises(OptionError, match=r"combine of a reduction is .*; expected a Python function"):
        reduction(lambda v: v, given, 0)


def test_one_compilation_for_types_and_values():
    assert compiled(collatz.specialise((np.dtype(np.int32),)).function) is compiled(collatz._copy)


root_mean_square = reduction(
    lambda x: (x * x, 1),
    lambda a, b: (a[0] + b[0], a[1] + b[1]),
    (0.0, 0),
    finalize=lambda s: (s[0] / s[1]) ** 0.5,
)
largest = reduction(lambda x: x, lambda a, b: max(a, b), 0)


def test_reduction_of_a_tuple():
    x = np.random.default_rng(0).normal(size=(600, 2)).astype(np.float32)
    got = meaning(lambda x: x / root_mean_square(x, axis=0, keepdims=True), x)
    np.testing.assert_allclose(got, x / np.sqrt((x.astype(float) ** 2).mean(0)), rtol=1e-5)


def test_states_have_the_dtypes_that_hold_them():
    (node,) = verified(lambda x: root_mean_square(x), np.ones(3, np.float32)).outputs
    assert isinstance(node, ir.Reduce)
    assert node.op.state_dtypes == (np.float32, np.int64)
    assert node.op.out_dtype == np.float64
    assert verified(lambda x: largest(x), np.ones(3, np.uint8)).outputs[0].dtype == np.uint8


def test_reductions_of_nothing_and_of_no_axes():
    empty, alone = meaning(lambda x: (largest(x[:0], 0), largest(x, ())), np.arange(6).reshape(2, 3))
    assert empty.tolist() == [0, 0, 0]
    assert alone.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_a_tuple_needs_finalize():
    with pytest.raises(FusionError, match="a state of several values needs finalize="):
        meaning(lambda x: reduction(lambda v: (v, v), lambda a, b: a, (0.0, 0.0))(x), np.ones(3))
    with pytest.raises(FusionError, match="not a tuple of one"):
        reduction(lambda v: v, lambda a, b: a, (0.0,))
