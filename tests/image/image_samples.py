"""Images that the tests resize."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest


@cache
def photo():
    """A real photograph, (300, 451, 3)."""
    image = pytest.importorskip("skimage.data").chelsea()
    image.flags.writeable = False
    return image


def noise(shape, seed=0, dtype=np.uint8):
    """Pixels without any likeness to their neighbours; float32 with large and small values, some negative."""
    random = np.random.default_rng([seed, *shape])
    if dtype == np.uint8:
        return random.integers(0, 256, shape, dtype=np.uint8)
    return (random.standard_normal(shape) * 10.0 ** random.integers(-3, 4, shape)).astype(np.float32)
