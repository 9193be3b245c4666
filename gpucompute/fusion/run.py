"""`fuse`: a function that runs as few kernels as its data needs.

A call looks up the program for the arguments' dtypes, shapes and strides; a new combination is traced, planned and,
if its source is new, compiled.
"""

from __future__ import annotations

import ctypes
import functools
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from ..errors import FusionError, OptionError, ShapeError
from . import ir
from .depth import deep
from .layout import Layout
from .plan import plan
from .program import Program
from .proxy import contains_traced
from .trace import Trace, trace

if TYPE_CHECKING:
    from ..chunked.explain import ChunkedExplanation
    from .explain import Explanation

PROGRAMS = 512  # programs kept for one function; the least recently used goes first
Precision = Literal["exact", "fast"]
# What describes arrays on a GPU for a key, by type: types that have been seen, and are quick to ask (CuPy's).
DEVICE_ARRAYS: dict[type, Callable[[Any], Any]] = {}


class Fused:
    """A function made by `fuse`. Call it as the function itself."""

    __name__: str

    def __init__(self, function: Callable[..., Any], precision: Precision, static: Collection[str]) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.precision = precision
        self.static = frozenset(static)
        self._programs: OrderedDict[Any, tuple[Trace, Program, Any]] = OrderedDict()
        self._lock = threading.RLock()

    def __call__(self, *args: Any, out: Any = None, **kwargs: Any) -> Any:
        arrays: list[np.ndarray[Any, Any]] = []
        scalars: list[Any] = []
        key = self._bind(args, kwargs, arrays, scalars)
        if key is None:
            return self._inline(args, out, kwargs)
        found = self._programs.get(key)
        if found is None:
            found = self._build(key, args, kwargs, arrays)
        traced, program, table = found
        if scalars:
            table = _scalar_table(traced.scalar_values(scalars))
        if traced.captured:
            arrays += traced.captured
        if out is not None:
            return self._into(out, traced, program, arrays, table)
        results = program.run(arrays, table, {})
        return traced.rebuild([r if r.shape or type(r) is not np.ndarray else r[()] for r in results])

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else functools.partial(self, instance)

    def __repr__(self) -> str:
        return f"<fused {getattr(self.function, '__qualname__', self.function)!s}, precision={self.precision!r}>"

    def __reduce__(self) -> Any:
        from ..chunked.functions import reduced

        return reduced(Fused, self.function, self.precision, self.static)

    def __dask_tokenize__(self) -> Any:
        from ..chunked.functions import token_of

        return "gpucompute.fuse", token_of(self.function), self.precision, sorted(self.static)

    def explain(self, *args: Any, **kwargs: Any) -> Explanation | ChunkedExplanation:
        """Return what a call with these arguments runs: stages, why, bytes, source; with Dask arrays their tasks too.

        Nothing is computed. Kernels that are new are compiled, as by a call.
        """
        from .explain import Explanation

        arrays: list[np.ndarray[Any, Any]] = []
        key = self._bind(args, kwargs, arrays, [])
        if key is None:
            if not contains_traced([*args, *kwargs.values()]):
                from ..chunked.explain import explain

                return explain(self, args, kwargs)
            raise FusionError(f"explain got an array that is being traced; call {self!r}.explain with real arrays")
        _, program, _ = self._programs.get(key) or self._build(key, args, kwargs, arrays)
        return Explanation.of(self.__name__, program)

    def _bind(self, args: Any, kwargs: Any, arrays: list[Any], scalars: list[Any]) -> Any:
        """Collect arrays and scalars in the order of the trace; return the key, None if something is traced."""
        key: list[Any] = []
        for value in args:
            part = _describe(value, arrays, scalars) if not self.static else None
            if part is None:
                return self._bind_slowly(args, kwargs, arrays, scalars)
            key.append(part)
        if kwargs:
            return self._bind_slowly(args, kwargs, arrays, scalars)
        return tuple(key)

    def _bind_slowly(self, args: Any, kwargs: Any, arrays: list[Any], scalars: list[Any]) -> Any:
        """`_bind` for all kinds of arguments: containers, static values, arrays of other libraries."""
        if contains_traced([*args, *kwargs.values()]):
            return None
        from .arguments import describe, is_chunked

        if is_chunked([*args, *kwargs.values()]):
            return None

        arrays.clear()
        scalars.clear()
        known = len(DEVICE_ARRAYS)
        key = describe(self.function, args, kwargs, self.static, arrays, scalars)
        if len(DEVICE_ARRAYS) > known:  # from the next call on, these arrays have another key
            arrays.clear()
            scalars.clear()
            return self._bind(args, kwargs, arrays, scalars)
        return key

    def _build(self, key: Any, args: Any, kwargs: Any, arrays: list[Any]) -> tuple[Trace, Program, Any]:
        """Return the trace, the program, and its table of scalars if the arguments have none (sizes, then)."""
        with self._lock:
            found = self._programs.get(key)
            if found is None:
                traced = trace(self.function, args, kwargs, self.static)
                table = _scalar_table(traced.scalar_values([])) if traced.derived and not traced.scalars else None
                found = self._programs[key] = traced, self._program(traced, arrays), table
                if len(self._programs) > PROGRAMS:
                    self._programs.popitem(last=False)
            return found

    def _program(self, traced: Trace, arrays: list[Any]) -> Any:
        with deep(len(ir.postorder(traced.outputs))):
            return self._made(traced, arrays)

    def _made(self, traced: Trace, arrays: list[Any]) -> Any:
        fast = self.precision == "fast"
        if any(type(array) is not np.ndarray for array in arrays):
            from .cuda.device import DeviceProgram

            return DeviceProgram(self.__name__, traced, arrays, fast)
        layouts = [Layout(0, a.shape, a.strides) for a in (*arrays, *traced.captured)]
        return Program(plan(traced.outputs, layouts, finish=True), fast)

    def _inline(self, args: Any, out: Any, kwargs: Any) -> Any:
        if not contains_traced([*args, *kwargs.values()]):
            from ..chunked.call import call

            return call(self, args, kwargs, out)
        if out is not None:
            raise FusionError(f"{self!r} was called with out= inside a fused function; use its result instead")
        return self.function(*args, **kwargs)

    def _into(self, out: Any, traced: Trace, program: Any, arrays: list[Any], table: Any) -> Any:
        """Run with results in the arrays `out`: in place where memory allows, else copied."""
        if not isinstance(program, Program):
            return program.into(out, traced, arrays, table)
        targets = list(out) if isinstance(out, (tuple, list)) else [out]
        if len(targets) != len(program.results):
            count = len(program.results)
            raise ShapeError(f"out has {len(targets)} arrays, but {self!r} returns {count}; give one for each")
        direct: dict[int, Any] = {}
        for target, (index, shape) in zip(targets, program.results, strict=True):
            dtype = program.made[index].dtype
            if not isinstance(target, np.ndarray) or target.shape != shape or target.dtype != dtype:
                got = f"{getattr(target, 'dtype', type(target).__name__)} {getattr(target, 'shape', '')}"
                raise ShapeError(f"out is {got}; expected a writable numpy.ndarray of {dtype} {shape}")
            apart = not any(np.may_share_memory(target, array) for array in arrays)
            if apart and target.flags.carray and target.dtype.isnative and index not in direct:
                direct[index] = target.reshape(program.made[index].layout.shape)
        results = program.run(arrays, table, direct)
        for target, result in zip(targets, results, strict=True):
            if not np.may_share_memory(target, result):
                np.copyto(target, result)
        return traced.rebuild(targets)


