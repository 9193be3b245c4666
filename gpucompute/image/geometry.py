"""Cutting, padding and mirroring, in torchvision's meanings, of arrays of any numeric dtype."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .chunked import takes_chunks
from .inputs import Image, as_images, outputs
from .steps import PADDING, CenterCrop, Crop, HorizontalFlip, Index, Pad, Step, VerticalFlip, View, per_channel


@takes_chunks
def crop(images: Any, top: int, left: int, height: int, width: int) -> Any:
    """Cut out `height` rows from `top` and `width` columns from `left`; what lies outside the images is 0.

    Parameters
    ----------
    images : (H, W), (H, W, C) or (N, H, W, C) array, or list of (H, W[, C]) arrays
    top, left : int
        May be negative.
    height, width : int
        Of the result, in pixels.

    Returns
    -------
    new array or list of new arrays

    Examples
    --------
    >>> import numpy as np
    >>> from gpucompute.image import crop
    >>> crop(np.arange(12).reshape(3, 4), 1, 2, 2, 3)
    array([[ 6,  7,  0],
           [10, 11,  0]])
    """
    return _apply(Crop(top, left, height, width), images)


@takes_chunks
def center_crop(images: Any, size: int | Sequence[int]) -> Any:
    """Cut out the middle of `size`, an int or (height, width), as torchvision's ``center_crop``.

    The offset is half of what is too much, rounded half to even; images that are too small are padded with 0.

    Examples
    --------
    >>> import numpy as np
    >>> from gpucompute.image import center_crop
    >>> center_crop(np.arange(25).reshape(5, 5), (1, 2))
    array([[12, 13]])
    """
    return _apply(CenterCrop(size), images)


@takes_chunks
def pad(
    images: Any, padding: int | Sequence[int], fill: float | Sequence[float] = 0, padding_mode: str = "constant"
) -> Any:
    """Add a border, as torchvision's ``pad``.

    Parameters
    ----------
    images : array or list of arrays
        As in `crop`.
    padding : int or sequence of int
        All sides; or (left and right, top and bottom); or (left, top, right, bottom). In pixels.
    fill : number or sequence of numbers
        The border, or one for each channel, in the mode "constant".
    padding_mode : {"constant", "edge", "reflect", "symmetric"}
        As in `numpy.pad`.

    Examples
    --------
    >>> import numpy as np
    >>> from gpucompute.image import pad
    >>> pad(np.array([[1, 2]]), (1, 0), fill=9)
    array([[9, 1, 2, 9]])
    """
    return _apply(Pad(padding, fill, padding_mode), images)


@takes_chunks
def horizontal_flip(images: Any) -> Any:
    """Mirror left and right.

    Examples
    --------
    >>> import numpy as np
    >>> from gpucompute.image import horizontal_flip
    >>> horizontal_flip(np.array([[1, 2, 3]]))
    array([[3, 2, 1]])
    """
    return _apply(HorizontalFlip(), images)


@takes_chunks
def vertical_flip(images: Any) -> Any:
    """Mirror up and down.

    Examples
    --------
    >>> import numpy as np
    >>> from gpucompute.image import vertical_flip
    >>> vertical_flip(np.array([[1], [2]]))
    array([[2],
           [1]])
    """
    return _apply(VerticalFlip(), images)


def _apply(step: Step, images: Any) -> Any:
    given = as_images(images, None)
    views = [View.of(*shape) for shape in given.shapes]
    for view in views:
        step.apply(view)
    results, formed = outputs(given, [(view.height, view.width, view.channels) for view in views])
    for item, view, result in zip(given.items, views, results, strict=False):
        last = view.passes[-1]
        _take(item, last.rows, last.columns, per_channel(last.fill, view.channels, "fill"), result)
    return formed


def _take(image: Image, rows: Index, columns: Index, fill: tuple[float, ...], out: NDArray[Any]) -> None:
    if PADDING in rows or PADDING in columns:
        out[...] = fill
    y, x = np.flatnonzero(rows != PADDING), np.flatnonzero(columns != PADDING)
    if len(y) and len(x):  # padding lies at the ends only
        out[y[0] : y[-1] + 1, x[0] : x[-1] + 1] = image[rows[y]][:, columns[x]]
