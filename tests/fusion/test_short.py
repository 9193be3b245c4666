"""Reductions over a few neighbouring elements, written out as maps: the same bits, one stage, no size but their own."""

from __future__ import annotations

import numpy as np
import pytest

import gpucompute as gp
from gpucompute.fusion import ir, plan
from gpucompute.fusion.interpret import interpret
from gpucompute.fusion.layout import Layout
from gpucompute.fusion.short import written_out
from gpucompute.fusion.trace import trace

VALUES = np.array([0.0, -0.0, 1.5, -2.5, np.inf, np.nan, 1e-3, 7.0, -1e4, 0.1])


def points(count: int, dtype: str) -> np.ndarray:
    """Return rows of `count` values that meet in many ways."""
    places = (np.arange(64 * count) * 7 + np.arange(64 * count) // 11) % len(VALUES)
    values = VALUES if np.dtype(dtype).kind == "f" else np.nan_to_num(VALUES, nan=3, posinf=100)
    with np.errstate(invalid="ignore"):
        return values[places].reshape(64, count).astype(dtype)


def everything(x):
    last = {"axis": -1}
    results = (x.sum(**last), x.prod(**last), x.min(**last), x.max(**last), x.mean(**last), x.var(**last))
    return (*results, (x > 0).any(**last), (x > 0).all(**last), np.count_nonzero(x, **last))


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "uint8", "int16"])
def test_same_bits_as_the_folds(dtype: str) -> None:
    written = 0
    for count in range(2, 9):
        x = points(count, dtype)
        for node in ir.postorder(trace(everything, (x,)).outputs):
            if isinstance(node, ir.Reduce) and (maps := written_out(node, ir.Builder())) is not None:
                written += 1
                ir.verify((maps,))
                assert gp.digest(*interpret((maps,), [x])) == gp.digest(*interpret((node,), [x])), (count, node.op)
    assert written >= 7 * 6


def test_compiled() -> None:
    x = points(3, "float32")
    for got, meant in zip(gp.fuse(everything)(x), interpret(trace(everything, (x,)), [x]), strict=True):
        assert gp.digest(got) == gp.digest(np.asarray(meant))


def kinds(function, *args) -> list[str]:
    traced = trace(function, args)
    layouts = [Layout(0, a.shape, a.strides) for a in (*args, *traced.captured)]
    return [stage.kind for stage in plan.plan(traced.outputs, layouts).stages]


def test_they_take_part_in_the_loops_around_them() -> None:
    x = points(3, "float32")
    assert kinds(lambda x: x / np.sqrt((x * x).sum(axis=-1, keepdims=True)), x) == ["map"]
    assert kinds(lambda x: x.reshape(8, 8, 3).mean(axis=(-1,)), x) == ["map"]
    assert kinds(lambda x: x.reshape(32, 2, 3).max(axis=(1, 2)), x) == ["map"]
    # What many rows share is still computed once.
    assert kinds(lambda x: np.ones((100, 64)) * x.sum(axis=-1), x) == ["map", "map"]


def test_a_batch_is_not_written_out() -> None:
    assert kinds(lambda x: x.mean(axis=0), points(3, "float32")[:4])[0] == "reduce"
    assert kinds(lambda x: x.sum(), points(3, "float32")[0])[0] == "reduce"
    assert kinds(lambda x: x.sum(axis=-1), points(9, "float32")) == ["reduce"]
    fused = gp.fuse(lambda x: x.sum(axis=-1))
    fused(points(3, "float32"))
    before = gp.cache_info().compiled
    for rows in (1, 2, 7, 50):
        fused(points(3, "float32")[:rows])
    assert gp.cache_info().compiled == before
