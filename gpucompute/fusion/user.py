"""Users' own scalar functions and reductions: `vectorize` and `reduction`.

Both work on arrays by themselves, and inside `fuse` as part of its kernels.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import DTypeError, FusionError, OptionError
from . import ir, tree
from .elementwise import static, store, tracer_of
from .location import fusion_error
from .proxy import Traced, find_tracer
from .reductions import Reduction
from .scalar_source import compiled, rewritten
from .tracer import WEAK_DTYPES, DType, Kind, Tracer, array_like, native

F32 = np.dtype(np.float32)
HALF = np.dtype(np.float16)


def _checked(function: Any, what: str) -> Callable[..., Any]:
    """Return a Python function, undecorated if numba has decorated it; raise for what cannot be compiled."""
    function = getattr(function, "py_func", function)
    if not inspect.isfunction(function):
        raise OptionError(
            f"{what} is {function!r}; expected a Python function of numbers, written with def or lambda (a builtin, a "
            "class or a partial is wrapped in one: lambda x: function(x))"
        )
    return function


def _specialise(function: Callable[..., Any], in_types: tuple[Any, ...], name: str) -> Any:
    """Return numba's type of what `function` returns for arguments of `in_types`."""
    from numba.core.errors import NumbaError

    dispatcher = compiled(function)
    try:
        dispatcher.compile(in_types)
    except NumbaError as error:
        text = next((line for line in str(error).splitlines() if line.strip() and "pipeline" not in line), "")
        code = function.__code__
        raise fusion_error(
            f"{name}({', '.join(map(str, in_types))}) cannot be compiled: {text.strip()} (the function is at "
            f"{code.co_filename}:{code.co_firstlineno}). It may use scalars, branches, loops, tuples, math and "
            "NumPy's scalar functions"
        ) from error
    return dispatcher.overloads[in_types].signature.return_type


def _dtype_of(kind: Any, name: str) -> DType:
    """Return the dtype of a scalar type of numba."""
    from numba import types
    from numba.np.numpy_support import as_dtype

    kind = types.unliteral(kind)
    if isinstance(kind, types.Boolean):
        return np.dtype(np.bool)
    if isinstance(kind, (types.Integer, types.Float)):
        return native(as_dtype(kind))
    raise fusion_error(f"{name} returns {kind}; expected one number (bool, integer or float) in every branch")


def _numba_type(dtype: DType) -> Any:
    from numba.np.numpy_support import from_dtype

    return from_dtype(dtype)


def _strong(kinds: list[Kind]) -> list[DType]:
    """Return the dtypes that a scalar function is compiled for; half floats are computed in float32.

    Python numbers are float64 and int64 there, but for a float among narrower floats, which takes their dtype.
    """
    floats = [kind for kind in kinds if isinstance(kind, np.dtype) and kind.kind == "f"]
    widest = max(floats, key=lambda dtype: dtype.itemsize, default=WEAK_DTYPES[float])
    found = [kind if isinstance(kind, np.dtype) else widest if kind is float else WEAK_DTYPES[kind] for kind in kinds]
    return [F32 if dtype == HALF else dtype for dtype in found]


