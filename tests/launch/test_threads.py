"""The thread pool: every index once, prompt interruption, no oversubscription, nothing left behind."""

from __future__ import annotations

import concurrent.futures
import contextlib
import gc
import multiprocessing
import os
import subprocess
import sys
import threading
import time
import types
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gathering import PATIENCE

from gpucompute import limits
from gpucompute.errors import OptionError
from gpucompute.launch import cpu


@pytest.fixture(autouse=True)
def same_setting_after() -> Iterator[None]:
    before = cpu._chosen
    yield
    cpu._chosen = before


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore:.*fork:DeprecationWarning", "-c", code],
        env={
            **{k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"},
            "PYTHONPATH": os.path.dirname(__file__),
            **environment,
        },
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "never"
        time.sleep(0.001)


class Crowd:
    """A body that sleeps (so the GIL is free) and counts how many threads are in it; it waits until `wanted` are."""

    def __init__(self, seconds: float = 0.002, wanted: int = 1) -> None:
        self.seconds, self.lock = seconds, threading.Lock()
        self.wanted, self.met = wanted, threading.Event()
        self.now = self.most = 0
        self.pieces: list[tuple[int, int]] = []
        self.threads: set[int] = set()

    def __call__(self, lo: int, hi: int) -> None:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
            self.threads.add(threading.get_ident())
            self.pieces.append((lo, hi))
        if self.most >= self.wanted:
            self.met.set()
        self.met.wait(0.005 * (hi - lo))
        time.sleep(self.seconds)
        with self.lock:
            self.now -= 1


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize("chunk", [1, 7, 64, 5000])
@pytest.mark.parametrize("n", [0, 1, 2, 63, 64, 65, 1000, 4999, 5001, 100_003])
def test_pieces_make_up_the_range(n: int, chunk: int, threads: int) -> None:
    cpu.set_threads(threads)
    pieces: list[tuple[int, int]] = []
    cpu.parallel_for(lambda lo, hi: pieces.append((lo, hi)), n, chunk=chunk)
    pieces.sort()
    assert [lo for lo, _ in pieces] == [0, *(hi for _, hi in pieces)][: len(pieces)]
    assert all(lo < hi for lo, hi in pieces) and (pieces[-1][1] if pieces else 0) == n
    assert all((hi - lo) % chunk == 0 for lo, hi in pieces[:-1])
    if n <= chunk:
        assert len(pieces) <= 1


def test_all_threads_work_and_no_more() -> None:
    cpu.set_threads(4)
    crowd = Crowd(wanted=4)
    cpu.parallel_for(crowd, PATIENCE)
    assert crowd.most == 4 and len(crowd.threads) == 4 and threading.get_ident() in crowd.threads
    assert len(crowd.pieces) >= 4 * 4
    cpu.set_threads(2)
    crowd = Crowd(wanted=2)
    cpu.parallel_for(crowd, PATIENCE)
    assert crowd.most == 2
    cpu.set_threads(1)
    crowd = Crowd()
    cpu.parallel_for(crowd, 10)
    assert crowd.threads == {threading.get_ident()}


def test_few_heavy_items_start_at_once() -> None:
    cpu.set_threads(3)
    meeting = threading.Barrier(3, timeout=20)
    cpu.parallel_for(lambda lo, hi: meeting.wait(), 3)  # nobody would come if the first item were done first


class Clock:
    """Time that passes only when a body says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(cpu, "perf_counter", lambda: self.now)


@pytest.mark.parametrize(("seconds", "wakes"), [(90e-6, False), (1e-3, True)])
def test_short_work_wakes_nobody(seconds: float, wakes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu.set_threads(4)
    clock, asked = Clock(monkeypatch), []
    monkeypatch.setattr(cpu, "_Helper", lambda pool: asked.append(pool) or cpu.threading.Thread.missing)
    monkeypatch.setattr(cpu, "_pool", cpu._Pool())

    def body(lo: int, hi: int) -> None:
        clock.now += seconds * (hi - lo) / 100_000

    with contextlib.suppress(AttributeError):
        cpu.parallel_for(body, 100_000)
    assert bool(asked) == wakes


def test_long_pieces_become_shorter(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu.set_threads(1)
    clock, pieces = Clock(monkeypatch), []

    def body(lo: int, hi: int) -> None:
        pieces.append(hi - lo)
        clock.now += (hi - lo) * 0.02

    cpu.parallel_for(body, 6400)
    assert pieces[0] == cpu.FIRST and set(pieces[1:]) == {2}


def test_the_first_piece_is_small_however_long_the_range_is() -> None:
    pieces: list[tuple[int, int]] = []
    cpu.parallel_for(lambda lo, hi: pieces.append((lo, hi)), 10**9, chunk=10)
    lo, hi = min(pieces)
    assert (lo, hi) == (0, 10 * cpu.FIRST), "nobody knows yet how long an item takes, and Ctrl-C waits for the piece"


def test_helpers_are_started_when_needed_and_kept() -> None:
    code = """
import threading, time
from gpucompute.launch import cpu
cpu.set_threads(3)
names = lambda: sorted(t.name for t in threading.enumerate() if t.daemon)
assert not names()
cpu.parallel_for(lambda lo, hi: time.sleep(0.001), 30)
assert names() == ["gpucompute"] * 2
for _ in range(20):
    cpu.parallel_for(lambda lo, hi: time.sleep(0.0005), 6)
assert names() == ["gpucompute"] * 2
"""
    done = run(code)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("failing", ["caller", "helper"])
def test_errors_reach_the_caller_when_all_have_stopped(failing: str) -> None:
    cpu.set_threads(3)
    me = threading.get_ident()
    crowd = Crowd(0.005)

    def body(lo: int, hi: int) -> None:
        if (threading.get_ident() == me) == (failing == "caller") and lo > 20:
            raise ValueError(f"piece {lo}")
        crowd(lo, hi)

    with pytest.raises(ValueError, match="piece"):
        cpu.parallel_for(body, 10_000)
    assert crowd.now == 0 and len(crowd.pieces) < 5000
    pieces = len(crowd.pieces)
    time.sleep(0.03)
    assert len(crowd.pieces) == pieces
    again = Crowd(wanted=3)
    cpu.parallel_for(again, PATIENCE)
    assert again.most == 3


def test_nothing_of_a_call_is_kept() -> None:
    cpu.set_threads(3)

    class Data:
        pass

    def call(fail: bool) -> weakref.ref[Data]:
        data = Data()

        def body(lo: int, hi: int) -> None:
            time.sleep(0.001)
            if fail and lo > 10:
                raise ValueError(data)

        with contextlib.suppress(ValueError):
            cpu.parallel_for(body, 60)
        return weakref.ref(data)

    gc.disable()
    try:
        for fail in (False, True, False, True):
            reference = call(fail)
            assert reference() is None, fail
    finally:
        gc.enable()


def test_nested_calls_run_inline() -> None:
    cpu.set_threads(3)
    crowd = Crowd(0.0005, wanted=2)

    def outer(lo: int, hi: int) -> None:
        me = threading.get_ident()
        inner: list[tuple[int, int, bool]] = []
        cpu.parallel_for(lambda a, b: inner.append((a, b, threading.get_ident() == me)), 1000)
        assert inner == [(0, 1000, True)]
        crowd(lo, hi)

    cpu.parallel_for(outer, PATIENCE)
    assert 1 < crowd.most <= 3


@pytest.mark.parametrize("callers", [2, 3, 6])
def test_concurrent_callers_share_the_helpers(callers: int) -> None:
    cpu.set_threads(3)
    crowd, begin = Crowd(0.004), threading.Barrier(callers, timeout=20)
    covered = []

    def call(_: int) -> None:
        seen: list[tuple[int, int]] = []
        begin.wait()
        cpu.parallel_for(lambda lo, hi: (crowd(lo, hi), seen.append((lo, hi))), 60)
        covered.append(sum(hi - lo for lo, hi in seen))

    with concurrent.futures.ThreadPoolExecutor(callers) as pool:
        list(pool.map(call, range(callers)))
    assert covered == [60] * callers
    assert crowd.most <= callers + 2
    until(lambda: not cpu._pool.working)  # a helper that has left a call counts for a moment
    assert not cpu._pool.callers


def test_helpers_leave_when_callers_come_and_return_when_they_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads: the helper of one caller must leave when a second caller comes, and come back afterwards."""
    cpu.set_threads(2)
    monkeypatch.setattr(cpu, "LONG", 0.002)  # many pieces
    come, gone, long_over = threading.Event(), threading.Event(), threading.Event()
    not_started = threading.Lock()
    first = threading.get_ident()
    pieces: list[tuple[str, bool]] = []

    def long_body(lo: int, hi: int) -> None:
        when = "after" if gone.is_set() else "during" if come.is_set() else "before"
        pieces.append((when, threading.get_ident() == first))
        if pieces.count(("before", False)) > 5:
            if not_started.acquire(blocking=False):  # both threads may come here: it starts once
                other.start()
            come.wait(20)
        if pieces.count(("during", True)) > 20:
            long_over.set()
            gone.wait(20)
        time.sleep(0.001 * (hi - lo))

    def other_body(lo: int, hi: int) -> None:
        come.set()
        long_over.wait(20)

    def call() -> None:
        cpu.parallel_for(other_body, 2)
        gone.set()

    other = threading.Thread(target=call)
    cpu.parallel_for(long_body, 400)
    other.join()
    assert pieces.count(("during", False)) <= 2  # the piece it was in, and one taken before the caller was seen
    assert pieces.count(("after", False)) > 5


def test_many_callers_and_nothing_is_lost() -> None:
    cpu.set_threads(2)
    sys.setswitchinterval(1e-5)
    wrong = []

    def call(seed: int) -> None:
        for turn in range(60):
            n = 1000 + 37 * seed + turn
            out = np.zeros(n, np.int64)

            def body(lo: int, hi: int, out: Any = out) -> None:
                out[lo:hi] += 1
                sum(range(300))

            cpu.parallel_for(body, n, chunk=16)
            if not (out == 1).all():
                wrong.append((seed, turn))

    threads = [threading.Thread(target=call, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.setswitchinterval(0.005)
    assert not wrong


@pytest.mark.skipif(os.name == "nt", reason="needs signals that interrupt")
@pytest.mark.parametrize("threads", [1, 2])
def test_interruption_is_prompt_and_leaves_all_usable(threads: int) -> None:
    code = f"""
import os, signal, threading, time
from gathering import gathered
from gpucompute.launch import cpu
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job begins without it
cpu.set_threads({threads})
running, done, lock = [0], [], threading.Lock()
def body(lo, hi):
    seconds = 0.001 * (hi - lo)
    if threading.current_thread() is threading.main_thread():
        return spin(seconds)
    with lock: running[0] += 1
    time.sleep(seconds)
    with lock: running[0] -= 1
    done.append(hi - lo)
def spin(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end: pass
for _ in range(4):
    done.clear()
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        cpu.parallel_for(body, 10_000)
        raise SystemExit("not interrupted")
    except KeyboardInterrupt:
        assert running[0] == 0, running  # the helper has finished its piece
        assert sum(done) < 5000, done
    assert gathered({threads}) == {threads}
print("fine")
"""
    done = run(code)
    assert (done.stdout, done.stderr) == ("fine\n", "")


@pytest.mark.skipif(not hasattr(__import__("signal"), "setitimer"), reason="needs timers")
def test_interruptions_at_any_point() -> None:
    code = """
import random, signal, threading, time
from gathering import gathered
from gpucompute.launch import cpu
cpu.set_threads(3)
random.seed(1)
interrupted = 0
active, lock = 0, threading.Lock()
def body(lo, hi):
    global active
    if threading.current_thread() is threading.main_thread():
        time.sleep(0.0002)
        return
    with lock: active += 1
    time.sleep(0.0002)
    with lock: active -= 1
for _ in range(500):
    try:
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, random.uniform(2e-5, 3e-3))
        cpu.parallel_for(body, 20)
        signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        interrupted += 1
signal.setitimer(signal.ITIMER_REAL, 0)
signal.signal(signal.SIGALRM, signal.SIG_IGN)
time.sleep(0.05)
assert active == 0 and interrupted > 50, (active, interrupted)
assert gathered(3) == 3, (len(cpu._pool.working), len(cpu._pool.callers))
print("fine")
"""
    done = run(code)
    assert (done.stdout, done.stderr) == ("fine\n", "")


def test_interruptions_at_every_step_of_handing_work_out() -> None:
    code = """
import itertools, sys, time
from gathering import gathered
from gpucompute.launch import cpu
cpu.set_threads(3)
handing = {cpu._Pool.recruit.__code__, cpu._Pool.helper.__code__, cpu._Helper.rouse.__code__}
def interrupt_at(step):
    left = step
    def trace(frame, event, argument):
        nonlocal left
        if frame.f_code not in handing:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            left -= 1
            if left < 0:
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace
    return trace
assert gathered(3) == 3
for step in itertools.count():
    try:
        sys.settrace(interrupt_at(step))
        cpu.parallel_for(lambda lo, hi: time.sleep(0.0005), 6)
        break
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(None)
    assert gathered(3) == 3, (step, len(cpu._pool.working), len(cpu._pool.callers))
assert step > 100, step
print("fine")
"""
    done = run(code)
    assert (done.stdout, done.stderr) == ("fine\n", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_fork_builds_a_new_pool() -> None:
    code = """
import os, threading, time
from gathering import gathered
from gpucompute.launch import cpu
cpu.set_threads(3)
assert gathered(3) == 3
stop = False
def churn():
    while not stop: cpu.parallel_for(lambda lo, hi: time.sleep(0.002), 40)
thread = threading.Thread(target=churn, daemon=True); thread.start()
time.sleep(0.01)
for _ in range(5):
    pid = os.fork()
    if not pid:
        os._exit(0 if cpu.get_threads() == 3 and gathered(3) == 3 else 1)
    assert os.waitpid(pid, 0)[1] == 0
stop = True
thread.join()
assert gathered(3) == 3
print("fine")
"""
    done = run(code)
    assert (done.stdout, done.stderr) == ("fine\n", "")


def test_interpreter_exit_is_silent() -> None:
    code = """
import atexit, threading, time
from gpucompute.launch import cpu
cpu.set_threads(3)
work = lambda: cpu.parallel_for(lambda lo, hi: time.sleep(0.001), 50)
atexit.register(work)
work()
cpu.set_threads(5)  # the call at exit would like more threads than there are
threading.Thread(target=lambda: [work() for _ in range(1000)], daemon=True).start()
time.sleep(0.02)
"""
    done = run(code)
    assert (done.returncode, done.stderr) == (0, "")


def test_no_thread_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "_pool", cpu._Pool())

    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    cpu.set_threads(4)
    crowd = Crowd()
    cpu.parallel_for(crowd, 20)
    assert crowd.most == 1 and sum(hi - lo for lo, hi in crowd.pieces) == 20


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "2", None])
def test_wrong_numbers_of_threads(wrong: Any) -> None:
    with pytest.raises(OptionError, match=r"set_threads\(.*expected a whole number of threads, 1 or more"):
        cpu.set_threads(wrong)


SHOW = "from gpucompute.launch import cpu; print(cpu.get_threads())"


def test_number_of_threads_from_the_environment() -> None:
    cores = limits.cores_available()
    assert run(SHOW).stdout == f"{cores}\n"
    assert run(SHOW, GPUCOMPUTE_NUM_THREADS="7", OMP_NUM_THREADS="1").stdout == "7\n"
    assert run(SHOW, OMP_NUM_THREADS="1,4").stdout == "1\n"
    assert run(SHOW, OMP_NUM_THREADS="999").stdout == f"{cores}\n"
    assert (
        "GPUCOMPUTE_NUM_THREADS='0': expected a whole number, 1 or more" in run(SHOW, GPUCOMPUTE_NUM_THREADS="0").stderr
    )


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs affinity")
def test_number_of_threads_follows_the_affinity() -> None:
    one = "import os; os.sched_setaffinity(0, list(os.sched_getaffinity(0))[:1]);"
    assert run(one + SHOW).stdout == "1\n"


def threads_here(_: int = 0) -> int:
    return cpu.get_threads()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_workers_of_multiprocessing_have_one_thread(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    cpu.set_threads(5)
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert pool.apply(threads_here) == 1
    assert cpu.get_threads() == 5


def test_tasks_of_a_dask_worker_have_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    state = threading.local()
    monkeypatch.setitem(sys.modules, "distributed.worker", types.SimpleNamespace(thread_state=state))
    monkeypatch.setattr(cpu, "_chosen", None)
    cpu._default_threads.cache_clear()
    outside = cpu.get_threads()
    state.key = "inc-1"
    assert cpu.get_threads() == 1
    del state.key
    assert cpu.get_threads() == outside


FILES = {
    "v2": {
        "proc": "0::/a/b\n",
        "a/b/cpu.max": "150000 100000\n",
        "a/cpu.max": "max 100000\n",
        "a/b/memory.max": "max\n",
        "a/memory.max": "5000000\n",
    },
    "v2 in a container": {"proc": "0::/../..\n", "cpu.max": "150000 100000\n", "memory.max": "5000000\n"},
    "v1": {
        "proc": "4:cpu,cpuacct:/x\n3:memory:/x\n1:name=systemd:/\n",
        "cpu/x/cpu.cfs_quota_us": "150000\n",
        "cpu/x/cpu.cfs_period_us": "100000\n",
        "memory/memory.limit_in_bytes": "5000000\n",
    },
    "no limits": {"proc": "0::/\n", "cpu.max": "max 100000\n", "memory.max": "max\n"},
    "not Linux": {},
}


@pytest.mark.parametrize("kind", FILES)
def test_limits_of_containers(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in FILES[kind].items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(limits, "_CGROUPS", tmp_path)
    monkeypatch.setattr(limits, "_MEMBERSHIP", tmp_path / "proc")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.setattr(os, "process_cpu_count", lambda: 64, raising=False)
    limited = kind.startswith("v")
    assert limits.cores_available() == (2 if limited else 64)
    assert (limits.memory_available() == 5_000_000) == limited


def double(x: Any, out: Any, lo: int, hi: int) -> None:
    for i in range(lo, hi):
        out[i] = x[i] * 2 / 0


def test_compile() -> None:
    pytest.importorskip("numba")
    kernel: Callable[..., None] = cpu.compile(double)
    assert cpu.compile(double) is kernel
    x, out = np.arange(1, 50_001.0), np.zeros(50_000)
    cpu.set_threads(2)
    cpu.parallel_for(lambda lo, hi: kernel(x, out, lo, hi), len(x), chunk=256)
    assert np.isinf(out).all()  # NumPy's division, no ZeroDivisionError


def test_compile_without_a_place_for_the_cache() -> None:
    pytest.importorskip("numba")
    scope: dict[str, Any] = {}
    exec("def add(x, y):\n    return x + y", scope)  # a function without a file
    assert cpu.compile(scope["add"])(1, 2) == 3


def _compile_in_a_process(place: Path, before: str = "", loaded: bool = False) -> None:
    """Compile a function of a file in `place` in a process of its own, with the cache there; `before` runs first."""
    place.joinpath("kernel_of_test.py").write_text("def add(x, y):\n    return x + y\n")
    code = f"""
import pathlib, shutil, sys
sys.path.insert(0, {str(place)!r})
sys.dont_write_bytecode = True
from kernel_of_test import add
from gpucompute.launch import cpu
kernel = cpu.compile(add)
folder = pathlib.Path({str(place / "cache")!r})
{before}
assert kernel(1, 2) == 3
assert bool(kernel.stats.cache_hits) == {loaded}
"""
    done = run(code, GPUCOMPUTE_CACHE_DIR=str(place / "cache"))
    assert (done.returncode, done.stderr) == (0, "")


def test_compiled_functions_lie_in_the_cache_folder(tmp_path: Path) -> None:
    pytest.importorskip("numba")
    _compile_in_a_process(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"cache", "kernel_of_test.py"}
    files = [path for path in tmp_path.joinpath("cache").rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".nbi", ".nbc"}
    _compile_in_a_process(tmp_path, loaded=True)
    for path in files:
        path.write_bytes(path.read_bytes()[:50])
    _compile_in_a_process(tmp_path)


def test_compile_on_a_failing_disk(tmp_path: Path) -> None:
    pytest.importorskip("numba")
    _compile_in_a_process(tmp_path, "shutil.rmtree(folder); folder.write_text('in the way')")
    _compile_in_a_process(tmp_path)  # it is in the way from the start
