"""Memory of all spaces: loads, stores, vectors, addresses, atomics; and what happens out of bounds."""

from __future__ import annotations

import ctypes
import re

import numpy as np
import pytest
from ptx_snippets import HEAD, random_floats

from gpucompute.errors import DTypeError, OptionError, PtxError, ShapeError
from gpucompute.testing.ptx import run_ptx

RANDOM = np.random.default_rng(0)


def kernel(parameters: str, body: str, module: str = "") -> str:
    """A kernel `k` with registers of all sizes; %r0 is the number of the thread in the grid, %rd0 the same."""
    return f"""{HEAD}{module}
.visible .entry k({parameters})
{{
    .reg .pred %p<8>;
    .reg .b16 %h<8>;
    .reg .b32 %r<16>;
    .reg .b64 %rd<16>;
    .reg .f32 %f<8>;
    mov.u32 %r1, %ctaid.x;
    mov.u32 %r2, %ntid.x;
    mov.u32 %r3, %tid.x;
    mad.lo.u32 %r0, %r1, %r2, %r3;
    cvt.u64.u32 %rd0, %r0;
    {body}
    ret;
}}
"""


POINTERS = ".param .u64 x, .param .u64 y"
# %rd1 = &x[i], %rd2 = &y[i], of elements of 4 bytes
ADDRESSES = """
    ld.param.u64 %rd1, [x]; mad.lo.u64 %rd1, %rd0, 4, %rd1;
    ld.param.u64 %rd2, [y]; mad.lo.u64 %rd2, %rd0, 4, %rd2;"""


def words(n: int) -> np.ndarray:
    return np.frombuffer(RANDOM.bytes(4 * n), np.uint32).copy()


def test_vectors_of_16_bytes() -> None:
    body = """
    ld.param.u64 %rd1, [x]; mad.lo.u64 %rd1, %rd0, 16, %rd1;
    ld.param.u64 %rd2, [y]; mad.lo.u64 %rd2, %rd0, 16, %rd2;
    ld.global.nc.L1::no_allocate.v4.u32 {%r4, %r5, %r6, %r7}, [%rd1];
    st.global.v4.u32 [%rd2], {%r7, %r6, %r5, %r4};"""
    x, y = words(256), words(256)
    run_ptx(kernel(POINTERS, body), "k", 2, 32, [x, y])
    assert (y.reshape(-1, 4) == x.reshape(-1, 4)[:, ::-1]).all()


@pytest.mark.parametrize(("kind", "dtype"), [("u8", "u1"), ("s8", "i1"), ("u16", "u2"), ("s16", "i2"), ("s32", "i4")])
def test_narrow_loads_extend_and_stores_cut(kind: str, dtype: str) -> None:
    size = np.dtype(dtype).itemsize
    body = f"""
    ld.param.u64 %rd1, [x]; mad.lo.u64 %rd1, %rd0, {size}, %rd1;
    ld.param.u64 %rd2, [y]; mad.lo.u64 %rd2, %rd0, 8, %rd2;
    ld.global.{kind} %rd3, [%rd1];
    st.global.u64 [%rd2], %rd3;
    not.b64 %rd3, %rd3;
    st.global.{kind} [%rd1], %rd3;"""
    x = np.frombuffer(RANDOM.bytes(64 * size), dtype).copy()
    before, y = x.copy(), np.zeros(64, np.int64)
    run_ptx(kernel(POINTERS, body), "k", 1, 64, [x, y])
    assert (y == before).all()
    assert (x == ~before).all()


def test_threads_of_one_access_may_reach_different_arrays() -> None:
    # odd threads read x, even ones y; both write to where they read
    body = (
        ADDRESSES
        + """
    and.b32 %r4, %r0, 1; setp.eq.u32 %p1, %r4, 1;
    selp.b64 %rd3, %rd1, %rd2, %p1;
    ld.u32 %r5, [%rd3]; add.u32 %r5, %r5, 1; st.u32 [%rd3], %r5;"""
    )
    x, y = words(64), words(64)
    odd = np.arange(64) % 2 == 1
    want_x, want_y = np.where(odd, x + np.uint32(1), x), np.where(odd, y, y + np.uint32(1))
    run_ptx(kernel(POINTERS, body), "k", 2, 32, [x, y])
    assert (x == want_x).all()
    assert (y == want_y).all()


