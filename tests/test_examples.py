"""The examples run, and print what their texts say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(name: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run an example as its text says, with warnings as errors."""
    command = [sys.executable, "-W", "error", str(EXAMPLES / name), *arguments]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)


def numbers(text: str, pattern: str) -> list[float]:
    """Return what the only group of `pattern` matches."""
    return [float(found) for found in re.findall(pattern, text)]


def test_climate_tour() -> None:
    done = run("climate_tour.py", "--days", "40")
    assert done.returncode == 0, done.stderr
    assert "temperatures: float32 (40, 90, 180), 2.6 MB" in done.stdout
    differences = numbers(done.stdout, r"difference from NumPy (\S+);")
    assert len(differences) == 4
    assert max(differences) < 2e-5
    assert "anomalies: 2 kernels" in done.stdout
    assert "kernels compiled anew: 0" in done.stdout


def test_photographs_to_torch() -> None:
    for module in ("torch", "PIL", "skimage", "sklearn"):
        pytest.importorskip(module)
    done = run("photographs_to_torch.py", "--batch-size", "5")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("device: cpu")
    count = int(numbers(done.stdout, r"(\d+) photographs\n")[0])
    assert count > 5
    batches = re.findall(
        r"batch \d+: torch.float32 \((\d+), 3, 224, 224\) on cpu, the array's own memory: (\w+)", done.stdout
    )
    assert sum(int(length) for length, _ in batches) == count
    assert {shared for _, shared in batches} == {"True"}
    assert f"features: torch.float32 ({count}, 16), all finite: True" in done.stdout


@pytest.mark.parametrize("missing", ["torch", "PIL"])
def test_photographs_to_torch_says_what_to_install(missing: str, tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    (tmp_path / f"{missing}.py").write_text(f"raise ModuleNotFoundError('hidden', name={missing!r})")
    done = run("photographs_to_torch.py", PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert (
        done.stderr == f"This example needs {missing}. Install it with: pip install torch 'gpucompute[images,photos]'\n"
    )


def test_photographs_to_torch_refuses_an_empty_folder(tmp_path: Path) -> None:
    for module in ("torch", "PIL"):
        pytest.importorskip(module)
    done = run("photographs_to_torch.py", "--photographs", str(tmp_path))
    assert done.returncode == 1
    assert done.stderr == f"{tmp_path} holds no JPEG or PNG; give another folder with --photographs\n"


def test_kmeans() -> None:
    for module in ("dask", "PIL", "sklearn"):
        pytest.importorskip(module)
    done = run("kmeans.py", "--colours", "8")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("273280 pixels in 5 chunks, 96615 colours\n8 colours after ")
    assert "other chunks, equal bits: True" in done.stdout


def test_xarray_anomaly() -> None:
    for module in ("dask", "xarray"):
        pytest.importorskip(module)
    done = run("xarray_anomaly.py", "--years", "1")
    assert done.returncode == 0, done.stderr
