"""Print the value of an expression as Python statements over one point of a loop.

The loops themselves are in `codegen`; this file knows how a value is read, computed and written. Statements go to
one of two places: before the innermost loop, for what does not change in it, or inside.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .. import ops
from . import ir
from .plan import Apply, Expr, GatherLoad, Literally, Load, Parameter, Position


def memory_type(dtype: np.dtype[Any]) -> str:
    """Return the type of the elements in memory: bool as bytes, float16 as its bits."""
    return {"bool": "uint8", "float16": "uint16"}.get(dtype.name, dtype.name)


def value_type(dtype: np.dtype[Any]) -> str:
    """Return the type in which a kernel computes with `dtype`."""
    return {"bool": "bool_", "float16": "float32"}.get(dtype.name, dtype.name)


def literal(value: Any, dtype: np.dtype[Any]) -> str:
    """Return source for a constant of `dtype`, exact to the bit."""
    if dtype.kind == "b":
        return f"bool_({bool(value)})"
    text = repr(float(value)) if dtype.kind == "f" else repr(int(value))
    return f"{value_type(dtype)}({text})"


def reading(text: str, dtype: np.dtype[Any]) -> str:
    """Return source that makes a value of what was read from memory."""
    if dtype.kind == "b":
        return f"({text} != 0)"
    return f"half_to_f4({text})" if dtype == np.float16 else text


def writing(text: str, dtype: np.dtype[Any]) -> str:
    """Return source that makes of a value what goes to memory."""
    if dtype.kind == "b":
        return f"uint8({text})"
    return f"f4_to_half({text})" if dtype == np.float16 else text


@functools.cache
def reciprocal_parts(dtype: np.dtype[Any], divisor: float) -> tuple[float, float] | None:
    """Split 1 / `divisor` so that ``x * high + x * low`` in float32 is ``x / divisor`` for all integers of `dtype`.

    The high part is so short that its product is exact. None if there are integers for which the sum rounds otherwise.
    """
    limits = np.iinfo(dtype)
    x = np.arange(limits.min, limits.max + 1).astype(np.float32)
    fraction, exponent = math.frexp(1.0 / divisor)
    bits = 24 - 8 * dtype.itemsize
    high = np.float32(math.ldexp(round(fraction * 2**bits), exponent - bits))
    low = np.float32(1.0 / divisor - float(high))
    products, quotients = x * high + x * low, x / np.float32(divisor)
    return (float(high), float(low)) if products.tobytes() == quotients.tobytes() else None


@dataclass(eq=False)
class Access:
    """One operand of a stage: where it starts (`slot` in the address table) and its strides by axis.

    `outer` are the strides of the axes whose indices are fixed before the innermost loops (run-time values);
    `inner` and `unrolled` those of the innermost loop and of the small axis unrolled in it, in items.
    """

    slot: int
    name: str
    expr: Load | GatherLoad | Position | None
    inner: str = "0"
    unrolled: str = "0"

    def index(self, variable: str, u: int | None) -> str:
        """Return source for the element's position from the start of the innermost loop."""
        terms = []
        if self.inner != "0":
            terms.append(variable if self.inner == "1" else f"{variable} * {self.inner}")
        if u and self.unrolled != "0":
            terms.append(
                str(u * int(self.unrolled)) if self.unrolled.lstrip("-").isdigit() else f"{u} * {self.unrolled}"
            )
        return " + ".join(terms) or "0"


