"""Which line of the user's function is being traced, for the messages of errors."""

from __future__ import annotations

import linecache
import os
import sys

import numpy as np

from ..errors import FusionError

_LIBRARY = (
    os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep,
    os.path.dirname(os.path.abspath(np.__file__)) + os.sep,
)


def user_line() -> str:
    """Return ``FILE:LINE: source text`` of the innermost frame that is neither ours nor NumPy's."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_LIBRARY):
        frame = frame.f_back
    name, line = frame.f_code.co_filename, frame.f_lineno
    text = linecache.getline(name, line).strip()
    return f"{name}:{line}: {text}" if text else f"{name}:{line}"


def fusion_error(message: str) -> FusionError:
    """Return a `FusionError` that ends with the user's file, line and source text."""
    return FusionError(f"{message}\n  at {user_line()}")