class Vectorized:
    """A scalar function that works on arrays. Made by `vectorize`."""

    def __init__(self, function: Callable[..., Any]) -> None:
        function = _checked(function, "the function given to vectorize")
        functools.update_wrapper(self, function)
        self.__name__: str = function.__name__
        self._scalar_function = function
        self._copy: Any = None
        self._known: dict[tuple[DType, ...], ir.UserFunction] = {}
        self._fused: Any = None
        self._signature = inspect.signature(function)
        parameters = self._signature.parameters.values()
        if any(p.kind not in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters):
            raise FusionError(f"{self.__name__} has *args or keyword-only parameters; expected plain positional ones")

    def __call__(self, *args: Any, out: Any = None, **kwargs: Any) -> Any:
        if kwargs or len(args) != len(self._signature.parameters):
            args = self._bound(args, kwargs)
        tracer = find_tracer((args, out))
        if tracer is not None:
            return store(tracer, self._apply(tracer, args), out)
        if self._fused is None:
            from .run import fuse

            self._fused = fuse(self.__call__)
        return self._fused(*map(array_like, args), out=out)

    def _bound(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """Return the values of all parameters, in their order; those not given are their defaults."""
        try:
            bound = self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.__name__}{self._signature}: {error}") from None
        bound.apply_defaults()
        return bound.args

    def _apply(self, tracer: Tracer, args: tuple[Any, ...]) -> ir.Node:
        dtypes = _strong([tracer.kind(value) for value in args])
        op = self.specialise(tuple(dtypes))
        return tracer.map(op, tuple(tracer.cast(v, dt) for v, dt in zip(args, dtypes, strict=True)), op.out_dtype)

    def specialise(self, dtypes: tuple[DType, ...]) -> ir.UserFunction:
        """Return the function for arguments of `dtypes`, with the dtype of its result."""
        found = self._known.get(dtypes)
        if found is None:
            self._copy = self._copy or rewritten(self._scalar_function)
            kind = _specialise(self._copy, tuple(map(_numba_type, dtypes)), self.__name__)
            found = _part(self._copy, dtypes, _dtype_of(kind, self.__name__))
            self._known[dtypes] = found
        return found

    def __repr__(self) -> str:
        return f"<vectorized {self.__name__}>"

    def __reduce__(self) -> Any:
        from ..chunked.functions import reduced

        return reduced(Vectorized, self._scalar_function)

    def __dask_tokenize__(self) -> Any:
        from ..chunked.functions import token_of

        return "gpucompute.vectorize", token_of(self._scalar_function)


def _part(function: Callable[..., Any], in_dtypes: tuple[DType, ...], out_dtype: DType) -> ir.UserFunction:
    try:
        source = inspect.getsource(function)
    except (OSError, TypeError):
        source = f"{function.__name__}: its source is not known"
    return ir.UserFunction(function.__name__, function, source, in_dtypes, out_dtype)


def vectorize(function: Callable[..., Any]) -> Vectorized:
    """Make of a scalar Python function one of arrays, like a ufunc.

    The function may have branches, loops and local variables; numba compiles it for the dtypes it is called with.
    It works by itself and inside `fuse`, where it becomes part of the kernel.

    Parameters
    ----------
    function : callable
        Takes and returns Python numbers. ``math.exp``, ``np.sin`` and their like give the same bits as NumPy's
        functions inside `fuse`.

    Returns
    -------
    callable
        Takes arrays (or lists, or numbers) that broadcast against each other, by position or by name, and ``out=``;
        returns an array. What is not given is the parameter's default. The result's dtype follows
        numba's rules, not NumPy's: integers become int64, and a Python literal such as ``2.0`` is a float64, so
        ``2.0 * x`` of a float32 is a float64 (write ``np.float32(2) * x``). float16 is computed in float32.

    Raises
    ------
    OptionError
        `function` is not a Python function.
    FusionError
        On the first call with dtypes for which the function cannot be compiled.

    Examples
    --------
    >>> import numpy as np
    >>> import gpucompute as gp
    >>> @gp.vectorize
    ... def collatz(n):
    ...     steps = 0
    ...     while n > 1:
    ...         n = n // 2 if n % 2 == 0 else 3 * n + 1
    ...         steps += 1
    ...     return steps
    >>> collatz(np.array([1, 7, 27]))
    array([  0,  16, 111])
    """
    return Vectorized(function)


