"""How states of a reduction over parts of an array become one, in the words of arrays.

A state is a tuple of arrays, one for each field. What is done here is what the compiled folds do (`fusion/tree.py`
says it in Python), so joining the states of canonical parts gives the bits of the unchunked reduction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..fusion import ir
from ..fusion.scalar_source import original, rewritten
from .kernel import Kernel, kernel
from .template import TemplateBuilder

State = tuple[Any, ...]
INT64 = np.dtype(np.int64)


@dataclass(frozen=True)
class Join:
    """How states of one of the reductions in `ir.REDUCTIONS` are made and joined."""

    op: str
    dtype: np.dtype[Any]  # of what is reduced

    @property
    def exact(self) -> bool:
        """Whether the order cannot matter (but for the sign of a zero)."""
        return self.op not in ("sum", "prod", "m2") or self.dtype.kind != "f"

    @property
    def needs_tiles(self) -> bool:
        """Whether a state cannot be had from a reduction over many tiles, as a mean of means cannot."""
        return self.op == "m2" and not self.exact

    def made(self, state: State, count: int, first: Any) -> State:
        """Return the state of a part: `count` elements, of whose indices ``first(local index)`` makes global ones."""
        match self.op:
            case "m2" if not self.exact:
                total, squares = state
                return total / self.dtype.type(count), squares
            case "argmin" | "argmax":
                return state[0], first(state[1])
        return state

    def join(self, a: State, b: State, count_a: int, count_b: int) -> State:
        """Return the state of two parts, of which `a` comes first."""
        match self.op:
            case "sum":
                return (a[0] + b[0],)
            case "prod":
                return (a[0] * b[0],)
            case "min" | "all":
                return (np.where((a[0] <= b[0]) | (a[0] != a[0]), a[0], b[0]),)
            case "max" | "any":
                return (np.where((a[0] >= b[0]) | (a[0] != a[0]), a[0], b[0]),)
            case "argmin" | "argmax":
                return self._first_of_best(a, b)
        if self.exact:
            return a[0] + b[0], a[1] + b[1]
        return self._joined_squares(a, b, count_a, count_b)

    def _first_of_best(self, a: State, b: State) -> State:
        (x, i), (y, j) = a, b
        precedes = y < x if self.op == "argmin" else y > x
        nan = np.where(x != x, (y != y) & (j < i), True)
        better = np.where(y != y, nan, (x == x) & (precedes | ((y == x) & (j < i))))
        return np.where(better, y, x), np.where(better, j, i)

    def _joined_squares(self, a: State, b: State, count_a: int, count_b: int) -> State:
        """Chan, Golub and LeVeque's update of a mean and the squared distances from it."""
        number = self.dtype.type
        count = np.float64(count_a + count_b)
        share = number(np.float64(count_b) / count)
        weight = number(np.float64(count_a) * np.float64(count_b) / count)
        distance = b[0] - a[0]
        return a[0] + distance * share, (a[1] + b[1]) + (distance * distance) * weight

    def finish(self, state: State, count: int) -> Any:
        """Return the result that a state stands for."""
        match self.op:
            case "m2" if self.exact:
                total, squares = state
                mean = total // count
                rest = total - mean * count
                distance = squares - 2 * mean * total + count * mean * mean
                rest = np.asarray(rest, np.float64)
                return np.asarray(distance, np.float64) - rest * rest / np.float64(count)
            case "m2" | "argmin" | "argmax":
                return state[1]
        return state[0]


@dataclass(frozen=True)
class UserJoin:
    """How states of a `gp.reduction` are joined: its own functions, as kernels on flat arrays."""

    combine: Kernel
    finalize: Kernel | None
    exact: bool = False
    needs_tiles: bool = False

    def made(self, state: State, count: int, first: Any) -> State:
        """Return the state of a part."""
        return state

    def join(self, a: State, b: State, count_a: int, count_b: int) -> State:
        """Return the state of two parts, of which `a` comes first."""
        return _flat(self.combine, (*a, *b))

    def finish(self, state: State, count: int) -> Any:
        """Return the result that a state stands for."""
        return state[0] if self.finalize is None else _flat(self.finalize, state)[0]


