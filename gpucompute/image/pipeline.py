"""`Compose`: a chain of steps on a batch of images of any sizes, in one pass over each image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..errors import DTypeError, OptionError, ShapeError
from .chunked import is_chunked, over_chunks
from .coefficients import ONE, FixedWindows, fixed_windows, vertical_first
from .inputs import Image, as_images, on_gpu
from .resampling import target_size
from .steps import PADDING, Index, Normalize, Pass, Step, ToFloat, View, per_channel

if TYPE_CHECKING:
    from .execution import Axis, Store

DTYPES = ("uint8", "float16", "float32")
LAYOUTS = ("NCHW", "NHWC")
PLANS = 256  # image shapes whose tables are kept; about 15 kB each for Resize(256), CenterCrop(224)


@dataclass(frozen=True)
class PlannedPass:
    """The tables of one run of the kernels."""

    y: Axis
    x: Axis
    vertical_first: bool
    store: Store
    grey: bool


@dataclass(frozen=True)
class Plan:
    """What is done to images of one shape, and the (height, width, channels) that it makes."""

    passes: tuple[PlannedPass, ...]
    shape: tuple[int, int, int]


class Compose:
    """A chain of steps that makes a batch of images of any sizes into one array.

    Parameters
    ----------
    steps : sequence of steps
        `Resize`, `Crop`, `CenterCrop`, `Pad`, `HorizontalFlip`, `VerticalFlip`, `Grayscale`, and at the end at most
        one of `Normalize` and `ToFloat`.
    dtype : {"float32", "float16", "uint8"}
        Of the result. Without `Normalize` or `ToFloat` the bytes 0 to 255 are converted as they are.
    layout : {"NCHW", "NHWC"}
        Of the result.

    Notes
    -----
    Only the rows and columns that survive the crops are computed, and nothing is stored but the bytes between the
    two passes of a resize, which Pillow's definition rounds, and the result. A chain is cut, and its image so far
    stored as bytes, before a second `Resize`, before a `Resize` of a flipped or padded image, where two paddings
    differ in their fill or the second repeats the first, and after `Grayscale`.

    Examples
    --------
    >>> import numpy as np
    >>> from gpucompute.image import CenterCrop, Compose, Normalize, Resize
    >>> chain = Compose([Resize(32), CenterCrop(28), Normalize(mean=[0.5, 0.5, 0.5], std=[0.25, 0.25, 0.25])])
    >>> photos = [np.zeros((40, 60, 3), np.uint8), np.full((70, 50, 3), 255, np.uint8)]
    >>> batch = chain(photos)
    >>> batch.shape, batch.dtype, float(batch[0, 0, 0, 0]), float(batch[1, 0, 0, 0])
    ((2, 3, 28, 28), dtype('float32'), -2.0, 2.0)
    """

    def __init__(self, steps: Sequence[Step], dtype: DTypeLike = "float32", layout: str = "NCHW") -> None:
        self.steps = tuple(steps)
        for i, step in enumerate(self.steps):
            if not isinstance(step, Step):
                raise OptionError(
                    f"step {i} of Compose is {step!r}: expected steps such as Resize(256) or CenterCrop(224)"
                )
            if isinstance(step, Normalize | ToFloat) and i + 1 < len(self.steps):
                raise OptionError(
                    f"step {i} of Compose, {step!r}, must be the last, and "
                    f"{self.steps[i + 1]!r} follows; move it to the end"
                )
        try:
            self.dtype = np.dtype(dtype)
        except TypeError:
            self.dtype = np.dtype(object)
        if self.dtype.name not in DTYPES:
            raise OptionError(f"Compose(dtype={dtype!r}): expected one of {', '.join(DTYPES)}")
        if self.dtype == np.uint8 and self.steps and isinstance(self.steps[-1], Normalize | ToFloat):
            raise OptionError(
                f"Compose(dtype='uint8') cannot hold the fractions of {self.steps[-1]!r}; use float32 or float16"
            )
        if layout not in LAYOUTS:
            raise OptionError(f"Compose(layout={layout!r}): expected one of {', '.join(LAYOUTS)}")
        self.layout = layout
        self.__name__ = "compose"  # what Dask calls the tasks of map_blocks, which else bear the repr
        self._plan = lru_cache(maxsize=PLANS)(self._make_plan)

    def __repr__(self) -> str:
        return f"Compose([{', '.join(map(repr, self.steps))}], dtype={self.dtype.name!r}, layout={self.layout!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return Compose, (self.steps, self.dtype.name, self.layout)

    def __dask_tokenize__(self) -> Any:
        return "gpucompute.Compose", *self.__reduce__()[1]

    def __call__(self, images: Any, *, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Return the batch that the chain makes of `images`.

        Parameters
        ----------
        images : list of (H, W[, C]) uint8 arrays, or an (N, H, W, C) uint8 array
            A single (H, W[, C]) array counts as a batch of one. Images without a channel axis have one channel.
            NumPy's arrays, or arrays on a GPU, where the result then is; its bits are the same. Of an (N, H, W, C)
            Dask array the result is a lazy one, cut as that is along N, with a task for each chunk.
        out : array, optional
            The result, in C order and of fitting shape and dtype, to be overwritten.

        Returns
        -------
        (N, C, H, W) or (N, H, W, C) array

        Raises
        ------
        ShapeError, DTypeError
            If an image is not fit, or its result would differ in shape from that of the first; the index is named.
        OptionError
            If `out` is given with a Dask array.
        """
        from .. import memory
        from ..launch import cpu

        if is_chunked(images):
            if out is not None:
                raise OptionError("Compose got out= with a Dask array, which cannot be written to; use its result")
            lazy: NDArray[Any] = over_chunks(self, images)
            return lazy
        if on_gpu(images):
            from . import batches

            sources = batches.as_sources(images)
            plans, shape = self._plans(sources.shapes, len(sources.sources), sources.form)
            result: NDArray[Any] = batches.compose(self, sources, plans, shape, out)
            return result
        given = as_images(images, ("uint8",))
        plans, shape = self._plans(given.shapes, len(given.items), given.form)
        if out is None:
            out = memory.empty(shape, self.dtype)
        elif out.shape != shape or out.dtype != self.dtype or not out.flags.c_contiguous or not out.flags.writeable:
            raise ShapeError(
                f"out has shape {out.shape} and dtype {out.dtype}; expected a writeable array in C order of shape "
                f"{shape} and dtype {self.dtype}"
            )
        stored = out.view(np.uint16) if self.dtype == np.float16 else out  # numba has no float16 on the CPU

        def body(lo: int, hi: int) -> None:
            for i in range(lo, hi):
                _run_plan(plans[i], given.items[i], stored[i])

        cpu.parallel_for(body, len(given.items))
        return out

    def _plans(
        self, shapes: Sequence[tuple[int, int, int]], count: int, form: str
    ) -> tuple[list[Plan], tuple[int, ...]]:
        """Return what is done to images of these shapes, and the shape of the batch of `count` of them."""
        if not shapes:
            raise ShapeError(
                "Compose got an empty list, and cannot tell the channels of the result; skip empty batches"
            )
        plans = [self._planned(shape, i if form == "list" else None) for i, shape in enumerate(shapes)]
        for i, plan in enumerate(plans):
            if plan.shape != plans[0].shape:
                raise ShapeError(
                    f"images[{i}] of shape {shapes[i]} becomes {plan.shape} where images[0] of shape {shapes[0]} "
                    f"becomes {plans[0].shape} (height, width, channels): end with one size for all, for instance by "
                    f"CenterCrop(224) after Resize(256), and bring all images to the same number of channels"
                )
        height, width, channels = plans[0].shape
        one = (channels, height, width) if self.layout == "NCHW" else plans[0].shape
        return plans, (count, *one)

    def describe(self, height: int, width: int, channels: int = 3) -> str:
        """Return, as text, what is done to an image of this shape: the passes, and the pixels that each reads.

        Examples
        --------
        >>> from gpucompute.image import CenterCrop, Compose, Resize
        >>> print(Compose([Resize(256), CenterCrop(224)]).describe(375, 500))
        (375, 500, 3) uint8
        pass 1: rows 23 to 352, columns 84 to 414 -> (224, 224, 3), taps 3 x 3, columns first
        -> (3, 224, 224) float32
        """
        plan = self._planned((height, width, channels), None)
        lines = [f"({height}, {width}, {channels}) uint8"]
        for i, one in enumerate(plan.passes):
            order = "rows first" if one.vertical_first else "columns first"
            lines.append(
                f"pass {i + 1}: rows {one.y.start} to {one.y.stop}, columns {one.x.start} to {one.x.stop} -> "
                f"({one.y.total}, {one.x.total}, {len(one.store.fill)}), taps {one.y.taps} x {one.x.taps}, {order}"
                + (", then grey" if one.grey else "")
            )
        height, width, channels = plan.shape
        shape = (channels, height, width) if self.layout == "NCHW" else plan.shape
        return "\n".join([*lines, f"-> {shape} {self.dtype.name}"])

    def _planned(self, shape: tuple[int, ...], index: int | None) -> Plan:
        with _naming(index):
            return self._plan(*shape)

    def _make_plan(self, height: int, width: int, channels: int) -> Plan:
        from .execution import Store

        view = View.of(height, width, channels)
        for step in self.steps:
            step.apply(view)
        *before, last = (_plan_pass(one, Store(None, False, _bytes(one.fill, one.channels))) for one in view.passes)
        table = None
        if view.normalize is not None:
            table = view.normalize.table(view.channels).astype(self.dtype)
        elif self.dtype != np.uint8:
            table = np.tile(np.arange(256).astype(self.dtype), (view.channels, 1))
        if table is not None and self.dtype == np.float16:
            table = table.view(np.uint16)  # numba has no float16 on the CPU
        last = replace(last, store=last.store._replace(table=table, planes=self.layout == "NCHW"))
        return Plan((*before, last), (view.height, view.width, view.channels))


