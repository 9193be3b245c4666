"""Settings that come from the environment, read when they are needed and checked as they are read."""

from __future__ import annotations

import os
from pathlib import Path

from .errors import OptionError


def integer(name: str, default: int, *, minimum: int = 0) -> int:
    """Return the environment variable `name` as an integer of at least `minimum`."""
    text = os.environ.get(name)
    if text is None or not text.strip():
        return default
    try:
        value = int(text)
    except ValueError:
        value = minimum - 1
    if value < minimum:
        raise OptionError(f"{name}={text!r}: expected a whole number, {minimum} or more; set it so or unset it")
    return value


def cache_dir() -> Path:
    """Return the folder of compiled kernels: ``GPUCOMPUTE_CACHE_DIR``, else the user's cache folder."""
    chosen = os.environ.get("GPUCOMPUTE_CACHE_DIR")
    if chosen:
        return Path(chosen).expanduser()
    if os.name == "nt":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return base / "gpucompute"
