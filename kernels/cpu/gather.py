"""Indices computed inside a kernel."""

from __future__ import annotations


def checked(index, length, site, errors):
    """Return `index` counted from the start; out of range: note site, index and length, and return 0.

    errors : (3,) int64; the last index out of range wins, which is enough to raise an error.
    """
    i = index + length if index < 0 else index
    if i < 0 or i >= length:
        errors[0] = site
        errors[1] = index
        errors[2] = length
        i = 0
    return i