class UserDefinedReduction:
    """A reduction with its own state. Made by `reduction`."""

    def __init__(
        self, map: Any, combine: Any, identity: Any, finalize: Any = None, dtype: Any = None, name: str = ""
    ) -> None:
        self._functions = (
            _checked(map, "map of a reduction"),
            _checked(combine, "combine of a reduction"),
            None if finalize is None else _checked(finalize, "finalize= of a reduction"),
        )
        self._parts: Any = None
        self._identity = identity if isinstance(identity, tuple) else (identity,)
        self._single = not isinstance(identity, tuple)
        if not self._single and len(self._identity) < 2:
            raise FusionError(
                "a state of one value is that value, not a tuple of one: write identity as 0.0, not (0.0,)"
            )
        self._dtype = None if dtype is None else np.dtype(dtype)
        self._known: dict[DType, ir.UserReduction] = {}
        self._fused: Any = None
        named = getattr(map, "__name__", "<lambda>")
        self.__name__ = name or ("reduction" if named == "<lambda>" else named)

    def __call__(self, x: Any, axis: Any = None, keepdims: bool = False) -> Any:
        if find_tracer((x,)) is not None:
            return self._apply(x, axis, keepdims)
        if self._fused is None:
            from .run import fuse

            self._fused = fuse(self._apply, static_argnames=("axis", "keepdims"))
        return self._fused(array_like(x), axis, keepdims)

    def _apply(self, x: Any, axis: Any, keepdims: Any) -> Traced:
        tracer = tracer_of(x)
        work = Reduction(tracer, x, axis, static(keepdims, "keepdims"))
        node = tracer.cast(work.node, F32) if work.node.dtype == HALF else work.node
        op = self.specialise(node.dtype)
        if work.count == 0:
            with np.errstate(all="ignore"):
                nothing = finish(op, op.identity)
            constant = tracer.builder.constant(nothing, op.out_dtype)
            return tracer.wrap(tracer.builder.broadcast(constant, work.result_shape))
        if not work.axes:  # each element alone: an axis of length 1 to reduce over
            node = tracer.builder.reshape(node, (*node.shape, 1))
        axes = work.axes or (len(node.shape) - 1,)
        result = tracer.builder.reduce(op, node, axes, op.out_dtype)
        return tracer.wrap(tracer.builder.reshape(result, work.result_shape))

    def specialise(self, dtype: DType) -> ir.UserReduction:
        """Return the parts compiled for elements of `dtype`.

        The dtypes of the state are the smallest that hold what `map` returns and what `combine` makes of two states.
        """
        found = self._known.get(dtype)
        if found is None:
            found = self._known[dtype] = self._specialise(dtype)
        return found

    def _specialise(self, dtype: DType) -> ir.UserReduction:
        if self._parts is None:
            self._parts = tuple(f and rewritten(f) for f in self._functions)
        map, combine, finalize = self._parts
        given = (_numba_type(dtype),)
        state = self._state(map, given, "map")
        if self._dtype is not None:
            state = (self._dtype,) * len(state)
        state = tuple(
            np.result_type(kind, value) if isinstance(value, (int, float)) else np.result_type(kind, np.asarray(value))
            for kind, value in zip(state, self._identity, strict=True)
        )
        for _ in range(3):  # widening ends: int64 or float64 at most
            pair = (self._type(state),) * 2
            combined = self._state(combine, pair, "combine")
            wider = tuple(np.promote_types(a, b) for a, b in zip(state, combined, strict=True))
            if wider == state or self._dtype is not None:
                break
            state = wider
        whole = np.dtype([(f"f{i}", kind) for i, kind in enumerate(state)]) if not self._single else state[0]
        last, out = None, state[0]
        if finalize is not None:
            kind = _specialise(finalize, (self._type(state),), "finalize")
            out = _dtype_of(kind, "finalize") if self._dtype is None else self._dtype
            last = _part(finalize, (whole,), out)
        elif not self._single:
            raise fusion_error("a state of several values needs finalize=, which makes one number of it")
        identity = tuple(kind.type(value) for kind, value in zip(state, self._identity, strict=True))
        if not all(kind.kind in "biuf" and kind.itemsize <= 8 for kind in state):
            raise DTypeError(f"the state of a reduction has dtypes {state}; expected bool, integers and floats")
        return ir.UserReduction(
            self.__name__,
            _part(map, (dtype,), whole),
            _part(combine, (whole, whole), whole),
            last,
            identity,
            state,
            out,
        )

    def _type(self, state: tuple[DType, ...]) -> Any:
        from numba import types

        kinds = [_numba_type(dtype) for dtype in state]
        return kinds[0] if self._single else types.Tuple(kinds)

    def _state(self, function: Any, given: tuple[Any, ...], part: str) -> tuple[DType, ...]:
        """Return the dtypes of the state that `map` or `combine` returns."""
        from numba import types

        kind = _specialise(function, given, part)
        if not self._single and isinstance(kind, types.BaseTuple) and len(kind) == len(self._identity):
            return tuple(_dtype_of(item, part) for item in kind)
        if self._single and not isinstance(kind, types.BaseTuple):
            return (_dtype_of(kind, part),)
        raise fusion_error(
            f"{part} returns {kind}, but identity is {self._identity if not self._single else self._identity[0]!r}: "
            "map, combine and identity must give states of the same form"
        )

    def __repr__(self) -> str:
        return f"<reduction {self.__name__}>"

    def __reduce__(self) -> Any:
        from ..chunked.functions import reduced

        identity = self._identity[0] if self._single else self._identity
        return reduced(_reduction, self._functions, identity, self._dtype, self.__name__)

    def __dask_tokenize__(self) -> Any:
        from ..chunked.functions import token_of

        tokens = [f and token_of(f) for f in self._functions]
        return "gpucompute.reduction", tokens, self._identity, str(self._dtype)


