"""Whether the tasks of a stage fit into memory, said before anything runs; and chunks that do."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from dask import config
from dask.utils import format_bytes, parse_bytes

from ..errors import DeviceMemoryError
from ..fusion.tree import TILE
from ..hardware import devices
from ..limits import cores_available, memory_available

AT_ONCE = 8  # chunks that a thread holds at a time: what it reads, what it makes, what waits to be read


Blocks = Sequence[tuple[Any, np.dtype[Any]]]


@dataclass(frozen=True)
class Limit:
    """The memory that one task may use, in bytes, and whose that is."""

    nbytes: int
    whose: str


def limit(like: Any = None) -> Limit | None:
    """Return what one task may use: a worker's limit, a GPU's memory or this machine's, over the threads there.

    Parameters
    ----------
    like : array, optional
        Of the kind of the chunks.

    Returns
    -------
    Limit or None
        None where nothing is known.
    """
    if like is not None and not isinstance(like, np.ndarray):
        sizes = [size for device in devices() if device.kind == "cuda" and (size := device.memory_total)]
        return Limit(min(sizes), "the smallest GPU") if sizes else None
    worker = _worker_limit()
    if worker is not None:
        return worker
    scheduler = config.get("scheduler", None)
    threads = 1 if scheduler in ("sync", "synchronous", "single-threaded") else cores_available()
    threads = config.get("num_workers", None) or threads
    memory = memory_available()
    return None if memory is None else Limit(memory // threads, f"each of {threads} threads of this machine")


def _worker_limit() -> Limit | None:
    """Return the share of a thread of the smallest worker of the current Dask client."""
    distributed = sys.modules.get("distributed.client")
    client = distributed and distributed._get_global_client()
    if client is None or client.asynchronous or client.status != "running":
        return None
    found = client.scheduler_info(n_workers=-1)["workers"].values()
    limited = [(worker["memory_limit"], worker["nthreads"]) for worker in found if worker["memory_limit"]]
    shares = [(nbytes // threads, threads) for nbytes, threads in limited]
    if not shares:
        return None
    share, threads = min(shares)
    return Limit(share, f"each of {threads} threads of a worker with {format_bytes(share * threads)}")


def check(name: str, allowed: Limit | None, reads: Blocks, results: Blocks, notes: Sequence[str]) -> None:
    """Raise where one task needs more memory than it may use.

    Parameters
    ----------
    name : str
        The user's name for the function.
    allowed : Limit or None
    reads, results : sequence of (chunks, dtype)
        Of each of which a task reads or makes one block.
    notes : sequence of str
        Why chunks are as large as they are.

    Raises
    ------
    DeviceMemoryError
        The largest chunks that a task reads and makes are together larger than the limit.
    """
    if allowed is None:
        return
    read, made = (sum(largest(chunks, dtype) for chunks, dtype in side) for side in (reads, results))
    if read + made > allowed.nbytes:
        why = f" ({'; '.join(dict.fromkeys(notes))})" if notes else ""
        raise DeviceMemoryError(
            f"{name}: a task reads {format_bytes(read)} and makes {format_bytes(made)}{why}, but "
            f"{allowed.whose} may use {format_bytes(allowed.nbytes)}; use smaller chunks (x.rechunk), fewer threads "
            "or workers with more memory"
        )


def largest(chunks: Any, dtype: np.dtype[Any]) -> int:
    """Return the bytes of the largest chunk."""
    lengths: list[int] = [max(along, default=0) for along in chunks]
    return prod(lengths) * dtype.itemsize


def automatic(
    shape: tuple[int, ...], dtype: np.dtype[Any], multiple: Sequence[int] | None = None, like: Any = None
) -> tuple[int, ...]:
    """Return chunks that fit: an eighth of what a task may use, and at most Dask's ``array.chunk-size``.

    The last axes stay whole as far as that goes. Along the first axis that is cut, chunks are as many tiles of 256
    elements as a power of two says where there is room, so that sums have the bits of the whole array's.

    Parameters
    ----------
    shape, dtype
        Of the array.
    multiple : sequence of int, optional
        Chunks of the store, of which each chunk should hold a whole number.
    like : array, optional
        Of the kind of the chunks.
    """
    allowed = limit(like)
    nbytes = parse_bytes(config.get("array.chunk-size"))
    if allowed is not None:
        nbytes = min(nbytes, max(allowed.nbytes // AT_ONCE, 1))
    elements = max(nbytes // dtype.itemsize, 1)
    chunks = list(shape)
    for axis, n in enumerate(shape):
        row = prod(shape[axis + 1 :])
        along = elements // max(row, 1)
        if along >= n:
            break
        unit = multiple[axis] if multiple else 1
        if along < unit:  # one chunk of the store at least; the next axis is cut too
            chunks[axis] = min(unit, n)
            elements = max(elements // chunks[axis], 1)
            continue
        tiles = math.lcm(unit, TILE)
        step = tiles if tiles <= along else unit
        chunks[axis] = step << ((along // step).bit_length() - 1)
        break
    return tuple(chunks)
