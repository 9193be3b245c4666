"""The state of one trace: the graph so far, captured arrays, and values on their way into the graph.

A value in the user's function is a `Traced` proxy, a NumPy array or scalar that the function made or closes
over, or a Python scalar. Python scalars are *weak* (NEP 50): they take the dtype of what they meet, so they
become nodes only when an operation has found its dtypes. Weak scalars that come as arguments stay outside the
graph as long as they meet only each other: Python computes them at each call, with Python's own meaning.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import ops
from ..hardware import library_of, library_of_type
from . import ir
from .location import fusion_error, user_line
from .sizes import Ratio, Size

if TYPE_CHECKING:
    from .proxy import Traced

DType = np.dtype[Any]
Weak = type[bool] | type[int] | type[float]
Kind = DType | Weak

WEAK_DTYPES: dict[Weak, DType] = {bool: np.dtype(np.bool), int: np.dtype(np.int64), float: np.dtype(np.float64)}
COMPARISONS = {
    "less": operator.lt,
    "less_equal": operator.le,
    "greater": operator.gt,
    "greater_equal": operator.ge,
    "equal": operator.eq,
    "not_equal": operator.ne,
}
INT64 = np.dtype(np.int64)
BOOL = np.dtype(np.bool)


def native(dtype: Any) -> DType:
    """Return `dtype` in native byte order and NumPy's default spelling; raise for those that cannot be fused."""
    try:
        dtype = np.dtype(dtype)
    except TypeError as error:
        raise fusion_error(f"{error}; expected a dtype such as np.float32") from None
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise fusion_error(
            f"arrays of dtype {dtype} cannot be fused: expected bool, integers or float16, float32, float64; "
            "convert before the call"
        )
    return np.dtype(f"{dtype.kind}{dtype.itemsize}")


def weak_type(value: Any) -> Weak | None:
    """Return the type that a Python scalar counts as (a subclass counts as its base), None for other values."""
    if isinstance(value, np.generic):
        return None
    return next((kind for kind in (bool, int, float) if isinstance(value, kind)), None)


def array_like(value: Any) -> Any:
    """Return what NumPy makes of a list, a range, a memory view and their like; arrays and numbers as they are."""
    if hasattr(value, "dtype") or hasattr(type(value), "__array_ufunc__") or weak_type(value) is not None:
        return value
    return np.asarray(value)


def check_kind(value: Any, what: str) -> None:
    """Refuse an array whose class gives its operations another meaning, or which holds more than numbers."""
    kind: Any = type(value)
    advice = _unlike_arrays(kind)
    if advice and not hasattr(value, "__cuda_array_interface__"):
        raise fusion_error(f"{what} is of type {kind.__name__}, which cannot be fused: {advice}")


@functools.lru_cache(maxsize=1024)
def _unlike_arrays(kind: Any) -> str:
    """Return what to do with objects of a class that check_kind refuses, "" for those of other classes."""
    if issubclass(kind, (np.generic, int, float)):
        return ""
    bases = {base.__name__ for base in kind.__mro__ if base.__module__.partition(".")[0] == "numpy"}
    if "MaskedArray" in bases:
        return (
            "the kernel would not see its mask; fill it before the call, x.filled(0), or pass x.data and "
            "np.ma.getmaskarray(x) as two arrays and combine them with np.where"
        )
    if "matrix" in bases:
        return "its * is a matrix product, an array's is elementwise; pass np.asarray(x)"
    if getattr(kind, "__array_ufunc__", None) in (None, np.ndarray.__array_ufunc__) or library_of_type(kind) != "numpy":
        return ""
    return "what it holds besides its numbers (labels, units) would be lost; pass np.asarray(x), or x.data of xarray"


def refuse_lazy(value: Any, does: str) -> None:
    """Refuse a Dask array that the function has from elsewhere, or a list with one: a trace would compute it."""
    if isinstance(value, (list, tuple)):
        for item in value:
            refuse_lazy(item, does)
    elif library_of(value) == "dask":
        raise fusion_error(
            f"the function {does} a Dask array of shape {value.shape} that is not among its arguments; pass it as an "
            "argument"
        )


