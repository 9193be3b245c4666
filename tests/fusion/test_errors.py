from __future__ import annotations

import array
import math
import re

import numpy as np
import pytest

import gpucompute as gp
from gpucompute.errors import FusionError
from gpucompute.fusion.trace import trace
from gpucompute.fusion.user import reduction, vectorize

X = np.arange(12.0).reshape(3, 4)


def branch(x):
    if x.sum() > 0:
        return x
    return -x


def argument_in_place(x):
    x += 1
    return x


def argument_through_a_view(x):
    x[1:][0] = 2
    return x


def loop(x):
    total = 0
    while total < x.max():
        total += 1
    return total


def stale_reshape(x):
    y = x + 1
    flat = y.reshape(-1)
    y[0] = 0
    return flat


def write_through_reshape(x):
    y = x + 1
    y.reshape(-1)[0] = 0
    return y


def numpy_buffer(x):
    out = np.zeros(4)
    out[:] = x[0]
    return out


def numpy_accumulator(x):
    total = np.zeros(4)
    for row in x:
        total += row
    return total


def scalar_item(x):
    s = x.sum()
    s[...] = 1
    return s


def two_masks(x):
    y = x.copy()
    y[x > 0] = x[x < 3]
    return y


CASES = {
    "branch": (branch, "a branch", "np.where", "static_argnames"),
    "loop": (loop, "a branch", "np.where"),
    "float": (lambda x: float(x[0, 0]), "a conversion to a Python number", "np.sqrt instead of math.sqrt"),
    "math": (lambda x: math.sqrt(x[0, 0]), "a conversion to a Python number", "math.sqrt"),
    "index": (lambda x: [1, 2, 3][x.argmax()], "a conversion to a Python number"),
    "item": (lambda x: x.max().item(), "a conversion to a Python number"),
    "in": (lambda x: 3 in x, "the test `in`", "(x == value).any()"),
    "asarray": (lambda x: np.asarray(x) + 1, "a conversion to a NumPy array", "outside the fused function"),
    "buffer": (numpy_buffer, "assignment into a NumPy array made inside", "np.zeros_like(x)"),
    "accumulator": (numpy_accumulator, "out= is a NumPy array made inside the function", "np.zeros_like(x)"),
    "matmul": (lambda x: x @ x.T, "matrix products (@)", "outside the fused function"),
    "np.matmul": (lambda x: np.matmul(x, x.T), "np.matmul is a library call that cannot be fused"),
    "dot": (lambda x: x.dot(x), "the array's dot cannot be fused", "outside"),
    "sort": (lambda x: np.sort(x), "numpy.sort cannot be fused", "outside the fused function"),
    "method sort": (lambda x: x.sort(), "the array's sort cannot be fused"),
    "fft": (lambda x: np.fft.fft(x), "numpy.fft.fft cannot be fused"),
    "median": (lambda x: np.median(x), "numpy.median cannot be fused"),
    "cumsum": (lambda x: x.cumsum(), "the array's cumsum cannot be fused"),
    "accumulate": (lambda x: np.add.accumulate(x), "np.add.accumulate cannot be fused"),
    "reduce": (lambda x: np.subtract.reduce(x), "np.subtract.reduce cannot be fused", "gp.reduction"),
    "mask read": (lambda x: np.sqrt(x[x > 0]) + x[0, :2], "number of elements of x[mask]", "np.where(mask, x, fill)"),
    "mask returned": (lambda x: x[x > 0], "number of elements of x[mask]", "np.where"),
    "mask length": (lambda x: len(x[x > 0]), "len", "number of elements of x[mask]"),
    "two masks": (two_masks, "the two masks may hold different numbers"),
    "where": (lambda x: np.where(x > 0), "gives as many indices as there are true values"),
    "slice": (lambda x: x[: x.argmax()], "the bounds of a slice are run-time values", "static_argnames"),
    "shape": (lambda x: x.reshape(x.argmax(), -1), "the new shape must be known", "static_argnames"),
    "axis": (lambda x: x.sum(x.argmax()), "axis must be known", "static_argnames"),
    "argument": (argument_in_place, "an argument of a fused function cannot be assigned to", "x = x.copy()"),
    "argument view": (argument_through_a_view, "an argument of a fused function cannot be assigned to"),
    "stale": (stale_reshape, "the result of reshape is read after its base was assigned to", ".copy()"),
    "reshape": (write_through_reshape, "the result of reshape cannot be assigned to", "Assign to the base"),
    "scalar": (scalar_item, "a NumPy scalar cannot be assigned to"),
    "scatter": (lambda x: x.copy().__setitem__([0, 1], 3), "a scatter", "np.where"),
    "complex": (
        lambda x: x * np.array([1j, 2j, 1, 1]),
        "complex128 cannot be fused",
        "expected bool, integers or float16",
    ),
    "format": (lambda x: f"{x.sum():.2f}", "formatting with '.2f' needs a value", "after the call"),
    "keyword": (lambda x: x.sum(axes=1), "sum() got an unexpected keyword argument 'axes'; expected sum(a, axis, "),
    "missing": (lambda x: x.swapaxes(), "swapaxes() missing a required argument: 'axis1'; expected swapaxes(a, axis1"),
    "too many arguments": (lambda x: x.var(0, None, None, 0, False, 1), "var() too many positional arguments"),
    "clip keyword": (lambda x: x.clip(foo=1), "clip() got an unexpected keyword argument 'foo'"),
    "clip dtype": (lambda x: np.clip(x, 0, 1, dtype=np.float32), "clip with dtype= cannot be fused", ".astype"),
    "not ours": (lambda x: np.nanmax(x, initial=0), "nanmax() with these arguments cannot be fused", "'initial'"),
    "axis of no integer": (lambda x: x.sum(axis=1.5), "axis=1.5: expected an integer, a tuple of integers, or None"),
    "no dtype": (lambda x: x.astype("foo"), "data type 'foo' not understood; expected a dtype such as np.float32"),
    "slice of floats": (lambda x: x[0.5:], "a bound of a slice is 0.5; expected an integer or None"),
    "dimensions": (lambda x: x[(None,) * 31], "an array of 33 dimensions cannot be fused: at most 32", "reshape"),
    "masked constant": (lambda x: x * np.ma.array(np.ones(4), mask=[0, 1, 0, 0]), "is of type MaskedArray", "x.filled"),
    "matrix constant": (lambda x: x * np.ones((1, 4)).view(np.matrix), "is of type matrix", "np.asarray(x)"),
    "constant axis": (
        lambda x: x[np.array(True)],
        "x[True] adds an axis",
    ),
    "mask and array": (lambda x: x.copy().__setitem__((x[:, 0] > 0, [1]), 0), "a mask with other indices"),
    "string": (lambda x: x + "a", "a value of type str cannot be fused"),
    "object": (lambda x: x == object(), "a value of type object cannot be fused"),
    "cast": (lambda x: x.astype(np.int32).__iadd__(0.5), "cannot cast a result of float64 to the int32", "x = x + y"),
    "order": (lambda x: x.reshape(-1, order="F"), "order='F' cannot be fused"),
    "dtype": (lambda x: x.astype("datetime64[s]"), "datetime64[s] cannot be fused"),
    "bits": (lambda x: x & 1, "bitwise_and"),
    "long loop": (lambda x: list(np.broadcast_to(x[0, 0], (99, 2))), "a Python loop over 99 rows", "at most 64"),
    "choose": (lambda x: np.choose(x > 1, [x, x]), "np.choose cannot be fused", "np.where"),
    "matrix norm": (lambda x: np.linalg.norm(x, 1), "a matrix norm cannot be fused"),
    "pad": (lambda x: np.pad(x, 1, mode="mean"), "mode='mean' cannot be fused", "expected constant"),
    "flat": (lambda x: x.flat, "x.flat cannot be fused", "ravel"),
    "held": (
        lambda x: type("Box", (), {"__init__": lambda self: setattr(self, "x", x)})(),
        "returns a Box that holds arrays",
    ),
    "vectorize": (lambda x: vectorize(lambda v: (v, v))(x), "returns", "expected one number"),
    "not numba": (lambda x: vectorize(lambda v: v + "a")(x), "cannot be compiled", "test_errors.py"),
    "states": (lambda x: reduction(lambda v: (v, v), lambda a, b: a, 0.0)(x), "map returns", "states of the same form"),
}


