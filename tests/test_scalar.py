"""Scalar functions: equal in Python and compiled, equal to NumPy where that is promised, within their bounds elsewhere.

``GPUCOMPUTE_TEST_ALL=1`` compiles every operation for every dtype (minutes) instead of every function once.
"""

from __future__ import annotations

import os

import numpy as np
import pytest
import scalar_cases as cases

import gpucompute.ops as ops

ALL = os.environ.get("GPUCOMPUTE_TEST_ALL") == "1"
DTYPES = [np.dtype(code) for code in ("f4", "f8", "i8", "u8", "i4", "u4", "i1", "u1", "i2", "u2", "f2", "?")]
TRANSCENDENTAL = sorted(op.name for op in ops.OPS.values() if op.ulp)
CASTS = [(a, b) for a in DTYPES for b in DTYPES if a != b]


def arrays_for(name: str, inputs: tuple[np.dtype, ...]) -> list[np.ndarray]:
    arrays = cases.operands(inputs)
    if name == "power" and inputs[1].kind == "i":  # NumPy refuses negative exponents
        arrays[1] = np.where(arrays[1] < 0, 3, arrays[1]).astype(inputs[1])
    if name == "reciprocal" and inputs[0].kind in "iu":  # 1 / 0 is a cast of infinity: NumPy's depends on the compiler
        arrays[0] = arrays[0][arrays[0] != 0]
    return arrays


def jobs() -> dict[str, list[tuple[str, list[np.ndarray], np.dtype]]]:
    """By dtype: what to compile. Without ALL each function once, without those that only call their float64 form."""
    seen: set[str] = set()
    found: dict[str, list] = {}
    for dtype in DTYPES:
        candidates = [(ops.OPS[n].scalar(i), arrays_for(n, i), o) for n, i, o in cases.loops(dtype)]
        candidates += [
            (ops.cast_scalar(a, b), cases.operands((a,)), b)
            for a, b in CASTS
            if a == dtype and (ALL or b.str[1:] in ("i1", "u8", "f2"))
        ]
        for job in candidates:
            wrapper = job[0].replace("_f4", "_f8") in cases.plain()[job[0]].__code__.co_names
            if ALL or not (job[0] in seen or wrapper):
                seen.add(job[0])
                found.setdefault(dtype.name, []).append(job)
    return found


@pytest.mark.parametrize("dtype", list(jobs()))
def test_compiled_gives_the_bits_of_plain_python(dtype: str) -> None:
    wanted = jobs()[dtype]
    for (name, arrays, output), got in zip(wanted, cases.run_compiled(wanted), strict=True):
        plain = cases.run_plain(name, arrays, output)
        bad = np.flatnonzero(~cases.same(got, plain))
        assert bad.size == 0, f"{name} of {[a[bad[0]] for a in arrays]}: compiled {got[bad[0]]}, plain {plain[bad[0]]}"


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_exact_operations_equal_numpy(dtype: np.dtype) -> None:
    for name, inputs, output in cases.loops(dtype):
        op = ops.OPS[name]
        if op.ulp and dtype.kind == "f":
            continue
        arrays = arrays_for(name, inputs)
        with np.errstate(all="ignore"):
            reference = {"clip": np.clip, "where": np.where}.get(name, op.rule)(*arrays)
        reference = reference[op.output] if isinstance(reference, tuple) else reference
        assert reference.dtype == output, name
        got = cases.run_plain(op.scalar(inputs), arrays, output)
        equal = cases.same(got, reference)
        if op.kind == "selection":  # which of 0.0 and -0.0 wins differs between NumPy's own loops
            equal |= (got == 0) & (reference == 0)
        if name == "nextafter" and dtype.itemsize == 2:  # of equal halves: from NumPy 2.5 on the second, as in C
            equal |= (got == 0) & (reference == 0)
        bad = np.flatnonzero(~equal)
        assert bad.size == 0, f"{name} of {[a[bad[0]] for a in arrays]}: got {got[bad[0]]}, NumPy {reference[bad[0]]}"


@pytest.mark.parametrize("pair", [("i8", "u8"), ("u8", "i8")])
@pytest.mark.parametrize("name", ["equal", "not_equal", "less", "less_equal", "greater", "greater_equal"])
def test_comparison_of_signed_with_unsigned(name: str, pair: tuple[str, str]) -> None:
    inputs, output = ops.OPS[name].resolve(tuple(np.dtype(c) for c in pair))
    arrays = cases.operands(inputs, count=20)
    reference = getattr(np, name)(*arrays)
    assert np.array_equal(cases.run_plain(ops.OPS[name].scalar(inputs), arrays, output), reference)


@pytest.mark.parametrize("code", ["f4", "f8"])
@pytest.mark.parametrize("name", TRANSCENDENTAL)
def test_accuracy(name: str, code: str) -> None:
    import scalar_oracle as oracle

    dtype = np.dtype(code)
    if name == "float_power" and code == "f4":
        return
    arrays = oracle.arguments(name, dtype, 40, np.random.default_rng(3))
    got = cases.run_plain(ops.OPS[name].scalar((dtype,) * len(arrays)), arrays, dtype)
    error, place = oracle.error_in_ulp(name, arrays, got)
    assert error <= ops.OPS[name].ulp[code], f"{name}{place} is {error:.2f} ulp off"


