"""`resize`: Pillow's resampling, for arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import OptionError
from .chunked import takes_chunks
from .coefficients import check_interpolation, nearest_index, vertical_first, windows
from .inputs import Image, as_images, on_gpu, outputs, pair

Box = tuple[float, float, float, float]


def target_size(size: int | Sequence[int], height: int, width: int) -> tuple[int, int]:
    """Return the (height, width) that `size` means for an image: a pair, or torchvision's rule for its shorter side."""
    if not isinstance(size, int | np.integer):
        return pair(size, "size")
    short, _ = pair(size, "size")
    if height <= width:
        return short, max(1, int(short * width / height))
    return max(1, int(short * height / width)), short


def check_box(box: Sequence[float] | None, height: int, width: int, name: str) -> Box:
    """Return `box`, or the whole image's, with edges rounded to float32 as Pillow holds them."""
    if box is None:
        return 0.0, 0.0, float(width), float(height)
    edges = tuple(float(np.float32(edge)) for edge in box)
    if len(edges) != 4 or not (0 <= edges[0] < edges[2] <= width and 0 <= edges[1] < edges[3] <= height):
        raise OptionError(
            f"box={tuple(box)!r} for {name} of height {height} and width {width}: expected "
            f"(left, upper, right, lower) with 0 <= left < right <= {width} and 0 <= upper < lower <= {height}"
        )
    return edges[0], edges[1], edges[2], edges[3]


@takes_chunks
def resize(
    images: Any,
    size: int | Sequence[int],
    *,
    interpolation: str = "bilinear",
    antialias: bool = True,
    box: Sequence[float] | None = None,
) -> Any:
    """Resize images, with the bytes that Pillow's ``Image.resize`` gives.

    Parameters
    ----------
    images : (H, W), (H, W, C) or (N, H, W, C) array, or list of (H, W[, C]) arrays
        uint8 or float32 pixels; the images of a list may differ in size, channels and dtype.
    size : int or (int, int)
        Height and width in pixels, or the length of the shorter side; the longer one is then
        ``int(size * long / short)``, as in torchvision.
    interpolation : {"bilinear", "nearest", "box", "hamming", "bicubic", "lanczos"}
        The filter; bicubic has a = -0.5, lanczos three lobes.
    antialias : bool
        Whether the filter is widened when an axis shrinks. Pillow always does; without it the filter has its own
        width in input pixels, and its weights are brought to a sum of 1.
    box : (float, float, float, float), optional
        The part of each image to resize: left, upper, right, lower, in pixels. Filters reach beyond it.

    Returns
    -------
    array or list of arrays
        An array for an array, a list for a list. uint8 is equal to Pillow's to the byte, each channel on its own
        (Pillow multiplies RGBA by its alpha first; give it "CMYK" to see these bytes). float32 is equal to
        Pillow's mode "F" for each channel: sums in float64 in the order of the pixels, stored as float32 between
        the horizontal and the vertical pass. Results of images on a GPU are there, with the same bytes; a list or
        batch of any size takes two launches.

    Raises
    ------
    OptionError, ShapeError, DTypeError
        For sizes, boxes, shapes and dtypes that cannot be; a bad image of a list is named by its index.

    References
    ----------
    Pillow 13, ``src/libImaging/Resample.c`` and ``Geometry.c`` (nearest).

    Examples
    --------
    >>> import numpy as np
    >>> import gpucompute as gp
    >>> photo = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
    >>> gp.image.resize(photo, (2, 4)).shape
    (2, 4, 3)
    >>> [small.shape for small in gp.image.resize([photo, photo[:, :3]], 2)]
    [(2, 2, 3), (4, 2, 3)]
    """
    from ..launch import cpu

    check_interpolation(interpolation)
    target_size(size, 1, 1)
    if on_gpu(images):
        from . import batches

        return batches.resize(images, size, interpolation, antialias, box)
    given = as_images(images)
    items = given.items
    sizes = [target_size(size, height, width) for height, width, _ in given.shapes]
    boxes = [
        check_box(box, height, width, "images" if given.form != "list" else f"images[{i}]")
        for i, (height, width, _) in enumerate(given.shapes)
    ]
    results, formed = outputs(given, [(*side, shape[2]) for side, shape in zip(sizes, given.shapes, strict=True)])

    def body(lo: int, hi: int) -> None:
        for i in range(lo, hi):
            _resize_one(items[i], boxes[i], interpolation, antialias, results[i])

    cpu.parallel_for(body, len(items))
    return formed


def _resize_one(image: Image, box: Box, interpolation: str, antialias: bool, out: NDArray[Any]) -> None:
    height, width = out.shape[:2]
    left, upper, right, lower = box
    if (right - left, lower - upper) == (width, height) and left == int(left) and upper == int(upper):
        out[...] = image[int(upper) : int(lower), int(left) : int(right)]
        return
    from . import execution

    rows_first = vertical_first(image.shape[0], image.shape[1], height, width)
    rows = (image.shape[0], height, upper, lower)
    columns = (image.shape[1], width, left, right)
    if image.dtype == np.uint8:
        y, x = (execution.resized_axis(*axis, interpolation, antialias) for axis in (rows, columns))
        execution.run(image, y, x, execution.Store(None, False, ()), out, vertical_first=rows_first)
    elif interpolation == "nearest":
        out[...] = image[nearest_index(*rows)[:, None], nearest_index(*columns)]
    else:
        whole = [axis[0] == axis[1] and axis[2] == 0 and axis[3] == axis[1] for axis in (rows, columns)]
        y_float, x_float = (
            None if same else windows(*axis, interpolation, antialias)
            for same, axis in zip(whole, (rows, columns), strict=True)
        )
        execution.run_float(image, y_float, x_float, out, vertical_first=rows_first)
