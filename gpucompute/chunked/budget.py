"""Whether the tasks of a stage fit into memory, said before anything runs; and chunks that do.

What the memory limit of a worker has to hold, measured with psutil's and Linux's resident sizes (2026-11, x86-64):

- the process: 90 MiB at first, 155 with zarr and gpucompute at work, 300 after numba and LLVM have compiled a kernel;
- what a task reads: up to 2.3 times its chunk (the chunk, the parts of it that are being decoded, their compressed
  bytes), or the chunk and another one that is fetched meanwhile from another worker;
- what a task makes: the result, and a compressed copy while it is written, or another one that waits to be taken;
- what lies idle in gpucompute's pool, an eighth of the limit at most. That is not reckoned: Dask pauses a worker at 80%
  of its limit, where the pool is emptied (`worker_setup`), and kills it at 95%, which is more than an eighth above.
"""

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

PROCESS = 300 << 20  # bytes of a worker that has compiled a kernel, without any chunks
PAUSED = 0.8  # of its limit: from there on Dask gives a worker nothing to do, `distributed.worker.memory.pause`
LEAST = 8  # an eighth of a small limit is for chunks all the same: most workers never compile
READ, MADE = 2.5, 2.0  # times the bytes of a chunk that a task reads or makes, as above

Blocks = Sequence[tuple[Any, np.dtype[Any]]]


@dataclass(frozen=True)
class Limit:
    """The memory that one task may use, in bytes, and whose that is."""

    nbytes: int
    whose: str


def limit(like: Any = None) -> Limit | None:
    """Return what one task may use: of a worker's limit, a GPU's memory or this machine's, over the threads there.

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
    if memory is None:
        return None
    return Limit(_for_chunks(memory) // threads, f"each of {threads} threads of this machine")


def _for_chunks(nbytes: int) -> int:
    """Return what a process with that limit has for chunks."""
    return max(int(nbytes * PAUSED) - PROCESS, nbytes // LEAST)


def _worker_limit() -> Limit | None:
    """Return the share of a thread of the smallest worker of the current Dask client."""
    distributed = sys.modules.get("distributed.client")
    client = distributed and distributed._get_global_client()
    if client is None or client.asynchronous or client.status != "running":
        return None
    found = client.scheduler_info(n_workers=-1)["workers"].values()
    limited = [(worker["memory_limit"], worker["nthreads"]) for worker in found if worker["memory_limit"]]
    shares = [(_for_chunks(nbytes) // threads, threads, nbytes) for nbytes, threads in limited]
    if not shares:
        return None
    share, threads, nbytes = min(shares)
    return Limit(share, f"each of {threads} threads of a worker with {format_bytes(nbytes)}")


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
        The largest chunks that a task reads and makes, with what is held beside them, are larger than the limit.
    """
    if allowed is None:
        return
    read, made = (sum(largest(chunks, dtype) for chunks, dtype in side) for side in (reads, results))
    held = int(READ * read + MADE * made)
    if held > allowed.nbytes:
        why = f" ({'; '.join(dict.fromkeys(notes))})" if notes else ""
        raise DeviceMemoryError(
            f"{name}: a task reads {format_bytes(read)} and makes {format_bytes(made)}{why}, "
            f"{format_bytes(held)} with what is decoded, compressed and waits meanwhile, but "
            f"{allowed.whose} has {format_bytes(allowed.nbytes)} for chunks; use smaller chunks (x.rechunk), fewer "
            "threads or workers with more memory"
        )


def largest(chunks: Any, dtype: np.dtype[Any]) -> int:
    """Return the bytes of the largest chunk."""
    lengths: list[int] = [max(along, default=0) for along in chunks]
    return prod(lengths) * dtype.itemsize


def automatic(
    shape: tuple[int, ...], dtype: np.dtype[Any], multiple: Sequence[int] | None = None, like: Any = None
) -> tuple[int, ...]:
    """Return chunks that fit: a task may read one and make two results of float32 or its own dtype, if that is wider.

    They have at most the bytes of Dask's ``array.chunk-size``. The last axes stay whole as far as that goes. Along the
    first axis that is cut, chunks are as many tiles of 256 elements as a power of two says where there is room, so that
    sums have the bits of the whole array's.

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
        held = READ * dtype.itemsize + MADE * 2 * max(dtype.itemsize, 4)  # bytes for each element
        nbytes = min(nbytes, int(allowed.nbytes / held) * dtype.itemsize)
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
