"""The image functions and statistics for arrays on a GPU: PyCUDA's code on the fake driver, kernels in the emulator."""

from __future__ import annotations

import numpy as np
import pytest
from fake_cuda import machine_fixture, to_device, to_host  # noqa: F401 - a fixture

import gpucompute as gp
from gpucompute import image as im
from gpucompute.errors import DeviceError, DTypeError, OptionError, ShapeError
from gpucompute.testing.driver import Machine

SHAPES = [(33, 47, 3), (90, 21, 3), (24, 24, 3), (13, 70, 3)]
PHOTOS = [np.random.default_rng(i).integers(0, 256, shape, dtype=np.uint8) for i, shape in enumerate(SHAPES)]


def assert_same(on_gpu, expected):
    got = to_host(on_gpu)
    assert got.dtype == expected.dtype
    np.testing.assert_array_equal(got, expected)


def test_resize_of_all_forms(machine: Machine) -> None:
    for form in (PHOTOS, [PHOTOS[0][:, :, 0].copy(), PHOTOS[1]]):
        got = im.resize([to_device(photo) for photo in form], 12, interpolation="bicubic")
        expected = im.resize(form, 12, interpolation="bicubic")
        assert isinstance(got, list) and len(got) == len(expected)
        for one, other in zip(got, expected, strict=True):
            assert_same(one, other)
    for image in (np.stack([PHOTOS[0], PHOTOS[0][::-1]]), PHOTOS[1], PHOTOS[2][:, :, 1].copy()):
        got = im.resize(to_device(image), (9, 30), box=(1, 2, 20, 20))
        assert_same(got, im.resize(image, (9, 30), box=(1, 2, 20, 20)))


def test_floats(machine: Machine) -> None:
    floats = [np.random.default_rng(i).standard_normal(shape).astype(np.float32) for i, shape in enumerate(SHAPES)]
    mixed = [*floats, PHOTOS[0], floats[0][:, :, 1].copy()]
    there = [to_device(image) for image in mixed]
    machine.forget()
    got = im.resize(there, 12, interpolation="bicubic")
    assert [launch.name for launch in machine.launches] == ["resample_float"] * 2 + ["resample_first", "resample_last1"]
    assert machine.synchronisations() == 0
    for one, other in zip(got, im.resize(mixed, 12, interpolation="bicubic"), strict=True):
        assert_same(one, other)
    batch = np.stack([floats[2], floats[2][::-1]])
    assert_same(im.resize(to_device(batch), (9, 30), box=(1, 2, 20, 20)), im.resize(batch, (9, 30), box=(1, 2, 20, 20)))
    assert im.resize(to_device(batch[:0]), 5).shape == (0, 5, 5, 3)


def test_a_chain_is_two_launches_and_nobody_waits(machine: Machine) -> None:
    chain = im.Compose([im.Resize(20), im.CenterCrop(16), im.Normalize((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))])
    photos = [to_device(photo) for photo in PHOTOS]
    machine.forget()
    got = chain(photos)
    assert [launch.name for launch in machine.launches] == ["resample_first", "resample_last4"]
    assert machine.synchronisations() == 0
    assert_same(got, chain(PHOTOS))
    assert chain(photos, out=got) is got
    for dtype, layout in (("uint8", "NHWC"), ("float16", "NCHW")):
        chain = im.Compose([im.Resize((10, 12)), im.Grayscale()], dtype=dtype, layout=layout)
        assert_same(chain(photos), chain(PHOTOS))


def test_statistics_stay_on_the_device(machine: Machine) -> None:
    x = np.random.default_rng(0).integers(0, 256, (3, 5, 6, 7), dtype=np.uint8)
    for values in (x, x.astype(np.float32)):
        for axis in (None, 0, -1, (0, 2, 3), (0, 1, 2)):
            machine.forget()
            got = gp.stats.describe(to_device(values), axis)
            assert machine.synchronisations() == 0
            expected = gp.stats.describe(values, axis)
            assert got.nobs == expected.nobs
            for one, other in zip(got.minmax + got[2:], expected.minmax + expected[2:], strict=True):
                assert_same(one, np.asarray(other))


def test_errors_say_what_to_do(machine: Machine) -> None:
    photo = to_device(PHOTOS[0])
    with pytest.raises(DeviceError, match=r"images\[1\] is ndarray, and images\[0\] is on a GPU; move"):
        im.resize([photo, PHOTOS[0]], 8)
    with pytest.raises(DeviceError, match=r"images\[0\] on cuda:0, images\[1\] on cuda:1"):
        im.resize([photo, to_device(PHOTOS[0], 1)], 8)
    with pytest.raises(DTypeError, match=r"images has dtype int16 .*; expected uint8 or float32"):
        im.resize(to_device(PHOTOS[0].astype(np.int16)), 8)
    with pytest.raises(DTypeError, match=r"images has dtype float32 .*; expected uint8: convert"):
        im.Compose([im.Resize(8)])(to_device(PHOTOS[0].astype(np.float32)))
    with pytest.raises(ShapeError, match=r"images has shape \(4,\)"):
        im.resize(to_device(np.zeros(4, np.uint8)), 8)
    with pytest.raises(OptionError, match=r"box=.* for images\[1\] of height 33"):
        im.resize([to_device(PHOTOS[1]), photo], 8, box=(0, 0, 21, 60))
    chain = im.Compose([im.Resize((8, 8))])
    with pytest.raises(ShapeError, match=r"out has shape .*; expected a writeable array in C order on the GPU"):
        chain([photo], out=to_device(np.zeros((1, 3, 8, 9), np.float32)))
