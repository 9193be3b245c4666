"""A limit of time for each test of clusters: a hang is a failure, not a build that never ends."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import pytest

SECONDS = 60


@pytest.fixture(name="deadline", autouse=True)
def deadline_fixture(request: pytest.FixtureRequest) -> Iterator[None]:
    """Raise in the test after `SECONDS`, where the system has alarms."""
    if not hasattr(signal, "SIGALRM"):
        yield
        return

    def ring(*_: Any) -> None:
        raise AssertionError(f"{request.node.name} hangs: not done after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
