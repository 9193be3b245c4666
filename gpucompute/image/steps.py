"""The steps of a `Compose`: what each does to the axes of an image, before any pixel is touched.

A `View` follows one image through the steps. Every geometric step only rewrites, for each axis, the list of the
positions that the output takes from the (resized) image; -1 stands for padding. Where that is not enough, because a
step needs pixels that earlier steps have made, the view is cut into a further `Pass`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import OptionError, ShapeError
from .coefficients import check_interpolation
from .inputs import pair
from .resampling import target_size

Index = NDArray[np.int64]
PADDING = -1


@dataclass
class Pass:
    """One run of the kernels: cut a window out, resize it, take rows and columns; perhaps then make it grey."""

    height: int
    width: int
    channels: int
    rows: Index
    columns: Index
    window: tuple[int, int, int, int] | None = None  # top, left, bottom, right
    resize: Resize | None = None
    fill: tuple[float, ...] = (0,)
    grey: bool = False


@dataclass
class View:
    """One image on its way: the passes so far, of which the last is still being added to."""

    passes: list[Pass]
    normalize: Normalize | ToFloat | None = None

    @classmethod
    def of(cls, height: int, width: int, channels: int) -> View:
        return cls([Pass(height, width, channels, np.arange(height), np.arange(width))])

    @property
    def channels(self) -> int:
        return 1 if self.passes[-1].grey else self.passes[-1].channels

    @property
    def height(self) -> int:
        return len(self.passes[-1].rows)

    @property
    def width(self) -> int:
        return len(self.passes[-1].columns)

    def cut(self) -> Pass:
        """End the pass in work and begin another on its result."""
        self.passes.append(View.of(self.height, self.width, self.channels).passes[0])
        return self.passes[-1]

    def take(self, rows: Index, columns: Index, fill: tuple[float, ...] = (0,)) -> None:
        """Let the output be these rows and columns of what it was; PADDING becomes `fill`."""
        last = self.passes[-1]
        if PADDING in rows or PADDING in columns:
            if last.fill != fill and (PADDING in last.rows or PADDING in last.columns):
                last = self.cut()
            last.fill = fill
        last.rows = np.where(rows == PADDING, PADDING, last.rows[rows])
        last.columns = np.where(columns == PADDING, PADDING, last.columns[columns])


class Step:
    """A step of a `Compose`."""

    def apply(self, view: View) -> None:
        """Add this step to `view`."""
        raise NotImplementedError


@dataclass(frozen=True)
class Resize(Step):
    """Resize as `resize` does: to (height, width), or the shorter side to an int, as torchvision's ``Resize``."""

    size: int | Sequence[int]
    interpolation: str = "bilinear"
    antialias: bool = True

    def __post_init__(self) -> None:
        target_size(self.size, 1, 1)
        check_interpolation(self.interpolation)

    def apply(self, view: View) -> None:
        last = view.passes[-1]
        window = None if last.resize is not None else _window(last)
        if window is None:
            last = view.cut()
            window = (0, 0, last.height, last.width)
        height, width = target_size(self.size, window[2] - window[0], window[3] - window[1])
        last.window, last.resize = window, self
        last.rows, last.columns = np.arange(height), np.arange(width)


def _window(last: Pass) -> tuple[int, int, int, int] | None:
    """Return the window that an unresized pass cuts out, or None if it does more than that."""
    for index in (last.rows, last.columns):
        if not len(index) or index[0] == PADDING or not np.array_equal(index, index[0] + np.arange(len(index))):
            return None
    return int(last.rows[0]), int(last.columns[0]), int(last.rows[-1]) + 1, int(last.columns[-1]) + 1


@dataclass(frozen=True)
class Crop(Step):
    """Cut out rows from `top` and columns from `left`; what lies outside the image is 0, as torchvision's ``crop``."""

    top: int
    left: int
    height: int
    width: int

    def __post_init__(self) -> None:
        pair((self.height, self.width), "(height, width)")
        if not all(isinstance(n, int | np.integer) for n in (self.top, self.left)):
            raise OptionError(f"top={self.top!r}, left={self.left!r}: expected ints, in pixels")

    def apply(self, view: View) -> None:
        rows, columns = (
            int(start) + np.arange(size) for start, size in ((self.top, self.height), (self.left, self.width))
        )
        rows[(rows < 0) | (rows >= view.height)] = PADDING
        columns[(columns < 0) | (columns >= view.width)] = PADDING
        view.take(rows, columns)


