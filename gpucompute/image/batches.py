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


def as_sources(images: Any) -> Given:
    """Check images on a GPU as `inputs.as_images` does: uint8, copied only if they are not in C order."""
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
        shapes = [check_image(v.dtype, v.shape, name, ("uint8",)) for v, name in zip(views, names, strict=True)]
        sources = [Source(v.address, shape) for v, shape in zip(views, shapes, strict=True)]
        return Given(device, list(held), sources, "list", tuple(len(v.shape) == 2 for v in views), shapes)
    device = arrays.device_of({"images": images})
    array, view = _contiguous(images)
    if len(view.shape) == 4:
        shape = check_image(view.dtype, view.shape[1:], "images", ("uint8",))
        step = shape[0] * shape[1] * shape[2]
        sources = [Source(view.address + i * step, shape) for i in range(view.shape[0])]
        return Given(device, [array], sources, "NHWC", (False,) * len(sources), [shape] * max(len(sources), 1))
    shape = check_image(view.dtype, view.shape, "images", ("uint8",))
    flat = len(view.shape) == 2
    return Given(device, [array], [Source(view.address, shape)], "HW" if flat else "HWC", (flat,), [shape])


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
    given = as_sources(images)
    plans = []
    for i, shape in enumerate(given.shapes):
        edges = check_box(box, *shape[:2], "images" if given.form != "list" else f"images[{i}]")
        plans.append(resize_plan(shape, target_size(size, *shape[:2]), edges, interpolation, antialias))
    if given.form == "NHWC":
        shape, count = plans[0].shape, len(given.sources)  # of an (0, H, W, C) array there is a plan all the same
        out = cuda.empty((count, *shape), np.uint8, given.device)
        if count:
            targets = [target(i * prod(shape), shape, False) for i in range(count)]
            run(Gpu(given.device), None, given.sources, plans, out, targets)
        return out
    shapes = [plan.shape[:2] if flat else plan.shape for plan, flat in zip(plans, given.flat, strict=True)]
    results = [cuda.empty(shape, np.uint8, given.device) for shape in shapes]
    addresses = [arrays.view(result).address for result in results]
    targets = [target(address, plan.shape, False) for address, plan in zip(addresses, plans, strict=True)]
    run(Gpu(given.device), None, given.sources, plans, None, targets)
    return results if given.form == "list" else results[0]


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
