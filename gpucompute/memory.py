"""A pool of CPU memory for results: `empty` reuses the memory of arrays that nothing can reach any more.

Filling fresh memory costs more than most kernels: a 38 MB result takes 20 ms in new pages and 6.7 ms in pages
that are already mapped. So blocks are kept when their arrays die, up to a limit on what lies idle.

How a block comes back. An array of `empty` is a plain `numpy.ndarray` whose base is a block, which belongs to a
subclass of ndarray so that NumPy stops there when it shortens chains of bases: every view holds the array itself,
not the block. A weak reference on the array, whose callback runs when the array is really gone (all other weak
references to it are cleared by then), puts the block among the idle ones. Someone may still have taken
``array.base``: an idle block is handed out only if its reference count says that the pool alone has it.

This costs 1.6 µs for a warm `empty` of any size, the array's death included. An object with ``__array_interface__``
and a finaliser, under `numpy.asarray`, takes 2.7 µs; an owner that revives itself in ``__del__`` would rest on the
interpreter calling that more than once, and would let weak references reach recycled memory.

No locks: a finaliser may run anywhere, also inside this module, and a fork may happen at any time. Every step on
shared state is one atomic operation of a deque or dict; threads that race at worst drop an idle block too many.
"""

from __future__ import annotations

import itertools
import math
import operator
import os
import sys
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, SupportsIndex

import numpy as np
from numpy.typing import DTypeLike

from .config import integer
from .errors import OptionError
from .limits import memory_available

SMALL = 16 * 1024  # bytes; below, malloc's own free lists are as fast and never return pages
ALIGNMENT = 64  # bytes; a cache line and an AVX-512 register
DEFAULT_LIMIT = 2**30  # bytes, or an eighth of the memory if that is less


class MemoryStats(NamedTuple):
    """The pool in numbers: bytes in blocks of living arrays, idle bytes and their limit; counts of blocks."""

    in_use: int
    pooled: int
    limit: int
    reused: int
    allocated: int


class _Block(np.ndarray[Any, np.dtype[np.uint8]]):
    """Memory of one size class; `offset` is where the aligned part begins, `stamp` when it became idle."""

    __slots__ = ("offset", "size_class", "stamp")
    offset: int
    size_class: int
    stamp: int


class _Lease(weakref.ref[np.ndarray[Any, Any]]):
    """A weak reference to an array of `empty`, with the block that the array lies in."""

    __slots__ = ("block",)
    block: _Block


_idle: dict[int, deque[_Block]] = {}  # replaced, never changed, so that loops over it need no lock
_lent: dict[int, _Lease] = {}
_clock = itertools.count()
_limit: int | None = None
_reused = _allocated = 0  # `+= 1` on a global is not interrupted by CPython with the GIL


def _count_of_one_variable() -> int:
    fresh = object()
    return sys.getrefcount(fresh)


_ALONE = _count_of_one_variable()  # measured: the interpreters differ in what they add


def empty(shape: SupportsIndex | Sequence[SupportsIndex], dtype: DTypeLike) -> np.ndarray[Any, Any]:
    """Return an uninitialised array in C order, in reused memory if some is idle.

    The array is an ordinary writable `numpy.ndarray`, aligned to 64 bytes from 16 KiB on (smaller ones come from
    `numpy.empty`). Its memory is reused only when neither the array nor a view, memoryview, DLPack consumer or
    anything else made from it can be reached any more.

    Parameters
    ----------
    shape : int or sequence of int
    dtype : data-type

    Raises
    ------
    MemoryError
        If the system has not enough memory, even after the pool's idle blocks were given back.

    Examples
    --------
    >>> result = empty((480, 640, 3), "float32")
    >>> result.shape, result.flags.c_contiguous
    ((480, 640, 3), True)
    """
    global _reused
    dtype = np.dtype(dtype)
    try:
        lengths = iter(shape)  # type: ignore[arg-type]
    except TypeError:
        lengths = iter((shape,))  # type: ignore[arg-type]
    nbytes = math.prod(map(operator.index, lengths)) * dtype.itemsize  # NumPy's integers would overflow
    if nbytes < SMALL or dtype.hasobject:
        return np.empty(shape, dtype)
    step = nbytes.bit_length() - 3  # four classes in each doubling: at most a quarter is wasted
    size = -(-nbytes >> step) << step
    while True:
        try:
            block = _idle[size].pop()
        except (KeyError, IndexError):
            block = _allocate(size)
            break
        if sys.getrefcount(block) == _ALONE:
            _reused += 1
            break
    array: np.ndarray[Any, Any] = np.ndarray(shape, dtype, block, block.offset)
    lease = _Lease(array, _give_back)
    lease.block = block
    _lent[id(lease)] = lease
    return array


