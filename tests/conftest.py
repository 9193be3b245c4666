"""What all tests share."""

from __future__ import annotations

import os
from typing import Any

import pytest
from counting import Counts

_OUTPUT = "gpucompute_counts"
_counts = Counts()


def pytest_configure(config: pytest.Config) -> None:
    """Keep compiled kernels in pytest's own cache: fast when run again, and the user's cache stays untouched."""
    cache = getattr(config, "cache", None)  # none with -p no:cacheprovider
    if cache is not None:
        os.environ.setdefault("GPUCOMPUTE_CACHE_DIR", str(cache.mkdir("gpucompute")))
    _counts.watch()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand the counts of a worker of pytest-xdist over."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output[_OUTPUT] = _counts.packed()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Add the counts of a worker; one that died has none."""
    packed = getattr(node, "workeroutput", {}).get(_OUTPUT)
    if packed is not None:
        _counts.add(packed)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was compiled, emulated and interpreted."""
    lines = _counts.lines()
    if lines:
        terminalreporter.section("kernels without a GPU")
        for line in lines:
            terminalreporter.line(line)
