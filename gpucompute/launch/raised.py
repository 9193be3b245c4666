"""Exceptions of users' compiled functions, brought to the caller.

What numba compiles for callers in C cannot return an exception: it hands it to `sys.unraisablehook`, in the thread that
ran the code, and returns as if all were well. Here the hook takes it, while one of our calls runs in that thread.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

_local = threading.local()  # .found: the exceptions of the call that runs in this thread
_installed: Any = None


class Raising:
    """A kernel of which a part may raise: called as the kernel itself, it raises what the part did."""

    def __init__(self, call: Callable[..., None]) -> None:
        self._call = call

    def __call__(self, *words: Any) -> None:
        _install()
        found = _local.found = []
        try:
            self._call(*words)
        finally:
            _local.found = None
        if found:
            raise found[0]


def _install() -> None:
    """Let our hook come first; again, if another one was set meanwhile."""
    global _installed
    if sys.unraisablehook is _installed:
        return
    others = sys.unraisablehook

    def hook(unraisable: Any, /) -> None:
        found = getattr(_local, "found", None)
        if found is None or unraisable.exc_value is None:
            others(unraisable)
        else:
            found.append(unraisable.exc_value)

    sys.unraisablehook = _installed = hook