class Tracer:
    """What the proxies of one trace share."""

    def __init__(self, arrays: int, scalars: int) -> None:
        self.builder = ir.Builder()
        self.captured: list[np.ndarray[Any, Any]] = []
        self.derived: list[tuple[Callable[..., Any], tuple[Any, ...], Weak, str]] = []
        self.weak_casts: list[tuple[int, DType, str]] = []
        self.exponents: list[tuple[int, str]] = []
        self._arrays = arrays
        self._scalars = scalars
        self._sizes: dict[Any, Traced] = {}

    # ---- values into nodes

    def kind(self, value: Any) -> Kind:
        """Return the dtype of a value, or the Python type of a weak scalar."""
        weak = getattr(value, "_weak", None) or weak_type(value)
        return weak or self.node(value).dtype

    def node(self, value: Any) -> ir.Node:
        """Return the node of a value; a weak scalar gets the dtype that NumPy gives it when it stands alone."""
        from .proxy import Traced

        if isinstance(value, ir.Node):
            return value
        if isinstance(value, Traced):
            if value._tracer is not self:
                raise fusion_error(
                    "a traced array is used outside the call that made it: a function given to fuse must be pure, "
                    "so return the array instead of keeping it in a variable of another scope"
                )
            return self.builder.cast(value._node, value._node.dtype) if value._weak else value._node
        weak = weak_type(value)
        if weak is not None:
            return self.literal(value, WEAK_DTYPES[weak])
        return self.capture(value)

    def cast(self, value: Any, dtype: DType) -> ir.Node:
        """Return the node of a value in `dtype`; a weak integer must fit it, as in NumPy."""
        if weak_type(value) is not None:
            return self.literal(value, dtype)
        node = value._node if getattr(value, "_weak", None) else self.node(value)
        if isinstance(node, ir.Constant) and node.dtype != dtype and dtype.kind == "f":
            with np.errstate(all="ignore"):
                return self.builder.constant(node.value, dtype)
        if isinstance(node, ir.Scalar):
            if node.dtype == INT64 and dtype.kind in "iu" and dtype != INT64:
                self.weak_casts.append((node.index, dtype, user_line()))
            return self.builder.map("cast", (node,), dtype)
        return self.builder.cast(node, dtype)

    def wrapped(self, value: Any, dtype: DType) -> ir.Node:
        """Return the node of a value in `dtype` where NumPy lets integers wrap around (np.select; np.where)."""
        value = self.lifted(value)
        if self.kind(value) is not int or dtype.kind not in "iu":
            return self.cast(value, dtype)
        if weak_type(value) is not None:
            return self.builder.constant(np.asarray(value).astype(dtype), dtype)
        return self.builder.map("cast", (value._node,), dtype)

    def literal(self, value: Any, dtype: DType) -> ir.Node:
        """Return the constant for a Python scalar; an integer that does not fit raises NumPy's OverflowError.

        A number that follows from shapes is no constant but a run-time scalar, which is checked at each call.
        """
        if isinstance(value, (Size, Ratio)):
            return self.cast(self.lifted(value), dtype)
        with np.errstate(all="ignore"):
            try:
                return self.builder.constant(np.array(value, dtype), dtype)
            except OverflowError as error:
                raise OverflowError(f"{error}\n  at {user_line()}") from None

    def capture(self, value: Any) -> ir.Node:
        """Return the node of an array from outside: an input, or a constant if it is all zeros or has one element.

        A copy is taken, since the function may change its own array later.
        """
        if not (isinstance(value, (np.ndarray, np.generic, list, tuple)) or hasattr(value, "__array__")):
            kind = type(value).__name__
            raise fusion_error(f"a value of type {kind} cannot be fused: expected an array or a number")
        refuse_lazy(value, "reads")
        check_kind(value, "an array that the function reads")
        array = self._assemble(value) if isinstance(value, (list, tuple)) else np.asarray(value)
        if isinstance(array, ir.Node):
            return array
        array = np.array(array, native(array.dtype), order="C", copy=True)
        words = array.reshape(-1).view(np.uint8).reshape(array.size, array.itemsize)
        if array.size and (array.size == 1 or (words == 0).all()):
            constant = self.builder.constant(array.reshape(-1)[0], array.dtype)
            return self.builder.broadcast(constant, array.shape)
        same = (
            i
            for i, known in enumerate(self.captured)
            if known.dtype == array.dtype and known.shape == array.shape and known.tobytes() == array.tobytes()
        )
        index = next(same, len(self.captured))
        if index == len(self.captured):
            self.captured.append(array)
        return self.builder.input(self._arrays + index, array.shape, array.dtype)

    def _assemble(self, value: Sequence[Any]) -> Any:
        """Return the array that a (nested) list stands for; one with traced items becomes a stack."""
        from .joins import stack
        from .proxy import Traced, contains_traced

        if not contains_traced(value):
            return np.asarray(value)
        items = [self._assemble(item) if isinstance(item, (list, tuple)) else item for item in value]
        items = [self.wrap(item) if isinstance(item, ir.Node) else item for item in items]
        first = next(item for item in items if isinstance(item, Traced))
        return self.node(stack([first._tracer.wrap(self.node(item)) for item in items]))

    # ---- operations

    def apply(self, name: str, *values: Any) -> ir.Node:
        """Return the map of operation `name`, with its operands cast to the loop that NumPy would choose."""
        values = tuple(map(self.lifted, values))
        kinds = [self.kind(value) for value in values]
        if name in COMPARISONS:
            folded = self._compare_with_weak_int(name, values, kinds)
            if folded is not None:
                return folded
        try:
            loop, out = ops.OPS[name].resolve(kinds)
        except TypeError as error:
            listed = ", ".join(getattr(kind, "__name__", str(kind)) for kind in kinds)
            raise fusion_error(f"{name} of {listed}: {error}") from None
        return self.map(name, tuple(self.cast(v, dtype) for v, dtype in zip(values, loop, strict=True)), out)

    def map(self, op: Any, args: tuple[ir.Node, ...], dtype: DType) -> ir.Node:
        """Return a map, after a check that the shapes broadcast."""
        self.broadcast_shapes(*(arg.shape for arg in args))
        return self.builder.map(op, args, dtype)

    def broadcast_shapes(self, *shapes: ir.Shape) -> ir.Shape:
        """Return the common shape, or raise NumPy's ValueError with the user's line."""
        try:
            return np.broadcast_shapes(*shapes)
        except ValueError:
            listed = " ".join(str(shape) for shape in shapes)
            message = f"operands could not be broadcast together with shapes {listed}"
            raise ValueError(f"{message}\n  at {user_line()}") from None

    def _compare_with_weak_int(self, name: str, values: tuple[Any, ...], kinds: list[Kind]) -> ir.Node | None:
        """Compare an integer array with a Python integer that may not fit its dtype: no overflow, as in NumPy."""
        side = next((i for i in (0, 1) if kinds[i] is int), None)
        if side is None:
            return None
        other = kinds[1 - side]
        if isinstance(other, type) or other.kind not in "iu":
            return None
        weak = values[side]
        if weak_type(weak) is None:  # a run-time value: the loop that holds both
            return self.apply(name, *(self.node(value) for value in values))
        limits = np.iinfo(other)
        if limits.min <= weak <= limits.max:
            return None
        inside = 0 if weak > 0 else 2  # any value stands for all of the array: it lies on one side of the integer
        answer = COMPARISONS[name](inside, 1) if side == 1 else COMPARISONS[name](1, inside)
        return self.builder.broadcast(self.literal(answer, BOOL), self.node(values[1 - side]).shape)

    def derive(self, function: Callable[..., Any], *values: Any) -> Traced:
        """Return the weak scalar that Python computes from weak scalars at each call.

        The types are found by trying the operation on ones.
        """
        try:
            kind = weak_type(function(*(self.kind(value)(1) for value in values)))  # type: ignore[operator]
        except TypeError as error:
            raise fusion_error(str(error)) from None
        assert kind is not None, function
        sources = tuple(v if weak_type(v) is not None else ir_scalar(v._node) for v in values)
        index = self._scalars + len(self.derived)
        self.derived.append((function, sources, kind, user_line()))
        return self.wrap(self.builder.scalar(index, WEAK_DTYPES[kind]), weak=kind)

    def lifted(self, value: Any) -> Any:
        """Return a number that follows from shapes as a run-time scalar, other values as they are."""
        return self.size(value, value.origin) if isinstance(value, (Size, Ratio)) else value

    def size(self, number: Any, *origin: Any) -> Traced:
        """Return a number that follows from shapes as a run-time scalar, so that kernels do not depend on sizes.

        Numbers of one `origin` are one scalar. Others are not even where they are equal, since another size may part
        them.
        """
        kind = float if isinstance(number, float) else int
        key = (*origin, repr(number))
        known = self._sizes.get(key)
        if known is None:
            index = self._scalars + len(self.derived)
            self.derived.append((kind, (kind(number),), kind, user_line()))
            known = self._sizes[key] = self.wrap(self.builder.scalar(index, WEAK_DTYPES[kind]), weak=kind)
        return known

    def known_values(self, node: ir.Node) -> Any:
        """Return the values of a constant or captured array (also behind casts and reshapes), else None."""
        while (isinstance(node, ir.View) and node.kind == "reshape") or (
            isinstance(node, ir.Map) and node.op == "cast"
        ):
            node = ir.children(node)[0]
        if isinstance(node, ir.Constant):
            return np.asarray(node.value)
        if isinstance(node, ir.Input) and node.index >= self._arrays:
            return self.captured[node.index - self._arrays]
        return None

    def check_exponent(self, power: ir.Node) -> None:
        """Refuse integers to negative integer powers, as NumPy, where the exponent is known now or at the call."""
        if not isinstance(power, ir.Map) or power.dtype.kind != "i" or not power.size:
            return
        exponent = power.args[1]
        values = self.known_values(exponent)
        if values is not None and (values < 0).any():
            raise negative_power(values.min(), user_line())
        if isinstance(exponent, ir.Map) and isinstance(exponent.args[0], ir.Scalar):
            self.exponents.append((exponent.args[0].index, user_line()))

    # ---- nodes into values

    def wrap(self, node: ir.Node, *, weak: Weak | None = None, owner: str = "") -> Traced:
        """Return the proxy of a node. Zero-dimensional results are NumPy scalars, which cannot change."""
        from .proxy import Traced

        return Traced(self, node, weak=weak, owner=owner or ("local" if node.shape else "scalar"))


def negative_power(exponent: Any, where: str) -> ValueError:
    """Return NumPy's error for an integer to a negative integer power."""
    return ValueError(
        f"Integers to negative integer powers are not allowed. The exponent is {exponent}; make one of the two a "
        f"float, for example with .astype(np.float64)\n  at {where}"
    )


class Source(int):
    """The number of a scalar among those of a call, to tell it from a literal."""


def ir_scalar(node: ir.Node) -> Source:
    """Return the number of a weak scalar's node."""
    assert isinstance(node, ir.Scalar)
    return Source(node.index)
