"""`histogram` against NumPy's, of arrays and of chunks."""

from __future__ import annotations

import re
from itertools import product

import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stat_checks import Store, computed, tasks

import gpucompute as gp
from gpucompute.stats import histogram

random = np.random.default_rng(0)


def numbers(dtype):
    dtype = np.dtype(dtype)
    if dtype.kind == "f":  # rounded: many lie on edges
        return (random.standard_normal((700, 2)) * 3).round(1).astype(dtype)
    low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    return random.integers(max(low, -2000), min(high, 2000), (700, 2), endpoint=True).astype(dtype)


def assert_equal(x, bins, limits, density, weights):
    seen = x.astype(np.uint8) if x.dtype == bool else x
    options = {"density": density, "weights": weights}
    chunks = da.from_array(x, chunks=(90, 1))
    try:
        with np.errstate(all="ignore"):
            want = np.histogram(seen, bins, limits, **options)
    except ValueError as error:
        text = re.escape(str(error))
        for given in (x, chunks):
            with pytest.raises(gp.OptionError, match=f"^{text}$"):
                computed(*histogram(given, bins, limits, **options))
        return
    with np.errstate(all="ignore"):
        for got in (histogram(x, bins, limits, **options), computed(*histogram(chunks, bins, limits, **options))):
            for value, wish in zip(got, want, strict=True):
                assert value.dtype == wish.dtype
                np.testing.assert_array_equal(value, wish)


BINS = [10, 257, [0, 1, 2.5, 2.5, 7], np.array([0, 3, 5, 100]), np.linspace(-1, 1, 9, dtype=np.float32), [1.5]]
WRONG = [0, -3, [3, 2, 1], [[1, 2]]]


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", ">f4", "?"])
def test_counts_and_edges_are_numpys(dtype):
    x = numbers(dtype)
    for bins, limits in product(BINS, (None, (-3.3, 4.1), (5, 5))):
        assert_equal(x, bins, limits, density=False, weights=None)
    assert_equal(x, 7, None, density=True, weights=None)
    assert_equal(x, 7, None, density=False, weights=random.integers(0, 5, x.shape))
    assert_equal(x, BINS[3], (0, 1), density=True, weights=random.integers(0, 5, x.shape) / 8)


@pytest.mark.parametrize("dtype", ["?", "u1", "i1", "i2", ">i2", "u4", "f4", "c8"])
def test_sums_of_weights_are_numpys_for_any_chunks(dtype):
    """Small integers wrap, and booleans stay what they are."""
    x = np.tile([1.0, 0.0, 0.5], 200)
    weights = np.full(600, 120).astype(dtype)
    for bins, density in product([2, 3, [0, 0.6, 2]] if dtype != "?" else [2, 3], (False, True)):
        options = {"bins": bins, "range": (0, 2), "weights": weights, "density": density}
        want = np.histogram(x, **options)[0]
        for chunks in (600, 100, (1, 599), 7):
            got = computed(histogram(da.from_array(x, chunks=chunks), **options)[0])
            assert got.dtype == want.dtype.newbyteorder("=")
            np.testing.assert_array_equal(got, want)


def test_weights_and_ranges_of_dask():
    x, weights = numbers("f4"), random.random((700, 2))
    got = histogram(x, 7, weights=da.from_array(weights, chunks=(90, 2)))
    for value, wish in zip(got, np.histogram(x, 7, weights=weights), strict=True):
        np.testing.assert_array_equal(value, wish)
    chunks = da.from_array(x, chunks=(90, 2))
    for numbered in (x, chunks):
        with pytest.raises(gp.OptionError, match=r"range of Dask arrays; expected numbers: dask.compute\(\*range\)"):
            histogram(numbered, 7, (chunks.min(), chunks.max()))


def test_errors_are_numpys():
    for bins in WRONG:
        assert_equal(numbers("f4"), bins, None, density=False, weights=None)
        assert_equal(numbers("u1"), bins, None, density=False, weights=None)
    for limits in ((3, 1), (0, np.inf), (np.nan, 1)):
        assert_equal(numbers("f4"), 3, limits, density=False, weights=None)
    for value in (np.nan, np.inf):
        assert_equal(np.array([[1, value]], np.float32), 3, None, density=False, weights=None)
    with pytest.raises(gp.OptionError, match="same shape"):
        histogram(numbers("f4"), weights=np.ones(3))
    with pytest.raises(gp.OptionError, match=r"weights of shape \(3,\)"):
        histogram(da.ones((4, 2)), weights=np.ones(3))
    with pytest.raises(gp.OptionError, match="bins='fd' of a Dask array"):
        histogram(da.ones(4), "fd")
    with pytest.raises(gp.DTypeError, match="histogram of complex128"):
        histogram(np.ones(3, complex))


@pytest.mark.parametrize("limits", [(-8e307, 8e307), (0, 1e-310), (1e300, 1.5e300)])
def test_extents_that_no_factor_spans(limits):
    x = np.array([*limits, 0, 1, np.nan, np.inf, -np.inf, np.mean(limits)])
    counts, edges = histogram(x, 4, limits)
    expected = np.histogram(x[np.isfinite(x)], edges)[0]  # NumPy's other way, by sorting
    np.testing.assert_array_equal(counts, expected)


def test_nothing_at_all_and_rules():
    assert_equal(np.zeros((0, 2), np.float32), 3, None, density=False, weights=None)
    assert_equal(np.zeros((0, 2), np.uint8), 3, None, density=False, weights=None)
    x = numbers("f8")
    for got, want in zip(histogram(x, "fd"), np.histogram(x, "fd"), strict=True):
        np.testing.assert_array_equal(got, want)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=50),
    st.lists(st.floats(-100, 100, width=32), min_size=2, max_size=40),
    st.integers(1, 30),
)
def test_any_edges(values, edges, bins):
    x, edges = np.array(values, np.float32), np.sort(np.array(edges, np.float32))
    np.testing.assert_array_equal(histogram(x, edges)[0], np.histogram(x, edges)[0])
    np.testing.assert_array_equal(histogram(x, bins)[0], np.histogram(x, bins)[0])


def test_how_often_a_store_is_read():
    for dtype, limits, times in (("u1", None, 1), ("i2", None, 1), ("f4", (0, 1), 1), ("f4", None, 2), ("i8", None, 2)):
        store = Store(numbers(dtype), 100)
        found = histogram(store.cut(), 5, limits)
        assert not store.reads
        computed(*found)
        assert store.reads == [(100, 2)] * 7 * times


def test_tasks():
    counts, _ = histogram(Store(numbers("f4"), 100).cut(), 5, (0, 1))
    assert tasks(counts) == {"histogram-count": 7, "histogram": 1}
    many = histogram(Store(numbers("f4"), 11).cut(), 5, (0, 1))[0]
    assert tasks(many) == {"histogram-count": 64, "histogram-combine": 8, "histogram": 1}
