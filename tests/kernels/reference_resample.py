"""What one pass of the resample kernels means, one output value at a time.

Source: Pillow 13, ``src/libImaging/Resample.c`` (``ImagingResampleHorizontal_8bpc`` and ``..Vertical_8bpc``, and those
of ``_32bpc``).
"""

from __future__ import annotations

import numpy as np


def weigh(values, axis):
    """values: (n, ...) bytes -> (axis.count, ...): sums of neighbours in units of 2**-22, rounded and cut to a byte."""
    out = np.zeros((axis.count, *values.shape[1:]), np.uint8)
    for i in range(axis.count):
        total = np.full(values.shape[1:], 1 << 21, np.int64)
        for j, weight in enumerate(axis.weights[i].tolist()):
            if weight:  # taps that pad a row may lie outside
                total += weight * values[axis.first[i] + j].astype(np.int64)
        out[i] = np.clip(total >> 22, 0, 255)
    return out


def one_pass(image, planned):
    """image: (H, W, C) bytes -> what a `PlannedPass` makes of it: (H, W, C), or (C, H, W) if it stores planes."""
    y, x, store = planned.y, planned.x, planned.store
    passes = [(0, y), (1, x)] if planned.vertical_first else [(1, x), (0, y)]
    inner = image
    for number, axis in passes:
        inner = np.moveaxis(weigh(np.moveaxis(inner, number, 0), axis), 0, number)
    out = np.empty((y.total, x.total, image.shape[2]), np.uint8)
    out[:] = store.fill
    out[y.before : y.before + y.count, x.before : x.before + x.count] = inner
    if planned.grey:
        red, green, blue = (out[..., c].astype(np.int64) for c in range(3))
        out = ((19595 * red + 38470 * green + 7471 * blue + (1 << 15)) >> 16).astype(np.uint8)[..., None]
    if store.table is not None:
        out = np.stack([store.table[c][out[..., c]] for c in range(out.shape[2])], axis=2)
    return np.moveaxis(out, 2, 0) if store.planes else out


def float_pass(values, places, weights):
    """values: (n, ...) float32 -> (count, ...): sums of `taps` neighbours in float64, in order, rounded once."""
    out = np.zeros((len(places), *values.shape[1:]), np.float32)
    for i, (first, taps) in enumerate(places.tolist()):
        if weights is None:
            out[i] = values[first]
            continue
        total = np.zeros(values.shape[1:], np.float64)
        for j in range(taps):
            total = total + values[first + j].astype(np.float64) * weights[i, j]
        out[i] = total.astype(np.float32)
    return out


def float_resize(image, plan):
    """image: (H, W, C) float32 -> what a `device_float.Resize` makes of it."""
    lanes = [(0, plan.y), (1, plan.x)] if plan.rows_first else [(1, plan.x), (0, plan.y)]
    for axis, lane in lanes:
        if lane is not None:
            image = np.moveaxis(float_pass(np.moveaxis(image, axis, 0), *lane), 0, axis)
    return image


def chain(image, plan):
    for planned in plan.passes:
        image = one_pass(image, planned)
    return image
