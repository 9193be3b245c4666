"""cvt, form by form, against exact fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from ptx_snippets import DTYPES, decode, encode, evaluate, random_floats

RANDOM = np.random.default_rng(0)
INTEGERS = {f"{k}{n}": f"{'i' if k == 's' else 'u'}{n // 8}" for k in "us" for n in (8, 16, 32, 64)}


def integers(dtype: str, n: int = 200) -> np.ndarray:
    kind = np.dtype(dtype)
    any_size = np.frombuffer(RANDOM.bytes(n * kind.itemsize), kind)
    any_size = any_size >> RANDOM.integers(0, 8 * kind.itemsize, n).astype(kind)
    limits = np.iinfo(kind)
    return np.concatenate([any_size, np.array([0, 1, limits.max, limits.max - 1, limits.min], kind)])


def cut(value: int, name: str) -> int:
    bits = int(name[1:])
    value &= (1 << bits) - 1
    return value - (1 << bits) if name[0] == "s" and value >> (bits - 1) else value


def clamped(value: int, name: str) -> int:
    limits = np.iinfo(INTEGERS[name])
    return max(int(limits.min), min(int(limits.max), value))


def load_as(name: str, values: np.ndarray) -> np.ndarray:
    """Bytes are kept in registers of 16 bits; the upper ones must not matter."""
    if values.itemsize > 1:
        return values
    return values.astype(values.dtype.kind + "2") ^ np.array(0x5500, values.dtype.kind + "2")


@pytest.mark.parametrize("source", INTEGERS)
@pytest.mark.parametrize("to", INTEGERS)
def test_integer_to_integer(to: str, source: str) -> None:
    a = integers(INTEGERS[source])
    result = INTEGERS[to] if to[1:] != "8" else INTEGERS[to].replace("1", "4")
    for form, meaning in (("", cut), (".sat", clamped)):
        (got,) = evaluate(f"cvt{form}.{to}.{source} %d, %a;", result, a=load_as(source, a))
        assert got.tolist() == [meaning(v, to) for v in a.tolist()]  # of 8 bits: extended by the sign


@pytest.mark.parametrize("source", ["u8", "s8", "u16", "s32", "u32", "s64", "u64"])
@pytest.mark.parametrize("to", ["f16", "bf16", "f32", "f64"])
@pytest.mark.parametrize("mode", ["rn", "rz", "rm", "rp"])
def test_integer_to_float(to: str, source: str, mode: str) -> None:
    a = integers(INTEGERS[source])
    (got,) = evaluate(f"cvt.{mode}.{to}.{source} %d, %a;", DTYPES[to], a=load_as(source, a))
    assert got.view(f"u{got.itemsize}").tolist() == [encode(Fraction(v), to, mode) for v in a.tolist()]


def nearest_even(x: Fraction) -> int:
    return round(x)


ROUND = {"rni": nearest_even, "rzi": math.trunc, "rmi": math.floor, "rpi": math.ceil}


@pytest.mark.parametrize("to", ["u8", "s16", "u32", "s32", "u64", "s64"])
@pytest.mark.parametrize("source", ["f16", "bf16", "f32", "f64"])
@pytest.mark.parametrize("mode", ROUND)
def test_float_to_integer(to: str, source: str, mode: str) -> None:
    a = np.concatenate([random_floats(source, 150, 1), random_floats(source, 150, 2, moderate=True)])
    result = INTEGERS[to] if to[1:] != "8" else "u2"
    (got,) = evaluate(f"cvt.{mode}.{to}.{source} %d, %a;", result, a=a)
    bits = a.view(f"u{a.itemsize}").tolist()
    for value, number in zip(got.tolist(), (decode(b, source) for b in bits), strict=True):
        if number is not None:
            assert value == clamped(ROUND[mode](number), to)


def test_float_to_integer_of_special_values() -> None:
    a = np.array([np.nan, np.inf, -np.inf, 3e9, -3e9, 2.0**31, 2.0**32], "f4")
    assert evaluate("cvt.rzi.s32.f32 %d, %a;", "i4", a=a)[0].tolist() == [
        0, 2**31 - 1, -(2**31), 2**31 - 1, -(2**31), 2**31 - 1, 2**31 - 1,
    ]  # fmt: skip
    assert evaluate("cvt.rzi.u32.f32 %d, %a;", "u4", a=a)[0].tolist() == [
        0, 2**32 - 1, 0, 3_000_000_000, 0, 2**31, 2**32 - 1,
    ]  # fmt: skip
    # PTX ISA, cvt: NaN is 0, but the highest bit alone from f64 or to 64 bits
    assert evaluate("cvt.rzi.s64.f32 %d, %a;", "i8", a=a)[0].tolist()[:3] == [-(2**63), 2**63 - 1, -(2**63)]
    assert evaluate("cvt.rzi.s32.f64 %d, %a;", "i4", a=a.astype("f8"))[0].tolist()[0] == -(2**31)
    assert evaluate("cvt.rzi.u64.f64 %d, %a;", "u8", a=a.astype("f8"))[0].tolist()[:3] == [2**63, 2**64 - 1, 0]


NARROWING = [("f32", "f64"), ("f16", "f32"), ("bf16", "f32"), ("f16", "f64")]


@pytest.mark.parametrize(("to", "source"), NARROWING)
@pytest.mark.parametrize("mode", ["rn", "rz", "rm", "rp"])
def test_float_to_narrower_float(to: str, source: str, mode: str) -> None:
    a = np.concatenate([random_floats(source, 200, 1), random_floats(source, 200, 2, moderate=True)])
    scale = np.ldexp(1.0, RANDOM.integers(-24, -8, 200)).astype(a.dtype)  # subnormal float16
    a = np.concatenate([a, random_floats(source, 200, 3, moderate=True) * scale])
    (got,) = evaluate(f"cvt.{mode}.{to}.{source} %d, %a;", DTYPES[to], a=a)
    pairs = zip(got.view(f"u{got.itemsize}").tolist(), a.view(f"u{a.itemsize}").tolist(), strict=True)
    for value, bits in pairs:
        number = decode(bits, source)
        if number is not None:
            assert value == encode(number, to, mode, negative_zero=bits >> (8 * a.itemsize - 1) == 1)


@pytest.mark.parametrize(("to", "source"), [(source, to) for to, source in NARROWING])
def test_float_to_wider_float(to: str, source: str) -> None:
    a = random_floats(source, 300, 1)
    (got,) = evaluate(f"cvt.{to}.{source} %d, %a;", DTYPES[to], a=a)
    pairs = zip(got.view(f"u{got.itemsize}").tolist(), a.view(f"u{a.itemsize}").tolist(), strict=True)
    for value, bits in pairs:
        number = decode(bits, source)
        assert number is None or decode(value, to) == number


@pytest.mark.parametrize("mode", ROUND)
@pytest.mark.parametrize("name", ["f16", "f32", "f64"])
def test_float_to_whole_float(name: str, mode: str) -> None:
    a = np.array([-2.5, -1.5, -0.5, -0.25, -0.0, 0.0, 0.25, 0.5, 1.5, 2.5, 1000.75, np.inf], DTYPES[name])
    (got,) = evaluate(f"cvt.{mode}.{name}.{name} %d, %a;", DTYPES[name], a=a)
    assert got[-1] == np.inf
    assert got[:-1].tolist() == [ROUND[mode](Fraction(v)) for v in a[:-1].tolist()]
    assert (np.signbit(got) == np.signbit(a)).all() or mode in ("rpi", "rmi")


def test_modifiers() -> None:
    a = np.array([-1, 0.5, 2, np.nan, 1e-40], "f4")
    assert evaluate("cvt.sat.f32.f32 %d, %a;", "f4", a=a)[0].tolist()[:4] == [0, 0.5, 1, 0]
    assert evaluate("cvt.ftz.f64.f32 %d, %a;", "f8", a=a)[0][4] == 0
    assert evaluate("cvt.f64.f32 %d, %a;", "f8", a=a)[0][4] == np.float64(a[4])
    assert evaluate("cvt.rn.relu.f16.f32 %d, %a;", "f2", a=a)[0].tolist()[:3] == [0, 0.5, 2]
    assert evaluate("cvt.rn.f16.f32 %d, %a;", "u2", a=a)[0][3] == 0x7FFF
    b = np.array([7, 8, 9, 10, 11], "f4")
    (got,) = evaluate("cvt.rn.f16x2.f32 %d, %a, %b;", "u4", a=b, b=a)
    assert (got >> np.uint32(16)).astype("u2").view("f2").tolist() == b.tolist()
    assert (got & np.uint32(0xFFFF)).astype("u2").view("f2")[:3].tolist() == a[:3].tolist()
    (got,) = evaluate("cvt.rn.bf16x2.f32 %d, %a, %b;", "u4", a=b, b=a)
    assert got[0] == (0x40E0 << 16 | 0xBF80)
