"""One plain function per scalar operation: what `gpucompute.ops` names and generated kernels call.

This is the entry; the functions live in the modules beside it. They are undecorated, use nothing but arithmetic,
comparisons, bit operations, exact rounding and square roots, and give the same bits in plain Python (on NumPy scalars,
under ``np.errstate(all="ignore")``) as compiled, on every machine, as long as nothing is contracted into fused
multiply-adds. A float16 is a float32 already rounded: every operation on it is the float32 one, then `half_round`.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

from . import scalar_basic, scalar_erf, scalar_exp, scalar_f4, scalar_float, scalar_trig

MODULES = (scalar_basic, scalar_float, scalar_exp, scalar_trig, scalar_erf, scalar_f4)


def namespace() -> dict[str, Any]:
    """All functions and constants by name, plain."""
    return {name: value for module in MODULES for name, value in vars(module).items() if not name.startswith("_")}


def compile_namespace(
    decorator: Callable[[Callable[..., Any]], Any],
    small: Callable[[Callable[..., Any]], Any] | None = None,
) -> dict[str, Any]:
    """All functions by name, each rebuilt on one new set of globals and passed through a decorator.

    Parameters
    ----------
    decorator
        For instance ``numba.njit(forceinline=True, error_model="numpy")``: the functions call each other by global
        name, so they must meet the decorated ones there.
    small
        Decorator for functions of one expression that call no other, `decorator` by default. With
        ``numba.njit(inline="always", error_model="numpy")`` a kernel of four such calls compiles in 110 ms, not 255.
    """
    new = namespace()
    functions = {name: value for name, value in new.items() if isinstance(value, types.FunctionType)}
    for name, function in functions.items():
        code = function.__code__
        one_expression = code.co_nlocals == code.co_argcount and functions.keys().isdisjoint(code.co_names)
        rebuilt = types.FunctionType(code, new, name)
        new[name] = small(rebuilt) if small and one_expression else decorator(rebuilt)
    return new
