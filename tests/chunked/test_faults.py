"""Workers that die, memory that runs out, damaged files, no scheduler: the right result or an error, and in time."""

from __future__ import annotations

import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("distributed", reason="the extra 'dask' is not installed")

import dask
import dask.array as da
from deadline import deadline_fixture  # noqa: F401
from distributed import KilledWorker, get_worker, wait
from distributed.client import FutureCancelledError
from fake_cuda import machine_fixture  # noqa: F401 - a fixture

import gpucompute as gp
from gpucompute.chunked import watch
from gpucompute.chunked.cluster import Cluster, start_cluster
from gpucompute.errors import ChunkError
from gpucompute.launch import cuda
from gpucompute.testing import driver

MIB = 1 << 20
LIMIT = 600 * MIB  # a worker that has compiled a kernel uses 200


@pytest.fixture(scope="module", name="running")
def running_fixture() -> Iterator[Cluster]:
    # 1: the second death of a worker on a task is an error; the usual 3 would only take longer
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        start_cluster(device="cpu", workers=2, memory_limit=LIMIT) as cluster,
    ):
        yield cluster


@gp.fuse
def scaled(x: Any) -> Any:
    return np.sqrt(x) * 3 + 1


def slowly(x: Any) -> Any:
    time.sleep(0.05)
    return scaled(x)


def test_a_worker_killed_in_the_middle(running: Cluster) -> None:
    x = np.random.default_rng(1).random((64, 50))
    chunks = da.from_array(x, chunks=(1, 50)).map_blocks(slowly, meta=x[:0])
    pids = running.client.run(os.getpid)
    result = chunks.persist()
    end = time.monotonic() + 20
    while sum(future.done() for future in running.client.futures_of(result)) < 8 and time.monotonic() < end:
        time.sleep(0.01)
    os.kill(min(pids.values()), signal.SIGKILL)
    assert gp.digest(result.compute()) == gp.digest(scaled(x))
    running.client.wait_for_workers(2, timeout=20)
    plugins = running.client.run(lambda dask_worker: [*dask_worker.plugins])
    assert all(any(name.startswith("gpucompute-") for name in found) for found in plugins.values())  # the new one too


def fill(nbytes: int) -> int:
    ballast = np.ones(nbytes, np.uint8)
    time.sleep(2)  # Dask looks each 0.1 s
    return int(ballast[-1])


def test_a_task_larger_than_the_limit(running: Cluster) -> None:
    with pytest.raises(KilledWorker, match=r"fill.*died while running it") as caught:
        running.client.submit(fill, LIMIT, pure=False).result(50)
    assert running._watch is not None
    end = time.monotonic() + 10
    while len(running._watch.killed) < 2 and time.monotonic() < end:  # the scheduler may tell of the second one later
        time.sleep(0.02)
    cause = running.explain(caught.value)
    assert cause is not None
    assert "Workers were killed 2 times because they used more than 95% of their memory limit of 600.00 MiB" in cause
    assert "Use smaller chunks" in cause
    # by then the nannies have said all, which the watches of other clusters hear too
    running.client.wait_for_workers(2, timeout=20)


def fill_device() -> Any:
    """Allocate on the fake driver: two of these do not fit."""
    with driver.running(devices=1, memory=64 << 20):
        return [cuda.empty((40 << 20,), np.uint8) for _ in range(2)]


def test_a_full_device(running: Cluster, machine: driver.Machine) -> None:  # the error's cause is PyCUDA's, here too
    """It is the task's error, at once: no worker is lost, and nothing is tried anew."""
    pids = running.client.run(os.getpid)
    with pytest.raises(gp.DeviceMemoryError, match=r"an array of uint8 \(41943040,\) on cuda:0.*out of memory"):
        running.client.submit(fill_device, pure=False).result(50)
    assert running.client.run(os.getpid) == pids


def leave() -> None:
    os._exit(3)


def test_a_task_that_ends_its_process() -> None:
    text = "No worker was killed for its memory.*exited with status 3"
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        pytest.raises(KilledWorker, match=f"(?s)leave.*{text}"),  # pytest matches an exception's notes too
        start_cluster(device="cpu", workers=1) as cluster,
    ):
        cluster.client.submit(leave).result(50)


def keep(share: float) -> None:
    """Fill the process, up to a share of its limit."""
    used = get_worker().monitor.get_process_memory()
    sys.modules["gpucompute"].ballast = np.ones(int(share * LIMIT) - used, np.uint8)  # type: ignore[attr-defined]


