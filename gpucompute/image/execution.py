"""Runs the byte kernels of ``kernels/cpu/resample.py`` on one image or on many.

An `Axis` says for each output row (or column) which input rows it is made of. Resizing, cropping, flipping and the
repeating kinds of padding are all choices of rows of such a table, so any chain of them is one pass.
"""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import memory
from ..kernels.cpu import resample
from ..launch import cpu
from .coefficients import ONE, Windows, fixed_windows
from .inputs import Image

LANES: int = resample.LANES
AT_ONCE = 1 << 20  # values of a pass, about half a millisecond
MOST_CHANNELS = 4  # in one word
WORDS = {1: np.uint8, 2: np.uint16, 3: np.uint32, 4: np.uint32}  # the word that holds a pixel of so many bytes


class Axis:
    """One axis of an image on its way through the kernels.

    Parameters
    ----------
    first : (n,) int32
        The first input position of each output position that is not padding.
    weights : (n, taps) int32
        The weights, in units of 2**-22, of the input positions from `first` on.
    size : int
        Input positions that exist.
    before, total : int
        Output positions of padding before the n, and the length of the output.
    """

    def __init__(
        self, first: NDArray[np.int32], weights: NDArray[np.int32], size: int, before: int, total: int
    ) -> None:
        self.first = np.ascontiguousarray(first)
        self.weights = np.ascontiguousarray(weights)
        self.before, self.total = before, total
        self.count = len(first)
        self.taps = weights.shape[1]
        self.start = int(first.min()) if self.count else 0
        self.stop = min(int(first.max()) + self.taps, size) if self.count else 0

    @property
    def padded(self) -> bool:
        return self.count < self.total

    @cached_property
    def words(self) -> NDArray[np.int32]:
        """The table as `resample.cu` reads it: weights, for a multiple of 4 taps, and `first`, to a multiple of 4."""
        columns, rows = _round_up(self.taps, 4), _round_up(self.count, 4)
        words = np.zeros(self.count * columns + rows, np.int32)
        words[: self.count * columns].reshape(self.count, columns)[:, : self.taps] = self.weights
        words[self.count * columns :][: self.count] = self.first
        return words


@lru_cache(maxsize=256)
def resized_axis(size: int, resized: int, start: float, stop: float, interpolation: str, antialias: bool) -> Axis:
    """Return the axis of `fixed_windows`."""
    return Axis(*fixed_windows(size, resized, start, stop, interpolation, antialias), size, 0, resized)


class Store(NamedTuple):
    """How bytes leave: through a (C, 256) table or as they are, as pixels or as planes; `fill` is the padding."""

    table: NDArray[Any] | None
    planes: bool
    fill: tuple[int, ...]  # one byte per channel


def run(image: Image, y: Axis, x: Axis, store: Store, out: NDArray[Any], *, vertical_first: bool = False) -> None:
    """Make one output image, in C order: (H, W, C), or (C, H, W) if `store` says planes, from one (H, W, C) uint8."""
    channels = image.shape[2]
    if y.padded or x.padded:
        _fill(out if store.planes else out.transpose(2, 0, 1), y, x, store)
    if y.count == 0 or x.count == 0:
        return
    if vertical_first:
        image, y = _weigh_rows(image, y), _identity(y)
    if channels <= MOST_CHANNELS:
        _run(image, y, x, store, out)
        return
    for c in range(0, channels, MOST_CHANNELS):
        group = slice(c, c + MOST_CHANNELS)
        table = None if store.table is None else store.table[group]
        planes = np.moveaxis(out, -1, 0) if not store.planes else out
        part = np.ascontiguousarray(planes[group])
        _run(np.ascontiguousarray(image[:, :, group]), y, x, Store(table, True, store.fill[group]), part)
        planes[group] = part


def _fill(planes: NDArray[Any], y: Axis, x: Axis, store: Store) -> None:
    for c, (plane, value) in enumerate(zip(planes, store.fill, strict=True)):
        border = value if store.table is None else store.table[c, value]
        plane[: y.before] = border
        plane[y.before + y.count :] = border
        plane[:, : x.before] = border
        plane[:, x.before + x.count :] = border


