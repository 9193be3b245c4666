"""No run hangs without an end, and errors of lost workers name the cause.

Dask stops giving tasks to a worker that uses more than 80% of its memory. When all workers are so, for memory that is
not in chunks and therefore cannot be spilled, nothing goes on and nothing is said; the watch then cancels what waits,
with the reason. A worker above 95% is killed and started anew; after the fourth time Dask raises an error that names
the task only, to which the watch adds what it saw.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

from tornado.ioloop import PeriodicCallback

from .plan import Plan, _size

KILLED = "worker-restart-memory"  # the topic on which nannies tell of workers that used too much memory
INTERVAL = 2000  # ms; how often workers tell the scheduler of themselves, at the least
GRACE = 60.0  # seconds in which no worker takes a task before what waits is cancelled
PATIENCE = 2.0  # seconds in which a nanny has told of a process that ended


class Nannies(logging.Handler):
    """What the nannies of this process say: why workers did not start, and how workers ended."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.failures: deque[str] = deque(maxlen=8)
        self.endings: deque[str] = deque(maxlen=8)

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            self.failures.append(root(record.exc_info[1]))
        elif "killed by" in text or "exited with" in text:
            self.endings.append(text)


def root(error: BaseException) -> str:
    """Return the name and text of the error that began a chain."""
    while (inner := error.__cause__ or (None if error.__suppress_context__ else error.__context__)) is not None:
        error = inner
    return f"{type(error).__name__}: {error}"


@contextlib.contextmanager
def listen() -> Iterator[Nannies]:
    """Collect what nannies in this process say."""
    handler = Nannies()
    logger = logging.getLogger("distributed.nanny")
    logger.addHandler(handler)
    try:
        yield handler
    finally:
        logger.removeHandler(handler)


class Watch:
    """Looks after a client's futures; lives in the client's event loop."""

    def __init__(self, client: Any, plan: Plan, own: bool, nannies: Nannies) -> None:
        self.client, self.plan, self.own, self.nannies = client, plan, own, nannies
        self.killed: list[dict[str, Any]] = []
        self._stuck_since: float | None = None
        client.subscribe_topic(KILLED, lambda event: self.killed.append(event[1]))
        self._timer = PeriodicCallback(self._look, INTERVAL)
        client.loop.add_callback(self._timer.start)

    def stop(self) -> None:
        """Look no more."""
        self.client.loop.add_callback(self._timer.stop)

    async def _look(self) -> None:
        waiting = [key for key, state in self.client.futures.items() if state.status == "pending"]
        cause = await self._cause() if waiting else None
        if cause is None:
            self._stuck_since = None
            return
        now = time.monotonic()
        if self._stuck_since is None:
            self._stuck_since = now
        if now - self._stuck_since >= GRACE:
            from distributed import Future

            futures = [Future(key, self.client) for key in waiting]
            await self.client.cancel(futures, force=True, reason=f"nothing ran for {GRACE:.0f} s", msg=cause)

    async def _cause(self) -> str | None:
        """Return why no task can run now, or None where one may."""
        try:
            workers = (await self.client.scheduler.identity())["workers"].values()
        except (OSError, AttributeError):  # the scheduler is gone: Dask cancels the futures itself
            return None
        if not workers:
            # A cluster of others may be waiting for machines; ours starts its workers anew within seconds.
            return f"The cluster has no workers left. {self._endings()}" if self.own else None
        running = any(w["status"] == "running" or w["metrics"]["task_counts"].get("executing") for w in workers)
        if running:
            return None
        return (
            f"All {len(workers)} workers have paused, since each uses more than 80% of its memory limit "
            f"({_size(max(w['memory_limit'] for w in workers))}) and has no chunks left that it could spill to disk. "
            "Use smaller chunks, fewer tasks at a time, or a larger memory_limit."
        )

    def explain(self, error: BaseException) -> str | None:
        """Return what to add to an error of Dask's, or None."""
        kind = type(error).__name__
        if kind == "KilledWorker":
            return self._deaths()
        if kind in ("FutureCancelledError", "FuturesCancelledError") and "scheduler-connection-lost" in str(error):
            return (
                f"The scheduler ({self.plan.where}) has ended, or the network to it has. What it had computed is lost; "
                "start the cluster anew and run again."
            )
        return None

    def _deaths(self) -> str:
        end = time.monotonic() + PATIENCE
        while self.own and not self.killed and not self.nannies.endings and time.monotonic() < end:
            time.sleep(0.02)  # the scheduler often sees that a connection has ended before the nanny sees why
        if not self.killed:
            return (
                "No worker was killed for its memory by Dask, so the processes crashed or were killed from outside, "
                f"for instance by the system when all memory was used. {self._endings()}"
            )
        most = max(event["rss"] for event in self.killed)
        limit = "" if self.plan.memory_limit is None else f" of {_size(self.plan.memory_limit)}"
        return (
            f"Workers were killed {len(self.killed)} times because they used more than 95% of their memory "
            f"limit{limit} (the last measure: {_size(most)}). Use smaller chunks, fewer tasks at a time, or a larger "
            "memory_limit."
        )

    def _endings(self) -> str:
        heard = [*self.nannies.failures, *self.nannies.endings]
        return "The last that was heard: " + "; ".join(heard[-3:]) if heard else ""
