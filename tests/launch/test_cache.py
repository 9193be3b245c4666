"""Kernels on disk: found again, shared by processes, and never a reason to fail."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

from gpucompute.launch import cache, flat
from gpucompute.launch.fingerprint import fingerprint

PROGRAM = """
import sys
import numpy as np
import gpucompute as gp

def softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)

x = np.arange(36, dtype=np.float32).reshape(3, 12)
result = gp.fuse(softmax)(x)
np.testing.assert_allclose(result, softmax(x), rtol=1e-6)
info = gp.cache_info()
llvm = "llvmlite" in sys.modules
print(info.compiled, info.loaded, "numba" in sys.modules, llvm, gp.digest(result))
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


# Makes the process one on which code without a linker cannot run.
OTHER_MACHINE = "from gpucompute.launch import flat\nflat.supported = lambda: False\n"


def test_a_new_process_compiles_nothing_and_needs_no_compiler(filled: tuple[Path, list[str]]) -> None:
    folder, first = filled
    compiled, loaded, numba, _, digest = first
    assert int(compiled) == 5 and loaded == "0" and numba == "True"  # a kernel; tile and join of max and of sum
    llvm = str(not flat.supported())
    assert output(start(folder)) == ["0", compiled, "False", llvm, digest]


def test_other_machines_load_object_files(tmp_path: Path, filled: tuple[Path, list[str]]) -> None:
    digest = filled[1][-1]
    assert output(start(tmp_path, OTHER_MACHINE + PROGRAM)) == ["5", "0", "True", "True", digest]
    assert output(start(tmp_path, OTHER_MACHINE + PROGRAM)) == ["0", "5", "False", "True", digest]


def test_many_processes_at_once(filled: tuple[Path, list[str]]) -> None:
    folder, first = filled
    for path in list((folder / "kernels").iterdir())[:2]:
        path.unlink()
    found = [output(process) for process in [start(folder) for _ in range(3)]]
    assert {line[-1] for line in found} == {first[-1]}
    assert not list((folder / "kernels").glob("*.tmp"))


TOGETHER = """
import os, pathlib, time
import numba
folder = pathlib.Path(os.environ["GPUCOMPUTE_CACHE_DIR"])
(folder / f"{os.getpid()}.ready").touch()
end = time.monotonic() + 60
while len(list(folder.glob("*.ready"))) < 3 and time.monotonic() < end:
    time.sleep(0.001)
"""


def test_processes_that_need_kernels_at_once_compile_each_once(tmp_path: Path, filled: tuple[Path, list[str]]) -> None:
    found = [output(process) for process in [start(tmp_path, TOGETHER + PROGRAM) for _ in range(3)]]
    assert sum(int(line[0]) for line in found) == 5
    assert sum(int(line[1]) for line in found) == 10
    assert {line[-1] for line in found} == {filled[1][-1]}
    assert {path.suffix for path in (tmp_path / "kernels").iterdir()} == {".kernel"}


def test_a_claim_holds_while_its_process_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "PATIENCE", 5.0)
    claim = tmp_path / "kernels" / "key.claim"
    with cache._turn(claim):
        host, pid = claim.read_text().split()
        assert int(pid) == os.getpid()
    assert not claim.exists()
    living = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    for old in (0, 6):  # within the patience; a claim that nobody can be asked about ends by its age
        claim.write_text(f"{host} {living.pid}")
        os.utime(claim, (time.time() - old,) * 2)
        assert cache._holds(claim) is (old == 0)
    os.utime(claim)
    monkeypatch.setattr(cache, "PATIENCE", 0.05)
    monkeypatch.setattr(cache, "_holds", lambda _: True)
    with cache._turn(claim):  # waited in vain: goes on, and leaves the claim to its owner
        assert claim.read_text() == f"{host} {living.pid}"
    assert claim.exists()
    monkeypatch.undo()
    living.communicate()
    with cache._turn(claim):  # its owner has died
        assert claim.read_text() == f"{host} {os.getpid()}"
    assert not claim.exists()

    claim.write_text(f"{host} {os.getpid()}")  # left by an interruption
    assert not cache._holds(claim)


