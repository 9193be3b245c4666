"""Kernels on single pixels: grey, and look-up in a table of each channel."""

from __future__ import annotations

from typing import Any

from numpy import uint8, uint32

Array = Any


def grey(pixels: Array, out: Array, lo: int, hi: int) -> None:
    """pixels: (n, 3) uint8 -> out[lo:hi]: (n,) uint8: Pillow's "L", whose weights add up to 2**16."""
    for i in range(lo, hi):
        total = uint32(19595) * pixels[i, 0] + uint32(38470) * pixels[i, 1] + uint32(7471) * pixels[i, 2]
        out[i] = uint8((total + uint32(1 << 15)) >> uint32(16))


def look_up(pixels: Array, table: Array, out: Array, lo: int, hi: int, channels: Any) -> None:
    """pixels: (n, C) uint8, table: (C, 256) T, channels: a tuple of length C -> out[lo:hi]: (n, C) T."""
    for i in range(lo, hi):
        for c in range(len(channels)):
            out[i, c] = table[c, pixels[i, c]]
