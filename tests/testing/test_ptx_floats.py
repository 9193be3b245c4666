"""Each floating-point instruction against exact fractions, rounded once."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from ptx_snippets import BITS, DTYPES, decode, encode, evaluate, exact_sqrt, random_floats

MODES = ["rn", "rz", "rm", "rp"]
NAN32 = 0x7FFFFFFF


def f32(*bits: int) -> np.ndarray:
    return np.array(bits, np.uint32).view(np.float32)


def bits_of(x: np.ndarray) -> list[int]:
    return x.view(f"u{x.itemsize}").tolist()


def check(name: str, mode: str, got: np.ndarray, meaning: Callable[..., Fraction | None], *inputs: np.ndarray) -> None:
    """Compare with the rounded exact value, wherever inputs are finite and the result is a number other than 0."""
    columns = zip(bits_of(got), *(bits_of(v) for v in inputs), strict=True)
    checked = 0
    for result, *operands in columns:
        values = [decode(v, name) for v in operands]
        exact = None if None in values else meaning(*values)
        if exact:
            assert result == encode(exact, name, mode), (operands, values)
            checked += 1
    assert checked > len(got) // 3


OPERATIONS: dict[str, tuple[int, Callable[..., Fraction | None]]] = {
    "add": (2, lambda a, b: a + b),
    "sub": (2, lambda a, b: a - b),
    "mul": (2, lambda a, b: a * b),
    "fma": (3, lambda a, b, c: a * b + c),
    "div": (2, lambda a, b: a / b if b else None),
    "rcp": (1, lambda a: 1 / a if a else None),
    "sqrt": (1, lambda a: exact_sqrt(a) if a >= 0 else None),
}
FORMS = [(op, name, mode) for op in OPERATIONS for name in ("f32", "f64") for mode in MODES]
FORMS += [(op, name, "rn") for op in ("add", "sub", "mul", "fma") for name in ("f16", "bf16")]


@pytest.mark.parametrize(("operation", "name", "mode"), FORMS)
def test_rounding(operation: str, name: str, mode: str) -> None:
    count, meaning = OPERATIONS[operation]
    for seed, moderate in ((1, True), (2, False)):
        inputs = [random_floats(name, 250, 10 * seed + k, moderate) for k in range(count)]
        if operation == "sqrt":
            inputs = [np.abs(inputs[0])]
        operands = dict(zip("abc", inputs, strict=False))
        body = f"{operation}.{mode}.{name} %d, {', '.join('%' + n for n in operands)};"
        (got,) = evaluate(body, DTYPES[name], **operands)
        if not moderate and operation in ("mul", "fma", "div") and name in ("f16", "bf16"):
            continue  # most overflow; the moderate ones say enough
        check(name, mode, got, meaning, *inputs)


@pytest.mark.parametrize("name", ["f16", "bf16", "f32", "f64"])
def test_fma_where_rounding_twice_is_wrong(name: str) -> None:
    # a * b is next to the middle between two numbers, and c tips it
    fraction = {"f16": 10, "bf16": 7, "f32": 23, "f64": 52}[name]
    one, two = Fraction(1), Fraction(2)
    values = [
        (1 + two**-k, 1 + two ** -(fraction + 1 - k), sign * two**-e)
        for k in range(1, fraction + 1)
        for sign in (1, -1)
        for e in (fraction + 2, 2 * fraction, min(3 * fraction, 14 if name == "f16" else 120))
    ]
    values = [v for v in values if all(decode(encode(x, name), name) == x for x in v)]
    values += [(one + two**-fraction, one - two**-fraction, -one), (one + two**-fraction, one + two**-fraction, -one)]
    inputs = [np.array([encode(v[k], name) for v in values], BITS[name]).view(DTYPES[name]) for k in range(3)]
    (got,) = evaluate(f"fma.rn.{name} %d, %a, %b, %c;", DTYPES[name], **dict(zip("abc", inputs, strict=True)))
    check(name, "rn", got, lambda a, b, c: a * b + c, *inputs)


def test_fma_of_float32_next_to_the_middle_between_subnormal_numbers() -> None:
    # c is an odd number of units, and a * b half a unit less 2**-46 of it: float64 sees the middle
    c = np.array([(2**20 + 1) * 2.0**-149], "f4")
    for sign in (1, -1):
        a, b = (np.array([2.0**-75 * (1 + s * 2.0**-23)], "f4") for s in (1, -sign))
        (got,) = evaluate("fma.rn.f32 %d, %a, %b, %c;", "f4", a=a, b=b, c=c)
        check("f32", "rn", got, lambda a, b, c: a * b + c, a, b, c)


def test_fma_of_float64_with_results_that_are_subnormal() -> None:
    a = random_floats("f64", 300, 1, moderate=True) * 2.0**-520
    b = random_floats("f64", 300, 2, moderate=True) * 2.0**-540
    c = random_floats("f64", 300, 3, moderate=True) * 2.0**-1060
    (got,) = evaluate("fma.rn.f64 %d, %a, %b, %c;", "f8", a=a, b=b, c=c)
    check("f64", "rn", got, lambda a, b, c: a * b + c, a, b, c)


def test_fma_of_float64_halfway_between_subnormal_numbers() -> None:
    a, b = np.array([1, 3, 5, -7], "f8") * 2.0**-540, np.full(4, 2.0**-535)
    (got,) = evaluate("fma.rn.f64 %d, %a, %b, 0d0000000000000000;", "f8", a=a, b=b)
    assert np.ldexp(got, 1074).tolist() == [0, 2, 2, -4]  # 0.5, 1.5, 2.5 and -3.5 units


def test_fma_of_float32_with_results_that_are_subnormal() -> None:
    a = np.ldexp(random_floats("f32", 300, 1, moderate=True), -60).astype("f4")
    b = np.ldexp(random_floats("f32", 300, 2, moderate=True), -72).astype("f4")
    c = np.ldexp(random_floats("f32", 300, 3, moderate=True), -140).astype("f4")
    (got,) = evaluate("fma.rn.f32 %d, %a, %b, %c;", "f4", a=a, b=b, c=c)
    check("f32", "rn", got, lambda a, b, c: a * b + c, a, b, c)


INF, NAN = math.inf, math.nan
SPECIAL = [
    ("add", (INF, -INF), NAN), ("add", (0.0, -0.0), 0.0), ("add", (-0.0, -0.0), -0.0), ("add", (1.0, -1.0), 0.0),
    ("sub", (0.0, 0.0), 0.0), ("sub", (-0.0, 0.0), -0.0), ("mul", (INF, 0.0), NAN), ("mul", (-1.0, 0.0), -0.0),
    ("div", (1.0, 0.0), INF), ("div", (-1.0, 0.0), -INF), ("div", (0.0, 0.0), NAN), ("div", (INF, INF), NAN),
    ("fma", (INF, 0.0, 1.0), NAN), ("fma", (1.0, 1.0, -INF), -INF), ("fma", (1e30, 1e30, -INF), -INF),
    ("fma", (2.0, 3.0, -6.0), 0.0), ("fma", (-0.0, 1.0, -0.0), -0.0), ("fma", (0.0, 1.0, -0.0), 0.0),
    ("fma", (0.0, 5.0, 7.0), 7.0), ("fma", (INF, 1.0, -INF), NAN), ("fma", (3.0, 4.0, 0.0), 12.0),
    ("sqrt", (-1.0,), NAN), ("sqrt", (-0.0,), -0.0), ("rcp", (-0.0,), -INF), ("rcp", (INF,), 0.0),
]  # fmt: skip


@pytest.mark.parametrize("name", ["f32", "f64"])
@pytest.mark.parametrize(("operation", "operands", "expected"), SPECIAL)
def test_special_values(operation: str, operands: tuple[float, ...], expected: float, name: str) -> None:
    inputs = {n: np.array([v], DTYPES[name]) for n, v in zip("abc", operands, strict=False)}
    (got,) = evaluate(f"{operation}.rn.{name} %d, {', '.join('%' + n for n in inputs)};", DTYPES[name], **inputs)
    if math.isnan(expected):
        assert np.isnan(got[0])
        assert name == "f64" or bits_of(got) == [NAN32]
    else:
        assert got.tobytes() == np.array([expected], DTYPES[name]).tobytes()


def test_the_sign_of_an_exact_zero_follows_the_mode() -> None:
    for name in ("f32", "f64"):
        x = np.array([1.5], DTYPES[name])
        (got,) = evaluate(f"sub.rm.{name} %d, %a, %a;", DTYPES[name], a=x)
        assert np.signbit(got[0])
        (got,) = evaluate(f"sub.rp.{name} %d, %a, %a;", DTYPES[name], a=x)
        assert not np.signbit(got[0])


def test_flush_to_zero() -> None:
    small, negative = f32(1), f32(0x80000001)
    normal = f32(0x00800000)
    for a, expected in ((small, 0), (negative, 0x80000000), (normal, 0x00800000)):
        assert bits_of(evaluate("add.ftz.f32 %d, %a, 0f80000000;", "f4", a=a)[0]) == [expected]
    assert bits_of(evaluate("mul.ftz.f32 %d, %a, 0f3F000000;", "f4", a=normal)[0]) == [0]  # the result is flushed
    assert bits_of(evaluate("mul.f32 %d, %a, 0f3F000000;", "f4", a=normal)[0]) == [0x00400000]
    assert evaluate("setp.eq.ftz.f32 %d, %a, 0f00000000;", "bool", a=small)[0][0]
    assert not evaluate("setp.eq.f32 %d, %a, 0f00000000;", "bool", a=small)[0][0]


def test_saturate() -> None:
    a = np.array([-1, 0.25, 1.5, np.nan, np.inf, -np.inf], "f4")
    (got,) = evaluate("add.sat.f32 %d, %a, 0f00000000;", "f4", a=a)
    assert got.tolist() == [0, 0.25, 1, 0, 1, 0]
    (got,) = evaluate("fma.rn.sat.f32 %d, %a, %a, %a;", "f4", a=a)
    assert got.tolist() == [0, 0.3125, 1, 0, 1, 0]


@pytest.mark.parametrize("name", ["f16", "bf16", "f32", "f64"])
def test_minimum_and_maximum(name: str) -> None:
    def bits(*values: float) -> np.ndarray:
        wide = np.array(values, "f4")
        narrow = (wide.view("u4") >> np.uint32(16)).astype("u2") if name == "bf16" else wide.astype(DTYPES[name])
        return narrow.view(DTYPES[name])

    a, b = bits(1, -0.0, 0.0, NAN, 2, NAN, -3, INF), bits(2, 0.0, -0.0, 5, NAN, NAN, -4, -INF)
    canonical = {"f16": 0x7FFF, "bf16": 0x7FFF, "f32": NAN32}.get(name)
    for operation, expected, with_nan in (
        ("min", bits(1, -0.0, -0.0, 5, 2, NAN, -4, -INF), bits(1, -0.0, -0.0, NAN, NAN, NAN, -4, -INF)),
        ("max", bits(2, 0.0, 0.0, 5, 2, NAN, -3, INF), bits(2, 0.0, 0.0, NAN, NAN, NAN, -3, INF)),
    ):
        forms = [("", expected)] if name == "f64" else [("", expected), (".NaN", with_nan)]
        for form, wanted in forms:
            (got,) = evaluate(f"{operation}{form}.{name} %d, %a, %b;", DTYPES[name], a=a, b=b)
            missing = [decode(v, name) is None and v not in bits_of(bits(INF, -INF)) for v in bits_of(wanted)]
            for value, reference, nan in zip(bits_of(got), bits_of(wanted), missing, strict=True):
                assert value == (reference if not nan or canonical is None else canonical)


def test_minimum_with_sign_and_of_three() -> None:
    a, b, c = np.array([-3, 2], "f4"), np.array([1, -5], "f4"), np.array([-9, 4], "f4")
    assert evaluate("min.xorsign.abs.f32 %d, %a, %b;", "f4", a=a, b=b)[0].tolist() == [-1, -2]
    assert evaluate("max.f32 %d, %a, %b, %c;", "f4", a=a, b=b, c=c)[0].tolist() == [1, 4]


COMPARE = {
    "eq": (0, 1, 0, 0), "ne": (1, 0, 1, 0), "lt": (1, 0, 0, 0), "le": (1, 1, 0, 0), "gt": (0, 0, 1, 0),
    "ge": (0, 1, 1, 0), "equ": (0, 1, 0, 1), "neu": (1, 0, 1, 1), "ltu": (1, 0, 0, 1), "leu": (1, 1, 0, 1),
    "gtu": (0, 0, 1, 1), "geu": (0, 1, 1, 1), "num": (1, 1, 1, 0), "nan": (0, 0, 0, 1),
}  # fmt: skip


@pytest.mark.parametrize(("compare", "expected"), COMPARE.items())
@pytest.mark.parametrize("name", ["f16", "bf16", "f32", "f64"])
def test_compare(compare: str, expected: tuple[int, ...], name: str) -> None:
    # less, equal, greater, unordered
    a, b = (np.array(v, "f4") for v in ([1, 2, 3, NAN], [2, 2, 2, 2]))
    if name == "bf16":
        a, b = ((v.view("u4") >> np.uint32(16)).astype("u2") for v in (a, b))
    else:
        a, b = a.astype(DTYPES[name]), b.astype(DTYPES[name])
    (got,) = evaluate(f"setp.{compare}.{name} %d, %a, %b;", "bool", a=a, b=b)
    assert got.astype(int).tolist() == list(expected)


@pytest.mark.parametrize(
    ("instruction", "function", "low", "high"),
    [
        ("ex2.approx.f32", np.exp2, -20, 20), ("lg2.approx.f32", np.log2, 1e-6, 1e6),
        ("sin.approx.f32", np.sin, -3, 3), ("cos.approx.f32", np.cos, -3, 3),
        ("rsqrt.approx.f32", lambda x: 1 / np.sqrt(x), 1e-6, 1e6), ("sqrt.approx.f32", np.sqrt, 0, 1e6),
        ("rcp.approx.ftz.f32", lambda x: 1 / x, 1e-6, 1e6), ("tanh.approx.f32", np.tanh, -4, 4),
    ],
)  # fmt: skip
def test_approximate_forms(instruction: str, function: Callable[..., np.ndarray], low: float, high: float) -> None:
    a = np.random.default_rng(0).uniform(low, high, 200).astype("f4")
    (got,) = evaluate(f"{instruction} %d, %a;", "f4", a=a)
    assert (got == function(a.astype("f8")).astype("f4")).all()


def test_approximate_reciprocal_of_float64_has_its_upper_half() -> None:
    a = random_floats("f64", 100, 3, moderate=True)
    (got,) = evaluate("rcp.approx.ftz.f64 %d, %a;", "f8", a=a)
    assert (got.view("u8") & np.uint64(0xFFFFFFFF) == 0).all()
    assert np.abs(got * a - 1).max() < 2.0**-19


@pytest.mark.parametrize("name", ["f16", "bf16"])
def test_packed_halves(name: str) -> None:
    inputs = {n: random_floats(name, 200, k, moderate=True) for k, n in enumerate("abc")}
    (single,) = evaluate(f"fma.rn.{name} %d, %a, %b, %c;", DTYPES[name], **inputs)
    words = {n: v.view("u4") for n, v in inputs.items()}
    (packed,) = evaluate(f"fma.rn.{name}x2 %d, %a, %b, %c;", "u4", **words)
    assert bits_of(packed) == bits_of(single.view("u4"))
    p, q = evaluate(f"setp.lt.{name}x2 %d|%e, %a, %b;", {"d": "bool", "e": "bool"}, **words)
    (each,) = evaluate(f"setp.lt.{name} %d, %a, %b;", "bool", **inputs)
    assert (np.stack([p, q], 1).reshape(-1) == each).all()


def test_set_writes_numbers_or_bits() -> None:
    a, b = np.array([1, 2, NAN, 4], "f2"), np.array([2, 1, 0, 4], "f2")
    assert evaluate("set.le.f16.f16 %d, %a, %b;", "f2", a=a, b=b)[0].tolist() == [1, 0, 0, 1]
    assert evaluate("set.leu.u16.f16 %d, %a, %b;", "u2", a=a, b=b)[0].tolist() == [65535, 0, 65535, 65535]
    words = {"a": a.view("u4"), "b": b.view("u4")}
    assert evaluate("set.le.f16x2.f16x2 %d, %a, %b;", "u4", **words)[0].view("f2").tolist() == [1, 0, 0, 1]
    assert evaluate("set.le.u32.f16x2 %d, %a, %b;", "u4", **words)[0].view("u2").tolist() == [65535, 0, 0, 65535]
    wide = {"a": a.astype("f4"), "b": b.astype("f4")}
    assert evaluate("set.gt.f32.f32 %d, %a, %b;", "f4", **wide)[0].tolist() == [0, 1, 0, 0]


def test_signs() -> None:
    a = np.array([1.5, -1.5, 0.0, -0.0, np.inf], "f4")
    assert (evaluate("neg.f32 %d, %a;", "f4", a=a)[0] == -a).all()
    assert bits_of(evaluate("abs.f32 %d, %a;", "f4", a=a)[0]) == bits_of(np.abs(a))
    (got,) = evaluate("copysign.f32 %d, %a, %b;", "f4", a=a, b=np.full(5, 3, "f4"))
    assert got.tolist() == [3, -3, 3, -3, 3]
    for name, expected in (
        ("finite", [1, 1, 1, 1, 0]), ("infinite", [0, 0, 0, 0, 1]), ("normal", [1, 1, 0, 0, 0]),
        ("number", [1] * 5), ("notanumber", [0] * 5), ("subnormal", [0] * 5),
    ):  # fmt: skip
        assert evaluate(f"testp.{name}.f32 %d, %a;", "bool", a=a)[0].astype(int).tolist() == expected


def test_literals() -> None:
    a = np.zeros(1, "f4")
    assert bits_of(evaluate("mov.f32 %d, 0f3F9E0652;", "f4", a=a)[0]) == [0x3F9E0652]
    assert bits_of(evaluate("mov.b32 %d, 0f7FC00001;", "f4", a=a)[0]) == [0x7FC00001]
    assert evaluate("add.f32 %d, %a, 1.5;", "f4", a=a)[0].tolist() == [1.5]
    assert evaluate("mov.f64 %d, 0d4008000000000000;", "f8", a=a)[0].tolist() == [3.0]
    assert evaluate("mov.u32 %d, 0x10; add.u32 %d, %d, 0b11; add.u32 %d, %d, 010; add.u32 %d, %d, -1;", "u4", a=a)[
        0
    ].tolist() == [16 + 3 + 8 - 1]
