"""`describe` of chunks: bits, tasks, errors."""

from __future__ import annotations

import dask
import dask.array as da
import numpy as np
import pytest
from stat_checks import Store, computed, tasks

import gpucompute as gp
from gpucompute.stats import describe

random = np.random.default_rng(0)
images = random.integers(0, 256, (6, 8, 10, 3), np.uint8)
table = (random.standard_normal((2048, 6)) + 3).astype(np.float32)


def same_bits(x, axis, ddof=1, **cut):
    """Compare with NumPy's result and return whether all bits agree."""
    want = describe(x, axis, ddof=ddof)
    got = describe(da.from_array(x, **cut), axis, ddof=ddof)
    assert got.nobs == want.nobs and isinstance(got.nobs, int)
    values = computed(*got.minmax, got.mean, got.variance)
    wanted = [*want.minmax, want.mean, want.variance]
    for value, wish in zip(values, wanted, strict=True):
        assert value.dtype == wish.dtype
        np.testing.assert_allclose(value, wish, rtol=1e-5)
    return all(gp.digest(np.asarray(v)) == gp.digest(np.asarray(w)) for v, w in zip(values, wanted, strict=True))


@pytest.mark.parametrize(("axis", "chunks"), [((0, 1, 2), (2, 3, 7, 2)), (-1, (6, 8, 10, 3)), ((0, 2), (4, 8, 5, 3))])
def test_bytes_are_exact_for_any_chunks(axis, chunks):
    assert same_bits(images, axis, chunks=chunks)


def test_floats_keep_their_bits_where_chunks_end_on_tiles():
    assert same_bits(table, 0, chunks=(512, 6))
    assert not same_bits(table, 0, chunks=(300, 6))


def test_too_few_elements_for_ddof():
    assert np.isnan(computed(describe(da.from_array(images), None, ddof=1440).variance))
    assert np.isnan(describe(images, None, ddof=1440).variance)


def test_one_pass_over_a_store():
    store = Store(table, 512)
    found = describe(store.cut(), 0)
    assert not store.reads
    both = [*found.minmax, found.mean, found.variance]
    assert tasks(*both) == {"describe-partial": 4, "describe-reduced": 1, "describe": 4}
    store.reads.clear()
    computed(*both)
    assert store.reads == [(512, 6)] * 4


def test_errors():
    with pytest.raises(gp.DTypeError, match="describe of complex128: expected real numbers"):
        describe(da.arange(4).astype(complex))
    with pytest.raises(gp.ShapeError, match="expected at least one element"):
        describe(da.zeros((0, 3), dtype=np.uint8))
    with pytest.raises(gp.OptionError, match="axis=2 for an array of 2 axes"):
        describe(da.zeros((4, 3), dtype=np.uint8), 2)
    numbers = da.arange(9, chunks=3).astype(np.float32)
    with pytest.raises(gp.ShapeError, match="chunks of unknown size"):
        describe(numbers[numbers > 2])


@pytest.mark.parametrize("dtype", ["?", "i4", "u8", "f2", "f8", ">i2"])
def test_other_dtypes_are_fused(dtype: str) -> None:
    random, dtype = np.random.default_rng(0), np.dtype(dtype)
    if dtype.kind in "iu":
        x = random.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, (700, 3), dtype.newbyteorder("="), True)
    else:
        x = random.normal(0.1, 1, (700, 3))
    x = x.astype(dtype)
    wide = np.longdouble if dtype.itemsize == 8 else np.float64
    for given in (x, da.from_array(x, chunks=(256, 2))):
        found = describe(given, 0)
        small, large, mean, variance = dask.compute(*found.minmax, found.mean, found.variance, scheduler="sync")
        assert found.nobs == 700
        assert np.array_equal(small, x.min(0)) and np.array_equal(large, x.max(0))
        tolerance = 2e-2 if dtype.itemsize == 2 and dtype.kind == "f" else 1e-6
        assert mean.dtype == np.mean(x).dtype.newbyteorder("=")
        np.testing.assert_allclose(mean, x.mean(0, dtype=wide).astype(float), rtol=tolerance)
        np.testing.assert_allclose(variance, x.var(0, dtype=wide, ddof=1).astype(float), rtol=tolerance)