@pytest.mark.parametrize("code", ["f4", "f8"])
@pytest.mark.parametrize("name", [n for n in TRANSCENDENTAL if ops.OPS[n].ufunc is not None])
def test_special_values_are_those_of_c99(name: str, code: str) -> None:
    """NaN, infinities and zeros, with their signs, where NumPy's libm has them (C99 Annex F)."""
    dtype = np.dtype(code)
    op = ops.OPS[name]
    inputs, output = op.resolve((dtype,) * op.nin)
    if inputs[0] != dtype:
        return
    arrays = cases.operands(inputs, count=0)
    with np.errstate(all="ignore"):
        reference = op.rule(*arrays)
    got = cases.run_plain(op.scalar(inputs), arrays, output)
    special = ~np.isfinite(reference) | ~np.isfinite(got)
    if not name.startswith("logaddexp"):  # whose zeros are differences of rounded numbers
        special |= (reference == 0) | (got == 0)
    bad = np.flatnonzero(special & ~cases.same(got, reference))
    assert bad.size == 0, f"{name} of {[a[bad[0]] for a in arrays]}: got {got[bad[0]]}, libm {reference[bad[0]]}"


def test_special_values_of_the_rest() -> None:
    x = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0])
    for code in ("f4", "f8"):
        values, dtype = x.astype(code), np.dtype(code)
        for name, expected in (
            ("erf", [np.nan, 1, -1, 0.0, -0.0]),
            ("erfc", [np.nan, 0, 2, 1, 1]),
            ("sigmoid", [np.nan, 1, 0, 0.5, 0.5]),
        ):
            got = cases.run_plain(f"{name}_{code}", [values], dtype)
            assert cases.same(got, np.array(expected, code)).all(), (name, got)


@pytest.mark.parametrize("pair", CASTS, ids=lambda p: f"{p[0]}-{p[1]}")
def test_casts_equal_numpy_in_range(pair: tuple[np.dtype, np.dtype]) -> None:
    source, target = pair
    values = cases.operands((source,))[0]
    if source.kind == "f" and target.kind in "iu":
        info = np.iinfo(target)
        with np.errstate(all="ignore"):
            wide = np.trunc(values.astype("f8"))
        values = values[(wide >= float(info.min)) & (wide < float(info.max) + (info.max < 2**53))]
    with np.errstate(all="ignore"):
        reference = values.astype(target)
    got = cases.run_plain(ops.cast_scalar(source, target), [values], target)
    bad = np.flatnonzero(~cases.same(got, reference))
    assert bad.size == 0, f"{values[bad[0]]} became {got[bad[0]]}, NumPy {reference[bad[0]]}"


def test_floats_beyond_an_integer_truncate_to_int64_and_wrap() -> None:
    values = np.array([np.nan, np.inf, -np.inf, 300.7, -1.5, 2.0**31, 2.0**63, -(2.0**63), 1e30])
    expected = {
        "u1": [0, 0, 0, 44, 255, 0, 0, 0, 0],
        "i4": [0, 0, 0, 300, -1, -(2**31), 0, 0, 0],
        "i8": [-(2**63)] * 3 + [300, -1, 2**31] + [-(2**63)] * 3,
        "u8": [2**63] * 3 + [300, 2**64 - 1, 2**31] + [2**63] * 3,
    }
    for code, wanted in expected.items():
        target = np.dtype(code)
        got = cases.run_plain(ops.cast_scalar(np.dtype("f8"), target), [values], target)
        assert got.tolist() == wanted, code


def test_every_float16_survives_and_every_rounding_is_numpys() -> None:
    halves = np.arange(65536, dtype=np.uint16)
    names = [("half_to_f4", [halves[::7]], np.dtype("f4"))]
    wide = halves.view("f2").astype("f4")
    with np.errstate(all="ignore"):
        between = ((wide[:-1].astype("f8") + wide[1:]) / 2).astype("f4")
        values = np.concatenate([wide, between, *(np.nextafter(between, np.float32(v)) for v in (np.inf, -np.inf))])[
            ::11
        ]
    names.append(("f4_to_half", [values], np.dtype("u2")))
    for (name, arrays, output), reference in zip(names, (halves[::7].view("f2").astype("f4"), values), strict=True):
        with np.errstate(all="ignore"):
            wanted = reference if name == "half_to_f4" else reference.astype("f2").view("u2")
        got = cases.run_plain(name, arrays, output)
        nan = np.isnan(reference)
        assert np.array_equal(got[~nan], wanted[~nan]), name


def test_remainder_is_exact_for_huge_ratios() -> None:
    rng = np.random.default_rng(5)
    x = np.ldexp(rng.uniform(-1, 1, 60), rng.integers(-1000, 1000, 60))
    y = np.ldexp(rng.uniform(-1, 1, 60), rng.integers(-1060, 200, 60))
    for name in ("fmod", "remainder"):
        got = cases.run_plain(f"{name}_f8", [x, y], np.dtype("f8"))
        assert cases.same(got, getattr(np, name)(x, y)).all(), name
