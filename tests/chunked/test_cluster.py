"""`start_cluster`: what workers are given, clusters that exist, kernels that travel, and errors."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("distributed", reason="the extra 'dask' is not installed")

import dask
from deadline import deadline_fixture  # noqa: F401
from distributed import Client, LocalCluster, Nanny, Scheduler, SpecCluster

import gpucompute as gp
from gpucompute import config, limits
from gpucompute.chunked import cluster as cluster_module
from gpucompute.chunked import shipping, worker_setup
from gpucompute.chunked.cluster import Cluster, start_cluster
from gpucompute.errors import ClusterError

GIB = 1 << 30


@pytest.fixture(scope="module", name="running")
def running_fixture() -> Iterator[Cluster]:
    with start_cluster(device="cpu", workers=2, memory_limit="1GiB") as cluster:
        yield cluster


def test_fused_function_in_workers(running: Cluster) -> None:
    import dask.array as da

    @gp.fuse
    def standardise(x: Any) -> Any:
        return (x - x.mean(axis=1, keepdims=True)) / x.std(axis=1, keepdims=True)

    x = np.random.default_rng(0).random((40, 300))
    result = da.from_array(x, chunks=(10, 300)).map_blocks(standardise, meta=x[:0]).compute()
    assert gp.digest(result) == gp.digest(standardise(x))


def test_memory_of_this_process_is_not_written_by_workers(running: Cluster) -> None:
    zarr = pytest.importorskip("zarr", reason="the extra 'images' is not installed")
    import dask.array as da

    with running.client.as_current(), pytest.raises(gp.OptionError, match="what they write would be lost"):
        gp.chunked.to_zarr(da.ones(4, chunks=2), zarr.storage.MemoryStore())


def test_workers_get_their_share(running: Cluster) -> None:
    def share() -> tuple[int, int]:
        return gp.get_threads(), gp.memory.stats().limit

    for threads, idle in running.client.run(share).values():
        assert threads == running.plan.kernel_threads
        assert idle <= GIB // worker_setup.IDLE_SHARE
    assert running.client.submit(gp.get_threads, pure=False).result(10) == running.plan.kernel_threads


@pytest.mark.parametrize(("wish", "expected"), [("", 4), ("2", 2), ("64", 4)])
def test_threads_by_environment(monkeypatch: pytest.MonkeyPatch, wish: str, expected: int) -> None:
    """A smaller number than the share is honoured, a larger one would oversubscribe."""
    chosen: list[int] = []
    monkeypatch.setenv("GPUCOMPUTE_NUM_THREADS", wish)
    monkeypatch.setattr(worker_setup, "set_threads", chosen.append)
    monkeypatch.setattr(worker_setup, "cores_available", lambda: 16)
    worker: Any = SimpleNamespace(state=SimpleNamespace(nthreads=4), memory_manager=SimpleNamespace(memory_limit=None))
    monkeypatch.setattr(worker_setup, "describe", lambda *_: worker_setup.Site("here", {}, "", 1, None))
    monkeypatch.setattr(worker_setup, "PeriodicCallback", lambda *_: SimpleNamespace(start=int))
    worker.address, worker.log_event = "tcp://w", lambda *_: None
    worker_setup.Setup(None).setup(worker)
    assert chosen == [expected]


def test_environment_of_this_process_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dask's nannies set OMP_NUM_THREADS=1 where they run, which would slow down everything here."""
    for name in cluster_module._LEAKING:
        monkeypatch.delenv(name, raising=False)
    with start_cluster(device="cpu", workers=1, memory_limit="1GiB") as cluster:
        assert not {*cluster_module._LEAKING} & {*os.environ}
        threads = cluster.client.submit(gp.get_threads).result(10)  # by OMP_NUM_THREADS alone it would be one
        assert threads == cluster.plan.kernel_threads == limits.cores_available()
    assert not {*cluster_module._LEAKING} & {*os.environ}


