"""The NumPy-like functions: what they dispatch on, and where they go beyond NumPy."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import gpucompute as gp
from gpucompute import namespace


def test_it_is_an_array_api_namespace() -> None:
    assert gp.__array_api_version__ == "2025.12"
    info = gp.__array_namespace_info__()
    assert info.devices()[0] == info.default_device() == "cpu"
    assert info.default_dtypes(device="cpu")["real floating"] == np.float64
    assert info.dtypes(kind="bool") == {"bool": np.bool}
    with pytest.raises(gp.OptionError):
        info.dtypes(device="tpu")


def test_numpys_functions_come_as_they_are() -> None:
    """So that they cost nothing more, keep their signatures, and numba knows them."""
    for name in ("sin", "add", "where", "percentile", "concat", "float32", "pi", "ndarray"):
        assert getattr(gp, name) is getattr(np, name)
    assert gp.linalg.norm is np.linalg.norm
    assert gp.fft.rfft is np.fft.rfft
    assert gp.add.reduce([1, 2, 3]) == 6


def test_every_function_of_numpy_dispatches_or_creates() -> None:
    """A function that NumPy's protocols miss must be in a table of ours, or take no arrays at all."""
    arrayless = namespace._words(
        """asmatrix base_repr binary_repr bmat broadcast_shapes datetime_data diag_indices format_float_positional
        format_float_scientific fromregex frompyfunc getbufsize geterr geterrcall get_printoptions info isdtype
        isfortran isscalar issubdtype iterable mask_indices mintypecode nested_iters printoptions promote_types require
        row_stack set_printoptions setbufsize seterr seterrcall trapz typename"""
    )
    ours = namespace.CREATION | namespace.LIKE | namespace.STANDARD | {"asarray"}
    missed = set()
    for name in set(namespace.names()) - set(namespace.EXTRA_OPS) - ours - arrayless:
        value = getattr(np, name)
        if callable(value) and not isinstance(value, type | np.ufunc) and not hasattr(value, "_implementation"):
            missed.add(name)
    assert not missed


def test_take_dispatches_on_the_indices_too() -> None:
    """NumPy's asks the array alone, so that a table of NumPy's could not be looked up in a fused function."""
    table = np.arange(20.0).reshape(4, 5)
    i = np.array([[3, 0], [1, 3]])
    for axis, index in [(None, i * 5), (0, i), (1, i), (-1, i)]:
        expected = np.take(table, index, axis)
        assert np.array_equal(gp.take(table, index, axis), expected)
        assert np.array_equal(gp.fuse(lambda i, axis=axis: gp.take(table, i, axis))(index), expected)
    assert gp.fuse(lambda i: gp.take(table, i, mode="clip"))(np.array([99, 2])).tolist() == [19, 2]
    out = np.empty((2, 2))
    assert gp.take(table, i, out=out, mode="clip") is out and out.tolist() == [[3, 0], [1, 3]]
    assert gp.take([5, 6], 1) == 6
    with pytest.raises(IndexError):
        gp.take(table, [99])


def test_lists_and_scalars_are_taken_as_numpy_takes_them() -> None:
    assert gp.add([1, 2], 3).tolist() == [4, 5]
    assert gp.percentile([1, 2, 3], 50) == 2
    assert gp.linalg.norm([3, 4]) == 5
    assert gp.zeros((2, 3), np.int8).dtype == np.int8
    assert gp.array([1, 2], dtype="f4").dtype == np.float32
    assert gp.linspace(0, 1, 3).tolist() == [0, 0.5, 1]


@pytest.mark.parametrize("device", [None, "cpu", gp.Device("cpu")])
def test_device_is_a_keyword_of_all_creation(device: Any) -> None:
    x = np.arange(3, dtype=np.float32)
    assert gp.zeros(3, device=device).device == "cpu"
    assert gp.full_like(x, 2, device=device).tolist() == [2, 2, 2]
    assert gp.astype(x, np.int8, device=device).dtype == np.int8
    assert gp.fft.fftfreq(4, dtype=np.float32, device=device).dtype == np.float32
    assert np.shares_memory(gp.from_dlpack(x, device=device), x)
    assert not np.shares_memory(gp.from_dlpack(x, device=device, copy=True), x)


