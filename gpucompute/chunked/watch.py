"""No run hangs without an end, and errors of lost workers name the cause.

Dask stops giving tasks to a worker that uses more than 80% of its memory. When all workers are so, for memory that is
not in chunks and therefore cannot be spilled, nothing goes on and nothing is said; the watch then cancels what waits,
with the reason. It does the same when no worker is left: at once where none of ours will be started anew, after ten
minutes where the cluster is somebody else's, whose workers may be on their way.

A worker above 95% is killed and started anew; after the fourth time Dask raises an error that names the task only, to
which the watch adds what it saw. A worker that cannot read a task, since it lacks a module, ends, and nobody starts it
anew; it tells why as it goes (`worker_setup.Unread`).
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

from distributed.core import Status
from tornado.ioloop import PeriodicCallback

from .budget import PROCESS
from .plan import Plan, _size
from .worker_setup import UNREAD

KILLED = "worker-restart-memory"  # the topic on which nannies tell of workers that used too much memory
INTERVAL = 2000  # ms; how often workers tell the scheduler of themselves, at the least
GRACE = 60.0  # seconds in which no worker takes a task before what waits is cancelled
ABSENCE = 600.0  # the same where a cluster of others has no workers: Slurm and Kubernetes may be starting some
ENDED = (Status.closed, Status.failed)  # a nanny that starts no worker any more
NEWS = 2.0  # seconds in which a nanny, or the worker itself, has told why a process ended


class Nannies(logging.Handler):
    """What the nannies of this process say: why workers did not start, and how workers ended."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.failures: deque[str] = deque(maxlen=8)
        self.endings: deque[str] = deque(maxlen=8)
        self.too_large = False  # a worker used more than 95% of its memory

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            self.failures.append(root(record.exc_info[1]))
        elif "killed by" in text or "exited with" in text:
            self.endings.append(text)
        elif "memory budget" in text:
            self.too_large = True

    def failed(self, plan: Plan, cause: str, came: int = 0) -> str:
        """Return the text for a cluster without its workers, with the cause as far as nannies told it."""
        causes = "; ".join(dict.fromkeys(self.failures)) or cause
        if self.too_large:
            causes = (
                f"a worker used more than its memory_limit, {_size(plan.memory_limit)}, before it did anything; the "
                f"process alone takes 90 MiB, {_size(PROCESS)} with compiled kernels"
            )
        text = f"{came or 'no'} workers of {plan.workers} came up ({plan.where}): {causes}"
        if plan.threads_per_worker is None:
            return f"{text}; start workers there, look at their logs, or wait longer with timeout="
        main = getattr(sys.modules.get("__main__"), "__file__", None)
        if main == "<stdin>":
            text += "; workers import the program, which they cannot from the standard input: write it to a file"
        elif main is not None and "start worker process" in text:  # it ended before it could say why
            text += f'; where {main} starts the cluster, it must do so below `if __name__ == "__main__":`'
        if plan.rmm_pool is not None:
            text += "; if RMM cannot take its pool, make it smaller or use rmm_pool=False"
        return text


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

    def __init__(self, client: Any, plan: Plan, own: bool, nannies: Nannies, patience: float | None) -> None:
        self.client, self.plan, self.own, self.nannies, self.patience = client, plan, own, nannies, patience
        self.killed: list[dict[str, Any]] = []
        self.unread: deque[str] = deque(maxlen=8)
        self._stuck_since: float | None = None
        client.subscribe_topic(KILLED, lambda event: self.killed.append(event[1]))
        client.subscribe_topic(UNREAD, lambda event: self.unread.append(event[1]))
        self._timer = PeriodicCallback(self._look, INTERVAL)
        client.loop.add_callback(self._timer.start)

    def stop(self) -> None:
        """Look no more."""
        self.client.loop.add_callback(self._timer.stop)

    async def _look(self) -> None:
        waiting = [key for key, state in self.client.futures.items() if state.status == "pending"]
        found = await self._cause() if waiting else None
        if found is None:
            self._stuck_since = None
            return
        cause, patience = found
        now = time.monotonic()
        if self._stuck_since is None:
            self._stuck_since = now
        if now - self._stuck_since >= patience:
            from distributed import Future

            futures = [Future(key, self.client) for key in waiting]
            reason = f"nothing ran for {patience:g} s" if patience else "nothing can run any more"
            await self.client.cancel(futures, force=True, reason=reason, msg=cause)

    async def _cause(self) -> tuple[str, float] | None:
        """Return why no task can run now and for how many seconds that is borne, or None where one may."""
        try:
            workers = (await self.client.scheduler.identity())["workers"].values()
        except (OSError, AttributeError):  # the scheduler is gone: Dask cancels the futures itself
            return None
        if not workers:
            return self._nobody()
        running = any(w["status"] == "running" or w["metrics"]["task_counts"].get("executing") for w in workers)
        if running:
            return None
        cause = (
            f"All {len(workers)} workers have paused, since each uses more than 80% of its memory limit "
            f"({_size(max(w['memory_limit'] for w in workers))}) and has no chunks left that it could spill to disk. "
            "Use smaller chunks, fewer tasks at a time, or a larger memory_limit."
        )
        return cause, GRACE if self.patience is None else self.patience

    def _nobody(self) -> tuple[str, float]:
        """Return the same for a cluster without workers."""
        heard = self._heard()
        cluster = self.client.cluster
        # One that the user has scaled to nothing, or lets Dask scale, may grow again.
        if self.own and cluster.worker_spec and all(nanny.status in ENDED for nanny in cluster.workers.values()):
            return f"The cluster has no workers left, and none will be started anew. {heard}", 0
        if self.own:  # it starts them anew within seconds
            return f"The cluster has no workers left. {heard}", GRACE if self.patience is None else self.patience
        patience = (GRACE if self.unread else ABSENCE) if self.patience is None else self.patience
        help_ = "Look at the logs of its workers, start some anew, or wait longer with patience=."
        return f"The cluster ({self.plan.where}) has no workers. {heard or help_}", patience

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
        end = time.monotonic() + NEWS
        while not (self.killed or self.unread or self.nannies.endings) and time.monotonic() < end:
            time.sleep(0.02)  # the scheduler often sees that a connection has ended before it is told why
        if not self.killed and self.unread:
            return self._heard()
        if not self.killed:
            return (
                "No worker was killed for its memory by Dask, so the processes crashed or were killed from outside, "
                f"for instance by the system when all memory was used. {self._heard()}"
            )
        most = max(event["rss"] for event in self.killed)
        limit = "" if self.plan.memory_limit is None else f" of {_size(self.plan.memory_limit)}"
        text = (
            f"Workers were killed {len(self.killed)} times because they used more than 95% of their memory "
            f"limit{limit} (the last measure: {_size(most)}). Use smaller chunks, fewer tasks at a time, or a larger "
            "memory_limit."
        )
        return f"{text} {self._heard()}" if self.unread else text

    def _heard(self) -> str:
        """Return what is known of how workers ended."""
        if self.unread:
            return (
                f"A worker ended because it could not read a task that was sent to it: {self.unread[-1]}. The modules "
                "that functions come from must be installed on the workers; client.upload_file sends one to those "
                "that run."
            )
        heard = [*self.nannies.failures, *self.nannies.endings]
        return "The last that was heard: " + "; ".join(heard[-3:]) if heard else ""
