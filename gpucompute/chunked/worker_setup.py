"""What runs inside the workers of a cluster: threads and memory set to the worker's share, kernels told and taken.

A worker that cannot read what is sent to it ends, and says why.
The functions here run in the event loop of a worker, so they take no lock that a compiling thread may hold.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
from collections.abc import Iterable
from typing import Any, NamedTuple

from distributed import WorkerPlugin
from distributed.core import Status
from tornado.ioloop import PeriodicCallback

from .. import __version__, config, detect, memory
from ..errors import GpucomputeError
from ..launch import cubins, drivers
from ..launch.cache import surroundings
from ..launch.cpu import set_threads
from ..limits import cores_available
from . import device_chunks, shipping

TOPIC = "gpucompute-kernels"
UNREAD = "gpucompute-unread"  # the topic on which workers tell why they could not read what was sent to them
LAST_WORDS = 2.0  # seconds that telling may take: the scheduler may be gone
INTERVAL = 500  # ms between two looks at the folders of kernels: a stat() of each
READING = logging.getLogger("distributed.protocol.core")
IDLE_SHARE = 8  # the pool of results keeps at most 1/8 of the worker's memory limit idle, as gpucompute.memory does


class Site(NamedTuple):
    """A worker as the others see it.

    place : the machine and the cache folder, which several workers may share;
    families : the folder of each kind of kernel that it can run -> what decides the code there;
    version : of gpucompute; threads : for kernels; memory_limit : bytes or None.
    """

    place: str
    families: dict[str, str]
    version: str
    threads: int
    memory_limit: int | None


def describe(threads: int | None, dask_worker: Any) -> Site:
    """Return what `shipping` and the plan need to know of a worker that gets so many threads, or its own number."""
    limit, share = dask_worker.memory_manager.memory_limit, share_of(threads, dask_worker)
    return Site(shipping.place(), families(_architectures(dask_worker)), __version__, share, limit)


def share_of(threads: int | None, worker: Any) -> int:
    """Return how many threads the kernels of a worker may use: what it is given, no more than its cores or a wish."""
    share: int = worker.state.nthreads if threads is None else threads
    if os.environ.get("GPUCOMPUTE_NUM_THREADS", "").strip():
        share = min(share, config.integer("GPUCOMPUTE_NUM_THREADS", share, minimum=1))
    return max(1, min(share, cores_available()))


def families(architectures: Iterable[str]) -> dict[str, str]:
    """Return the folders of kernels that this process can run or compile, and what decides the code in each.

    Parameters
    ----------
    architectures : iterable of str
        Of GPUs, such as ``"sm_90"``.
    """
    cuda = shipping.short(cubins.versions())
    return {"kernels": shipping.short(surroundings()), **{f"cubins/{name}": cuda for name in architectures}}


def _architectures(worker: Any) -> list[str]:
    """Return the architecture of a worker's GPU, or nothing. Only workers that have a CUDA context are asked."""
    if type(worker.data).__name__ != "DeviceHostFile":  # dask-cuda's; importing it here would cost 1.4 s
        return []
    try:
        return ["sm_{}{}".format(*drivers.preferred().capability(0))]
    except GpucomputeError:  # no driver can be loaded: then there is nothing to run either
        return []


class Unread(logging.Handler):
    """Keeps why something that was sent to this process could not be read: the worker ends of that, in silence."""

    error: BaseException | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self.error = record.exc_info[1]


class Setup(WorkerPlugin):  # type: ignore[misc]  # distributed has no types
    """Set threads and memory to the worker's share, and tell the client of kernels that are compiled."""

    def __init__(self, threads: int | None) -> None:
        self.threads = threads

    def setup(self, worker: Any) -> None:
        """Called by Dask in each worker, also in those that start later."""
        if detect.search().gpus:  # else the import of dask.array, and of CuPy with it, would hold up the event loop
            device_chunks.watch()
            device_chunks.register_states()
        set_threads(share_of(self.threads, worker))
        limit = worker.memory_manager.memory_limit
        if limit:
            memory.set_limit(min(memory.stats().limit, limit // IDLE_SHARE))
        self._worker = worker
        self._stamps: dict[str, int] = {}
        self._seen: dict[str, set[str]] = {}
        self._site = describe(self.threads, worker)
        self._tell(first=True)
        self._timer = PeriodicCallback(self._look, INTERVAL)
        self._timer.start()
        self._unread = Unread()
        READING.addHandler(self._unread)

    async def teardown(self, worker: Any) -> None:
        """Called when the worker or the client closes."""
        self._timer.stop()
        READING.removeHandler(self._unread)
        error = self._unread.error
        if error is not None and worker.status == Status.closing:  # the stream of events is closed by now
            with contextlib.suppress(OSError, TimeoutError):
                told = worker.scheduler.log_event(topic=UNREAD, msg=f"{type(error).__name__}: {error}")
                await asyncio.wait_for(told, LAST_WORDS)

    def _look(self) -> None:
        self._tell()
        if self._worker.status == Status.paused:
            # It pauses above 80% of its limit; what lies idle in pools must not keep it there for ever.
            memory.release()
            gc.collect()

    def _tell(self, first: bool = False) -> None:
        """Log the names of the kernels that came since the last look, by this worker or its neighbours."""
        news = {}
        for folder in self._site.families:
            stamp = shipping.stamp(folder)
            if stamp == self._stamps.get(folder):
                continue
            self._stamps[folder] = stamp
            names = shipping.names(folder)
            fresh = names - self._seen.get(folder, set())
            self._seen[folder] = names
            if fresh:
                news[folder] = sorted(fresh)
        if news or first:
            message = {"worker": self._worker.address, "place": self._site.place, "families": self._site.families}
            self._worker.log_event(TOPIC, {**message, "first": first, "names": news})
