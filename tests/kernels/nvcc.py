"""nvcc, where there is one."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import pytest

needed = pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc on PATH")


def run(path, *options):
    command = ["nvcc", "-std=c++17", "-fmad=false", *map(str, options), str(path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@cache
def ptx(path):
    """The PTX of a file for sm_90, whose instructions for pairs of 16 bits others lack."""
    with tempfile.TemporaryDirectory() as folder:
        to = Path(folder) / "kernel.ptx"
        run(path, "-Werror=all-warnings", "-ptx", "-arch=compute_90", "-o", to)
        return to.read_text()
