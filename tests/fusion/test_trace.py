from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
from programs import DTYPES
from tracing import agrees, meaning, verified

from gpucompute import ops
from gpucompute.errors import FusionError
from gpucompute.fusion import ir
from gpucompute.fusion.trace import trace

SHAPES_OF_DTYPES = {
    "sum": lambda x: x.sum(0),
    "sum of all": lambda x: np.sum(x, keepdims=True),
    "sum dtype": lambda x: x.sum(dtype=np.float32),
    "sum int16": lambda x: x.sum(1, dtype=np.int16),
    "prod": lambda x: np.prod(x, axis=-1),
    "mean": lambda x: x.mean((0, 1)),
    "mean dtype": lambda x: x.mean(0, dtype=np.float64),
    "var": lambda x: x.var(axis=1, ddof=1),
    "std": lambda x: np.std(x, keepdims=True),
    "min": lambda x: x.min(0),
    "max": lambda x: np.max(x, axis=(0, 1), keepdims=True),
    "argmin": lambda x: x.argmin(),
    "argmax": lambda x: np.argmax(x, axis=1, keepdims=True),
    "any": lambda x: x.any(),
    "all": lambda x: np.all(x, axis=0),
    "count": lambda x: np.count_nonzero(x, axis=1),
    "ptp": lambda x: np.ptp(x, axis=0),
    "average": lambda x: np.average(x, axis=0, weights=[1, 2, 3]),
    "nanmean": lambda x: np.nanmean(x, axis=0),
    "nansum": lambda x: np.nansum(x),
    "nanmax": lambda x: np.nanmax(x, 1),
    "norm": lambda x: np.linalg.norm(x, axis=1),
    "add.reduce": lambda x: np.add.reduce(x),
    "initial": lambda x: np.sum(x, initial=2, where=[True, False, True, True]),
    "largest": lambda x: np.max(x, initial=0, where=x > 0),
    "clip": lambda x: np.clip(x, 0, 1),
    "where": lambda x: np.where(x > 0, x, 0),
    "select": lambda x: np.select([x > 0, x == 0], [x, 2 * x], 1),
    "round": lambda x: np.round(x, 1),
    "literal": lambda x: x + 1,
    "float literal": lambda x: 0.5 * x,
    "half": lambda x: x * np.float16(2),
    "true": lambda x: x + True,
    "square": lambda x: x**2,
    "root": lambda x: x**0.5,
    "shift": lambda x: x << 1,
    "divmod": lambda x: divmod(x, 3),
    "frexp": lambda x: np.frexp(x),
    "modf": lambda x: np.modf(x),
    "isclose": lambda x: np.isclose(x, 1),
    "nan_to_num": lambda x: np.nan_to_num(x),
    "diff": lambda x: np.diff(x),
    "dtype=": lambda x: np.add(x, x, dtype=np.float64),
    "concatenate": lambda x: np.concatenate([x, np.zeros((1, 4), np.float32)]),
    "outer": lambda x: np.multiply.outer(x[0], x[0]),
    "compare": lambda x: (x < 300, x >= -1, x == 2.5),
    "like": lambda x: (np.zeros_like(x), np.full_like(x, 1, dtype=np.int8), np.ones_like(x, shape=2)),
    "pad": lambda x: np.pad(x, 1),
    "broadcast": lambda x: np.broadcast_to(x[0, 0], np.int64(3)),
    "tril": lambda x: np.tril(x),
    "trace": lambda x: np.trace(x),
    "sinc": lambda x: np.sinc(x),
    "scalar of NumPy": lambda x: x[0, 0] * x,
    "in place": lambda x: _in_place(x),
}


def _in_place(x):
    y = x.copy()
    y += 1
    return y


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SHAPES_OF_DTYPES)
def test_shape_and_dtype_are_numpys(name, dtype):
    function = SHAPES_OF_DTYPES[name]
    x = np.ones((3, 4), dtype)
    try:
        with np.errstate(all="ignore"):
            want = function(x)
    except (TypeError, OverflowError) as error:
        with pytest.raises(type(error) if isinstance(error, OverflowError) else TypeError):
            trace(function, (x,))
        return
    got = verified(function, x).outputs
    want = want if isinstance(want, tuple) else (want,)
    assert [(node.shape, node.dtype) for node in got] == [(value.shape, value.dtype) for value in want]