def _flat(kernel: Kernel, arrays: State) -> State:
    shape = np.shape(arrays[0])
    flat = [np.reshape(np.asarray(array) if isinstance(array, np.generic) else array, -1) for array in arrays]
    return tuple(result.reshape(shape) for result in kernel(flat, (), (flat[0].size,)))


def join_of(node: ir.Reduce) -> Join | UserJoin:
    """Return how the states of a reduction are joined."""
    if not isinstance(node.op, ir.UserReduction):
        return Join(node.op, node.arg.dtype)
    op = node.op
    count = len(op.state_dtypes)
    a, b = ([f"{name}{i}" for i in range(count)] for name in "ab")
    fields = range(count)
    combine = [_wrapped(op.combine, f"combine(({', '.join(a)}), ({', '.join(b)}))", a + b, i, op) for i in fields]
    finalize = None
    if op.finalize is not None:
        finalize = _kernel(op, [_wrapped(op.finalize, f"finalize(({', '.join(a)}))", a, None, op)], count)
    return UserJoin(_kernel(op, combine, 2 * count), finalize)


def parts_of(node: ir.Reduce, build: ir.Builder) -> list[tuple[Any, ir.Node, np.dtype[Any]]]:
    """Return the reductions (operation, argument, dtype) whose results make the state of a part."""
    op, arg = node.op, node.arg
    if isinstance(op, ir.UserReduction):
        return [(_field(op, i), arg, dtype) for i, dtype in enumerate(op.state_dtypes)]
    match op:
        case "m2" if arg.dtype.kind == "f":
            return [("sum", arg, arg.dtype), ("m2", arg, arg.dtype)]
        case "m2":
            wide = build.cast(arg, INT64)
            return [("sum", wide, INT64), ("sum", build.map("multiply", (wide, wide), INT64), INT64)]
        case "argmin" | "argmax":
            return [(op[3:], arg, arg.dtype), (op, arg, INT64)]
    return [(op, arg, node.dtype)]


def _field(op: ir.UserReduction, i: int) -> ir.UserReduction:
    """Return the reduction whose result is field `i` of the state."""
    if len(op.state_dtypes) == 1:
        return ir.UserReduction(op.name, op.map, op.combine, None, op.identity, op.state_dtypes, op.state_dtypes[0])
    getter = _function(f"lambda state: state[{i}]", {})
    whole = op.combine.out_dtype
    finalize = ir.UserFunction(f"field{i}", rewritten(getter), f"state[{i}]", (whole,), op.state_dtypes[i])
    return ir.UserReduction(op.name, op.map, op.combine, finalize, op.identity, op.state_dtypes, op.state_dtypes[i])


def _wrapped(
    part: ir.UserFunction, call: str, names: list[str], item: int | None, op: ir.UserReduction
) -> ir.UserFunction:
    """Return a function of scalars that calls a function of states; a state of one value is that value."""
    single = len(op.state_dtypes) == 1
    text = f"lambda {', '.join(names)}: {call}" + ("" if single or item is None else f"[{item}]")
    function = _function(text, {call.partition("(")[0]: original(part.function)})
    out = op.out_dtype if item is None else op.state_dtypes[item]
    dtypes = tuple(op.state_dtypes[i % len(op.state_dtypes)] for i in range(len(names)))
    return ir.UserFunction(part.name, rewritten(function), text, dtypes, out)


def _function(text: str, scope: dict[str, Any]) -> Any:
    return eval(text, {"__name__": "gpucompute.chunked.generated", **scope})


def _kernel(op: ir.UserReduction, functions: list[ir.UserFunction], inputs: int) -> Kernel:
    """Return the kernel that maps flat arrays of fields by each of `functions`."""
    records = TemplateBuilder()
    args = tuple(records.add("input", i) for i in range(inputs))
    made = [records.add("map", records.op(function), args, function.out_dtype.str) for function in functions]
    return kernel(op.name, records.finish(made), inputs, "exact")