def _describe(value: Any, arrays: list[Any], scalars: list[Any]) -> Any:
    """Return the part of a key for the usual kinds of arguments, None for others."""
    kind = type(value)
    if kind is np.ndarray:
        flags = value.flags
        if flags.aligned and value.dtype.isnative:
            arrays.append(value)
            return value.dtype, value.shape, value.strides
    elif kind is float or kind is int or kind is bool:
        scalars.append(value)
        return kind
    elif kind in DEVICE_ARRAYS:
        arrays.append(value)
        return DEVICE_ARRAYS[kind](value)
    return None


def _scalar_table(values: list[Any]) -> Any:
    table = (ctypes.c_int64 * len(values))()
    for index, value in enumerate(values):
        if isinstance(value, float):
            ctypes.c_double.from_buffer(table, index * 8).value = value
        else:
            table[index] = value
    return table


@overload
def fuse(function: Callable[..., Any], *, precision: Precision = ..., static_argnames: Any = ...) -> Fused: ...
@overload
def fuse(*, precision: Precision = ..., static_argnames: Any = ...) -> Callable[[Callable[..., Any]], Fused]: ...
def fuse(
    function: Callable[..., Any] | None = None,
    *,
    precision: Precision = "exact",
    static_argnames: str | Collection[str] = (),
) -> Any:
    """Make of a NumPy-style function one that runs as few kernels as its data needs.

    The function is called once for each combination of shapes and dtypes with stand-ins for its arrays; what it does
    with them becomes loops that read each input and write each result once. It must be pure.

    What it reads besides its arguments is taken as it was at that call, and stays so for all later calls with arrays of
    these shapes and dtypes: arrays and numbers of an enclosing function or of the module, files, and random numbers
    (``np.random`` in the body gives the same ones each time). Pass as an argument what may change.

    Parameters
    ----------
    function : callable
        Takes arrays and Python or NumPy scalars, returns an array, or a tuple, list or dict of arrays.
    precision : {"exact", "fast"}
        "exact" gives the same bits on every machine and for any number of threads. "fast" lets the compiler contract
        multiplications with additions and divide by multiplying with reciprocals.
    static_argnames : str or collection of str
        Parameters whose values the function needs while it runs (an axis, a flag). Strings, None, slices and dtypes
        are static anyway; each new value is traced anew.

    Returns
    -------
    Fused
        Called as `function`, and with ``out=`` (an array, or a tuple of one for each result). Results are C-ordered.

    Raises
    ------
    FusionError
        At the first call, if the function does something that cannot become part of a kernel; the message names
        the line.

    Notes
    -----
    Shapes and dtypes of results are NumPy's (NEP 50). NumPy's warnings (overflow, division by zero) are not given.

    Examples
    --------
    >>> import numpy as np
    >>> @fuse
    ... def standardise(x):
    ...     return (x - x.mean()) / x.std()
    >>> standardise(np.array([1.0, 2.0, 3.0, 4.0]))
    array([-1.34164079, -0.4472136 ,  0.4472136 ,  1.34164079])
    """
    if precision not in ("exact", "fast"):
        raise OptionError(f"precision={precision!r}: expected 'exact' or 'fast'")
    static = {static_argnames} if isinstance(static_argnames, str) else set(static_argnames)
    if function is None:
        return lambda f: Fused(f, precision, static)
    if not callable(function):
        raise OptionError(f"fuse got {type(function).__name__}; expected a function of arrays")
    return Fused(function, precision, static)
