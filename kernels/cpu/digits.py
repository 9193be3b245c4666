"""Counts of the digits of keys that are ordered as the numbers are: the passes of a radix selection.

x: (n, columns) of int8 to int64, numbers or the bits of numbers; the key of one is ``k ^ ((k >> 63) & flip) ^ sign``
with k its bits as int64: flip is 0, or for floats all bits but the sign's; sign is 0, or for uint64 the lowest int64.
Knuth, "The Art of Computer Programming", volume 3, 5.2.5 and 5.3.3.
"""

from __future__ import annotations

from typing import Any

from numba.extending import register_jitable
from numpy import int64

Array = Any


@register_jitable
def key(bits: int, flip: int, sign: int) -> int:
    k = int64(bits)
    return k ^ ((k >> 63) & flip) ^ sign


@register_jitable
def find(prefix: int, prefixes: Array, low: int, high: int) -> int:
    # where prefixes[low:high] has `prefix`, -1 if nowhere
    for group in range(low, high):
        if prefixes[group] == prefix:
            return group
    return -1


@register_jitable
def group_of(k: int, j: int, shifts: Array, table: Array, prefixes: Array) -> int:
    # the group of a key of column j, -1 if its prefix is not asked for; shifts, table, prefixes: as in count_next
    digit = (k >> shifts[0]) + shifts[1]
    group = int64(table[0, j, digit])
    return find(k >> shifts[2], prefixes, group, int64(table[1, j, digit])) if group >= 0 else -1


def count_first(x: Array, flip: int, sign: int, top: int, shift: int, bias: int, counts: Array, nans: Array) -> None:
    """Count the first digits, ``(key >> shift) + bias``, of each column.

    counts: (columns, digits) int64, nans: (columns,) int64, both added to; a NaN is a key beyond `top` or its inverse.
    """
    if x.shape[1] == 1:
        row = counts[0]
        nan = int64(0)
        for i in range(x.shape[0]):
            k = key(x[i, 0], flip, sign)
            nan += int64((k > top) | (k < ~top))
            row[(k >> shift) + bias] += 1
        nans[0] += nan
        return
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            k = key(x[i, j], flip, sign)
            nans[j] += int64((k > top) | (k < ~top))
            counts[j, (k >> shift) + bias] += 1


def count_next(
    x: Array, flip: int, sign: int, shifts: Array, bits: int, table: Array, prefixes: Array, counts: Array
) -> None:
    """Count the digits of `bits` bits that follow a prefix, for keys whose prefix is asked for.

    shifts: (3,) int64: the first digit is ``(key >> shifts[0]) + shifts[1]``, the prefix ``key >> shifts[2]``
    table: (2, columns, first digits) int32: the groups with a first digit begin and end there; -1: there are none
    prefixes: (groups,) int64, ascending in each column -> counts: (groups, 2**bits) int64, added to
    """
    below, mask = shifts[2] - bits, (int64(1) << bits) - 1
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            k = key(x[i, j], flip, sign)
            group = group_of(k, j, shifts, table, prefixes)
            if group >= 0:
                counts[group, (k >> below) & mask] += 1


def collect(
    x: Array, flip: int, sign: int, shifts: Array, table: Array, prefixes: Array, groups: Array, keys: Array
) -> int:
    """Write down the keys whose prefix is asked for, and their groups -> how many.

    shifts, table, prefixes: as in count_next; groups: int32, keys: int64, both with room for all.
    """
    count = 0
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            k = key(x[i, j], flip, sign)
            group = group_of(k, j, shifts, table, prefixes)
            if group >= 0:
                groups[count] = group
                keys[count] = k
                count += 1
    return count
