"""What an emulated kernel computes, against NumPy, and what is said to wrong calls."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from gpucompute.errors import CompileError, DTypeError, LaunchError, OptionError, ShapeError
from gpucompute.testing import check, emulate
from gpucompute.testing.emulator import build, compiler
from gpucompute.testing.emulator.library import load
from gpucompute.testing.emulator.rewrite import rewrite
from gpucompute.testing.emulator.source import load as load_source

SOURCE = Path(__file__).with_name("kernels") / "semantics.cu"
rng = np.random.default_rng(0)
i4, u4, f4 = np.int32, np.uint32, np.float32
lanes = np.arange(32)
x32 = rng.integers(-50, 50, 32, dtype=i4)

AXPY = """extern "C" __global__ void axpy(float *y, const float *x, float a, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] += a * x[i];
}"""


def test_indices() -> None:
    grid, block = (2, 3, 2), (4, 2, 2)
    out = np.zeros((12, 16, 8), i4)
    emulate(SOURCE, "indices")(grid, block, (out,))
    for b in range(12):
        for t in range(16):
            here = [t % 4, t // 4 % 2, t // 8, b % 2, b // 2 % 3, b // 6, 2, 3]
            assert out[b, t].tolist() == here


@pytest.mark.parametrize("width", [4, 32])
@pytest.mark.parametrize("amount", [0, 1, 3, 17])
def test_shuffles(amount: int, width: int) -> None:
    out = np.zeros((5, 32), i4)
    emulate(SOURCE, "shuffles")(1, 32, (x32, out, i4(amount), i4(width)))
    first, last = lanes // width * width, lanes // width * width + width - 1
    up, down, other = lanes - amount, lanes + amount, lanes ^ amount
    assert out[0].tolist() == x32[first + amount % width].tolist()
    assert out[1].tolist() == x32[np.where(up < first, lanes, up)].tolist()
    assert out[2].tolist() == x32[np.where(down > last, lanes, down)].tolist()
    assert out[3].tolist() == x32[np.where(other > last, lanes, other)].tolist()
    assert out[4].tolist() == x32[::-1].tolist()


def bits(flags: np.ndarray) -> int:
    return int((flags * (1 << lanes.astype("u8"))).sum())


def test_votes_matches_and_reductions() -> None:
    out = np.zeros((8, 32), u4)
    emulate(SOURCE, "votes")(1, 32, (x32, out))
    half = lanes // 16
    assert set(out[0].tolist()) == {bits(x32 > 0)}
    by_half = [x32[:16], x32[16:]]
    assert out[1].tolist() == [(by_half[h] > 45).any() + 2 * (by_half[h] < 45).all() for h in half]
    rest = np.fmod(x32, 3)
    assert out[2].tolist() == [bits(rest == r) for r in rest]
    assert out[3].tolist() == [0xFFFF0000 if h else 0xFFFF for h in half]
    assert set(out[4].view(i4).tolist()) == {int(x32.sum())}
    assert out[5].view(i4).tolist() == [by_half[h].min() for h in half]
    assert out[6].tolist() == [by_half[h].view(u4).max() for h in half]
    odd = np.fmod(x32, 2) != 0
    assert out[7].tolist() == np.where(odd, bits(odd), 0).tolist()


def test_barriers_that_count() -> None:
    x = rng.integers(-50, 50, 64, dtype=i4)
    out = np.zeros((3, 64), i4)
    emulate(SOURCE, "counting_barriers")(1, 64, (x, out))
    assert set(out[0].tolist()) == {int((x > 0).sum())}
    assert set(out[1].tolist()) == {1 + 2 * int((x != 0).all())}
    assert set(out[2].tolist()) == {2}


def test_atomics_of_all_types() -> None:
    i, u, long = np.full(7, 9, i4), np.full(11, 9, u4), np.full(7, 9, np.uint64)
    f, d, h = np.zeros(1, f4), np.zeros(1), np.zeros(1, np.float16)
    emulate(SOURCE, "atomics")(1, 32, (i, u, long, f, d, h, x32))
    for given, dtype in ((i, i4), (u, u4), (long, np.uint64)):
        v = x32.astype(np.int64).astype(dtype)
        assert given[0] == dtype(9) + v.sum(dtype=dtype)
        assert given[2] == min(9, v.min()) and given[3] == max(9, v.max())
        assert given[4] == np.bitwise_and.reduce(v) & dtype(9) and given[5] == np.bitwise_or.reduce(v) | dtype(9)
        assert given[6] == np.bitwise_xor.reduce(v) ^ dtype(9)
    assert i[1] == 9 - x32.sum()
    # 9, 10, 0, 1, ...: 32 steps around 11 values; then down, where 9 is beyond 7
    assert u[7:11].tolist() == [(9 + 32) % 11, (7 - 31) % 8, 5, (9 + int(x32.sum())) % 2**32]
    assert f[0] == d[0] == h[0] == x32.sum()


def test_half_and_bfloat16_round_as_ieee() -> None:
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(f4)
    tiny, large = rng.standard_normal(5000).astype(f4) * f4(1e-6), f4([65519, 65520, 1e9])
    x = np.concatenate([every[np.isfinite(every)], tiny, large])
    x = np.concatenate([x, (x * f4(1 + 2**-11)).astype(f4), (x * f4(1 + 2**-12)).astype(f4)])
    h, b, back = np.zeros(len(x), np.float16), np.zeros(len(x), np.uint16), np.zeros(len(x), f4)
    emulate(SOURCE, "narrow")(len(x) // 256 + 1, 256, (x, h, b, back, i4(len(x))))
    with np.errstate(over="ignore", invalid="ignore"):
        np.testing.assert_array_equal(h.view(np.uint16), x.astype(np.float16).view(np.uint16))
        word = x.view(u4).astype(np.uint64)  # to nearest, ties to even, on the upper half of the bits
        np.testing.assert_array_equal(b, (word + 0x7FFF + (word >> 16 & 1)) >> 16)
        np.testing.assert_array_equal(back, h.astype(f4) + (b.astype(u4) << 16).view(f4))


def test_half_arithmetic() -> None:
    a, b = (rng.integers(0, 1 << 16, 3000, dtype=np.uint16).view(np.float16) for _ in range(2))
    out = np.zeros((4, 3000), np.float16)
    emulate(SOURCE, "half_arithmetic")(12, 256, (a, b, out, i4(3000)))
    with np.errstate(all="ignore"):
        for got, expected in zip(out, (a + b, a * b, a / b, np.sqrt(np.abs(a))), strict=True):
            np.testing.assert_array_equal(got, expected)


def test_integer_intrinsics() -> None:
    x = np.concatenate([i4([0, 1, -1, 2**31 - 1, -(2**31)]), rng.integers(-(2**31), 2**31, 27).astype(i4)])
    out = np.zeros((32, 8), i4)
    emulate(SOURCE, "integers")(1, 32, (x, out))
    for v, got in zip(x.tolist(), out.view(u4).tolist(), strict=True):
        word = v % 2**32
        text = f"{word:032b}"
        data = [word >> 8 * i & 255 for i in range(4)]
        signed = [(d ^ 128) - 128 for d in data]
        sign = 255 if data[2] & 128 else 0  # 0xa: byte 2, its sign alone
        permuted = data[1] | data[2] << 8 | sign << 16 | 0x88 << 24
        funnel = ((77 << 32 | word) << 5 >> 32) % 2**32
        assert got == [
            text.count("1"), (text + "1").index("1"), 32 - (text.rindex("1") if word else 32), int(text[::-1], 2),
            (v * 2**20 >> 32) % 2**32, permuted, (1 + sum(s * s for s in signed)) % 2**32, funnel,
        ]  # fmt: skip


def test_directed_rounding_and_conversions() -> None:
    x = np.linspace(-2.7, 2.7, 32).astype(f4)
    out, ints = np.zeros((32, 4), f4), np.zeros((32, 4), i4)
    emulate(SOURCE, "roundings")(1, 32, (x, out, ints))
    wide = x.astype("f8")
    np.testing.assert_array_equal(out[:, 0], x + f4(1e-10))
    np.testing.assert_array_equal(out[:, 1], np.nextafter(x, f4(9)))  # 1e-10 is below half a step of any of them
    below = (wide * f4(0.1)).astype(f4)
    np.testing.assert_array_equal(out[:, 2], np.where(below > wide * f4(0.1), np.nextafter(below, f4(-9)), below))
    np.testing.assert_array_equal(out[:, 3], (wide * wide - wide).astype(f4))
    np.testing.assert_array_equal(ints[:, 0], np.rint(x))
    np.testing.assert_array_equal(ints[:, 1], (x * f4(1e9)).astype("i8").clip(-(2**31), 2**31 - 1))  # they saturate
    np.testing.assert_array_equal(ints[:, 2], np.floor(x))
    np.testing.assert_array_equal(ints[:, 3], x.view(i4))


def test_nothing_is_contracted() -> None:
    a = rng.standard_normal(1000).astype(f4)
    x = np.concatenate([a, a * a])
    out = np.ones(1000, f4)
    emulate(SOURCE, "no_contraction")(4, 256, (x, out, i4(1000)))
    assert not out.any()  # a fused multiply and add would leave the rounding error


def test_global_variables_can_be_reached() -> None:
    k = emulate(SOURCE, "variables")
    k.symbol("table", 16).view(f4)[:] = [1, 2, 3, 4]
    k.symbol("total", 4).view(i4)[:] = 5
    out = np.zeros(4, f4)
    k(1, 4, (out,))
    assert out.tolist() == [1, 2, 3, 4]
    assert k.symbol("total", 4).view(i4)[0] == 9
    with pytest.raises(CompileError, match="no variable named 'tables'; those at file scope"):
        k.symbol("tables", 4)


def test_values_and_structs_as_arguments() -> None:
    window = np.array((1.0, 3.0, 4), [("low", "f4"), ("high", "f4"), ("steps", "i4")])
    out = np.zeros(5, f4)
    emulate(SOURCE, "by_value")(1, 8, (window, f4([2, 5]), np.bool_(True), out))
    assert out.tolist() == [-11, -11.5, -12, -12.5, -13]


def test_shared_memory_of_all_kinds() -> None:
    out = np.zeros(32)
    emulate(SOURCE, "shared_kinds")(1, 32, (x32, out), shared_mem=256)
    np.testing.assert_array_equal(out, 3.5 * x32[::-1] + 12)
    assert not check(SOURCE, "shared_kinds", 1, 32, (x32, out), shared_mem=256).errors


def test_templates_namespaces_headers_and_macros() -> None:
    x = np.arange(8, dtype=f4)
    emulate(SOURCE, "scaled::multiply<float, 3>")(1, 8, (x,))
    assert x.tolist() == [3 * i for i in range(8)]
    n = np.zeros(4, i4)
    emulate(SOURCE, "scaled::plain")(1, 4, (n,))
    emulate(SOURCE, "plain", options=("-DOFFSET=10", "--std=c++17", "--fmad=false", "-arch=sm_90"))(1, 4, (n,))
    assert n.tolist() == [11] * 4
    emulate(SOURCE, "div")(1, 4, (n, i4(2)))
    assert n.tolist() == [5] * 4


def test_declarations_in_all_forms() -> None:
    forms = SOURCE.with_name("forms.cu")
    x = np.arange(32, dtype=i4)
    emulate(forms, "index")(1, 32, (x,))
    emulate(forms, "twice")(1, 32, (x,))
    assert x.tolist() == [2 * (i + 2) for i in range(32)]
    emulate(forms, "first_form")(1, 32, (x,))
    assert x.tolist() == [3 * (i % 16) + 1 + 2 + 3 + 4 + 32 for i in range(32)]
    second = emulate(forms, "second_form")
    assert [p.name for p in second.parameters] == ["n", "x", "number 3", "number 4"]
    second(1, 32, (i4(5), x, u4(0), f4(0)), shared_mem=128)
    assert set(x.tolist()) == {9}
    shorts = np.arange(1, 9, dtype=np.int16)
    emulate(forms, "inner::third_form<short>")(1, 8, (shorts,), shared_mem=32)
    assert shorts.tolist() == list(range(2, 10))
    assert not check(forms, "first_form", 1, 32, (x,)).errors


def test_threads_of_the_host_take_turns() -> None:
    axpy = emulate(AXPY, "axpy")
    ys = [np.zeros(5000, f4) for _ in range(4)]
    x = np.arange(5000, dtype=f4)
    runs = [threading.Thread(target=axpy, args=(20, 256, (y, x, f4(2), i4(5000)))) for y in ys]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert all((y == 2 * x).all() for y in ys)


def test_stack_of_a_thread_is_as_deep_as_cudas() -> None:
    code = """__global__ void deep(int *out, int n) {
      int local[100000];
      for (int i = 0; i < n; i++) local[i] = i;
      __syncthreads();
      int sum = 0;
      for (int i = 0; i < n; i++) sum += local[i] % 7;
      out[threadIdx.x] = sum;
    }"""
    out = np.zeros(4, i4)
    emulate(code, "deep")(1, 4, (out, i4(100000)))
    assert set(out.tolist()) == {int((np.arange(100000) % 7).sum())}


# ---- what is said to wrong calls


def refused(*args: object, grid: object = 1, block: object = 32) -> str:
    with pytest.raises((DTypeError, ShapeError, OptionError)) as caught:
        emulate(AXPY, "axpy")(grid, block, args)  # type: ignore[arg-type]
    return str(caught.value)


def test_wrong_arguments_name_the_parameter() -> None:
    y, x, a, n = np.zeros(9, f4), np.zeros(9, f4), f4(1), i4(9)
    assert refused(y, x, a) == (
        "axpy takes 4 arguments (y: float32 *, x: const float32 *, a: float32, n: int32), got 3"
    )
    assert refused(y, x.astype("f8"), a, n) == (
        "axpy, parameter x (const float32 *): got an array of float64; use x.astype(numpy.float32)"
    )
    assert refused(y, 5, a, n).endswith("got a Python int, expected a NumPy array, or None for a null pointer")
    assert refused(y, x, 2.0, n) == "axpy, parameter a (float32): got a Python float; pass numpy.float32(...)"
    assert refused(y, x, a, np.int64(9)) == "axpy, parameter n (int32): got a numpy.int64; pass numpy.int32(...)"
    assert "parameter y (float32 *): the array is not C-contiguous" in refused(np.zeros((9, 2), f4)[:, 0], x, a, n)
    y.flags.writeable = False
    assert "parameter y (float32 *): the array is read-only" in refused(y, x, a, n)


def test_wrong_configurations() -> None:
    args = np.zeros(9, f4), np.zeros(9, f4), f4(1), i4(9)
    assert refused(*args, block=(64, 32)).startswith("axpy: a block of 64 x 32 x 1 threads: this kernel takes up")
    assert "a grid of 1 x 70000 x 1 blocks" in refused(*args, grid=(1, 70000))
    assert "at least one thread along each axis" in refused(*args, grid=0)
    assert refused(*args, grid="many") == "grid='many': expected a whole number, or a tuple of one to three"
    with pytest.raises(OptionError, match="bounded: a block of 128 x 1 x 1 threads: this kernel takes up to 64"):
        emulate(SOURCE, "bounded")(1, 128, (np.zeros(128, i4),))
    with pytest.raises(OptionError, match="300000 bytes of shared memory: a block has up to 232448"):
        emulate(AXPY, "axpy")(1, 32, args, shared_mem=300000)


def complaint(code: str, name: str = "k", **options: tuple[str, ...]) -> str:
    with pytest.raises((CompileError, OptionError)) as caught:
        emulate(code, name, **options)
    return str(caught.value)


def test_sources_that_do_not_compile() -> None:
    said = complaint("__global__ void k(float *x) {\n  x[0] = y;\n}\n")
    assert said.startswith("kernel.cu does not compile for the emulator:\nkernel.cu:")
    assert re.search(r"^kernel\.cu:2:10: error: .*'y'", said, re.MULTILINE)
    two = "__global__ void k(int *x) {}\ntemplate <class T> __global__ void t(T *x) {}\n"
    assert complaint(two, "q") == "no kernel is named 'q'; there are: k"
    assert complaint(two, "q<int>") == "kernel.cu has no kernel 'q<int>'; it has k, t<...>"
    assert "no kernel that can be called by its name alone; it has t<...>" in complaint(two.splitlines()[1], "t")
    assert "kernel.cu:2: the emulator has nothing for <cub/cub.cuh>" in complaint("\n#include <cub/cub.cuh>\n")
    assert "compiler option '--bogus': the emulator takes -D" in complaint(two, options=("--bogus",))
    assert "missing.cu: cannot be read (No such file" in complaint("missing.cu")


def test_failures_of_a_kernel_name_the_place() -> None:
    code = """__global__ void k(int n) {
      if (threadIdx.x == 3) assert(n < 0);
    }"""
    with pytest.raises(LaunchError, match=r"^k: kernel.cu:2: assertion failed: n < 0 \[block \(1, 0, 0\), thread \(3"):
        emulate(code.replace("threadIdx.x == 3", "threadIdx.x == 3 && blockIdx.x"), "k")(2, 8, (i4(1),))


def test_without_a_compiler_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    compiler.find_compiler.cache_clear()
    for name in ("GPUCOMPUTE_CXX", "CXX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", "")
    try:
        with pytest.raises(CompileError, match=r"neither g\+\+ nor clang\+\+ was found; "):
            compiler.find_compiler()
        monkeypatch.setenv("CXX", "no-such-compiler -O3")
        with pytest.raises(CompileError, match="CXX='no-such-compiler -O3': there is no such program"):
            compiler.find_compiler()
    finally:
        compiler.find_compiler.cache_clear()


# ---- the cache and the C interface


def test_the_key_knows_headers_and_options(tmp_path: Path) -> None:
    header = tmp_path / "by.cuh"
    header.write_text("#pragma once\n#define BY 2\n")
    source = tmp_path / "scale.cu"
    source.write_text('#include "by.cuh"\n#include "by.cuh"\n__global__ void scale(int *x) { x[0] *= BY; }\n')
    x = np.array([1], i4)
    emulate(source, "scale")(1, 1, (x,))
    header.write_text("#pragma once\n#define BY 5\n")
    emulate(source, "scale")(1, 1, (x,))
    assert x[0] == 10
    assert build.library(load_source(source)) == build.library(load_source(source))


def test_many_processes_compile_the_same_kernel(tmp_path: Path) -> None:
    script = (
        "import numpy as np; from gpucompute.testing import emulate; x = np.zeros(1, np.int32);"
        "emulate('__global__ void k(int *x) { x[0] = 7; }', 'k')(1, 1, (x,)); print(x[0])"
    )
    environment = {**os.environ, "GPUCOMPUTE_CACHE_DIR": str(tmp_path)}
    runs = [subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE) for _ in range(2)]
    assert [run.communicate()[0] for run in runs] == [b"7\n", b"7\n"]
    kept = {path.name.split("-")[0] for path in (tmp_path / "emulator").iterdir()} - {"headers"}  # clang's has none
    assert kept == {"kernel", "runtime"}  # and nothing half made


def test_two_installations_share_no_compiled_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They name the headers that they were made with: those of the other may be gone, and its lines are not ours."""
    before = build._key("kernel")
    monkeypatch.setattr(build, "INCLUDE", shutil.copytree(build.INCLUDE, tmp_path / "include"))
    build._surroundings.cache_clear()
    assert build._key("kernel") != before
    monkeypatch.undo()
    build._surroundings.cache_clear()
    assert build._key("kernel") == before


