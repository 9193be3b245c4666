"""`covariance` against NumPy's and `PCA` against scikit-learn's, of arrays and of chunks."""

from __future__ import annotations

import dask
import dask.array as da
import numpy as np
import pytest
import sklearn.decomposition
from dask.array.optimization import optimize
from stat_checks import Store, computed, tasks, tasks_of

import gpucompute as gp
from gpucompute.stats import PCA, covariance, scatter
from gpucompute.stats.estimator import DataError, NotFittedError

random = np.random.default_rng(0)
NAMES = ["components_", "explained_variance_", "explained_variance_ratio_", "singular_values_", "mean_"]
NAMES += ["noise_variance_"]
COUNTS = ["n_components_", "n_features_in_", "n_samples_"]


def rows(n, d, offset=100.0):
    return random.standard_normal((n, d)) @ random.standard_normal((d, d)) * np.geomspace(1, 9, d) + offset


@pytest.mark.parametrize("dtype", ["f8", "f4", "i2", "?"])
@pytest.mark.parametrize(("n", "d"), [(9000, 5), (50, 1), (7, 12)])
def test_covariance_is_numpys(n, d, dtype):
    x = rows(n, d).astype(dtype)
    want = np.cov(x, rowvar=False).reshape(d, d)
    for chunks in ((n, d), (max(1, n // 11), d), (n // 3, max(1, d // 2))):
        found = computed(covariance(da.from_array(x, chunks=chunks)))
        np.testing.assert_allclose(found, want, rtol=1e-9, atol=1e-9 * np.abs(want).max())
    np.testing.assert_allclose(covariance(x, ddof=3), np.cov(x, rowvar=False, ddof=3).reshape(d, d), atol=1e-9)


def test_a_large_mean_costs_no_digits():
    x = rows(5000, 3)
    for shifted in (x + 1e8, da.from_array(x + 1e8, chunks=(300, 3))):
        np.testing.assert_allclose(np.asarray(covariance(shifted)), np.cov(x, rowvar=False), rtol=1e-6)


def test_nothing_to_divide_by():
    assert np.isnan(covariance(np.ones((1, 2)))).all()


def test_covariance_reads_once(monkeypatch):
    monkeypatch.setattr(scatter, "ROWS", 1)  # several pieces and slabs in each chunk
    monkeypatch.setattr(scatter, "SLAB", 64)
    store = Store(rows(900, 4), 300)
    found = covariance(store.cut())
    assert tasks(found) == {"covariance-partial": 3, "covariance": 1}
    store.reads.clear()
    np.testing.assert_allclose(computed(found), np.cov(store.array, rowvar=False), rtol=1e-10)
    assert store.reads == [(300, 4)] * 3


@pytest.mark.parametrize("solver", ["covariance_eigh", "tsqr"])
@pytest.mark.parametrize(
    "options", [{}, {"n_components": 2}, {"n_components": 0.9}, {"n_components": 3, "whiten": True}]
)
def test_pca_is_scikit_learns(solver, options):
    x = rows(700, 6)
    want = sklearn.decomposition.PCA(svd_solver="full", **options).fit(x)
    for given in (x, da.from_array(x, chunks=(90, 4))):
        found = PCA(svd_solver=solver, **options).fit(given)
        for name in NAMES:
            np.testing.assert_allclose(getattr(found, name), getattr(want, name), rtol=1e-7, atol=1e-9, err_msg=name)
        assert [getattr(found, name) for name in COUNTS] == [getattr(want, name) for name in COUNTS]
        moved = found.transform(given)
        assert isinstance(moved, type(given))
        np.testing.assert_allclose(computed(moved), want.transform(x), atol=1e-8)
        back = found.inverse_transform(moved)
        np.testing.assert_allclose(computed(back), want.inverse_transform(want.transform(x)), atol=1e-8)


def test_fewer_rows_than_columns():
    x = rows(8, 20)
    want = sklearn.decomposition.PCA(4).fit(x)
    for solver in ("auto", "tsqr"):
        found = PCA(4, svd_solver=solver).fit(da.from_array(x, chunks=(3, 20)))
        for name in NAMES:
            np.testing.assert_allclose(getattr(found, name), getattr(want, name), rtol=1e-6, err_msg=name)
        assert PCA(svd_solver=solver).fit(x).components_.shape == (8, 20)


def test_tsqr_keeps_what_squares_lose():
    x = random.standard_normal((500, 2)) * [1, 1e-10]
    true = x[:, 1].var(ddof=1)
    assert PCA(svd_solver="tsqr").fit(x).explained_variance_[1] == pytest.approx(true, rel=1e-3)
    assert PCA(svd_solver="tsqr").fit(da.from_array(x, chunks=100)).explained_variance_[1] == pytest.approx(
        true, rel=1e-3
    )


def test_float32_stays_float32():
    x = rows(300, 4, offset=0).astype(np.float32)
    found = PCA(2).fit(x)
    assert {getattr(found, name).dtype for name in NAMES[:-1]} == {np.dtype(np.float32)}
    assert found.transform(x).dtype == np.float32
    assert computed(found.fit_transform(da.from_array(x, chunks=100))).dtype == np.float32


def test_pca_reads_once():
    store = Store(rows(900, 4), 300)
    PCA(2).fit(store.cut())
    assert store.reads == [(300, 4)] * 3


def test_transform_is_float64_unless_all_is_float32():
    x = rows(300, 4)
    for dtypes in (("f4", "f4"), ("f4", "f8"), ("f8", "f4"), ("f4", "u1"), ("f4", "i8"), ("f4", "f2")):
        data, given = (x.astype(dtype) for dtype in dtypes)
        found, want = PCA(2).fit(data), sklearn.decomposition.PCA(2, svd_solver="full").fit(data)
        for moved in (found.transform(given), computed(found.transform(da.from_array(given, chunks=100)))):
            assert moved.dtype == want.transform(given).dtype
            back = computed(found.inverse_transform(da.from_array(moved, chunks=100)))
            assert back.dtype == want.inverse_transform(moved).dtype
            np.testing.assert_allclose(back, want.inverse_transform(moved), rtol=1e-3)


def test_pca_computes_its_chunks_as_arrays_are():
    chunks = (da.from_array(rows(900, 4), chunks=(300, 4)) - 1) * 2
    assert tasks_of(lambda: PCA(2).fit(chunks)) == {"array-pca-partial": 3, "pca": 1}
    asked = []

    def optimised(graph, keys, **options):
        asked.append(keys)
        return optimize(graph, keys, **options)

    with dask.config.set(array_optimize=optimised):  # where `gp.chunked.install` waits
        PCA(2).fit(chunks)
    assert len(asked) == 1


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 1e200])
def test_values_that_have_no_components(wrong):
    x = rows(300, 4)
    x[170, 2] = wrong
    for solver in ("auto", "tsqr") if abs(wrong) != 1e200 else ("auto",):
        for given in (x, da.from_array(x, chunks=(100, 4))):
            with pytest.raises(DataError, match="x holds NaN or infinity, or its squares overflow; expected finite"):
                PCA(2, svd_solver=solver).fit(given)
    want = np.zeros((4, 4), bool)
    want[2], want[:, 2] = True, True
    np.testing.assert_array_equal(~np.isfinite(covariance(x)) | (np.abs(covariance(x)) > 1e150), want)


def test_errors():
    x = rows(9, 4)
    with pytest.raises(gp.ShapeError, match=r"covariance of shape \(9,\): expected \(observations, variables\)"):
        covariance(x[:, 0])
    with pytest.raises(gp.DTypeError, match="covariance of complex128"):
        covariance(x + 1j)
    with pytest.raises(gp.OptionError, match="svd_solver='arpack': expected one of auto, covariance_eigh, tsqr"):
        PCA(svd_solver="arpack").fit(x)
    for wrong in (5, -1, 1.5, "mle", True):
        with pytest.raises(gp.OptionError, match=r"n_components=.*: expected a whole number from 0 to min\(n, d\) = 4"):
            PCA(wrong).fit(x)
    with pytest.raises(gp.ShapeError, match="two rows or more"):
        PCA().fit(x[:1])
    with pytest.raises(gp.ShapeError, match=r"PCA.transform of shape \(9, 3\): expected 4 columns"):
        PCA(2).fit(x).transform(x[:, :3])
    for method in (PCA().transform, PCA().inverse_transform):
        with pytest.raises(NotFittedError, match=r"PCA.(inverse_)?transform before fit; call fit first"):
            method(x)
