"""Parameters read from CUDA C++."""

from __future__ import annotations

import struct

import numpy as np
import pytest

import gpucompute as gp
from gpucompute.launch import signature

SOURCE = """
#ifndef GC_T
#define GC_T float   // the elements
#endif
typedef unsigned long long ull; using idx = int64_t;
/* __global__ void hidden(int *x) */
template <typename T, int N = 3> __global__ void scale(T* __restrict__ x, const T a[], idx n, ull* c) {}
extern "C" __global__ void __launch_bounds__(256, (2)) axpy(GC_T *y, const GC_T* __restrict__ x, float a = 1.0f) {}
__global__ void many(unsigned, unsigned char const *p, uchar4* q, float4 v, void* w, some_t s, unsigned long int k,
                     char *text, std::complex<float>* cc, __half h, __nv_bfloat16 *b, float **rows);
extern "C" {
static __device__ int helper(int x) { return x; }
__global__ void inside(size_t n, std::uint8_t *p, bool b, const int3 t) {}
}
namespace a { __global__ void none(void) {} }
"""


def read(name: str, *options: str) -> list[tuple[str, bool, bool, str | None, int]]:
    found = signature.read(SOURCE, name, options).parameters
    return [(p.name, p.pointer, p.constant, p.dtype and p.dtype.name, p.lanes) for p in found]


@pytest.mark.parametrize(("given", "dtype"), [("double", "float64"), ("half, 4", "float16"), ("GC_T", "float32")])
def test_templates_typedefs_and_using(given: str, dtype: str) -> None:
    assert read(f"scale<{given}>") == [
        ("x", True, False, dtype, 1),
        ("a", True, True, dtype, 1),
        ("n", False, True, "int64", 1),
        ("c", True, False, "uint64", 1),
    ]


def test_macros_of_the_source_and_of_options() -> None:
    assert [p[3] for p in read("axpy")] == ["float32", "float32", "float32"]
    assert [p[3] for p in read("axpy", "-DGC_T=unsigned char")] == ["uint8", "uint8", "float32"]


def test_types() -> None:
    assert read("many") == [
        ("", False, True, "uint32", 1),
        ("p", True, True, "uint8", 1),
        ("q", True, False, "uint8", 4),
        ("v", False, True, "float32", 4),
        ("w", True, False, None, 1),
        ("s", False, True, None, 1),
        ("k", False, True, "uint64", 1),
        ("text", True, False, "int8", 1),
        ("cc", True, False, "complex64", 1),
        ("h", False, True, "float16", 1),
        ("b", True, False, "uint16", 1),
        ("rows", True, False, None, 1),
    ]
    assert read("inside")[3] == ("t", False, True, "int32", 3)
    assert read("a::none") == []


def test_which_kernels_have_c_names() -> None:
    expressions = {name: signature.read(SOURCE, name).expression for name in ("axpy", "inside", "many", "scale<float>")}
    assert expressions == {"axpy": False, "inside": False, "many": True, "scale<float>": True}


CONDITIONAL = """
#ifdef WIDE
typedef double real;
#elif defined(HALF)
typedef __half real;
#else
typedef float real;
#endif
#if %s
__global__ void k(int *x, real n) {}
#else
__global__ void k(float *x, real n) {}
#endif
"""


@pytest.mark.parametrize(
    ("condition", "options", "dtypes"),
    [
        ("0", ["-DWIDE"], ["float32", "float64"]),
        ("1", ["-DWIDE=1"], ["int32", "float64"]),
        ("MODE", ["-DMODE=0", "--define-macro=WIDE"], ["float32", "float64"]),
        ("!defined(WIDE)", ["-D WIDE"], ["float32", "float64"]),
        ("MODE", [], [None, None]),  # who knows: then neither is checked
        ("__CUDA_ARCH__ >= 800", ["-DWIDE"], [None, "float64"]),
    ],
)
def test_conditions_choose_a_declaration(condition: str, options: list[str], dtypes: list[str | None]) -> None:
    found = signature.read(CONDITIONAL % condition, "k", options).parameters
    assert [p.dtype and p.dtype.name for p in found] == dtypes


def test_a_branch_after_the_one_that_was_taken() -> None:
    source = "#if 1\n__global__ void k(int n) {}\n#elif X\n#else\n__global__ void k(float n) {}\n#endif\n"
    (parameter,) = signature.read(source, "k").parameters
    assert parameter.dtype == np.int32


def test_a_declaration_and_its_definition() -> None:
    source = "__global__ void k(float *, int);\n__global__ void k(float *x, int n) { }"
    assert [p.dtype for p in signature.read(source, "k").parameters] == [np.float32, np.int32]
    assert signature.names(source) == ["k"]


def test_an_unknown_kernel_lists_the_known() -> None:
    with pytest.raises(gp.OptionError, match=r"no kernel 'hidden'.*are: scale, axpy, many, inside, none"):
        signature.read(SOURCE, "hidden")


def test_the_layout_is_that_of_a_c_struct() -> None:
    kinds = {"b": "i1", "i": "i4", "q": "i8", "f": "f4", "d": "f8"}
    letters = ["b", "d", "f", "q", "b", "b", "i", "q"]
    aligned = np.dtype({"names": list("abcdefgh"), "formats": [kinds[x] for x in letters]}, align=True)
    text = signature.layout([(x, np.dtype(kinds[x]).alignment) for x in letters])
    values = [1, 2.0, 3.0, 4, 5, 6, 7, 8]
    memory = np.zeros(1, aligned)  # with zeros between the values, too
    for name, value in zip("abcdefgh", values, strict=True):
        memory[name] = value
    assert struct.pack(text, *values) == memory.tobytes()[: struct.calcsize(text)]