def test_dask_arrays_stay_lazy() -> None:
    da = pytest.importorskip("dask.array")
    lazy = gp.take(np.arange(8).reshape(4, 2) * 10, da.from_array([3, 1, 5], chunks=2))
    assert isinstance(lazy, da.Array) and lazy.compute().tolist() == [30, 10, 50]
    x = da.from_array(np.arange(12.0).reshape(3, 4), chunks=(3, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Dask warns where it computes at once, for want of the function
        results = {
            "sin": gp.sin(x),
            "sum": gp.sum(x, axis=0),
            "where": gp.where(x > 3, x, 0),
            "concat": gp.concat([x, x]),
            "permute_dims": gp.permute_dims(x, (1, 0)),
            "norm": gp.linalg.norm(x),
            "fft": gp.fft.fft(x, axis=0),
            "mixed": gp.add(np.ones((3, 4)), x),
            "zeros_like": gp.zeros_like(x),
            "astype": gp.astype(x, np.float32),
            "array": gp.asanyarray(x),
        }
    for name, result in results.items():
        assert isinstance(result, da.Array), name
    np.testing.assert_array_equal(results["where"].compute(), np.where(x.compute() > 3, x.compute(), 0))


class Traced:
    """Stands in for the proxies of `fuse`: writes down what NumPy's protocols bring."""

    __module__ = "gpucompute.fusion.trace"

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *args: Any, **kwargs: Any) -> tuple[str, str]:
        return ("ufunc", ufunc.__name__)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> tuple[str, str]:
        return ("function", function.__name__)

    def astype(self, dtype: Any, copy: bool = True) -> tuple[str, str]:
        return ("astype", np.dtype(dtype).name)


def test_traced_proxies_are_asked_by_numpys_protocols() -> None:
    x: Any = Traced()
    assert gp.exp(x) == ("ufunc", "exp")
    assert gp.add(np.ones(3), x) == ("ufunc", "add")
    assert gp.stack([np.ones(3), x]) == ("function", "stack")
    assert gp.zeros_like(x) == ("function", "zeros_like")
    assert gp.linspace(0, x, 3) == ("function", "linspace")
    assert gp.astype(x, "float32") == gp.asarray(x, dtype="float32") == ("astype", "float32")
    assert gp.asarray(x) is x


def test_astype_wants_an_array() -> None:
    with pytest.raises(TypeError, match="astype takes an array, got list; use asarray"):
        gp.astype([1, 2], np.int8)


def test_limits_of_an_arrays_dtype() -> None:
    assert gp.finfo(np.ones(2, np.float32)).bits == gp.finfo(gp.float32).bits == 32
    assert gp.iinfo(np.ones(2, np.int8)).max == gp.iinfo("int8").max == 127


@given(
    hnp.arrays(np.int8, hnp.array_shapes(max_dims=2, max_side=6), elements=st.integers(-2, 2)),
    st.booleans(),
)
def test_sorting_down_is_stable(x: np.ndarray, descending: bool) -> None:
    for axis in (*range(-x.ndim, x.ndim), None):
        order = gp.argsort(x, axis=axis, descending=descending)
        flat, along = (x.ravel(), -1) if axis is None else (x, axis)
        # Stable: no other order has the keys (value, index) ascending.
        keys = np.where(descending, -1, 1) * np.take_along_axis(flat, order, axis=along).astype(int) * flat.size + order
        assert np.all(np.diff(keys, axis=along) > 0)
        ordered = gp.sort(x, axis=axis, descending=descending)
        np.testing.assert_array_equal(ordered, np.take_along_axis(flat, order, axis=along))


@pytest.mark.parametrize("dtype", ["int64", "float32", "float64", "complex64"])
def test_eigenvalues_are_complex_whatever_the_matrix(dtype: str) -> None:
    real, rotation = np.diag([1, 2]).astype(dtype), np.array([[0, -1], [1, 0]], dtype)
    for x in (real, rotation, np.stack([real, rotation])):
        values, vectors = gp.linalg.eig(x)
        assert values.dtype == vectors.dtype == gp.linalg.eigvals(x).dtype == np.result_type(dtype, np.complex64)
        np.testing.assert_allclose(x @ vectors, vectors * values[..., None, :], atol=1e-6)