def test_addresses_as_numbers() -> None:
    x, y = words(32), words(32)
    address = [np.int64(x.ctypes.data), np.uint64(y.ctypes.data)]
    body = ADDRESSES + "ld.global.u32 %r4, [%rd1]; st.global.u32 [%rd2], %r4;"
    run_ptx(kernel(POINTERS, body), "k", 1, 32, address, memory=[x, y])
    assert (x == y).all()
    with pytest.raises(PtxError, match="out of bounds"):
        run_ptx(kernel(POINTERS, body), "k", 1, 32, address, memory=[x])


def test_arrays_may_overlap() -> None:
    x = np.arange(33, dtype=np.uint32)
    body = ADDRESSES + "ld.global.u32 %r4, [%rd2]; st.global.u32 [%rd1], %r4;"
    run_ptx(kernel(POINTERS, body), "k", 1, 32, [x, x[1:]])  # all load before any stores
    assert x.tolist() == [*range(1, 33), 32]


def test_a_part_of_an_array_does_not_hide_the_rest() -> None:
    x = words(64)
    before = x.copy()
    backwards = "ld.param.u64 %rd1, [x]; sub.u64 %rd2, 63, %rd0; mad.lo.u64 %rd1, %rd2, 4, %rd1;"
    run_ptx(kernel(POINTERS, backwards + "st.global.u32 [%rd1], %r0;"), "k", 2, 32, [x, x[4:8]])
    assert (x == np.arange(64)[::-1]).all()
    assert (before != x).any()


def test_of_threads_that_store_to_one_place_the_last_wins() -> None:
    x, y = words(1), words(64)
    run_ptx(kernel(POINTERS, "ld.param.u64 %rd1, [x]; st.global.u32 [%rd1], %r0;"), "k", 2, 32, [x, y])
    assert x[0] == 63


def test_arrays_may_start_between_words() -> None:
    room = np.frombuffer(RANDOM.bytes(80), np.uint8).copy()
    skip = (2 - room.ctypes.data) % 4
    x, y = room[skip : skip + 66], np.zeros(16, np.uint32)  # x starts 2 bytes behind a multiple of 4
    run_ptx(kernel(POINTERS, ADDRESSES + "ld.global.u32 %r4, [%rd1+2]; st.global.u32 [%rd2], %r4;"), "k", 1, 16, [x, y])
    assert y.tobytes() == x[2:].tobytes()


SHARED = """
    ld.param.u64 %rd1, [x]; mad.lo.u64 %rd1, %rd0, 4, %rd1;
    mov.u32 %r4, buffer; mad.lo.u32 %r5, %r3, 4, %r4;
    ld.global.u32 %r6, [%rd1]; st.shared.u32 [%r5], %r6;
    bar.sync 0;
    sub.u32 %r7, 31, %r3; mad.lo.u32 %r7, %r7, 4, %r4;
    ld.shared.u32 %r8, [%r7]; st.global.u32 [%rd1], %r8;"""


@pytest.mark.parametrize("dynamic", [False, True])
def test_shared_memory_belongs_to_a_block(dynamic: bool) -> None:
    size = "" if dynamic else "128"
    declaration = f"{'.extern ' if dynamic else ''}.shared .align 4 .b8 buffer[{size}];"
    x = words(96)
    expected = x.reshape(3, 32)[:, ::-1].reshape(-1)
    run_ptx(kernel(".param .u64 x", SHARED, declaration), "k", 3, 32, [x], shared_mem=128 if dynamic else 0)
    assert (x == expected).all()


