"""`quantile` against NumPy's, of arrays and of chunks."""

from __future__ import annotations

import pickle
from itertools import product

import dask.array as da
import numpy as np
import pytest
from stat_checks import Store, computed, tasks

import gpucompute as gp
from gpucompute.stats import quantile, quantiles, radix
from gpucompute.stats.ranks import CONTINUOUS, DISCRETE

METHODS = [*DISCRETE, *CONTINUOUS]
random = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _count_even_little(monkeypatch):
    """Let small arrays take the way of large ones."""
    monkeypatch.setattr(quantiles, "SMALL", 1)
    monkeypatch.setattr(radix, "COLLECTED", 40)


def numbers(dtype, shape=(400, 2)):
    dtype = np.dtype(dtype)
    if dtype.kind == "f":
        return random.standard_normal(shape).astype(dtype)
    info = np.iinfo(dtype)
    return random.integers(info.min, info.max, shape, dtype.newbyteorder("="), endpoint=True).astype(dtype)


def assert_equal(x, q, axis=None, chunks=None, **options):
    with np.errstate(all="ignore"):
        want = np.quantile(x, q, axis=axis, **options)
        got = quantile(x, q, axis, **options) if chunks is None else None
        lazy = None if chunks is None else quantile(da.from_array(x, chunks=chunks), q, axis, **options)
        got = got if lazy is None else computed(lazy)
    assert np.asarray(got).dtype == np.asarray(want).dtype.newbyteorder("=")
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", ">f4", ">i2"])
def test_values_are_numpys(dtype):
    x = numbers(dtype)
    for q in (0.3, 0, np.float32(0.25), np.linspace(0, 1, 101), [[0.5, 0.75]]):
        assert_equal(x, q)
        assert_equal(x, q, 0)
        assert_equal(x, q, 0, chunks=(150, 1))


@pytest.mark.parametrize("method", METHODS)
def test_methods_are_numpys(method):
    x = numbers("f4", (33,))
    for q in (0.3, 0, 1, [0, 0.01, 0.25, 0.5, 0.985, 1]):
        assert_equal(x, q, method=method)
        assert_equal(x, q, method=method, chunks=10)
        assert_equal((x * 100).astype(np.int32), q, method=method, chunks=10)


@pytest.mark.parametrize("axis", [0, 1, 2, (0, 1), (2, 0), -1, None])
def test_axes(axis):
    x = numbers("f4", (40, 6, 5))
    assert_equal(x, [0.2, 0.9], axis)
    assert_equal(x, [0.2, 0.9], axis, chunks=(15, 4, 3))
    assert_equal(np.asfortranarray(x), 0.5, axis, chunks=(15, 6, 5))


def test_special_values():
    assert_equal(
        np.float32([0, -0.0, np.inf, -np.inf, 1e-45, -1e-45, 3e38, -3e38] * 9), np.linspace(0, 1, 72), chunks=7
    )
    x = numbers("f8", (90, 3))
    x[[4, 70], 1] = np.nan, -np.nan
    assert_equal(x, [0.1, 0.5], 0)
    assert_equal(x, [0.1, 0.5], 0, chunks=(20, 2))
    assert_equal(np.full(500, 2.5), 0.4, chunks=60)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("method", ["lower", "linear", "hazen"])
def test_zeros_have_no_sign_for_any_chunks(monkeypatch, dtype, method):
    x = np.array([0, -0.0, 0, -0.0, -0.0, 1, 2], dtype)
    for given, q in ((x, [0, 0.2, 0.5, 0.6]), (x, 0.1), (-x, [0, 0.2, 0.5, 1]), (np.full(7, -0.0, dtype), 0.5)):
        for small, exact in ((1, True), (100, True), (1, False)):
            monkeypatch.setattr(quantiles, "SMALL", small)
            found = [quantile(given, q, method=method, exact=exact)]
            for n in (7, 1, 2, 3):
                found.append(computed(quantile(da.from_array(given, chunks=n), q, method=method, exact=exact)))
            assert len({gp.digest(np.asarray(value)) for value in found}) == 1
            assert not np.signbit(found[0][found[0] == 0]).any()
            np.testing.assert_allclose(found[0], np.quantile(given, q, method=method), rtol=1e-3)


