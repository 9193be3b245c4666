"""Kernels on CPU threads: `parallel_for` over our own pool of threads, and `compile` through numba.

How many threads run. `get_threads()` is n; a call runs on the calling thread and on at most n - 1 helpers, and
all callers share the same helpers. A helper leaves a call when callers and helpers together are more than n, so
a program with m threads of its own settles at max(n, m) running threads, never at m times n. That is what keeps
thread pools, joblib's threading backend and Dask's threaded scheduler fair without our knowing them.

Processes cannot see each other, so there the default n speaks for fairness. The first that applies:

1. `set_threads(n)`;
2. the environment variable ``GPUCOMPUTE_NUM_THREADS``;
3. ``OMP_NUM_THREADS``, which joblib, Dask's nanny, Ray and Spark set in their workers to each one's share
   (never more than the cores);
4. one thread in a worker process of multiprocessing, concurrent.futures or loky, and in a task of a Dask worker:
   these run one worker for each core;
5. the cores that the process may use: affinity, and the CPU quota of its container.

Calls of kernels that are known to be short go another way, `run_kernel`: the same threads take pieces from memory that
they share, without Python in between (see `mailbox`).

numba's own ``parallel=True`` is not used: it takes seconds to compile, and its default thread layer must not be
entered by two threads at once; the one that is safe then and after a fork, TBB, is a further dependency.
"""

from __future__ import annotations

import contextlib
import functools
import operator
import os
import sys
import threading
from _thread import allocate_lock
from collections import deque
from collections.abc import Callable
from time import perf_counter
from typing import Any, TypeVar, cast

from ..config import integer
from ..errors import OptionError
from ..limits import cores_available
from .mailbox import Mailbox, Native, aligned, native, work_off

Body = Callable[[int, int], object]
Function = TypeVar("Function", bound=Callable[..., Any])
Words = tuple[int, int, int, int]

FIRST = 64  # the first piece is 1/64 of a thread's share, and at most 64 chunks, and tells the speed
LAST = 16  # pieces shrink towards the end, to 1/16 of a thread's share
SHORT = 5e-5  # seconds; handing a piece to another thread costs about 10 µs, so pieces are not shorter than this
LONG = 5e-2  # seconds; nor longer than this, so that Ctrl-C is prompt
PIECE = 2.5e-5  # seconds that a piece of a short kernel should take; there, another piece costs next to nothing

_chosen: int | None = None  # by set_threads
_chosen_before_fork = False
_local = threading.local()  # .busy: this thread runs a body; .scratch: bytes, address and owner of its memory


def set_threads(n: int) -> None:
    """Let calls run on `n` threads, the calling one included.

    The choice holds for this process; worker processes of multiprocessing start from the default, forked or not.

    Parameters
    ----------
    n : int
        1 or more; 1 uses no helper threads. More than the cores helps only bodies that wait for something.

    Raises
    ------
    OptionError
        If `n` is not a whole number, 1 or more.

    Examples
    --------
    >>> before = get_threads()
    >>> set_threads(2)
    >>> get_threads()
    2
    >>> set_threads(before)
    """
    global _chosen, _chosen_before_fork
    try:
        value = operator.index(n)
    except TypeError:
        value = 0
    if value < 1:
        raise OptionError(f"set_threads({n!r}): expected a whole number of threads, 1 or more")
    _chosen, _chosen_before_fork = value, False


def get_threads() -> int:
    """Return how many threads a call from here may run on, the calling one included (see this module's text).

    Raises
    ------
    OptionError
        If ``GPUCOMPUTE_NUM_THREADS`` is set and is not a whole number, 1 or more.
    """
    if _chosen is not None and not (_chosen_before_fork and _in_worker_process()):
        return _chosen
    return _default_threads(_in_dask_task())


