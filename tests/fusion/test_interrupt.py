"""Ctrl-C in the middle of long work."""

from __future__ import annotations

import signal
from typing import Any

import numpy as np
import pytest

import gpucompute as gp

LARGE = 8_000_000


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a timer that interrupts the main thread")
def test_ctrl_c_stops_and_leaves_everything_usable() -> None:
    fused = gp.fuse(lambda x: np.sin(np.sin(np.sin(x))))
    x = np.linspace(0, 1, LARGE)
    expected = gp.digest(fused(x))
    calls = []

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - one call may end just before the signal
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            while len(calls) < 10_000:
                fused(x)
                calls.append(1)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert gp.digest(fused(x)) == expected
