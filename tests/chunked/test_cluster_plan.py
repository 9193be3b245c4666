"""The plan of a cluster, before anything is started: devices, threads, limits, and wishes that cannot be."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("distributed", reason="the extra 'dask' is not installed")

import gpucompute as gp
from gpucompute import detect, limits
from gpucompute.chunked import plan as plan_module
from gpucompute.chunked.cluster import start_cluster
from gpucompute.errors import ClusterError

GIB = 1 << 30


@pytest.fixture(name="gpus")
def gpus_fixture(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let GPUs be found, and packages be installed or not."""

    def pretend(count: int, packages: str = "dask_cuda cupy numba_cuda", memory: int = 10 * GIB) -> None:
        found = tuple(detect.Gpu(f"GPU-{i}", "Test GPU", memory) for i in range(count))
        monkeypatch.setattr(detect, "search", lambda: detect.Search(found, True, True, ("looked there",)))
        monkeypatch.setattr(plan_module, "find_spec", lambda name: object() if name in packages.split() else None)
        monkeypatch.setattr(limits, "cores_available", lambda: 16)
        monkeypatch.setattr(limits, "memory_available", lambda: 64 * GIB)

    return pretend


def plan(**options: Any) -> plan_module.Plan:
    return start_cluster(**options, plan_only=True).plan


@pytest.mark.parametrize("cores", [1, 2, 3, 7, 12, 64])
@pytest.mark.parametrize("workers", [None, 1, 5])
def test_threads_of_workers_fit_the_cores(monkeypatch: pytest.MonkeyPatch, cores: int, workers: int | None) -> None:
    monkeypatch.setattr(limits, "cores_available", lambda: cores)
    made = plan(device="cpu", workers=workers)
    assert made.workers == workers or workers is None
    assert made.kernel_threads == made.threads_per_worker
    if made.workers <= cores:
        assert cores / 2 < made.workers * made.kernel_threads <= cores
    else:  # more processes than cores were asked for
        assert made.kernel_threads == 1


def test_plan_on_gpus(gpus: Callable[..., None]) -> None:
    gpus(4, "dask_cuda cupy numba_cuda rmm distributed_ucxx")
    made = plan()
    assert made == plan_module.Plan("this machine", "cuda", 4, 1, 4, 16 * GIB, 8 * GIB, 0.5, "ucx", ("Test GPU",) * 4)
    assert str(made).splitlines() == [
        "cluster                        this machine",
        "device                         cuda",
        "workers                        4",
        "GPUs                           Test GPU, Test GPU, Test GPU, Test GPU",
        "CPU affinity                   each worker on the cores next to its GPU",
        "tasks at a time per worker     1",
        "kernel threads per worker      4",
        "memory limit per worker        16.00 GiB",
        "device memory before spilling  8.00 GiB",
        "RMM pool per GPU               50% of its memory at first, for CuPy too",
        "protocol                       ucx",
    ]
    assert plan(workers=1, device_memory_limit=0.5, rmm_pool=False, memory_limit=None) == plan_module.Plan(
        "this machine", "cuda", 1, 1, 16, None, 5 * GIB, None, "tcp", ("Test GPU",)
    )


def test_a_fraction_may_be_a_text(gpus: Callable[..., None]) -> None:
    """Dask and dask-cuda read "0.5" as one, not as half a byte."""
    gpus(1, "dask_cuda cupy numba_cuda rmm")
    made = plan(memory_limit="0.5", device_memory_limit="0.25", rmm_pool="0.3")
    assert made.memory_limit == 32 * GIB and made.device_memory_limit == 2.5 * GIB
    assert "RMM pool per GPU               30% of its memory at first" in str(made)
    assert plan(memory_limit="4e9").memory_limit == 4_000_000_000
    none = plan(memory_limit="0", device_memory_limit="0 GiB", rmm_pool="0")
    assert none.memory_limit is none.device_memory_limit is none.rmm_pool is None


@pytest.mark.parametrize("limit", ["10000GiB", 10_000 * GIB, 1e13])
def test_a_limit_is_no_more_than_there_is(gpus: Callable[..., None], limit: Any) -> None:
    gpus(1)
    made = plan(memory_limit=limit, device_memory_limit=limit)
    assert made.memory_limit == 64 * GIB and made.device_memory_limit == 10 * GIB