def test_damaged_files_are_compiled_anew(filled: tuple[Path, list[str]]) -> None:
    folder, first = filled
    output(start(folder))
    paths = sorted((folder / "kernels").iterdir())
    paths[0].write_bytes(b"")
    paths[1].write_bytes(paths[1].read_bytes()[:-100])
    paths[2].write_bytes(paths[2].read_bytes()[:-1] + b"\xff\xff")
    compiled, loaded, *_, digest = output(start(folder))
    assert (compiled, loaded, digest) == ("3", "2", first[-1])


def test_a_folder_that_cannot_be_made_costs_only_speed(tmp_path: Path, filled: tuple[Path, list[str]]) -> None:
    blocked = tmp_path / "a file"
    blocked.write_text("")
    compiled, loaded, *_, digest = output(start(blocked / "cache"))
    assert (compiled, loaded, digest) == ("5", "0", filled[1][-1])


ZEROS = """
import numpy as np
import gpucompute as gp
print(gp.fuse(lambda x: x - x)(np.arange(1000)).sum(), gp.cache_info().compiled)
"""


def test_code_that_calls_the_c_library(tmp_path: Path) -> None:
    # LLVM makes memset of this loop. Its own loader would not fill in the address: there it stays in its process.
    assert output(start(tmp_path, ZEROS)) == ["0", "1"]
    assert output(start(tmp_path, ZEROS)) == ["0", "0" if flat.supported() else "1"]
    other = tmp_path / "other"
    assert output(start(other, OTHER_MACHINE + ZEROS)) == ["0", "1"]
    assert output(start(other, OTHER_MACHINE + ZEROS)) == ["0", "1"]


REDUCTION = """
import numpy as np
import gpucompute as gp
energy = gp.reduction(lambda x: x * x, lambda a, b: a + b, 0.0, finalize=lambda s: s / 2)
print(energy(np.arange(1000.0)), gp.cache_info().compiled)
"""


def test_reductions_of_users_are_found_again(tmp_path: Path) -> None:
    energy, compiled = output(start(tmp_path, REDUCTION))
    assert (energy, int(compiled)) == ("166416750.0", 3)
    assert output(start(tmp_path, REDUCTION)) == [energy, "0"]


def test_what_is_no_kernel_is_not_laid_out() -> None:
    assert flat.flatten(b"", "kernel") is None
    assert flat.flatten(b"\x7fELF\x01\x01" + bytes(100), "kernel") is None


def test_fingerprints_tell_functions_apart() -> None:
    def scaled(factor: float):
        return lambda x: x * factor

    assert fingerprint(scaled(2.0)) == fingerprint(scaled(2.0))
    assert fingerprint(scaled(2.0)) != fingerprint(scaled(3.0))
    table = [1, 2, 3]
    assert fingerprint(lambda x: table[x]) is None


def test_fingerprints_follow_what_functions_read() -> None:
    module, inner = types.ModuleType("users_settings"), types.ModuleType("users_settings.inner")
    module.inner = inner
    scope = {"settings": module, "FACTOR": 2.0, "Class": type("Class", (), {"__module__": "users"})}

    def made(text: str):
        exec(f"def function(x):\n {text}\n", scope)
        return fingerprint(scope["function"])

    for text, change in [
        ("return x * settings.K", lambda value: setattr(module, "K", value)),
        ("return x * settings.inner.J", lambda value: setattr(inner, "J", value)),
        ("return x * Class.C", lambda value: setattr(scope["Class"], "C", value)),
        ("return (lambda y: y * FACTOR)(x)", lambda value: scope.update(FACTOR=value)),
        ("return (lambda y: y * settings.K)(x)", lambda value: setattr(module, "K", value)),
    ]:
        found = []
        for value in (3.0, 7.0, 3.0):
            change(value)
            module.unread = object()
            found.append(made(text))
        assert found[0] is not None and found[0] == found[2] != found[1], text
    module.K = [1]
    assert made("return x * settings.K") is None

    def keyword(x, *, factor=2.0):
        return x * factor

    before = fingerprint(keyword)
    keyword.__kwdefaults__ = {"factor": 3.0}
    assert fingerprint(keyword) != before
