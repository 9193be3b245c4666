"""What all tests share."""

from __future__ import annotations

import os

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Keep compiled kernels in pytest's own cache: fast when run again, and the user's cache stays untouched."""
    cache = getattr(config, "cache", None)  # none with -p no:cacheprovider
    if cache is not None:
        os.environ.setdefault("GPUCOMPUTE_CACHE_DIR", str(cache.mkdir("gpucompute")))