@pytest.mark.parametrize("name", [name for name, op in ops.OPS.items() if op.ufunc is not None])
def test_dtypes_of_all_ufuncs(name):
    ufunc = ops.OPS[name].ufunc
    others = [*map(np.dtype, DTYPES), 2, 0.5, True] if ufunc.nin == 2 else [None]
    for dtype in DTYPES:
        for other in others:
            args = [np.ones((2, 1), dtype)]
            if other is not None:
                args.append(np.ones(3, other) if isinstance(other, np.dtype) else other)
            try:
                with np.errstate(all="ignore"):
                    want = ufunc(*args)
            except TypeError:
                with pytest.raises(TypeError):
                    trace(lambda x, *y: ufunc(x, *y), tuple(args))
                continue
            (node,) = verified(lambda *a: ufunc(*a), *args).outputs
            assert (node.shape, node.dtype) == (want.shape, want.dtype), (name, dtype, other)


# ---- arguments and results


def test_leaves_of_arguments():
    x, y = np.ones(3), np.ones((2, 3), np.float32)
    traced = verified(lambda a, b, *, c: a[0] * b["w"] + c, [x, 3], {"w": y, "n": None}, c=2.5)
    assert traced.inputs == ((0, 0), (1, "w"))
    assert traced.scalars == ((0, 1), ("c",))


def test_a_container_without_arrays_is_static():
    agrees(lambda x, axes: x.sum(axes), np.ones((2, 3, 4)), (0, 2))


def test_static_names_pass_as_they_are():
    x = np.ones((2, 3))
    traced = trace(lambda x, axis, scale: x.sum(axis) * scale, (x, 1, 2), {}, ["axis"])
    assert traced.outputs[0].shape == (2,)
    assert traced.scalars == ((2,),)


class Pair(NamedTuple):
    low: Any
    high: Any


def test_results_keep_their_structure():
    x = np.arange(4.0)
    got = meaning(lambda x: {"p": Pair(x.min(), x), "n": [x + 1, 3, "text"], "none": None}, x)
    assert got["p"].low == 0
    assert type(got["p"]).__name__ == "Pair"
    assert got["p"].high is not x
    assert got["n"][1:] == [3, "text"]
    assert got["none"] is None


def test_equal_expressions_are_one_node():
    (node,) = verified(lambda x: np.exp(x) * np.exp(x), np.ones(3)).outputs
    assert node.args[0] is node.args[1]


def test_captured_arrays_are_copies():
    table = np.arange(5.0)

    def function(x):
        y = x * table
        table[0] = 9
        z = x * table
        table[0] = 0
        return y, z, x * table

    x = np.ones(5)
    traced = verified(function, x)
    assert len(traced.captured) == 2
    got = meaning(function, x)
    assert [v[0] for v in got] == [0, 9, 0]


def test_captured_arrays_of_one_element_are_constants():
    traced = verified(lambda x: x * np.array([[2.0]]) + np.float64(1), np.ones(3))
    assert not traced.captured
    assert traced.outputs[0].shape == (1, 3)


def test_lists_with_traced_items_are_stacked():
    agrees(lambda x: np.add(x, [x[0], 2, x[2]]), np.arange(3.0))


# ---- Python scalars


def test_weak_scalars_take_the_arrays_dtype():
    x = np.ones(3, np.float16)
    agrees(lambda x, s: (x * s, x + 2 * s, s * 2, np.add(s, 1), x * np.sqrt(s), np.where(x > 0, s, 0)), x, 3)


