"""The fake CUDA driver as a fixture, and arrays on it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from gpucompute.launch import drivers
from gpucompute.testing import driver


@pytest.fixture(name="machine")
def machine_fixture() -> Iterator[driver.Machine]:
    """Two devices of 64 MiB; skipped where the driver cannot be built, or a real one is there."""
    if reason := driver.unavailable():
        pytest.skip(reason)
    with driver.running(devices=2, memory=64 << 20) as machine:
        yield machine


def to_device(array: Any, device: int = 0) -> Any:
    """Return a copy of an array on a device, PyCUDA's."""
    return pycuda().upload(np.asarray(array), device, None)


def to_host(array: Any) -> Any:
    """Return the values of an array on a device."""
    with pycuda().active(0):
        return array.get()


def pycuda() -> Any:
    """Return PyCUDA as the launcher sees it."""
    found = drivers.pycuda()
    assert found is not None
    return found