@pytest.mark.parametrize("name", CASES)
def test_what_cannot_fuse_says_why_and_where(name):
    function, *texts = CASES[name]
    with pytest.raises(FusionError) as caught:
        trace(function, (X,))
    message, place = str(caught.value).rsplit("\n  at ", 1)  # the line of the case holds these texts too
    for text in texts:
        assert text in message
    assert place.split(":", 1)[0].endswith("test_errors.py") or name in ("mask returned", "held")


def test_the_line_is_the_users():
    with pytest.raises(FusionError, match=r"test_errors.py:\d+: if x.sum\(\) > 0:$"):
        trace(branch, (X,))


PLAIN = {
    "broadcast": (
        lambda x: x + np.ones(3),
        ValueError,
        "operands could not be broadcast together with shapes (3, 4) (3,)",
    ),
    "reshape": (lambda x: x.reshape(5, -1), ValueError, "cannot reshape array of size 12 into shape"),
    "index": (lambda x: x[3], IndexError, "index 3 is out of bounds for axis 0 with size 3"),
    "index array": (lambda x: x[:, [0, 4]], IndexError, "index 4 is out of bounds for axis 1 with size 4"),
    "too many": (
        lambda x: x[0, 0, 0],
        IndexError,
        "too many indices for array: array is 2-dimensional, but 3 were indexed",
    ),
    "floats": (lambda x: x[[0.5]], IndexError, "arrays used as indices must be of integer or boolean type"),
    "mask": (lambda x: x[np.ones(4, bool)], IndexError, "boolean index of shape (4,) did not match"),
    "float": (lambda x: x[1.5], IndexError, "an index of type float; expected integers, slices, ..., None, and arrays"),
    "name": (lambda x: x["a"], IndexError, "an index of type str"),
    "mask of columns": (lambda x: x[:, [True]], IndexError, "boolean index of shape (1,) did not match"),
    "values for a mask": (
        lambda x: x.copy().__setitem__([True, False, True], np.ones((3, 4))),
        ValueError,
        "value array of shape (3, 4) could not be broadcast to indexing result of shape (2, 4)",
    ),
    "no such axis": (lambda x: x.sum(axis=9), np.exceptions.AxisError, "axis 9 is out of bounds for array of"),
    "attribute": (lambda x: x.summ(), AttributeError, "has no attribute 'summ'; did you mean 'sum'?"),
    "concatenate": (lambda x: np.concatenate([x, x[:, :2]]), ValueError, "must match exactly"),
    "negative power": (
        lambda x: x.astype(int) ** -1,
        ValueError,
        "Integers to negative integer powers are not allowed.",
    ),
    "negative power of unsigned": (
        lambda x: x.astype(np.uint8) ** -1,
        OverflowError,
        "Python integer -1 out of bounds for uint8",
    ),
    "negative power of NumPy": (
        lambda x: np.power(x.astype(np.uint8), np.int64(-3)),
        ValueError,
        "Integers to negative integer powers are not allowed. The exponent is -3; make one of the two a float",
    ),
    "array of powers": (
        lambda x: x.astype(int) ** np.array([0, 1, -2, 3]),
        ValueError,
        "Integers to negative integer powers are not allowed. The exponent is -2",
    ),
    "assignment": (lambda x: x.copy().__setitem__(0, np.ones(3)), ValueError, "could not broadcast"),
    "read-only": (lambda x: np.broadcast_to(x + 1, (2, 3, 4)).__setitem__(0, 1), ValueError, "read-only"),
    "argmin": (lambda x: x[:0].argmin(0), ValueError, "attempt to get argmin of an empty sequence"),
}


