"""Folds of whole tiles as vector instructions, which LLVM does not find by itself in short loops over lanes."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

TILE = 256  # elements, as in `kernels/cpu/reduce.py`
LANES = 64  # of one vector of LLVM's, which it cuts into the processor's


@functools.cache
def fold(combine: str, dtype: np.dtype[Any], *, whole: bool) -> Any:
    """Return a compiled function of an address, and a count, that folds the elements of a tile there by halving.

    Element i takes in element i + 128, and so on, as in `kernels/cpu/reduce.py`. Elements that a tile lacks are put in
    as what changes nothing, bit for bit: -0 for a sum. A tile of 256 float32 takes 9 ns; with loops over lanes 25.

    Parameters
    ----------
    combine : "add", "multiply", "larger" or "smaller"
        The functions of `kernels/cpu/reduce.py`, here on vectors.
    dtype : numpy.dtype
        float32 or float64.
    whole : bool
        The tile has all of its elements; else the function has their number for its second argument.
    """
    from llvmlite import ir
    from numba import types
    from numba.extending import intrinsic

    element = types.float32 if dtype == np.float32 else types.float64
    join, neutral = _JOINS[combine]
    word, bit = ir.IntType(32), ir.IntType(1)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector, flags = (ir.VectorType(kind, LANES) for kind in (context.get_value_type(element), bit))
        start = builder.inttoptr(args[0], vector.as_pointer())
        name = f"llvm.masked.load.v{LANES}f{8 * dtype.itemsize}.p0"
        kind = ir.FunctionType(vector, [vector.as_pointer(), word, flags, vector])
        lacking = ir.Constant(vector, [neutral] * LANES)
        numbers = ir.VectorType(word, LANES)
        if not whole:
            load = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
            count = builder.insert_element(ir.Constant(numbers, ir.Undefined), builder.trunc(args[1], word), word(0))
            counts = builder.shuffle_vector(count, count, ir.Constant(numbers, [0] * LANES))
        parts = []
        for place in range(TILE // LANES):
            here = builder.gep(start, [word(place)])
            if whole:
                part = builder.load(here)
                part.align = dtype.itemsize
            else:
                places = ir.Constant(numbers, list(range(place * LANES, (place + 1) * LANES)))
                there = builder.icmp_signed("<", places, counts)
                part = builder.call(load, [here, word(dtype.itemsize), there, lacking])
            parts.append(part)
        unordered = [builder.fcmp_unordered("uno", a, b) for a, b in zip(parts[::2], parts[1::2], strict=True)]
        while len(parts) > 1:
            half = len(parts) // 2
            parts = [join(builder, a, b) for a, b in zip(parts[:half], parts[half:], strict=True)]
        (found,) = parts
        width = LANES
        while width > 1:
            width //= 2
            low, high = (
                builder.shuffle_vector(found, found, ir.Constant(ir.VectorType(word, width), list(lanes)))
                for lanes in (range(width), range(width, 2 * width))
            )
            found = join(builder, low, high)
        value = builder.extract_element(found, word(0))
        if combine not in ("larger", "smaller"):
            return value
        # A NaN wins. Looked for apart, in two vectors at once, since the processor's own maximum of two loses it.
        lanes = builder.bitcast(functools.reduce(builder.or_, unordered), ir.IntType(LANES))
        some = builder.icmp_unsigned("!=", lanes, ir.IntType(LANES)(0))
        return builder.select(some, ir.Constant(value.type, math.nan), value)

    if whole:

        @intrinsic
        def fold_tile(typing_context: Any, address: Any) -> Any:
            return element(types.int64), generate

        return fold_tile

    @intrinsic
    def fold_part(typing_context: Any, address: Any, count: Any) -> Any:
        return element(types.int64, types.int64), generate

    return fold_part


def _chosen(builder: Any, order: str, a: Any, b: Any) -> Any:
    """Return b where it comes before a, else a: the first of equals."""
    return builder.select(builder.fcmp_ordered(order, b, a), b, a)


# How two vectors are joined, and what changes nothing.
_JOINS: dict[str, tuple[Callable[[Any, Any, Any], Any], float]] = {
    "add": (lambda builder, a, b: builder.fadd(a, b), -0.0),
    "multiply": (lambda builder, a, b: builder.fmul(a, b), 1.0),
    "larger": (lambda builder, a, b: _chosen(builder, ">", a, b), -math.inf),
    "smaller": (lambda builder, a, b: _chosen(builder, "<", a, b), math.inf),
}
