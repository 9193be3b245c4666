"""Intrinsics against NumPy: parts of 32-bit words, complex numbers, and others that came one by one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from gpucompute.testing import emulate

rng = np.random.default_rng(0)
u4, f4 = np.uint32, np.float32
EDGES = np.array([0x80808080, 0x7F7F7F7F, 0, 0xFFFFFFFF, 0x80007FFF, 0x00800080, 0x7FFF8000, 0x01010101], u4)
x = np.concatenate([np.repeat(EDGES, 8), rng.integers(0, 1 << 32, 448, dtype=u4)])
y = np.concatenate([np.tile(EDGES, 8), rng.integers(0, 1 << 32, 384, dtype=u4), x[-64:]])

# What a function makes of two parts, as numbers without limits: cut to the part, or limited first ("ss", "us").
EITHER_SIGN: dict[str, Callable[..., np.ndarray]] = {
    "min": np.minimum,
    "max": np.maximum,
    "absdiff": lambda a, b: abs(a - b),
    "avg": lambda a, b: (a + b + ((a + b) >= 0)) >> 1,
    **{f"cmp{name}": lambda a, b, f=f: -1 * f(a, b)
       for name, f in {"lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal}.items()},
    **{f"set{name}": lambda a, b, f=f: 1 * f(a, b)
       for name, f in {"lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal}.items()},
}  # fmt: skip
ROWS: list[tuple[str, str, bool, Callable[..., np.ndarray]]] = [  # name, i or u, limited, function
    ("add", "u", False, lambda a, b: a + b),
    ("sub", "u", False, lambda a, b: a - b),
    ("addss", "i", True, lambda a, b: a + b),
    ("subss", "i", True, lambda a, b: a - b),
    ("addus", "u", True, lambda a, b: a + b),
    ("subus", "u", True, lambda a, b: a - b),
    ("haddu", "u", False, lambda a, b: (a + b) >> 1),
    ("abs", "i", False, lambda a, b: abs(a)),
    ("neg", "i", False, lambda a, b: -a),
    ("absss", "i", True, lambda a, b: abs(a)),
    ("negss", "i", True, lambda a, b: -a),
    ("cmpeq", "u", False, lambda a, b: -1 * (a == b)),
    ("cmpne", "u", False, lambda a, b: -1 * (a != b)),
    ("seteq", "u", False, lambda a, b: 1 * (a == b)),
    ("setne", "u", False, lambda a, b: 1 * (a != b)),
    *((name + "s", "i", False, f) for name, f in EITHER_SIGN.items()),
    *((name + "u", "u", False, f) for name, f in EITHER_SIGN.items()),
]
ALONE = ("abs", "neg", "absss", "negss")


@pytest.mark.parametrize("parts", [4, 2])
def test_parts_of_words(parts: int) -> None:
    names = [name for name, *_ in ROWS] + ["sads", "sadu"]
    calls = [f"__v{name}{parts}({'x[i]' if name in ALONE else 'x[i], y[i]'})" for name in names]
    body = "".join(f"  out[{k * len(x)} + i] = {call};\n" for k, call in enumerate(calls))
    code = f"""__global__ void all(const unsigned *x, const unsigned *y, unsigned *out) {{
      int i = blockIdx.x * 128 + threadIdx.x;\n{body}}}"""
    out = np.zeros((len(names), len(x)), u4)
    emulate(code, "all")(len(x) // 128, 128, (x, y, out))
    for got, (name, letter, limited, function) in zip(out, ROWS, strict=False):
        dtype = np.dtype(f"{letter}{4 // parts}")
        exact = function(x.view(dtype).astype("i8"), y.view(dtype).astype("i8"))
        if limited:
            exact = exact.clip(np.iinfo(dtype).min, np.iinfo(dtype).max)
        np.testing.assert_array_equal(got, exact.astype(dtype).view(u4), err_msg=name)
    for got, letter in zip(out[-2:], "iu", strict=True):
        a, b = (v.view(f"{letter}{4 // parts}").astype("i8").reshape(-1, parts) for v in (x, y))
        np.testing.assert_array_equal(got, abs(a - b).sum(axis=1))


def nth_bit(mask: int, base: int, n: int) -> int:
    if n == 0:
        return base if mask >> base & 1 else 0xFFFFFFFF
    places = range(base, 32) if n > 0 else range(base, -1, -1)
    there = [i for i in places if mask >> i & 1]
    return there[abs(n) - 1] if abs(n) <= len(there) else 0xFFFFFFFF


def test_place_of_the_nth_bit() -> None:
    code = """__global__ void k(const unsigned *mask, const unsigned *base, const int *n, unsigned *out) {
      int i = blockIdx.x * 128 + threadIdx.x;
      out[i] = __fns(mask[i], base[i], n[i]);
    }"""
    base, n, out = y % 32, rng.integers(-12, 13, len(x), dtype=np.int32), np.zeros(len(x), u4)
    emulate(code, "k")(len(x) // 128, 128, (x, base, n, out))
    assert out.tolist() == [nth_bit(*row) for row in zip(x.tolist(), base.tolist(), n.tolist(), strict=True)]


def test_absolute_values_of_pairs_of_halves() -> None:
    code = """#include <cuda_fp16.h>
    __global__ void k(__half2 *x) { x[threadIdx.x] = __habs2(x[threadIdx.x]); }"""
    halves = np.array([[-1.5, 2], [-0.0, -np.inf], [65504, -1e-7]], np.float16)
    given = halves.copy()
    emulate(code, "k")(1, 3, (given,))
    np.testing.assert_array_equal(given.view(np.uint16), abs(halves).view(np.uint16))


@pytest.mark.parametrize(("type_", "suffix", "dtype"), [("cuFloatComplex", "f", "c8"), ("cuDoubleComplex", "", "c16")])
def test_complex_numbers(type_: str, suffix: str, dtype: str) -> None:
    code = f"""#include <cuComplex.h>
    typedef {type_} C;
    __global__ void k(const C *a, const C *b, C *out, int n) {{
      int i = threadIdx.x;
      out[i] = cuCadd{suffix}(a[i], b[i]), out[n + i] = cuCsub{suffix}(a[i], b[i]);
      out[2 * n + i] = cuCmul{suffix}(a[i], cuConj{suffix}(b[i])), out[3 * n + i] = cuCdiv{suffix}(a[i], b[i]);
      out[4 * n + i] = cuCfma{suffix}(a[i], b[i], a[i]);
      out[5 * n + i] = make_{type_}(cuCabs{suffix}(a[i]), cuCreal{suffix}(b[i]) - cuCimag{suffix}(b[i]));
    }}"""
    a, b = ((rng.standard_normal((2, 64)) * 4.0 ** rng.integers(-9, 9, (2, 64))).T @ [1, 1j] for _ in range(2))
    a, b = a.astype(dtype), b.astype(dtype)
    out = np.zeros((6, 64), dtype)
    emulate(code, "k")(1, 64, (a, b, out, np.int32(64)))
    expected = a + b, a - b, a * b.conj(), a / b, a * b + a, abs(a) + 1j * (b.real - b.imag)
    for got, one in zip(out, expected, strict=True):
        # products cancel: what counts is the size of what was added
        size = np.maximum(abs(one), abs(a * b)) if one is expected[2] or one is expected[4] else abs(one)
        assert (abs(got - one) <= 8 * np.finfo(a.real.dtype).eps * size).all()


def test_absolute_values_of_complex_numbers_do_not_overflow() -> None:
    code = """#include <cuComplex.h>
    __global__ void k(const float2 *a, float *out) { out[threadIdx.x] = cuCabsf(a[threadIdx.x]); }"""
    a = np.array([3e38 + 1j, 0, np.inf + 1j, complex(np.nan, 1), 3e30 - 4e30j], "c8")
    out = np.zeros(5, f4)
    emulate(code, "k")(1, 5, (a, out))
    np.testing.assert_allclose(out, [3e38, 0, np.inf, np.nan, 5e30], rtol=1e-6)
