"""Which loops of `kernels/cpu/reduce.py` fold a reduction, and with which types."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ..launch.fingerprint import fingerprint
from . import ir
from .plan import Apply, Expr, Reduction

DType = np.dtype[Any]


@dataclass(frozen=True)
class Fold:
    """The functions and types of one fold.

    name : prefix in the source; tile, join, value : functions of `kernels/cpu/reduce.py`; strided, row : forms of the
    tile for rows that lie apart and for several tiles of one column, if there are such; buffer_dtype, acc_dtype,
    state_dtype : elements, lanes, states; combine : the function that joins two values; fields : slots of a state;
    rows : rows of lanes that a tile may use for each field;
    exact : the order cannot matter;
    uncast : the operand is the integer below the cast to 64 bits.
    """

    name: str
    tile: str
    join: str
    value: str
    buffer_dtype: DType
    acc_dtype: DType
    state_dtype: DType
    combine: str
    fields: int = 1
    rows: int = 128
    exact: bool = False
    uncast: bool = False
    user: ir.UserReduction | None = None
    sum_field: int | None = None  # the field that holds the sum, for a sum of the same elements
    strided: str | None = None
    row: str | None = None

    def fingerprints(self) -> list[tuple[str, str | None]]:
        """Return what decides the code of a user's reduction, by part."""
        if self.user is None:
            return []
        parts = {"map": self.user.map, "combine": self.user.combine, "finalize": self.user.finalize}
        return [(name, fingerprint(part.function)) for name, part in parts.items() if part is not None]

    def operand(self, reduction: Reduction) -> Expr:
        """Return the expression whose values go into the tile buffer."""
        if self.uncast:
            assert isinstance(reduction.expr, Apply)
            return reduction.expr.args[0]
        return reduction.expr


@dataclass(frozen=True)
class FoldPart:
    """A tile or join of a fold, compiled once for all kernels that call it.

    columns : a number of columns that is a constant of the code, or None; fold : whose part it is.
    """

    fold: Fold
    part: Literal["tile", "strided", "row", "join"]
    columns: int | None

    @property
    def source(self) -> str:
        """A function of the part's arguments."""
        names = ["a", "b", "c", "d", "e", "f"][: self.words]
        place = 4 if self.part == "join" else 2
        values = names.copy()
        if self.columns is not None:
            values[place] = str(self.columns)
        return f"def kernel({', '.join(names)}):\n    wide_vectors()\n    x_{self.part}({', '.join(values)})\n"

    @property
    def folds(self) -> dict[str, Fold]:
        """The fold under the name that the source uses."""
        return {"x": self.fold}

    @property
    def users(self) -> dict[str, ir.UserFunction]:
        """No functions of the user beside those of the fold."""
        return {}

    @property
    def interleave(self) -> int:
        """LLVM chooses how many vectors it handles side by side."""
        return 0

    @property
    def words(self) -> int:
        """The number of its arguments, all int64."""
        return 5 if self.part == "join" else 6


_INT64 = np.dtype(np.int64)
_INT32 = np.dtype(np.int32)


def _memory(dtype: DType) -> DType:
    """The dtype of tile buffers: bool as bytes, float16 as the float32 it is computed in."""
    return np.dtype({"bool": np.uint8, "float16": np.float32}.get(dtype.name, dtype))


def fold_for(reduction: Reduction) -> Fold:
    """Return the fold of `reduction`."""
    op, expr = reduction.op, reduction.expr
    if isinstance(op, ir.UserReduction):
        dtype = op.state_dtypes[0]
        return Fold(
            "user", "tile", "join", "value", _memory(expr.dtype), dtype, dtype, "",
            fields=len(op.state_dtypes), rows=256, user=op,
        )  # fmt: skip
    plain = _memory(expr.dtype)
    whole = plain.kind in "iu"
    one = ("any_order_tile" if whole else "fold_tile", "fold_join", "fold_value")
    strided = None if whole or expr.dtype == np.float16 else "fold_strided"
    row = None if whole else "fold_row"
    match op:
        case "sum":
            small = _small_integer(expr)
            if small is not None:
                return Fold("sum", *one, small, _INT32, plain, "add", exact=True, uncast=True)
            return Fold("sum", *one, plain, plain, plain, "add", exact=whole, strided=strided, row=row)
        case "prod":
            return Fold("prod", *one, plain, plain, plain, "multiply", exact=whole, strided=strided, row=row)
        case "min" | "all":
            return Fold("min", *one, plain, plain, plain, "smaller", exact=whole, strided=strided, row=row)
        case "max" | "any":
            return Fold("max", *one, plain, plain, plain, "larger", exact=whole, strided=strided, row=row)
        case "argmin" | "argmax":
            combine = "smaller" if op == "argmin" else "larger"
            return Fold(op, "arg_tile", "arg_join", "arg_value", plain, plain, plain, combine, fields=2, exact=True)
        case "m2" if whole:
            acc = _INT32 if plain.itemsize == 1 else _INT64
            names = ("squares_tile", "squares_join", "squares_value")
            return Fold("m2", *names, plain, acc, _INT64, "add", fields=2, exact=True, sum_field=0)
        case "m2":
            names, apart = ("m2_tile", "m2_join", "m2_value"), "m2_strided"
            return Fold("m2", *names, plain, plain, plain, "add", fields=3, sum_field=2, strided=apart)
    raise AssertionError(op)


def folds_of(reductions: Sequence[Reduction]) -> tuple[list[tuple[Fold, Expr]], list[tuple[int, int | None]]]:
    """Return the folds that reductions need, and where each finds its result.

    Returns
    -------
    folds : list of (Fold, Expr)
        Each with the values that it takes. The fold of m2 finds the sum of its values too.
    found : list of (int, int or None)
        For each reduction the number of its fold and, if that is the fold of another, the field.
    """
    wanted = [(fold := fold_for(reduction), fold.operand(reduction)) for reduction in reductions]
    with_sums = [id(operand) for fold, operand in wanted if fold.sum_field is not None]
    folds: list[tuple[Fold, Expr]] = []
    for reduction, (fold, operand) in zip(reductions, wanted, strict=True):
        elsewhere = reduction.op == "sum" and id(operand) in with_sums
        if not elsewhere and _place(folds, fold, operand) is None:
            folds.append((fold, operand))
    found: list[tuple[int, int | None]] = []
    for fold, operand in wanted:
        own = _place(folds, fold, operand)
        if own is not None:
            found.append((own, None))
        else:
            others = [(number, f.sum_field) for number, (f, known) in enumerate(folds) if known is operand]
            found.append(next((number, field) for number, field in others if field is not None))
    return folds, found


def _place(folds: list[tuple[Fold, Expr]], fold: Fold, operand: Expr) -> int | None:
    """Return the number of a fold of an operand, if it is there."""
    return next((number for number, (f, known) in enumerate(folds) if f == fold and known is operand), None)


def _small_integer(expr: Expr) -> DType | None:
    """The dtype below a cast to 64 bits of an 8- or 16-bit integer or a bool, whose tiles sum in 32 bits."""
    if isinstance(expr, Apply) and expr.op == "cast" and expr.dtype.kind in "iu" and expr.dtype.itemsize == 8:
        source = expr.args[0].dtype
        if source.kind in "iub" and source.itemsize <= 2:
            return _memory(source)
    return None