@dataclass(frozen=True)
class CenterCrop(Step):
    """Cut out the middle, as torchvision's ``CenterCrop``.

    Offsets are rounded half to even; smaller images are padded with 0.
    """

    size: int | Sequence[int]

    def __post_init__(self) -> None:
        pair(self.size, "size")

    def apply(self, view: View) -> None:
        height, width = pair(self.size, "size")
        # a smaller image is first padded by half of what it lacks, rounded down, and then fits
        top = -((height - view.height) // 2) if height > view.height else round((view.height - height) / 2)
        left = -((width - view.width) // 2) if width > view.width else round((view.width - width) / 2)
        Crop(top, left, height, width).apply(view)


MODES = ("constant", "edge", "reflect", "symmetric")


@dataclass(frozen=True)
class Pad(Step):
    """Add a border, as torchvision's ``Pad``.

    `padding` is an int, (left and right, top and bottom) or (left, top, right, bottom), in pixels; `fill` a number
    or one for each channel, used by the mode "constant".
    """

    padding: int | Sequence[int]
    fill: float | Sequence[float] = 0
    padding_mode: str = "constant"

    def __post_init__(self) -> None:
        self.sides()
        if self.padding_mode not in MODES:
            raise OptionError(f"padding_mode={self.padding_mode!r}: expected one of {', '.join(MODES)}")

    def sides(self) -> tuple[int, int, int, int]:
        """Return left, top, right, bottom."""
        given = self.padding if isinstance(self.padding, Sequence | np.ndarray) else (self.padding,)
        if len(given) not in (1, 2, 4) or not all(isinstance(n, int | np.integer) and n >= 0 for n in given):
            raise OptionError(
                f"padding={self.padding!r}: expected an int, (left and right, top and bottom) or "
                f"(left, top, right, bottom), 0 or more"
            )
        left, top, right, bottom = (int(n) for n in (*given, *given, *given, *given)[:4])
        return left, top, right, bottom

    def apply(self, view: View) -> None:
        left, top, right, bottom = self.sides()
        last = view.passes[-1]
        if self.padding_mode != "constant" and (PADDING in last.rows or PADDING in last.columns):
            view.cut()  # padding that is repeated would no longer lie at the ends
        rows = self._extended(view.height, top, bottom)
        columns = self._extended(view.width, left, right)
        view.take(rows, columns, per_channel(self.fill, view.channels, "fill"))

    def _extended(self, size: int, before: int, after: int) -> Index:
        if self.padding_mode == "constant":
            return np.pad(np.arange(size), (before, after), constant_values=PADDING)
        if self.padding_mode == "reflect" and max(before, after) >= size:
            raise ShapeError(
                f"Pad of {max(before, after)} with padding_mode='reflect' on a side of {size} pixels: expected less "
                f"than the side; use 'symmetric' or 'edge', or pad less"
            )
        return np.pad(np.arange(size), (before, after), mode=self.padding_mode)  # type: ignore[call-overload, no-any-return]


@dataclass(frozen=True)
class HorizontalFlip(Step):
    """Mirror left and right."""

    def apply(self, view: View) -> None:
        view.take(np.arange(view.height), np.arange(view.width)[::-1])


@dataclass(frozen=True)
class VerticalFlip(Step):
    """Mirror up and down."""

    def apply(self, view: View) -> None:
        view.take(np.arange(view.height)[::-1], np.arange(view.width))


@dataclass(frozen=True)
class Grayscale(Step):
    """Make RGB grey as Pillow's "L": ``(19595 R + 38470 G + 7471 B + 2**15) >> 16``; the result has one channel."""

    def apply(self, view: View) -> None:
        if view.channels != 3:
            raise ShapeError(f"Grayscale on images of {view.channels} channels: expected 3 (red, green, blue)")
        view.passes[-1].grey = True
        view.cut()


@dataclass(frozen=True)
class Normalize(Step):
    """Make bytes ``(x / 255 - mean) / std``, computed in float64 and rounded once; the last step of a chain.

    `mean` and `std` are numbers or one number for each channel, in units of the full range.
    """

    mean: float | Sequence[float]
    std: float | Sequence[float]

    def __post_init__(self) -> None:
        deviations = np.asarray(self.std, np.float64)
        if not np.all(np.isfinite(deviations)) or not np.all(deviations > 0):
            raise OptionError(f"Normalize(std={self.std!r}): expected finite numbers above 0")
        # plain tuples: a chain compares, hashes and prints
        for name in ("mean", "std"):
            value = np.asarray(getattr(self, name), np.float64)
            if value.ndim > 1:
                raise OptionError(f"Normalize({name}={getattr(self, name)!r}): expected a number or one per channel")
            object.__setattr__(self, name, float(value) if value.ndim == 0 else tuple(value.tolist()))

    def apply(self, view: View) -> None:
        view.normalize = self

    def table(self, channels: int) -> NDArray[np.float64]:
        """Return the (channels, 256) results."""
        return self.scaled(np.repeat(np.arange(256)[:, None] / 255, channels, axis=1)).T.copy()

    def scaled(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return ``(x - mean) / std`` for (..., C) numbers."""
        channels = x.shape[-1]
        mean, std = per_channel(self.mean, channels, "mean"), per_channel(self.std, channels, "std")
        return np.asarray((x - mean) / std)


@dataclass(frozen=True)
class ToFloat(Step):
    """Make bytes ``x / 255``; the last step of a chain, where there is no `Normalize`."""

    def apply(self, view: View) -> None:
        view.normalize = self

    def table(self, channels: int) -> NDArray[np.float64]:
        """Return the (channels, 256) results."""
        return np.tile(np.arange(256) / 255, (channels, 1))

    def scaled(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return `x`."""
        return x


def per_channel(value: Any, channels: int, name: str) -> tuple[float, ...]:
    """Return `value`, a number or one for each channel, as one for each channel."""
    values = tuple(np.atleast_1d(value).tolist())
    if len(values) not in (1, channels):
        raise ShapeError(
            f"{name}={value!r} has {len(values)} numbers for images of {channels} channels: expected one each"
        )
    return values if len(values) == channels else values * channels