@contextmanager
def _naming(index: int | None) -> Iterator[None]:
    """Begin an error's text with the image that it is about."""
    try:
        yield
    except (ShapeError, DTypeError) as error:
        if index is None:
            raise
        raise type(error)(f"images[{index}]: {error}") from None


def _bytes(fill: tuple[float, ...], channels: int) -> tuple[int, ...]:
    if not all(0 <= value <= 255 and value == int(value) for value in fill):
        raise OptionError(f"Pad(fill={fill!r}) in a Compose: expected whole numbers from 0 to 255")
    return tuple(int(value) for value in per_channel(fill, channels, "fill"))


def _plan_pass(one: Pass, store: Store) -> PlannedPass:
    top, left, bottom, right = one.window or (0, 0, one.height, one.width)
    if one.resize is None:
        y, x = (_plan_axis(index, size, 0, None) for index, size in ((one.rows, one.height), (one.columns, one.width)))
        return PlannedPass(y, x, False, store, one.grey)
    height, width = target_size(one.resize.size, bottom - top, right - left)
    filters = (one.resize.interpolation, one.resize.antialias)
    y = _plan_axis(one.rows, bottom, top, fixed_windows(bottom - top, height, 0.0, float(bottom - top), *filters))
    x = _plan_axis(one.columns, right, left, fixed_windows(right - left, width, 0.0, float(right - left), *filters))
    return PlannedPass(y, x, vertical_first(bottom - top, right - left, height, width), store, one.grey)


def _plan_axis(index: Index, stop: int, start: int, windows: FixedWindows | None) -> Axis:
    """Return the axis that takes `index` from the windows, which begin at `start`, or from the image itself."""
    from .execution import Axis

    taken = index[index != PADDING]
    before = int(np.argmax(index != PADDING)) if len(taken) else 0
    if windows is None:
        return Axis(taken.astype(np.int32), np.full((len(taken), 1), ONE, np.int32), stop, before, len(index))
    first = windows.first[taken] + np.int32(start)
    return Axis(first, windows.weights[taken], stop, before, len(index))


def _run_plan(plan: Plan, image: Image, out: NDArray[Any]) -> None:
    from .. import memory
    from . import execution
    from .color import rgb_to_grayscale

    for i, one in enumerate(plan.passes):
        final = i + 1 == len(plan.passes)
        target = out if final else memory.empty((one.y.total, one.x.total, image.shape[2]), np.uint8)
        execution.run(image, one.y, one.x, one.store, target, vertical_first=one.vertical_first)
        image = rgb_to_grayscale(target) if one.grey else target