def test_generic_addresses_reach_all_spaces() -> None:
    body = """
    .local .align 8 .b8 own[16];
    .shared .align 8 .b8 common[512];
    ld.param.u64 %rd1, [x]; mad.lo.u64 %rd1, %rd0, 4, %rd1;
    mov.u64 %rd3, own; cvta.local.u64 %rd4, %rd3;
    mov.u64 %rd5, common; cvta.shared.u64 %rd6, %rd5; mad.lo.u64 %rd6, %rd0, 4, %rd6;
    st.u32 [%rd4+4], %r0;
    st.u32 [%rd6], %r0;
    ld.local.u32 %r4, [own+4];
    cvta.to.shared.u64 %rd7, %rd6; ld.shared.u32 %r5, [%rd7];
    ld.u32 %r6, [%rd6]; ld.u32 %r7, [%rd4+4];
    isspacep.shared %p1, %rd6; isspacep.local %p2, %rd4; isspacep.global %p3, %rd1;
    and.pred %p1, %p1, %p2; and.pred %p1, %p1, %p3;
    isspacep.global %p4, %rd6; not.pred %p4, %p4; and.pred %p1, %p1, %p4;
    add.u32 %r4, %r4, %r5; add.u32 %r6, %r6, %r7; add.u32 %r4, %r4, %r6;
    selp.u32 %r4, %r4, 0, %p1;
    st.u32 [%rd1], %r4;"""
    x = words(128)
    run_ptx(kernel(".param .u64 x", body), "k", 1, 128, [x])
    assert (x == 4 * np.arange(128)).all()


MODULE = """
.global .align 4 .u32 counter = 5;
.const .align 4 .f32 table[4] = {1.0, 0f40000000, 3.0, 4.5};
.global .align 8 .u64 pointers[2] = {table, generic(counter)};
.global .align 1 .b8 text[6] = {104, 101, 0x6c, 108, 111, 0};
"""


def test_variables_of_the_module() -> None:
    body = """
    ld.param.u64 %rd1, [x]; mad.lo.u64 %rd1, %rd0, 4, %rd1;
    and.b32 %r4, %r0, 3;
    mul.wide.u32 %rd2, %r4, 4; mov.u64 %rd3, table; add.u64 %rd2, %rd2, %rd3;
    ld.const.f32 %f1, [%rd2];
    ld.global.u64 %rd4, [pointers]; ld.const.f32 %f2, [%rd4+4];
    ld.global.u64 %rd5, [pointers+8]; ld.global.u32 %r5, [%rd5];
    atom.global.add.u32 %r6, [counter], 1;
    ld.global.u8 %h1, [text+1]; cvt.rn.f32.u16 %f3, %h1;
    cvt.rn.f32.u32 %f4, %r5;
    add.f32 %f1, %f1, %f2; add.f32 %f1, %f1, %f3; add.f32 %f1, %f1, %f4;
    st.global.f32 [%rd1], %f1;"""
    for _ in range(2):  # a launch starts from the initial values
        x = np.zeros(8, np.float32)
        run_ptx(kernel(".param .u64 x", body, MODULE), "k", 1, 8, [x])
        assert (x == np.resize([1, 2, 3, 4.5], 8) + 2 + 101 + 5).all()


def test_structures_as_parameters() -> None:
    body = """
    ld.param.u64 %rd1, [x]; mad.lo.u64 %rd1, %rd0, 4, %rd1;
    and.b32 %r4, %r0, 1;
    mov.u64 %rd2, pair; mad.wide.u32 %rd2, %r4, 4, %rd2;
    ld.param.f32 %f1, [%rd2+4]; ld.param.v2.f32 {%f2, %f3}, [pair+8];
    cvta.param.u64 %rd3, %rd2; ld.f32 %f4, [%rd3];
    add.f32 %f1, %f1, %f3; add.f32 %f1, %f1, %f4;
    st.global.f32 [%rd1], %f1;"""
    pair = np.array((1, [2, 3, 4]), [("a", "f4"), ("b", "f4", 3)])
    x = np.zeros(4, np.float32)
    run_ptx(kernel(".param .u64 x, .param .align 8 .b8 pair[16]", body), "k", 1, 4, [x, pair[()]])
    assert x.tolist() == [2 + 4 + 1, 3 + 4 + 2] * 2


