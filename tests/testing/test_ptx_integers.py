"""Each integer instruction against Python's whole numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from ptx_snippets import evaluate

from gpucompute.errors import PtxError

RANDOM = np.random.default_rng(0)


def signed(value: int, bits: int) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def clamp(value: int, bits: int) -> int:
    return max(-(1 << (bits - 1)), min((1 << (bits - 1)) - 1, value))


def numbers(dtype: str, n: int = 300) -> np.ndarray:
    """Random bits, small numbers and edges."""
    kind = np.dtype(dtype)
    limits = np.iinfo(kind)
    edges = [0, 1, 2, 3, 31, 32, 33, limits.max, limits.max - 1, limits.min, limits.min + 1, limits.max // 2]
    any_size = np.frombuffer(RANDOM.bytes(n * kind.itemsize), kind) >> RANDOM.integers(0, 8 * kind.itemsize, n).astype(
        kind
    )
    return np.concatenate([any_size, RANDOM.permutation(np.resize(np.array(edges, kind), n))])


def divide(a: int, b: int) -> int:
    quotient = abs(a) // abs(b)
    return quotient if (a < 0) == (b < 0) else -quotient


def extract(a: int, start: int, length: int, bits: int, is_signed: bool) -> int:
    start, length = start & 255, length & 255
    get = lambda k: a >> k & 1  # noqa: E731
    sign = get(min(start + length - 1, bits - 1)) if is_signed and length else 0
    return sum((get(start + k) if k < length and start + k < bits else sign) << k for k in range(bits))


def insert(a: int, b: int, start: int, length: int, bits: int) -> int:
    start, length = start & 255, length & 255
    for k in range(length):
        if start + k < bits:
            b = b & ~(1 << (start + k)) | (a >> k & 1 if k < bits else 0) << (start + k)
    return b


def permute(a: int, b: int, c: int) -> int:
    source = [(a | b << 32) >> 8 * k & 255 for k in range(8)]
    result = 0
    for k in range(4):
        choice = c >> 4 * k & 15
        byte = source[choice & 7]
        result |= ((255 if byte & 128 else 0) if choice & 8 else byte) << 8 * k
    return result


def highest(a: int, bits: int, is_signed: bool) -> int:
    value = ~a if is_signed and a < 0 else a
    return value.bit_length() - 1 if value else -1


def dot(a: int, b: int, c: int, a_signed: bool, b_signed: bool) -> int:
    pick = lambda v, k, s: signed(v >> 8 * k, 8) if s else v >> 8 * k & 255  # noqa: E731
    return c + sum(pick(a, k, a_signed) * pick(b, k, b_signed) for k in range(4))


def dot2(a: int, b: int, c: int) -> int:
    return c + signed(a, 16) * signed(b >> 16, 8) + (a >> 16) * (b >> 24)


def lookup(a: int, b: int, c: int, table: int) -> int:
    return sum((table >> (4 * (a >> k & 1) + 2 * (b >> k & 1) + (c >> k & 1)) & 1) << k for k in range(32))


def extend(a: int, n: int) -> int:
    return signed(a, n) if n else 0


def low24(a: int) -> int:
    return signed(a, 24)


Case = tuple[str, str, str, Callable[..., int]]


def forms(name: str, kinds: str, meaning: Callable[[int, int, int], int], second: str = "") -> list[Case]:
    """An instruction of two operands for 16, 32 and 64 bits; the meaning is told which."""
    cases: list[Case] = []
    for kind in kinds:
        for n in (16, 32, 64):
            dtype = f"{'i' if kind == 's' else 'u'}{n // 8}"
            function = lambda a, b, n=n: meaning(a, b, n)  # noqa: E731
            cases.append((f"{name}.{kind}{n}", dtype, f"{dtype} {second or dtype}", function))
    return cases


# instruction, dtypes of d and of its operands a, b, c, ...: what it computes. Results are cut to the size of d.
CASES: list[Case] = [
    *forms("add", "us", lambda a, b, n: a + b),
    *forms("sub", "us", lambda a, b, n: a - b),
    ("add.sat.s32", "i4", "i4 i4", lambda a, b: clamp(a + b, 32)),
    ("sub.sat.s32", "i4", "i4 i4", lambda a, b: clamp(a - b, 32)),
    *forms("mul.lo", "s", lambda a, b, n: a * b),
    *forms("mul.hi", "us", lambda a, b, n: a * b >> n),
    ("mul.wide.u16", "u4", "u2 u2", lambda a, b: a * b),
    ("mul.wide.s16", "i4", "i2 i2", lambda a, b: a * b),
    ("mul.wide.u32", "u8", "u4 u4", lambda a, b: a * b),
    ("mul.wide.s32", "i8", "i4 i4", lambda a, b: a * b),
    ("mad.lo.u32", "u4", "u4 u4 u4", lambda a, b, c: a * b + c),
    ("mad.hi.s32", "i4", "i4 i4 i4", lambda a, b, c: (a * b >> 32) + c),
    ("mad.hi.u64", "u8", "u8 u8 u8", lambda a, b, c: (a * b >> 64) + c),
    ("mad.hi.sat.s32", "i4", "i4 i4 i4", lambda a, b, c: clamp((a * b >> 32) + c, 32)),
    ("mad.wide.s32", "i8", "i4 i4 i8", lambda a, b, c: a * b + c),
    ("mad.wide.u16", "u4", "u2 u2 u4", lambda a, b, c: a * b + c),
    ("mul24.lo.s32", "i4", "i4 i4", lambda a, b: low24(a) * low24(b)),
    ("mul24.hi.u32", "u4", "u4 u4", lambda a, b: (a & 0xFFFFFF) * (b & 0xFFFFFF) >> 16),
    ("mad24.lo.u32", "u4", "u4 u4 u4", lambda a, b, c: (a & 0xFFFFFF) * (b & 0xFFFFFF) + c),
    *forms("div", "us", lambda a, b, n: divide(a, b) if b else -1),
    *forms("rem", "us", lambda a, b, n: a - divide(a, b) * b if b else a),
    ("abs.s32", "i4", "i4", abs),
    ("neg.s64", "i8", "i8", lambda a: -a),
    *forms("min", "us", lambda a, b, n: min(a, b)),
    *forms("max", "us", lambda a, b, n: max(a, b)),
    ("max.relu.s32", "i4", "i4 i4", lambda a, b: max(a, b, 0)),
    ("sad.u32", "u4", "u4 u4 u4", lambda a, b, c: c + abs(a - b)),
    ("sad.s64", "i8", "i8 i8 i8", lambda a, b, c: c + abs(a - b)),
    ("dp4a.u32.u32", "u4", "u4 u4 u4", lambda a, b, c: dot(a, b, c, False, False)),
    ("dp4a.s32.u32", "i4", "i4 u4 i4", lambda a, b, c: dot(a, b, c, True, False)),
    ("dp4a.s32.s32", "i4", "i4 i4 i4", lambda a, b, c: dot(a, b, c, True, True)),
    ("dp2a.lo.u32.u32", "u4", "u4 u4 u4", lambda a, b, c: c + (a & 65535) * (b & 255) + (a >> 16) * (b >> 8 & 255)),
    ("dp2a.hi.s32.s32", "i4", "i4 i4 i4", dot2),
    *forms("and", "b", lambda a, b, n: a & b),
    ("or.b32", "u4", "u4 u4", lambda a, b: a | b),
    ("xor.b64", "u8", "u8 u8", lambda a, b: a ^ b),
    ("not.b16", "u2", "u2", lambda a: ~a),
    ("cnot.b32", "u4", "u4", lambda a: int(a == 0)),
    *forms("shl", "b", lambda a, b, n: a << b if b < n else 0, second="u4"),
    *forms("shr", "us", lambda a, b, n: a >> min(b, 99), second="u4"),
    ("shf.l.wrap.b32", "u4", "u4 u4 u4", lambda a, b, c: (b << 32 | a) << (c & 31) >> 32),
    ("shf.l.clamp.b32", "u4", "u4 u4 u4", lambda a, b, c: (b << 32 | a) << min(c, 32) >> 32),
    ("shf.r.wrap.b32", "u4", "u4 u4 u4", lambda a, b, c: (b << 32 | a) >> (c & 31)),
    ("shf.r.clamp.b32", "u4", "u4 u4 u4", lambda a, b, c: (b << 32 | a) >> min(c, 32)),
    ("popc.b32", "u4", "u4", int.bit_count),
    ("popc.b64", "u4", "u8", int.bit_count),
    ("clz.b32", "u4", "u4", lambda a: 32 - a.bit_length()),
    ("clz.b64", "u4", "u8", lambda a: 64 - a.bit_length()),
    ("bfind.u32", "u4", "u4", lambda a: highest(a, 32, False)),
    ("bfind.s32", "u4", "i4", lambda a: highest(a, 32, True)),
    ("bfind.s64", "u4", "i8", lambda a: highest(a, 64, True)),
    ("bfind.shiftamt.u64", "u4", "u8", lambda a: 63 - highest(a, 64, False) if a else -1),
    ("brev.b32", "u4", "u4", lambda a: int(f"{a:032b}"[::-1], 2)),
    ("brev.b64", "u8", "u8", lambda a: int(f"{a:064b}"[::-1], 2)),
    ("bfe.u32", "u4", "u4 u4 u4", lambda a, b, c: extract(a, b, c, 32, False)),
    ("bfe.s32", "i4", "i4 u4 u4", lambda a, b, c: extract(a, b, c, 32, True)),
    ("bfe.s64", "i8", "i8 u4 u4", lambda a, b, c: extract(a, b, c, 64, True)),
    ("bfi.b32", "u4", "u4 u4 u4 u4", lambda a, b, c, e: insert(a, b, c, e, 32)),
    ("bfi.b64", "u8", "u8 u8 u4 u4", lambda a, b, c, e: insert(a, b, c, e, 64)),
    ("bmsk.clamp.b32", "u4", "u4 u4", lambda a, b: ((1 << min(b, 32)) - 1) << min(a, 32)),
    ("bmsk.wrap.b32", "u4", "u4 u4", lambda a, b: ((1 << (b & 31)) - 1) << (a & 31)),
    ("szext.wrap.s32", "i4", "i4 u4", lambda a, b: extend(a, b & 31)),
    ("szext.clamp.u32", "u4", "u4 u4", lambda a, b: a & ((1 << min(b, 32)) - 1)),
    ("prmt.b32", "u4", "u4 u4 u4", permute),
    ("prmt.b32.f4e", "u4", "u4 u4 u4", lambda a, b, c: permute(a, b, [0x3210, 0x4321, 0x5432, 0x6543][c & 3])),
    ("prmt.b32.b4e", "u4", "u4 u4 u4", lambda a, b, c: permute(a, b, [0x5670, 0x6701, 0x7012, 0x0123][c & 3])),
    ("prmt.b32.rc8", "u4", "u4 u4 u4", lambda a, b, c: permute(a, b, [0x0000, 0x1111, 0x2222, 0x3333][c & 3])),
    ("prmt.b32.ecl", "u4", "u4 u4 u4", lambda a, b, c: permute(a, b, [0x3210, 0x3211, 0x3222, 0x3333][c & 3])),
    ("prmt.b32.ecr", "u4", "u4 u4 u4", lambda a, b, c: permute(a, b, [0x0000, 0x1110, 0x2210, 0x3210][c & 3])),
    ("prmt.b32.rc16", "u4", "u4 u4 u4", lambda a, b, c: permute(a, b, [0x1010, 0x3232, 0x1010, 0x3232][c & 3])),
]  # fmt: skip


@pytest.mark.parametrize(("instruction", "result", "operands", "meaning"), CASES, ids=[case[0] for case in CASES])
def test_instruction(instruction: str, result: str, operands: str, meaning: Callable[..., int]) -> None:
    inputs = {name: numbers(kind) for name, kind in zip("abce", operands.split(), strict=False)}
    body = f"{instruction} %d, {', '.join(f'%{name}' for name in inputs)};"
    (got,) = evaluate(body, result, **inputs)
    bits = 8 * got.itemsize
    columns = zip(*(v.tolist() for v in inputs.values()), strict=True)
    expected = [meaning(*values) & ((1 << bits) - 1) for values in columns]
    assert got.view(f"u{got.itemsize}").tolist() == expected


@pytest.mark.parametrize("table", [0x00, 0x80, 0xFE, 0x96, 0xE8, 0xCA, 0x3C, 0xFF])
def test_lop3(table: int) -> None:
    a, b, c = (numbers("u4") for _ in range(3))
    (got,) = evaluate(f"lop3.b32 %d, %a, %b, %c, {table};", "u4", a=a, b=b, c=c)
    assert got.tolist() == [lookup(*v, table) for v in zip(a.tolist(), b.tolist(), c.tolist(), strict=True)]


def test_numbers_of_128_bits_by_carries() -> None:
    a, b, c, e = (numbers("u8") for _ in range(4))
    body = "add.cc.u64 %d, %a, %c; addc.u64 %h, %b, %e;"
    low, high = evaluate(body, {"d": "u8", "h": "u8"}, a=a, b=b, c=c, e=e)
    body = "sub.cc.u64 %d, %a, %c; subc.u64 %h, %b, %e;"
    low_difference, high_difference = evaluate(body, {"d": "u8", "h": "u8"}, a=a, b=b, c=c, e=e)
    for k in range(len(a)):
        left, right = int(a[k]) | int(b[k]) << 64, int(c[k]) | int(e[k]) << 64
        assert int(low[k]) | int(high[k]) << 64 == (left + right) % 2**128
        assert int(low_difference[k]) | int(high_difference[k]) << 64 == (left - right) % 2**128


def test_carries_go_on_through_a_word_of_ones() -> None:
    a = np.array([2**32 - 1, 1, 0], np.uint32)
    ones, zeros = np.full(3, 2**32 - 1, np.uint32), np.zeros(3, np.uint32)
    outputs = {"d": "u4", "e": "u4", "f": "u4"}
    body = "add.cc.u32 %d, %a, 1; addc.cc.u32 %e, %b, %c; addc.u32 %f, 0, 0;"
    parts = evaluate(body, outputs, a=a, b=ones, c=zeros)
    assert [p.tolist() for p in parts] == [[0, 2, 1], [0, 2**32 - 1, 2**32 - 1], [1, 0, 0]]
    assert [p.tolist() for p in evaluate(body, outputs, a=a, b=zeros, c=ones)] == [p.tolist() for p in parts]
    body = "sub.cc.u32 %d, %a, 1; subc.cc.u32 %e, %c, 0; subc.u32 %f, 0, 0;"
    parts = evaluate(body, outputs, a=a, b=ones, c=zeros)
    assert [p.tolist() for p in parts] == [[2**32 - 2, 0, 2**32 - 1], [0, 0, 2**32 - 1], [0, 0, 2**32 - 1]]


def test_products_of_96_bits_by_carries() -> None:
    # a 64-bit number {a, b} times c, as compilers write it
    a, b, c = (numbers("u4") for _ in range(3))
    body = """
    mul.lo.u32 %d, %a, %c; mul.hi.u32 %e, %a, %c;
    mad.lo.cc.u32 %e, %b, %c, %e; madc.hi.u32 %f, %b, %c, 0;"""
    parts = evaluate(body, {"d": "u4", "e": "u4", "f": "u4"}, a=a, b=b, c=c)
    for k in range(len(a)):
        product = (int(a[k]) | int(b[k]) << 32) * int(c[k])
        assert sum(int(part[k]) << 32 * j for j, part in enumerate(parts)) == product


def test_nth_set_bit() -> None:
    mask = np.full(5, 0b1011_0010, np.uint32)
    base = np.array([0, 0, 4, 7, 2], np.uint32)
    offset = np.array([1, 3, 0, -2, 9], np.int32)
    (got,) = evaluate("fns.b32 %d, %a, %b, %c;", "u4", a=mask, b=base, c=offset)
    assert got.tolist() == [1, 5, 4, 5, 0xFFFFFFFF]


@pytest.mark.parametrize(
    ("compare", "kind"),
    [
        *((name, kind) for name in ("eq", "ne", "lt", "le", "gt", "ge") for kind in ("u32", "s32", "s64", "u16")),
        *((name, kind) for name in ("lo", "ls", "hi", "hs") for kind in ("u32", "u16")),
    ],
)
def test_compare(compare: str, kind: str) -> None:
    dtype = f"{'i' if kind[0] == 's' else 'u'}{int(kind[1:]) // 8}"
    a, b = numbers(dtype), numbers(dtype)
    b[::3] = a[::3]
    p, q = evaluate(f"setp.{compare}.{kind} %d|%e, %a, %b;", {"d": "bool", "e": "bool"}, a=a, b=b)
    expected = {
        "eq": a == b, "ne": a != b, "lt": a < b, "le": a <= b, "gt": a > b, "ge": a >= b,
        "lo": a < b, "ls": a <= b, "hi": a > b, "hs": a >= b,
    }[compare]  # fmt: skip
    assert (p == expected).all()
    assert (q == ~expected).all()


def test_predicates_join_and_choose() -> None:
    a, b = numbers("i4"), numbers("i4")
    c = RANDOM.integers(0, 2, len(a)).astype(bool)
    for join, expected in (("and", (a < b) & c), ("or", (a < b) | c), ("xor", (a < b) ^ c)):
        (got,) = evaluate(f"setp.lt.{join}.s32 %d, %a, %b, %c;", "bool", a=a, b=b, c=c)
        assert (got == expected).all()
    (got,) = evaluate("setp.lt.and.s32 %d, %a, %b, !%c;", "bool", a=a, b=b, c=c)
    assert (got == (a < b) & ~c).all()
    (got,) = evaluate("selp.s32 %d, %a, %b, %c;", "i4", a=a, b=b, c=c)
    assert (got == np.where(c, a, b)).all()
    (got,) = evaluate("slct.u32.s32 %d, 7, 9, %a;", "u4", a=a)
    assert (got == np.where(a >= 0, 7, 9)).all()
    (got,) = evaluate("set.gt.u32.s32 %d, %a, %b;", "u4", a=a, b=b)
    assert (got == np.where(a > b, 0xFFFFFFFF, 0)).all()
    (got,) = evaluate("not.pred %d, %c; xor.pred %d, %d, %c;", "bool", c=c)
    assert got.all()


def test_packing() -> None:
    a, b = numbers("u4"), numbers("u4")
    (got,) = evaluate("mov.b64 %d, {%a, %b};", "u8", a=a, b=b)
    assert (got == (a.astype("u8") | b.astype("u8") << np.uint64(32))).all()
    low, high = evaluate("mov.b32 {%d, %e}, %a;", {"d": "u2", "e": "u2"}, a=a)
    assert (low == (a & 0xFFFF)).all()
    assert (high == a >> 16).all()


def test_an_unknown_instruction_or_modifier_is_named() -> None:
    a = np.zeros(1, np.uint32)
    for text, name in (("frobnicate.u32 %d, %a;", "frobnicate.u32"), ("add.weird.u32 %d, %a, %a;", "add.weird.u32")):
        with pytest.raises(PtxError, match=rf"PTX line \d+ \({name}\), thread .*: this instruction is not known"):
            evaluate(text, "u4", a=a)