@dataclass
class Emitter:
    """Prints expressions for one innermost loop over `variable`."""

    accesses: dict[int, Access]  # by id of the leaf, or of an expression whose value is in memory
    variable: str
    known: dict[int, str]  # id of a leaf or expression -> name of a value that exists already
    users: dict[str, Any]  # the user's functions by the name they have in the source
    errors: list[str]  # for each gather, where the user wrote it
    parameters: str = "k"  # the table of Python scalars
    maxima: dict[int, Expr] = field(default_factory=dict)  # id of a leaf -> the values whose maximum it reads
    before: list[str] = field(default_factory=list)
    inside: list[str] = field(default_factory=list)
    _names: dict[tuple[int, int | None], str] = field(default_factory=dict)
    _varies: dict[int, tuple[bool, bool]] = field(default_factory=dict)

    def value(self, expr: Expr, u: int | None = None) -> str:
        """Print what computes `expr` (at position `u` of the unrolled axis) and return its name."""
        if id(expr) in self.known:
            return self.known[id(expr)]
        in_loop, in_unrolled = self.varies(expr)
        key = (id(expr), u if in_unrolled else None)
        if key not in self._names:
            text = self._text(expr, u)
            lines = self.inside if in_loop else self.before
            # Copies for each position of the unrolled axis need names of their own.
            name = f"v{len(self._names)}"
            lines.append(f"{name} = {text}")
            self._names[key] = name
        return self._names[key]

    def varies(self, expr: Expr) -> tuple[bool, bool]:
        """Return whether `expr` changes along the innermost loop and along the unrolled axis."""
        found = self._varies.get(id(expr))
        if found is None:
            if id(expr) in self.known or isinstance(expr, Parameter | Literally):
                found = (False, False)
            elif isinstance(expr, Apply) and id(expr) not in self.accesses:
                parts = [self.varies(arg) for arg in expr.args]
                found = (any(p[0] for p in parts), any(p[1] for p in parts))
            else:
                access = self.accesses[id(expr)]
                found = (access.inner != "0", access.unrolled != "0")
                if isinstance(expr, GatherLoad):
                    index = self.varies(expr.index)
                    found = (found[0] or index[0], found[1] or index[1])
            self._varies[id(expr)] = found
        return found

    def _text(self, expr: Expr, u: int | None) -> str:
        if isinstance(expr, Apply) and id(expr) in self.accesses:  # an earlier walk has left it in memory
            access = self.accesses[id(expr)]
            return f"{access.name}[{access.index(self.variable, u)}]"
        match expr:
            case Literally():
                return literal(expr.value, expr.dtype)
            case Parameter():
                if expr.dtype.kind == "f":
                    return f"ptr_float64({self.parameters})[{expr.index}]"
                read = f"ptr_int64({self.parameters})[{expr.index}]"
                return f"{read} != 0" if expr.dtype.kind == "b" else read
            case Position():
                access = self.accesses[id(expr)]
                return f"b{access.slot} + {access.index(self.variable, u)}"
            case Load():
                access = self.accesses[id(expr)]
                return reading(f"{access.name}[{access.index(self.variable, u)}]", expr.dtype)
            case GatherLoad():
                return self._gather(expr, u)
        return self._apply(expr, u)

    def _gather(self, expr: GatherLoad, u: int | None) -> str:
        access = self.accesses[id(expr)]
        index = self.value(expr.index, u)
        lines = self.inside if self.varies(expr)[0] else self.before
        number = len(self.errors)
        if expr.where in self.errors:
            number = self.errors.index(expr.where)
        else:
            self.errors.append(expr.where)
        name = f"g{len(self._names)}_{u or 0}"
        lines.append(f"{name} = checked({index}, n{access.slot}, {number + 1}, e)")
        step = f"d{access.slot}"
        return reading(f"{access.name}[{access.index(self.variable, u)} + {name} * {step}]", expr.dtype)

    def _constant_quotient(self, expr: Apply, u: int | None) -> str | None:
        """Return source for a small integer over a float32 constant (pixels / 255) as products, equal to the bit.

        One of two forms, both quicker than a division: in float32, where all of the integers were found to agree, or
        in float64. There a quotient of two 24-bit numbers that is a normal float32 is no midpoint between two float32,
        nor nearer to one than 2**-49 of itself, and the product with the rounded reciprocal is off by 2**-52.
        """
        number, divisor = expr.args
        if not (isinstance(divisor, Literally) and isinstance(number, Apply) and number.op == "cast"):
            return None
        source = number.args[0]
        if expr.dtype != np.float32 or source.dtype.kind not in "iu" or source.dtype.itemsize > 2:
            return None
        if not 1e-20 < abs(float(divisor.value)) < 1e20:
            return None
        parts = reciprocal_parts(source.dtype, float(divisor.value))
        if parts is not None:
            value = self.value(number, u)
            high, low = (literal(part, expr.dtype) for part in parts)
            return f"float32(float32({value} * {high}) + float32({value} * {low}))"
        return f"float32(float64({self.value(source, u)}) * float64({1.0 / float(divisor.value)!r}))"

    def _below_maximum(self, expr: Expr) -> bool:
        """Whether `expr` is a value less the largest of its row, as in a softmax."""
        if not (isinstance(expr, Apply) and expr.op == "subtract"):
            return False
        value, largest = expr.args
        return self.maxima.get(id(largest)) is value

    def _apply(self, expr: Apply, u: int | None) -> str:
        args = [self.value(arg, u) for arg in expr.args]
        dtypes = tuple(arg.dtype for arg in expr.args)
        kind = value_type(expr.dtype)
        if isinstance(expr.op, ir.UserFunction):
            name = next((n for n, f in self.users.items() if f is expr.op), f"user{len(self.users)}")
            self.users[name] = expr.op
            text = f"{kind}({name}({', '.join(args)}))"
            return f"half_round({text})" if expr.dtype == np.float16 else text
        if expr.op == "cast":
            name = ops.cast_scalar(dtypes[0], expr.dtype)
            return f"{kind}({name}({args[0]}))" if name != "positive" else f"{kind}({args[0]})"
        if expr.op == "divide":
            quotient = self._constant_quotient(expr, u)
            if quotient is not None:
                return quotient
        name = ops.OPS[expr.op].scalar(dtypes)
        if name == "exp_f4" and self._below_maximum(expr.args[0]):
            name = "exp_nonpositive_f4"
        text = f"{name}({', '.join(args)})"
        text = f"{kind}({text})"
        return f"half_round({text})" if expr.dtype == np.float16 else text
