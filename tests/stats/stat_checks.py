"""What tests of statistics share: a store that says what was read of it, and tasks counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import dask
import dask.array as da
import numpy as np
from dask.callbacks import Callback
from dask.task_spec import Task
from dask.utils import key_split

import gpucompute as gp


class Store:
    """An array cut into chunks along its first axis, as Zarr's are; `reads` lists the shapes that were read."""

    def __init__(self, array: np.ndarray[Any, Any], rows: int) -> None:
        self.array, self.shape, self.dtype = array, array.shape, array.dtype
        self.chunks = (rows, *array.shape[1:])
        self.reads: list[tuple[int, ...]] = []

    def __getitem__(self, key: Any) -> np.ndarray[Any, Any]:
        part = self.array[key]
        self.reads.append(part.shape)
        return part

    def __dask_tokenize__(self) -> Any:
        return "Store", id(self)

    def cut(self) -> da.Array:
        """Return a Dask array with a chunk for each of the store's."""
        return gp.chunked.from_array(self, self.chunks)


def tasks(*arrays: Any) -> Counter[str]:
    """Return how many tasks of each name a scheduler runs, after Dask's own optimisation."""
    return tasks_of(lambda: dask.persist(*arrays))


def tasks_of(run: Callable[[], Any]) -> Counter[str]:
    """Return the same of whatever `run` computes."""
    names: Counter[str] = Counter()

    def count(key: Any, graph: Any, state: Any) -> None:
        names[key_split(key)] += isinstance(graph[key], Task)  # neither data nor another name for a task

    with Callback(pretask=count), dask.config.set(scheduler="sync"):
        run()
    return +names


def computed(*arrays: Any) -> Any:
    """Return the values; shape and dtype must have been right before."""
    found = dask.compute(*arrays, scheduler="sync")
    for array, value in zip(arrays, found, strict=True):
        if isinstance(array, da.Array):
            assert (array.shape, array.dtype) == (np.shape(value), np.asarray(value).dtype)
            assert type(array._meta) is np.ndarray and array._meta.dtype == array.dtype
    return found if len(found) > 1 else found[0]
