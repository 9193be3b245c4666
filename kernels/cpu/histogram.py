"""Counts of numbers between edges.

Bin i holds ``edges[i] <= x < edges[i + 1]``, the last one its right edge too; NaNs and what lies outside are not
counted. x: (n,) -> counts: (bins,) int64, added to; x and edges have one dtype.
"""

from __future__ import annotations

from typing import Any

from numpy import float64, int64

Array = Any


def count_even(x: Array, edges: Array, first: float, scale: float, counts: Array) -> None:
    """Count between edges that lie evenly: ``(x - first) * scale`` is the bin, or a neighbour of it."""
    bins = counts.shape[0]
    least, most = edges[0], edges[bins]
    for i in range(x.shape[0]):
        value = x[i]
        if least <= value <= most:
            place = (float64(value) - first) * scale
            j = int64(place) if place < bins else bins - 1
            while value < edges[j]:
                j -= 1
            while j < bins - 1 and value >= edges[j + 1]:
                j += 1
            counts[j] += 1


def count_between(x: Array, edges: Array, counts: Array) -> None:
    """Count between edges that ascend."""
    bins = counts.shape[0]
    least, most = edges[0], edges[bins]
    for i in range(x.shape[0]):
        value = x[i]
        if least <= value <= most:
            low, length = int64(0), bins
            while length > 1:  # the last edge that is not above the value lies in edges[low:low + length]
                half = length >> 1
                low += half if edges[low + half] <= value else 0
                length -= half
            counts[low] += 1
