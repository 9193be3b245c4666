"""The table of operations: dtype rules, names, errors."""

from __future__ import annotations

import inspect
import itertools

import numpy as np
import pytest

import gpucompute.ops as ops
from gpucompute.errors import DTypeError

SAMPLES: dict[object, object] = {**{d: np.ones(1, d) for d in ops.SUPPORTED}, int: 1, float: 1.0, bool: True}


def test_every_row_names_functions_that_exist() -> None:
    namespace = ops.scalar_namespace()
    for op in ops.OPS.values():
        for name in op.functions.values():
            assert len(inspect.signature(namespace[name]).parameters) == op.nin, (op.name, name)


@pytest.mark.parametrize("name", [op.name for op in ops.OPS.values() if op.ufunc is not None])
def test_dtypes_are_numpys(name: str) -> None:
    """The result of the real ufunc on real operands: same dtype, or both refuse."""
    op = ops.OPS[name]
    for operands in itertools.product(SAMPLES, repeat=op.nin):
        values = [SAMPLES[o] for o in operands]
        try:
            with np.errstate(all="ignore"):
                expected = op.ufunc(*values).dtype
        except TypeError:
            with pytest.raises(DTypeError):
                op.resolve(operands)
            continue
        inputs, output = op.resolve(operands)
        assert output == expected, (name, operands)
        assert op.scalar(inputs) in ops.scalar_namespace()


def test_where_and_clip_follow_result_type() -> None:
    f2, f8, u1 = np.dtype("f2"), np.dtype("f8"), np.dtype("u1")
    assert ops.OPS["where"].resolve((u1, f2, float)) == ((np.dtype(bool), f2, f2), f2)
    assert ops.OPS["where"].resolve((f8, int, int))[1] == np.dtype("i8")
    assert ops.OPS["clip"].resolve((u1, int, int)) == ((u1, u1, u1), u1)
    assert ops.OPS["clip"].resolve((u1, f2, float))[1] == f2


def test_byte_order_does_not_matter() -> None:
    assert ops.OPS["add"].resolve((np.dtype(">f4"), np.dtype("<f4")))[1] == np.dtype("=f4")


def test_parts_of_ufuncs_with_several_results() -> None:
    f4 = np.dtype("f4")
    assert ops.OPS["frexp_exponent"].resolve((f4,))[1] == np.dtype("i4")
    for name, parts in ops.SEVERAL.items():
        assert getattr(np, name).nout == len(parts)
        assert all(part in ops.OPS for part in parts)


def test_aliases() -> None:
    assert ops.find("atan2") is ops.OPS["arctan2"]
    assert ops.find("mod") is ops.OPS["remainder"]
    assert ops.find("no_such_thing") is None
    assert not set(ops.ALIASES) & set(ops.OPS)
    for alias, name in ops.ALIASES.items():
        if isinstance(getattr(np, alias, None), np.ufunc) and alias not in ("radians", "degrees"):
            assert getattr(np, alias) is ops.OPS[name].ufunc, alias


@pytest.mark.parametrize(
    ("name", "operands", "words"),
    [
        ("subtract", (np.dtype(bool), np.dtype(bool)), "boolean subtract"),
        ("exp", (np.dtype("c8"),), "Kernels compute with bool, int8"),
        ("add", (np.dtype("M8[s]"), int), "datetime64"),
        ("left_shift", (np.dtype("f4"), int), "left_shift got \\(float32, int\\)"),
        ("add", (np.dtype("f4"),), "takes 2 operands, got 1"),
        ("add", (np.dtype("f4"), "nonsense"), "nonsense"),
    ],
)
def test_refusals_say_what_was_got(name: str, operands: tuple, words: str) -> None:
    with pytest.raises(DTypeError, match=words):
        ops.OPS[name].resolve(operands)


def test_refused_casts_and_loops() -> None:
    with pytest.raises(DTypeError, match="no complex128"):
        ops.cast_scalar(np.dtype("f8"), np.dtype("c16"))
    with pytest.raises(DTypeError, match="has no loop for float32"):
        ops.OPS["gcd"].scalar((np.dtype("f4"),))
