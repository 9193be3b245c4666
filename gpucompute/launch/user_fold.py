"""The fold of a user's reduction: source for its number of state fields.

Numba compiles no loop over a tuple of different types, so the fields are spelled out. The tree is that of
`kernels/cpu/reduce.py`; `acc` has room for 256 rows of columns for each field.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ..fusion.ir import UserReduction

ROWS = 256


def source(op: UserReduction, element: np.dtype[np.generic]) -> str:
    """Return the source of the functions ``tile``, ``join`` and ``value`` for `op` on elements of dtype `element`.

    They call ``map_``, ``combine`` and, if there is one, ``finalize``.
    """
    fields = range(len(op.state_dtypes))
    memory = ["uint8" if dtype.kind == "b" else dtype.name for dtype in op.state_dtypes]

    def pointers(prefix: str, address: str, rows: int) -> list[str]:
        step = f"columns * {8 * rows}"
        return [f"{prefix}{f} = ptr_{memory[f]}({address} + {f} * {step})" for f in fields]

    def read(prefix: str, index: str) -> str:
        values = [f"{prefix}{f}[{index}]" + (" != 0" if op.state_dtypes[f].kind == "b" else "") for f in fields]
        return values[0] if len(values) == 1 else f"({', '.join(values)})"

    def write(prefix: str, index: str) -> list[str]:
        if len(fields) == 1:
            return [f"{prefix}0[{index}] = {memory[0]}(t)"]
        return [f"{prefix}{f}[{index}] = {memory[f]}(t[{f}])" for f in fields]

    item = "x[i] != 0" if element.kind == "b" else "x[i]"
    tile = [
        "def tile(buffer, count, columns, first, acc, state):",
        f"    x = ptr_{'uint8' if element.kind == 'b' else element.name}(buffer)",
        *_indent(1, pointers("a", "acc", ROWS)),
        "    for i in range(count * columns):",
        f"        t = map_({item})",
        *_indent(2, write("a", "i")),
        "    n = count",
        "    h = 128",
        "    while h >= 1:",
        "        for i in range((min(n, 2 * h) - h) * columns):",
        f"            t = combine({read('a', 'i')}, {read('a', 'i + h * columns')})",
        *_indent(3, write("a", "i")),
        "        n = min(n, h)",
        "        h //= 2",
        *_indent(1, pointers("s", "state", 1)),
        "    for j in range(columns):",
        *_indent(2, [f"s{f}[j] = a{f}[j]" for f in fields]),
    ]
    join = [
        "def join(left, left_count, right, right_count, columns):",
        *_indent(1, pointers("a", "left", 1)),
        *_indent(1, pointers("b", "right", 1)),
        "    for j in range(columns):",
        f"        t = combine({read('a', 'j')}, {read('b', 'j')})",
        *_indent(2, write("a", "j")),
    ]
    result = read("s", "j")
    value = [
        "def value(state, columns, j, count):",
        *_indent(1, pointers("s", "state", 1)),
        f"    return {f'finalize({result})' if op.finalize is not None else 's0[j]'}",
    ]
    return "\n".join(["", *tile, "", *join, "", *value, ""])


def _indent(depth: int, lines: list[str]) -> list[str]:
    return ["    " * depth + line for line in lines]
