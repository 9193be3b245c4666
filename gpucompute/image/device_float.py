"""Resizes float32 images on a GPU, by `resample_float` of ``kernels/cuda/resample.cu``: two launches for a batch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .coefficients import nearest_index, vertical_first, windows
from .device import MOST_TILES, Engine, Source
from .resampling import Box

BLOCK = 256
EACH = 4  # values of a thread, or more
SIZE = 4  # bytes of a float32

LONG = ("source", "target", "pitch", "inner", "places", "weights")
SHORT = ("outer", "count", "taps", "before", "of_scratch", "to_scratch")
JOB = np.dtype([(name, "i8") for name in LONG] + [(name, "i4") for name in SHORT], align=True)  # `Job` of resample.cu


class Lane(NamedTuple):
    """One axis: the first input position and the taps of each output position, and the weights; None: one, copied."""

    places: NDArray[np.int32]
    weights: NDArray[np.float64] | None


class Resize(NamedTuple):
    """What makes a (height, width) image of another; an axis that stays as it is has no lane."""

    y: Lane | None
    x: Lane | None
    rows_first: bool
    size: tuple[int, int]


@lru_cache(maxsize=256)
def _weighed(size: int, resized: int, start: float, stop: float, interpolation: str, antialias: bool) -> Lane:
    first, taps, weights = windows(size, resized, start, stop, interpolation, antialias)
    return Lane(np.stack([first, taps], axis=1).astype(np.int32), weights)


@lru_cache(maxsize=256)
def _copied(size: int, resized: int, start: float, stop: float) -> Lane:
    whole = stop - start == resized and start == int(start)
    first = np.arange(resized) + int(start) if whole else nearest_index(size, resized, start, stop)
    return Lane(np.stack([first, np.ones_like(first)], axis=1).astype(np.int32), None)


def plan(shape: tuple[int, int, int], size: tuple[int, int], box: Box, interpolation: str, antialias: bool) -> Resize:
    """Return how an image is resized, as `resampling.resize` does it on the CPU."""
    (height, width, _), (left, upper, right, lower) = shape, box
    rows, columns = (height, size[0], upper, lower), (width, size[1], left, right)
    same = (right - left, lower - upper) == (size[1], size[0]) and left == int(left) and upper == int(upper)
    if same or interpolation == "nearest":
        return Resize(_copied(*rows), _copied(*columns), False, size)
    y, x = (
        None
        if axis[0] == axis[1] and axis[2] == 0 and axis[3] == axis[1]
        else _weighed(*axis, interpolation, antialias)
        for axis in (rows, columns)
    )
    return Resize(y, x, vertical_first(height, width, *size), size)


class Pass(NamedTuple):
    """One axis of one image: (outer, n, inner) elements become (outer, count, inner).

    lane : the axis; outer, inner; pitch : elements from one of outer to the next; skipped : elements before the first;
    before : positions of n that the memory lacks.
    """

    lane: Lane
    outer: int
    inner: int
    pitch: int = 0
    skipped: int = 0
    before: int = 0

    @property
    def size(self) -> int:
        """Elements of the result."""
        return self.outer * len(self.lane.places) * self.inner


def passes(shape: tuple[int, int, int], resize: Resize) -> list[Pass]:
    """Return what is done to an image of this shape: one pass or two."""
    height, width, channels = shape
    y, x, row = resize.y, resize.x, width * channels
    if y is None or x is None:
        assert x is not None or y is not None  # else it is a copy, which has both
        return [Pass(y, 1, row)] if y is not None else [Pass(x, height, channels, row)] if x is not None else []
    if resize.rows_first:
        return [Pass(y, 1, row), Pass(x, resize.size[0], channels, row)]
    low, high = int(y.places[:, 0].min()), int(y.places.sum(axis=1).max())
    return [Pass(x, high - low, channels, row, low * row), Pass(y, 1, resize.size[1] * channels, before=low)]


def run(
    engine: Engine, pixels: Any, sources: Sequence[Source], plans: Sequence[Resize], out: Any, targets: Sequence[int]
) -> None:
    """Resize all images.

    Parameters
    ----------
    pixels
        The memory that holds the images; None if their offsets, in bytes, are addresses.
    out
        The results, in C order; None if the `targets`, in bytes, are addresses.
    """
    tables = _Tables()
    launches: tuple[list[tuple[int, ...]], ...] = [], []
    scratch = 0

    def job(one: Pass, source: int, target: int, of_scratch: bool, to_scratch: bool) -> tuple[int, ...]:
        places, weights, taps = tables.add(one.lane)
        places_of = (source + one.skipped * SIZE, target, one.pitch, one.inner, places, weights)
        return *places_of, one.outer, len(one.lane.places), taps, one.before, of_scratch, to_scratch

    for source, resize, target in zip(sources, plans, targets, strict=True):
        *before, last = passes(source.shape, resize)
        for one in before:
            launches[0].append(job(one, source.offset, scratch, False, True))
        launches[1].append(job(last, scratch if before else source.offset, target, bool(before), False))
        scratch += sum(one.size for one in before) * SIZE
    if not launches[1]:
        return
    memory = engine.empty(max(1, scratch // SIZE), np.float32)
    uploaded = [engine.upload(table) for table in tables.tables()]
    for entries in filter(None, launches):
        jobs = np.array(entries, JOB)
        most = int((jobs["outer"].astype(np.int64) * jobs["count"] * jobs["inner"]).max())
        grid = (len(jobs), min(-(-most // (BLOCK * EACH)), MOST_TILES), 1)
        engine.launch("resample_float", grid, (BLOCK, 1, 1), (pixels, engine.upload(jobs), *uploaded, memory, out))


class _Tables:
    """The tables of the axes of a batch, each once, one after the other."""

    def __init__(self) -> None:
        self._found: dict[int, tuple[int, int, int]] = {}
        self._lanes: list[Lane] = []
        self._places = self._weights = 0

    def add(self, lane: Lane) -> tuple[int, int, int]:
        """Return where the places and the weights of a lane begin, and how many weights a position has."""
        if id(lane) not in self._found:
            taps = 1 if lane.weights is None else lane.weights.shape[1]
            self._found[id(lane)] = self._places, -1 if lane.weights is None else self._weights, taps
            self._lanes.append(lane)
            self._places += lane.places.size
            self._weights += 0 if lane.weights is None else lane.weights.size
        return self._found[id(lane)]

    def tables(self) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        """Return places and weights."""
        weights = [lane.weights.reshape(-1) for lane in self._lanes if lane.weights is not None]
        places = np.concatenate([lane.places.reshape(-1) for lane in self._lanes])
        return places, np.concatenate([*weights, np.zeros(1)])  # a kernel's pointer is never to nothing
