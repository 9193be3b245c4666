"""Whole kernels as compilers wrote them: stored PTX, and fresh PTX of the compilers that are there."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from gpucompute.errors import PtxError
from gpucompute.testing.ptx import instructions, numba_arguments, run_ptx

SAMPLES = Path(__file__).parent / "ptx_samples"
SOURCE = SAMPLES / "kernels.cu"
RANDOM = np.random.default_rng(0)


@cache
def nvcc(arch: str) -> str:
    if shutil.which("nvcc") is None:
        pytest.skip("nvcc is not on PATH")
    command = ["nvcc", "-ptx", f"-arch=compute_{arch}", "-fmad=false", str(SOURCE), "-o", "-"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@cache
def nvrtc(arch: str) -> str:
    if importlib.util.find_spec("cuda") is None or importlib.util.find_spec("cuda.bindings") is None:
        pytest.skip("cuda.bindings is not installed")
    from cuda.bindings import nvrtc
    from cuda.pathfinder import find_nvidia_header_directory

    include = find_nvidia_header_directory("cudart")
    if include is None:
        pytest.skip("the CUDA headers are not installed (nvidia-cuda-runtime)")
    error, program = nvrtc.nvrtcCreateProgram(SOURCE.read_bytes(), b"kernels.cu", 0, [], [])
    options = [f"--gpu-architecture=compute_{arch}".encode(), b"--fmad=false", b"-I" + include.encode()]
    (error,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
    assert error == nvrtc.nvrtcResult.NVRTC_SUCCESS
    text = b" " * nvrtc.nvrtcGetPTXSize(program)[1]
    nvrtc.nvrtcGetPTX(program, text)
    return text.rstrip(b"\0").decode()


def stored(name: str) -> Callable[[], str]:
    return (SAMPLES / f"{name}.ptx").read_text


PTX: dict[str, Callable[[], str]] = {
    "nvcc for sm_75, stored": stored("kernels_75"),
    "nvcc for sm_120, stored": stored("kernels_120"),
    "nvcc for sm_90": lambda: nvcc("90"),
    "NVRTC for sm_80": lambda: nvrtc("80"),
}


@pytest.fixture(params=PTX)
def ptx(request: pytest.FixtureRequest) -> str:
    return PTX[request.param]()


def numbers(*shape: int, dtype: str = "f4") -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(dtype)


def test_axpy(ptx: str) -> None:
    assert not any(name.startswith("fma") for name in instructions(ptx, "axpy"))
    x, y = numbers(1000), numbers(1000)
    expected = np.float32(2.5) * x + y
    run_ptx(ptx, "axpy", 4, 256, [np.float32(2.5), x, y, np.int32(1000)])
    assert y.tobytes() == expected.tobytes()


def test_more_blocks_than_run_at_once(ptx: str) -> None:
    n = 100_000
    x, y = numbers(n), numbers(n)
    expected = np.float32(2.5) * x + y
    run_ptx(ptx, "axpy", -(-n // 96), 96, [np.float32(2.5), x, y, np.int32(n)])
    assert y.tobytes() == expected.tobytes()


def test_sum(ptx: str) -> None:
    x, partial, total = numbers(5000, dtype="f8"), np.zeros(6), np.zeros(1)
    run_ptx(ptx, "sum", 6, 128, [x, partial, total, np.int32(5000)])
    padded = np.zeros(6 * 128 * -(-5000 // 768))
    padded[:5000] = x
    v = np.zeros((6, 4, 32))
    for part in padded.reshape(-1, 6, 4, 32):
        v = v + part
    for k in (16, 8, 4, 2, 1):
        v[..., :k] += v[..., k : 2 * k]
    blocks = v[:, 0, 0]
    for w in range(1, 4):
        blocks = blocks + v[:, w, 0]
    assert partial.tobytes() == blocks.tobytes()
    assert total[0] == sum(blocks.tolist())


def test_scan(ptx: str) -> None:
    x = RANDOM.integers(-100, 100, 3 * 128).astype("i4")
    y = np.zeros_like(x)
    run_ptx(ptx, "scan", 3, 128, [x, y], shared_mem=2 * 4 * 128)
    assert (y.reshape(3, 128) == np.cumsum(x.reshape(3, 128), axis=1)).all()
    with pytest.raises(PtxError, match="of shared memory are out of bounds: it has 512 bytes"):
        run_ptx(ptx, "scan", 3, 128, [x, y], shared_mem=4 * 128)


def test_matrix_product(ptx: str) -> None:
    a, b = (RANDOM.integers(-8, 8, shape).astype("f4") for shape in ((20, 37), (37, 50)))
    c = np.zeros((20, 50), "f4")
    run_ptx(ptx, "matmul", (4, 2), (16, 16), [a, b, c, *map(np.int32, (20, 37, 50))])
    assert (c == a @ b).all()


def test_histogram(ptx: str) -> None:
    x = RANDOM.integers(0, 256, (3000, 4), dtype=np.uint8)
    counts = np.zeros(256, np.uint32)
    run_ptx(ptx, "histogram", 3, 192, [x, counts, np.int32(3000)])
    assert (counts == np.bincount(x.reshape(-1), minlength=256)).all()


def test_smooth(ptx: str) -> None:
    x, y = numbers(300), np.zeros(300, "f4")
    run_ptx(ptx, "smooth", 3, 128, [x, y, np.int32(300)])
    expected = np.zeros(300, "f4")
    for k, weight in enumerate(np.array([1, 4, 6, 4, 1], "f4") / 16):
        expected += weight * x[np.clip(np.arange(300) + k - 2, 0, 299)]
    assert y.tobytes() == expected.tobytes()


def test_compact(ptx: str) -> None:
    x = RANDOM.integers(-5, 5, 1000).astype("i4")
    out, count = np.zeros(1000, "i4"), np.zeros(1, "i4")
    run_ptx(ptx, "compact", 4, 256, [x, out, count, np.int32(1000)])
    assert sorted(out[: count[0]].tolist()) == sorted(x[x > 0].tolist())


def test_halves(ptx: str) -> None:
    x, y = numbers(100, 2, dtype="f2"), numbers(100, 2, dtype="f2")
    z = np.zeros_like(x)
    run_ptx(ptx, "halves", 1, 128, [x, y, z, np.int32(100)])
    wide = x.astype("f8") * y.astype("f8") + x.astype("f8")  # exact
    assert (z == np.maximum(wide.astype("f2"), y * np.float16(0.5))).all()
    bits = (numbers(100).view("u4") >> np.uint32(16)).astype("u2")
    result = np.zeros(100, "u2")
    run_ptx(ptx, "brains", 1, 128, [bits, result, np.int32(100)])
    value = (bits.astype("u4") << np.uint32(16)).view("f4") * np.float32(3) + np.float32(1)
    rounded = value.view("u4") + np.uint32(0x7FFF) + (value.view("u4") >> np.uint32(16) & np.uint32(1))
    assert (result == (rounded >> np.uint32(16)).astype("u2")).all()


def test_polynomials(ptx: str) -> None:
    x, y = numbers(500, dtype="f8"), np.zeros(500)
    run_ptx(ptx, "polynomials", 2, 256, [x, y, np.int32(500)])
    for i in range(500):
        c = np.zeros(8)
        for k in range(8):
            c[(k + i) & 7] = 1 / (k + 1)
        v = x[i]

        def horner(n: int, c: np.ndarray = c, v: float = v) -> float:
            s = 0.0
            for coefficient in c[:n][::-1]:
                s = s * v + coefficient
            return s

        expected = [
            lambda: horner(8),
            lambda: horner(3),
            lambda v=v: np.sqrt(abs(v)),
            lambda v=v: np.rint(v * 10),
            lambda v=v: -v / 3 if v < 0 else np.floor(v),
            lambda v=v: float(int(v * 1e6)) / 7,
        ][i % 6]()
        assert y[i] == expected, i


def scrambled(v: int, rounds: int) -> int:
    m = 2**64 - 1
    for _ in range(rounds):
        v ^= v << 13 & m
        v ^= v >> 7
        v ^= v << 17 & m
        v = (v + (v * 0x9E3779B97F4A7C15 >> 64) % 1000003) & m
        octets = v.to_bytes(8, "little")
        permuted = int.from_bytes(bytes(octets[k] for k in (4, 7, 2, 5)), "little")
        v ^= int(f"{v & 0xFFFFFFFF:032b}"[::-1], 2) << 32 | permuted
    return v


def test_integers_of_64_bits(ptx: str) -> None:
    x = RANDOM.integers(1, 2**64, 100, dtype=np.uint64)
    expected = [scrambled(v, 5) for v in x.tolist()]
    run_ptx(ptx, "scramble", 1, 128, [x, np.int32(100), np.int32(5)])
    assert x.tolist() == expected


# numba.cuda


@cache
def fresh_numba() -> dict[str, str]:
    if importlib.util.find_spec("numba_cuda") is None:
        pytest.skip("numba-cuda is not installed")
    # In a process of its own: numba-cuda replaces parts of numba that other tests use.
    script = "import json, make_numba; print(json.dumps(make_numba.compile_all()))"
    environment = os.environ | {"PYTHONPATH": str(SAMPLES), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        pytest.skip(f"numba-cuda cannot compile here: {done.stderr.strip().splitlines()[-1]}")
    import json

    return json.loads(done.stdout)  # type: ignore[no-any-return]


@pytest.fixture(params=["stored", "fresh"])
def numba_ptx(request: pytest.FixtureRequest) -> Callable[[str], str]:
    if request.param == "fresh":
        texts = fresh_numba()
        return lambda name: texts[name]
    return lambda name: stored(f"numba_{name}")()


def test_functions_that_numba_calls(numba_ptx: Callable[[str], str]) -> None:
    x, y = numbers(300, dtype="f8"), np.zeros(300)
    run_ptx(numba_ptx("waves"), "waves", 2, 256, numba_arguments(x, y))
    assert np.abs(y - np.exp(-x * x) * np.sin(x * 1e6)).max() < 4e-16


def test_sums_in_numba(numba_ptx: Callable[[str], str]) -> None:
    x, out = RANDOM.integers(0, 50, 1000).astype("f4"), np.zeros(1, "f4")
    run_ptx(numba_ptx("block_sums"), "block_sums", 4, 256, numba_arguments(x, out))
    assert out[0] == x.sum()
    args = numba_arguments(x, out)
    args[4] = x[:900].copy()
    with pytest.raises(PtxError, match=r"the start of argument 4, which has 3600 bytes"):
        run_ptx(numba_ptx("block_sums"), "block_sums", 4, 256, args)
