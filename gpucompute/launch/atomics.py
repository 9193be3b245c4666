"""Atomic operations on words of memory, for compiled functions that several threads run."""

from __future__ import annotations

import functools
import platform
from typing import Any

# LLVM's name for a pause on a processor, and its arguments.
_X86, _ARM = ("llvm.x86.sse2.pause", ()), ("llvm.aarch64.hint", (1,))
_PAUSE = {"x86_64": _X86, "AMD64": _X86, "arm64": _ARM, "aarch64": _ARM}


@functools.cache
def functions() -> dict[str, Any]:
    """Return compiled functions of the address of an int64, sequentially consistent, by the names to call them by.

    add_atomic(address, value) returns what was there before; compare_exchange(address, expected, new) tells whether
    `expected` was there, and only then stores `new`; load_atomic(address); store_atomic(address, value). pause() lets
    a core's other thread run, in a loop that waits.
    """
    from llvmlite import ir
    from numba import types
    from numba.core import cgutils
    from numba.extending import intrinsic

    word, order = types.int64, "seq_cst"

    def pointer(builder: Any, address: Any) -> Any:
        return builder.inttoptr(address, ir.IntType(64).as_pointer())

    @intrinsic
    def add_atomic(typing_context: Any, address: Any, value: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.atomic_rmw("add", pointer(builder, args[0]), args[1], order)

        return word(word, word), generate

    @intrinsic
    def compare_exchange(typing_context: Any, address: Any, expected: Any, new: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            found = builder.cmpxchg(pointer(builder, args[0]), args[1], args[2], order, order)
            return builder.extract_value(found, 1)

        return types.boolean(word, word, word), generate

    @intrinsic
    def load_atomic(typing_context: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.load_atomic(pointer(builder, args[0]), order, 8)

        return word(word), generate

    @intrinsic
    def store_atomic(typing_context: Any, address: Any, value: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            builder.store_atomic(args[1], pointer(builder, args[0]), order, 8)
            return context.get_dummy_value()

        return types.void(word, word), generate

    @intrinsic
    def pause(typing_context: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            if platform.machine() in _PAUSE:
                name, arguments = _PAUSE[platform.machine()]
                kind = ir.FunctionType(ir.VoidType(), [ir.IntType(32)] * len(arguments))
                function = cgutils.get_or_insert_function(builder.module, kind, name)
                builder.call(function, [ir.IntType(32)(value) for value in arguments])
            return context.get_dummy_value()

        return types.void(), generate

    return {f.__name__: f for f in (add_atomic, compare_exchange, load_atomic, store_atomic, pause)}
