"""Lets the loops of a compiled function use vectors of 512 bits."""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import intrinsic


@intrinsic
def wide_loops(typing_context: Any) -> Any:
    """Call it in the function whose loops are meant: what it calls is made into vectors before it is inlined.

    LLVM tunes for processors that slow down with 512 bits and stops at 256. A sum of the squares of bytes takes 0.6 of
    the time with 512, distances of k-means 0.8.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        # llvmlite knows enumerated attributes only, and writes down what the set holds.
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return types.void(), generate
