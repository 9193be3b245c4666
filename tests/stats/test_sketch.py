"""`QuantileSketch`: its error, and that nothing depends on the order."""

from __future__ import annotations

import copy
import pickle

import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stat_checks import tasks_of

import gpucompute as gp
from gpucompute.stats import QuantileSketch

random = np.random.default_rng(0)
wide = random.standard_normal(2000) * 10.0 ** random.integers(-30, 30, 2000)


def state(sketch):
    return sketch.count, sketch.minimum, sketch.maximum, sketch._buckets.tolist(), sketch._counts.tolist()


@pytest.mark.parametrize("error", [0.3, 0.01, 0.001, 2.0**-10, 1e-5, 1e-12])
def test_every_order_statistic_is_within_the_error(error):
    found = QuantileSketch(error).update(wide).order_statistics(range(len(wide)))
    off = np.abs(found / np.sort(wide) - 1).max()
    assert error / 10 < off <= error or off < 1e-4 > error


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=40), st.floats(0, 1))
def test_any_numbers(values, q):
    x = np.array(values)
    found = QuantileSketch(0.01).update(x).quantile(q, method="lower")
    want = np.quantile(x, q, method="lower")
    tiny = np.finfo(np.float64).tiny
    assert found == want or abs(found - want) <= 0.01 * abs(want) + tiny


@pytest.mark.parametrize("error", [0.01, 1e-6])
def test_chunks_order_and_merging_change_nothing(error):
    whole = QuantileSketch(error).update(wide)
    backwards = QuantileSketch(error)
    for part in np.array_split(wide[::-1], 7):
        backwards.update(part)
    merged = QuantileSketch(error).update(wide[:300]).merge(QuantileSketch(error).update(wide[300:]))
    chunked = QuantileSketch(error).update(da.from_array(wide.reshape(-1, 2), chunks=(130, 1)))
    for other in (backwards, merged, chunked, pickle.loads(pickle.dumps(whole))):
        assert state(other) == state(whole)


def test_merging_leaves_the_other_as_it_was():
    one, other = (QuantileSketch().update(part) for part in np.split(wide, 2))
    before = state(copy.deepcopy(other))
    one.merge(other).update(wide)
    assert state(other) == before


def test_dtypes_and_their_extremes():
    for dtype in ["u1", "i8", "u8", "f2", "f4", ">f8"]:
        x = (random.random(500) * 200).astype(dtype)
        sketch = QuantileSketch(0.01).update(x)
        assert (sketch.minimum, sketch.maximum, sketch.count) == (x.min(), x.max(), 500)
        assert (sketch.quantile(0), sketch.quantile(1)) == (x.min(), x.max())
        np.testing.assert_allclose(sketch.quantile([0.2, 0.7]), np.quantile(x.astype(float), [0.2, 0.7]), rtol=0.01)


def test_zeros_infinities_and_nans():
    x = np.array([0.0, -0.0, 0.0, np.inf, -np.inf, 1e-320])
    assert QuantileSketch().update(x).order_statistics(range(6)).tolist() == [-np.inf, 0, 0, 0, 0, np.inf]
    sketch = QuantileSketch().update(x).update(np.array([np.nan]))
    assert sketch.count == 7
    assert np.isnan([sketch.quantile(0.5), sketch.minimum, sketch.maximum]).all()
    assert np.isnan(QuantileSketch().quantile([0.5])).all()


def test_zeros_have_no_sign_in_any_order():
    x = np.array([0.0, -0.0])
    for values in (x, -x, x[:1], x[1:]):
        sketch = QuantileSketch().update(values)
        for one in values:
            sketch.merge(QuantileSketch().update([one]))
        assert not np.signbit([sketch.minimum, sketch.maximum, *sketch.quantile([0, 0.5, 1])]).any()


def test_tasks_are_those_of_an_array():
    chunks = (da.from_array(wide, chunks=400) - 1) * 2
    assert tasks_of(lambda: QuantileSketch().update(chunks)) == {"array-quantile-sketch": 5, "quantile-merge": 1}


def test_repr_and_errors():
    assert repr(QuantileSketch(0.01).update([1, 1, 2])) == "<QuantileSketch error=0.01 count=3 buckets=2>"
    for error in (0, 1, -1, np.nan):
        with pytest.raises(gp.OptionError, match="expected a number above 0 and below 1"):
            QuantileSketch(error)
    with pytest.raises(gp.OptionError, match=r"merge of sketches with error=0.01 and error=0.1: expected the same"):
        QuantileSketch(0.01).merge(QuantileSketch(0.1))
    with pytest.raises(gp.DTypeError, match="QuantileSketch of complex128"):
        QuantileSketch().update(np.ones(2, complex))
    with pytest.raises(gp.OptionError, match=r"expected numbers in \[0, 1\]"):
        QuantileSketch().quantile(2)