def _allocate(size: int) -> _Block:
    """Return a new block of `size` bytes, with room to align it."""
    global _allocated
    _current_limit()  # a wrong setting is reported here; in the callback nobody would see the error
    try:
        block = np.ndarray.__new__(_Block, size + ALIGNMENT, np.uint8)
    except MemoryError:
        freed = release()
        try:
            block = np.ndarray.__new__(_Block, size + ALIGNMENT, np.uint8)
        except MemoryError:
            raise MemoryError(
                f"no memory for an array of {size:,} bytes: living arrays of the pool hold {stats().in_use:,} bytes "
                f"and {freed:,} idle bytes were given back in vain; delete arrays or work in smaller pieces"
            ) from None
    block.offset = -block.__array_interface__["data"][0] % ALIGNMENT
    block.size_class = size
    _allocated += 1
    return block


def _give_back(lease: _Lease, ending: Callable[[], bool] = sys.is_finalizing) -> None:
    """Put the block of an array that has died among the idle ones (the callback of the weak reference)."""
    global _idle
    if ending():  # the names of this module may be gone
        return
    del _lent[id(lease)]
    block = lease.block
    size = block.size_class
    limit = _current_limit()
    if size > limit:
        return  # it alone would push everything else out
    block.stamp = next(_clock)
    try:
        _idle[size].append(block)
    except KeyError:
        _idle = {**_idle, size: deque((block,))}
    if _pooled() > limit:
        _trim(limit)


def _trim(limit: int) -> None:
    """Drop the blocks that have been idle longest until the rest is within the limit."""
    while _pooled() > limit:
        candidates = []
        for blocks in _idle.values():
            try:
                candidates.append((blocks[0].stamp, blocks))
            except IndexError:
                continue
        try:
            min(candidates, key=operator.itemgetter(0))[1].popleft()
        except (IndexError, ValueError):  # another thread was faster
            continue


def _pooled() -> int:
    total = 0
    for size, blocks in _idle.items():
        total += size * len(blocks)
    return total


def _current_limit() -> int:
    global _limit
    if _limit is None:
        memory = memory_available()
        default = DEFAULT_LIMIT if memory is None else min(DEFAULT_LIMIT, memory // 8)
        _limit = integer("GPUCOMPUTE_POOL_LIMIT", default)
    return _limit


def set_limit(nbytes: int) -> None:
    """Let at most `nbytes` bytes lie idle in the pool; 0 switches reuse off.

    Raises
    ------
    OptionError
        If `nbytes` is not a whole number of bytes, 0 or more.
    """
    global _limit
    try:
        value = operator.index(nbytes)
    except TypeError:
        value = -1
    if value < 0:
        raise OptionError(f"set_limit({nbytes!r}): expected a whole number of bytes, 0 or more (0: reuse nothing)")
    _limit = value
    _trim(value)


def stats() -> MemoryStats:
    """Return how many bytes of the pool are in use and idle, the limit, and how many blocks were reused and made."""
    in_use = sum(lease.block.size_class for lease in list(_lent.values()))
    return MemoryStats(in_use, _pooled(), _current_limit(), _reused, _allocated)


def release() -> int:
    """Give all idle blocks back to the system and return how many bytes they were."""
    global _idle
    freed = _pooled()
    _idle = {}
    return freed


if hasattr(os, "register_at_fork"):
    # An idle block in a child is a copy on write: filling it costs a fault and a copy for every page.
    os.register_at_fork(after_in_child=release)
