"""From the source of a generated kernel to machine code, by numba.

This is the only place of the CPU path that imports numba. It gives a kernel the names that its source uses: the
scalar functions, the folds of its reductions with their types, the user's functions, and casts from addresses to
pointers. Nothing in a kernel allocates or raises, so its object code needs nothing but itself and can be loaded by
a process that never imports numba (see `cache`).
"""

from __future__ import annotations

import contextlib
import functools
import math
import platform
import types as python_types
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..kernels import scalar
from ..kernels.cpu import fma, gather, mailbox, quotient, reduce, wide
from . import atomics, user_fold, vectors

if TYPE_CHECKING:
    from ..fusion.folds import Fold
    from ..fusion.ir import UserFunction

_NAMES = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64")
# Functions of one expression in kernels/cpu/reduce.py.
SMALL = {"add", "multiply", "larger", "smaller", "greater", "less", "fold_value", "m2_value", "arg_value"}
# What folds call, each after what it calls itself.
_HELPERS = (
    "better", "same", "halve", "square", "m2_means", "m2_squares", "m2_distances", "fold_tile",
    "fold_strided", "any_order_tile"
)  # fmt: skip
# Intrinsics that may become calls of a library.
_LIBRARY_CALLS = tuple(f"llvm.{name}" for name in ("mem", "pow", "powi", "exp", "log", "sin", "cos", "tan", "frem"))
# What precision="fast" allows. Reassociation would undo the sums of a large constant by which polynomials round.
FAST = {"contract", "arcp"}


class Unit(Protocol):
    """What is compiled at once: the source of a function ``kernel`` and the names that it uses.

    folds : folds by the prefix of their functions' names; users : users' functions by name; words : how many plain
    int64 arguments the function takes, 0 for the arguments of a stage's kernel; interleave : how many vectors a loop
    shall handle side by side on a processor with 512-bit vectors, 0 to leave it to LLVM.
    """

    @property
    def source(self) -> str: ...
    @property
    def folds(self) -> dict[str, Fold]: ...
    @property
    def users(self) -> dict[str, UserFunction]: ...
    @property
    def words(self) -> int: ...
    @property
    def interleave(self) -> int: ...


def compile_unit(kernel: Unit, fast: bool) -> tuple[str, bytes, Any]:
    """Compile for this processor; return the symbol, the object code and what keeps it loaded."""
    import numba
    from numba import types

    names = dict(_common(fast))
    for name, fold in kernel.folds.items():
        for part, function in _fold_functions(fold, fast).items():
            names[f"{name}_{part}"] = function
    for name, user in kernel.users.items():
        names[name] = _decorate_user(user.function, fast)
    exec(compile(kernel.source, "<gpucompute kernel>", "exec"), names)
    table, word = types.CPointer(types.int64), types.int64
    arguments = (word,) * kernel.words or (word, word, table, table, word, word, table)
    signature = types.void(*arguments)
    with _interleaved(kernel.interleave):
        compiled = numba.cfunc(signature, error_model="numpy", fastmath=FAST if fast else False)(names["kernel"])
    library = compiled._library
    return compiled.native_name, bytes(library._get_compiled_object()), compiled


@contextlib.contextmanager
def _interleaved(vectors: int) -> Iterator[None]:
    """Make LLVM's loop vectoriser handle so many vectors side by side while the body runs.

    Black-Scholes, 16384 elements on one thread, takes 4.5 ns an element with two and 5.2 with one, which LLVM
    prefers. The setting is the process's, so it holds only under numba's compiler lock.
    """
    import llvmlite.binding as llvm
    from numba.core.compiler_lock import global_compiler_lock

    if not vectors or not llvm.get_host_cpu_features().get("avx512f"):
        yield
        return
    with global_compiler_lock:
        llvm.set_option("gpucompute", f"-force-vector-interleave={vectors}")
        try:
            yield
        finally:
            llvm.set_option("gpucompute", "-force-vector-interleave=0")


