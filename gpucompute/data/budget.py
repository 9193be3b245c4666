"""A bound on the memory of pictures that are being decoded at the same time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition


class Budget:
    """So many bytes, to be shared in the order of asking.

    Who wants more than there is waits until all is free and then goes alone, so one huge picture is handled at a
    time and nothing waits for ever.
    """

    def __init__(self, limit: int) -> None:
        self.limit = self._free = limit
        self._waiting: deque[object] = deque()
        self._changed = Condition()

    @contextmanager
    def take(self, size: int) -> Iterator[None]:
        """Hold `size` bytes, or everything if it is less, for the length of the block."""
        size, ticket = min(size, self.limit), object()
        with self._changed:
            self._waiting.append(ticket)
            self._changed.wait_for(lambda: self._waiting[0] is ticket and self._free >= size)
            self._waiting.popleft()
            self._free -= size
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._free += size
                self._changed.notify_all()
