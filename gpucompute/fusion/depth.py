"""Long chains of operations: what walks expressions calls itself for each operation of a chain."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

FRAMES = 8  # calls inside one another for each operation, at most; Python's own limit is 1000

_lock = threading.Lock()
_inside = 0  # threads in `deep`
_before = 0  # the limit without them


@contextmanager
def deep(operations: int) -> Iterator[None]:
    """Let calls be nested as deep as an expression of so many operations needs.

    The limit belongs to the whole process, and is as before when the last thread has left.
    """
    global _inside, _before
    with _lock:
        if not _inside:
            _before = sys.getrecursionlimit()
        _inside += 1
        sys.setrecursionlimit(max(sys.getrecursionlimit(), _before + FRAMES * operations))
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                sys.setrecursionlimit(_before)