def _reduction(functions: tuple[Any, Any, Any], identity: Any, dtype: Any, name: str) -> UserDefinedReduction:
    return UserDefinedReduction(*functions[:2], identity, functions[2], dtype, name)


def finish(op: ir.UserReduction, state: tuple[Any, ...]) -> Any:
    """Return the result that a state stands for."""
    if op.finalize is None:
        return state[0]
    return op.out_dtype.type(compiled(op.finalize.function)(state if len(state) > 1 else state[0]))


def reduce_elements(op: ir.UserReduction, values: np.ndarray[Any, Any]) -> Any:
    """Return the reduction of a row of elements, along the tree of all reductions."""
    single = len(op.state_dtypes) == 1

    def stated(value: Any) -> tuple[Any, ...]:
        items = (value,) if single else value
        return tuple(dtype.type(item) for dtype, item in zip(op.state_dtypes, items, strict=True))

    def combine(a: tuple[Any, ...], b: tuple[Any, ...]) -> tuple[Any, ...]:
        join = compiled(op.combine.function)
        return stated(join(a[0], b[0]) if single else join(a, b))

    element = compiled(op.map.function)
    return finish(op, tree.fold([stated(element(value)) for value in values], combine))


def reduction(
    map: Callable[..., Any],
    combine: Callable[..., Any],
    identity: Any,
    *,
    finalize: Callable[..., Any] | None = None,
    dtype: Any = None,
) -> UserDefinedReduction:
    """Make a reduction from scalar functions.

    Parameters
    ----------
    map : callable
        ``map(x)`` makes a state of an element: a number, or a tuple of numbers.
    combine : callable
        ``combine(a, b)`` joins two states. It must be associative up to rounding; the order is fixed by the number of
        elements alone (halving in tiles of 256, pairs of tiles, see ``fusion/tree.py``).
    identity : number or tuple
        The state of nothing: ``combine(identity, a)`` is ``a``.
    finalize : callable, optional
        ``finalize(state)`` makes the result; needed for states of several values.
    dtype : dtype, optional
        Of the state and the result; else what `map` and `combine` return, by numba's rules.

    Returns
    -------
    callable
        ``r(x, axis=None, keepdims=False)`` of an array (or a list, or a number), by itself or inside `fuse`.

    Raises
    ------
    OptionError
        One of them is not a Python function.
    FusionError
        The functions cannot be compiled or their states do not fit together.

    Examples
    --------
    >>> import numpy as np
    >>> import gpucompute as gp
    >>> root_mean_square = gp.reduction(
    ...     lambda x: (x * x, 1),
    ...     lambda a, b: (a[0] + b[0], a[1] + b[1]),
    ...     (0.0, 0),
    ...     finalize=lambda s: (s[0] / s[1]) ** 0.5,
    ... )
    >>> float(root_mean_square(np.array([3.0, 4.0, 5.0])))
    4.08248290463863
    """
    return UserDefinedReduction(map, combine, identity, finalize, dtype)
