"""Kernels on threads that share memory: every item once, nobody left inside, nobody kept awake."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from gpucompute.launch import cache, cpu, mailbox
from gpucompute.launch.mailbox import _Source

SCRATCH = 256
# Counts each item, and notes in whose scratch memory; `q[0]` pauses make it last.
COUNT = """
def kernel(lo, hi, p, q, s, k, e):
    seen = ptr_int64(p[0])
    whose = ptr_int64(p[1])
    for item in range(lo, hi):
        for turn in range(q[0]):
            pause()
        seen[item] += 1
        whose[item] = s
"""


class Counting:
    """A kernel over `items`, and what it did."""

    def __init__(self, items: int, pauses: int = 0) -> None:
        self.items = items
        self.seen, self.whose = np.zeros(items, np.int64), np.zeros(items, np.int64)
        self.p = (ctypes.c_int64 * 2)(self.seen.ctypes.data, self.whose.ctypes.data)
        self.q = (ctypes.c_int64 * 1)(pauses)
        self.kernel = cache.find(_Source(COUNT, 0), False).address

    def run(self, seconds: float = 1e-2, scratch: int = SCRATCH) -> set[int]:
        """Run once, and return the scratch memories of the threads that took part."""
        words = ctypes.addressof(self.p), ctypes.addressof(self.q), 0, 0
        cpu.run_kernel(self.kernel, words, self.items, scratch, seconds)
        return set(self.whose.tolist())


@pytest.fixture(autouse=True)
def pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[cpu._Pool]:
    before = cpu._chosen
    pool = cpu._Pool()
    monkeypatch.setattr(cpu, "_pool", pool)
    yield pool
    cpu._chosen = before


def until(condition: Any) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "never"
        time.sleep(0.001)


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize("items", [1, 2, 63, 1000, 4999])
def test_every_item_once(items: int, threads: int) -> None:
    cpu.set_threads(threads)
    counting = Counting(items)
    for turn in range(50):
        counting.run(seconds=[1e-6, 1e-4, 1e-2][turn % 3])
    assert (counting.seen == 50).all()


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_all_threads_come_and_no_more_each_with_its_own_scratch(threads: int) -> None:
    cpu.set_threads(threads)
    counting, came = Counting(400, pauses=20_000), set()
    for turn in range(100):  # a helper may be late for one call
        came |= counting.run(scratch=SCRATCH * (1 + turn % 2))
        if len(counting.run()) == threads:
            break
    else:
        pytest.fail(f"{len(came)} of {threads} threads came")
    assert all(address % 64 == 0 for address in came)
    assert len(cpu._pool.resting) == threads - 1 and not cpu._pool.working and not cpu._pool.callers


def test_what_threads_need_counts_for_nothing() -> None:
    counting = Counting(400)
    cpu.set_threads(2)
    running = mailbox.native()  # helpers may be in it
    mailbox.native.cache_clear()
    before = cache.cache_info()
    counting.run()
    assert cache.cache_info() == before, "a user who sees that a call compiles would look for the reason"
    assert mailbox.native() is not running


def test_short_work_asks_nobody(pool: cpu._Pool) -> None:
    cpu.set_threads(4)
    assert len(Counting(1000).run(seconds=1e-6)) == 1 and not pool.resting
    Counting(1).run()
    assert not pool.resting


def test_helpers_watch_a_moment_and_then_sleep(pool: cpu._Pool) -> None:
    cpu.set_threads(2)
    counting = Counting(100, pauses=20_000)
    until(lambda: len(counting.run()) == 2)
    (helper,) = pool.resting
    assert helper.mailbox is not None
    until(lambda: helper.mailbox.unattended and helper.wake.locked())
    until(lambda: len(counting.run()) == 2)  # and wake again


def test_other_work_finds_helpers_that_watch() -> None:
    cpu.set_threads(2)
    counting = Counting(100, pauses=20_000)
    for _ in range(20):
        until(lambda: len(counting.run()) == 2)
        meeting = threading.Barrier(2, timeout=20)
        cpu.parallel_for(lambda lo, hi, meeting=meeting: meeting.wait(), 2)
    assert not cpu._pool.working


def test_a_kernel_inside_a_body_stays_on_its_thread() -> None:
    cpu.set_threads(2)
    used: list[int] = []

    def body(lo: int, hi: int) -> None:
        counting = Counting(200, pauses=1000)
        used.append(len(counting.run()))
        assert (counting.seen == 1).all()

    cpu.parallel_for(body, 40)
    assert set(used) == {1}


def test_callers_share_the_helpers() -> None:
    cpu.set_threads(3)
    wrong: list[Any] = []

    def call() -> None:
        counting = Counting(300, pauses=100)
        for _ in range(200):
            counting.run()
        if not (counting.seen == 200).all():
            wrong.append(counting.seen)

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    assert not wrong and not cpu._pool.working and not cpu._pool.callers
    assert len(set(cpu._pool.resting)) == len(cpu._pool.resting)


def test_other_callers_count_as_threads(pool: cpu._Pool) -> None:
    cpu.set_threads(3)
    counting = Counting(100, pauses=20_000)
    until(lambda: len(counting.run()) == 3)
    pool.callers.update({-1, -2})  # two more are at work
    assert {len(counting.run()) for _ in range(5)} == {1}


def test_no_thread_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    cpu.set_threads(4)
    counting = Counting(100)
    assert len(counting.run()) == 1 and (counting.seen == 1).all()


def run(code: str) -> None:
    code = f"import sys\nsys.path.insert(0, {os.path.dirname(__file__)!r})\nfrom test_mailbox import *\n" + code
    command = [sys.executable, "-W", "error", "-W", "ignore:.*fork:DeprecationWarning", "-c", code]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=100)
    assert (done.stdout, done.stderr) == ("fine\n", "")


@pytest.mark.skipif(not hasattr(__import__("signal"), "setitimer"), reason="needs timers")
def test_interruptions_at_any_point() -> None:
    run("""
import random, signal
cpu.set_threads(3)
random.seed(1)
interrupted = 0
counting = Counting(300, pauses=200)
counting.run()  # compiles what threads need
for _ in range(500):
    before = counting.seen.copy()
    try:
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, random.uniform(2e-5, 2e-3))
        for _ in range(3):
            counting.run()
        signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        interrupted += 1
    seen = counting.seen.copy()
    assert len(set((seen - before).tolist())) == 1, "a call was left half done"
signal.setitimer(signal.ITIMER_REAL, 0)
signal.signal(signal.SIGALRM, signal.SIG_IGN)
assert interrupted > 50, interrupted
assert not cpu._pool.working, cpu._pool.working
assert len(set(cpu._pool.resting)) == len(cpu._pool.resting)
slow = Counting(100, pauses=20_000)
until(lambda: len(slow.run()) == 3)
print("fine")
""")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_has_its_own_helpers() -> None:
    run("""
cpu.set_threads(2)
counting = Counting(100, pauses=20_000)
until(lambda: len(counting.run()) == 2)
for _ in range(5):
    counting.run()  # the helper watches when the child is born
    pid = os.fork()
    if not pid:
        until(lambda: len(counting.run()) == 2)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
print("fine")
""")


def test_interpreter_exit_is_silent() -> None:
    run("""
cpu.set_threads(2)
counting = Counting(100, pauses=20_000)
until(lambda: len(counting.run()) == 2)
print("fine")
""")
