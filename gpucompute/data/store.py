"""The Zarr v3 group that a run writes: its arrays, its attributes, and reading them back."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .. import __version__
from ..errors import MissingExtraError
from .settings import Settings

if TYPE_CHECKING:
    import zarr

MARK = "gpucompute"  # the attribute by which an output of ours is known
ROWS_AT_ONCE = 65536  # of labels, names and ids, in a chunk and in memory


class Row(NamedTuple):
    """What is kept of a photograph beside its pixels."""

    label: int
    name: str
    id: int


COLUMNS: dict[str, tuple[type, str]] = {
    "labels": (np.int64, "index into class_names; -1: not in a class folder"),
    "names": (str, "path relative to the source folder"),
    "ids": (np.int64, "first 63 bits of the SHA-256 of the relative path"),
}


def import_zarr() -> Any:
    """Return the module zarr."""
    try:
        import zarr
    except ImportError as error:
        raise MissingExtraError("zarr", "images", "writing an array of photographs") from error
    return zarr


def read_attributes(path: Path) -> dict[str, Any] | None:
    """Return the attributes of an output of ours, or None if what is there is something else."""
    zarr = import_zarr()
    try:
        attributes: dict[str, Any] = zarr.open_group(path, mode="r", zarr_format=3).attrs.asdict()
    except (OSError, ValueError, KeyError):
        return None
    return attributes if MARK in attributes else None


class Store:
    """The group at `path`, being written: first the chunks of `images`, in order, then all the rest.

    Every call may be repeated after a killed run and leaves the same bytes.
    """

    def __init__(self, path: Path, settings: Settings) -> None:
        self.path = path
        self.settings = settings
        self._images: zarr.Array[Any]

    def create(self, candidates: int) -> None:
        """Begin the group, with room for every candidate."""
        zarr = import_zarr()
        compressors = None if self.settings.compression == "none" else [zarr.codecs.ZstdCodec(level=0)]
        batch = min(self.settings.batch_size, candidates)
        zarr.create_group(self.path, zarr_format=3).create_array(
            "images",
            shape=self.settings.shape(candidates),
            chunks=self.settings.shape(batch),
            dtype=self.settings.dtype,
            compressors=compressors,
            dimension_names=self.settings.dimensions,
        )

    def open(self) -> None:
        """Open the group that `create` began."""
        array = import_zarr().open_array(self.path / "images", mode="r+", zarr_format=3)
        # a black batch is written like any other: the journal notes its size, and to look for it would cost time
        self._images = array.with_config({"write_empty_chunks": True})
        self.batch = int(array.chunks[0])

    def chunk_path(self, index: int) -> Path:
        """Return the file of a chunk of `images`."""
        key = self._images.metadata.encode_chunk_key((index, *[0] * (self._images.ndim - 1)))
        return self.path / "images" / key

    def chunk_size(self, index: int) -> int:
        """Return the bytes that a chunk of `images` has on disk, -1 where there is none."""
        try:
            return os.path.getsize(self.chunk_path(index))
        except OSError:
            return -1

    def write(self, index: int, batch: npt.NDArray[Any]) -> int:
        """Write a batch as chunk `index`, whole or not at all, and return its bytes on disk."""
        start = index * self.batch
        self._images[start : start + len(batch)] = batch
        return self.chunk_size(index)

    def forget_after(self, chunks: int) -> None:
        """Remove what a killed run left half done: chunks after the first `chunks`, temporary files, columns."""
        keep = {self.chunk_path(index) for index in range(chunks)}
        keep |= {self.path / "zarr.json", self.path / "images" / "zarr.json"}
        for folder, _, names in os.walk(self.path):
            for path in (Path(folder) / name for name in names):
                if path not in keep:
                    path.unlink()

    def finish(self, rows: Iterable[Row], count: int, attributes: dict[str, Any]) -> None:
        """Cut `images` to its `count` rows and write the columns and the attributes."""
        zarr = import_zarr()
        self._images.resize(self.settings.shape(count))
        group = zarr.open_group(self.path, mode="r+", zarr_format=3, use_consolidated=False)
        columns = {
            name: group.create_array(
                name,
                shape=(count,),
                chunks=(max(1, min(count, ROWS_AT_ONCE)),),
                dtype=dtype,
                compressors=None,
                dimension_names=self.settings.dimensions[:1],
                attributes={"description": description},
                overwrite=True,
            )
            for name, (dtype, description) in COLUMNS.items()
        }
        for start, block in _blocks(rows):
            for (name, (dtype, _)), values in zip(COLUMNS.items(), zip(*block, strict=True), strict=True):
                columns[name][start : start + len(block)] = np.array(values, dtype=object if dtype is str else dtype)
        settings = self.settings
        group.attrs.update(
            {
                **attributes,
                "mean": list(settings.normalize.mean) if settings.normalize else None,
                "std": list(settings.normalize.std) if settings.normalize else None,
                MARK: {**attributes[MARK], "version": __version__, "settings": settings.to_json()},
            }
        )
        zarr.consolidate_metadata(self.path, zarr_format=3)  # without it xarray warns, and opens every array apart


def _blocks(rows: Iterable[Row]) -> Iterator[tuple[int, Sequence[Row]]]:
    start, iterator = 0, iter(rows)
    while block := list(itertools.islice(iterator, ROWS_AT_ONCE)):
        yield start, block
        start += len(block)
