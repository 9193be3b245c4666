"""The folds of a tile on a GPU: lanes of threads fold elements along the tree of `fusion/tree.py`.

A tile of up to `lanes * elements` elements lies across `lanes` threads: element e is number e // lanes of the thread
e % lanes. Halving first pairs elements of one thread, then those of neighbouring threads, who exchange them. What is
printed here are device functions for the number of elements and the fields of a state, since numba compiles no loop
over a tuple of different types:

    tile(x, lane, rank, first, count) -> state    x: the thread's elements; only that of rank 0 means anything
    join(a0, ..., count_a, b0, ..., count_b) -> state
    value(s0, ..., count)                   -> result

A state of one field is that field, of several a tuple. The meaning of each fold is that of `kernels/cpu/reduce.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import numpy as np

from ...kernels.cpu import reduce
from ..folds import Fold
from .halving import halving

DType = np.dtype[Any]
_INT64 = np.dtype(np.int64)


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

    @property
    def halved(self) -> tuple[str, ...]:
        """The types of what is halved: fields of states as a tile computes them."""
        fold = self.fold
        if fold.user is not None:
            return tuple(dtype.name for dtype in self.fields)
        if fold.tile == "arg_tile":
            return self.element_type.name, "int32"
        return (fold.acc_dtype.name,) * (2 if fold.tile == "squares_tile" else 1)

    @property
    def starts(self) -> bool:
        """Whether a function makes the state of an element."""
        return self.fold.user is not None or self.fold.tile in ("arg_tile", "squares_tile")

    def source(self) -> str:
        """The functions, as Python source."""
        parts = (self._pair(), self._start(), self._tile(), self._join(), self._value())
        return "\n\n".join("\n".join(lines) for lines in parts if lines) + "\n"

    # tile

    def _tile(self) -> list[str]:
        head = "def tile(x, lane, rank, first, count):"
        fold = self.fold
        acc = fold.acc_dtype.name
        state = self._halve("halve", "start" if self.starts else "", "x")
        if fold.tile == "arg_tile":
            return [head, f"    best, place = {state}", "    return best, first + place"]
        if fold.tile == "m2_tile":
            return [
                head,
                f"    total = {state}",
                f"    mean = {acc}(total / {acc}(count))",
                f"    center = {self._of_all('mean', fold.acc_dtype)}",
                f"    return mean, {self._halve('halve_squares', 'squared', 'center, x')}, total",
            ]
        names = [f"s{f}" for f in range(len(self.fields))]
        stored = [
            name if kind == dtype.name else f"{dtype.name}({name})"
            for name, kind, dtype in zip(names, self.halved, self.fields, strict=True)
        ]
        return [head, f"    {', '.join(names)} = {state}", f"    return {', '.join(stored)}"]

    def _halve(self, function: str, start: str, given: str) -> str:
        """Source for the fold of the elements (see `halving`)."""
        turned = [f"turned_{kind}" for kind in self.halved] if self.exchange == "turn" else []
        exchanged = [f"exchange_{kind}" for kind in self.halved] if self.lanes > 1 else []
        functions = ["pair", *[start] * bool(start), *turned, *exchanged]
        return f"{function}({', '.join(functions)}, lane, rank, count, {given})"

    def halvings(self) -> dict[str, Any]:
        """Return the functions that `tile` calls to fold elements, by name."""
        turns = self.exchange == "turn"
        found = {"halve": halving(self.halved, self.lanes, self.elements, self.starts, turns)}
        if self.fold.tile == "m2_tile":
            found["halve_squares"] = halving(self.halved, self.lanes, self.elements, True, turns)
        return found

    def _pair(self) -> list[str]:
        """What combines two states of `halved` fields; the fold's own function where they are plain values."""
        fold = self.fold
        a, b = ([f"{x}{f}" for f in range(len(self.halved))] for x in "ab")
        head = f"def pair({', '.join([*a, *b])}):"
        if fold.user is not None:
            return [head, f"    t = combine({self._state(a)}, {self._state(b)})", f"    return {self._taken()}"]
        if fold.tile == "arg_tile":
            return [head, "    return (b0, b1) if better(a0, a1, b0, b1) else (a0, a1)"]
        if fold.tile == "squares_tile":
            return [head, "    return a0 + b0, a1 + b1"]
        return ["pair = combine"]

    def _start(self) -> list[str]:
        """What makes the state of an element x at a position of the tile."""
        fold = self.fold
        acc = fold.acc_dtype.name
        if fold.user is not None:
            return ["def start(x, position):", "    t = map_(x)", f"    return {self._taken()}"]
        if fold.tile == "arg_tile":
            return ["def start(x, position):", "    return x, position"]
        if fold.tile == "squares_tile":
            return ["def start(x, position):", f"    y = {acc}(x)", f"    return y, {acc}(y * y)"]
        if fold.tile == "m2_tile":
            return ["def squared(x, position, center):", "    return square(x, center)"]
        return []

    def _taken(self) -> str:
        """Source for the fields of a user's state ``t``, in their dtypes."""
        if len(self.fields) == 1:
            return f"{self.fields[0].name}(t)"
        return ", ".join(f"{dtype.name}(t[{f}])" for f, dtype in enumerate(self.fields))

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
                f"    return {self._taken()}",
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
    scope.update(tile.halvings())
    exec(compile(tile.source(), "<gpucompute fold>", "exec"), scope)
    for name in ("pair", "start", "squared"):
        if isinstance(scope.get(name), FunctionType):
            scope[name] = decorate(scope[name])
    return {part: decorate(scope[part]) for part in ("tile", "join", "value")}


def _with_globals(function: Any, scope: dict[str, Any]) -> Any:
    return type(function)(function.__code__, scope, function.__name__)
