"""Comparisons, selection and predicates (PTX ISA, "Comparison and Selection", "Half Precision Comparison")."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import floats
from .operation import Modifiers, Operation, UnknownForm
from .types import PREDICATE, TYPES, Array, Type


def _unordered(a: Array, b: Array) -> Any:
    return (a != a) | (b != b)


COMPARISONS: dict[str, Callable[[Array, Array], Any]] = {
    "eq": np.equal,
    "ne": lambda a, b: (a != b) & ~_unordered(a, b),
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "equ": lambda a, b: (a == b) | _unordered(a, b),
    "neu": np.not_equal,
    "ltu": lambda a, b: ~(a >= b),
    "leu": lambda a, b: ~(a > b),
    "gtu": lambda a, b: ~(a <= b),
    "geu": lambda a, b: ~(a < b),
    "num": lambda a, b: ~_unordered(a, b),
    "nan": _unordered,
}
UNSIGNED = {"lo": "lt", "ls": "le", "hi": "gt", "hs": "ge"}
JOINS: dict[str, Callable[[Array, Array], Any]] = {
    "and": np.logical_and,
    "or": np.logical_or,
    "xor": np.logical_xor,
}


def _comparison(modifiers: Modifiers, kind: Type) -> Callable[[Array, Array], Any]:
    name = modifiers.choice(*COMPARISONS, *UNSIGNED)
    function = COMPARISONS[UNSIGNED.get(name, name)]
    if not kind.is_float:
        return np.not_equal if name == "ne" else function
    if modifiers.flag("ftz"):
        return lambda a, b: function(floats.flush(a), floats.flush(b))
    if kind.kind == "bf":
        return lambda a, b: function(floats.widen(a, kind), floats.widen(b, kind))
    return function


def set_predicate(modifiers: Modifiers, kind: Type) -> Operation:
    """``setp.cmp{.bool}{.ftz}.type p|q, a, b{, c}``; of packed types p and q belong to the two lanes."""
    join = modifiers.choice(*JOINS, default="none")
    compare = _comparison(modifiers, kind)

    def function(a: Array, b: Array, *c: Array) -> tuple[Array, Array]:
        result = compare(a, b)
        p, q = (result[:, 0], result[:, 1]) if kind.lanes == 2 else (result, ~result)
        return (JOINS[join](p, *c), JOINS[join](q, *c)) if c else (p, q)

    operands = (kind, kind) if join == "none" else (kind, kind, PREDICATE)
    return Operation(function, (PREDICATE, PREDICATE), operands)


def _true(kind: Type) -> Any:
    """What ``set`` writes where the comparison holds."""
    if kind.kind == "bf":
        return np.uint16(0x3F80)  # 1.0
    return kind.dtype.type(1 if kind.is_float else -1 if kind.kind == "s" else np.iinfo(kind.dtype).max)


def set_value(modifiers: Modifiers, kind: Type) -> Operation:
    """``set.cmp{.bool}{.ftz}.to.type d, a, b{, c}``: 1.0 or all bits where true."""
    join = modifiers.choice(*JOINS, default="none")
    compare = _comparison(modifiers, kind)
    to = modifiers.type()
    if kind.lanes == 2 and to.lanes == 1:
        to = TYPES["u16x2"]  # all bits of each half
    if to.lanes != kind.lanes:
        raise UnknownForm
    yes, no = _true(to), to.dtype.type(0)

    def function(a: Array, b: Array, *c: Array) -> Any:
        result = compare(a, b)
        return np.where(JOINS[join](result, *c) if c else result, yes, no)

    operands = (kind, kind) if join == "none" else (kind, kind, PREDICATE)
    return Operation(function, (to,), operands)


def select(modifiers: Modifiers, kind: Type) -> Operation:
    """``selp.type d, a, b, p``."""
    return Operation(lambda a, b, p: np.where(p, a, b), (kind,), (kind, kind, PREDICATE))


def select_by_sign(modifiers: Modifiers, kind: Type) -> Operation:
    """``slct{.ftz}.type.ctype d, a, b, c``: a where c >= 0 (-0 counts, NaN does not)."""
    to = modifiers.type()
    flush = floats.flush if modifiers.flag("ftz") else np.copy
    return Operation(lambda a, b, c: np.where(flush(c) >= 0, a, b), (to,), (to, to, kind))


PREDICATES = {
    "and": Operation(np.logical_and, (PREDICATE,), (PREDICATE, PREDICATE)),
    "or": Operation(np.logical_or, (PREDICATE,), (PREDICATE, PREDICATE)),
    "xor": Operation(np.logical_xor, (PREDICATE,), (PREDICATE, PREDICATE)),
    "not": Operation(np.logical_not, (PREDICATE,), (PREDICATE,)),
    "mov": Operation(np.copy, (PREDICATE,), (PREDICATE,)),
}


def move(modifiers: Modifiers, kind: Type) -> Operation:
    """``mov.type d, a`` of plain values (packing and addresses are the assembler's)."""
    return Operation(np.copy, (kind,), (kind,))
