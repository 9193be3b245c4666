"""The stand-in for an array while a function is traced.

A `Traced` is a handle: in-place operations change what it holds, so every name for it sees the change, as with
an ndarray. A view of a local array remembers its base and how it was taken; it is read through its base, and
writing to it writes to the base.
"""

from __future__ import annotations

import difflib
import inspect
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Any, TypeVar

import numpy as np

from ..errors import GpucomputeError
from . import ir
from .location import fusion_error, user_line
from .sizes import sized
from .tracer import DType, Tracer, Weak, weak_type

Handler = TypeVar("Handler", bound=Callable[..., Any])

MAX_DIMS = 32  # of the array iterators that plans are made with
UNROLL_LIMIT = 64  # iterating over an array puts each row into the graph

# NumPy function -> what it does with proxies; filled by the modules that define the handlers
HANDLERS: dict[Any, Callable[..., Any]] = {}


def implements(*functions: Any) -> Callable[[Handler], Handler]:
    """Register the decorated function as the meaning of NumPy's `functions` inside fuse."""

    def register(handler: Handler) -> Handler:
        HANDLERS.update(dict.fromkeys(functions, handler))
        return handler

    return register


def call_handler(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return what NumPy's `function` means inside fuse; arguments that do not fit it raise an error of our words."""
    handler = HANDLERS[function]
    try:
        return handler(*args, **kwargs)
    except TypeError as error:
        if isinstance(error, GpucomputeError):
            raise
        name = function.__name__
        for known, between in ((function, ""), (handler, "with these arguments cannot be fused: ")):
            try:
                signature = inspect.signature(known)
            except ValueError:  # of some functions written in C it is not known
                continue
            try:
                signature.bind(*args, **kwargs)
            except TypeError as why:
                expected = f"{name}({', '.join(signature.parameters)})"
                raise fusion_error(f"{name}() {between}{why}; expected {expected}") from None
        raise


@dataclass(frozen=True)
class Step:
    """How a view is taken from its parent's node, and how the parent changes when the view is written.

    `put` is None where NumPy may give either a view or a copy, depending on the memory's layout.
    """

    get: Callable[[ir.Node], ir.Node]
    put: Callable[[ir.Node, ir.Node], ir.Node] | None
    name: str


def contains_traced(value: Any) -> bool:
    """Tell whether `value`, or an item of the containers it is made of, is a proxy."""
    return find_tracer(value) is not None


def find_tracer(value: Any) -> Tracer | None:
    """Return the trace that a proxy somewhere in `value` belongs to."""
    if isinstance(value, Traced):
        return value._tracer
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        return None
    return next((tracer for tracer in map(find_tracer, value) if tracer is not None), None)


class Traced:
    """An array inside a function that `fuse` traces: shape and dtype are known, values are not."""

    __slots__ = ("_owner", "_parent", "_seen", "_step", "_tracer", "_value", "_version", "_weak")
    __array_priority__ = 1000.0
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, tracer: Tracer, node: ir.Node, *, weak: Weak | None = None, owner: str = "local") -> None:
        if len(node.shape) > MAX_DIMS:
            raise fusion_error(
                f"an array of {len(node.shape)} dimensions cannot be fused: at most {MAX_DIMS} are; reshape it so that "
                "axes that are treated alike become one"
            )
        self._tracer = tracer
        self._value = node
        self._weak = weak
        self._owner = owner  # "argument": writing raises; "scalar": immutable, like NumPy's; "local"
        self._parent: Traced | None = None
        self._step: Step | None = None
        self._version = 0
        self._seen = 0

    # ---- the handle

    @property
    def _root(self) -> Traced:
        handle = self
        while handle._parent is not None:
            handle = handle._parent
        return handle

    @property
    def _is_scalar(self) -> bool:
        """Whether NumPy would have a scalar here, which cannot change."""
        return self._root._owner == "scalar"

    @property
    def _node(self) -> ir.Node:
        if self._parent is not None and self._step is not None:
            version = self._root._version
            if self._seen != version:
                if self._step.put is None:
                    raise fusion_error(
                        f"the result of {self._step.name} is read after its base was assigned to; whether the two "
                        f"share memory depends on NumPy's memory layout: take a .copy(), or call {self._step.name} "
                        "again after the assignment"
                    )
                self._value = self._step.get(self._parent._node)
                self._seen = version
        return self._value

    def _view(self, step: Step) -> Traced:
        """Return the view of this array that `step` takes."""
        node = step.get(self._node)
        if self._is_scalar:
            return self._tracer.wrap(node)
        view = Traced(self._tracer, node)
        view._parent, view._step, view._seen = self, step, self._root._version
        return view

    def _assign(self, value: ir.Node) -> None:
        """Replace all values; `value` has this array's shape and dtype."""
        if self._parent is None:
            if self._owner == "argument":
                raise fusion_error(
                    "an argument of a fused function cannot be assigned to: the kernel reads it, and the caller's "
                    "array would change. Work on a copy (x = x.copy()) or return a new array (np.where, x + 1)"
                )
            if self._owner == "scalar":
                raise fusion_error("a NumPy scalar cannot be assigned to: make an array, for example with np.full_like")
            self._value = value
            self._version += 1
            return
        assert self._step is not None
        if self._step.put is None:
            raise fusion_error(
                f"the result of {self._step.name} cannot be assigned to inside fuse: whether NumPy would write "
                "through to its base depends on the memory layout. Assign to the base, or take a .copy() first"
            )
        self._parent._assign(self._step.put(self._parent._node, value))

    # ---- what is known while tracing

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(sized(n, self._value, axis) for axis, n in enumerate(self._value.shape))

    @property
    def dtype(self) -> DType:
        return self._value.dtype

    @property
    def ndim(self) -> int:
        return len(self._value.shape)

    @property
    def size(self) -> int:
        return prod(self.shape)

    @property
    def itemsize(self) -> int:
        return self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        return self.size * self.itemsize

    @property
    def T(self) -> Traced:
        return HANDLERS[np.transpose](self)  # type: ignore[no-any-return]

    @property
    def mT(self) -> Traced:
        return HANDLERS[np.matrix_transpose](self)  # type: ignore[no-any-return]

    @property
    def real(self) -> Traced:
        return self

    @property
    def imag(self) -> Traced:
        return HANDLERS[np.zeros_like](self)  # type: ignore[no-any-return]

    @property
    def flat(self) -> Traced:
        raise fusion_error("x.flat cannot be fused; use x.ravel()")

    @property
    def device(self) -> str:
        return "cpu"

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError(f"len() of unsized object\n  at {user_line()}")
        return self.shape[0]

    def __iter__(self) -> Iterator[Traced]:
        if not self.shape:
            raise fusion_error("iteration over an array of shape ()")
        if self.shape[0] > UNROLL_LIMIT:
            raise fusion_error(
                f"a Python loop over {self.shape[0]} rows would put each of them into the kernel (at most "
                f"{UNROLL_LIMIT}); write the loop as array operations along axis 0"
            )
        return (self[i] for i in range(self.shape[0]))

    def __repr__(self) -> str:
        return f"<traced array of shape {self.shape}, {self.dtype}>"

    # ---- what is not known

    def _needs_value(self, what: str, instead: str) -> Any:
        raise fusion_error(
            f"{what} needs a value that is known only when the kernel runs (array of shape {self.shape}, "
            f"{self.dtype}); {instead}"
        )

    def __bool__(self) -> bool:
        return self._needs_value(  # type: ignore[no-any-return]
            "a branch (if, while, and, or, not, assert)",
            "use np.where(condition, a, b), &, | and ~, or name the argument in static_argnames if it is a setting",
        )

    def _python_number(self, *args: Any) -> Any:
        return self._needs_value(
            "a conversion to a Python number",
            "keep it as an array (np.sqrt instead of math.sqrt, x.astype instead of float(x)), name the argument in "
            "static_argnames if it is a setting, or do this step outside the fused function",
        )

    __int__ = __float__ = __complex__ = __index__ = _python_number
    __round__ = __trunc__ = __floor__ = __ceil__ = _python_number

    def __format__(self, spec: str) -> str:
        if not spec:
            return repr(self)
        return self._needs_value(  # type: ignore[no-any-return]
            f"formatting with {spec!r}", "return the array and format the number after the call"
        )

    def item(self, *args: Any) -> Any:
        return self._python_number()

    def tolist(self) -> Any:
        return self._python_number()

    def __contains__(self, value: Any) -> bool:
        return self._needs_value("the test `in`", "use (x == value).any()")  # type: ignore[no-any-return]

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return self._needs_value(
            "a conversion to a NumPy array (np.asarray, np.array, a function that is not NumPy's, or an assignment "
            "into a NumPy array made inside the function)",
            "use NumPy's functions on it directly (np.stack([a, b]) for np.array([a, b])), make arrays to write to "
            "with np.zeros_like(x) or np.zeros(shape, like=x), look up a table with gp.take(table, i) instead of "
            "table[i], or do this step outside the fused function",
        )

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        if not hasattr(np.ndarray, name):
            near = difflib.get_close_matches(name, dir(np.ndarray), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise AttributeError(
                f"inside fuse an array is a stand-in for NumPy's, which has no attribute {name!r}{hint}\n"
                f"  at {user_line()}"
            )
        raise fusion_error(f"the array's {name} cannot be fused; call it on the array outside the fused function")

    # ---- NumPy's protocols

    def __array_namespace__(self, *, api_version: str | None = None) -> Any:
        import gpucompute

        return gpucompute

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        from .elementwise import call_ufunc

        return call_ufunc(ufunc, method, inputs, kwargs)

    def __array_function__(self, func: Any, types: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not contains_traced((args, kwargs)):  # like=: an array that NumPy makes, for this function to write to
            return self._tracer.wrap(self._tracer.capture(func(*args, **kwargs)), owner="local")
        if func not in HANDLERS:
            raise fusion_error(
                f"{func.__module__}.{func.__name__} cannot be fused (it is not elementwise, a view, a gather or a "
                "reduction that gpucompute knows); call it outside the fused function, on arrays"
            )
        return call_handler(func, args, kwargs)

    # ---- indexing

    def __getitem__(self, key: Any) -> Any:
        from .indexing import getitem

        return getitem(self, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        from .indexing import setitem

        setitem(self, key, value)

    def __delitem__(self, key: Any) -> None:
        raise fusion_error("items of an array cannot be deleted")

    # ---- views and copies whose methods differ from NumPy's functions

    def astype(
        self, dtype: Any, order: str = "K", casting: str = "unsafe", subok: bool = True, copy: bool = True
    ) -> Traced:
        from .elementwise import astype

        return astype(self, dtype, casting=casting, copy=copy)

    def transpose(self, *axes: Any) -> Traced:
        if len(axes) == 1 and (axes[0] is None or isinstance(axes[0], (tuple, list))):
            return HANDLERS[np.transpose](self, axes[0])  # type: ignore[no-any-return]
        return HANDLERS[np.transpose](self, axes or None)  # type: ignore[no-any-return]

    def reshape(self, *shape: Any, order: str = "C", copy: bool | None = None) -> Traced:
        if len(shape) == 1:
            shape = shape[0]
        return HANDLERS[np.reshape](self, shape, order=order, copy=copy)  # type: ignore[no-any-return]

    def copy(self, order: str = "C") -> Traced:
        return self if self._is_scalar else HANDLERS[np.copy](self)

    def flatten(self, order: str = "C") -> Traced:
        return HANDLERS[np.copy](HANDLERS[np.ravel](self, order))  # type: ignore[no-any-return]

    def conjugate(self) -> Traced:
        return self.__array_ufunc__(np.conjugate, "__call__", self)  # type: ignore[no-any-return]

    conj = conjugate

    def to_device(self, device: Any, /, *, stream: Any = None) -> Traced:
        return self

    def fill(self, value: Any) -> None:
        self[...] = value

    def __copy__(self) -> Traced:
        return self.copy()

    def __deepcopy__(self, memo: Any) -> Traced:
        return self.copy()

    def __matmul__(self, other: Any) -> Any:
        raise fusion_error(
            "matrix products (@) are library calls that cannot be fused; call them outside the fused function, "
            "or write a small one as (a[..., :, None] * b[..., None, :, :]).sum(-2)"
        )

    __rmatmul__ = __imatmul__ = __matmul__

    def __divmod__(self, other: Any) -> tuple[Any, Any]:
        return self // other, self % other

    def __rdivmod__(self, other: Any) -> tuple[Any, Any]:
        return other // self, other % self


# ---- operators: Python's name, NumPy's ufunc

BINARY: dict[str, np.ufunc] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "truediv": np.divide,
    "floordiv": np.floor_divide,
    "mod": np.remainder,
    "pow": np.power,
    "lshift": np.left_shift,
    "rshift": np.right_shift,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
}
COMPARE: dict[str, np.ufunc] = {
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "eq": np.equal,
    "ne": np.not_equal,
}
UNARY: dict[str, np.ufunc] = {"neg": np.negative, "pos": np.positive, "invert": np.invert, "abs": np.absolute}


def _is_weak(value: Any) -> bool:
    return weak_type(value) is not None or getattr(value, "_weak", None) is not None


def _operator(ufunc: np.ufunc, python: Callable[..., Any], reflected: bool = False) -> Callable[..., Any]:
    def method(self: Traced, *others: Any) -> Any:
        values = (*others, self) if reflected else (self, *others)
        if all(map(_is_weak, values)):
            return self._tracer.derive(python, *values)
        squares_bools = ufunc is np.power and self.dtype.kind == "b" and not self._is_scalar
        if squares_bools and weak_type(values[1]) is int and values[1] == 2:
            return self.__array_ufunc__(np.square, "__call__", self)  # as ndarray's operator: an int8
        return self.__array_ufunc__(ufunc, "__call__", *values)

    return method


def _in_place(ufunc: np.ufunc, python: Callable[..., Any]) -> Callable[..., Any]:
    plain = _operator(ufunc, python)

    def method(self: Traced, other: Any) -> Any:
        if self._is_scalar:
            return plain(self, other)
        return self.__array_ufunc__(ufunc, "__call__", self, other, out=(self,))

    return method


def _method(function: Callable[..., Any]) -> Callable[..., Any]:
    def method(self: Traced, *args: Any, **kwargs: Any) -> Any:
        return call_handler(function, (self, *args), kwargs)

    method.__name__ = function.__name__
    return method


for _name, _ufunc in (BINARY | COMPARE).items():
    _python = getattr(operator, _name + "_" if _name in ("and", "or") else _name)
    setattr(Traced, f"__{_name}__", _operator(_ufunc, _python))
    if _name in BINARY:
        setattr(Traced, f"__r{_name}__", _operator(_ufunc, _python, reflected=True))
        setattr(Traced, f"__i{_name}__", _in_place(_ufunc, _python))
for _name, _ufunc in UNARY.items():
    setattr(Traced, f"__{_name}__", _operator(_ufunc, getattr(operator, _name)))

# methods with the arguments of the function of the same name
for _function in (
    np.sum,
    np.prod,
    np.mean,
    np.std,
    np.var,
    np.min,
    np.max,
    np.argmin,
    np.argmax,
    np.any,
    np.all,
    np.ptp,
    np.clip,
    np.round,
    np.take,
    np.squeeze,
    np.ravel,
    np.swapaxes,
    np.repeat,
    np.diagonal,
):
    _name = {"amin": "min", "amax": "max"}.get(_function.__name__, _function.__name__)
    setattr(Traced, _name, _method(_function))
