"""Runs ``kernels/cuda/resample.cu`` on a batch of images on a GPU: a few launches for all of them, however many.

A `Round` is what one pair of launches does: a job for each image and up to four of its channels. Chains that are cut
(see `Compose`) take a round for each part.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from .execution import Axis
    from .pipeline import Plan, PlannedPass

TILE = 32  # rows and columns, as in resample.cu
BLOCK = (32, 8, 1)
MOST_CHANNELS = 4  # in a word
MOST_TILES = 65535  # blocks along y; a block then takes several
GROUP = 4  # words, to a multiple of which `Axis.words` pads

AXIS = np.dtype([(name, "i4") for name in ("first", "weights", "taps", "count", "start", "stop", "before", "total")])
LONG = ("source", "end", "pitch", "pixel", "scratch", "out", "row", "column", "plane", "table")
IMAGE = np.dtype(
    [
        *((name, "i8") for name in LONG),
        ("y", AXIS),
        ("x", AXIS),
        *((name, "i4") for name in ("channels", "rows_first", "grey")),
        ("fill", "u4"),
    ],
    align=True,
)  # `Image` of resample.cu


class Source(NamedTuple):
    """An (H, W, C) uint8 image in C order, `offset` bytes into the memory of its batch."""

    offset: int
    shape: tuple[int, int, int]


class Target(NamedTuple):
    """Where a result goes: its first element, and the elements from row to row, pixel to pixel, channel to channel."""

    offset: int
    row: int
    column: int
    plane: int


class Engine(Protocol):
    """What runs a round: a GPU, or in tests the emulator."""

    def empty(self, count: int, dtype: Any) -> Any:
        """Return memory for `count` elements."""

    def upload(self, array: NDArray[Any]) -> Any:
        """Return a copy where kernels can read it."""

    def launch(self, name: str, grid: tuple[int, int, int], block: tuple[int, int, int], args: Sequence[Any]) -> None:
        """Launch a kernel of resample.cu; None is a null pointer."""


def target(offset: int, shape: tuple[int, int, int], planes: bool) -> Target:
    """Return where a (height, width, channels) image lies in C order, as pixels or as planes."""
    height, width, channels = shape
    return Target(offset, width, 1, height * width) if planes else Target(offset, width * channels, channels, 1)


def run(
    engine: Engine, pixels: Any, sources: Sequence[Source], plans: Sequence[Plan], out: Any, targets: Sequence[Target]
) -> None:
    """Do what the plans say to all images.

    Parameters
    ----------
    pixels
        The memory that holds the images; None if their offsets are addresses.
    out
        The results, of the dtype of the plans' tables, or bytes; None if the offsets of bytes are addresses.
    targets
        Where in `out`.
    """
    number, held = 0, list(sources)
    while True:
        active = [i for i, plan in enumerate(plans) if len(plan.passes) > number]
        if not active:
            return
        ends = [i for i in active if len(plans[i].passes) == number + 1]
        goes_on = [i for i in active if len(plans[i].passes) > number + 1]
        between, size, places = None, 0, {}
        for i in goes_on:
            one = plans[i].passes[number]
            shape = (one.y.total, one.x.total, 1 if one.grey else held[i].shape[2])
            places[i] = Source(size, shape)
            size += shape[0] * shape[1] * shape[2]
        if goes_on:
            between = engine.empty(size, np.uint8)
            inner = [target(places[i].offset, places[i].shape, False) for i in goes_on]
            _round(engine, pixels, [(held[i], plans[i].passes[number]) for i in goes_on], between, inner)
        if ends:
            _round(engine, pixels, [(held[i], plans[i].passes[number]) for i in ends], out, [targets[i] for i in ends])
        held = [places.get(i, source) for i, source in enumerate(held)]
        pixels = between
        number += 1


def _round(
    engine: Engine, pixels: Any, work: Sequence[tuple[Source, PlannedPass]], out: Any, targets: Sequence[Target]
) -> None:
    images, axes, tables, scratch = pack(work, targets)
    if not len(images):
        return
    on_device = engine.upload(images), engine.upload(axes)
    table = None if tables is None else engine.upload(tables)
    words = engine.empty(max(1, scratch), np.uint32)
    y, x, down = images["y"], images["x"], images["rows_first"] != 0
    rows = np.where(down, y["count"], y["stop"] - y["start"])
    columns = np.where(down, x["stop"] - x["start"], x["count"])
    engine.launch("resample_first", _grid(rows, columns), BLOCK, (pixels, *on_device, words))
    name = f"resample_last{1 if tables is None else tables.itemsize}"
    engine.launch(name, _grid(y["total"], x["total"]), BLOCK, (words, *on_device, table, out))


def _grid(rows: NDArray[Any], columns: NDArray[Any]) -> tuple[int, int, int]:
    tiles = int(np.max(-(-rows // TILE) * -(-columns // TILE)))
    return len(rows), max(1, min(tiles, MOST_TILES)), 1


def pack(
    work: Sequence[tuple[Source, PlannedPass]], targets: Sequence[Target]
) -> tuple[NDArray[Any], NDArray[np.int32], NDArray[Any] | None, int]:
    """Return the images of a round, the tables of their axes, those of their bytes, and the words of scratch."""
    axes, tables = _Axes(), _Tables()
    rows: list[tuple[Any, ...]] = []
    scratch = 0
    for (source, one), to in zip(work, targets, strict=True):
        height, width, channels = source.shape
        y, x = axes.add(one.y), axes.add(one.x)
        words = (one.y.count if one.vertical_first else one.y.stop - one.y.start) * (
            one.x.stop - one.x.start if one.vertical_first else one.x.count
        )
        entries = tables.add(one.store.table)
        for c in range(0, channels, MOST_CHANNELS):
            count = min(MOST_CHANNELS, channels - c)
            fill = sum(value << 8 * i for i, value in enumerate(one.store.fill[c : c + count]))
            end = source.offset + height * width * channels
            place = (source.offset + c, end, width * channels, channels, scratch, to.offset + c * to.plane)
            strides = (to.row, to.column, to.plane, entries + c * 256)
            border = _grey(fill) if one.grey else fill
            rows.append((*place, *strides, y, x, count, one.vertical_first, one.grey, border))
            scratch += words
    return np.array(rows, IMAGE), axes.table(), tables.table(), scratch


def _grey(fill: int) -> int:
    red, green, blue = (fill >> shift & 255 for shift in (0, 8, 16))
    return (19595 * red + 38470 * green + 7471 * blue + (1 << 15)) >> 16


class _Axes:
    """The tables of the axes of a round, each once, one after the other."""

    def __init__(self) -> None:
        self._places: dict[int, tuple[int, ...]] = {}
        self._parts: list[NDArray[np.int32]] = []
        self._size = 0

    def add(self, axis: Axis) -> tuple[int, ...]:
        """Return the `AXIS` of an axis."""
        found = self._places.get(id(axis))
        if found is None:
            first = self._size + len(axis.words) - -(-axis.count // GROUP) * GROUP
            found = (first, self._size, axis.taps, axis.count, axis.start, axis.stop, axis.before, axis.total)
            self._places[id(axis)] = found
            self._parts.append(axis.words)
            self._size += len(axis.words)
        return found

    def table(self) -> NDArray[np.int32]:
        return np.concatenate([*self._parts, np.zeros(GROUP, np.int32)])  # a kernel's pointer is never to nothing


class _Tables:
    """The tables of bytes of a round, each once."""

    def __init__(self) -> None:
        self._places: dict[bytes, int] = {}
        self._parts: list[NDArray[Any]] = []
        self._size = 0

    def add(self, table: NDArray[Any] | None) -> int:
        if table is None:
            return 0
        key = table.tobytes()
        if key not in self._places:
            self._places[key] = self._size
            self._parts.append(table.view(f"u{table.itemsize}").reshape(-1))
            self._size += table.size
        return self._places[key]

    def table(self) -> NDArray[Any] | None:
        return np.concatenate(self._parts) if self._parts else None


class Gpu:
    """An `Engine` on a GPU."""

    def __init__(self, device: int) -> None:
        self.device = device

    def empty(self, count: int, dtype: Any) -> Any:
        from ..launch import cuda

        return cuda.empty((count,), dtype, self.device)

    def upload(self, array: NDArray[Any]) -> Any:
        from ..launch import drivers, streams

        driver, native = streams.choose(None, self.device)
        return drivers.with_memory(lambda: driver.upload(array.view(np.uint8), self.device, native))

    def launch(self, name: str, grid: tuple[int, int, int], block: tuple[int, int, int], args: Sequence[Any]) -> None:
        from ..launch import arrays, cuda

        words = [0 if arg is None else arrays.view(arg).address for arg in args]
        operands = [arg for arg in args if arg is not None]
        kernel = cuda.own_kernel("resample", name, "P" * len(args))
        kernel.launch(grid, block, words, device=self.device, operands=operands)
