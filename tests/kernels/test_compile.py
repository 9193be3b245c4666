"""Every `.cu` of this package compiles for all architectures, by NVRTC and by nvcc, and contracts nothing."""

from __future__ import annotations

import importlib.util
import re

import nvcc
import pytest

from gpucompute.launch import cubins, nvrtc

ARCHITECTURES = ("sm_75", "sm_80", "sm_90", "sm_100", "sm_120")
FILES = cubins.own_files()
KERNEL = re.compile(r'extern "C" __global__ void\s+(?:__launch_bounds__\([^)]*(?:\)[^)]*)?\)\s+)?(\w+)\(')

needs_nvrtc = pytest.mark.skipif(
    importlib.util.find_spec("cuda") is None, reason="needs NVRTC: pip install 'gpucompute[cuda13]'"
)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_has_a_twin_and_says_what_it_is(path):
    assert (path.parents[1] / "cpu" / f"{path.stem}.py").is_file()
    text = path.read_text(encoding="utf-8")
    header = text[: text.index("\n\n")]
    assert all(line.startswith("//") for line in header.splitlines())
    assert "grid" in header and "shared memory" in header.lower() and "Source" in header
    assert "#include" not in text
    assert set(re.findall(r"#define (?!GC_)(\w+)", text)) == set()


@needs_nvrtc
@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_nvrtc(path, arch):
    text = path.read_text(encoding="utf-8")
    code, _ = nvrtc.compile_cuda(text, arch, name=path.name)
    assert code.startswith(b"\x7fELF")
    for name in KERNEL.findall(text):
        assert b".text." + name.encode() in code, name


@nvcc.needed
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_nothing_is_contracted(path):
    ptx = nvcc.ptx(path)
    assert not re.search(r"\bfma\.", ptx)
    assert set(re.findall(r"\.entry (\w+)", ptx)) == set(KERNEL.findall(path.read_text(encoding="utf-8")))


@nvcc.needed
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_nvcc(path, tmp_path):
    numbers = [arch.removeprefix("sm_") for arch in ARCHITECTURES]
    targets = [f"-gencode=arch=compute_{number},code=sm_{number}" for number in numbers]
    to = tmp_path / "kernel.fatbin"
    nvcc.run(path, "-fatbin", "--threads=0", "-Xptxas=-O0", *targets, "-o", to)  # O0: half the time
    assert to.stat().st_size
