"""One plain function per scalar operation: what `gpucompute.ops` names and generated kernels call.

This is the entry; the functions live in the modules beside it. They are undecorated, use nothing but arithmetic, comparisons, bit
operations, exact rounding and square roots, and give the same bits in plain Python (on NumPy scalars, under
``np.errstate(all="ignore")``) as compiled, on every machine, as long as nothing is contracted into fused
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
    return {
        name: value for module in MODULES for name, value in vars(module).items() if not name.startswith("_")
    }


def compile_namespace(decorator: Callable[[Callable[..., Any]], Any]) -> dict[str, Any]:
    """All functions by name, each rebuilt on one new set of globals and passed through `decorator`.

    Parameters
    ----------
    decorator
        For instance ``numba.njit(forceinline=True, error_model="numpy")``: the functions call each other by global
        name, so they must meet the decorated ones there.
    """
    new = namespace()
    for name, value in list(new.items()):
        if isinstance(value, types.FunctionType):
            rebuilt = types.FunctionType(value.__code__, new, name)
            new[name] = decorator(rebuilt)
    return new
