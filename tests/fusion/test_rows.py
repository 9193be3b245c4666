"""What kernels over rows do in special ways keeps the bits: divisions by one number, folds of whole tiles, exp."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gpucompute.kernels import scalar

import gpucompute as gp
from gpucompute.fusion.tree import TILE

Array = np.ndarray[Any, Any]
LENGTHS = (1, 7, 16, 128, 255, 256, 257, 1000, 1025, 2048, 2049, 5000)


def bits(x: Array) -> Array:
    """The bits of float32, with one NaN."""
    return np.where(np.isnan(x), np.float32(np.nan), x).view(np.uint32)


@gp.fuse
def over_row(x: Array, d: Array) -> Array:
    return x / (x.max(axis=1, keepdims=True) * 0 + d)


@pytest.mark.parametrize("spread", [0, 20, 60, 110, 124])
def test_quotients_of_a_row_are_those_of_a_division(spread: int) -> None:
    source = np.random.default_rng(spread)
    for n in LENGTHS:
        d = (source.standard_normal((40, 1)) * 2.0 ** source.integers(-26, 27, (40, 1))).astype(np.float32)
        x = (source.standard_normal((40, n)) * 2.0 ** source.integers(-spread, spread + 1, (40, n))).astype(np.float32)
        x[source.random(x.shape) < 0.02] = 0.0
        x[source.random(x.shape) < 0.02] = -0.0
        with np.errstate(all="ignore"):
            np.testing.assert_array_equal(bits(over_row(x, d)), bits(x / d), f"{n} elements")


def test_quotients_that_round_almost_to_the_middle() -> None:
    """Numerators a unit in the last place around products of the divisor and halves of units."""
    source = np.random.default_rng(1)
    d = (1 + source.random((200, 1))).astype(np.float32)
    middles = 1 + source.random((200, 1000)).astype(np.float32).astype(np.float64) + 2.0**-24
    x = (d * middles).astype(np.float32)
    x = (x.view(np.int32) + source.integers(-1, 2, x.shape).astype(np.int32)).view(np.float32)
    np.testing.assert_array_equal(bits(over_row(x, d)), bits(x / d))


@pytest.mark.parametrize("d", [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-38, 1e38, 1e-45, -3.0])
def test_unusual_divisors(d: float) -> None:
    x = np.array([[0.0, -0.0, 1.5, -1.5, np.finfo(np.float32).max, 1e-45, -1e-40, 3e-39]] * 3, np.float32)
    given = np.full((3, 1), d, np.float32)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(bits(over_row(x, given)), bits(x / (x.max(axis=1, keepdims=True) * 0 + given)))
        x[0, 0], x[1, 1] = np.inf, np.nan
        divide = gp.fuse(lambda x, d: x / (x.min(axis=1, keepdims=True) * 0 + d))
        np.testing.assert_array_equal(bits(divide(x, given)), bits(x / (x.min(axis=1, keepdims=True) * 0 + given)))


def test_a_value_before_the_division_and_in_place() -> None:
    x = np.random.default_rng(2).standard_normal((30, 700), dtype=np.float32)
    centred = gp.fuse(lambda x: (x - x.min(axis=1, keepdims=True)) / x.max(axis=1, keepdims=True))
    expected = (x - x.min(axis=1, keepdims=True)) / x.max(axis=1, keepdims=True)
    np.testing.assert_array_equal(bits(centred(x)), bits(expected))
    np.testing.assert_array_equal(bits(centred(x, out=x)), bits(expected))


def by_halving(x: list[Any], combine: Callable[[Any, Any], Any]) -> Any:
    """The tree of kernels/cpu/reduce.py, as its text says it."""
    tiles = []
    for start in range(0, len(x), TILE):
        tile = x[start : start + TILE]
        while len(tile) > 1:
            h = 1 << (len(tile) - 1).bit_length() - 1
            tile = [combine(tile[i], tile[i + h]) if i + h < len(tile) else tile[i] for i in range(h)]
        tiles.append(tile[0])
    while len(tiles) > 1:
        tiles = [combine(*tiles[i : i + 2]) if i + 1 < len(tiles) else tiles[i] for i in range(0, len(tiles), 2)]
    return tiles[0]


FOLDS: dict[str, Callable[[Any, Any], Any]] = {
    "sum": lambda a, b: a + b,
    "prod": lambda a, b: a * b,
    "max": lambda a, b: a if a >= b or a != a else b,
    "min": lambda a, b: a if a <= b or a != a else b,
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_folds_of_rows_follow_the_tree(dtype: Any) -> None:
    reduce = gp.fuse(lambda x: [getattr(x, name)(axis=1) for name in FOLDS])
    source = np.random.default_rng(3)
    for n in (1, 3, 100, 129, 256, 257, 1000, 2048, 4500):
        x = source.standard_normal((4, n)).astype(dtype)
        x[1] = np.where(source.random(n) < 0.5, 0.0, -0.0)  # which zero it is shows the order
        x[2, source.integers(n)] = np.nan
        x[3] = source.choice([-np.inf, np.inf])
        for name, found in zip(FOLDS, reduce(x), strict=True):
            with np.errstate(all="ignore"):
                expected = np.array([by_halving(list(row), FOLDS[name]) for row in x], dtype)
                assert gp.digest(found) == gp.digest(expected), f"{name} of {n} elements: {found} for {expected}"


def test_exp_below_a_maximum_is_exp() -> None:
    functions = scalar.namespace()
    x = -np.geomspace(1e-45, 200, 20_000).astype(np.float32)
    x = np.concatenate([x, np.float32([0.0, -0.0, -np.inf, np.nan, -87.3, -88.8, -103.9, -104.1])])
    with np.errstate(all="ignore"):
        known, plain = ([functions[name](v) for v in x] for name in ("exp_nonpositive_f4", "exp_f4"))
    np.testing.assert_array_equal(bits(np.array(known)), bits(np.array(plain)))


def test_a_maximum_of_other_rows_is_not_taken_for_their_own() -> None:
    """In a square, x.max(axis=1) without keepdims lines up with the columns."""
    x = (20 * np.random.default_rng(4).standard_normal((300, 300))).astype(np.float32)
    wrong_way = gp.fuse(lambda x: np.exp(x - x.max(axis=1)).sum(axis=1))
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(wrong_way(x), np.exp(x - x.max(axis=1)).sum(axis=1), rtol=1e-5)


def test_the_next_row_of_columns_is_asked_for_where_values_are_computed() -> None:
    """Also where it lies before this one or far away, and where there is none; bits are those of rows in order."""
    x = np.random.default_rng(6).standard_normal((600, 300), np.float32)
    doubled = gp.fuse(lambda x: (x * 2).sum(axis=0))
    for view in (x[::-1], x[::3], x[:, 20:], x[:1]):
        assert "prefetch(" in doubled.explain(view).stages[0].source
        np.testing.assert_array_equal(bits(doubled(view)), bits(doubled(view.copy())))
    assert "prefetch(" not in gp.fuse(lambda x: x.sum(axis=0)).explain(x).stages[0].source  # read where it lies
    np.testing.assert_array_equal(bits(doubled(x)), bits(gp.fuse(lambda x: x.sum(axis=0))(x * 2)))
