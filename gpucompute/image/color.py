"""Colours and ranges: grey, and bytes to numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import ShapeError
from .chunked import takes_chunks
from .inputs import as_images, outputs
from .steps import Normalize, ToFloat

CHUNK = 1 << 15  # pixels: about 20 µs


@takes_chunks
def rgb_to_grayscale(images: Any) -> Any:
    """Make RGB images grey, with the bytes of Pillow's ``convert("L")``.

    Parameters
    ----------
    images : (H, W, 3) or (N, H, W, 3) uint8 array, or list of (H, W, 3) uint8 arrays

    Returns
    -------
    (H, W, 1) or (N, H, W, 1) array, or list of arrays
        ``(19595 R + 38470 G + 7471 B + 2**15) >> 16`` (ITU-R 601-2). torchvision's tensors cut the fraction off
        instead of rounding, and are 1 less for about half of all colours.

    Examples
    --------
    >>> import numpy as np
    >>> from gpucompute.image import rgb_to_grayscale
    >>> rgb_to_grayscale(np.array([[[255, 0, 0], [0, 255, 0]]], np.uint8))[..., 0]
    array([[ 76, 150]], dtype=uint8)
    """
    from ..kernels.cpu import pixels
    from ..launch import cpu

    given = as_images(images, ("uint8",))
    for i, shape in enumerate(given.shapes):
        if shape[2] != 3:
            name = f"images[{i}]" if given.form == "list" else "images"
            raise ShapeError(f"{name} has shape {shape} and so {shape[2]} channels: expected 3 (red, green, blue)")
    grey = cpu.compile(pixels.grey)
    results, formed = outputs(given, [(height, width, 1) for height, width, _ in given.shapes])
    for item, result in zip(given.items, results, strict=False):
        source, flat = item.reshape(-1, 3), result.reshape(-1)
        source.flags.writeable = False

        def body(lo: int, hi: int, source: Any = source, flat: Any = flat) -> None:
            grey(source, flat, lo, hi)

        cpu.parallel_for(body, flat.size, chunk=CHUNK)
    return formed


@takes_chunks
def to_float(images: Any) -> Any:
    """Convert bytes to float32 from 0 to 1: ``x / 255``. float32 comes back as a copy.

    Parameters
    ----------
    images : (H, W), (H, W, C) or (N, H, W, C) array, or list of (H, W[, C]) arrays
        uint8 or float32.

    Examples
    --------
    >>> import numpy as np
    >>> from gpucompute.image import to_float
    >>> to_float(np.array([[0, 51, 255]], np.uint8))
    array([[0. , 0.2, 1. ]], dtype=float32)
    """
    return _scaled(images, ToFloat())


@takes_chunks
def normalize(images: Any, mean: float | Sequence[float], std: float | Sequence[float]) -> Any:
    """Subtract `mean` and divide by `std`, as float32; bytes are divided by 255 first.

    Parameters
    ----------
    images : (H, W), (H, W, C) or (N, H, W, C) array, or list of (H, W[, C]) arrays
        uint8: ``(x / 255 - mean) / std``; float32: ``(x - mean) / std``. Computed in float64 and rounded once.
    mean, std : number or sequence of numbers
        For all channels, or one for each.

    Returns
    -------
    float32 array or list of arrays
        Of the same layout.

    Examples
    --------
    >>> import numpy as np
    >>> from gpucompute.image import normalize
    >>> normalize(np.array([[0, 255]], np.uint8), mean=0.5, std=0.25)
    array([[-2.,  2.]], dtype=float32)
    """
    return _scaled(images, Normalize(mean, std))


def _scaled(images: Any, step: Normalize | ToFloat) -> Any:
    from ..kernels.cpu import pixels
    from ..launch import cpu

    given = as_images(images)
    look_up = cpu.compile(pixels.look_up)
    results, formed = outputs(given, given.shapes, np.float32)
    for item, result in zip(given.items, results, strict=False):
        channels = item.shape[2]
        if item.dtype != np.uint8:
            result[...] = step.scaled(item.astype(np.float64))
            continue
        table = step.table(channels).astype(np.float32)
        source, flat = item.reshape(-1, channels), result.reshape(-1, channels)
        source.flags.writeable = False

        def body(lo: int, hi: int, source: Any = source, table: Any = table, flat: Any = flat) -> None:
            look_up(source, table, flat, lo, hi, (0,) * flat.shape[1])

        cpu.parallel_for(body, len(flat), chunk=CHUNK)
    return formed
