"""Floating-point instructions (PTX ISA, "Floating-Point", "Half Precision Floating-Point").

Everything but ``.approx`` and ``.full`` is correctly rounded, as the hardware is. Those two are specified by bounds
only: here they are the float64 function rounded once, so more accurate than a GPU, and not its bits. A multiplication
and an addition are never contracted; an assembler may contract those without ``.rn``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np

from . import floats
from .operation import Builder, Modifiers, Operation, UnknownForm
from .types import PREDICATE, STORAGE, Array, Type

NATIVE: dict[str, dict[str, Callable[..., Array]]] = {
    "f16": {"add": np.add, "mul": np.multiply},
    "f32": {"add": np.add, "mul": np.multiply, "fma": floats.fma32, "div": np.divide, "sqrt": np.sqrt},
    "f64": {"add": np.add, "mul": np.multiply, "fma": floats.fma64, "div": np.divide, "sqrt": np.sqrt},
}


def rounded(name: str, kind: Type, mode: str) -> Callable[..., Array]:
    """Return an operation (add, mul, fma, div, sqrt) on arrays of a format, correctly rounded in some mode."""
    lane = kind.lane.name
    native = NATIVE.get(lane, {}).get(name)
    if mode == "rn" and native is not None:
        return lambda *values: floats.canonical(native(*values), kind)
    if lane == "f64":
        return floats.directed64(name, mode)
    operation = floats.ODD[name]
    return lambda *values: floats.narrow(operation(*(floats.widen(v, kind) for v in values), mode), kind, mode)


def negated(x: Array, kind: Type) -> Array:
    """Return -x; of NaN the sign changes too."""
    return x ^ np.uint16(0x8000) if kind.kind == "bf" else np.negative(x)


def magnitude(x: Array, kind: Type) -> Array:
    """Return x without its sign."""
    return x & np.uint16(0x7FFF) if kind.kind == "bf" else np.abs(x)


def _finished(function: Callable[..., Array], modifiers: Modifiers, kind: Type) -> Callable[..., Array]:
    """Add what ``.ftz``, ``.sat`` and ``.relu`` do before and after."""
    if modifiers.flag("ftz"):
        flushed = function
        function = lambda *values: floats.flush(flushed(*map(floats.flush, values)))  # noqa: E731
    if modifiers.flag("sat"):
        unclamped = function
        function = lambda *values: floats.saturate(unclamped(*values))  # noqa: E731
    if modifiers.flag("relu"):
        signed = function
        function = lambda *values: extremum("max", kind)(signed(*values), np.zeros(1, kind.dtype), nan=True)  # noqa: E731
    return function


def _arithmetic(name: str, count: int) -> Builder:
    def build(modifiers: Modifiers, kind: Type) -> Operation:
        modifiers.ignore("noftz")
        mode = modifiers.choice(*floats.MODES[:4], default="rn")
        return Operation(_finished(rounded(name, kind, mode), modifiers, kind), (kind,), (kind,) * count)

    return build


def _subtract(modifiers: Modifiers, kind: Type) -> Operation:
    add = rounded("add", kind, modifiers.choice(*floats.MODES[:4], default="rn"))
    return Operation(_finished(lambda a, b: add(a, negated(b, kind)), modifiers, kind), (kind,), (kind, kind))


def _reciprocal(a: Array) -> Array:
    return np.float64(1) / a


def _reciprocal_root(a: Array) -> Array:
    return np.float64(1) / np.sqrt(a)


APPROXIMATE: dict[str, Callable[..., Array]] = {
    "rcp": _reciprocal,
    "rsqrt": _reciprocal_root,
    "div": np.divide,
    "sqrt": np.sqrt,
    "sin": np.sin,
    "cos": np.cos,
    "lg2": np.log2,
    "ex2": np.exp2,
    "tanh": np.tanh,
}


def _approximate(name: str) -> Builder:
    """The forms that PTX bounds but does not define (rcp.approx, ...), and the exact forms of the same opcodes."""
    count = 2 if name == "div" else 1
    function = APPROXIMATE[name]

    def build(modifiers: Modifiers, kind: Type) -> Operation:
        if not (modifiers.flag("approx") or modifiers.flag("full")):
            mode = modifiers.choice(*floats.MODES[:4])
            if name not in ("rcp", "div", "sqrt"):
                raise UnknownForm
            exact = rounded("div" if name == "rcp" else name, kind, mode)
            one = np.ones(1, kind.dtype)
            chosen = (lambda a: exact(one, a)) if name == "rcp" else exact
        elif kind.name == "f64" and modifiers.flag("ftz"):  # rcp and rsqrt give the upper half of the bits
            upper = np.uint64(0xFFFFFFFF00000000)
            chosen = lambda a: (function(a).view(np.uint64) & upper).view(np.float64)  # noqa: E731
        else:
            chosen = lambda *values: floats.narrow(function(*(floats.widen(v, kind) for v in values)), kind)  # noqa: E731
        return Operation(_finished(chosen, modifiers, kind), (kind,), (kind,) * count)

    return build


def extremum(name: str, kind: Type) -> Callable[..., Array]:
    """Return min or max of two arrays: a number wins over NaN (with `nan` NaN wins), -0 is less than 0."""
    storage = STORAGE[8 * kind.dtype.itemsize]
    join = np.bitwise_or if name == "min" else np.bitwise_and  # of the signs of two zeros
    bf16 = kind.kind == "bf"

    def choose(a: Array, b: Array, nan: bool = False) -> Array:
        x, y = (floats.widen(a, kind), floats.widen(b, kind)) if bf16 else (a, b)
        first = x < y if name == "min" else x > y
        result = np.where(first | (y != y), a, b)
        both_zero = (x == 0) & (y == 0)
        if both_zero.any():
            result = np.where(both_zero, join(a.view(storage), b.view(storage)).view(kind.dtype), result)
        missing = (x != x) | (y != y) if nan else (x != x) & (y != y)
        if missing.any():
            one = np.uint16(0x7FFF) if bf16 else floats.CANONICAL.get(kind.lane.name, np.float64(np.nan))
            result = np.where(missing, one, result)
        return result

    return choose


def _extremum(name: str) -> Builder:
    def build(modifiers: Modifiers, kind: Type) -> Operation:
        nan = modifiers.flag("NaN")
        choose = extremum(name, kind)
        if modifiers.sources < 2:
            raise UnknownForm
        sign_of_both = modifiers.flag("xorsign")
        absolute = modifiers.flag("abs")
        storage = STORAGE[8 * kind.dtype.itemsize]
        sign = storage.type(1 << 8 * storage.itemsize - 1)

        def function(*values: Array) -> Array:
            operands = [magnitude(v, kind) for v in values] if absolute else values
            result = reduce(lambda a, b: choose(a, b, nan), operands)
            if sign_of_both:
                bits = values[0].view(storage) ^ values[1].view(storage)
                result = (result.view(storage) | (bits & sign)).view(kind.dtype)
            return result

        return Operation(_finished(function, modifiers, kind), (kind,), (kind,) * modifiers.sources)

    return build


def _sign(function: Callable[[Array, Type], Array]) -> Builder:
    def build(modifiers: Modifiers, kind: Type) -> Operation:
        return Operation(_finished(lambda a: function(a, kind), modifiers, kind), (kind,), (kind,))

    return build


def _copysign(modifiers: Modifiers, kind: Type) -> Operation:
    if kind.name not in ("f32", "f64"):
        raise UnknownForm
    return Operation(lambda a, b: np.copysign(b, a), (kind,), (kind, kind))


def _is_normal(x: Array) -> Any:
    return np.isfinite(x) & (np.abs(x) >= np.finfo(x.dtype).smallest_normal)


_TESTS: dict[str, Callable[[Array], Any]] = {
    "finite": np.isfinite,
    "infinite": np.isinf,
    "number": lambda x: x == x,
    "notanumber": lambda x: x != x,
    "normal": _is_normal,
    "subnormal": lambda x: np.isfinite(x) & ~_is_normal(x) & (x != 0),
}


def _test(modifiers: Modifiers, kind: Type) -> Operation:
    return Operation(_TESTS[modifiers.choice(*_TESTS)], (PREDICATE,), (kind,))


TABLE: dict[str, Builder] = {
    "add": _arithmetic("add", 2),
    "sub": _subtract,
    "mul": _arithmetic("mul", 2),
    "fma": _arithmetic("fma", 3),
    "mad": _arithmetic("fma", 3),
    "min": _extremum("min"),
    "max": _extremum("max"),
    "abs": _sign(magnitude),
    "neg": _sign(negated),
    "copysign": _copysign,
    "testp": _test,
} | {name: _approximate(name) for name in APPROXIMATE}
