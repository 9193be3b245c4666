"""CUDA C++ and PTX compiled without a GPU, and kept on disk for each architecture."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

import gpucompute as gp
from gpucompute.cli import main as cli
from gpucompute.launch import cubins, nvrtc

pytest.importorskip("cuda.bindings", reason="the extra cuda12 or cuda13 is not installed")

ARCHITECTURES = ["sm_75", "sm_80", "sm_90", "sm_100", "sm_120"]
SCALE = 'extern "C" __global__ void scale(float *x) { x[threadIdx.x] = x[threadIdx.x] * FACTOR + 1.0f; }'
TEMPLATE = "#include <cuda_fp16.h>\ntemplate <typename T> __global__ void twice(T *x) { x[0] = x[0] + x[0]; }"
PTX = ".version 7.0\n.target sm_75\n.address_size 64\n.visible .entry nothing() { ret; }\n"
EM_CUDA = 190


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("GPUCOMPUTE_CACHE_DIR", str(tmp_path / "cache"))
    cubins.clear()
    return tmp_path / "cache"


def is_cubin(code: bytes) -> bool:
    return code[:4] == b"\x7fELF" and struct.unpack_from("<H", code, 18)[0] == EM_CUDA


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_both_languages_compile_for_every_architecture(arch: str) -> None:
    assert is_cubin(cubins.from_cuda(SCALE, arch, ["-DFACTOR=2"]).code)
    assert is_cubin(cubins.from_ptx(PTX, arch))


def test_arithmetic_is_not_contracted_unless_asked() -> None:
    exact = cubins.from_cuda(SCALE, "sm_90", ["-DFACTOR=x[0]"]).code
    assert exact != cubins.from_cuda(SCALE, "sm_90", ["-DFACTOR=x[0]", "--fmad=true"]).code


def test_a_template_is_instantiated_by_its_name() -> None:
    cubin = cubins.from_cuda(TEMPLATE, "sm_90", expressions=["twice<half>"])
    assert "twice" in cubin.symbols["twice<half>"] and cubin.symbols["twice<half>"].encode() in cubin.code
    cubins.clear()
    assert cubins.from_cuda(TEMPLATE, "sm_90", expressions=["twice<half>"]) == cubin, "from disk, with its symbols"


def test_errors_carry_the_compilers_words() -> None:
    with pytest.raises(gp.CompileError, match=r"k\.cu does not compile for sm_90 with .*-DX=1(.|\n)*FACTOR"):
        cubins.from_cuda(SCALE, "sm_90", ["-DX=1"], name="k.cu")
    with pytest.raises(gp.CompileError, match=r"does not assemble for sm_90:\n(.|\n)*target"):
        cubins.from_ptx(".version 7.0\nnonsense", "sm_90")
    with pytest.raises(gp.OptionError, match=r"architecture '9.0': expected 'sm_' and the compute capability"):
        cubins.from_cuda(SCALE, "9.0")


def test_memory_disk_and_what_makes_another_kernel(empty_cache: Path) -> None:
    before = dict(cubins.counts)

    def counted() -> tuple[int, int, int]:
        compiled, loaded, hits = (cubins.counts[name] - before[name] for name in ("compiled", "loaded", "hits"))
        return compiled, loaded, hits

    first = cubins.from_cuda(SCALE, "sm_90", ["-DFACTOR=2"])
    assert counted() == (1, 0, 0)
    assert cubins.from_cuda(SCALE, "sm_90", ["-DFACTOR=2"]) == first and counted() == (1, 0, 1)
    cubins.clear()
    assert cubins.from_cuda(SCALE, "sm_90", ["-DFACTOR=2"]) == first and counted() == (1, 1, 1)
    cubins.from_cuda(SCALE, "sm_90", ["-DFACTOR=3"])
    cubins.from_cuda(SCALE, "sm_80", ["-DFACTOR=2"])
    cubins.from_cuda(SCALE + " ", "sm_90", ["-DFACTOR=2"])
    assert counted() == (4, 1, 1)
    assert sorted(path.name for path in (empty_cache / "cubins").iterdir()) == ["sm_80", "sm_90"]
    (path,) = (empty_cache / "cubins" / "sm_80").iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    cubins.clear()
    cubins.from_cuda(SCALE, "sm_80", ["-DFACTOR=2"])
    assert counted() == (5, 1, 1), "a damaged file is made anew"


def test_a_changed_header_is_another_kernel(tmp_path: Path) -> None:
    (tmp_path / "inner.cuh").write_text("#define FACTOR 2\n")
    (tmp_path / "outer.cuh").write_text('#include "inner.cuh"\n')
    (tmp_path / "scale.cu").write_text(f'#include "outer.cuh"\n{SCALE}')
    first = cubins.from_cuda(tmp_path / "scale.cu", "sm_90").code
    (tmp_path / "inner.cuh").write_text("#define FACTOR 3\n")
    assert cubins.from_cuda(tmp_path / "scale.cu", "sm_90").code != first


PROGRAM = """
import sys
from gpucompute.launch import cubins
cubins.from_cuda(sys.argv[1], "sm_90", ["-DFACTOR=2"])
print(cubins.counts["compiled"], cubins.counts["loaded"], any(name.startswith("cuda") for name in sys.modules))
"""


def test_a_new_process_compiles_nothing_and_loads_no_compiler() -> None:
    found = []
    for _ in range(2):
        command = [sys.executable, "-c", PROGRAM, SCALE]
        found.append(subprocess.run(command, env=os.environ, check=True, capture_output=True, text=True).stdout.split())
    assert found == [["1", "0", "True"], ["0", "1", "False"]]


def test_cache_build_fills_the_cache_ahead_of_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "scale.cu"
    path.write_text(f"// options: -DFACTOR=2\n// options: -DFACTOR=3\n{SCALE}")
    assert cli.main(["cache", "build", "--arch", "sm_90", "--arch", "sm_75", str(path)]) == 0
    text = capsys.readouterr().out
    assert "scale.cu -DFACTOR=3" in text and "4 kernel files for sm_90, sm_75" in text
    before = cubins.counts["compiled"]
    cubins.from_cuda(path, "sm_75", ["-DFACTOR=3"])
    assert cubins.counts["compiled"] == before
    assert cli.main(["cache", "build", "--arch", "sm90", str(path)]) == 2
    assert cli.main(["cache", "build", "--arch", "sm_90", str(tmp_path / "none.cu")]) == 2
    assert "no such file" in capsys.readouterr().err
    path.write_text("__global__ void f() { error }")
    assert cli.main(["cache", "build", "--arch", "sm_90", str(path)]) == 1


def test_own_kernels_compile_for_every_architecture() -> None:
    for path, options, arch, nbytes in cubins.build(cubins.own_files(), ARCHITECTURES):
        assert nbytes > 0, (path, options, arch)


def test_info_says_how_to_mend_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "works: compiles CUDA C++; compiled a kernel for sm_90" in lines["nvrtc"]
    assert "works" in lines["nvjitlink"]
    for name in ("gpu", "cupy", "pycuda", "emulator"):
        assert " works" in lines[name] or "; " in lines[name].partition("does not work: ")[2]


def test_architectures_are_checked_before_anything_is_loaded() -> None:
    assert nvrtc.check_architecture("sm_90a") == "sm_90a"
