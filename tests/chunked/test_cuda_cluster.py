"""A real `dask_cuda.LocalCUDACluster` without a GPU: plumbing tested on a stub.

NVML is a stub that lists two GPUs, and arrays on them are in host memory. So this tells which worker gets which GPU,
cores and limits, and that chunks are spilled and come back; nothing about CUDA, CuPy, RMM or speed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
COMPILER = shutil.which("cc") or shutil.which("gcc")

pytestmark = [
    pytest.mark.skipif(find_spec("dask_cuda") is None, reason="dask-cuda is not installed (the extra 'dask-cuda')"),
    pytest.mark.skipif(find_spec("cupy") is None, reason="CuPy is not installed (the extra 'cuda13')"),
    pytest.mark.skipif(sys.platform != "linux", reason="the stub of NVML is for Linux"),
    pytest.mark.skipif(COMPILER is None, reason="no C compiler for the stub of NVML"),
]


@pytest.fixture(scope="module", name="libraries")
def libraries_fixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with NVML's stub and a driver library that has no functions at all."""
    folder = tmp_path_factory.mktemp("stub")
    (folder / "nothing.c").write_text("int nothing;\n")
    for source, library in [(HERE / "nvml_stub.c", "libnvidia-ml.so.1"), (folder / "nothing.c", "libcuda.so.1")]:
        assert COMPILER is not None
        subprocess.run([COMPILER, "-shared", "-fPIC", "-o", folder / library, source], check=True, timeout=50)
    return folder


def run(libraries: Path, mode: str) -> Any:
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    done = subprocess.run(
        [sys.executable, "stub_gpus.py", mode], cwd=HERE, capture_output=True, text=True, timeout=55, check=False,
        env={**environment, "LD_LIBRARY_PATH": str(libraries)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module", name="report")
def report_fixture(libraries: Path) -> Any:
    return run(libraries, "spill")


def test_plan_on_the_stub(report: Any) -> None:
    assert report["devices"] == ["cpu", "cuda:0", "cuda:1"]
    lines = dict(line.split("  ", 1) for line in report["plan"].splitlines() if "  " in line)
    assert lines["GPUs"].strip() == "Stub GPU, Stub GPU"
    assert lines["workers"].strip() == "2"
    assert lines["device memory before spilling"].strip() == "819.20 MiB"


def test_each_worker_has_its_gpu_and_cores(report: Any) -> None:
    workers = sorted(report["workers"], key=lambda worker: worker["visible"])
    assert [worker["visible"] for worker in workers] == ["0,1", "1,0"]
    if {0, 1} <= os.sched_getaffinity(0):
        assert [worker["affinity"] for worker in workers] == [[0], [1]]
    for worker in workers:
        assert worker["threads"] == worker["kernel_threads"] == 1  # one core each, whatever the share of all cores
        assert worker["memory_limit"] == 1 << 30
        assert {"CPUAffinity", "RMMSetup", "gpucompute"} <= set(worker["plugins"])


def test_chunks_beyond_the_limit_are_spilled_and_come_back(report: Any) -> None:
    assert max(worker["device"] for worker in report["workers"]) == 4  # of 1 MiB, and the limit is 4 MiB
    assert sum(worker["host"] for worker in report["workers"]) >= 24 - 2 * 4
    assert report["means"] == [float(value) for value in range(24)]


@pytest.mark.skipif(find_spec("rmm") is None, reason="RMM is not installed (the extra 'dask-cuda')")
def test_workers_that_die_of_rmm_are_an_error(libraries: Path) -> None:
    error = run(libraries, "rmm")["error"]
    assert error.startswith("ClusterError: no workers of 2 came up (this machine): CUDARuntimeError: cudaError")
    assert error.endswith("if RMM cannot take its pool, make it smaller or use rmm_pool=False")
