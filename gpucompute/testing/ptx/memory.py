"""The memory that a launch can reach, as regions of bytes, and its access by many threads at once.

Addresses of arguments are the host's own. Everything that exists only inside a launch lies in windows above 2**56,
where no host address can be: shared and per-thread memory, parameters, the module's variables. A region that each
block or thread has for itself is one array with one row for each owner.
"""

from __future__ import annotations

import ctypes
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from .types import Array

SHARED_WINDOW = 1 << 60
LOCAL_WINDOW = 2 << 60
PARAMETER_WINDOW = 3 << 60
VARIABLE_WINDOW = 4 << 60
POISON = 0xCB  # what shared and local memory holds before it is written


class Fault(Exception):
    """A thread did what it must not; `position` is its place among the active threads."""

    def __init__(self, message: str, position: int = 0) -> None:
        super().__init__(message)
        self.position = position


class Region:
    """Bytes at consecutive addresses.

    Attributes
    ----------
    space, name : str
        What an error calls it.
    start, nbytes : int
        The addresses, of one row if there are several.
    data : ndarray of uint8
        All rows.
    rows : ndarray of int64 or None
        For each thread of the batch where its row starts in `data`; None if all threads share the bytes.
    writeable : bool
    """

    def __init__(
        self, space: str, name: str, start: int, data: Array, rows: Array | None = None, writeable: bool = True
    ) -> None:
        self.space, self.name, self.start = space, name, start
        self.data, self.rows, self.writeable = data.reshape(-1), rows, writeable
        self.nbytes = data.shape[-1]
        self._start = np.uint64(start)
        self._views: dict[Any, tuple[Array, int]] = {}

    def at(self, start: int) -> Region:
        """Return the same bytes at other addresses."""
        region = Region(self.space, self.name, start, self.data, self.rows, self.writeable)
        region.nbytes = self.nbytes
        return region

    def view(self, dtype: np.dtype[Any]) -> tuple[Array, int]:
        """Return the elements at addresses that are multiples of their size, and the offset of the first, in bytes."""
        found = self._views.get(dtype)
        if found is None:
            size = dtype.itemsize
            first = -self.start % size if self.rows is None else 0
            count = max(self.data.size - first, 0) // size
            found = self._views[dtype] = self.data[first : first + count * size].view(dtype), first
        return found

    def offsets(self, addresses: Array, nbytes: int) -> Array | None:
        """Return how far behind the start each access of `nbytes` begins, or None if one is not wholly inside."""
        offsets: Array = addresses - self._start
        if nbytes > self.nbytes or offsets.max() > self.nbytes - nbytes:
            return None
        return offsets

    def elements(self, offsets: Array, dtype: np.dtype[Any], threads: Array | None) -> tuple[Array, Array]:
        """Return the region as elements, and the index of each thread's."""
        view, first = self.view(dtype)
        index = offsets.view(np.int64)
        if self.rows is not None:
            index = index + (self.rows if threads is None else self.rows.take(threads))
        elif first:
            index = index - first
        return view, index >> (dtype.itemsize.bit_length() - 1)


class Piece:
    """The part of an access that falls in one region.

    Attributes
    ----------
    view : ndarray
        The region as elements.
    index : ndarray of int64
        Which element each thread accesses (the first one of a vector).
    chosen : ndarray of int64 or None
        Which of the active threads; None for all.
    region : Region
    """

    __slots__ = ("chosen", "index", "region", "view")

    def __init__(self, region: Region, elements: tuple[Array, Array], chosen: Array | None) -> None:
        self.region, self.chosen = region, chosen
        self.view, self.index = elements

    def of(self, values: Array) -> Array:
        """Pick what belongs to this piece from an array over the active threads."""
        return values if self.chosen is None or values.shape[0] == 1 else values[self.chosen]