def _run(image: Image, y: Axis, x: Axis, store: Store, out: NDArray[Any]) -> None:
    count = image.shape[2]
    channels = (0,) * count  # its length is what the kernels read
    image, words = _as_words(image)
    stride = _round_up(x.count * count + MOST_CHANNELS, 64)  # the last word of a row may reach beyond it
    height = y.stop - y.start + y.taps  # taps of weight 0 may reach beyond the last row
    rows = memory.empty((height, stride), np.uint8)
    row_words = np.ndarray((height, x.count + 1), WORDS[count], rows, strides=(stride, count))
    horizontal, vertical = cpu.compile(resample.horizontal), cpu.compile(resample.vertical)
    table = store.table
    if store.planes and table is None:
        table = np.broadcast_to(np.arange(256, dtype=np.uint8), (count, 256)).copy()
    stored = out if store.planes else out.reshape(out.shape[0], -1)
    # bytes that stay bytes are all alike: one compiled function for any number of channels
    left, stored_channels = (x.before * count, (0,)) if table is None else (x.before, channels)

    def columns(lo: int, hi: int) -> None:
        block = memory.empty((x.stop - x.start + x.taps, LANES), np.uint32)
        packed = memory.empty((x.count, LANES), np.uint32)
        sums = memory.empty((count, LANES), np.int32)
        horizontal(
            image, words, y.start, y.start + lo, y.start + hi, x.start, x.stop, x.first, x.weights,
            block, packed, sums, row_words, channels,
        )  # fmt: skip

    def lines(lo: int, hi: int) -> None:
        line = memory.empty((x.count * count,), np.uint8)
        sums = memory.empty((x.count * count,), np.int32)
        vertical(
            rows, y.start, lo, hi, y.first, y.weights, line, sums, table, stored, y.before, left, stored_channels
        )  # fmt: skip

    cpu.parallel_for(columns, y.stop - y.start, chunk=_rows_at_once(image[0].size))
    cpu.parallel_for(lines, y.count, chunk=_rows_at_once(x.count * count))


def _rows_at_once(values: int) -> int:
    """Return how many rows of so many values a thread takes at once: half a millisecond of work.

    A photograph of 512×384 is less than that and stays on one thread, so that callers with threads of their own, one
    photograph each, do not share each of them out once more (500 JPEGs to batches: 0.70 s so, 0.54 s on one).
    """
    return max(LANES, AT_ONCE // max(values, 1) // LANES * LANES)


def _weigh_rows(image: Image, y: Axis) -> Image:
    """Return the rows that `y` makes of the rows of `image`, in all columns."""
    height = y.stop - y.start
    rows = memory.empty((height + y.taps, image[0].size), np.uint8)
    rows[:height] = image[y.start : y.stop].reshape(height, -1)
    out = memory.empty((y.count, *image.shape[1:]), np.uint8)
    stored = out.reshape(y.count, -1)
    vertical = cpu.compile(resample.vertical)

    def lines(lo: int, hi: int) -> None:
        line, sums = memory.empty((rows.shape[1],), np.uint8), memory.empty((rows.shape[1],), np.int32)
        vertical(rows, y.start, lo, hi, y.first, y.weights, line, sums, None, stored, 0, 0, (0,))

    cpu.parallel_for(lines, y.count, chunk=_rows_at_once(rows.shape[1]))
    return out


def _identity(axis: Axis) -> Axis:
    first = np.arange(axis.count, dtype=np.int32)
    return Axis(first, np.full((axis.count, 1), ONE, np.int32), axis.count, axis.before, axis.total)


def _as_words(image: Image) -> tuple[Image, NDArray[Any]]:
    """Return `image` and a view of its pixels as words, both read-only so that numba sees one type of array.

    A word of 4 bytes on a pixel of 3 ends one byte into the next pixel; the last column has no such word.
    """
    height, width, channels = image.shape
    if channels == 3 and width < 3:  # a view of one column would be another type of array: contiguous
        wide = np.zeros((height, 4, channels), np.uint8)
        wide[:, :width] = image
        image, width = wide, 4
    image = _read_only(image)
    readable = width - 1 if channels == 3 else width
    words = np.ndarray((height, readable), WORDS[channels], image, strides=(width * channels, channels))
    return image, words


def _round_up(n: int, step: int) -> int:
    return -(-n // step) * step


def run_float(
    image: Image, y: Windows | None, x: Windows | None, out: NDArray[np.float32], *, vertical_first: bool = False
) -> None:
    """Resize one (H, W, C) float32 image to `out`; an axis without windows is left as it is."""
    first, last = 0, len(image)
    if y is not None and not vertical_first:
        first, last = int(y.first.min()), int((y.first + y.taps).max())
    for vertical in (True, False) if vertical_first else (False, True):
        if vertical and y is not None:
            image = _float_rows(image, first, y)
            first, last = 0, len(image)
        elif not vertical:
            image = image[first:last] if x is None else _float_columns(image, first, last, x)
    out[...] = image


def _float_columns(image: Image, first: int, last: int, x: Windows) -> Image:
    horizontal = cpu.compile(resample.horizontal_float)
    out = memory.empty((last - first, len(x.first), image.shape[2]), np.float32)
    source = _read_only(image)
    cpu.parallel_for(
        lambda lo, hi: horizontal(source, *x, first + lo, first + hi, first, out),
        len(out),
        chunk=_rows_at_once(image[0].size),
    )
    return out


def _float_rows(image: Image, first: int, y: Windows) -> Image:
    vertical = cpu.compile(resample.vertical_float)
    out = memory.empty((len(y.first), *image.shape[1:]), np.float32)
    source, stored = _read_only(image).reshape(len(image), -1), out.reshape(len(out), -1)

    def body(lo: int, hi: int) -> None:
        vertical(source, first, *y, lo, hi, memory.empty((source.shape[1],), np.float64), stored)

    cpu.parallel_for(body, len(out), chunk=_rows_at_once(image[0].size))
    return out


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    view = array.view()
    view.flags.writeable = False
    return view
