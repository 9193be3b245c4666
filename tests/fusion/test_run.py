"""Compiled programs equal interpreted ones to the bit, come near NumPy, and share machine code as they should."""

from __future__ import annotations

import sys
import threading
from random import Random
from typing import Any

import numpy as np
import pytest
from programs import make, near_numpy, same_bits

import gpucompute as gp
from gpucompute.fusion import plan
from gpucompute.fusion.emit import reciprocal_parts
from gpucompute.fusion.interpret import interpret
from gpucompute.fusion.layout import Layout
from gpucompute.fusion.trace import trace

RANDOM = np.random.default_rng(0)


def test_generated_programs() -> None:
    random = Random(20)  # thousands: python tests/fusion/programs.py --count 5000
    for _ in range(25):
        program = make(random)
        fused = gp.fuse(program.function)(*program.args)
        fused = fused if isinstance(fused, tuple) else (fused,)
        meaning = interpret(trace(program.function, program.args), program.arrays, program.scalars)
        for got, expected in zip(fused, meaning, strict=True):
            assert same_bits(got, expected), program
        near_numpy(program, fused)


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def layer_norm(x, gain, bias):
    mean = x.mean(axis=-1, keepdims=True)
    return (x - mean) / np.sqrt(x.var(axis=-1, keepdims=True) + np.float32(1e-5)) * gain + bias


def channel_statistics(x):
    return x.mean((0, 1, 2)), x.std((0, 1, 2)), x.min((0, 1, 2)), x.max((0, 1, 2))