def _wide_vectors() -> Any:
    """Return a compiled function that lets the kernel it is called in use vectors of 512 bits.

    Functions that kernels call have their loops made into vectors before: `kernels/cpu/wide.py` is for those.

    LLVM tunes for processors that slow down with them and stops at 256. With 512, Black-Scholes takes 5.2 instead of
    7.6 ns an element, exp of float64 0.7 of the time, a choice between bytes 0.6; nothing was found to lose.
    """
    from numba import types
    from numba.extending import intrinsic

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        # llvmlite knows enumerated attributes only, and writes down what the set holds. Not inlined, or the
        # caller's attributes would count.
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    @intrinsic
    def wide_vectors(typing_context: Any) -> Any:
        return types.void(), generate

    return wide_vectors


def _prefetch(write: bool) -> Any:
    """Return a compiled function that asks for the cache line at an address, which need not exist."""
    from llvmlite import ir
    from numba import types
    from numba.extending import intrinsic

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        line, flag = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [line, flag, flag, flag])
        function = builder.module.declare_intrinsic("llvm.prefetch", [line], kind)
        builder.call(function, [builder.inttoptr(args[0], line), flag(int(write)), flag(3), flag(1)])
        return context.get_dummy_value()

    @intrinsic
    def prefetch(typing_context: Any, address: Any) -> Any:
        return types.void(types.int64), generate

    return prefetch


def _has_fused_multiply_add() -> bool:
    """Whether this processor has the instruction; without it LLVM would call the C library's slow function."""
    import llvmlite.binding as llvm

    return bool(llvm.get_host_cpu_features().get("fma")) or platform.machine() in ("arm64", "aarch64")


def stands_alone(compiled: Any) -> bool:
    """Whether the code calls nothing outside, so that a process without numba can load it.

    What Python provides is called only to report errors, which kernels do not raise. A loop that writes zeros may
    have become a call of memset, and a user's function may call libm: such kernels are compiled in each process.
    """
    outside = [f.name for f in compiled._library._final_module.functions if f.is_declaration]
    return all(
        name.startswith(("Py", "numba_gil_")) or (name.startswith("llvm.") and not name.startswith(_LIBRARY_CALLS))
        for name in outside
    )


def may_raise(compiled: Any) -> bool:
    """Whether an exception can come out of the code: a user's function raises, asserts or looks something up."""
    return any(f.name == "numba_do_raise" for f in compiled._library._final_module.functions if f.is_declaration)


def _decorate_user(function: Callable[..., Any], fast: bool) -> Any:
    """Decorate a user's function: where it looks something up in an array, a wrong index raises."""
    return _decorate(function, fast, boundscheck=True)


def _decorate(function: Callable[..., Any], fast: bool, boundscheck: bool = False) -> Any:
    import numba

    # Inlined by force: LLVM vectorises no loop with a call in it, and its own limit stops at long polynomials.
    # The wrappers for callers in Python are never used; without them compiling takes a fifth less time.
    return numba.njit(
        forceinline=True, no_cpython_wrapper=True, no_cfunc_wrapper=True, error_model="numpy",
        fastmath=FAST if fast else False, boundscheck=boundscheck,
    )(function)  # fmt: skip


def _decorate_small(function: Callable[..., Any], fast: bool) -> Any:
    """Decorate a function of one expression: numba itself inlines it, which compiles in half the time."""
    import numba

    return numba.njit(inline="always", error_model="numpy", fastmath=FAST if fast else False)(function)


@functools.cache
def _common(fast: bool) -> dict[str, Any]:
    """The names that every kernel can use."""
    names: dict[str, Any] = scalar.compile_namespace(
        functools.partial(_decorate, fast=fast), functools.partial(_decorate_small, fast=fast)
    )
    names.update({name: getattr(np, name) for name in _NAMES})
    names.update({f"ptr_{name}": _pointer(name) for name in _NAMES})
    names.update(bool_=np.bool_, inf=math.inf, nan=math.nan)
    names.update(wide_vectors=_wide_vectors(), wide_loops=wide.wide_loops)
    names.update(prefetch=_prefetch(write=False), prefetch_write=_prefetch(write=True))
    names["fma"] = fma.fma
    names["checked"] = _decorate(gather.checked, fast)
    divide = quotient.divide_plainly if fast or not _has_fused_multiply_add() else quotient.divide_row
    names["divide_row"] = _rebuild(divide, {**vars(quotient), **names}, fast)
    names.update(call_tile=_caller(6), call_join=_caller(5), call_kernel=_caller(7), **atomics.functions())
    names["copy_words"] = _rebuild(reduce.copy_words, {"INT64": names["ptr_int64"], "range": range}, fast)
    for function in (mailbox.take_pieces, mailbox.lead, mailbox.serve):
        names[function.__name__] = _rebuild(function, {**vars(mailbox), **names}, fast)
    return names


