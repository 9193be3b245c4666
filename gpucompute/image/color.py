"""Colours and ranges: grey, and bytes to numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import ShapeError
from .inputs import as_images, restore
from .steps import Normalize, ToFloat

GREY_CHUNK = 1 << 16  # pixels: about 20 µs


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
    from .. import memory
    from ..kernels.cpu import pixels
    from ..launch import cpu

    given = as_images(images, ("uint8",))
    shapes = [item.shape for item in given.items] or [np.shape(images)[1:]]
    for i, shape in enumerate(shapes):
        if shape[2] != 3:
            name = f"images[{i}]" if given.form == "list" else "images"
            raise ShapeError(f"{name} has shape {shape} and so {shape[2]} channels: expected 3 (red, green, blue)")
    grey = cpu.compile(pixels.grey)
    batch = memory.empty((len(given.items), *shapes[0][:2], 1), np.uint8) if given.form == "NHWC" else None
    results = list(batch) if batch is not None else [memory.empty((*shape[:2], 1), np.uint8) for shape in shapes]
    for item, result in zip(given.items, results, strict=False):
        source = item.reshape(-1, 3)
        source.flags.writeable = False
        flat = result.reshape(-1)
        cpu.parallel_for(lambda lo, hi, s=source, f=flat: grey(s, f, lo, hi), flat.size, chunk=GREY_CHUNK)
    return restore(results, given) if batch is None else batch
