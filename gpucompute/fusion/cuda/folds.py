"""The folds of a tile on a GPU: lanes of threads fold elements along the tree of `fusion/tree.py`.

A tile of up to `lanes * elements` elements lies across `lanes` threads: element e is number e // lanes of the thread
e % lanes. Halving first pairs elements of one thread, then those of neighbouring threads, who exchange them. What is
printed here are device functions for the number of elements and the fields of a state, since numba compiles no loop
over a tuple of different types:

    tile(x0, x1, ..., lane, rank, first, count) -> state    only that of the thread with rank 0 means anything
    join(a0, ..., count_a, b0, ..., count_b) -> state
    value(s0, ..., count)                   -> result

A state of one field is that field, of several a tuple. The meaning of each fold is that of `kernels/cpu/reduce.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...kernels.cpu import reduce
from ..folds import Fold

DType = np.dtype[Any]
_INT32, _INT64 = np.dtype(np.int32), np.dtype(np.int64)


@dataclass(frozen=True)
class TileFold:
    """A fold with the form of its tiles.

    lanes, elements : threads that share a tile, and elements of each; exchange : ``shuffle`` between neighbouring
    lanes of a warp, or ``turn``: warp w first takes over what all lanes have of column w, and its threads are the
    lanes then (`rank` is the lane after that).
    """

    fold: Fold
    lanes: int
    elements: int
    exchange: str

    @property
    def element_type(self) -> DType:
        """Of the values that a tile folds."""
        return self.fold.buffer_dtype

    @property
    def fields(self) -> tuple[DType, ...]:
        """The dtypes of a state's fields, as they lie in memory."""
        fold = self.fold
        if fold.user is not None:
            return tuple(np.dtype(np.uint8) if d.kind == "b" else d for d in fold.user.state_dtypes)
        if fold.tile == "arg_tile":
            return fold.state_dtype, _INT64
        return (fold.state_dtype,) * fold.fields

    def source(self) -> str:
        """The three functions, as Python source."""
        return "\n\n".join("\n".join(lines) for lines in (self._tile(), self._join(), self._value())) + "\n"

    # tile

    def _tile(self) -> list[str]:
        values = [f"x{k}" for k in range(self.elements)]
        head = f"def tile({', '.join(values)}, lane, rank, first, count):"
        fold = self.fold
        acc = fold.acc_dtype.name
        if fold.user is not None:
            return [head, *self._user_tile(values)]
        if fold.tile == "arg_tile":
            body = [f"    i{k} = int32(lane + {self.lanes * k})" for k in range(self.elements)]
            state = [[value, f"i{k}"] for k, value in enumerate(values)]
            result, lines = self._halve(state, "better_of", [self.element_type, _INT32])
            return [head, *body, *lines, f"    return {result[0]}, first + {result[1]}"]
        if fold.tile == "m2_tile":
            total, sums = self._halve([[x] for x in values], "plain", [fold.acc_dtype])
            body = [
                *sums,
                f"    total = {total[0]}",
                f"    mean = {acc}(total / {acc}(count))",
                f"    center = {self._of_all('mean', fold.acc_dtype)}",
                *(f"    y{k} = square({x}, center)" for k, x in enumerate(values)),
            ]
            squares, lines = self._halve([[f"y{k}"] for k in range(self.elements)], "plain", [fold.acc_dtype], "d")
            return [head, *body, *lines, f"    return mean, {squares[0]}, total"]
        start = [f"    y{k} = {acc}({x})" for k, x in enumerate(values)]
        names = [[f"y{k}"] for k in range(self.elements)]
        types = [fold.acc_dtype]
        if fold.tile == "squares_tile":
            start += [f"    z{k} = {acc}(y{k} * y{k})" for k in range(self.elements)]
            names = [[f"y{k}", f"z{k}"] for k in range(self.elements)]
            types = [fold.acc_dtype] * 2
        result, lines = self._halve(names, "plain" if len(types) == 1 else "plain2", types)
        stored = [f"{dtype.name}({name})" for dtype, name in zip(self.fields, result, strict=True)]
        return [head, *start, *lines, f"    return {', '.join(stored)}"]

    def _user_tile(self, values: list[str]) -> list[str]:
        one = len(self.fields) == 1
        lines, names = [], []
        for k, value in enumerate(values):
            names.append([f"y{k}_{f}" for f in range(len(self.fields))])
            lines += [f"    t = map_({value})", *_indent(self._taken(names[-1]))]
        result, folded = self._halve(names, "user", list(self.fields))
        return [*lines, *folded, f"    return {result[0] if one else ', '.join(result)}"]

    def _taken(self, names: list[str]) -> list[str]:
        """Lines that put the fields of the state `t` into names, in their dtypes."""
        if len(names) == 1:
            return [f"{names[0]} = {self.fields[0].name}(t)"]
        return [
            f"{name} = {dtype.name}(t[{f}])" for f, (name, dtype) in enumerate(zip(names, self.fields, strict=True))
        ]

    def _halve(
        self, states: list[list[str]], combine: str, types: list[DType], prefix: str = "c"
    ) -> tuple[list[str], list[str]]:
        """Return the names of the folded state's fields, and the lines that fold `states` into them."""
        lines: list[str] = []
        size = len(states)
        while size > 1:
            size //= 2
            for k in range(size):
                here, there = states[k], states[k + size]
                lines += self._combined(
                    here, there, f"lane + {self.lanes * (k + size)} < count", combine, f"{prefix}{k}_"
                )
                states[k] = [f"{prefix}{k}_{f}" for f in range(len(types))]
        state = states[0]
        if self.exchange == "turn":
            turned = [f"{prefix}t{f}" for f in range(len(types))]
            lines += [
                f"    {name} = turned_{dtype.name}({value})"
                for name, value, dtype in zip(turned, state, types, strict=True)
            ]
            state = turned
        distance = self.lanes // 2
        while distance:
            other = [f"{prefix}o{f}" for f in range(len(types))]
            lines += [
                f"    {name} = exchange_{dtype.name}({value}, {distance})"
                for name, value, dtype in zip(other, state, types, strict=True)
            ]
            lines += self._combined(state, other, f"rank + {distance} < count", combine, f"{prefix}0_")
            state = [f"{prefix}0_{f}" for f in range(len(types))]
            distance //= 2
        return state, lines

    def _combined(self, a: list[str], b: list[str], present: str, combine: str, target: str) -> list[str]:
        """Lines that combine two states where the second is there, else keep the first."""
        names = [f"{target}{f}" for f in range(len(a))]
        if combine == "plain":
            acc = self.fold.acc_dtype.name
            return [f"    {names[0]} = {acc}(combine({a[0]}, {b[0]})) if {present} else {acc}({a[0]})"]
        if combine == "plain2":
            acc = self.fold.acc_dtype.name
            return [
                f"    {name} = {acc}({x} + {y}) if {present} else {acc}({x})"
                for name, x, y in zip(names, a, b, strict=True)
            ]
        if combine == "better_of":
            element = self.element_type.name
            return [
                f"    take = ({present}) and better({a[0]}, {a[1]}, {b[0]}, {b[1]})",
                f"    {names[0]}, {names[1]} = ({b[0]} if take else {a[0]}), ({b[1]} if take else {a[1]})",
                f"    {names[0]} = {element}({names[0]})",
                f"    {names[1]} = int32({names[1]})",
            ]
        same = [f"{name} = {x}" for name, x in zip(names, a, strict=True)] if names != a else ["pass"]
        joined = [f"t = combine({self._state(a)}, {self._state(b)})", *self._taken(names)]
        return [f"    if {present}:", *_indent(joined, 2), "    else:", *_indent(same, 2)]

    def _state(self, names: list[str]) -> str:
        """Source for a user's state of these fields."""
        assert self.fold.user is not None
        kinds = self.fold.user.state_dtypes
        values = [f"({n} != 0)" if d.kind == "b" else n for n, d in zip(names, kinds, strict=True)]
        return values[0] if len(values) == 1 else f"({', '.join(values)})"

    def _of_all(self, name: str, dtype: DType) -> str:
        """Source for the value that the first lane has, for all lanes of its column."""
        return f"from_first_{dtype.name}({name}, rank)" if self.lanes > 1 else name

    # join and value

    def _names(self, prefix: str) -> list[str]:
        return [f"{prefix}{f}" for f in range(len(self.fields))]

    def _join(self) -> list[str]:
        a, b = self._names("a"), self._names("b")
        head = f"def join({', '.join([*a, 'count_a', *b, 'count_b'])}):"
        fold = self.fold
        state = fold.state_dtype.name
        if fold.user is not None:
            return [
                head,
                f"    t = combine({self._state(a)}, {self._state(b)})",
                *_indent(self._taken(self._names("c"))),
                f"    return {', '.join(self._names('c'))}",
            ]
        match fold.join:
            case "arg_join":
                return [head, "    return (b0, b1) if better(a0, a1, b0, b1) else (a0, a1)"]
            case "squares_join":
                return [head, "    return a0 + b0, a1 + b1"]
            case "m2_join":
                return [
                    head,
                    "    total = float64(count_a + count_b)",
                    f"    share = {state}(float64(count_b) / total)",
                    f"    weight = {state}(float64(count_a) * float64(count_b) / total)",
                    f"    d = {state}(b0 - a0)",
                    f"    mean = {state}(a0 + {state}(d * share))",
                    f"    squares = {state}({state}(a1 + b1) + {state}({state}(d * d) * weight))",
                    f"    return mean, squares, {state}(a2 + b2)",
                ]
        return [head, f"    return {state}(combine(a0, b0))"]

    def _value(self) -> list[str]:
        names = self._names("s")
        head = f"def value({', '.join([*names, 'count'])}):"
        if self.fold.user is not None:
            finished = self.fold.user.finalize is not None
            return [head, f"    return {f'finalize({self._state(names)})' if finished else 's0'}"]
        match self.fold.value:
            case "arg_value" | "m2_value":
                return [head, "    return s1"]
            case "squares_value":
                return [
                    head,
                    "    m = s0 // count",
                    "    r = s0 - m * count",
                    "    d = s1 - 2 * m * s0 + count * m * m",
                    "    return float64(d) - float64(r) * float64(r) / float64(count)",
                ]
        return [head, "    return s0"]


