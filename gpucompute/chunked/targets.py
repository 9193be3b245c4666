"""Zarr arrays that are found, and those that are written to: what must not happen to them."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cloudpickle
import dask.array as da
from dask.base import flatten, get_scheduler, tokenize
from dask.delayed import Delayed
from dask.highlevelgraph import HighLevelGraph
from dask.task_spec import Task, TaskRef

from ..errors import MissingExtraError, OptionError, ShapeError

REMOTE = ("distributed", "dask.multiprocessing")  # the modules of the schedulers that run tasks in other processes
_LOST = (
    "to_zarr into the memory of this process: the tasks run in other processes, and what they write would be lost; "
    "give a path, or compute with scheduler='threads'"
)


def import_zarr() -> Any:
    """Return the package zarr."""
    try:
        import zarr
    except ImportError:
        raise MissingExtraError("zarr", "images", "reading and writing Zarr") from None
    return zarr


def opened(store: Any, component: str | None) -> Any:
    """Return the array or group that is there, None where a store has nothing of that name."""
    zarr = import_zarr()
    if isinstance(store, zarr.Array):
        return store if component is None else None
    if isinstance(store, zarr.Group):
        return store if component is None else store.get(component)
    try:
        return zarr.open(store, mode="r", path=component)
    except FileNotFoundError:
        if component is None:
            raise
        return None


def folder(array: Any) -> Path | None:
    """Return where a Zarr array or group lies on disk, None for what is elsewhere."""
    root = getattr(getattr(array, "store", None), "root", None)
    return None if root is None else Path(root, array.path)


def check_reachable(x: da.Array, store: Any) -> None:
    """Raise where the tasks of an array would write to copies of a store."""
    in_memory = isinstance(getattr(store, "store", store), import_zarr().storage.MemoryStore | dict)
    if in_memory and str(getattr(get_scheduler(collections=[x]), "__module__", "")).startswith(REMOTE):
        raise OptionError(_LOST)


def fitted(x: da.Array, target: Any, given: Sequence[str]) -> da.Array:
    """Return an array in chunks of whole chunks of a Zarr array that is there, so that no two tasks write to one."""
    if given:
        raise OptionError(f"to_zarr: {' and '.join(given)} given together with a zarr.Array, which is there already")
    if target.shape != x.shape:
        raise ShapeError(f"to_zarr: {target.store_path} has shape {target.shape}, and what is to be written {x.shape}")
    check_unread(x, target, None)
    units = target.shards or target.chunks
    return x.rechunk(tuple(max(max(along) // n, 1) * n for along, n in zip(x.chunks, units, strict=True)))


def stored(x: da.Array, target: Any, compute: bool) -> Any:
    """Write chunks to a Zarr array, or return the Delayed that does."""
    if isinstance(target.store, import_zarr().storage.MemoryStore):
        target = _Here(target)
    done = da.store(x, target, lock=False, compute=compute)
    if compute or isinstance(done, Delayed):
        return done
    name = f"to-zarr-{tokenize(done)}"  # Dask of 2026 returns an array that computes to nothing of use
    task = Task(name, _done, *(TaskRef(key) for key in flatten(done.__dask_keys__())))
    return Delayed(name, HighLevelGraph.from_collections(name, {name: task}, dependencies=[done]))


def _done(*_: Any) -> None:
    """Return when all chunks are written."""


class _Here:
    """A store in the memory of this process, which in others would be a copy of itself."""

    def __init__(self, target: Any) -> None:
        self.target = target

    def __setitem__(self, key: Any, value: Any) -> None:
        self.target[key] = value

    def __reduce__(self) -> Any:
        raise OptionError(_LOST)


def check_unread(x: da.Array, store: Any, component: str | None) -> None:
    """Raise where an array is computed from what would be written over."""
    try:
        target = opened(store, component)
    except FileNotFoundError:
        return
    if target is not None and any(_lies_in(source, target) for source in _Stores.of(x)):
        raise OptionError(
            f"to_zarr: the array is computed from {target.store_path}, which would be overwritten before it is read; "
            "write elsewhere"
        )


def _lies_in(source: Any, target: Any) -> bool:
    """Tell whether a Zarr array is another one, or lies in a group."""
    here, there = folder(source), folder(target)
    if here is not None and there is not None:  # perhaps by another path
        return here.resolve().is_relative_to(there.resolve())
    inside = f"{source.path}/".startswith(f"{target.path}/" if target.path else "")
    return inside and bool(source.store == target.store)


class _Stores(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    """Finds the Zarr arrays in a graph, wherever tasks hold them: what they would take along when they travel."""

    @classmethod
    def of(cls, x: da.Array) -> list[Any]:
        """Return the Zarr arrays that the tasks of an array read."""
        found: list[Any] = []
        for layer in x.dask.layers.values():
            pickler = cls(io.BytesIO(), buffer_callback=lambda _: None)
            pickler.found = found
            with contextlib.suppress(Exception):  # what cannot travel is not looked into
                pickler.dump(layer)
        return found

    def persistent_id(self, obj: Any) -> str | None:
        """Called by pickle for each object."""
        if not isinstance(obj, import_zarr().Array):
            return None
        self.found.append(obj)
        return "store"
