"""What the tests of scalar operations share: which loops there are, values to feed them, both ways to run them."""

from __future__ import annotations

import itertools
from functools import cache
from types import MappingProxyType
from typing import Any

import numpy as np

import gpucompute.ops as ops
from gpucompute.errors import DTypeError

HALF = np.dtype("f2")


def loops(dtype: np.dtype, extra: tuple[tuple[str, tuple[str, ...]], ...] = ()) -> list[tuple[str, tuple, np.dtype]]:
    """(operation, input dtypes, output dtype) of every loop whose deciding operand has `dtype`."""
    found = {}
    for op in ops.OPS.values():
        given = (np.dtype(bool), dtype, dtype) if op.name == "where" else (dtype,) * op.nin
        if op.name == "ldexp":
            given = (dtype, np.dtype("i8"))
        try:
            inputs, output = op.resolve(given)
        except DTypeError:
            continue
        if inputs[-1 if op.name == "where" else 0] == dtype:
            found[op.name] = (op.name, inputs, output)
    for name, codes in extra:
        inputs, output = ops.OPS[name].resolve(tuple(np.dtype(c) for c in codes))
        found[name, codes] = (name, inputs, output)
    return list(found.values())


def values(dtype: np.dtype, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Special values of a dtype, and `count` random ones spread over its range."""
    if dtype.kind == "b":
        return np.array([False, True]), rng.integers(0, 2, count).astype(bool)
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        special = {0, 1, 2, 3, 7, 31, 63, 64, 65, info.max, info.max - 1, info.min, -1, -2, -7, -64}
        bits = rng.integers(0, 2**63, count, dtype=np.uint64) * np.uint64(2) + rng.integers(
            0, 2, count, dtype=np.uint64
        )
        random = (bits >> rng.integers(0, 64, count, dtype=np.uint64)).astype(dtype)
        return np.array(sorted(v for v in special if info.min <= v <= info.max), dtype), random
    info = np.finfo(dtype)
    plus = [0.0, info.smallest_subnormal, info.tiny, 0.5, 1.0, 1.5, 2.5, 3.0, 100.25, float(info.max), np.inf]
    plus += [float(np.nextafter(dtype.type(1), dtype.type(d))) for d in (0, 2)]
    special = np.array([*plus, *(-v for v in plus), np.nan], dtype)
    top = np.log2(float(info.max)) / 2
    near = rng.normal(0, 1, count - count // 2)
    far = np.exp2(rng.uniform(-top, top, count // 2)) * rng.choice([-1, 1], count // 2)
    return special, np.concatenate([near, far]).astype(dtype)


def operands(inputs: tuple[np.dtype, ...], count: int = 120, seed: int = 0) -> list[np.ndarray]:
    """Arrays for a loop: every combination of special values (for three operands: of a few), then random ones."""
    rng = np.random.default_rng(seed)
    parts = [values(dtype, count, rng) for dtype in inputs]
    special = [part[0][:: 3 if len(inputs) == 3 and part[0].size > 6 else 1] for part in parts]
    grid = np.array(list(itertools.product(*(range(s.size) for s in special)))).reshape(-1, len(inputs))
    return [np.concatenate([s[grid[:, i]], part[1]]) for i, (s, part) in enumerate(zip(special, parts, strict=True))]


@cache
def plain() -> MappingProxyType:
    return MappingProxyType(ops.scalar_namespace())


@cache
def compiled() -> MappingProxyType:
    return MappingProxyType(ops.compiled_namespace())


def run_plain(name: str, arrays: list[np.ndarray], output: np.dtype) -> np.ndarray:
    """A scalar function applied in plain Python, as the interpreter does it."""
    function, half_round = plain()[name], plain()["half_round"]
    as_kernel = [a.astype(np.float32) if a.dtype == HALF else a for a in arrays]
    with np.errstate(all="ignore"):
        if output == HALF:
            return np.array(
                [half_round(np.float32(function(*v))) for v in zip(*as_kernel, strict=True)], np.float32
            ).astype(HALF)
        return np.array([output.type(function(*v)) for v in zip(*as_kernel, strict=True)], output)


def run_compiled(jobs: list[tuple[str, list[np.ndarray], np.dtype]]) -> list[np.ndarray]:
    """Scalar functions applied by one compiled kernel: a loop for each job, as generated kernels have it."""
    import numba

    namespace: dict[str, Any] = dict(compiled())
    body, arrays, results = [], [], []
    for j, (name, given, output) in enumerate(jobs):
        read = []
        for a in given:
            arrays.append(a.view(np.uint16) if a.dtype == HALF else a)
            read.append(f"half_to_f4(x{len(arrays) - 1}[i])" if a.dtype == HALF else f"x{len(arrays) - 1}[i]")
        value = f"{name}({', '.join(read)})"
        store = (
            f"f4_to_half(half_round(np.float32({value})))"
            if output == HALF
            else f"np.{output.name.replace('bool', 'bool_')}({value})"
        )
        body.append(f"    for i in range(r{j}.size):\n        r{j}[i] = {store}\n")
        results.append(np.empty(given[0].size, np.uint16 if output == HALF else output))
    names = [f"x{i}" for i in range(len(arrays))] + [f"r{j}" for j in range(len(jobs))]
    exec(f"def kernel({', '.join(names)}):\n" + "".join(body), namespace)
    numba.njit(nogil=True, error_model="numpy")(namespace["kernel"])(*arrays, *results)
    return [r.view(job[2]) for r, job in zip(results, jobs, strict=True)]


def same(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Where two arrays hold the same bits, all NaNs counting as one."""
    if a.dtype.kind != "f":
        return a == b
    code = f"u{a.dtype.itemsize}"
    return (a.view(code) == b.view(code)) | (np.isnan(a) & np.isnan(b))
