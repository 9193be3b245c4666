"""Branches, calls, barriers and warp instructions against what each thread would do by itself."""

from __future__ import annotations

import numpy as np
import pytest
from ptx_snippets import HEAD, evaluate

from gpucompute.errors import PtxError
from gpucompute.testing.ptx import run_ptx

RANDOM = np.random.default_rng(0)
FULL = 0xFFFFFFFF


def test_loops_of_different_lengths() -> None:
    # Collatz: how many steps until 1
    body = """
    mov.u32 %d, 0;
    .reg .pred %p; .reg .b32 %v;
    LOOP:
    setp.eq.u32 %p, %a, 1; @%p bra DONE;
    and.b32 %v, %a, 1; setp.eq.u32 %p, %v, 0;
    @%p bra EVEN;
    mad.lo.u32 %a, %a, 3, 1; bra.uni NEXT;
    EVEN: shr.u32 %a, %a, 1;
    NEXT: add.u32 %d, %d, 1; bra.uni LOOP;
    DONE:"""
    a = np.arange(1, 200, dtype=np.uint32)
    expected = []
    for n in a.tolist():
        steps = 0
        while n != 1:
            n, steps = (3 * n + 1 if n % 2 else n // 2), steps + 1
        expected.append(steps)
    assert evaluate(body, "u4", a=a)[0].tolist() == expected


def test_jump_tables() -> None:
    body = """
    .reg .b32 %v; and.b32 %v, %a, 3;
    table: .branchtargets ZERO, ONE, TWO, ONE;
    brx.idx %v, table;
    ZERO: mov.u32 %d, 100; bra END;
    ONE: mov.u32 %d, 101; bra END;
    TWO: mov.u32 %d, 102;
    END:"""
    a = np.arange(64, dtype=np.uint32)
    assert evaluate(body, "u4", a=a)[0].tolist() == [100, 101, 102, 101] * 16
    with pytest.raises(PtxError, match=r"thread \(4, 0, 0\) .* a jump to target 4 of 4"):
        evaluate(body.replace("%v, %a, 3", "%v, %a, 7"), "u4", a=a)


def test_guards() -> None:
    a = np.arange(64, dtype=np.uint32)
    body = ".reg .pred %p; setp.lt.u32 %p, %a, 10; mov.u32 %d, 1; @%p mov.u32 %d, 2; @!%p add.u32 %d, %d, %a;"
    assert evaluate(body, "u4", a=a)[0].tolist() == [2] * 10 + [1 + k for k in range(10, 64)]


def test_names_belong_to_their_braces() -> None:
    body = """
    mov.u32 %d, %a;
    { .reg .b32 %v; mov.u32 %v, 1; SKIP: add.u32 %d, %d, %v; }
    { .reg .b64 %v; .reg .pred %p; mov.u64 %v, 2; setp.eq.u64 %p, %v, 2;
      @%p bra SKIP; mov.u32 %d, 0; SKIP: add.u32 %d, %d, 5; }"""
    a = np.arange(8, dtype=np.uint32)
    assert evaluate(body, "u4", a=a)[0].tolist() == [k + 6 for k in range(8)]


FUNCTIONS = """
.func (.param .b32 out) power(.param .b32 base, .param .b32 exponent)
{
    .reg .b32 %r<5>; .reg .pred %p;
    ld.param.b32 %r1, [base]; ld.param.b32 %r2, [exponent];
    mov.u32 %r3, 1;
    AGAIN: setp.eq.u32 %p, %r2, 0; @%p bra OUT;
    { .param .b32 l; .param .b32 r; .param .b32 product;
      st.param.b32 [l+0], %r3; st.param.b32 [r+0], %r1;
      call.uni (product), times, (l, r);
      ld.param.b32 %r3, [product+0]; }
    sub.u32 %r2, %r2, 1; bra AGAIN;
    OUT: st.param.b32 [out+0], %r3;
    ret;
}
.func (.param .b32 out) times(.param .b32 x, .param .b32 y)
{
    .reg .b32 %r<4>; .reg .pred %p;
    ld.param.b32 %r1, [x]; ld.param.b32 %r2, [y];
    setp.eq.u32 %p, %r1, 1; @!%p bra MULTIPLY;
    st.param.b32 [out+0], %r2; ret;
    MULTIPLY: mul.lo.u32 %r3, %r1, %r2; st.param.b32 [out+0], %r3;
    ret;
}
"""


def with_functions(body: str, functions: str, n: int = 64) -> np.ndarray:
    x = np.arange(n, dtype=np.uint32)
    text = f"""{HEAD}.func (.param .b32 out) times(.param .b32 x, .param .b32 y);
    {functions}
    .visible .entry k(.param .u64 x) {{
    .reg .b32 %r<8>; .reg .b64 %rd<4>; .reg .pred %p;
    mov.u32 %r1, %tid.x; ld.param.u64 %rd1, [x]; mad.wide.u32 %rd1, %r1, 4, %rd1; ld.global.u32 %r2, [%rd1];
    {body}
    st.global.u32 [%rd1], %r3; ret; }}"""
    run_ptx(text, "k", 1, n, [x])
    return x


CALL = """{ .param .b32 b; .param .b32 e; .param .b32 result;
    st.param.b32 [b], %r2; st.param.b32 [e], %r4; call.uni (result), power, (b, e); ld.param.b32 %r3, [result]; }"""


def test_device_functions() -> None:
    got = with_functions(f"and.b32 %r4, %r1, 3; {CALL}", FUNCTIONS)
    assert got.tolist() == [k ** (k & 3) for k in range(64)]


def test_a_call_by_some_threads() -> None:
    body = f"mov.u32 %r3, 7; mov.u32 %r4, 2; setp.lt.u32 %p, %r1, 20; @%p bra SKIP; {CALL} SKIP:"
    assert with_functions(body, FUNCTIONS).tolist() == [7] * 20 + [k**2 for k in range(20, 64)]


def test_recursion_is_refused() -> None:
    functions = FUNCTIONS.replace("call.uni (product), times, (l, r);", "call.uni (product), power, (l, r);")
    with pytest.raises(PtxError, match="power calls itself; recursive device functions are not supported"):
        with_functions(f"mov.u32 %r4, 2; {CALL}", functions)


def test_what_is_not_defined_is_named() -> None:
    with pytest.raises(
        PtxError, match=r"thread \(0, 0, 0\) .*: the kernel calls times, which this PTX does not define"
    ):
        with_functions(f"mov.u32 %r4, 2; {CALL}", FUNCTIONS.partition(".func (.param .b32 out) times")[0])
    with pytest.raises(PtxError, match=r"PTX line \d+ \(add.u32\), thread .*: %nothing is not declared"):
        evaluate("add.u32 %d, %a, %nothing;", "u4", a=np.zeros(1, "u4"))


def test_printf_and_assertions(capsys: pytest.CaptureFixture[str]) -> None:
    functions = """
    .extern .func (.param .b32 status) vprintf(.param .b64 format, .param .b64 values);
    .extern .func __assertfail(.param .b64 m, .param .b64 f, .param .b32 l, .param .b64 n, .param .b64 s);
    .global .align 1 .b8 form[22] = {37,100,32,37,53,46,50,102,32,37,35,108,108,120,32,37,115,37,37,10,0,0};
    .global .align 1 .b8 word[3] = {111, 107, 0};
    .global .align 1 .b8 expression[6] = {120, 32, 60, 32, 51, 0};
    """
    body = """
    .local .align 8 .b8 values[32];
    mov.b64 %rd2, values; cvta.local.u64 %rd2, %rd2;
    st.u32 [%rd2], %r2; st.f64 [%rd2+8], 0d3FF8000000000000; st.u64 [%rd2+16], 255;
    mov.b64 %rd3, word; cvta.global.u64 %rd3, %rd3; st.u64 [%rd2+24], %rd3;
    mov.b64 %rd3, form; cvta.global.u64 %rd3, %rd3;
    { .param .b64 f; .param .b64 v; .param .b32 status; st.param.b64 [f], %rd3; st.param.b64 [v], %rd2;
      call.uni (status), vprintf, (f, v); }
    mov.u32 %r3, 0; setp.lt.u32 %p, %r2, 3; @%p bra FINE;
    mov.b64 %rd2, expression; cvta.global.u64 %rd2, %rd2;
    { .param .b64 m; .param .b64 f; .param .b32 l; .param .b64 n; .param .b64 s;
      st.param.b64 [m], %rd2; st.param.b64 [f], %rd3; call.uni __assertfail, (m, f, l, n, s); }
    FINE:"""
    with pytest.raises(PtxError, match=r"thread \(3, 0, 0\) of .*: the assertion 'x < 3' of %d %5"):
        with_functions(body, functions, 4)
    assert capsys.readouterr().out == "".join(f"{k}  1.50 0xff ok%\n" for k in range(4))


def test_special_registers() -> None:
    names = {"tid": (5, 3, 2), "ntid": (5, 3, 2), "ctaid": (2, 3, 4), "nctaid": (2, 3, 4)}
    registers = [f"%{name}.{axis}" for name in names for axis in "xyz"] + ["%laneid", "%warpid", "%lanemask_lt"]
    stores = "".join(f"mov.u32 %r1, {name}; st.global.u32 [%rd1+{4 * k}], %r1;" for k, name in enumerate(registers))
    text = f"""{HEAD}.visible .entry k(.param .u64 x) {{
    .reg .b32 %r<8>; .reg .b64 %rd<4>;
    mov.u32 %r1, %ctaid.z; mov.u32 %r2, %ctaid.y; mad.lo.u32 %r1, %r1, 3, %r2; mov.u32 %r2, %ctaid.x;
    mad.lo.u32 %r1, %r1, 2, %r2;
    mov.u32 %r2, %tid.z; mad.lo.u32 %r1, %r1, 2, %r2; mov.u32 %r2, %tid.y; mad.lo.u32 %r1, %r1, 3, %r2;
    mov.u32 %r2, %tid.x; mad.lo.u32 %r1, %r1, 5, %r2;
    ld.param.u64 %rd1, [x]; mad.wide.u32 %rd1, %r1, {4 * len(registers)}, %rd1;
    {stores} ret; }}"""
    x = np.zeros((4, 3, 2, 2, 3, 5, len(registers)), np.uint32)
    run_ptx(text, "k", (2, 3, 4), (5, 3, 2), [x])
    for at in np.ndindex(x.shape[:-1]):
        bz, by, bx, z, y, tx = at
        number = (z * 3 + y) * 5 + tx
        mask = (1 << number) - 1
        assert x[at].tolist() == [tx, y, z, 5, 3, 2, bx, by, bz, 2, 3, 4, number, 0, mask]


# Barriers


def test_barriers_that_count() -> None:
    a = RANDOM.integers(0, 2, 128).astype(bool)
    a[64:] = True
    for form, expected in (
        ("popc.u32 %d, 0, %a", [int(a[:64].sum())] * 64 + [64] * 64),
        ("and.pred %q, 0, %a", [0] * 64 + [1] * 64),
        ("or.pred %q, 0, !%a", [1] * 64 + [0] * 64),
    ):
        body = f".reg .pred %q; bar.red.{form};" + ("selp.u32 %d, 1, 0, %q;" if "pred" in form else "")
        assert evaluate(body, "u4", a=a)[0].tolist() == expected
        # the same when the warps come by different ways
        ways = f"@%w bra FAR; bar.red.{form}; bra.uni NEAR; FAR: bar.red.{form}; NEAR:"
        body = f".reg .pred %q, %w; setp.lt.u32 %w, %t, 32; {ways}" + (
            "selp.u32 %d, 1, 0, %q;" if "pred" in form else ""
        )
        assert evaluate(body, "u4", a=a)[0].tolist() == expected


def test_producers_and_consumers() -> None:
    # the second warp arrives without waiting; the first waits for it
    body = """
    .shared .align 4 .b8 s[128];
    .reg .pred %p; .reg .b32 %v, %w;
    and.b32 %w, %t, 31; mul.lo.u32 %w, %w, 4; mov.u32 %v, s; add.u32 %v, %v, %w;
    mov.u32 %w, %tid.x;
    setp.lt.u32 %p, %w, 32; @%p bra CONSUME;
    st.shared.u32 [%v], %a; bar.arrive 1, 64; mov.u32 %d, 0; bra.uni END;
    CONSUME: bar.sync 1, 64; ld.shared.u32 %d, [%v];
    END:"""
    a = np.arange(64, dtype=np.uint32)
    assert evaluate(body, "u4", a=a)[0].tolist() == [*range(32, 64), *[0] * 32]


def test_an_arrival_counts_once() -> None:
    body = """
    .reg .pred %p; mov.u32 %d, 0; setp.lt.u32 %p, %a, 32; @%p bra CONSUME;
    bar.arrive 1, 64; bra.uni END;
    CONSUME: bar.sync 1, 64; bar.sync 1, 64;
    END:"""
    with pytest.raises(PtxError, match="threads wait for others that never come"):
        evaluate(body, "u4", a=np.arange(64, dtype=np.uint32))


def test_threads_that_ended_are_not_waited_for() -> None:
    body = ".reg .pred %p; mov.u32 %d, 1; setp.gt.u32 %p, %a, 40; @%p exit; bar.sync 0; add.u32 %d, %d, 1;"
    a = np.arange(64, dtype=np.uint32)
    assert evaluate(body, "u4", a=a)[0].tolist() == [2] * 41 + [0] * 23


def test_deadlocks_are_named() -> None:
    body = ".reg .pred %p; mov.u32 %d, 1; setp.lt.u32 %p, %a, 32; @%p bar.sync 1, 64; @!%p bar.sync 2, 64;"
    with pytest.raises(
        PtxError, match=r"wait for others that never come: thread \(0, 0, 0\) of block \(0, 0, 0\) and 31"
    ):
        evaluate(body, "u4", a=np.arange(64, dtype=np.uint32))


def test_a_lock_that_threads_of_one_warp_fight_for() -> None:
    body = """
    .shared .align 4 .u32 lock; .shared .align 4 .u32 total;
    .reg .pred %p; .reg .b32 %v, %w;
    mov.u32 %v, %tid.x; setp.eq.u32 %p, %v, 0; @%p st.shared.u32 [lock], 0; @%p st.shared.u32 [total], 0;
    bar.sync 0;
    SPIN: atom.shared.cas.b32 %v, [lock], 0, 1; setp.ne.u32 %p, %v, 0; @%p bra SPIN;
    ld.shared.u32 %d, [total]; add.u32 %w, %d, %a; st.shared.u32 [total], %w;
    atom.shared.exch.b32 %v, [lock], 0;"""
    (got,) = evaluate(body, "u4", a=np.ones(64, np.uint32))
    assert sorted(got.tolist()) == list(range(64))


# Warps


def shuffle(mode: str, lane: int, by: int, width: int) -> tuple[int, bool]:
    """CUDA C++'s words: within segments of `width` lanes."""
    first = lane // width * width
    source = {
        "up": lane - by,
        "down": lane + by,
        "bfly": lane ^ by,
        "idx": first + by % width,
    }[mode]
    inside = first <= source if mode == "up" else source < first + width
    return (source if inside else lane), inside


@pytest.mark.parametrize("mode", ["up", "down", "bfly", "idx"])
@pytest.mark.parametrize("width", [32, 16, 4])
def test_shuffles(mode: str, width: int) -> None:
    a = RANDOM.integers(0, 2**32, 128, dtype=np.uint32)
    clamp = (32 - width) << 8 | (0 if mode == "up" else 31)
    for by in (0, 1, 3, 7, 16):
        body = f"shfl.sync.{mode}.b32 %d|%p, %a, {by}, {clamp}, -1;"
        got, inside = evaluate(body, {"d": "u4", "p": "bool"}, a=a)
        for k in range(128):
            source, ok = shuffle(mode, k % 32, by, width)
            assert (got[k], inside[k]) == (a[k // 32 * 32 + source], ok)


def test_shuffles_with_different_sources() -> None:
    a = RANDOM.integers(0, 2**32, 64, dtype=np.uint32)
    b = RANDOM.integers(0, 32, 64).astype(np.uint32)
    (got,) = evaluate("shfl.sync.idx.b32 %d, %a, %b, 31, -1;", "u4", a=a, b=b)
    assert (got == a[np.arange(64) // 32 * 32 + b]).all()


def test_warp_instructions_wait_for_lanes_that_come_by_other_ways() -> None:
    # odd lanes go a longer way to the same shuffle
    body = """
    .reg .pred %p; .reg .b32 %v; and.b32 %v, %a, 1; setp.eq.u32 %p, %v, 1;
    mov.u32 %v, 0;
    AGAIN: @%p bra LONG;
    shfl.sync.bfly.b32 %d, %a, 1, 31, -1; bra.uni END;
    LONG: add.u32 %v, %v, 1; setp.lt.u32 %p, %v, 5; bra.uni AGAIN;
    END:"""
    a = np.arange(64, dtype=np.uint32)
    assert evaluate(body, "u4", a=a)[0].tolist() == [k ^ 1 for k in range(64)]
    # two instructions of one form meet
    body = """
    .reg .pred %p; setp.lt.u32 %p, %a, 16; @%p bra A;
    shfl.sync.idx.b32 %d, %a, 0, 31, -1; bra.uni END;
    A: shfl.sync.idx.b32 %d, %a, 31, 31, -1;
    END:"""
    a = np.arange(32, dtype=np.uint32)
    assert evaluate(body, "u4", a=a, block=32)[0].tolist() == [31] * 16 + [0] * 16


def test_lanes_that_ended_are_not_waited_for() -> None:
    body = "mov.u32 %d, 9; .reg .pred %p; setp.ge.u32 %p, %a, 16; @%p exit; shfl.sync.down.b32 %d, %a, 1, 31, -1;"
    (got,) = evaluate(body, "u4", block=32, a=np.arange(32, dtype=np.uint32))
    assert got[:15].tolist() == list(range(1, 16))
    assert got[15] == 0xCBCBCBCB  # undefined in PTX


def test_wrong_masks() -> None:
    a = np.arange(32, dtype=np.uint32)
    with pytest.raises(
        PtxError, match=r"thread \(8, 0, 0\) .*: the thread is lane 8, which its mask 0x000000ff does not"
    ):
        evaluate("shfl.sync.idx.b32 %d, %a, 0, 31, 255;", "u4", a=a)
    body = "mov.u32 %d, 0; .reg .pred %p; setp.lt.u32 %p, %a, 16; @%p bar.warp.sync -1; @!%p bar.sync 0;"
    with pytest.raises(PtxError, match="for the threads that its mask names"):
        evaluate(body, "u4", a=a, block=32)


def test_votes_and_matches() -> None:
    a = RANDOM.integers(0, 3, 128).astype(np.uint32)
    a[32:64] = 1
    lanes = a.reshape(-1, 32)
    one = lanes == 1
    ballots = [sum(int(v) << k for k, v in enumerate(row)) for row in one]
    predicate = ".reg .pred %p; setp.eq.u32 %p, %a, 1;"
    (got,) = evaluate(predicate + "vote.sync.ballot.b32 %d, %p, -1;", "u4", a=a)
    assert got[::32].tolist() == ballots
    for form, expected in (("all", one.all(1)), ("any", one.any(1)), ("uni", one.all(1) | ~one.any(1))):
        (got,) = evaluate(predicate + f"vote.sync.{form}.pred %d, %p, -1;", "bool", a=a)
        assert (got == np.repeat(expected, 32)).all()
    (got,) = evaluate("match.any.sync.b32 %d, %a, -1;", "u4", a=a)
    assert got.tolist() == [sum(int(v == row[k]) << j for j, v in enumerate(row)) for row in lanes for k in range(32)]
    got, agreed = evaluate("match.all.sync.b32 %d|%p, %a, -1;", {"d": "u4", "p": "bool"}, a=a)
    assert agreed.tolist() == np.repeat([(row == row[0]).all() for row in lanes], 32).tolist()
    assert (got == np.where(agreed, FULL, 0)).all()


def test_part_of_a_warp_votes() -> None:
    body = """
    .reg .pred %p, %q; setp.lt.u32 %p, %a, 8; setp.ne.u32 %q, %a, 3;
    mov.u32 %d, 77;
    @%p vote.sync.ballot.b32 %d, %q, 255;
    @!%p activemask.b32 %d;"""
    (got,) = evaluate(body, "u4", block=32, a=np.arange(32, dtype=np.uint32))
    assert got.tolist() == [0b1111_0111] * 8 + [0xFFFFFF00] * 24


def test_each_half_of_a_warp_by_itself() -> None:
    a = np.arange(32, dtype=np.uint32)
    body = ".reg .pred %p; .reg .b32 %m2; setp.lt.u32 %p, %a, 16; selp.b32 %m2, 0xFFFF, 0xFFFF0000, %p;"
    (got,) = evaluate(body + "redux.sync.add.u32 %d, %a, %m2;", "u4", block=32, a=a)
    assert got.tolist() == [sum(range(16))] * 16 + [sum(range(16, 32))] * 16


@pytest.mark.parametrize(
    "form", ["add.s32", "min.s32", "max.s32", "min.u32", "max.u32", "and.b32", "or.b32", "xor.b32"]
)
def test_reductions_over_a_warp(form: str) -> None:
    name, kind = form.split(".")
    dtype = "i4" if kind == "s32" else "u4"
    a = np.frombuffer(RANDOM.bytes(4 * 96), dtype).copy()
    (got,) = evaluate(f"redux.sync.{form} %d, %a, -1;", dtype, block=96, a=a)
    functions = {"add": np.add, "min": np.minimum, "max": np.maximum, "and": np.bitwise_and, "or": np.bitwise_or}
    function = functions.get(name, np.bitwise_xor)
    assert (got == np.repeat(function.reduce(a.reshape(-1, 32), axis=1, dtype=dtype), 32)).all()


def test_election() -> None:
    body = """
    .reg .pred %p; setp.lt.u32 %p, %a, 5; mov.u32 %d, 99;
    @!%p elect.sync %d|%q, 0xFFFFFFE0; @%p setp.eq.u32 %q, %a, 99;"""
    leader, chosen = evaluate(body, {"d": "u4", "q": "bool"}, block=32, a=np.arange(32, dtype=np.uint32))
    assert leader.tolist() == [99] * 5 + [5] * 27
    assert np.flatnonzero(chosen).tolist() == [5]


def test_blocks_that_are_no_whole_warps() -> None:
    a = np.arange(80, dtype=np.uint32)
    (got,) = evaluate(".reg .pred %p; setp.ge.u32 %p, %a, 0; vote.sync.ballot.b32 %d, %p, -1;", "u4", block=40, a=a)
    assert got.tolist() == ([FULL] * 32 + [255] * 8) * 2
    (got,) = evaluate("bar.warp.sync -1; mov.u32 %d, %a;", "u4", block=40, a=a)
    assert (got == a).all()