def test_weak_scalars_among_themselves_are_pythons():
    values = meaning(lambda x, a, b: (a // b, a**b, a / b, a % b, -a, a > b, x * (a - b)), np.ones(1), 7, 2)
    assert values[:6] == (3, 49, 3.5, 1, -7, True)
    assert [type(value) for value in values[:6]] == [int, int, float, int, int, bool]


def test_a_scalar_that_does_not_fit_raises_at_the_call():
    traced = verified(lambda x, s: x * (s + 1), np.ones(3, np.uint8), 3)
    assert traced.scalar_values([254]) == [254, 255]
    text = r"Python integer 256 out of bounds for uint8\n  at .*test_trace.py:\d+: .*s \+ 1"
    with pytest.raises(OverflowError, match=text):
        traced.scalar_values([255])


def test_select_wraps_and_clip_ignores_integers_that_do_not_fit():
    x = np.array([-128, 3, 127], np.int8)
    agrees(lambda x, s: (np.clip(x, -s, s), x.clip(5, s), np.select([x > 2], [s], 1)), x, 255)
    agrees(lambda x: (np.clip(x, -300, 300), x.clip(0, 300), np.select([x > 2], [x], 999)), x)
    traced = verified(lambda x, s: x.clip(s, None), x, 3)
    with pytest.raises(OverflowError, match="300 out of bounds for int8"):
        traced.scalar_values([300])


def test_where_of_an_integer_that_does_not_fit_is_numpys():
    x = np.array([-128, 3, 127], np.int8)
    for function, args in [(lambda x, s: np.where(x > 2, x, s), (x, 255)), (lambda x: np.where(x > 2, x, -300), (x,))]:
        try:
            function(*args)
        except OverflowError as error:  # from NumPy 2.5 on
            with pytest.raises(OverflowError, match=str(error)):
                meaning(function, *args)
        else:
            agrees(function, *args)


def test_a_literal_that_does_not_fit_raises_at_once():
    with pytest.raises(OverflowError, match=r"Python integer 300 out of bounds for uint8\n  at .*x \+ 300"):
        trace(lambda x: x + 300, (np.ones(3, np.uint8),))


@pytest.mark.parametrize("value", [-1, 0, 7, 255, 256, 2**62])
@pytest.mark.parametrize("dtype", ["u1", "i1", "u8", "i8"])
def test_comparison_with_integers_never_overflows(value, dtype):
    x = np.array([0, 7, 127], dtype)
    agrees(lambda x, s: (x < s, s <= x, x == s, x != s), x, value)
    agrees(lambda x: (x < value, value <= x, x == value, x != value), x)


def test_a_scalar_whose_type_depends_on_the_value():
    traced = verified(lambda x, s: x * 2**s, np.ones(3), 3)
    with pytest.raises(TypeError, match=r"0\.5 was expected to be int"):
        traced.scalar_values([-1])


# ---- assignment: names are handles, as in NumPy


def in_place_by_alias(x):
    y = x + 1
    z = y
    z *= 2
    return y, z


def rows_of_view(x):
    y = x + 0
    v = y[1:, ::2]
    v += 10
    y[0] = 7
    y[:, -1] = np.arange(3)
    return y, v


def view_sees_base(x):
    y = x * 1
    v = y.T[::-1]
    y[0, 0] = 100
    return v, y


def view_of_view(x):
    y = x.copy()
    y[1:][:, 1:][0] = -1
    y[..., None][2, 3, 0] = 5
    np.swapaxes(y, 0, 1)[0, 1] = 8
    return y


def masks(x):
    y = x.copy()
    y[y > 1] = 0
    y[y < 0] *= -3
    y[x == 0] = y[x == 0] + 1
    y[:, 0][y[:, 1] > 0] = 5
    y[np.array([True, False, True])] = np.arange(4)
    return y, x[x > 0].sum(), x[x > 0].mean()


def known_masks(x):
    rows, both, none = [True, False, True], np.eye(3, 4) == 0, np.zeros(3, bool)
    y = x.copy()
    y[rows] = y[rows] * 2
    y[rows, 1:] -= x[:2, 1:]
    y[:, [True, False, False, True]] = np.arange(6.0).reshape(3, 2)
    y[both] += np.arange(9.0)
    y[1, both[0]] = x[0, :3]
    y[none] = y[none]
    y[:, both[1]] = 7
    return y, x[none], x[both].sum(), x[..., both[2]], x[rows, [0, 3]]


def masks_of_other_axes(x):
    y = x.copy()
    y[:, x[0] > 0] = 0
    y[..., x[1] > 0] = x[:, :1]
    y[0, x[2] < 0] = -1
    y[1:, y[0] == 0] = np.array([[5.0], [6.0]])
    stack = np.stack([x, -x])
    stack[:, x > 1] = 3
    stack[:, x < -1] = np.array([[8.0], [9.0]])
    return y, stack


def scalars_are_values(x):
    s = x.sum()
    t = s
    t += 1
    return s, t


def outs(x):
    y = np.empty_like(x)
    np.add(x, 1, out=y)
    np.multiply(y, 2, out=y, where=x > 0)
    np.copyto(y, -1, where=x < -1)
    return y


def keeps_dtype(x):
    y = x.astype(np.float32)
    y += np.float64(1)
    y -= np.ones(4)
    return y


@pytest.mark.parametrize(
    "function",
    [
        in_place_by_alias,
        rows_of_view,
        view_sees_base,
        view_of_view,
        masks,
        known_masks,
        masks_of_other_axes,
        scalars_are_values,
        outs,
        keeps_dtype,
    ],
)
def test_assignment(function):
    agrees(function, np.random.default_rng(0).normal(size=(3, 4)) * 2)


INDEXING = {
    "rows": lambda x: x[[0, -1, 1]],
    "columns": lambda x: x[:, np.array([[0, 1], [2, -1]])],
    "pairs": lambda x: x[[0, 1], [2, -3]],
    "apart": lambda x: x[0, ..., [1, 2]],
    "apart, empty ellipsis": lambda x: x[[0], :, [1, 2]],
    "with new axis": lambda x: x[:, None, [0, 1]],
    "int and list": lambda x: x[:, 0, [0, 1]],
    "mask, known": lambda x: x[[True, False, True]],
    "mask of columns, known": lambda x: x[:, np.arange(4) % 3 == 0],
    "mask of nothing, known": lambda x: x[:, np.zeros(4, bool)],
    "mask of two axes, known": lambda x: x[np.eye(3, 4, dtype=bool), 1:],
    "mask and array": lambda x: x[[True, False, True], :, [1, 0]],
    "array of nothing": lambda x: x[[]],
    "run-time row": lambda x: x[x[:, 0, 0].argmax()],
    "run-time places": lambda x: np.take_along_axis(x, x.argmin(1, keepdims=True), 1),
    "take, wrapped": lambda x: np.take(x, [7, -9], axis=1, mode="wrap"),
    "take, clipped": lambda x: np.take(x, [7, -9], mode="clip"),
    "negative steps": lambda x: x[::-1, 3:0:-2, ..., None],
    "empty": lambda x: x[:0, 2:1],
    "ellipsis": lambda x: (x[...], x[0, ...], x[0, 0, 0], x[..., 0, 0]),
}


@pytest.mark.parametrize("name", INDEXING)
def test_indexing(name):
    agrees(INDEXING[name], np.random.default_rng(1).normal(size=(3, 4, 5)))


def test_sizes_are_not_constants_of_the_graph():
    traced = verified(
        lambda x: (x.mean(1), x.var(), np.take_along_axis(x, x.argmin(1, keepdims=True), 1)), np.ones((5, 7))
    )
    constants = {node.value for node in ir.postorder(traced.outputs) if isinstance(node, ir.Constant)}
    assert constants <= {0}
    assert traced.scalar_values([]) == [7.0, 35.0, 35, 5, 7]


def like(x):
    y = np.zeros((2, 4), like=x)
    y[1] = x[0]
    return y, np.arange(3, like=x) + x[0, :3], np.full((), 2.5, like=x)


def test_arrays_made_like_a_traced_one():
    agrees(like, np.ones((3, 4)))


@pytest.mark.filterwarnings("ignore:numpy.fix is deprecated:DeprecationWarning")
def test_rarer_functions():
    x = np.array([-np.inf, -1.5, 0, 2.5, np.inf, np.nan])
    agrees(lambda x: (np.isposinf(x), np.isneginf(x), np.fix(x), x.conj(), np.piecewise(x, [x < 0], [-1, 1])), x)


def test_iteration_and_length():
    agrees(lambda x: [row * len(x) for row in x], np.ones((3, 2)))


def test_namespace_and_overrides():
    import gpucompute as gp

    def function(x):
        xp = x.__array_namespace__()
        return xp is gp, np.multiply(np.arange(3), x), np.float32(2) * x

    same, _, scaled = meaning(function, np.ones(3, np.float32))
    assert same is True
    assert scaled.dtype == np.float32


def test_empty_reductions():
    x = np.zeros((0, 3), np.float32)
    agrees(lambda x: (x.sum(0), x.prod(0), x.any(0), x.all(0), x.sum(1)), x)
    assert np.isnan(meaning(lambda x: x.mean(0), x)).all()
    text = r"zero-size array to reduction operation minimum which has no identity\n  at .*\.min"
    with pytest.raises(ValueError, match=text):
        trace(lambda x: x.min(0), (x,))


def test_builder_scalars_are_always_cast():
    (node,) = verified(lambda x, s: x * s, np.ones(3), 2.0).outputs
    assert isinstance(node.args[1], ir.Map)
    assert node.args[1].op == "cast"


def test_a_function_that_keeps_its_arrays():
    kept = []
    trace(lambda x: kept.append(x) or x, (np.ones(3),))
    with pytest.raises(FusionError, match="outside the call that made it"):
        trace(lambda x: x + kept[0], (np.ones(3),))
