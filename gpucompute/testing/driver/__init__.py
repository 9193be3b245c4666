"""A CUDA driver for tests without a GPU: PyCUDA's real code runs on it, and so does `gpucompute.launch.cuda`.

`running` loads a ``libcuda.so.1`` of our own into this process, before PyCUDA asks for one. Device memory is host
memory; a kernel that was compiled from CUDA C++ runs in the emulator, one from PTX in the PTX interpreter. The machine
counts the calls of every driver function, makes any of them fail when asked, and keeps what was launched where.

    with driver.running(devices=2) as machine:
        machine.fail("cuMemAlloc_v2", driver.OUT_OF_MEMORY)
        ...
        assert machine.calls("cuCtxSynchronize") == 0

CuPy does not work on it: its runtime library asks for more than a driver's functions.
"""

from __future__ import annotations

from .machine import (
    ILLEGAL_ADDRESS,
    INVALID_IMAGE,
    LAUNCH_FAILED,
    NO_BINARY_FOR_GPU,
    OUT_OF_MEMORY,
    Launch,
    Machine,
    running,
    unavailable,
)

__all__ = [
    "ILLEGAL_ADDRESS", "INVALID_IMAGE", "LAUNCH_FAILED", "NO_BINARY_FOR_GPU", "OUT_OF_MEMORY", "Launch", "Machine",
    "running", "unavailable",
]  # fmt: skip
