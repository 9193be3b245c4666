"""The image functions for arrays on a GPU: what `device` is asked to do, and the results.

Nothing here waits for the GPU. Tables and descriptions go up in two copies for a whole batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..errors import DeviceError, ShapeError
from ..launch import arrays, cuda
from . import device_float
from .coefficients import vertical_first
from .device import Gpu, Source, run, target
from .execution import Store, resized_axis
from .inputs import check_image
from .pipeline import Plan, PlannedPass
from .resampling import Box, check_box, target_size

if TYPE_CHECKING:
    from .pipeline import Compose

Shape = tuple[int, int, int]


class Given(NamedTuple):
    """Images on one device, and how they came, as in `inputs.Images`."""

    device: int
    held: list[Any]  # what keeps their memory alive
    sources: list[Source]
    form: str
    flat: tuple[bool, ...]
    shapes: list[Shape]  # of the sources; of an (0, H, W, C) array, one all the same
    dtypes: list[np.dtype[Any]]  # likewise


def as_sources(images: Any, dtypes: tuple[str, ...] = ("uint8",)) -> Given:
    """Check images on a GPU as `inputs.as_images` does; they are copied only if they are not in C order."""
    if isinstance(images, list | tuple):
        for i, image in enumerate(images):
            if not arrays.on_gpu(image):
                raise DeviceError(
                    f"images[{i}] is {type(image).__name__}, and images[0] is on a GPU; move all to one place with "
                    "gpucompute.asarray(x, device=...)"
                )
        names = [f"images[{i}]" for i in range(len(images))]
        device = arrays.device_of(dict(zip(names, images, strict=True)))
        held, views = zip(*map(_contiguous, images), strict=True)
        shapes = [check_image(v.dtype, v.shape, name, dtypes) for v, name in zip(views, names, strict=True)]
        sources = [Source(v.address, shape) for v, shape in zip(views, shapes, strict=True)]
        flat = tuple(len(v.shape) == 2 for v in views)
        return Given(device, list(held), sources, "list", flat, shapes, [v.dtype for v in views])
    device = arrays.device_of({"images": images})
    array, view = _contiguous(images)
    if len(view.shape) == 4:
        shape = check_image(view.dtype, view.shape[1:], "images", dtypes)
        step = prod(shape) * view.dtype.itemsize
        sources = [Source(view.address + i * step, shape) for i in range(view.shape[0])]
        shapes = [shape] * max(len(sources), 1)
        return Given(device, [array], sources, "NHWC", (False,) * len(sources), shapes, [view.dtype] * len(shapes))
    shape = check_image(view.dtype, view.shape, "images", dtypes)
    form = "HW" if len(view.shape) == 2 else "HWC"
    return Given(device, [array], [Source(view.address, shape)], form, (form == "HW",), [shape], [view.dtype])


def _contiguous(image: Any) -> tuple[Any, arrays.View]:
    view = arrays.view(image)
    if view.contiguous:
        return image, view
    copy = image.copy(order="C")
    return copy, arrays.view(copy)


def resize(
    images: Any, size: int | Sequence[int], interpolation: str, antialias: bool, box: Sequence[float] | None
) -> Any:
    """Return what `gpucompute.image.resize` does, for images on a GPU."""
    given = as_sources(images, ("uint8", "float32"))
    sizes = [target_size(size, *shape[:2]) for shape in given.shapes]
    boxes = [
        check_box(box, *shape[:2], "images" if given.form != "list" else f"images[{i}]")
        for i, shape in enumerate(given.shapes)
    ]
    shapes = [(*side, shape[2]) for side, shape in zip(sizes, given.shapes, strict=True)]
    if given.form == "NHWC":
        out = cuda.empty((len(given.sources), *shapes[0]), given.dtypes[0], given.device)
        start, step = arrays.view(out).address if given.sources else 0, prod(shapes[0]) * given.dtypes[0].itemsize
        results, addresses = out, [start + i * step for i in range(len(given.sources))]
    else:
        formed = [shape[:2] if flat else shape for shape, flat in zip(shapes, given.flat, strict=True)]
        results = [cuda.empty(*one, given.device) for one in zip(formed, given.dtypes, strict=True)]
        addresses = [arrays.view(result).address for result in results]
    for dtype in dict.fromkeys(given.dtypes):
        chosen = [i for i in range(len(given.sources)) if given.dtypes[i] == dtype]
        sources, targets = [given.sources[i] for i in chosen], [addresses[i] for i in chosen]
        make: Any = resize_plan if dtype == np.uint8 else device_float.plan
        planned = [make(given.shapes[i], sizes[i], boxes[i], interpolation, antialias) for i in chosen]
        if dtype == np.uint8:
            places = [target(address, plan.shape, False) for address, plan in zip(targets, planned, strict=True)]
            run(Gpu(given.device), None, sources, planned, None, places)
        else:
            device_float.run(Gpu(given.device), None, sources, planned, None, targets)
    return results[0] if given.form in ("HW", "HWC") else results


def resize_plan(shape: Shape, size: tuple[int, int], box: Box, interpolation: str, antialias: bool) -> Plan:
    """Return what resizes an image of this shape."""
    height, width, channels = shape
    left, upper, right, lower = box
    y = resized_axis(height, size[0], upper, lower, interpolation, antialias)
    x = resized_axis(width, size[1], left, right, interpolation, antialias)
    store = Store(None, False, (0,) * channels)
    return Plan((PlannedPass(y, x, vertical_first(height, width, *size), store, False),), (*size, channels))


def compose(chain: Compose, given: Given, plans: Sequence[Plan], shape: tuple[int, ...], out: Any) -> Any:
    """Return the batch that a chain makes, of the given shape."""
    if out is None:
        out = cuda.empty(shape, chain.dtype, given.device)
    else:
        seen = arrays.view(out) if arrays.on_gpu(out) else None
        if seen is None or seen.shape != shape or seen.dtype != chain.dtype or not seen.contiguous or not seen.writable:
            raise ShapeError(
                f"out has shape {out.shape} and dtype {out.dtype}; expected a writeable array in C order on the GPU of "
                f"the images, of shape {shape} and dtype {chain.dtype}"
            )
    one = plans[0].shape
    targets = [target(i * prod(one), one, chain.layout == "NCHW") for i in range(len(given.sources))]
    run(Gpu(given.device), None, given.sources, plans[: len(targets)], out, targets)
    return out