def test_copies_to_shared_memory() -> None:
    body = """
    .shared .align 16 .b8 common[512];
    ld.param.u64 %rd1, [x]; mad.lo.u64 %rd2, %rd0, 16, %rd1;
    mov.u32 %r4, common; mad.lo.u32 %r5, %r3, 16, %r4;
    cp.async.cg.shared.global [%r5], [%rd2], 16;
    cp.async.commit_group; cp.async.wait_group 0;
    bar.sync 0;
    ld.shared.v4.u32 {%r6, %r7, %r8, %r9}, [%r5];
    st.global.v4.u32 [%rd2], {%r9, %r8, %r7, %r6};"""
    x = words(128)
    expected = x.reshape(-1, 4)[:, ::-1].reshape(-1)
    run_ptx(kernel(".param .u64 x", body), "k", 1, 32, [x])
    assert (x == expected).all()


# Atomics


def atomic(
    operation: str, kind: str, dtype: str, *operands: np.ndarray, where: np.ndarray, memory: np.ndarray
) -> np.ndarray:
    """Run one atomic per thread at memory[where], and return what each found."""
    size = np.dtype(dtype).itemsize
    n = len(where)
    b = 8 * size
    loads = "".join(
        f"ld.param.u64 %rd4, [o{k}]; mad.lo.u64 %rd4, %rd0, {size}, %rd4; ld.global.b{b} %v{k}, [%rd4];"
        for k in range(len(operands))
    )
    names = ", ".join(f"%v{k}" for k in range(len(operands)))
    body = f"""
    .reg .b{b} %v<3>; .reg .b{b} %d;
    ld.param.u64 %rd1, [where]; mad.lo.u64 %rd1, %rd0, 4, %rd1; ld.global.u32 %r4, [%rd1];
    ld.param.u64 %rd2, [memory]; mad.wide.u32 %rd2, %r4, {size}, %rd2;
    ld.param.u64 %rd3, [out]; mad.lo.u64 %rd3, %rd0, {size}, %rd3;
    {loads}
    atom.global.{operation}.{kind} %d, [%rd2], {names};
    st.global.b{b} [%rd3], %d;"""
    parameters = ", ".join(
        f".param .u64 {n}" for n in ("where", "memory", "out", *(f"o{k}" for k in range(len(operands))))
    )
    out = np.zeros(n, dtype)
    run_ptx(kernel(parameters, body), "k", n // 32, 32, [where, memory, out, *operands])
    return out


ATOMICS = {
    "add": lambda old, v: old + v,
    "min": min,
    "max": max,
    "and": lambda old, v: old & v,
    "or": lambda old, v: old | v,
    "xor": lambda old, v: old ^ v,
    "exch": lambda old, v: v,
    "inc": lambda old, v: 0 if old >= v else old + 1,
    "dec": lambda old, v: v if old == 0 or old > v else old - 1,
    "cas": lambda old, expected, new: new if old == expected else old,
}
FORMS = [(op, kind) for op in ("add", "min", "max") for kind in ("u32", "s32", "u64")]
FORMS += [(op, f"b{n}") for op in ("and", "or", "xor", "exch", "cas") for n in (32, 64)]
FORMS += [("inc", "u32"), ("dec", "u32"), ("cas", "b16"), ("max", "s64")]


@pytest.mark.parametrize(("operation", "kind"), FORMS)
def test_atomics_take_turns(operation: str, kind: str) -> None:
    dtype = f"{'i' if kind[0] == 's' else 'u'}{int(kind[1:]) // 8}"
    n = 256
    where = RANDOM.integers(0, 5, n).astype(np.uint32)
    memory = RANDOM.integers(0, 6, 8).astype(dtype)
    operands = [RANDOM.integers(0, 6, n).astype(dtype) for _ in range(2 if operation == "cas" else 1)]
    content, found = memory.tolist(), []
    for k in range(n):
        old = content[where[k]]
        found.append(old)
        content[where[k]] = ATOMICS[operation](old, *(int(v[k]) for v in operands))
    got = atomic(operation, kind, dtype, *operands, where=where, memory=memory)
    assert got.tolist() == found
    assert memory.tolist() == content


def test_turns_go_by_number_after_threads_have_met_again() -> None:
    body = (
        ADDRESSES
        + """
    setp.eq.u32 %p2, %r0, 63; @%p2 exit;
    and.b32 %r4, %r0, 1; setp.eq.u32 %p1, %r4, 1; @%p1 bra ODD;
    mov.u32 %r5, 0; bra.uni BOTH;
    ODD: mov.u32 %r5, 0;
    BOTH: ld.param.u64 %rd3, [x]; atom.global.add.u32 %r5, [%rd3], 1; st.global.u32 [%rd2], %r5;"""
    )
    x, y = np.zeros(1, np.uint32), words(64)
    run_ptx(kernel(POINTERS, body), "k", 2, 32, [x, y])
    assert y[:63].tolist() == list(range(63))


def test_atomic_sums_of_floats_round_each_time() -> None:
    where = RANDOM.integers(0, 3, 128).astype(np.uint32)
    for kind, dtype in (("f32", "f4"), ("f64", "f8"), ("noftz.f16", "f2")):
        values = random_floats(kind[-3:], 128, 1, moderate=True)
        memory = np.zeros(8, dtype)
        content = memory.copy()
        found = np.zeros(128, dtype)
        for k in range(128):
            found[k] = content[where[k]]
            content[where[k]] += values[k]
        got = atomic("add", kind, dtype, values, where=where, memory=memory)
        assert got.tobytes() == found.tobytes()
        assert memory.tobytes() == content.tobytes()


def test_reductions_without_result() -> None:
    body = """
    .shared .align 4 .u32 total;
    ld.param.u64 %rd1, [x];
    setp.eq.u32 %p1, %r3, 0; @%p1 st.shared.u32 [total], 0;
    bar.sync 0;
    red.shared.add.u32 [total], %r3;
    bar.sync 0;
    ld.shared.u32 %r4, [total];
    @%p1 red.global.max.u32 [%rd1], %r4;
    red.global.add.u32 [%rd1+4], 1;
    red.global.or.b32 [%rd1+8], %r3;"""
    x = np.zeros(3, np.uint32)
    run_ptx(kernel(".param .u64 x", body), "k", 4, 64, [x])
    assert x.tolist() == [64 * 63 // 2, 256, 63]


def test_packed_atomics() -> None:
    body = """
    ld.param.u64 %rd1, [x]; ld.param.u64 %rd2, [y]; mad.lo.u64 %rd2, %rd0, 4, %rd2; ld.global.u32 %r4, [%rd2];
    red.global.add.noftz.f16x2 [%rd1], %r4;"""
    y = np.arange(64, dtype=np.float16)
    x = np.zeros(2, np.float16)
    run_ptx(kernel(POINTERS, body), "k", 1, 32, [x, y])
    assert x.tolist() == [y[::2].sum(), y[1::2].sum()]


# What must not be


def failing(body: str, arrays: list[np.ndarray], threads: int = 32, **options: int) -> str:
    with pytest.raises(PtxError) as caught:
        run_ptx(
            kernel(POINTERS, ADDRESSES + body, ".extern .shared .align 4 .b8 s[];"), "k", 2, threads, arrays, **options
        )
    return str(caught.value)


def test_out_of_bounds_names_line_thread_block_and_address() -> None:
    x, y = words(40), words(64)
    message = failing("ld.global.u32 %r4, [%rd1];", [x, y])
    text = kernel(POINTERS, ADDRESSES + "ld.global.u32 %r4, [%rd1];", ".extern .shared .align 4 .b8 s[];")
    line = 1 + next(k for k, v in enumerate(text.split("\n")) if "ld.global.u32 %r4" in v)
    address = x.ctypes.data + x.nbytes
    assert f"k, PTX line {line} (ld.global.u32), thread (8, 0, 0) of block (1, 0, 0): 4 bytes at" in message
    assert f"{address:#x} are out of bounds: it is 160 bytes behind the start of argument 0, which has 160" in message


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "st.global.u32 [%rd1+-4], %r0;",
            r"thread \(0, 0, 0\) of block \(0, 0, 0\): .* 4 bytes before the start of argu",
        ),
        ("setp.eq.u32 %p1, %r3, 7; @%p1 add.u64 %rd1, %rd1, 4096; st.global.u32 [%rd1], 0;", r"thread \(7, 0, 0\)"),
        ("setp.eq.u32 %p1, %r3, 7; add.u64 %rd1, %rd1, 4096; @%p1 st.global.u32 [%rd1], 0;", r"thread \(7, 0, 0\)"),
        ("ld.global.u32 %r4, [%rd1+2];", "is not a multiple of 4"),
        ("ld.global.v2.u32 {%r4, %r5}, [%rd1+4];", "is not a multiple of 8"),
        (
            "mov.u64 %rd3, 0; ld.global.u32 %r4, [%rd3];",
            "4 bytes at address 0x0 are out of bounds: no array is near it",
        ),
        ("mov.u64 %rd3, -4; ld.u32 %r4, [%rd3];", "4 bytes at address 0xfffffffffffffffc are out of bounds"),
        ("ld.shared.u32 %r4, [s+64];", "4 bytes at 0x40 of shared memory are out of bounds: it has 64 bytes"),
        (
            "mov.u64 %rd3, s; cvta.shared.u64 %rd3, %rd3; st.u32 [%rd3+64], 0;",
            "behind the start of shared memory, which",
        ),
        ("atom.global.add.u32 %r4, [%rd1+4096], 1;", "out of bounds"),
        ("atom.global.add.u32 %r4, [%rd1+1], 1;", "is not a multiple of 4"),
        ("st.param.u32 [x], %r0;", "a write to the parameters, which is read-only"),
        ("trap;", "the kernel executed a trap"),
    ],
)
def test_errors_in_the_kernel(body: str, message: str) -> None:
    assert re.search(message, failing(body, [words(64), words(64)], shared_mem=64))