def test_the_plan_says_how_many_threads_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "cores_available", lambda: 64)  # the worker will not find so many
    monkeypatch.setenv("GPUCOMPUTE_NUM_THREADS", "1")
    with start_cluster(device="cpu", workers=1, memory_limit="1GiB") as cluster:
        assert cluster.plan.threads_per_worker == 64
        assert cluster.plan.kernel_threads == cluster.client.submit(gp.get_threads).result(20) == 1


def test_the_default_client_inside_the_block(running: Cluster) -> None:
    address = running.client.scheduler.address
    with Client(address) as other:
        with start_cluster(address) as inner:
            assert Client.current() is inner.client
        assert Client.current() is other
        with start_cluster(address) as inner:
            inner.close()
            assert Client.current() is other


def test_address_of_a_cluster_that_exists(running: Cluster) -> None:
    address = running.client.scheduler.address
    assert start_cluster(address, plan_only=True).plan.workers == 1
    with start_cluster(address, workers=2) as second:
        assert second.plan.where == address and second.plan.workers == 2 and second.plan.memory_limit == GIB
        assert second.plan.protocol == "tcp" and second.plan.device == "cpu"
        assert second.client is not running.client
        assert second.client.submit(gp.get_threads, pure=False).result(10) == running.plan.kernel_threads
    assert running.client.submit(abs, -1, pure=False).result(10) == 1  # the cluster stays


