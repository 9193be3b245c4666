"""Sizes of arrays that a fused function computes with: integers to Python, run-time scalars to the kernel."""

from __future__ import annotations

import math
import operator
import pickle

import numpy as np
import pytest
from tracing import agrees, meaning

import gpucompute as gp
from gpucompute.fusion.sizes import Ratio, Size, sized

BODIES = {
    "divide": lambda x: x / x.shape[0],
    "sum over size": lambda x: x.sum() / x.size,
    "np.size": lambda x: x.sum() / np.size(x),
    "centre": lambda x: x - (x.shape[1] - 1) / 2,
    "reflected": lambda x: x * (1 / x.shape[0]),
    "halves": lambda x: (x + x.shape[0] // 2, x - x.shape[1] % 7, x * abs(-x.shape[1])),
    "two axes": lambda x: x / x.shape[0] + x * x.shape[1],
    "where": lambda x: np.where(x > 2, x.shape[0], x.shape[1] * 2.5),
    "clip": lambda x: x.clip(0, x.shape[0]),
    "compare": lambda x: (x < x.shape[0], x == x.shape[1]),
    "power": lambda x: 1.01 ** (x * 0 + x.shape[0]),
    "filled": lambda x: np.full_like(x, x.shape[1]),
    "stack": lambda x: np.stack([x.sum(), x.shape[0]]),
    "pad": lambda x: np.pad(x, 1, constant_values=x.shape[0]),
    "assigned": lambda x: _assigned(x),
    "round": lambda x: x + round(x.shape[0] / 7) + math.floor(x.shape[1] / 3),
    "array": lambda x: x[0] * np.arange(x.shape[1]),
    "divmod": lambda x: divmod(x, x.shape[0]),
    "with a scalar": lambda x: x * (x.sum() / x.shape[0] * 2),
    "mean": lambda x: x.mean(0) + x.std(1, ddof=1).mean(),
}


def _assigned(x):
    y = x.copy()
    y[1:] = x.shape[0]
    np.copyto(y[:, :1], x.shape[1])
    return y


def _data(shape, dtype):
    return np.random.default_rng(1).integers(0, 100, shape).astype(dtype)


@pytest.mark.parametrize("dtype", ["uint8", "int64", "float32"])
@pytest.mark.parametrize("name", BODIES)
def test_meaning_is_numpys(name, dtype):
    agrees(BODIES[name], _data((12, 17), dtype))


def test_another_size_compiles_nothing():
    fused = gp.fuse(lambda x: [body(x) for body in BODIES.values()])
    fused(_data((30, 50), np.float32))
    before = gp.cache_info()
    for shape in [(40, 41), (33, 33), (129, 28)]:
        x = _data(shape, np.float32)
        for got, want in zip(_flat(fused(x)), _flat([meaning(body, x) for body in BODIES.values()]), strict=True):
            assert gp.digest(got) == gp.digest(want)
    after = gp.cache_info()
    assert (after.compiled, after.loaded) == (before.compiled, before.loaded)


def _flat(values):
    for value in values:
        yield from value if isinstance(value, (list, tuple)) else (value,)


def test_equal_sizes_are_told_apart_and_one_size_is_one_scalar():
    assert len(_scalars(lambda x: x / x.shape[0] + x / x.shape[1], np.ones((40, 40)))) == 2
    assert len(_scalars(lambda x: x / x.shape[0] + x * x.shape[0], np.ones((40, 40)))) == 1


def _scalars(function, *args):
    from gpucompute.fusion.trace import trace

    return trace(function, args).derived


def test_a_size_is_an_int_to_the_function():
    seen = []

    @gp.fuse
    def look(x):
        n = x.shape[0]
        seen.append(n)
        assert isinstance(n, int)
        assert n == 4
        assert {4: "four"}[n] == "four"
        assert f"{n:03d} {n}" == "004 4"
        y = sum(x[i] for i in range(n)) + x[n - 1] + x[: n // 2].sum()
        return y + np.zeros(n)[0], n, n / 2, x.reshape(n // 2, -1)

    x = np.array([1.0, 2.0, 3.0, 5.0])
    total, n, half, square = look(x)
    assert total == 11 + 5 + 3
    assert (type(n), type(half), square.shape) == (int, float, (2, 2))
    assert type(pickle.loads(pickle.dumps(seen[0]))) is int


def test_a_size_that_does_not_fit_raises_as_in_numpy():
    fused = gp.fuse(lambda x: x + x.shape[0])
    assert fused(np.ones(200, np.uint8)).dtype == np.uint8
    with pytest.raises(OverflowError, match="300 out of bounds for uint8"):
        fused(np.ones(300, np.uint8))


NUMBERS = [3, -2, 2.5, True, np.float64(2.5), np.float32(2), np.int8(3)]


@pytest.mark.parametrize("other", NUMBERS, ids=repr)
@pytest.mark.parametrize("number", [7, 3.5])
@pytest.mark.parametrize("name", ["add", "sub", "mul", "truediv", "floordiv", "mod", "pow"])
def test_arithmetic_is_pythons(name, number, other):
    function = getattr(operator, name)
    for ours, plain in [
        (function(sized(number, "axis"), other), function(number, other)),
        (function(other, sized(number, "axis")), function(other, number)),
    ]:
        assert ours == plain
        base = int if isinstance(ours, Size) else float if isinstance(ours, Ratio) else type(ours)
        assert base is type(plain)


def test_numpys_own_arrays_take_a_size_for_a_weak_number():
    n, half, x = sized(7, "axis"), sized(3.5, "axis"), np.ones(3, np.float32)
    made = [x * n, n * x, half / x, np.add(x, n), np.where(x > 0, n, x), np.clip(x, n, half), np.concatenate([x, [n]])]
    assert [array.dtype for array in made[:-1]] == [np.float32] * 6
    assert np.full(3, n).dtype == np.arange(n).dtype == np.int64
    assert np.sqrt(n) == np.sqrt(7)
    with pytest.raises(TypeError, match="unsupported operand"):
        n + "one"


@pytest.mark.parametrize("function", [operator.neg, operator.pos, abs, round, math.floor, math.ceil, math.trunc])
@pytest.mark.parametrize("number", [7, 3.5])
def test_unary_functions_keep_the_origin(function, number):
    ours = function(sized(number, "axis"))
    assert ours == function(number)
    assert isinstance(ours, (Size, Ratio))
    assert ours.origin != function(sized(number, "other axis")).origin


def test_different_computations_have_different_origins():
    n = sized(4, "axis")
    made = [n + 4, n * 2, 2 * n, n**1.5, n / 0.5, 12 - n, n - -4, pow(n, 3, 56)]
    assert set(made) == {8}
    assert len({number.origin for number in made}) == len(made)