@pytest.mark.parametrize("name", PLAIN)
def test_numpys_errors_keep_their_kind_and_gain_the_line(name):
    function, kind, text = PLAIN[name]
    with pytest.raises(kind) as caught:
        trace(function, (X,))
    message, place = str(caught.value).rsplit("\n  at ", 1)
    assert text in message
    assert "test_errors.py:" in place


def test_a_negative_power_given_at_the_call():
    power = gp.fuse(lambda x, n: x**n)
    x = np.array([1, 2, 3], np.int16)
    np.testing.assert_array_equal(power(x, 3), x**3)
    with pytest.raises(ValueError, match=r"negative integer powers.*The exponent is -1;(.|\n)*test_errors.py:\d+"):
        power(x, -1)
    with pytest.raises(OverflowError, match="-1 out of bounds for uint8"):
        power(x.astype(np.uint8), -1)
    np.testing.assert_array_equal(power(x[:0], -1), x[:0] ** -1)
    np.testing.assert_allclose(power(x.astype(np.float32), -1), 1 / x, rtol=1e-6)
    as_float = gp.fuse(lambda x: np.power(x, -1, dtype=np.float64))
    np.testing.assert_array_equal(as_float(x), 1 / x)


def test_negative_powers_in_an_array_truncate():
    power = gp.fuse(lambda x, n: x**n)
    np.testing.assert_array_equal(power(np.array([2, 1, -1, 0, 2]), np.array([-1, -5, -3, -1, 3])), [0, 1, -1, 0, 8])


