"""A fused multiply-add for compiled functions."""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import intrinsic


@intrinsic
def fma(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
    """``a * b + c`` of three float32 or three float64, rounded once.

    An instruction of most processors, also for vectors; where one lacks it, LLVM calls the C library's, which is slow
    and has the same bits. CUDA has it as ``__fmaf_rn`` and ``__fma_rn``.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fma(*args)

    return (a(a, a, a), generate) if a == b == c and a in (types.float32, types.float64) else None