@functools.cache
def _default_threads(in_task: bool) -> int:
    count = cores_available()
    share = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()  # "4,2": one number for each nested level
    if share.isdecimal() and int(share) > 0:
        count = min(count, int(share))
    elif in_task or _in_worker_process():
        count = 1
    return integer("GPUCOMPUTE_NUM_THREADS", count, minimum=1)


def _in_worker_process() -> bool:
    process = sys.modules.get("multiprocessing.process")
    return process is not None and process.parent_process() is not None


def _in_dask_task() -> bool:
    worker = sys.modules.get("distributed.worker")
    return worker is not None and hasattr(worker.thread_state, "key")


class _Job:
    """One call of `parallel_for`: the part of the range not yet taken, and who is working on it."""

    __slots__ = (
        *("body", "chunk", "closed", "end", "error", "finished", "inside"),
        *("least", "lock", "most", "start", "threads"),
    )

    def __init__(self, body: Body, n: int, chunk: int, threads: int) -> None:
        self.body: Body | None = body
        self.start, self.end, self.chunk, self.threads = 0, n, chunk, threads
        self.least: float = self._whole_chunks(min(n // (FIRST * threads), FIRST * chunk))  # lengths of a piece
        self.most: float = self.least
        self.lock = allocate_lock()  # for what follows and `start`
        self.inside = 0  # helpers that have entered
        self.closed = False
        self.finished = allocate_lock()  # held while helpers are inside
        self.error: BaseException | None = None

    def _whole_chunks(self, n: float) -> int:
        return max(1, int(n) // self.chunk) * self.chunk

    def run(self, before_each: Callable[[], bool]) -> None:
        """Take and work off pieces until none is left or `before_each` says no."""
        body = self.body
        if body is None:
            return
        last = self.end // (LAST * self.threads)
        while before_each():
            with self.lock:
                lo = self.start
                if lo >= self.end:
                    return
                share = max((self.end - lo) // (2 * self.threads), self.least, last)
                self.start = hi = min(lo + self._whole_chunks(min(share, self.most)), self.end)
            began = perf_counter()
            body(lo, hi)
            speed = (hi - lo) / (perf_counter() - began + 1e-9)
            self.least, self.most = speed * SHORT, speed * LONG

    def enter(self) -> bool:
        with self.lock:
            if self.closed:
                return False
            if not self.inside:
                self.finished.acquire()
            self.inside += 1
            return True

    def leave(self, error: BaseException | None) -> None:
        with self.lock:
            if error is not None:
                self.start, self.error = self.end, self.error or error
            self.inside -= 1
            if not self.inside:
                self.finished.release()

    def close(self) -> None:
        """Give out no more pieces, let no more helpers in and wait for those inside to finish theirs."""
        with self.lock:
            self.closed, self.start, self.body = True, self.end, None
        with self.finished:
            pass


class _Helper:
    """A daemon thread that sleeps on its lock until it is handed a job."""

    def __init__(self, pool: _Pool) -> None:
        self.job: _Job | None = None
        self.mailbox: Mailbox | None = None  # when a kernel was handed to it,
        self.native: Native | None = None  # and what it serves the mailbox with
        self.wake = allocate_lock()
        self.wake.acquire()
        self._pool = pool
        threading.Thread(target=self._serve, name="gpucompute", daemon=True).start()

    def _serve(self) -> None:
        _local.busy = True  # a body that calls parallel_for goes on by itself
        while True:
            self.wake.acquire()
            if self.job is not None:
                self._work()
                self._pool.resting.append(self)
            code = self.native  # held while it runs
            if code is not None and self.mailbox is not None:
                code.serve(self.mailbox.address, code.patience)

    def rouse(self) -> None:
        """Make it look for what it was given. Only who took it from `_Pool.resting` may; waking it twice is no harm."""
        if self.wake.locked():
            self.wake.release()

    def _work(self) -> None:
        """Work on the job; in a method of its own, so that nothing of it stays in the sleeping thread."""
        job, self.job = self.job, None
        if job is not None and job.enter():
            error: BaseException | None = None
            try:
                job.run(functools.partial(self._pool.may_go_on, self, job.threads))
            except BaseException as caught:  # noqa: BLE001 (handed to the caller, who raises it)
                error = caught
            job.leave(error)
            del error  # its traceback holds this frame, and so the job
        self._pool.working.discard(self)


class _Pool:
    """The helpers of a process. No locks: deques and sets change in one step, and a race corrects itself."""

    def __init__(self) -> None:
        self.resting: deque[_Helper] = deque()
        self.working: set[_Helper] = set()
        self.callers: set[int] = set()  # thread idents

    def room(self, threads: int) -> int:
        return threads - len(self.callers) - len(self.working)

    def may_go_on(self, helper: _Helper, threads: int) -> bool:
        """Tell a helper between two pieces whether it should stay; with more callers than before it may not."""
        if self.room(threads) >= 0:
            return True
        self.working.discard(helper)  # now, so that only as many leave as are too many
        return False

    def recruit(self, job: _Job) -> bool:
        """Hand `job` to helpers while there is room and work for them (the caller does so before each piece)."""
        if not job.start and job.least > job.chunk:
            return True  # the first piece is a small part, and tells whether helpers are worth while
        worth = int((job.end - job.start) / job.least) - 1
        for _ in range(min(self.room(job.threads), worth)):
            helper = self.helper()
            if helper is None:
                break
            helper.job = job  # first, as it counts as working until it has met its job; Ctrl-C may come in between
            self.working.add(helper)
            if helper.mailbox is not None:
                helper.mailbox.dismiss()
            helper.rouse()
        return True

    def rouse(self, job: _Job) -> None:
        """Wake helpers that were handed `job` and sleep on, because Ctrl-C came before they were woken."""
        for helper in tuple(self.working):
            if helper.job is job:
                helper.rouse()

    def helper(self) -> _Helper | None:
        """Take a helper that rests, or a new one."""
        try:
            return self.resting.pop()
        except IndexError:
            try:
                return _Helper(self)
            except RuntimeError:  # no more threads, or the interpreter is shutting down
                return None

    def summon(self, helpers: list[_Helper], count: int, scratch: int, code: Native) -> None:
        """Fill `helpers` with up to `count`, each of which is awake, or wakes up, to see what is posted to it."""
        while len(helpers) < count and (helper := self.helper()) is not None:
            helpers.append(helper)
            self.working.add(helper)
            if helper.mailbox is None:
                helper.mailbox = Mailbox()
            helper.native = code
            helper.mailbox.reserve(scratch)
            if helper.mailbox.unattended:
                helper.rouse()

    def dismiss(self, caller: int, helpers: list[_Helper]) -> None:
        """End a call of `run_kernel`; can be begun again when it was interrupted."""
        self.callers.discard(caller)
        self.working.difference_update(helpers)
        while helpers:
            self.resting.append(helpers.pop())


_pool = _Pool()


def parallel_for(body: Body, n: int, *, chunk: int = 1) -> None:
    """Call ``body(lo, hi)`` for consecutive pieces of ``range(n)``, on several threads at once.

    Each piece is a multiple of `chunk` long, except the last; how long depends on time and on the threads that are
    free, so the result must not depend on it. The calling thread works too. A call from inside a body, and one with
    no more than one chunk, is ``body(0, n)``.

    Parameters
    ----------
    body : callable
        ``body(lo: int, hi: int)``; must release the GIL in long work, as functions of `compile` do.
    n : int
        Length of the range; nothing is called for 0.
    chunk : int, optional
        The least worth a piece, about 20 µs of work.

    Raises
    ------
    Exception
        What a body raised (the first, if several did), when all others have finished their pieces. Ctrl-C, too,
        takes effect when the pieces in work are finished, which take about 50 ms.

    Notes
    -----
    Pieces are taken from one counter and get shorter towards the end (guided self-scheduling: Polychronopoulos and
    Kuck, IEEE Trans. Computers C-36, 1987). The first are short and tell the speed.

    Examples
    --------
    >>> squares = [0] * 10
    >>> def body(lo, hi):
    ...     for i in range(lo, hi):
    ...         squares[i] = i * i
    >>> parallel_for(body, 10)
    >>> squares
    [0, 1, 4, 9, 16, 25, 36, 49, 64, 81]
    """
    if n <= chunk or getattr(_local, "busy", False):
        if n > 0:
            body(0, n)
        return
    pool, me = _pool, threading.get_ident()
    job = _Job(body, n, chunk, get_threads())
    try:
        _local.busy = True
        pool.callers.add(me)
        job.run(functools.partial(pool.recruit, job))
    finally:
        while True:
            try:
                _local.busy = False
                pool.callers.discard(me)
                pool.rouse(job)
                job.close()
                break
            except KeyboardInterrupt as late:  # while waiting: kept until no helper is inside
                job.error = late
        error, job.error = job.error, None  # its traceback holds the job
    if error is not None:
        try:
            raise error
        finally:
            del error  # its traceback holds this frame, and so the arguments


def run_kernel(kernel: int, words: Words, items: int, scratch: int, seconds: float) -> None:
    """Run a stage's kernel for all of its items on several threads; one that takes less than `LONG`.

    Parameters
    ----------
    kernel : int
        Address of the machine code.
    words : tuple of int
        Its arguments p, q, k and e (see `fusion/codegen.py`).
    items : int
        Work items.
    scratch : int
        Bytes of scratch memory that it needs in each thread.
    seconds : float
        How long the last such call took.
    """
    pool, me, threads, code = _pool, threading.get_ident(), get_threads(), native()
    pieces = min(int(seconds * threads / PIECE), items)
    helpers: list[_Helper] = []
    late = None
    try:
        if not getattr(_local, "busy", False):
            pool.callers.add(me)
            pool.summon(helpers, min(pool.room(threads), pieces - 1), scratch, code)
        mailboxes = [helper.mailbox for helper in helpers if helper.mailbox is not None]
        piece = -(-items // pieces) if mailboxes else items
        work_off(code, kernel, words, items, piece, scratch_memory(scratch), mailboxes)
    finally:
        while True:
            try:
                pool.dismiss(me, helpers)
                break
            except KeyboardInterrupt as error:  # nobody would be left to help if they did not return
                late = error
    if late is not None:
        raise late


def scratch_memory(nbytes: int) -> int:
    """Return the address of at least `nbytes` of memory that belongs to this thread, 0 for none."""
    if not nbytes:
        return 0
    held: tuple[int, int, Any] = getattr(_local, "scratch", (0, 0, None))
    if held[0] < nbytes:
        held = _local.scratch = (nbytes, *aligned(nbytes))
    return held[1]


@functools.cache
def compile(function: Function) -> Function:
    """Return `function` compiled by numba: without the GIL, with NumPy's rules for division by zero, and cached.

    The compiled code is kept on disk with that of fused kernels (``GPUCOMPUTE_CACHE_DIR``, else the user's cache
    folder). If none can be written, each process compiles anew.

    Parameters
    ----------
    function : callable
        A plain function of arrays and scalars, at the top level of a module; compiled for the types of its
        arguments when first called with them.
    """
    import numba

    from .numba_cache import cache_of

    compiled: Any = numba.njit(nogil=True, error_model="numpy")(function)
    with contextlib.suppress(RuntimeError):  # "no locator available": a function without a source file
        compiled._cache = cache_of(function)
    return cast(Function, compiled)


def _after_fork() -> None:
    """Start anew in a child: the helpers are threads of the parent, and the cores may be others."""
    global _pool, _local, _chosen_before_fork
    _pool, _local, _chosen_before_fork = _Pool(), threading.local(), True
    _default_threads.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
