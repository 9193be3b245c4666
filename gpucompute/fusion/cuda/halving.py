"""The elements of a tile and their halving as one call each: numba-cuda takes a millisecond for any statement.

A tile of a variance, printed as Python, took it 0.35 s; like this it takes 0.05 s.
"""

from __future__ import annotations

import functools
from typing import Any


@functools.cache
def each(count: int) -> Any:
    """Return a function that calls another for each of a thread's elements.

    ``each(element, r, ...)`` is the tuple of ``element(r, k, ...)`` for k below `count`, or one such tuple for each of
    the values that `element` returns.
    """
    from numba.cuda import cgutils, types
    from numba.cuda.extending import intrinsic

    @intrinsic
    def elements(typing_context: Any, function: Any, first: Any, *terms: Any) -> Any:
        signature = function.get_call_type(typing_context, (first, types.int32, *terms), {})
        several = isinstance(signature.return_type, types.BaseTuple)
        kinds = tuple(types.UniTuple(kind, count) for kind in signature.return_type) if several else ()
        result = types.Tuple(kinds) if several else types.UniTuple(signature.return_type, count)

        def generate(context: Any, builder: Any, outer: Any, args: Any) -> Any:
            rest = cgutils.unpack_tuple(builder, args[2], len(terms))
            call = context.get_function(function, signature)
            found = [call(builder, [args[1], context.get_constant(types.int32, k), *rest]) for k in range(count)]
            if not several:
                return context.make_tuple(builder, result, found)
            parts = zip(*(cgutils.unpack_tuple(builder, values, len(kinds)) for values in found), strict=True)
            tuples = [context.make_tuple(builder, kind, part) for kind, part in zip(kinds, parts, strict=True)]
            return context.make_tuple(builder, result, tuples)

        return result(function, first, types.StarArgTuple(terms)), generate

    return elements


@functools.cache
def halving(fields: tuple[str, ...], lanes: int, elements: int, starts: bool, turns: bool) -> Any:
    """Return a function that folds the elements of a tile to the state that the thread of rank 0 has.

    ``fold(pair, [start,] [turned, ...,] [exchange, ...,] lane, rank, count, [given, ...,] x)``, with as many ``turned``
    and ``exchange`` as a state has fields (see `folds`, and `kernels/cuda/exchange.py`); x is the tuple of elements.

    Parameters
    ----------
    fields : tuple of str
        The types of a state's fields.
    lanes, elements : int
        Threads that share the tile, and elements of each.
    starts : bool
        Whether ``start(x, position, given, ...)`` makes the state of an element; else it is the element.
    turns : bool
        Whether columns are handed over to warps on the way.
    """
    from numba.cuda import cgutils, types
    from numba.cuda.extending import intrinsic

    kinds = tuple(getattr(types, name) for name in fields)
    result = kinds[0] if len(kinds) == 1 else types.Tuple(kinds)
    exchanged = len(kinds) if lanes > 1 else 0
    turned = len(kinds) if turns else 0

    @intrinsic
    def fold(typing_context: Any, *terms: Any) -> Any:
        functions, numbers = terms[: 1 + starts + turned + exchanged], terms[1 + starts + turned + exchanged :]
        element, given = numbers[-1].dtype, numbers[3:-1]
        arguments = [(*kinds, *kinds)] + [(element, types.int32, *given)] * starts
        arguments += [(kind,) for kind in kinds[:turned]] + [(kind, types.int32) for kind in kinds[:exchanged]]
        signatures = [f.get_call_type(typing_context, a, {}) for f, a in zip(functions, arguments, strict=True)]

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            values = [builder.extract_value(args[0], i) for i in range(len(functions), len(terms))]
            lane, rank = (context.cast(builder, values[i], numbers[i], numbers[2]) for i in (0, 1))
            count, extra, items = values[2], values[3:-1], cgutils.unpack_tuple(builder, values[-1], elements)

            def call(number: int, arguments: list[Any], wanted: tuple[Any, ...]) -> list[Any]:
                kind = signatures[number].return_type
                found = context.get_function(functions[number], signatures[number])(builder, arguments)
                several = isinstance(kind, types.BaseTuple)
                parts = cgutils.unpack_tuple(builder, found, len(wanted)) if several else [found]
                given = tuple(kind) if several else (kind,)
                return [context.cast(builder, *part, to) for *part, to in zip(parts, given, wanted, strict=True)]

            def combined(here: list[Any], there: list[Any], first: Any, distance: int) -> list[Any]:
                """Combine two states where there is an element `distance` after the `first`, else keep the one."""
                present = builder.icmp_signed("<", builder.add(first, first.type(distance)), count)
                both = call(0, [*here, *there], kinds)
                return [builder.select(present, new, old) for new, old in zip(both, here, strict=True)]

            states = []
            for k, item in enumerate(items):
                if starts:
                    position = context.cast(builder, builder.add(lane, lane.type(lanes * k)), numbers[2], types.int32)
                    states.append(call(1, [item, position, *extra], kinds))
                else:
                    states.append([context.cast(builder, item, element, kinds[0])])
            size = elements
            while size > 1:
                size //= 2
                states = [combined(states[k], states[k + size], lane, lanes * (k + size)) for k in range(size)]
            (state,) = states
            at = 1 + starts
            state = [call(at + i, [value], kinds[i : i + 1])[0] for i, value in enumerate(state)] if turns else state
            distance = lanes // 2
            while distance:
                step = context.get_constant(types.int32, distance)
                at = len(functions) - len(kinds)
                other = [call(at + i, [value, step], kinds[i : i + 1])[0] for i, value in enumerate(state)]
                state = combined(state, other, rank, distance)
                distance //= 2
            return state[0] if len(kinds) == 1 else context.make_tuple(builder, result, state)

        return result(types.StarArgTuple(terms)), generate

    return fold
