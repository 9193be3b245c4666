"""What generated kernels need and numba-cuda does not have: a few LLVM instructions under plain names.

Operands come as 64-bit words, so addresses are cast to pointers into global memory here (a plain pointer would make
every load ask which memory it reads). Arrays of a thread and of a block are pointers too: numba's own arrays check
each index for negative values. Rounding and square roots become single instructions.
"""

from __future__ import annotations

import functools
from typing import Any

GLOBAL, SHARED = 1, 3  # address spaces of NVVM IR
NAMES = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64")
VECTOR_BYTES = 16


@functools.cache
def pointer(name: str) -> Any:
    """Return a function from an address to a pointer into global memory."""
    from numba.cuda import types
    from numba.cuda.extending import intrinsic

    item = getattr(types, name)
    kind = types.CPointer(item)

    @intrinsic
    def as_pointer(typing_context: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            place = builder.inttoptr(args[0], context.get_data_type(item).as_pointer(GLOBAL))
            return builder.addrspacecast(place, context.get_value_type(kind))

        return kind(types.int64), generate

    return as_pointer


@functools.cache
def own_array(name: str, length: int) -> Any:
    """Return a function that gives the thread an array, in registers where its indices become constants."""
    from numba.cuda import cgutils, types
    from numba.cuda.extending import intrinsic

    item = getattr(types, name)

    @intrinsic
    def array(typing_context: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            from llvmlite import ir

            kind = ir.ArrayType(context.get_data_type(item), length)
            place = cgutils.alloca_once(builder, kind)
            return builder.bitcast(place, context.get_value_type(types.CPointer(item)))

        return types.CPointer(item)(), generate

    return array


@functools.cache
def shared_array(name: str, length: int, label: str) -> Any:
    """Return a function that gives the block's array `label` in shared memory."""
    from numba.cuda import types
    from numba.cuda.extending import intrinsic

    item = getattr(types, name)
    pointer_kind = types.CPointer(item)

    @intrinsic
    def array(typing_context: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            from llvmlite import ir

            kind = ir.ArrayType(context.get_data_type(item), length)
            known = builder.module.globals.get(label)
            if known is None:
                known = ir.GlobalVariable(builder.module, kind, label, addrspace=SHARED)
                known.linkage = "internal"
                known.initializer = ir.Constant(kind, ir.Undefined)
                known.align = 8
            place = builder.gep(known, [ir.IntType(32)(0), ir.IntType(32)(0)])
            return builder.addrspacecast(place, context.get_value_type(pointer_kind))

        return pointer_kind(), generate

    return array


def _vector(item: Any, count: int) -> tuple[Any, int]:
    """Return the LLVM type in which `count` elements are moved, and how many elements a member of it holds.

    NVVM takes vectors of bytes and halves apart, but not those of 32-bit words.
    """
    from llvmlite import ir

    element = {"float32": ir.FloatType(), "float64": ir.DoubleType()}.get(item.name, ir.IntType(item.bitwidth))
    packed = max(1, min(32 // item.bitwidth, count))
    if packed > 1:
        element = ir.IntType(item.bitwidth * packed)
    return ir.VectorType(element, count // packed), packed


def _loaded(name: str, count: int) -> Any:
    """Return a function that reads `count` neighbours at an aligned address as a tuple."""
    from llvmlite import ir
    from numba.cuda import types
    from numba.cuda.extending import intrinsic

    item = getattr(types, name)
    result = types.UniTuple(item, count)

    @intrinsic
    def load(typing_context: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            kind, packed = _vector(item, count)
            place = builder.inttoptr(args[0], kind.as_pointer(GLOBAL))
            vector = builder.load(place, align=count * item.bitwidth // 8)
            items = []
            for member in range(count // packed):
                value = builder.extract_element(vector, ir.IntType(32)(member))
                for part in range(packed):
                    moved = builder.lshr(value, value.type(part * item.bitwidth)) if part else value
                    items.append(builder.trunc(moved, ir.IntType(item.bitwidth)) if packed > 1 else moved)
            return context.make_tuple(builder, result, items)

        return result(types.int64), generate

    return load


def _stored(name: str, count: int) -> Any:
    """Return a function that writes a tuple of `count` neighbours to an aligned address."""
    from llvmlite import ir
    from numba.cuda import cgutils, types
    from numba.cuda.extending import intrinsic

    item = getattr(types, name)

    @intrinsic
    def store(typing_context: Any, address: Any, values: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            kind, packed = _vector(item, count)
            place = builder.inttoptr(args[0], kind.as_pointer(GLOBAL))
            vector = ir.Constant(kind, ir.Undefined)
            values = cgutils.unpack_tuple(builder, args[1])
            for member in range(count // packed):
                value = values[member * packed]
                for part in range(packed if packed > 1 else 0):
                    wide = builder.zext(values[member * packed + part], kind.element)
                    moved = builder.shl(wide, wide.type(part * item.bitwidth))
                    value = builder.or_(value, moved) if part else moved
                vector = builder.insert_element(vector, value, ir.IntType(32)(member))
            builder.store(vector, place, align=count * item.bitwidth // 8)
            return context.get_dummy_value()

        return types.void(types.int64, types.UniTuple(item, count)), generate

    return store


def _float_of() -> Any:
    """Return a function from the 64 bits of a float64 to it."""
    from llvmlite import ir
    from numba.cuda import types
    from numba.cuda.extending import intrinsic

    @intrinsic
    def float_of(typing_context: Any, word: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.bitcast(args[0], ir.DoubleType())

        return types.float64(types.int64), generate

    return float_of


def _counted() -> Any:
    """Return a function that adds one to the int32 at an address and gives what it was, as one operation."""
    from llvmlite import ir
    from numba.cuda import types
    from numba.cuda.extending import intrinsic

    @intrinsic
    def counted(typing_context: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            word = ir.IntType(32)
            return builder.atomic_rmw("add", builder.inttoptr(args[0], word.as_pointer(GLOBAL)), word(1), "monotonic")

        return types.int32(types.int64), generate

    return counted


def _index_arithmetic() -> dict[str, Any]:
    """Return arithmetic of indices in the width that they have: numba's would be 64 bits wide.

    ``distance(i, s, j, t, ...)`` is i * s + j * t + ..., in the type of i; ``rest(i, q, n)`` is i - q * n;
    ``digit(i, u, n)`` is i // u % n, and ``narrowed`` makes int32 of int64. ``quotient``, ``quotient64``
    divide an index, which is never negative. The first of them takes no divisor but a factor and a shift: dividing by
    d is, for 0 <= i < 2**31, the shift by s = ceil(log2 d) of i plus the high word of i times
    2**32 * (2**s - d) // d + 1 (Granlund and Montgomery, "Division by invariant integers using multiplication", 1994).
    """
    from llvmlite import ir
    from numba.cuda import cgutils, types
    from numba.cuda.extending import intrinsic

    word = ir.IntType(32)

    @intrinsic
    def distance(typing_context: Any, *terms: Any) -> Any:
        kind = terms[0]

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            values = [builder.extract_value(args[0], i) for i in range(len(terms))]
            values = [context.cast(builder, v, t, kind) for v, t in zip(values, terms, strict=True)]
            total = builder.mul(values[0], values[1])
            for index, stride in zip(values[2::2], values[3::2], strict=True):
                total = builder.add(total, builder.mul(index, stride))
            return total

        return kind(types.StarArgTuple(terms)), generate

    @intrinsic
    def rest(typing_context: Any, index: Any, quotient: Any, divisor: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.sub(args[0], builder.mul(args[1], args[2]))

        return index(index, index, index), generate

    @intrinsic
    def quotient(typing_context: Any, index: Any, factor: Any, shift: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            index, factor, shift = args
            kind = ir.FunctionType(word, [word, word])
            high_word = cgutils.get_or_insert_function(builder.module, kind, "llvm.nvvm.mulhi.ui")
            high = builder.call(high_word, [index, factor])
            return builder.lshr(builder.add(high, index), shift)

        return types.int32(types.int32, types.int32, types.int32), generate

    @intrinsic
    def quotient64(typing_context: Any, index: Any, divisor: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.udiv(*args)

        return types.int64(types.int64, types.int64), generate

    @intrinsic
    def narrowed(typing_context: Any, *words: Any) -> Any:
        result = types.UniTuple(types.int32, len(words))

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            parts = cgutils.unpack_tuple(builder, args[0], len(words))
            return context.make_tuple(builder, result, [builder.trunc(part, word) for part in parts])

        return result(types.StarArgTuple(words)), generate

    @intrinsic
    def digit(typing_context: Any, index: Any, unit: Any, base: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.urem(builder.udiv(args[0], args[1]), args[2])

        return types.int32(types.int32, types.int32, types.int32), generate

    return {
        "distance": distance, "rest": rest, "quotient": quotient, "quotient64": quotient64, "narrowed": narrowed,
        "digit": digit,
    }  # fmt: skip


def _one_instruction(single: str, double: str) -> Any:
    """Return a function of a float that calls what NVVM makes one instruction of."""
    from llvmlite import ir
    from numba.cuda import cgutils, types
    from numba.cuda.extending import intrinsic

    @intrinsic
    def call(typing_context: Any, x: Any) -> Any:
        kind = x if isinstance(x, types.Float) else types.float64

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            function = ir.FunctionType(args[0].type, [args[0].type])
            name = single if kind == types.float32 else double
            return builder.call(cgutils.get_or_insert_function(builder.module, function, name), args)

        return kind(kind), generate

    return call


@functools.cache
def rounding() -> dict[str, Any]:
    """Return NumPy's names of functions that are one instruction each."""
    found = {name: _one_instruction(f"__nv_{name}f", f"__nv_{name}") for name in ("floor", "ceil", "trunc", "rint")}
    found["sqrt"] = _one_instruction("llvm.sqrt.f32", "llvm.sqrt.f64")  # libdevice's asks for the mode
    return found


@functools.cache
def namespace() -> dict[str, Any]:
    """Return all names that kernels use, but for arrays."""
    names = {f"ptr_{name}": pointer(name) for name in NAMES}
    names["float_of"] = _float_of()
    names["counted"] = _counted()
    names.update(_index_arithmetic())
    for name in NAMES:
        size = int("".join(filter(str.isdigit, name))) // 8
        count = 2
        while count * size <= VECTOR_BYTES:
            names[f"load{count}_{name}"] = _loaded(name, count)
            names[f"store{count}_{name}"] = _stored(name, count)
            count *= 2
    return names
