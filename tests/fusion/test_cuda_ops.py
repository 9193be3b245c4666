"""Every operation, as the PTX of a real kernel, gives the bits of plain Python on special and random values.

By default each scalar function once, without those that only call their float64 form; ``GPUCOMPUTE_TEST_ALL=1`` runs
every operation for every dtype (minutes).
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

import gpucompute as gp
import gpucompute.ops as ops

pytest.importorskip("numba.cuda.cudadrv.nvvm", reason="numba-cuda is not installed")

import ptx_machine
import scalar_cases as cases
from programs import same_bits

from gpucompute.fusion.interpret import interpret
from gpucompute.fusion.trace import trace

ALL = os.environ.get("GPUCOMPUTE_TEST_ALL") == "1"
DTYPES = ["f4", "f8", "f2", "i8", "u8", "i4", "u4", "i2", "u2", "i1", "u1", "?"]


def jobs(code: str) -> dict[tuple[str, ...], list[str]]:
    """By operand dtypes: the operations of a dtype whose scalar function no dtype before it has."""
    seen: set[str] = set()
    for before in DTYPES[: DTYPES.index(code)]:
        seen.update(ops.OPS[name].scalar(inputs) for name, inputs, _ in cases.loops(np.dtype(before)))
    found: dict[tuple[str, ...], list[str]] = {}
    for name, inputs, _ in cases.loops(np.dtype(code)):
        function = ops.OPS[name].scalar(inputs)
        wrapper = function.replace("_f4", "_f8") in cases.plain()[function].__code__.co_names
        if ALL or not (function in seen or wrapper):
            found.setdefault(tuple(d.str[1:] for d in inputs), []).append(name)
    return found


def apply(name: str, arrays: tuple[Any, ...]) -> Any:
    op = ops.OPS[name]
    if op.rule is not None and op.rule.nout > 1:
        return op.rule(*arrays)[op.output]
    return (op.ufunc or getattr(np, name, None) or getattr(gp, name))(*arrays)


@pytest.mark.parametrize("code", DTYPES)
def test_operations(code: str) -> None:
    for inputs, names in jobs(code).items():
        arrays = cases.operands(tuple(np.dtype(c) for c in inputs), count=40)

        def all_of_them(*arrays: Any, names: list[str] = names) -> tuple[Any, ...]:
            return tuple(apply(name, arrays) for name in names)

        expected = interpret(trace(all_of_them, tuple(arrays)), arrays)
        for name, a, b in zip(names, ptx_machine.run(all_of_them, *arrays), expected, strict=True):
            assert same_bits(a, b), f"{name} of {inputs}"


@pytest.mark.parametrize("code", DTYPES)
def test_casts(code: str) -> None:
    array = cases.operands((np.dtype(code),), count=40)[0]

    def casts(x: Any) -> tuple[Any, ...]:
        return tuple(x.astype(other) for other in DTYPES if other != code)

    targets = [other for other in DTYPES if other != code]
    expected = interpret(trace(casts, (array,)), [array])
    for target, a, b in zip(targets, ptx_machine.run(casts, array), expected, strict=True):
        assert same_bits(a, b), f"{code} to {target}"