def test_workers_that_wait_for_memory_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that is not in chunks keeps a worker above 80%: Dask gives it nothing more to do, and says nothing."""
    monkeypatch.setattr(watch, "GRACE", 2.0)

    def run() -> None:
        with start_cluster(device="cpu", workers=1, memory_limit=LIMIT) as cluster:
            wait(cluster.client.submit(keep, 0.87), timeout=20)
            time.sleep(1)  # Dask looks each 0.1 s
            cluster.client.submit(abs, -1).result(50)

    with pytest.raises(FutureCancelledError, match=r"(?s)nothing ran for 2 s.*All 1 workers have paused.*600.00 MiB"):
        run()


def seen(cluster: Cluster) -> None:
    """Return when the watch has seen that nobody can run what waits."""
    end = time.monotonic() + 20
    while cluster._watch is None or cluster._watch._stuck_since is None:
        assert time.monotonic() < end
        time.sleep(0.05)


def hide(folder: str) -> None:
    """Make the modules of a folder importable no more, as on a worker where they are not installed."""
    sys.path[:] = [entry for entry in sys.path if entry != folder]


@pytest.fixture(name="foreign")
def foreign_fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a module that this process can import and workers cannot, after `hide`."""
    (tmp_path / "only_here.py").write_text("def double(x):\n    return x * 2\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("only_here")
    del sys.modules["only_here"]


UNREAD = (
    r"could not read a task that was sent to it: ModuleNotFoundError: No module named 'only_here'. The modules that "
    "functions come from must be installed on the workers"
)


def test_a_module_that_the_workers_lack(foreign: Any) -> None:
    """A worker ends as it reads the task, and no nanny starts it anew: nothing is worth waiting for."""

    def run() -> None:
        with start_cluster(device="cpu", workers=1, memory_limit=LIMIT) as cluster:
            cluster.client.run(hide, str(Path(foreign.__file__).parent))
            da.ones(4, chunks=2).map_blocks(foreign.double, dtype=float).compute()

    began = time.monotonic()
    with pytest.raises(FutureCancelledError, match=f"(?s)nothing can run any more.*no workers left.*{UNREAD}"):
        run()
    assert time.monotonic() - began < watch.GRACE / 2


def test_a_module_that_many_workers_lack(foreign: Any) -> None:
    """Dask gives up a task, before all workers have ended, and names the task only."""
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        start_cluster(device="cpu", workers=2, memory_limit=LIMIT) as cluster,
    ):
        cluster.client.run(hide, str(Path(foreign.__file__).parent))
        with pytest.raises(KilledWorker) as caught:
            cluster.client.submit(foreign.double, 1).result(50)
        assert re.search(UNREAD, cluster.explain(caught.value) or "")


def test_a_cluster_without_workers_may_grow() -> None:
    """Nobody has ended: the user took the workers away, or Dask did, which scales by what waits."""
    with start_cluster(device="cpu", workers=1, memory_limit=LIMIT) as cluster:
        local = cluster.client.cluster
        local.scale(0)
        local.sync(local._correct_state)
        future = cluster.client.submit(abs, -1)
        seen(cluster)
        local.scale(1)
        assert future.result(30) == 1


def test_a_damaged_chunk(running: Cluster, tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr", reason="the extra 'images' is not installed")
    x = np.arange(4000.0).reshape(40, 100)
    array = zarr.create_array(tmp_path / "x.zarr", shape=x.shape, chunks=(10, 100), dtype=x.dtype)
    array[:] = x
    (path,) = (tmp_path / "x.zarr").rglob("c/2/0")
    lazy = scaled(gp.chunked.from_zarr(tmp_path / "x.zarr"))
    assert gp.digest(lazy.compute()) == gp.digest(scaled(x))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    text = (
        rf"(?s)file://{tmp_path}/x.zarr: cannot read the chunk \(2, 0\) \(file c/2/0\), elements \[20:30, 0:100\] "
        r"\(.*(?i:zstd|size|decompress).*\); bring back this chunk"
    )
    with pytest.raises(ChunkError, match=text):
        lazy.compute()
    path.write_bytes(data)
    assert gp.digest(lazy.compute()) == gp.digest(scaled(x))  # mended: the same graph gives the result


def command(*words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "dask", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


@pytest.fixture(name="others")
def others_fixture(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes], subprocess.Popen[bytes]]]:
    """Return the address of a cluster that was started elsewhere, its scheduler and its worker."""
    file = tmp_path / "scheduler.json"
    flags = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file)]
    processes = [command("scheduler", *flags)]
    try:
        end = time.monotonic() + 20
        while not file.exists() or not file.read_text().endswith("}"):
            assert time.monotonic() < end and processes[0].poll() is None
            time.sleep(0.05)
        address = json.loads(file.read_text())["address"]
        processes.append(command("worker", address, "--nthreads", "1", "--no-dashboard", "--no-nanny"))
        yield address, *processes
    finally:
        for process in processes:
            process.kill()
            process.wait(10)


def test_the_scheduler_gone(others: Any) -> None:
    address, scheduler, _ = others

    def run() -> None:
        with start_cluster(address, timeout=20) as cluster:
            future = cluster.client.submit(time.sleep, 30)
            time.sleep(0.2)
            scheduler.kill()
            future.result(40)

    began = time.monotonic()
    with pytest.raises(FutureCancelledError, match=rf"(?s)scheduler-connection-lost.*\({address}\) has ended"):
        run()
    assert time.monotonic() - began < 20  # the ending, too, waits for nobody


def test_the_workers_of_others_gone(others: Any) -> None:
    """They may come back, as Slurm and Kubernetes do it, but nobody waits for ever."""
    address, _, worker = others

    def run() -> None:
        with start_cluster(address, timeout=20, patience=1) as cluster:
            future = cluster.client.submit(time.sleep, 30)
            worker.kill()
            future.result(40)

    text = rf"(?s)nothing ran for 1 s.*The cluster \({address}\) has no workers.*wait longer with patience="
    with pytest.raises(FutureCancelledError, match=text):
        run()


def test_workers_that_come_back_in_time(others: Any) -> None:
    address, _, worker = others
    with start_cluster(address, timeout=20) as cluster:
        worker.kill()
        future = cluster.client.submit(abs, -1)
        seen(cluster)
        second = command("worker", address, "--nthreads", "1", "--no-dashboard", "--no-nanny")
        try:
            assert future.result(30) == 1
        finally:
            second.kill()
            second.wait(10)
