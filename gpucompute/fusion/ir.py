"""The intermediate representation: an array is a function from an index to a value.

A graph is made of a few kinds of frozen nodes. Each has a `shape` and a `dtype`. Nothing is stored until
a plan decides so: views change indices, maps change values, reductions are loops. Nodes are made through
`Builder`, which gives the same object for the same node, so equal subexpressions are computed once.

Conventions that `verify` checks:

* the arguments of a `Map` have dtypes equal to the operation's loop dtypes (casts are maps named ``cast``)
  and shapes that broadcast to the map's shape;
* a `Reduce` has the shape of its argument without the reduced axes; ``keepdims`` is a reshape after it;
* integer indexing, ``newaxis``, ``ravel`` and ``squeeze`` are slices and reshapes;
* every dtype is in native byte order; a float16 is stored as such and computed in float32, rounded after
  each operation.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import Any, Literal

import numpy as np

from ..errors import FusionError

Shape = tuple[int, ...]
ViewKind = Literal["transpose", "slice", "reshape", "broadcast"]

# name -> dtypes of the argument that it takes ("m2" is the sum of squared distances from the mean)
REDUCTIONS = {
    "sum": "iuf",
    "prod": "iuf",
    "min": "biuf",
    "max": "biuf",
    "argmin": "biuf",
    "argmax": "biuf",
    "any": "b",
    "all": "b",
    "m2": "iuf",
}


@dataclass(frozen=True, eq=False)
class Node:
    """What all nodes have: the shape and dtype of the array they stand for."""

    shape: Shape
    dtype: np.dtype[Any]

    @property
    def size(self) -> int:
        return prod(self.shape)


@dataclass(frozen=True, eq=False)
class Input(Node):
    """The array argument number `index` (captured arrays follow the arguments)."""

    index: int


@dataclass(frozen=True, eq=False)
class Scalar(Node):
    """The Python scalar argument number `index`, a run-time value.

    `dtype` is bool, int64 or float64 as the value comes; a ``cast`` gives it the dtype that NumPy's
    rules for weak scalars find, and `run` checks at each call that the value fits.
    """

    index: int


@dataclass(frozen=True, eq=False)
class Constant(Node):
    """One value known when the function was traced; shape ()."""

    value: Any  # a NumPy scalar of `dtype`


@dataclass(frozen=True, eq=False)
class Iota(Node):
    """The position along the one axis: shape (n,), int64."""


@dataclass(frozen=True, eq=False)
class Map(Node):
    """An elementwise operation: a name in `ops.OPS`, or a user's scalar function (`UserFunction`)."""

    op: Any
    args: tuple[Node, ...]


@dataclass(frozen=True, eq=False)
class View(Node):
    """The same values at other indices.

    ``transpose``: params = the permutation; ``slice``: params = (start, step) for each axis, the length is
    in `shape` and step may be negative; ``reshape``: params = (); ``broadcast``: params = ().
    """

    kind: ViewKind
    params: tuple[Any, ...]
    arg: Node


@dataclass(frozen=True, eq=False)
class Gather(Node):
    """``take(source, index, axis)``: shape source[:axis] + index.shape + source[axis+1:].

    Indices are int64; negative ones count from the end; those out of range raise. `where` tells the
    user's file and line for that error.
    """

    source: Node
    index: Node
    axis: int
    where: str


@dataclass(frozen=True, eq=False)
class Reduce(Node):
    """A reduction of `arg` over `axes` (sorted): a name in `REDUCTIONS` or a `UserReduction`.

    The elements come in C order of the reduced axes, along the tree of `kernels/cpu/reduce.py`.
    """

    op: Any
    arg: Node
    axes: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Concatenate(Node):
    """`parts` one after the other along `axis`; all have the node's dtype."""

    parts: tuple[Node, ...]
    axis: int