def _indent(lines: list[str], depth: int = 1) -> list[str]:
    return ["    " * depth + line for line in lines]


def functions(
    tile: TileFold, translate: Callable[..., Any], names: dict[str, Any], decorate: Callable[..., Any]
) -> dict[str, Any]:
    """Return the three functions of a fold, compiled.

    `translate` makes device functions of the user's, `decorate` of ours; `names` are the globals that they see.
    """
    fold = tile.fold
    scope = dict(names)
    if fold.user is not None:
        scope["map_"] = translate(fold.user.map.function)
        scope["combine"] = translate(fold.user.combine.function)
        if fold.user.finalize is not None:
            scope["finalize"] = translate(fold.user.finalize.function)
    else:
        scope["ACC_T"] = getattr(np, fold.acc_dtype.name)
        for function in (reduce.better, reduce.square, getattr(reduce, fold.combine)):
            scope[function.__name__] = decorate(_with_globals(function, scope))
        scope["combine"] = scope[fold.combine]
        precedes = {"larger": reduce.greater, "smaller": reduce.less}.get(fold.combine)
        if precedes is not None:
            scope["precedes"] = decorate(_with_globals(precedes, scope))
    exec(compile(tile.source(), "<gpucompute fold>", "exec"), scope)
    return {part: decorate(scope[part]) for part in ("tile", "join", "value")}


def _with_globals(function: Any, scope: dict[str, Any]) -> Any:
    return type(function)(function.__code__, scope, function.__name__)