def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    monkeypatch.setenv("GPUCOMPUTE_CACHE_DIR", str(blocked))
    x = np.zeros(1, i4)
    emulate("__global__ void unkept(int *x) { x[0] = 7; }", "unkept")(1, 1, (x,))
    assert x[0] == 7


def test_packed_arguments_of_the_c_interface() -> None:
    library = load(build.library(load_source(AXPY)))
    calls = ctypes.CDLL(str(library.path))
    y, x = np.ones(4, f4), np.arange(4, dtype=f4)
    packed = np.zeros(1, [("y", "u8"), ("x", "u8"), ("a", "f4"), ("n", "i4")])
    packed[0] = (y.ctypes.data, x.ctypes.data, 3, 4)
    three = ctypes.c_uint * 3
    number = calls.gce_find_kernel(b"axpy")
    launch = calls.gce_launch_packed
    assert launch(number, three(1, 1, 1), three(4, 1, 1), ctypes.c_size_t(0), ctypes.c_void_p(packed.ctypes.data),
                  ctypes.c_size_t(packed.nbytes)) == 0  # fmt: skip
    assert y.tolist() == [1, 4, 7, 10]
    assert calls.gce_find_kernel(b"nothing") == -1


def test_rewriting_keeps_lines() -> None:
    text = "\n__global__ void k() {\n  __shared__ float a[2][3],\n      b;\n  a[0][0] = b;\n}\nint after;\n"
    made = rewrite(text)
    assert made.text.count("\n") == text.count("\n")
    assert made.text.splitlines()[6] == "int after;"
    assert "gce_type_a[2][3],\n      gce_type_b;" in made.text


def test_numba_example_of_the_docs() -> None:
    pytest.importorskip("numba_cuda", reason="numba-cuda is not installed")
    page = (Path(__file__).parents[2] / "docs" / "testing-kernels.md").read_text()
    example = page.split("```text\n")[1].split("```")[0]
    names: dict[str, np.ndarray] = {}
    exec(example, names)
    assert (names["y"] == 2 * names["x"]).all()


def test_the_package_loads_nothing_until_it_is_asked() -> None:
    script = "import gpucompute.testing as t, sys; print(dir(t)); print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout == "['Report', 'check', 'emulate', 'run_ptx']\nFalse\n"
