"""Threads that wait for a kernel at a word of memory, without a lock, the GIL or the operating system.

To wake a sleeping thread takes 30 to 300 µs, and to hand out a piece of work in Python 10 µs: a lot in a call of one
millisecond. So a helper that has worked watches its `Mailbox` for `WATCH` seconds before it sleeps, as the threads of
OpenMP do, and all threads of a call take pieces from a counter by atomic additions. A normalisation of 48 MB takes
0.85 of the time so.

What the threads do is in `kernels/cpu/mailbox.py`.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from ..kernels.cpu.mailbox import ASLEEP, DISMISSED, FIRST, MEMORY, STATE, WATCHING
from ..memory import ALIGNMENT

WATCH = 2e-4  # seconds; the next call of a loop often comes sooner


class Native(NamedTuple):
    """`lead` and `serve` as machine code, how often `serve` looks in `WATCH` seconds, and what owns the code."""

    lead: Callable[[int], None]
    serve: Callable[[int, int], None]
    patience: int
    keep: Any


class _Source(NamedTuple):
    """What `cache` compiles."""

    source: str
    words: int
    folds: dict[str, Any] = {}  # noqa: RUF012 - never changed
    users: dict[str, Any] = {}  # noqa: RUF012
    interleave: int = 0


@functools.cache
def native() -> Native:
    """Return the compiled functions; like kernels they are kept on disk. Who runs them holds what is returned."""
    from . import cache

    leading = cache.find_own(_Source("def kernel(job):\n    lead(job)\n", 1))
    serving = cache.find_own(_Source("def kernel(mail, patience):\n    serve(mail, patience)\n", 2))
    lead = ctypes.CFUNCTYPE(None, ctypes.c_int64)(leading.address)
    serve = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64)(serving.address)
    mailbox, times, count = Mailbox(), [], 1000
    for _ in range(3):  # how long a pause is differs tenfold between processors
        began = perf_counter()
        serve(mailbox.address, count)
        times.append(perf_counter() - began)
    patience = max(1, int(WATCH / max(min(times), 1e-9) * count))
    return Native(lead, serve, patience, (leading, serving))


def aligned(nbytes: int) -> tuple[int, Any]:
    """Return the address of so many bytes that begin on a line of the cache, and what owns them."""
    block = np.empty(nbytes + ALIGNMENT, np.uint8)
    return -(-block.ctypes.data // ALIGNMENT) * ALIGNMENT, block


class Mailbox:
    """Where a helper finds jobs.

    Attributes
    ----------
    address : int
        Of its words, alone in a cache line.
    """

    def __init__(self) -> None:
        self.address, self._block = aligned(64)
        self._words = (ctypes.c_int64 * 8).from_address(self.address)
        self._words[:] = [0] * 8
        self._reserved, self._scratch = 0, self._block

    @property
    def unattended(self) -> bool:
        """Whether the helper must be woken to see what is posted. It may have woken just now."""
        return self._words[STATE] in (ASLEEP, DISMISSED)

    def dismiss(self) -> None:
        """Let the helper stop watching, for something else that it was given."""
        if self._words[STATE] == WATCHING:
            self._words[STATE] = DISMISSED

    def reserve(self, nbytes: int) -> None:
        """Have scratch memory for the helper; only its owner may ask, while nothing is posted."""
        if self._reserved < nbytes:
            self._words[MEMORY], self._scratch = aligned(nbytes)
            self._reserved = nbytes


def work_off(
    code: Native, kernel: int, words: Sequence[int], items: int, piece: int, scratch: int, mailboxes: Sequence[Mailbox]
) -> None:
    """Run a kernel for items 0 to `items` here and in the helpers at `mailboxes`, `piece` items at a time.

    kernel : its address; words : its arguments p, q, k and e; scratch : address of this thread's scratch memory.
    """
    mails = [mailbox.address for mailbox in mailboxes]
    job = (ctypes.c_int64 * (FIRST + len(mails)))(kernel, *words, 0, items, piece, scratch, len(mails), *mails)
    code.lead(ctypes.addressof(job))
