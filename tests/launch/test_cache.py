"""Kernels on disk: found again, shared by processes, and never a reason to fail."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpucompute.launch.fingerprint import fingerprint

PROGRAM = """
import sys
import numpy as np
import gpucompute as gp

def softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)

x = np.arange(12, dtype=np.float32).reshape(3, 4)
result = gp.fuse(softmax)(x)
np.testing.assert_allclose(result, softmax(x), rtol=1e-6)
info = gp.cache_info()
print(info.compiled, info.loaded, "numba" in sys.modules, gp.digest(result))
"""


def start(folder: Path, program: str = PROGRAM) -> subprocess.Popen[str]:
    environment = {**os.environ, "GPUCOMPUTE_CACHE_DIR": str(folder)}
    command = [sys.executable, "-W", "error", "-c", program]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def output(process: subprocess.Popen[str]) -> list[str]:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out.split()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    folder = tmp_path_factory.mktemp("cache")
    return folder, output(start(folder))


def test_a_new_process_compiles_nothing_and_needs_no_numba(filled: tuple[Path, list[str]]) -> None:
    folder, first = filled
    compiled, loaded, numba, digest = first
    assert int(compiled) == 5 and loaded == "0" and numba == "True"  # a kernel; tile and join of max and of sum
    assert output(start(folder)) == ["0", compiled, "False", digest]


def test_many_processes_at_once(filled: tuple[Path, list[str]]) -> None:
    folder, first = filled
    for path in list((folder / "kernels").iterdir())[:2]:
        path.unlink()
    found = [output(process) for process in [start(folder) for _ in range(3)]]
    assert {line[3] for line in found} == {first[3]}
    assert not list((folder / "kernels").glob("*.tmp"))


def test_damaged_files_are_compiled_anew(filled: tuple[Path, list[str]]) -> None:
    folder, first = filled
    output(start(folder))
    paths = sorted((folder / "kernels").iterdir())
    paths[0].write_bytes(b"")
    paths[1].write_bytes(paths[1].read_bytes()[:-100])
    paths[2].write_bytes(paths[2].read_bytes()[:-1] + b"\xff\xff")
    compiled, loaded, _, digest = output(start(folder))
    assert (compiled, loaded, digest) == ("3", "2", first[3])


def test_a_folder_that_cannot_be_made_costs_only_speed(tmp_path: Path, filled: tuple[Path, list[str]]) -> None:
    blocked = tmp_path / "a file"
    blocked.write_text("")
    compiled, loaded, _, digest = output(start(blocked / "cache"))
    assert (compiled, loaded, digest) == ("5", "0", filled[1][3])


ZEROS = """
import numpy as np
import gpucompute as gp
print(gp.fuse(lambda x: x - x)(np.arange(1000)).sum(), gp.cache_info().compiled)
"""


def test_code_that_calls_the_c_library_stays_in_its_process(tmp_path: Path) -> None:
    # LLVM makes memset of this loop, whose address a process without numba would not fill in.
    assert output(start(tmp_path, ZEROS)) == ["0", "1"]
    assert output(start(tmp_path, ZEROS)) == ["0", "1"]


def test_fingerprints_tell_functions_apart() -> None:
    def scaled(factor: float):
        return lambda x: x * factor

    assert fingerprint(scaled(2.0)) == fingerprint(scaled(2.0))
    assert fingerprint(scaled(2.0)) != fingerprint(scaled(3.0))
    table = [1, 2, 3]
    assert fingerprint(lambda x: table[x]) is None