def test_no_quantiles_and_no_columns():
    x, none = numbers("f4", (40, 3)), np.zeros((70, 0), np.float32)
    cases = [(x, [], None), (x, [], 0), (none, 0.5, 0), (none, [0.1, 1], 0)]
    for (given, q, axis), exact in product(cases, (True, False)):
        want = np.quantile(given, q, axis)
        for cut in (given, da.from_array(given, chunks=70), da.from_array(given, chunks=(7, 1))):
            got = computed(quantile(cut, q, axis, exact=exact))
            assert got.shape == want.shape
            assert got.dtype == (want.dtype if exact else np.float64)


def test_many_quantiles_make_short_digits():
    """Several prefixes then share a first digit."""
    assert radix.digit_bits(32, 1, 2000) == (16, 10)
    assert radix.passes(32, (16, 10)) == 3
    x = numbers("f4", (5000,))
    assert_equal(x, np.linspace(0, 1, 1000))
    assert_equal(x, np.linspace(0, 1, 1000), chunks=999)
    assert_equal(x // 0.001, np.linspace(0, 1, 1000))


def test_how_often_a_store_is_read(monkeypatch):
    for dtype, collected, times in (("u1", 0, 1), ("i2", 0, 1), ("f4", 0, 2), ("f8", 40, 2), ("f8", 0, 4)):
        monkeypatch.setattr(radix, "COLLECTED", collected)
        store = Store(numbers(dtype), 100)
        median = quantile(store.cut(), 0.5)
        assert not store.reads
        assert computed(median) == np.quantile(store.array, 0.5)
        assert store.reads == [(100, 2)] * 4 * times  # chunk by chunk, and not again once all is known


def test_tasks():
    assert tasks(quantile(Store(numbers("i2"), 100).cut(), 0.5)) == {"quantile-count": 4, "quantile": 1}
    two = tasks(quantile(Store(numbers("f4"), 100).cut(), 0.5))
    assert two == {"quantile-count": 8, "quantile-narrow": 1, "quantile": 1}
    whole = quantile(da.from_array(numbers("f4"), chunks=(400, 1)), 0.5, axis=0)
    assert sum(tasks(whole).values()) == 2
    assert tasks(quantile(Store(numbers("f4"), 100).cut(), 0.5, exact=False)) == {"quantile-sketch": 4, "quantile": 1}


def test_the_graph_travels():
    x = numbers("f4")
    lazy = quantile(da.from_array(x, chunks=(90, 1)), [0.5, 0.9], axis=0)
    assert computed(pickle.loads(pickle.dumps(lazy))).tolist() == np.quantile(x, [0.5, 0.9], axis=0).tolist()


def test_equal_calls_have_equal_keys():
    x = da.ones((40, 2), chunks=10)
    assert quantile(x, 0.5).name == quantile(x, 0.5).name != quantile(x, 0.6).name


def test_within_an_error_in_one_pass():
    x = np.exp(numbers("f8", (3000, 2)))
    want = np.quantile(x, [0.01, 0.5, 0.99], axis=0)
    one = quantile(x, [0.01, 0.5, 0.99], 0, exact=False, error=0.01)
    np.testing.assert_allclose(one, want, rtol=0.01)
    assert not np.array_equal(one, want)
    for chunks in ((700, 2), (1000, 1)):
        lazy = quantile(da.from_array(x, chunks=chunks), [0.01, 0.5, 0.99], 0, exact=False, error=0.01)
        assert gp.digest(computed(lazy)) == gp.digest(one)


def test_errors():
    x = np.arange(5.0)
    for q in (1.5, -0.1, np.nan, "half", np.zeros((1, 1, 1))):
        with pytest.raises(gp.OptionError, match=r"expected numbers in \[0, 1\]"):
            quantile(x, q)
    with pytest.raises(gp.OptionError, match="method='median': expected one of inverted_cdf, closest_observation"):
        quantile(x, 0.5, method="median")
    with pytest.raises(gp.OptionError, match="error=0: expected a number above 0"):
        quantile(x, 0.5, exact=False, error=0)
    with pytest.raises(gp.OptionError, match="axis=1 for an array of 1 axes"):
        quantile(x, 0.5, 1)
    with pytest.raises(gp.DTypeError, match="quantile of bool: expected integers or floats"):
        quantile(x > 1, 0.5)
    with pytest.raises(gp.ShapeError, match="at least one element"):
        quantile(da.zeros((0, 3)), 0.5, 0)
