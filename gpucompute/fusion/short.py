"""Reductions over a few neighbouring elements (three channels, the coordinates of a point), written out as maps.

They then take part in the loops around them, which vectorise: the sum of three float32 takes 0.5 ns so, and 50
through a fold, which sets up a tile for each. The tree is that of `tree.py`.
"""

from __future__ import annotations

from math import prod

import numpy as np

from . import ir, tree

MOST = 8  # elements, as many as small inner extents that are constants of the source
_COMBINE = {"sum": "add", "prod": "multiply", "min": "minimum", "max": "maximum", "any": "maximum", "all": "minimum"}


def written_out(node: ir.Reduce, builder: ir.Builder) -> ir.Node | None:
    """Return `node` as maps of its elements, None if it has too many or they are not the last axes.

    A batch is never written out, as its size must not be part of the source.
    """
    shape, rank = node.arg.shape, len(node.arg.shape)
    kept = rank - len(node.axes)
    count = prod(shape[kept:])
    if not kept or node.axes != tuple(range(kept, rank)) or not 1 < count <= MOST or 0 in shape:
        return None
    elements = []
    for place in np.ndindex(shape[kept:]):
        params = ((0, 1),) * kept + tuple((int(start), 1) for start in place)
        element = builder.slice(node.arg, params, shape[:kept] + (1,) * len(place))
        elements.append(builder.reshape(element, node.shape))
    if node.op == "m2" and node.arg.dtype.kind == "f":
        return _squares(elements, builder)
    if not isinstance(node.op, str) or node.op not in _COMBINE or node.dtype != node.arg.dtype:
        return None
    return _fold(elements, _COMBINE[node.op], builder)


def _fold(elements: list[ir.Node], op: str, builder: ir.Builder) -> ir.Node:
    def combine(a: ir.Node, b: ir.Node) -> ir.Node:
        # Of equals (0.0 and -0.0) a fold takes the first, the elementwise operation the second.
        args = (b, a) if op in ("minimum", "maximum") else (a, b)
        return builder.map(op, args, a.dtype)

    folded: ir.Node = tree.fold_tile(elements, combine)
    return folded


def _squares(elements: list[ir.Node], builder: ir.Builder) -> ir.Node:
    """The sum of squared distances from the mean."""
    dtype = elements[0].dtype
    count = builder.constant(len(elements), dtype)
    mean = builder.map("divide", (_fold(elements, "add", builder), count), dtype)
    distances = [builder.map("subtract", (element, mean), dtype) for element in elements]
    return _fold([builder.map("multiply", (d, d), dtype) for d in distances], "add", builder)
