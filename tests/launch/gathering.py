"""How many threads come to a call, however slow the machine is: the call waits for them."""

from __future__ import annotations

import threading

from gpucompute.launch import cpu

PATIENCE = 2000  # items of 5 ms


def gathered(wanted: int) -> int:
    """Return how many threads work on a call that goes on until so many have come, or for some seconds."""
    here: set[int] = set()
    met = threading.Event()

    def body(lo: int, hi: int) -> None:
        here.add(threading.get_ident())
        if len(here) >= wanted:
            met.set()
        met.wait(0.005 * (hi - lo))

    cpu.parallel_for(body, PATIENCE)
    return len(here)