def two_results_of_one_row(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    s = e.sum(axis=1, keepdims=True)
    return e / s, np.log(s), e * 2


def normal(*shape: int, dtype: str = "f4") -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(dtype)


# Sizes on both sides of a tile (256), a block (16384) and a band of columns (256), in rows and in columns.
LARGER = [
    (softmax, (normal(7, 1300),)),
    (softmax, (normal(1300, 7).T,)),
    (softmax, (normal(3, 20, 30, dtype="f8"),)),
    (softmax, (normal(5, 300, dtype="f2"),)),
    (two_results_of_one_row, (normal(5, 700),)),
    (layer_norm, (normal(2, 5, 700), normal(700), normal(700))),
    (lambda x: (x - x.mean(0)) / x.std(0), (normal(1000, 300),)),
    (lambda x: (x - x.mean((0, 2, 3), keepdims=True)) / x.std((0, 2, 3), keepdims=True), (normal(3, 4, 20, 30),)),
    (channel_statistics, (RANDOM.integers(0, 256, (5, 60, 70, 3)).astype("u1"),)),
    (channel_statistics, (RANDOM.integers(-128, 128, (5, 60, 70, 3)).astype("i1"),)),
    (channel_statistics, (RANDOM.integers(-(2**15), 2**15, (2, 30, 40, 3)).astype("i2"),)),
    (lambda x: (x.sum(), x.mean(), x.std(), x.argmax()), (normal(90, 1000),)),
    (lambda x: (x.sum(0), x.std(0), x.argmin(0)), (normal(40000, 5),)),
    (lambda x: (x.sum(0), x.max(0)), (normal(600, 300),)),
    (lambda x: (x > 0).any(axis=1), (normal(40, 900),)),
]


@pytest.mark.parametrize(("function", "args"), LARGER)
def test_larger_reductions(function, args) -> None:
    fused = gp.fuse(function)(*args)
    fused = fused if isinstance(fused, tuple) else (fused,)
    for got, expected in zip(fused, interpret(trace(function, args), args), strict=True):
        assert same_bits(got, expected)


@pytest.mark.parametrize(("function", "args"), [LARGER[0], LARGER[6], LARGER[8], LARGER[11]])
def test_bits_do_not_depend_on_threads(function, args) -> None:
    args = tuple(np.tile(a, (12,) + (1,) * (a.ndim - 1)) for a in args)  # enough work to be shared
    before = gp.get_threads()
    digests = set()
    try:
        for threads in (1, 2, 3, 5):
            gp.set_threads(threads)
            fused = gp.fuse(function)
            for _ in range(2):  # the second call knows that the kernels are short
                result = fused(*args)
                digests.add(gp.digest(*(result if isinstance(result, tuple) else (result,))))
    finally:
        gp.set_threads(before)
    assert len(digests) == 1


def normalise(images, mean, std):
    x = images.astype(np.float32) / 255
    return ((x - mean) / std).transpose(0, 3, 1, 2)


def test_other_sizes_compile_nothing() -> None:
    mean, std = np.float32([0.4, 0.5, 0.6]), np.float32([0.2, 0.3, 0.4])
    fused = gp.fuse(normalise)
    fused(np.zeros((8, 20, 30, 3), np.uint8), mean, std)
    rows = gp.fuse(softmax)
    rows(normal(20, 300))
    before = gp.cache_info()
    for shape in [(16, 20, 30, 3), (8, 64, 48, 3), (1, 33, 77, 3), (300, 9, 10, 3)]:
        images = RANDOM.integers(0, 256, shape).astype("u1")
        expected = ((images.astype(np.float32) / 255 - mean) / std).transpose(0, 3, 1, 2)
        np.testing.assert_array_equal(fused(images, mean, std), expected)
    for shape in [(1, 300), (70, 10), (3, 70000)]:
        x = normal(*shape)
        np.testing.assert_allclose(rows(x), softmax(x), rtol=1e-5)
    after = gp.cache_info()
    assert (after.compiled, after.loaded) == (before.compiled, before.loaded)
    assert after.hits > before.hits


def stages(function, *args) -> list[tuple[str, tuple[int, ...]]]:
    traced = trace(function, args)
    layouts = [Layout(0, a.shape, a.strides) for a in (*args, *traced.captured)]
    return [(stage.kind, stage.shape) for stage in plan.plan(traced.outputs, layouts, finish=True).stages]


def test_as_few_stages_as_the_data_needs() -> None:
    x = normal(40, 50)
    assert stages(lambda x: np.exp(x)[::-1].T * 2 + 1, x) == [("map", (50, 40))]
    assert stages(softmax, x) == [("rows", (40, 50))]
    assert stages(layer_norm, x, normal(50), normal(50)) == [("rows", (40, 50))]
    # Over the first axis a result is complete only at the end: reduce both moments in one walk, then map.
    assert stages(lambda x: (x - x.mean(0)) / x.std(0), x) == [("reduce", (40, 50)), ("map", (40, 50))]
    assert stages(lambda x: (x - x.mean()) / x.std(), x) == [("reduce", (40, 50)), ("map", (40, 50))]
    # What is made of a reduction alone is stored by its stage.
    assert stages(lambda x: (x.mean(0), np.sqrt(x.var(0) + 1)), x) == [("reduce", (40, 50))]
    assert stages(lambda x: x.std(), x) == [("reduce", (40, 50))]
    assert stages(lambda x: (x.mean(0), x.mean(0) + x[0]), x) == [("reduce", (40, 50)), ("map", (50,))]
    # A slow value that many rows share is computed once; a quick one is not worth the memory.
    w = normal(50)
    assert stages(lambda x, w: x * np.exp(w), x, w) == [("map", (50,)), ("map", (40, 50))]
    assert stages(lambda x, w: x * (w + 1), x, w) == [("map", (40, 50))]
    assert stages(lambda x: np.concatenate([x, x * 2]), x) == [("map", (40, 50))]
    assert stages(lambda x: (x + 1).reshape(2000), x) == [("map", (40, 50))]
    # Strides cannot express a reshape of a broadcast: its argument is stored first.
    assert len(stages(lambda x: (x[:, :1] + x[:1]).reshape(2000) * np.arange(2000), x)) == 2


def test_python_scalars_are_run_time_values() -> None:
    fused = gp.fuse(lambda x, a, b: x * a + b)
    x = normal(10)
    np.testing.assert_array_equal(fused(x, 2.0, 1), x * 2.0 + 1)
    before = gp.cache_info().compiled
    np.testing.assert_array_equal(fused(x, -3.5, 7), x * -3.5 + 7)
    assert gp.cache_info().compiled == before
    small = gp.fuse(lambda x, a: x + a)
    with pytest.raises(OverflowError, match="300 out of bounds for uint8"):
        small(np.zeros(3, np.uint8), 300)


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2"])
def test_small_integers_over_a_constant_equal_a_division(dtype: str) -> None:
    info = np.iinfo(dtype)
    x = np.arange(info.min, info.max + 1).astype(dtype)
    for constant in (255, -127.5, 0.1, 3e-7, 65535, 49):
        got = gp.fuse(lambda x, c=constant: x.astype(np.float32) / np.float32(c))(x)
        expected = x.astype(np.float32) / np.float32(constant)
        assert got.tobytes() == expected.tobytes()
    # Both forms are in use: products in float32 where they round alike for all integers, else in float64.
    assert reciprocal_parts(np.dtype(np.uint8), 255.0) is not None
    assert reciprocal_parts(np.dtype(np.uint16), 255.0) is None


def test_out() -> None:
    fused = gp.fuse(lambda x: x * 2)
    x = normal(6, 7)
    out = np.empty_like(x)
    assert fused(x, out=out) is out
    np.testing.assert_array_equal(out, x * 2)
    strided = np.empty((7, 6), np.float32).T
    np.testing.assert_array_equal(fused(x, out=strided), x * 2)
    expected = x[::-1] * 2
    np.testing.assert_array_equal(fused(x[::-1], out=x), expected)  # overlapping memory
    with pytest.raises(gp.ShapeError, match=r"out is float64 \(6, 7\); expected a writable numpy.ndarray of float32"):
        fused(x, out=np.empty((6, 7)))


def test_index_out_of_range_raises_and_names_the_line() -> None:
    fused = gp.fuse(lambda x, i: x[i])
    x = normal(10, 3)
    np.testing.assert_array_equal(fused(x, np.array([0, -10, 9])), x[[0, -10, 9]])
    with pytest.raises(IndexError, match=r"index 10 is out of bounds for an axis of size 10\n  at .*test_run.py:\d+"):
        fused(x, np.array([0, 10]))


def test_unusual_memory_is_converted() -> None:
    fused = gp.fuse(lambda x: x + 1)
    swapped = np.arange(5, dtype=">f4")
    unaligned = np.frombuffer(b"\0" + np.arange(5, dtype="f4").tobytes(), np.uint8)[1:].view("f4")
    for x in (swapped, unaligned):
        result = fused(x)
        assert result.dtype == np.float32
        np.testing.assert_array_equal(result, np.arange(1, 6))


def test_concurrent_callers() -> None:
    fused = gp.fuse(softmax)
    arrays = [normal(300, 400) for _ in range(8)]
    expected = [gp.digest(fused(x)) for x in arrays]
    got: dict[tuple[int, int], str] = {}

    def work(number: int) -> None:
        for turn, x in enumerate(arrays):
            got[number, turn] = gp.digest(fused(x))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == {(n, turn): expected[turn] for n in range(6) for turn in range(8)}


def test_fast_is_near_exact() -> None:
    x = normal(1000)

    def function(x):
        return np.exp(x) * x + np.sin(x) / (x * x + 1)

    np.testing.assert_allclose(gp.fuse(function, precision="fast")(x), function(x), rtol=3e-6, atol=1e-6)


def test_fused_function_inside_another() -> None:
    inner = gp.fuse(lambda x: x * 2)
    outer = gp.fuse(lambda x: inner(x) + 1)
    assert outer(np.float32([1, 2])).tolist() == [3, 5]
    assert len(outer.explain(np.float32([1, 2])).stages) == 1


def test_long_chains_of_operations() -> None:
    def chain(x: Any) -> Any:
        for _ in range(260):
            x = x * 1.01 + 0.5
        return x

    x, limit = np.linspace(0, 1, 10), sys.getrecursionlimit()
    assert np.array_equal(gp.fuse(chain)(x), chain(x))
    assert sys.getrecursionlimit() == limit
