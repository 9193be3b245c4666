"""The kernel pairs on a real GPU: the bits of the CPU, over generated batches."""

from __future__ import annotations

import numpy as np
import pytest

import gpucompute as gp
from gpucompute import image as im
from gpucompute.image.coefficients import INTERPOLATIONS

pytestmark = pytest.mark.gpu


def batch(random):
    channels = int(random.integers(1, 6))
    shapes = [(*random.integers(1, 300, 2), channels) for _ in range(random.integers(1, 9))]
    return [random.integers(0, 256, shape, dtype=np.uint8) for shape in shapes]


@pytest.mark.parametrize("seed", range(10))
def test_resize(gpucompute_device, seed):
    random = np.random.default_rng(seed)
    for _ in range(20):
        images = batch(random)
        size = tuple(map(int, random.integers(1, 300, 2)))
        how = {"interpolation": str(random.choice(INTERPOLATIONS)), "antialias": bool(random.integers(2))}
        got = im.resize([gp.asarray(image) for image in images], size, **how)
        assert gp.digest(*map(gp.asnumpy, got)) == gp.digest(*im.resize(images, size, **how))


@pytest.mark.parametrize("seed", range(4))
def test_resize_of_floats(gpucompute_device, seed):
    random = np.random.default_rng(seed)
    for _ in range(20):
        images = [image.astype(np.float32) / 7 if random.integers(4) else image for image in batch(random)]
        size = tuple(map(int, random.integers(1, 300, 2)))
        how = {"interpolation": str(random.choice(INTERPOLATIONS)), "antialias": bool(random.integers(2))}
        got = im.resize([gp.asarray(image) for image in images], size, **how)
        assert gp.digest(*map(gp.asnumpy, got)) == gp.digest(*im.resize(images, size, **how))


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
def test_chains(gpucompute_device, dtype, layout):
    random = np.random.default_rng(0)
    end = [] if dtype == "uint8" else [im.Normalize(0.4, 0.3)]
    for steps in (
        [im.Resize(64), im.CenterCrop(56), im.HorizontalFlip()],
        [im.Resize(9, interpolation="lanczos"), im.CenterCrop(24), im.Pad(2, fill=7)],
        [im.Resize((40, 30)), im.Crop(3, -4, 20, 50), im.Resize((8, 13), interpolation="bicubic")],
    ):
        chain = im.Compose([*steps, *end], dtype=dtype, layout=layout)
        for _ in range(10):
            images = batch(random)
            got = chain([gp.asarray(image) for image in images])
            assert gp.digest(gp.asnumpy(got)) == gp.digest(chain(images))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("seed", range(10))
def test_statistics(gpucompute_device, seed, dtype):
    random = np.random.default_rng(seed)
    for _ in range(10):
        shape = tuple(int(2 ** random.uniform(0, top)) for top in (10, 6, 9))
        x = (random.standard_normal(shape) * 60 + 120).clip(0, 255).astype(dtype)
        for axis in (None, 0, 1, 2, (0, 1), (0, 2), (1, 2)):
            got, expected = gp.stats.describe(gp.asarray(x), axis), gp.stats.describe(x, axis)
            assert got.nobs == expected.nobs
            for one, other in zip(got.minmax + got[2:], expected.minmax + expected[2:], strict=True):
                assert gp.digest(gp.asnumpy(one)) == gp.digest(np.asarray(other))


def test_a_large_array_takes_the_long_joins(gpucompute_device):
    x = np.random.default_rng(0).standard_normal(20_000_000).astype(np.float32)
    got, expected = gp.stats.describe(gp.asarray(x)), gp.stats.describe(x)
    for one, other in zip(got.minmax + got[2:], expected.minmax + expected[2:], strict=True):
        assert gp.digest(gp.asnumpy(one)) == gp.digest(np.asarray(other))