def test_read_only_arrays_are_not_written() -> None:
    x, y = words(64), words(64)
    x.setflags(write=False)
    assert "a write to argument 0, which is read-only" in failing("st.global.u32 [%rd1], %r0;", [x, y])


def test_variables_have_gaps_between_them() -> None:
    module = ".global .align 4 .u32 a[4]; .global .align 4 .u32 b[4];"
    with pytest.raises(PtxError, match="16 bytes behind the start of a, which has 16 bytes"):
        run_ptx(kernel("", "ld.global.u32 %r4, [a+16];", module), "k", 1, 1, [])


def test_arguments_are_checked() -> None:
    text = kernel(".param .u64 x, .param .u32 n", "")
    x = np.zeros((4, 4), np.float32)
    for args, error, message in (
        ([x], ShapeError, "k: got 1 arguments, expected 2"),
        ([x, x], DTypeError, r"argument 1: got an array, which is a pointer of 8 bytes, expected 4 bytes \(.u32\)"),
        ([x, np.int64(1)], DTypeError, "argument 1: got int64 of 8 bytes, expected 4"),
        ([x, 1], DTypeError, r"argument 1: got int, expected a NumPy array or scalar, such as np.int32\(3\)"),
        ([x.T, np.int32(1)], ShapeError, "argument 0: got strides .* expected a C-contiguous array"),
    ):
        with pytest.raises(error, match=message):
            run_ptx(text, "k", 1, 1, args)
    good = [x, np.int32(1)]
    with pytest.raises(ShapeError, match=r"grid=\(1, 2, 3, 4\): expected 1 to 3 whole numbers"):
        run_ptx(text, "k", (1, 2, 3, 4), 1, good)
    with pytest.raises(ShapeError, match=r"block=2048: got 2048 threads, expected at most 1024"):
        run_ptx(text, "k", 1, 2048, good)
    with pytest.raises(OptionError, match="name='other': no kernel has this name; expected one of: k"):
        run_ptx(text, "other", 1, 1, good)
    with pytest.raises(DTypeError, match=r"memory\[0\]: got list"):
        run_ptx(text, "k", 1, 1, good, memory=[[1]])  # type: ignore[list-item]


def test_addresses_are_the_hosts() -> None:
    x = np.zeros(1, np.uint64)
    body = "ld.param.u64 %rd1, [x]; st.global.u64 [%rd1], %rd1;"
    run_ptx(kernel(".param .u64 x", body), "k", 1, 1, [x])
    assert x[0] == x.ctypes.data
    assert ctypes.c_uint64.from_address(int(x[0])).value == x[0]