def test_numbers_of_numpy(gpus: Callable[..., None]) -> None:
    gpus(2)
    made = plan(workers=np.int64(2), memory_limit=np.float64(0.25), device_memory_limit=np.int64(GIB))
    assert (made.workers, made.memory_limit, made.device_memory_limit) == (2, 16 * GIB, GIB)


def test_gpus_lie_idle_without_packages(gpus: Callable[..., None]) -> None:
    gpus(2, "cupy numba_cuda")
    made = plan()
    assert made.device == "cpu"
    assert made.notes == ("2 GPU(s) lie idle, since 'dask-cuda' is not installed: pip install 'gpucompute[dask-cuda]'",)
    assert str(made).splitlines()[-1] == f"note: {made.notes[0]}"


@pytest.mark.parametrize(
    ("packages", "options", "text"),
    [
        ("cupy", {"device": "cuda"}, "a cluster of GPUs needs the package 'dask-cuda'"),
        ("dask_cuda", {"device": "cuda"}, "a cluster of GPUs needs the package 'cupy'"),
        ("dask_cuda cupy", {"device": "cuda"}, "a cluster of GPUs needs the package 'numba-cuda'"),
        ("dask_cuda cupy numba_cuda", {"rmm_pool": "1GiB"}, "rmm_pool='1GiB' needs the package 'rmm'"),
        ("", {"protocol": "ucx"}, "protocol='ucx' needs the package 'distributed-ucxx'"),
    ],
)
def test_missing_extras(gpus: Callable[..., None], packages: str, options: dict[str, Any], text: str) -> None:
    gpus(2, packages)
    with pytest.raises(gp.MissingExtraError, match=re.escape(text)) as caught:
        plan(**options)
    assert "pip install 'gpucompute[dask-cuda]'" in str(caught.value)


def test_missing_dask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(gp.MissingExtraError, match=r"a cluster needs .* pip install 'gpucompute\[dask\]'"):
        start_cluster()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"device": "gpu"}, "device='gpu': expected one of 'auto', 'cpu', 'cuda'"),
        ({"protocol": "http"}, "protocol='http': expected one of 'auto', 'tcp'"),
        ({"workers": 0}, "workers=0: expected a whole number, 1 or more"),
        ({"memory_limit": "much"}, "memory_limit='much': expected a number of bytes, a fraction such as 0.5"),
        ({"memory_limit": -1}, "memory_limit=-1: expected"),
        ({"memory_limit": 1.5}, "memory_limit=1.5: expected"),
        ({"workers": 2.0}, "workers=2.0: expected a whole number"),
        ({"memory_limit": True}, "memory_limit=True: expected"),
        ({"workers": 3, "device": "cuda"}, "workers=3, but there are 2 GPUs and each worker has one"),
        ({"address_or_cluster": 7}, "start_cluster(int ...): expected the address of a scheduler"),
        (
            {"address_or_cluster": "tcp://a:1", "memory_limit": 0.5, "device": "cpu"},
            "device and memory_limit: given together with a cluster that exists (tcp://a:1)",
        ),
    ],
)
def test_wrong_options(gpus: Callable[..., None], options: dict[str, Any], text: str) -> None:
    gpus(2)
    with pytest.raises(gp.OptionError, match=re.escape(text)):
        plan(**options)


def test_no_gpu(gpus: Callable[..., None]) -> None:
    gpus(0)
    with pytest.raises(gp.DeviceError, match="device='cuda', but no GPU was found:\n  looked there"):
        plan(device="cuda")


def test_plan_starts_nothing() -> None:
    only = start_cluster(device="cpu", workers=3, memory_limit=3 * GIB, device_memory_limit="1GiB", plan_only=True)
    assert only.plan.memory_limit == 3 * GIB and only.plan.notes[0].startswith("device_memory_limit and rmm_pool have")
    with pytest.raises(ClusterError, match="not running: it was closed, or made with plan_only=True"):
        only.client.submit(int)
    with only:
        pass
