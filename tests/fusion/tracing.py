"""Run a function through trace and interpret, beside NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpucompute.fusion import ir
from gpucompute.fusion.interpret import interpret
from gpucompute.fusion.trace import Trace, trace


def leaf(args: tuple[Any, ...], kwargs: dict[str, Any], path: tuple[Any, ...]) -> Any:
    """Return the argument, or the item of one, that lies at `path`."""
    value = args[path[0]] if isinstance(path[0], int) else kwargs[path[0]]
    for key in path[1:]:
        value = value[key]
    return value


def verified(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Trace:
    """Return the trace, after `ir.verify`."""
    traced = trace(function, args, kwargs)
    ir.verify(traced.outputs)
    return traced


def meaning(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Return what the interpreter makes of ``function(*args, **kwargs)``."""
    traced = verified(function, *args, **kwargs)
    arrays = [leaf(args, kwargs, path) for path in traced.inputs]
    scalars = [leaf(args, kwargs, path) for path in traced.scalars]
    return traced.rebuild(interpret(traced, arrays, scalars))


def agrees(function: Callable[..., Any], *args: Any, rtol: float = 1e-5) -> None:
    """Assert that shapes, dtypes and values are NumPy's; integers and bools are equal."""
    got = meaning(function, *args)
    with np.errstate(all="ignore"):
        want = function(*(a.copy() if isinstance(a, np.ndarray) else a for a in args))
    if not isinstance(want, (tuple, list)):
        got, want = (got,), (want,)
    assert len(got) == len(want)
    for ours, theirs in zip(got, want, strict=True):
        ours, theirs = np.asarray(ours), np.asarray(theirs)
        assert ours.shape == theirs.shape
        assert ours.dtype == theirs.dtype
        if theirs.dtype.kind == "f":
            rtol = 4e-3 if theirs.dtype == np.float16 else rtol
            np.testing.assert_allclose(ours.astype(float), theirs.astype(float), rtol=rtol, atol=1e-6)
        else:
            np.testing.assert_array_equal(ours, theirs)