@functools.cache
def _fold_functions(fold: Fold, fast: bool) -> dict[str, Any]:
    """The functions of a fold, compiled for its types."""
    common = _common(fast)
    if fold.user is not None:
        return _user_fold_functions(fold, fast)
    scope: dict[str, Any] = {
        "BUFFER": common[f"ptr_{fold.buffer_dtype.name}"],
        "ACC": common[f"ptr_{fold.acc_dtype.name}"],
        "STATE": common[f"ptr_{fold.state_dtype.name}"],
        "ACC_T": getattr(np, fold.acc_dtype.name),
        "STATE_T": getattr(np, fold.state_dtype.name),
        "INT64": common["ptr_int64"],
        "float64": np.float64,
        "wide_loops": common["wide_loops"],
        "min": min,
        "range": range,
        "max": max,
        "ROWS": reduce.ROWS,
        "SLOT": reduce.SLOT,
    }
    scope["combine"] = _rebuild(getattr(reduce, fold.combine), scope, fast)
    if fold.row is not None:
        kind = fold.buffer_dtype
        whole, part = (vectors.fold(fold.combine, kind, whole=whole) for whole in (True, False))
        scope.update(ITEM=kind.itemsize, whole_tile=whole, part_of_tile=part)
    precedes = {"larger": reduce.greater, "smaller": reduce.less}.get(fold.combine)
    if precedes is not None:
        scope["precedes"] = _rebuild(precedes, scope, fast)
    for name in _HELPERS:
        scope[name] = _rebuild(getattr(reduce, name), scope, fast)
    parts = {part: getattr(fold, part) for part in ("tile", "strided", "row", "join", "value")}
    return {part: _rebuild(getattr(reduce, name), scope, fast) for part, name in parts.items() if name}


def _user_fold_functions(fold: Fold, fast: bool) -> dict[str, Any]:
    op = fold.user
    assert op is not None
    used = {"map_": op.map, "combine": op.combine} | ({"finalize": op.finalize} if op.finalize is not None else {})
    scope = _common(fast) | {name: _decorate_user(user.function, fast) for name, user in used.items()}
    exec(compile(user_fold.source(op, fold.buffer_dtype), "<gpucompute reduction>", "exec"), scope)
    return {part: _decorate(scope[part], fast) for part in ("tile", "join", "value")}


def _rebuild(function: Callable[..., Any], scope: dict[str, Any], fast: bool) -> Any:
    """Return `function`, compiled, with `scope` for its globals."""
    assert isinstance(function, python_types.FunctionType)
    rebuilt = python_types.FunctionType(function.__code__, scope, function.__name__, function.__defaults__)
    small = function.__name__ in SMALL
    return _decorate_small(rebuilt, fast) if small else _decorate(rebuilt, fast)


def _caller(words: int) -> Any:
    """Return a compiled call of the function at an address with `words` int64 arguments."""
    from llvmlite import ir
    from numba import types
    from numba.extending import intrinsic

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = ir.IntType(64)
        pointer = ir.FunctionType(ir.VoidType(), [word] * words).as_pointer()
        builder.call(builder.inttoptr(args[0], pointer), args[1:])
        return context.get_dummy_value()

    signature = types.void(*[types.int64] * (words + 1))
    # An intrinsic has a fixed number of parameters, which numba reads from the function's text.
    names = ", ".join(f"word{i}" for i in range(words))
    scope: dict[str, Any] = {}
    exec(
        f"def call_address(typing_context, address, {names}):\n    return given\n",
        {"given": (signature, generate)},
        scope,
    )
    return intrinsic(scope["call_address"])


def _pointer(name: str) -> Any:
    """Return a compiled cast from an address to a pointer to `name`."""
    from numba import types
    from numba.extending import intrinsic

    pointer = types.CPointer(getattr(types, name))

    @intrinsic
    def as_pointer(typing_context: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.inttoptr(args[0], context.get_value_type(pointer))

        return pointer(types.int64), generate

    return as_pointer