class Memory:
    """All regions of a launch."""

    def __init__(self, regions: Iterable[Region]) -> None:
        self.regions = sorted((r for r in regions if r.nbytes), key=lambda region: region.start)
        self._start_list = [region.start for region in self.regions]
        self.starts = np.array(self._start_list, np.uint64)
        self.sizes = np.array([region.nbytes for region in self.regions], np.uint64)
        self.named: dict[str, Region] = {}  # shared and local memory by their own addresses, from 0
        self._hints: dict[int, Region] = {}

    def pieces(
        self, site: int, space: str, addresses: Array, dtype: np.dtype[Any], count: int, threads: Array | None
    ) -> Iterator[Piece]:
        """Find what an access of `count` elements touches.

        Parameters
        ----------
        site : int
            The instruction; the region that it found last is tried first.
        space : str
            ``shared``, ``local`` (then addresses count from 0), or anything else for addresses of all memory.
        addresses : ndarray of uint64
            One for each active thread, or one for all.
        dtype, count
            The elements.
        threads : ndarray or None
            The active threads of the batch; None for all.

        Raises
        ------
        Fault
            If an address is not a multiple of the size of the access, or bytes lie outside of every region.
        """
        nbytes = dtype.itemsize * count
        if nbytes > 1 and np.bitwise_or.reduce(addresses) & np.uint64(nbytes - 1):
            position = int(np.flatnonzero(addresses & np.uint64(nbytes - 1))[0])
            address = int(addresses[position])
            raise Fault(f"the address {address:#x} is not a multiple of {nbytes}, the bytes accessed", position)
        region = self.named.get(space) or self._hints.get(site)
        offsets = None if region is None else region.offsets(addresses, nbytes)
        if region is not None and offsets is not None:
            yield Piece(region, region.elements(offsets, dtype, threads), None)
        elif space in self.named:
            self._fail(space, addresses, nbytes)
        else:
            yield from self._search(site, space, addresses, dtype, nbytes, threads)

    def _search(
        self, site: int, space: str, addresses: Array, dtype: np.dtype[Any], nbytes: int, threads: Array | None
    ) -> Iterator[Piece]:
        """Find the regions of an access where none is known; mostly that of the first address is all."""
        first = bisect_right(self._start_list, int(addresses[0])) - 1
        if first >= 0:
            region = self.regions[first]
            offsets = region.offsets(addresses, nbytes)
            if offsets is not None:
                self._hints[site] = region
                yield Piece(region, region.elements(offsets, dtype, threads), None)
                return
        which = np.searchsorted(self.starts, addresses, "right") - 1
        outside = which < 0
        if self.regions:
            start, size = self.starts.take(which, mode="clip"), self.sizes.take(which, mode="clip")
            outside |= (size < nbytes) | (addresses - start > size - np.uint64(nbytes))
        if outside.any():
            self._fail(space, addresses[outside], nbytes, int(np.flatnonzero(outside)[0]))
        for k in np.unique(which):
            region = self.regions[k]
            chosen = np.flatnonzero(which == k)
            offsets = region.offsets(addresses[chosen], nbytes)
            assert offsets is not None
            those = chosen if threads is None else threads[chosen]
            yield Piece(region, region.elements(offsets, dtype, those), chosen)

    def _fail(self, space: str, addresses: Array, nbytes: int, position: int = -1) -> None:
        if space in self.named:
            region = self.named[space]
            last = region.nbytes - nbytes
            position = int(np.flatnonzero(addresses > np.uint64(last) if last >= 0 else addresses == addresses)[0])
            address = int(addresses[position])
            raise Fault(
                f"{nbytes} bytes at {address:#x} of {space} memory are out of bounds: it has {region.nbytes} bytes",
                position,
            )
        address = int(addresses[0])
        near = [r for r in self.regions if r.start - 4096 <= address < r.start + r.nbytes + 4096]
        hint = "no array is near it"
        if near:
            region = min(near, key=lambda r: abs(address - r.start - r.nbytes / 2) - r.nbytes / 2)
            by = address - region.start
            where = f"{-by} bytes before the start" if by < 0 else f"{by} bytes behind the start"
            hint = f"it is {where} of {region.name}, which has {region.nbytes} bytes"
        raise Fault(f"{nbytes} bytes at address {address:#x} are out of bounds: {hint}", position)

    # Access

    def load(
        self, site: int, space: str, addresses: Array, dtype: np.dtype[Any], count: int, threads: Array | None
    ) -> list[Array]:
        """Return the `count` elements at each address, as one array for each."""
        pieces = list(self.pieces(site, space, addresses, dtype, count, threads))
        if pieces[0].chosen is None:
            view, index = pieces[0].view, pieces[0].index
            return [view.take(index + j if j else index) for j in range(count)]
        values = [np.empty(addresses.shape, dtype) for _ in range(count)]
        for piece in pieces:
            for j in range(count):
                values[j][piece.chosen] = piece.view.take(piece.index + j)
        return values

    def store(self, site: int, space: str, addresses: Array, values: list[Array], threads: Array | None) -> None:
        """Write one element after the other at each address; of threads that write to one place the last one wins."""
        for piece in self.pieces(site, space, addresses, values[0].dtype, len(values), threads):
            writable(piece)
            for j, value in enumerate(values):
                value = piece.of(value)
                index = piece.index + j if j else piece.index
                piece.view[index] = value[-1:] if index.shape[0] == 1 else value


def writable(piece: Piece) -> None:
    """Raise if a piece must not be written."""
    if not piece.region.writeable:
        position = 0 if piece.chosen is None else int(piece.chosen[0])
        raise Fault(f"a write to {piece.region.name}, which is read-only", position)


def host_regions(arrays: Iterable[tuple[str, Array]]) -> list[Region]:
    """Return the regions of host arrays; arrays that overlap share one.

    Parameters
    ----------
    arrays : iterable of (str, ndarray)
        With what an error calls each.
    """
    spans = sorted(
        (int(a.ctypes.data), int(a.ctypes.data) + a.nbytes, name, bool(a.flags.writeable)) for name, a in arrays
    )
    merged: list[tuple[int, int, str, bool]] = []
    for start, end, name, writeable in spans:
        if merged and start < merged[-1][1]:
            first, last, names, all_writeable = merged[-1]
            together = names if name == names else f"{names} and {name}"
            merged[-1] = first, max(last, end), together, all_writeable and writeable
        else:
            merged.append((start, end, name, writeable))
    regions = []
    for start, end, name, writeable in merged:
        if end > start:
            data = np.ctypeslib.as_array((ctypes.c_uint8 * (end - start)).from_address(start))
            regions.append(Region("global", name, start, data, None, writeable))
    return regions