@dataclass(frozen=True, eq=False)
class Update(Node):
    """`base` with `value` written over the part that the slice `params` (as in a View) picks.

    `part` is the shape of that part; `value` broadcasts to it.
    """

    base: Node
    value: Node
    params: tuple[Any, ...]
    part: Shape


@dataclass(frozen=True)
class UserFunction:
    """A scalar Python function made by `vectorize`, with the dtypes of one specialisation."""

    name: str
    function: Any
    source: str
    in_dtypes: tuple[np.dtype[Any], ...]
    out_dtype: np.dtype[Any]


@dataclass(frozen=True)
class UserReduction:
    """The parts of a `gp.reduction`, with the dtypes of one specialisation.

    A state is a tuple of scalars of `state_dtypes`; `map(x)` makes one of an element, `combine(a, b)`
    joins two, `identity` is the state of nothing, `finalize(state)` gives the result.
    """

    name: str
    map: UserFunction
    combine: UserFunction
    finalize: UserFunction | None
    identity: tuple[Any, ...]
    state_dtypes: tuple[np.dtype[Any], ...]
    out_dtype: np.dtype[Any]


@dataclass
class Builder:
    """Makes nodes; the same node twice is one object."""

    _seen: dict[Any, Node] = field(default_factory=dict)

    def _intern(self, node: Node) -> Node:
        parts: list[Any] = [type(node).__name__]
        for name in node.__dataclass_fields__:
            parts.append(_key(getattr(node, name)))
        return self._seen.setdefault(tuple(parts), node)

    def input(self, index: int, shape: Shape, dtype: np.dtype[Any]) -> Node:
        return self._intern(Input(shape, dtype, index))

    def scalar(self, index: int, dtype: np.dtype[Any]) -> Node:
        return self._intern(Scalar((), dtype, index))

    def constant(self, value: Any, dtype: np.dtype[Any]) -> Node:
        return self._intern(Constant((), dtype, np.asarray(value).astype(dtype)[()]))

    def iota(self, length: int) -> Node:
        return self._intern(Iota((int(length),), np.dtype(np.int64)))

    def map(self, op: Any, args: tuple[Node, ...], dtype: np.dtype[Any]) -> Node:
        shape = np.broadcast_shapes(*(arg.shape for arg in args))
        return self._intern(Map(shape, dtype, op, args))

    def cast(self, arg: Node, dtype: np.dtype[Any]) -> Node:
        if arg.dtype == dtype and not isinstance(arg, Scalar):
            return arg
        return self.map("cast", (arg,), dtype)

    def transpose(self, arg: Node, axes: tuple[int, ...]) -> Node:
        if axes == tuple(range(len(axes))):
            return arg
        return self._intern(View(tuple(arg.shape[a] for a in axes), arg.dtype, "transpose", axes, arg))

    def slice(self, arg: Node, params: tuple[tuple[int, int], ...], shape: Shape) -> Node:
        if shape == arg.shape and all(p == (0, 1) for p in params):
            return arg
        return self._intern(View(shape, arg.dtype, "slice", params, arg))

    def reshape(self, arg: Node, shape: Shape) -> Node:
        shape = tuple(map(int, shape))
        if shape == arg.shape:
            return arg
        if isinstance(arg, View) and arg.kind == "reshape":
            return self.reshape(arg.arg, shape)
        return self._intern(View(shape, arg.dtype, "reshape", (), arg))

    def broadcast(self, arg: Node, shape: Shape) -> Node:
        shape = tuple(map(int, shape))
        if shape == arg.shape:
            return arg
        return self._intern(View(shape, arg.dtype, "broadcast", (), arg))

    def gather(self, source: Node, index: Node, axis: int, where: str) -> Node:
        shape = source.shape[:axis] + index.shape + source.shape[axis + 1 :]
        return self._intern(Gather(shape, source.dtype, source, index, axis, where))

    def reduce(self, op: Any, arg: Node, axes: tuple[int, ...], dtype: np.dtype[Any]) -> Node:
        shape = tuple(n for axis, n in enumerate(arg.shape) if axis not in axes)
        return self._intern(Reduce(shape, dtype, op, arg, axes))

    def concatenate(self, parts: tuple[Node, ...], axis: int) -> Node:
        first = parts[0]
        length = sum(part.shape[axis] for part in parts)
        shape = (*first.shape[:axis], length, *first.shape[axis + 1 :])
        return self._intern(Concatenate(shape, first.dtype, parts, axis))

    def update(self, base: Node, value: Node, params: tuple[tuple[int, int], ...], part: Shape) -> Node:
        return self._intern(Update(base.shape, base.dtype, base, value, params, part))


