"""What tests of chunked arrays share: both ways of a call compared, and tasks counted."""

from __future__ import annotations

from collections import Counter
from typing import Any

import dask
import dask.array as da
import numpy as np
from dask.callbacks import Callback
from dask.task_spec import Task
from dask.utils import key_split

import gpucompute as gp


def flat(value: Any) -> list[Any]:
    """Return the arrays in a result, in order."""
    if isinstance(value, dict):
        return [array for item in value.values() for array in flat(item)]
    return [array for item in value for array in flat(item)] if isinstance(value, (list, tuple)) else [value]


def concrete(value: Any) -> Any:
    return value.compute(scheduler="sync") if isinstance(value, da.Array) else value


def both_ways(function: Any, *args: Any) -> tuple[list[Any], list[Any], list[Any]]:
    """Return the lazy results of a call with Dask arrays, their values, and the results of the call without Dask."""
    fused = function if hasattr(function, "__dask_tokenize__") else gp.fuse(function)
    lazy = flat(fused(*args))
    assert all(isinstance(array, da.Array) for array in lazy)
    return lazy, list(dask.compute(*lazy, scheduler="sync")), flat(fused(*map(concrete, args)))


def assert_same(function: Any, *args: Any) -> None:
    """Assert that chunks change no bit, and that shape, dtype and chunks are known before anything runs."""
    for lazy, got, want in zip(*both_ways(function, *args), strict=True):
        assert_meta(lazy, got, want)
        assert gp.digest(got) == gp.digest(want)


def assert_near(function: Any, *args: Any, rtol: float = 2e-5) -> None:
    """Assert the same up to rounding."""
    for lazy, got, want in zip(*both_ways(function, *args), strict=True):
        assert_meta(lazy, got, want)
        np.testing.assert_allclose(got, want, rtol=rtol, atol=rtol)


def assert_meta(lazy: Any, got: Any, want: Any) -> None:
    assert lazy.shape == np.shape(got) == np.shape(want)
    assert lazy.dtype == lazy._meta.dtype == got.dtype == want.dtype
    assert all(sum(along) == n for along, n in zip(lazy.chunks, lazy.shape, strict=True))


class _Count(Callback):
    """Counts the tasks that a scheduler runs."""

    def __init__(self) -> None:
        self.names: Counter[str] = Counter()

    def _pretask(self, key: Any, dsk: Any, state: Any) -> None:
        if isinstance(dsk[key], Task):  # neither data nor another name for a task
            self.names[key_split(key).removeprefix("array-")] += 1


def tasks(*arrays: Any) -> Counter[str]:
    """Return how many tasks of each name the scheduler runs, after Dask's own optimisation.

    Dask names a task that it has put together of two after both; here it bears the name of the last.
    """
    with _Count() as count:
        dask.persist(*arrays, scheduler="sync")
    return count.names


def normal(*shape: int, seed: int = 0) -> np.ndarray[Any, Any]:
    """Return float32 numbers."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def cut(array: np.ndarray[Any, Any], *chunks: Any) -> Any:
    """Return a Dask array whose chunks are in memory."""
    return da.from_array(array, chunks=chunks).persist(scheduler="sync")
