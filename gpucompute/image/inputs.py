"""What the functions of this package take: one image, a batch of equal images, or a list of unequal ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..errors import DTypeError, OptionError, ShapeError

Image = NDArray[Any]  # (H, W, C)


class Images(NamedTuple):
    """Images as a list of (H, W, C) arrays, and how they came: "list", "NHWC", "HWC" or "HW"."""

    items: list[Image]
    form: str
    flat: tuple[bool, ...]  # which of them came without a channel axis
    shapes: list[tuple[int, int, int]]  # of the items; of an (0, H, W, C) array, one all the same
    dtype: np.dtype[Any]  # of the first


def on_gpu(images: Any) -> bool:
    """Whether images, a list of them or a batch, are on a GPU; of a list, whether the first is."""
    from ..launch import arrays

    if isinstance(images, list | tuple):
        return bool(images) and arrays.on_gpu(images[0])
    return arrays.on_gpu(images)


def as_images(images: Any, dtypes: tuple[str, ...] | None = ("uint8", "float32")) -> Images:
    """Check `images` and return them as a list of C-contiguous (H, W, C) arrays, copied only if they are not that.

    Parameters
    ----------
    images : array or list of arrays
    dtypes : tuple of str or None
        The dtypes that can be; None for all numbers.

    Raises
    ------
    DTypeError, ShapeError
        Naming the image of a list that is not fit, with its dtype or shape.
    """
    if isinstance(images, list | tuple):
        arrays = [_as_array(image, f"images[{i}]") for i, image in enumerate(images)]
        items = [_as_image(array, f"images[{i}]", dtypes) for i, array in enumerate(arrays)]
        flat = tuple(array.ndim == 2 for array in arrays)
        first = items[0].dtype if items else np.dtype(np.uint8)
        return Images(items, "list", flat, [_shape(item) for item in items], first)
    array = _as_array(images, "images")
    if array.ndim == 4:
        items = [_as_image(image, "images", dtypes) for image in array]
        one = items[0] if items else _as_image(np.empty(array.shape[1:], array.dtype), "images", dtypes)
        return Images(items, "NHWC", (False,) * len(items), [_shape(one)] * max(len(items), 1), one.dtype)
    image = _as_image(array, "images", dtypes)
    return Images([image], "HW" if array.ndim == 2 else "HWC", (array.ndim == 2,), [_shape(image)], image.dtype)


def _shape(image: Image) -> tuple[int, int, int]:
    height, width, channels = image.shape
    return height, width, channels


def _as_array(image: Any, name: str) -> NDArray[Any]:
    array = np.asarray(image)
    if array.dtype == object:
        raise DTypeError(
            f"{name} is {type(image).__name__}, not an array of pixels; give a (H, W, C) array, an (N, H, W, C) batch "
            f"or a list of (H, W, C) arrays"
        )
    return array


def _as_image(array: NDArray[Any], name: str, dtypes: tuple[str, ...] | None) -> Image:
    shape = check_image(array.dtype, array.shape, name, dtypes)
    return np.ascontiguousarray(array.reshape(shape), dtype=array.dtype.newbyteorder("="))


def check_image(
    dtype: np.dtype[Any], shape: tuple[int, ...], name: str, dtypes: tuple[str, ...] | None
) -> tuple[int, int, int]:
    """Return (height, width, channels) of an array of this dtype and shape, if it can be an image."""
    if dtypes is None and dtype.kind not in "biufc":
        raise DTypeError(f"{name} has dtype {dtype}; expected numbers")
    if dtypes is not None and dtype.name not in dtypes:
        raise DTypeError(
            f"{name} has dtype {dtype} and shape {shape}; expected {' or '.join(dtypes)}: "
            f"convert it, for instance with .astype(np.{dtypes[0]})"
        )
    if len(shape) not in (2, 3):
        raise ShapeError(
            f"{name} has shape {shape}; expected (height, width, channels) or (height, width), "
            f"or a batch (N, height, width, channels)"
        )
    height, width, channels = (*shape, 1)[:3]
    if 0 in (height, width, channels):
        raise ShapeError(
            f"{name} has shape {(height, width, channels)}; expected at least one row, one column and one channel"
        )
    return height, width, channels


def outputs(
    images: Images, shapes: Sequence[tuple[int, int, int]], dtype: DTypeLike | None = None
) -> tuple[list[Image], Any]:
    """Return an uninitialised result of each shape, and all of them in the form in which the images came.

    The results have `dtype`, or the images' own. A list for a list, an array for an array; an image without a
    channel axis for one without.
    """
    from .. import memory

    if images.form == "NHWC":
        batch = memory.empty((len(images.items), *shapes[0]), dtype or images.dtype)
        return list(batch), batch
    results = [memory.empty(shape, dtype or item.dtype) for shape, item in zip(shapes, images.items, strict=True)]
    formed = [result[:, :, 0] if flat else result for result, flat in zip(results, images.flat, strict=True)]
    return results, formed if images.form == "list" else formed[0]


def pair(value: Any, name: str, *, minimum: int = 1) -> tuple[int, int]:
    """Return `value`, an int or a pair of ints, as (height, width)."""
    sides = (value, value) if isinstance(value, int | np.integer) else value
    if (
        not isinstance(sides, Sequence | np.ndarray)
        or len(sides) != 2
        or not all(isinstance(side, int | np.integer) and side >= minimum for side in sides)
    ):
        raise OptionError(f"{name}={value!r}: expected an int or a pair (height, width) of ints, {minimum} or more")
    return int(sides[0]), int(sides[1])
