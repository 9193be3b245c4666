"""What the image functions mean, written slowly: one pixel at a time, in the order of the definition.

Sources: Pillow 13, ``src/libImaging/Resample.c`` and ``Geometry.c``; torchvision 0.29, ``transforms/functional.py``.
"""

from __future__ import annotations

import math

import numpy as np


def _sinc(x):
    return 1.0 if x == 0 else math.sin(x * math.pi) / (x * math.pi)


def _bicubic(x):
    x = abs(x)
    if x < 1:
        return (1.5 * x - 2.5) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * -0.5 if x < 2 else 0.0


def _hamming(x):
    x = abs(x)
    if x == 0:
        return 1.0
    window = float(np.float32(0.54)) + float(np.float32(0.46)) * math.cos(x * math.pi)
    return 0.0 if x >= 1 else math.sin(x * math.pi) / (x * math.pi) * window


FILTERS = {
    "box": (0.5, lambda x: float(-0.5 < x <= 0.5)),
    "bilinear": (1.0, lambda x: max(1 - abs(x), 0.0)),
    "hamming": (1.0, _hamming),
    "bicubic": (2.0, _bicubic),
    "lanczos": (3.0, lambda x: _sinc(x) * _sinc(x / 3) if -3 <= x < 3 else 0.0),
}


def taps(size, resized, start, stop, interpolation, antialias=True):
    """Return, for each output position, the first input position and the weights from there on."""
    start, stop = np.float32(start), np.float32(stop)
    scale = float(stop - start) / resized
    if interpolation == "nearest":
        positions, position = [], float(start) + scale * 0.5
        for _ in range(resized):
            positions.append((int(position), [1.0]))
            position += scale
        return positions
    radius, function = FILTERS[interpolation]
    stretch = max(scale, 1.0) if antialias else 1.0
    result = []
    for i in range(resized):
        centre = float(start) + (i + 0.5) * scale
        first = max(int(centre - radius * stretch + 0.5), 0)
        last = min(int(centre + radius * stretch + 0.5), size)
        weights = [function((x - centre + 0.5) * (1.0 / stretch)) for x in range(first, last)]
        total = 0.0
        for weight in weights:
            total += weight
        result.append((first, [weight / total if total else weight for weight in weights]))
    return result


def _byte_row(row, windows):
    out = []
    for first, weights in windows:
        total = 1 << 21
        for x, weight in enumerate(weights, first):
            total += int(math.copysign(0.5, weight) + weight * (1 << 22)) * int(row[x])
        out.append(min(max(total >> 22, 0), 255))
    return out


def _float_row(row, windows):
    out = []
    for first, weights in windows:
        total = 0.0
        for x, weight in enumerate(weights, first):
            total += float(row[x]) * weight
        out.append(np.float32(total))
    return out


def resize(image, size, interpolation="bilinear", antialias=True, box=None):
    """Resize one (H, W) image to (height, width)."""
    height, width = image.shape
    left, upper, right, lower = box or (0, 0, width, height)
    weigh = _byte_row if image.dtype == np.uint8 else _float_row

    def columns(rows):
        if (width, left, right) == (size[1], 0, size[1]):
            return rows
        windows = taps(width, size[1], left, right, interpolation, antialias)
        return np.array([weigh(row, windows) for row in rows], image.dtype)

    def lines(rows):
        if (height, upper, lower) == (size[0], 0, size[0]):
            return rows
        windows = taps(height, size[0], upper, lower, interpolation, antialias)
        return np.array([weigh(column, windows) for column in rows.T], image.dtype).T

    rows_first = height - size[0] > max(0, 2 * (width - size[1]))
    return columns(lines(image)) if rows_first else lines(columns(image))


def resized_size(size, height, width):
    """torchvision's ``_compute_resized_output_size`` for an int."""
    short, long = (width, height) if width <= height else (height, width)
    new_short, new_long = size, int(size * long / short)
    return (new_long, new_short) if width <= height else (new_short, new_long)


def center_crop(image, height, width):
    """torchvision's ``center_crop`` of one (H, W, C) image."""
    rows, columns = image.shape[:2]
    if height > rows or width > columns:
        left = (width - columns) // 2 if width > columns else 0
        top = (height - rows) // 2 if height > rows else 0
        right = (width - columns + 1) // 2 if width > columns else 0
        bottom = (height - rows + 1) // 2 if height > rows else 0
        image = np.pad(image, ((top, bottom), (left, right), (0, 0)))
        rows, columns = image.shape[:2]
    top = round((rows - height) / 2.0)
    left = round((columns - width) / 2.0)
    return image[top : top + height, left : left + width]


def grey(image):
    """Pillow's ``rgb2l`` of (..., 3) bytes."""
    red, green, blue = (image[..., c].astype(np.int64) for c in range(3))
    return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).astype(np.uint8)
