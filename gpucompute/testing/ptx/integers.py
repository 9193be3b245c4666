"""Integer and bit instructions (PTX ISA, "Integer Arithmetic", "Extended-Precision", "Logic and Shift")."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from .operation import Builder, Modifiers, Operation, UnknownForm, same
from .types import PREDICATE, STORAGE, TYPES, Array, Type

U32, S32, U64 = TYPES["u32"], TYPES["s32"], TYPES["u64"]


def _twice(kind: Type) -> Type:
    wider = TYPES.get(f"{kind.kind}{2 * kind.bits}")
    if wider is None:
        raise UnknownForm
    return wider


# Arithmetic


def _clamped(function: Callable[..., Array], kind: Type) -> Callable[..., Array]:
    """Compute in 64 bits and clamp to the range of 32 (``.sat`` exists for s32 alone)."""
    low, high = np.iinfo(kind.dtype).min, np.iinfo(kind.dtype).max
    return lambda *values: np.clip(function(*(v.astype(np.int64) for v in values)), low, high).astype(kind.dtype)


def _add_or_subtract(function: Callable[..., Array]) -> Builder:
    def build(modifiers: Modifiers, kind: Type) -> Operation:
        chosen = _clamped(function, kind) if modifiers.flag("sat") else function
        return Operation(chosen, (kind,), (kind, kind))

    return build


def high_product(a: Array, b: Array) -> Any:
    """Return the upper half of the full product."""
    bits = 8 * a.dtype.itemsize
    if bits < 64:
        wide = np.dtype(f"{a.dtype.kind}{bits // 4}")
        return (np.multiply(a, b, dtype=wide) >> wide.type(bits)).astype(a.dtype)
    x, y = a.view(np.uint64), b.view(np.uint64)
    half, mask = np.uint64(32), np.uint64(0xFFFFFFFF)
    (x1, x0), (y1, y0) = (x >> half, x & mask), (y >> half, y & mask)
    middle = x1 * y0 + (x0 * y0 >> half)
    high = x1 * y1 + (middle >> half) + (((middle & mask) + x0 * y1) >> half)
    if a.dtype.kind == "i":
        high = high - np.where(a < 0, y, np.uint64(0)) - np.where(b < 0, x, np.uint64(0))
    return high.view(a.dtype)


def _product(modifiers: Modifiers, kind: Type) -> tuple[Callable[..., Array], Type]:
    part = modifiers.choice("lo", "hi", "wide")
    if part == "wide":
        wide = _twice(kind)
        return lambda a, b: np.multiply(a, b, dtype=wide.dtype), wide
    return (np.multiply if part == "lo" else high_product), kind


def _multiply(modifiers: Modifiers, kind: Type) -> Operation:
    function, result = _product(modifiers, kind)
    return Operation(function, (result,), (kind, kind))


def _multiply_add(modifiers: Modifiers, kind: Type) -> Operation:
    product, result = _product(modifiers, kind)
    add: Callable[..., Array] = _clamped(np.add, kind) if modifiers.flag("sat") else np.add
    return Operation(lambda a, b, c: add(product(a, b), c), (result,), (kind, kind, result))


def _low24(a: Array) -> Any:
    shift = a.dtype.type(8)
    return ((a << shift) >> shift).astype(np.dtype(f"{a.dtype.kind}8"))


def _product24(modifiers: Modifiers, kind: Type) -> Callable[..., Array]:
    shift = 0 if modifiers.choice("lo", "hi") == "lo" else 16
    return lambda a, b: ((_low24(a) * _low24(b)) >> shift).astype(kind.dtype)


def _multiply24(modifiers: Modifiers, kind: Type) -> Operation:
    return Operation(_product24(modifiers, kind), (kind,), (kind, kind))


def _multiply_add24(modifiers: Modifiers, kind: Type) -> Operation:
    product = _product24(modifiers, kind)
    add: Callable[..., Array] = _clamped(np.add, kind) if modifiers.flag("sat") else np.add
    return Operation(lambda a, b, c: add(product(a, b), c), (kind,), (kind, kind, kind))


def quotient(a: Array, b: Array) -> Any:
    """Divide, rounding towards zero; by zero all bits are set, as the hardware does."""
    zero = b == 0
    if a.dtype.kind == "u":
        return np.where(zero, ~a.dtype.type(0), a // np.where(zero, b.dtype.type(1), b))
    unsigned = np.dtype(f"u{a.dtype.itemsize}")
    size = np.abs(a).view(unsigned) // np.where(zero, 1, np.abs(b)).astype(b.dtype).view(unsigned)
    signed = size.view(a.dtype)
    return np.where(zero, a.dtype.type(-1), np.where((a < 0) != (b < 0), -signed, signed))


def _remainder(a: Array, b: Array) -> Any:
    return a - quotient(a, b) * b


def _sum_of_differences(a: Array, b: Array, c: Array) -> Any:
    return c + (np.maximum(a, b) - np.minimum(a, b))


def _extremum(function: Callable[..., Array]) -> Builder:
    def build(modifiers: Modifiers, kind: Type) -> Operation:
        if modifiers.flag("relu"):
            return Operation(lambda a, b: np.maximum(function(a, b), kind.dtype.type(0)), (kind,), (kind, kind))
        return Operation(function, (kind,), (kind, kind))

    return build


def _dot(lanes: int) -> Builder:
    """dp4a: four products of bytes; dp2a: two products of 16 bits with the lower or upper two bytes."""

    def build(modifiers: Modifiers, kind: Type) -> Operation:
        first = modifiers.type()
        part = modifiers.choice("lo", "hi") if lanes == 2 else "lo"
        size = 4 // lanes
        at = slice(0, lanes) if part == "lo" else slice(2, 4)

        def dot(a: Array, b: Array, c: Array) -> Any:
            x = a.view(f"{first.dtype.kind}{size}").reshape(-1, lanes).astype(np.int64)
            y = b.view(f"{kind.dtype.kind}1").reshape(-1, 4)[:, at].astype(np.int64)
            return ((x * y).sum(axis=1) + c).astype(c.dtype)

        result = S32 if "s" in (first.kind, kind.kind) else U32
        return Operation(dot, (result,), (first, kind, result))

    return build


# Arithmetic with the carry flag


def _add_carry(a: Array, b: Array, carry: Array) -> tuple[Array, Array]:
    total = a + b + carry
    return total, (total < a) | (carry & (total == a))


def _subtract_borrow(a: Array, b: Array, borrow: Array) -> tuple[Array, Array]:
    return a - b - borrow, (a < b) | (borrow & (a == b))


def _with_carry(step: Callable[..., tuple[Array, Array]], reads: bool, product: bool = False) -> Builder:
    """Return the builder of add.cc, addc, sub.cc, subc, mad.cc and madc.

    The carry is that of unsigned numbers; two's complement makes the sum the same for signed ones.
    """

    def build(modifiers: Modifiers, kind: Type) -> Operation:
        writes = modifiers.flag("cc")
        unsigned = TYPES[f"u{kind.bits}"]
        multiply = np.multiply
        if product:
            multiply, _ = _product(modifiers, kind)  # type: ignore[assignment]

        def function(*values: Array) -> Any:
            carry = values[-1] if reads else np.zeros(1, bool)
            operands = values[: len(values) - reads]
            if product:
                a, b, c = operands
                left, right = multiply(a, b).view(unsigned.dtype), c.view(unsigned.dtype)
            else:
                left, right = (v.view(unsigned.dtype) for v in operands)
            total, out = step(left, right, carry)
            return (total, out) if writes else total

        return Operation(function, (unsigned,), (kind,) * (2 + product), reads, writes)

    return build


# Bits


def _shift_left(a: Array, by: Array) -> Any:
    bits = 8 * a.dtype.itemsize
    return np.where(by < bits, a << np.minimum(by, bits - 1).astype(a.dtype), a.dtype.type(0))


def _shift_right(a: Array, by: Array) -> Any:
    bits = 8 * a.dtype.itemsize
    shifted = a >> np.minimum(by, bits - 1).astype(a.dtype)
    return shifted if a.dtype.kind == "i" else np.where(by < bits, shifted, a.dtype.type(0))


def _shift(function: Callable[..., Array]) -> Builder:
    return lambda modifiers, kind: Operation(function, (kind,), (kind, U32))


def _funnel(modifiers: Modifiers, kind: Type) -> Operation:
    left = modifiers.choice("l", "r") == "l"
    wrap = modifiers.choice("wrap", "clamp") == "wrap"

    def shift(low: Array, high: Array, by: Array) -> Array:
        n = (by & np.uint32(31) if wrap else np.minimum(by, np.uint32(32))).astype(np.uint64)
        both = (high.astype(np.uint64) << np.uint64(32)) | low
        moved = (both << n) >> np.uint64(32) if left else both >> n
        return moved.astype(np.uint32)

    return Operation(shift, (U32,), (U32, U32, U32))


def bit_length(a: Array) -> Array:
    """Return the position of the highest bit set, from 1; 0 for 0."""
    length = np.zeros(a.shape, np.uint32)
    rest = a.astype(np.uint64)
    for step in (32, 16, 8, 4, 2, 1):
        big = (rest >> np.uint64(step)) != 0
        length += np.where(big, np.uint32(step), np.uint32(0))
        rest = np.where(big, rest >> np.uint64(step), rest)
    return length + rest.astype(np.uint32)


def _leading_zeros(a: Array) -> Array:
    return np.uint32(8 * a.dtype.itemsize) - bit_length(a)


def _highest_bit(modifiers: Modifiers, kind: Type) -> Operation:
    shift = modifiers.flag("shiftamt")

    def find(a: Array) -> Array:
        bits = (np.where(a < 0, ~a, a) if kind.kind == "s" else a).view(STORAGE[kind.bits])
        place = bit_length(bits) - np.uint32(1)
        return np.where(bits == 0, place, np.uint32(kind.bits - 1) - place) if shift else place

    return Operation(find, (U32,), (kind,))


def _reverse(a: Array) -> Array:
    """Reverse the bits: those of each byte, and the bytes."""
    byte = np.packbits(np.unpackbits(a.view(np.uint8), bitorder="little"), bitorder="big")
    return byte.view(a.dtype).byteswap()


def _mask(n: Array, dtype: np.dtype[Any]) -> Any:
    """Return integers with the lowest n bits set."""
    return ~_shift_left(np.full(1, -1, np.dtype(f"i{dtype.itemsize}")).view(dtype), n)


def _extract(modifiers: Modifiers, kind: Type) -> Operation:
    bits, storage = kind.bits, STORAGE[kind.bits]

    def extract(a: Array, start: Array, length: Array) -> Any:
        start, length = start & np.uint32(255), length & np.uint32(255)
        field = _shift_right(a.view(storage), start) & _mask(length, storage)
        if kind.kind == "s":
            # the sign is the field's highest bit, or the number's if the field reaches over its end
            place = np.minimum(start + length - np.uint32(1), np.uint32(bits - 1))
            sign = (_shift_right(a.view(storage), place) & storage.type(1)) != 0
            inside = np.minimum(length, np.where(start < bits, np.uint32(bits) - start, np.uint32(0)))
            field = np.where(sign & (length > 0), field | ~_mask(inside, storage), field)
        return field.view(kind.dtype)

    return Operation(extract, (kind,), (kind, U32, U32))


def _insert(modifiers: Modifiers, kind: Type) -> Operation:
    def insert(a: Array, b: Array, start: Array, length: Array) -> Any:
        start, length = start & np.uint32(255), length & np.uint32(255)
        mask = _shift_left(_mask(length, kind.dtype), start)
        return (b & ~mask) | (_shift_left(a, start) & mask)

    return Operation(insert, (kind,), (kind, kind, U32, U32))


def _bit_mask(modifiers: Modifiers, kind: Type) -> Operation:
    wrap = modifiers.choice("wrap", "clamp") == "wrap"

    def mask(start: Array, length: Array) -> Any:
        if wrap:
            start, length = start & np.uint32(31), length & np.uint32(31)
        return _shift_left(_mask(length, U32.dtype), start)

    return Operation(mask, (kind,), (U32, U32))


def _extend(modifiers: Modifiers, kind: Type) -> Operation:
    wrap = modifiers.choice("wrap", "clamp") == "wrap"

    def extend(a: Array, n: Array) -> Any:
        n = n & np.uint32(31) if wrap else n
        mask = _mask(n, U32.dtype)
        bits = a.view(np.uint32)
        place = np.clip(n, 1, 32).astype(np.uint32) - np.uint32(1)
        negative = (kind.kind == "s") & (n > 0) & ((_shift_right(bits, place) & np.uint32(1)) != 0)
        return np.where(negative, bits | ~mask, bits & mask).view(kind.dtype)

    return Operation(extend, (kind,), (kind, U32))


def _nth_bit(mask: Array, base: Array, offset: Array) -> Array:
    """fns: the place of the offset-th bit set, from `base` upwards (or downwards if negative)."""
    mask, base, offset = np.broadcast_arrays(mask, base, offset)
    found = np.full(mask.shape, 0xFFFFFFFF, np.uint32)
    for k, (bits, start, n) in enumerate(zip(mask.tolist(), base.tolist(), offset.tolist(), strict=True)):
        upwards = range(start, 32) if n >= 0 else range(start, -1, -1)
        places = [place for place in upwards if bits >> place & 1]
        wanted = max(abs(n) - 1, 0)
        if n == 0:
            places = places if bits >> start & 1 else []
        if wanted < len(places):
            found[k] = places[wanted]
    return found


_SELECTORS = {
    "f4e": [[k + j & 7 for j in range(4)] for k in range(4)],
    "b4e": [[k - j & 7 for j in range(4)] for k in range(4)],
    "rc8": [[k] * 4 for k in range(4)],
    "ecl": [[max(j, k) for j in range(4)] for k in range(4)],
    "ecr": [[min(j, k) for j in range(4)] for k in range(4)],
    "rc16": [[2 * (k & 1), 2 * (k & 1) + 1] * 2 for k in range(4)],
}


def _permute(modifiers: Modifiers, kind: Type) -> Operation:
    mode = modifiers.choice(*_SELECTORS, default="index")

    def permute(a: Array, b: Array, c: Array) -> Array:
        a, b, c = np.broadcast_arrays(a, b, c)
        source = np.stack([a, b], axis=1).view(np.uint8)
        if mode == "index":
            nibble = (c[:, None] >> np.array([0, 4, 8, 12], np.uint32)) & np.uint32(15)
            chosen = np.take_along_axis(source, (nibble & np.uint32(7)).astype(np.int64), axis=1)
            sign = np.where(chosen >= 128, np.uint8(255), np.uint8(0))
            chosen = np.where(nibble >= 8, sign, chosen)
        else:
            table = np.array(_SELECTORS[mode])
            chosen = np.take_along_axis(source, table[c & np.uint32(3)], axis=1)
        return np.ascontiguousarray(chosen).view(np.uint32)[:, 0]

    return Operation(permute, (U32,), (U32, U32, U32))


def _lookup3(a: Array, b: Array, c: Array, table: Array) -> Array:
    """lop3: `table` has the result for each of the eight combinations of bits."""
    result: Array = np.zeros(1, a.dtype)
    choice = int(table[0])
    for k in range(8):
        if choice >> k & 1:
            x, y, z = (a if k & 4 else ~a), (b if k & 2 else ~b), (c if k & 1 else ~c)
            result = result | (x & y & z)
    return result


def _logic3(modifiers: Modifiers, kind: Type) -> Operation:
    combine = modifiers.choice("or", "and", default="none")
    if combine == "none":
        return Operation(_lookup3, (kind,), (kind, kind, kind, U32))

    def with_predicate(a: Array, b: Array, c: Array, table: Array, q: Array) -> tuple[Array, Array]:
        result = _lookup3(a, b, c, table)
        nonzero = result != 0
        return result, (nonzero | q) if combine == "or" else (nonzero & q)

    return Operation(with_predicate, (kind, PREDICATE), (kind, kind, kind, U32, PREDICATE))


def _not(a: Array) -> Array:
    return ~a


def _c_not(a: Array) -> Any:
    return (a == 0).astype(a.dtype)


def _count(function: Callable[[Array], Array]) -> Builder:
    return lambda modifiers, kind: Operation(function, (U32,), (kind,))


def _popcount(a: Array) -> Any:
    return np.bitwise_count(a).astype(np.uint32)


def _carry_or(plain: Builder, with_carry: Builder) -> Builder:
    def build(modifiers: Modifiers, kind: Type) -> Operation:
        return (with_carry if "cc" in modifiers.left else plain)(modifiers, kind)

    return build


_carry = partial(_with_carry, _add_carry)

TABLE: dict[str, Builder] = {
    "add": _carry_or(_add_or_subtract(np.add), _carry(reads=False)),
    "addc": _carry(reads=True),
    "sub": _carry_or(_add_or_subtract(np.subtract), _with_carry(_subtract_borrow, reads=False)),
    "subc": _with_carry(_subtract_borrow, reads=True),
    "mul": _multiply,
    "mad": _carry_or(_multiply_add, _carry(reads=False, product=True)),
    "madc": _carry(reads=True, product=True),
    "mul24": _multiply24,
    "mad24": _multiply_add24,
    "div": same(quotient, 2),
    "rem": same(_remainder, 2),
    "abs": same(np.abs, 1),
    "neg": same(np.negative, 1),
    "min": _extremum(np.minimum),
    "max": _extremum(np.maximum),
    "sad": same(_sum_of_differences, 3),
    "dp4a": _dot(4),
    "dp2a": _dot(2),
    "and": same(np.bitwise_and, 2),
    "or": same(np.bitwise_or, 2),
    "xor": same(np.bitwise_xor, 2),
    "not": same(_not, 1),
    "cnot": same(_c_not, 1),
    "lop3": _logic3,
    "shl": _shift(_shift_left),
    "shr": _shift(_shift_right),
    "shf": _funnel,
    "popc": _count(_popcount),
    "clz": _count(_leading_zeros),
    "bfind": _highest_bit,
    "brev": same(_reverse, 1),
    "bfe": _extract,
    "bfi": _insert,
    "bmsk": _bit_mask,
    "szext": _extend,
    "fns": lambda modifiers, kind: Operation(_nth_bit, (U32,), (U32, U32, S32)),
    "prmt": _permute,
}
