"""A line that shows how far a run has come."""

from __future__ import annotations

import sys
import time
from typing import TextIO

BAR = 24  # characters
OFTEN, SELDOM = 0.1, 30.0  # seconds between lines on a terminal, and in a file


class ProgressBar:
    """Shows files done, bad ones, speed and time left.

    One line that is redrawn on a terminal, else a new line now and then. The speed is that of this run; what an
    earlier run had done does not count.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr
        self.redraws = self.stream.isatty()
        self._began: float | None = None
        self._first = self._shown_at = 0.0
        self._shown = False

    def __call__(self, done: int, bad: int, total: int) -> None:
        """Take note that `done` of `total` files are done, `bad` of them bad."""
        now = time.monotonic()
        if self._began is None:
            self._began = self._shown_at = now
            self._first = done
        if now - self._shown_at < (OFTEN if self.redraws else SELDOM) and not (self.redraws and done == total):
            return
        self._shown_at = now
        text = describe(done, bad, total, speed=(done - self._first) / max(now - self._began, 1e-9))
        self.stream.write(f"\r{text}\x1b[K" if self.redraws else text + "\n")
        self.stream.flush()
        self._shown = True

    def close(self) -> None:
        """End the line, so that what follows begins on a new one."""
        if self.redraws and self._shown:
            self.stream.write("\n")
            self.stream.flush()


def describe(done: int, bad: int, total: int, *, speed: float) -> str:
    """Return the line; `speed` in files per second.

    >>> describe(50, 2, 100, speed=25.0)
    '############............ 50/100 files, 2 bad, 25 images/s, 2 s left'
    """
    filled = BAR * done // max(total, 1)
    left = f", {duration((total - done) / speed)} left" if speed > 0 and done < total else ""
    spoiled = f", {bad:,} bad" if bad else ""
    return f"{'#' * filled}{'.' * (BAR - filled)} {done:,}/{total:,} files{spoiled}, {speed:,.0f} images/s{left}"


def duration(seconds: float) -> str:
    """Return a time for people.

    >>> duration(3.2), duration(150), duration(7500)
    ('4 s', '2 min 30 s', '2 h 5 min')
    """
    whole = -int(-seconds // 1)
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minute} min"
    return f"{minutes} min {second} s" if minutes else f"{second} s"
