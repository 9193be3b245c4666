"""From the source of a kernel to PTX, by numba-cuda; no GPU and no toolkit are needed.

This is the only file of the CUDA path that knows numba. Exact kernels are compiled with ``-fma=0``: NVVM then writes
``mul.rn`` and ``add.rn``, which nothing after it may contract, and divisions and roots round correctly.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import re
import types as python_types
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import FusionError, MissingExtraError
from ...kernels import scalar
from ...kernels.cuda import exchange
from . import folds, intrinsics
from .halving import each
from .user_functions import Translator

if TYPE_CHECKING:
    from .folds import TileFold
    from .source import CudaKernel, SharedFunction

ENTRY = "gpucompute_kernel"
EXACT = {"fma": 0, "prec-div": 1, "prec-sqrt": 1, "ftz": 0}
_UNUSED = re.compile(r"^\.common \.global .*NumbaEnv.*\n", re.MULTILINE)  # what numba would report errors with
FAST = {"fma": 1, "prec-div": 0, "prec-sqrt": 0, "ftz": 1}


def compile_kernel(kernel: CudaKernel, fast: bool, arch: str) -> str:
    """Return the PTX of `kernel`, whose entry is called `ENTRY`, for an architecture such as ``sm_90``.

    Raises
    ------
    MissingExtraError
        numba-cuda is not installed.
    FusionError
        A user's function calls something that has other bits on a GPU.
    """
    try:
        from numba.cuda import types
        from numba.cuda.compiler import compile_cuda, kernel_fixup
        from numba.cuda.cudadrv import nvvm
    except ImportError as error:
        raise MissingExtraError("numba-cuda", "cuda13", "fuse on a GPU") from error
    capability = capability_of(arch)
    names = dict(_common(fast))
    for name, (factory, arguments) in kernel.arrays.items():
        names[name] = (each if factory == "each" else getattr(intrinsics, factory))(*arguments)
    with _without_a_device(capability), _uncollected():
        for name, fold in kernel.tiles.items():
            names.update(_fold_functions(name, fold, fast))
        for name, function in kernel.functions.items():
            names[name] = _shared_function(function, fast)
        for name, user in kernel.users.items():
            names[name] = _translator(fast).function(user.function)
        exec(compile(kernel.source, "<gpucompute kernel>", "exec"), names)
        for name in [name for name in names if name.startswith("element")]:
            names[name] = _decorate(names[name], fast)
        entry_function = names["kernel"]
        signature = (types.int64,) * entry_function.__code__.co_argcount
        options = {"opt": 3, **(FAST if fast else EXACT)}
        result = compile_cuda(entry_function, types.void, signature, fastmath=fast, nvvm_options=options, cc=capability)
        symbol = result.fndesc.llvm_func_name
        entry = result.library.get_function(symbol)
        kernel_fixup(entry, False)
        nvvm.set_launch_bounds(entry, kernel.block)  # or ptxas might give a thread more registers than there are
        modules = _with_exact_remainders(result.library.llvm_strs, options, capability)
    # Integers wrap here, while numba tells LLVM that they never overflow: it then took |INT64_MIN| for positive.
    modules = [_OVERFLOW.sub(" ", module) for module in modules]
    ptx = nvvm.compile_ir(modules, arch=f"compute_{capability[0]}{capability[1]}", **options).decode()
    ptx = _UNUSED.sub("", ptx.strip("\0 \n")).replace(symbol, ENTRY) + "\n"
    if not fast:
        _check_exact(ptx, kernel)
    return ptx


def capability_of(arch: str) -> tuple[int, int]:
    """Return the compute capability of an architecture.

    Examples
    --------
    >>> capability_of("sm_120")
    (12, 0)
    """
    digits = arch.removeprefix("sm_").rstrip("af")
    return int(digits[:-1]), int(digits[-1])


INEXACT = re.compile(r"\b(fma\.|(?:mul|add|sub)\.(?:ftz\.)?f(?:32|64)|mad\.(?:rn\.)?f|\w+\.approx|\w+\.full|\.ftz)")


def _check_exact(ptx: str, kernel: CudaKernel) -> None:
    """Refuse PTX with an instruction that has other bits on another machine, or that ptxas may contract."""
    found = INEXACT.search(ptx)
    if found:
        users = ", ".join(user.name for user in kernel.users.values()) or "no function of the user"
        raise FusionError(
            f"a kernel for precision='exact' contains {found[0]!r}, whose bits differ between machines; it calls "
            f"{users}. Write np.power(x, y) for x ** y of floats, and functions that gpucompute has (np.exp, gp.erf) "
            "for others; or take precision='fast'"
        )


_OVERFLOW = re.compile(r" nsw(?= )")
_REMAINDER = re.compile(r"frem (float|double) ([^,\n]+), ([^,\n]+)")


def _with_exact_remainders(modules: list[str], options: dict[str, Any], capability: tuple[int, int]) -> list[str]:
    """Return LLVM modules with calls of our fmod for ``frem``, of which NVVM makes x - trunc(x / y) * y.

    It is what numba takes for ``%`` and ``//`` of floats in users' functions.
    """
    kinds = sorted({kind for module in modules for kind, _, _ in _REMAINDER.findall(module)})
    if not kinds:
        return modules
    from numba.cuda import types
    from numba.cuda.compiler import compile_cuda

    changed = []
    for module in modules:
        text = _REMAINDER.sub(r"call \1 @gpucompute_fmod_\1(\1 \2, \1 \3)", module)
        for kind in kinds:
            if f"@gpucompute_fmod_{kind}(" in text:
                text += f"\ndeclare {kind} @gpucompute_fmod_{kind}({kind}, {kind})\n"
        changed.append(text)
    for kind in kinds:
        dispatcher = _common(False)["fmod_f4" if kind == "float" else "fmod_f8"]
        number = types.float32 if kind == "float" else types.float64
        found = compile_cuda(
            dispatcher.py_func, number, (number, number), nvvm_options=options, cc=capability, abi="c",
            abi_info={"abi_name": f"gpucompute_fmod_{kind}"},
        )  # fmt: skip
        changed += found.library.llvm_strs
    return changed


@contextlib.contextmanager
def _without_a_device(capability: tuple[int, int]) -> Iterator[None]:
    """Answer numba-cuda's question for the current device, which it asks when a kernel calls a function.

    The device decides nothing there but the capability. Holds numba's compiler lock, as the answer is the process's.
    """
    from numba.cuda import dispatcher
    from numba.cuda.core.compiler_lock import global_compiler_lock

    with global_compiler_lock:
        before = dispatcher.get_current_device
        dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=capability)
        try:
            yield
        finally:
            dispatcher.get_current_device = before


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Put off garbage collections: one of all objects takes 0.15 s with numba loaded, and came in most compiles."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _decorate(function: Callable[..., Any], fast: bool) -> Any:
    """Make of `function` one that kernels call. NVVM inlines it: where numba does, each call takes 6 ms, not 1."""
    from numba import cuda

    return cuda.jit(function, device=True, inline="never", forceinline=True, fastmath=fast)


@functools.cache
def _common(fast: bool) -> dict[str, Any]:
    """The names that every kernel can use."""
    from numba import cuda

    names: dict[str, Any] = scalar.compile_namespace(functools.partial(_decorate, fast=fast))
    names["np"] = numpy_of_kernels()  # for the functions of kernels/scalar*.py, whose globals these are
    names.update({name: getattr(np, name) for name in intrinsics.NAMES})
    names.update(bool_=np.bool_, inf=np.inf, nan=np.nan, cuda=cuda)
    names.update(intrinsics.namespace())
    for function in (exchange.checked, exchange.last_to_come):
        names[function.__name__] = _decorate(_with_globals(function, names), fast)
    return names


@functools.cache
def _translator(fast: bool) -> Translator:
    return Translator(_common(fast), functools.partial(_decorate, fast=fast))


@functools.cache
def numpy_of_kernels() -> python_types.ModuleType:
    """Return a stand-in for NumPy: its scalar types, and rounding functions as single instructions."""
    module = python_types.ModuleType("np")
    for name in (*intrinsics.NAMES, "bool_", "pi", "inf", "nan"):
        setattr(module, name, getattr(np, name))
    vars(module).update(intrinsics.rounding())
    return module


def _fold_functions(name: str, tile: TileFold, fast: bool) -> dict[str, Any]:
    """Return the functions of a fold under the names that a kernel uses."""
    found = _fold_parts(tile, fast)
    return {f"{name}_{part}": function for part, function in found.items()}


@functools.lru_cache(maxsize=256)
def _fold_parts(tile: TileFold, fast: bool) -> dict[str, Any]:
    decorate = functools.partial(_decorate, fast=fast)
    return folds.functions(
        tile, _translator(fast).function, {**_common(fast), **_exchange(tile.exchange, fast)}, decorate
    )


@functools.lru_cache(maxsize=256)
def _shared_function(function: SharedFunction, fast: bool) -> Any:
    scope = dict(_common(fast))
    for number, tile in enumerate(function.tiles):
        scope.update(_fold_functions(f"f{number}", tile, fast))
    exec(compile(function.source, "<gpucompute function>", "exec"), scope)
    return _decorate(scope["join_slots"], fast)


@functools.cache
def _exchange(kind: str, fast: bool) -> dict[str, Any]:
    """Return the functions of `kernels/cuda/exchange.py` for all types: ``exchange_float32`` and so on."""
    roles: dict[str, Callable[..., Any]] = {"exchange": exchange.exchange, "turned": exchange.turned}
    roles["from_first"] = exchange.from_first if kind == "shuffle" else exchange.from_first_of_warp
    names = {}
    for dtype in intrinsics.NAMES:
        moved = dtype if "float" in dtype else "int64" if dtype.endswith("64") else "int32"
        scope = {**_common(fast), "T": getattr(np, dtype), "MOVED": getattr(np, moved)}
        scope["room"] = intrinsics.shared_array(dtype, 32 * 33, f"turned_{dtype}")
        names.update({f"{role}_{dtype}": _decorate(_with_globals(f, scope), fast) for role, f in roles.items()})
    return names


def _with_globals(function: Callable[..., Any], scope: dict[str, Any]) -> Callable[..., Any]:
    assert isinstance(function, python_types.FunctionType)
    return python_types.FunctionType(function.__code__, scope, function.__name__)