def _key(value: Any) -> Any:
    """Return what tells `value` from others: identity for nodes, bits for numbers (0.0 is not -0.0)."""
    if isinstance(value, Node):
        return id(value)
    if isinstance(value, tuple):
        return tuple(_key(item) for item in value)
    if isinstance(value, np.generic):
        return (value.dtype.str, value.tobytes())
    return value


def children(node: Node) -> tuple[Node, ...]:
    """Return the nodes that `node` reads."""
    match node:
        case Map():
            return node.args
        case View() | Reduce():
            return (node.arg,)
        case Gather():
            return (node.source, node.index)
        case Concatenate():
            return node.parts
        case Update():
            return (node.base, node.value)
    return ()


def postorder(roots: tuple[Node, ...]) -> list[Node]:
    """Return every node below `roots` once, arguments before those that read them."""
    order: list[Node] = []
    seen: set[int] = set()
    stack: list[tuple[Node, bool]] = [(root, False) for root in reversed(roots)]
    while stack:
        node, done = stack.pop()
        if done:
            order.append(node)
        elif id(node) not in seen:
            seen.add(id(node))
            stack.append((node, True))
            stack.extend((child, False) for child in reversed(children(node)) if id(child) not in seen)
    return order


def verify(roots: tuple[Node, ...]) -> None:
    """Raise `FusionError` where a graph breaks the conventions of this module (used by the tests)."""
    for node in postorder(roots):
        problem = _problem(node)
        if problem:
            raise FusionError(f"illegal {type(node).__name__} node of shape {node.shape}: {problem}")


def _problem(node: Node) -> str | None:
    if any(type(n) is not int for n in node.shape):
        return f"lengths are {[type(n).__name__ for n in node.shape]}, expected int"
    match node:
        case Constant() | Scalar() if node.shape:
            return "a scalar has shape ()"
        case Iota() if len(node.shape) != 1:
            return "an iota has one axis"
        case Map() if np.broadcast_shapes(*(a.shape for a in node.args)) != node.shape:
            return f"its arguments broadcast to another shape: {[a.shape for a in node.args]}"
        case View(kind="transpose") if tuple(node.arg.shape[a] for a in node.params) != node.shape:
            return f"axes {node.params} of {node.arg.shape}"
        case View(kind="slice"):
            for (start, step), length, n in zip(node.params, node.shape, node.arg.shape, strict=True):
                if length and not (0 <= start < n and 0 <= start + (length - 1) * step < n):
                    return f"slice start {start}, step {step}, length {length} of an axis of {n}"
        case View(kind="reshape") if node.size != node.arg.size:
            return f"reshape of {node.arg.shape}"
        case View(kind="broadcast") if np.broadcast_shapes(node.arg.shape, node.shape) != node.shape:
            return f"broadcast of {node.arg.shape}"
        case Gather() if node.index.dtype != np.int64:
            return f"indices are {node.index.dtype}, expected int64"
        case Reduce() if isinstance(node.op, str) and node.arg.dtype.kind not in REDUCTIONS[node.op]:
            return f"{node.op} of {node.arg.dtype}"
        case Concatenate() if any(part.dtype != node.dtype for part in node.parts):
            return f"parts of dtypes {[str(part.dtype) for part in node.parts]}"
        case Update() if node.value.dtype != node.dtype:
            return f"a value of dtype {node.value.dtype} written into {node.dtype}"
    return None