@pytest.mark.parametrize("value", [np.ones(3, complex), np.array(["a"]), np.ones(2, "M8[s]"), np.longdouble(1)])
def test_dtypes_that_kernels_lack(value):
    with pytest.raises(FusionError, match="cannot be fused: expected bool, integers or float16, float32, float64"):
        trace(lambda x: x, (value,))


def test_complex_scalars():
    with pytest.raises(FusionError, match="argument 1 is complex"):
        trace(lambda x, s: x * s, (X, 1j))


class Labelled:
    """An array of a library that is not known here."""

    shape, dtype = (3,), np.dtype(np.float64)

    def __array__(self, dtype=None, copy=None):
        return np.ones(3)

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        return self


class WithUnit(np.ndarray):
    """An ndarray whose operations mean something else."""

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        return NotImplemented


class Table:
    """As a data frame, an array without a dtype."""

    __array_ufunc__ = Labelled.__array_ufunc__


class Sparse:
    """As SciPy's, what np.asarray takes for one object."""

    shape, dtype = (3, 3), np.dtype(np.float64)


REFUSED = {
    "masked": (np.ma.array([1.0, 2.0], mask=[0, 1]), "is of type MaskedArray", "x.filled(0)"),
    "matrix": (np.ones((1, 2)).view(np.matrix), "is of type matrix", "np.asarray(x)"),
    "labels": (Labelled(), "is of type Labelled", "would be lost; pass np.asarray(x)"),
    "unit": (np.ones(3).view(WithUnit), "is of type WithUnit", "np.asarray(x)"),
    "table": (Table(), "is of type Table", "np.asarray(x)"),
    "sparse": (Sparse(), "a Sparse of shape (3, 3) is no array that NumPy can read", "x.toarray()"),
    "dimensions": (np.ones((1,) * 33), "an array of 33 dimensions cannot be fused: at most 32"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_arguments_that_a_kernel_would_misread(name):
    value, *texts = REFUSED[name]
    double = gp.fuse(lambda x: np.add(x, x))
    for given in (value, [value, 1.0]):
        with pytest.raises(FusionError) as caught:
            (double if given is value else gp.fuse(lambda pair: pair[0]))(given)
        for text in (*texts, "test_errors.py:"):
            assert text in str(caught.value)


LAZY = {
    "operator": lambda x, lazy: x - lazy.mean(0),
    "operator from the right": lambda x, lazy: lazy - x,
    "in place": lambda x, lazy: x.copy().__iadd__(lazy),
    "ufunc": lambda x, lazy: np.hypot(lazy, x),
    "function": lambda x, lazy: np.where(lazy > 0, x, 0),
    "joined": lambda x, lazy: np.concatenate([lazy, x]),
    "gathered": lambda x, lazy: np.take(x, lazy.astype(int)),
    "in a list": lambda x, lazy: np.add(x, [lazy[0], lazy[1], lazy[2]]),
    "returned": lambda x, lazy: (x, lazy),
}


@pytest.mark.parametrize("name", LAZY)
def test_dask_arrays_from_elsewhere_are_not_computed(name):
    da = pytest.importorskip("dask.array")
    computed = []
    lazy = da.ones(3, chunks=2).map_blocks(lambda block: computed.append(block) or block, dtype=float, meta=np.ones(0))
    fused = gp.fuse(lambda x: LAZY[name](x, lazy))
    for x in (np.ones(3), da.ones(3, chunks=3)):
        for call in (fused, fused.explain):
            with pytest.raises(FusionError, match=r"a Dask array of shape .* pass it as an argument\n.*test_errors"):
                call(x)
    assert not computed


def test_arrays_that_only_carry_more_are_read(tmp_path):
    double = gp.fuse(lambda x: x * 2)
    np.arange(3.0).tofile(tmp_path / "numbers")
    mapped = np.memmap(tmp_path / "numbers", np.float64, "r")
    for x in (mapped, np.arange(3.0).view(np.recarray), memoryview(np.arange(3.0)), array.array("d", [0, 1, 2])):
        got = double(x)
        assert type(got) is np.ndarray
        assert got.tolist() == [0, 2, 4]
    assert double(memoryview(b"ab")).tolist() == [194, 196]


def test_selected_elements_are_no_argument():
    inner = gp.fuse(lambda x: x + 1)
    with pytest.raises(FusionError, match=re.escape("the number of elements of x[mask]")):
        gp.fuse(lambda x: inner(x[x > 0]))(X)
