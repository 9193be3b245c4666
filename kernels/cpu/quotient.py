"""Many float32 over one divisor, with the bits of a division and no division.

A vector of 16 divisions takes a processor as long as about 20 multiplications. The product with the reciprocal,
rounded to nearest, is a quotient that is off by less than two units in the last place; its remainder, from a fused
multiply-add, mends it to within one; and that one's remainder, which is exact, rounds it as the division would
(Markstein, "Computation of elementary functions on the IBM RISC System/6000 processor", 1990). That holds as long as
nothing leaves the range of normal numbers, which is looked at first.
"""

from __future__ import annotations

import numpy as np

BLOCK = 1024  # elements that are looked at, then divided: 4 KiB stay in the first cache
DIVISOR = np.float32(2.0**24)  # divisors between this and its reciprocal,
SMALLEST = np.uint32(0x0D800000)  # and numbers from 2**-100
LARGEST = np.uint32(0x71800000)  # to 2**100, or 0, give normal quotients and exact remainders


def divide_row(address, n, divisor):
    """Divide the `n` float32 at `address` by `divisor`, in place."""
    wide_loops()
    x = ptr_float32(address)
    bits = ptr_uint32(address)
    magnitude = abs(divisor)
    usual = magnitude <= DIVISOR and magnitude * DIVISOR >= np.float32(1.0)
    reciprocal = np.float32(1.0) / divisor
    start = 0
    while start < n:
        count = min(BLOCK, n - start)
        small = np.uint32(0xFFFFFFFF)
        large = np.uint32(0)
        for i in range(start, start + count):
            size = np.uint32(bits[i] & np.uint32(0x7FFFFFFF))
            small = min(small, np.uint32(size - np.uint32(1)))  # of 0, the largest there is
            large = max(large, size)
        if usual and small >= SMALLEST - np.uint32(1) and large <= LARGEST:
            for i in range(start, start + count):
                v = x[i]
                about = np.float32(v * reciprocal)
                near = fma(fma(-about, divisor, v), reciprocal, about)
                exact = fma(fma(-near, divisor, v), reciprocal, near)
                x[i] = copysign_f4(exact, about)  # a remainder of 0 makes +0 of -0
        else:
            for i in range(start, start + count):
                x[i] = np.float32(x[i] / divisor)
        start += count


def divide_plainly(address, n, divisor):
    """As divide_row, where there is no fused multiply-add, or where a rounded reciprocal will do."""
    x = ptr_float32(address)
    for i in range(n):
        x[i] = np.float32(x[i] / divisor)