def test_kernels_travel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three machines, as far as the cache folders tell: two alike, and one whose kernels differ."""
    monkeypatch.setenv("GPUCOMPUTE_CACHE_DIR", str(tmp_path / "client"))
    specification = {
        name: {"cls": Nanny, "options": {"nthreads": 1, "env": {"GPUCOMPUTE_CACHE_DIR": str(tmp_path / name), **other}}}
        for name, other in [("a", {}), ("b", {}), ("c", {"NUMBA_OPT": "2"})]
    }

    def compute(factor: float) -> tuple[int, int]:
        before = gp.cache_info()
        gp.fuse(lambda x: x * factor + np.sqrt(x) - 3)(np.ones(9))
        after = gp.cache_info()
        return after.compiled - before.compiled, after.loaded - before.loaded

    def run(where: str, function: Any, *args: Any) -> Any:
        return client.submit(function, *args, workers=[where], pure=False).result(20)

    assert compute(2.0) == (1, 0)
    with (
        SpecCluster(
            specification, scheduler={"cls": Scheduler, "options": {"dashboard_address": "127.0.0.1:0"}}
        ) as three,
        start_cluster(three, workers=3) as cluster,
    ):
        client = cluster.client
        assert run("a", compute, 2.0) == (0, 1)  # the client's
        assert run("c", compute, 2.0) == (1, 0)
        first = shipping.names("kernels")

        def other(x: Any) -> Any:
            return gp.fuse(lambda x: np.floor(x) / 7 + x)(x)

        run("a", other, np.ones(9))
        end = time.monotonic() + 20
        while run("b", shipping.names, "kernels") == first and time.monotonic() < end:
            time.sleep(0.1)
        assert len(run("b", shipping.names, "kernels") - first) == 1  # a's
        assert len(shipping.names("kernels") - first) == 1  # it came here, too
        assert not run("c", shipping.names, "kernels") & shipping.names("kernels")


def test_store_takes_kernels_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUCOMPUTE_CACHE_DIR", str(tmp_path))
    assert config.cache_dir() == tmp_path
    for folder, name in [("../kernels", "0" * 64 + ".kernel"), ("kernels", "../x.kernel"), ("kernels", "x.py")]:
        with pytest.raises(ValueError, match="not a file of the kernel cache"):
            shipping.store(folder, {name: b""})
    whole = {"0" * 64 + ".kernel": b"gpucompute kernel 2\n" + bytes(40)}
    assert shipping.store("kernels", whole) == []  # its checksum is wrong
    assert list(tmp_path.rglob("*.kernel")) == []


def test_nobody_answers() -> None:
    text = r"no scheduler answers at tcp://127.0.0.1:9 within 0.5 s \(.*\); check the address"
    with pytest.raises(ClusterError, match=text):
        start_cluster("tcp://127.0.0.1:9", timeout=0.5)


def test_a_cluster_without_workers() -> None:
    with (
        LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0") as empty,
        pytest.raises(ClusterError, match=r"no workers of 1 came up \(tcp://.*\): waited for 1 s; start workers there"),
    ):
        start_cluster(empty, timeout=1)


def test_workers_that_cannot_start() -> None:
    text = r"no workers of 2 came up \(this machine\): RuntimeError: no licence today"
    with (
        dask.config.set({"distributed.worker.preload": ["raise RuntimeError('no licence today')"]}),
        pytest.raises(ClusterError, match=text),
    ):
        start_cluster(device="cpu", workers=2)


def test_workers_that_are_too_small() -> None:
    text = (
        r"workers of 1 came up \(this machine\): a worker used more than its memory_limit, 40.00 MiB, before it did "
        r"anything; the process alone takes 90 MiB, 300.00 MiB with compiled kernels"
    )
    said = []
    for _ in range(5):  # a worker may be asked, or end, before Dask has looked at its memory
        with dask.config.set({"distributed.worker.memory.monitor-interval": "10ms"}):
            try:
                start_cluster(device="cpu", workers=1, memory_limit="40MiB", timeout=30).close()
            except ClusterError as error:
                said.append(str(error))
        if said and re.search(text, said[-1]):
            return
    pytest.fail(f"not said: {said}")


def test_workers_without_gpucompute() -> None:
    preload = "import sys; sys.modules['gpucompute'] = None"
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0", preload=[preload]) as bare,
        pytest.raises(ClusterError, match=r"cannot use gpucompute \(.*; install it there: pip install"),
    ):
        start_cluster(bare)


def test_workers_with_another_version(running: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gp, "__version__", "9.9")
    with pytest.raises(ClusterError, match=r"has gpucompute 0.*, and here is 9.9; install the same version in both"):
        start_cluster(running.client.scheduler.address)


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="this system cannot stop a process")
def test_workers_that_do_not_answer(running: Cluster) -> None:
    pid = min(running.client.run(os.getpid).values())
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(ClusterError, match=r"workers of tcp://.* do not answer within 1 s; look at their logs"):
            start_cluster(running.client.scheduler.address, timeout=1)
    finally:
        os.kill(pid, signal.SIGCONT)


def test_closing_while_a_worker_starts_anew_leaves_nothing_behind() -> None:
    before = {child.pid for child in multiprocessing.active_children()}
    with start_cluster(device="cpu", workers=1, memory_limit="1GiB") as cluster:
        (pid,) = cluster.client.run(os.getpid).values()
        os.kill(pid, signal.SIGKILL)
    assert {child.pid for child in multiprocessing.active_children()} <= before


def test_workers_that_do_not_end_are_killed() -> None:
    """Python waits for its children when it exits, so one that stays would keep a finished program from ending."""

    def close(timeout: float) -> None:
        raise TimeoutError

    child = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,), daemon=True)
    child.start()
    cluster_module._end(SimpleNamespace(workers={0: SimpleNamespace(pid=child.pid)}, close=close))
    assert not child.is_alive()


def test_script_without_guard(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import gpucompute as gp\ngp.chunked.start_cluster(device='cpu', workers=1)\n")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 1
    assert 'it must do so below `if __name__ == "__main__":`' in done.stderr.splitlines()[-1]


def test_program_from_the_standard_input() -> None:
    lines = ["import gpucompute as gp", "if __name__ == '__main__':"]
    program = "\n".join([*lines, "    gp.chunked.start_cluster(device='cpu', workers=1)", ""])
    done = subprocess.run([sys.executable, "-"], input=program, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("which they cannot from the standard input: write it to a file")
