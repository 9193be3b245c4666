"""Cutting, padding, mirroring, grey and ranges against hand-written references."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest
import reference
from image_samples import noise, photo

import gpucompute.image as gi
from gpucompute.errors import DTypeError, OptionError, ShapeError


def test_importing_loads_no_compiler_and_no_codec():
    code = "import sys, gpucompute.image; print({'numba', 'PIL', 'cupy', 'dask'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_center_crop_as_torchvision():
    for height, width in itertools.product((1, 4, 5, 8, 11), repeat=2):
        image = noise((height, width, 2))
        for size in [(1, 1), (4, 5), (5, 4), (8, 8), (12, 3), (3, 13), (14, 15)]:
            np.testing.assert_array_equal(gi.center_crop(image, size), reference.center_crop(image, *size))
    assert gi.center_crop(noise((9, 9, 3)), 4).shape == (4, 4, 3)


def test_crop_outside_is_zero():
    image = noise((6, 7, 3)) | 1
    whole = np.pad(image, ((5, 9), (5, 9), (0, 0)))
    for top, left in [(0, 0), (-3, 2), (4, -5), (5, 6)]:
        np.testing.assert_array_equal(gi.crop(image, top, left, 4, 8), whole[5 + top : 9 + top, 5 + left : 13 + left])
    assert not gi.crop(image, 50, 50, 3, 3).any()


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "symmetric"])
def test_pad_as_numpy(mode):
    image = noise((6, 7, 3))
    for padding, (left, top, right, bottom) in {
        2: (2, 2, 2, 2),
        (1, 3): (1, 3, 1, 3),
        (0, 1, 2, 3): (0, 1, 2, 3),
    }.items():
        expected = np.pad(image, ((top, bottom), (left, right), (0, 0)), mode=mode)
        np.testing.assert_array_equal(gi.pad(image, padding, padding_mode=mode), expected)


def test_numpys_integers_are_integers():
    image = noise((240, 250, 3))
    for integer in (np.int64, np.uint8):
        cases = [
            (gi.crop, (100, 200, 200, 200)),
            (gi.center_crop, (255,)),
            (gi.center_crop, ((20, 255),)),
            (gi.resize, (20,)),
            (gi.resize, ((30, 255),)),
            (gi.pad, (200,)),
            (gi.pad, ((1, 2, 3, 200),)),
        ]
        for function, args in cases:
            given = [tuple(map(integer, a)) if isinstance(a, tuple) else integer(a) for a in args]
            np.testing.assert_array_equal(function(image, *given), function(image, *args))
    np.testing.assert_array_equal(gi.pad(image, np.array([1, 2])), gi.pad(image, (1, 2)))
    np.testing.assert_array_equal(gi.Compose([gi.Resize(np.uint8(30))])(image), gi.Compose([gi.Resize(30)])(image))
    with pytest.raises(OptionError, match=r"top=1.5, left=0: expected ints"):
        gi.crop(image, 1.5, 0, 3, 3)


def test_fill_per_channel_and_of_any_dtype():
    padded = gi.pad(noise((3, 3, 2), dtype=np.float32), 1, fill=(0.5, -2))
    assert padded[0, 0].tolist() == [0.5, -2]
    assert gi.pad(np.ones((2, 2), bool), 1).dtype == bool


def test_flips():
    image = noise((5, 6, 3))
    np.testing.assert_array_equal(gi.horizontal_flip(image), image[:, ::-1])
    np.testing.assert_array_equal(gi.vertical_flip(image), image[::-1])
    assert not np.shares_memory(gi.vertical_flip(image), image)


def test_forms():
    batch, functions = (
        noise((2, 9, 8, 3)),
        [lambda x: gi.center_crop(x, 4), gi.to_float, gi.rgb_to_grayscale, gi.horizontal_flip],
    )
    for function in functions:
        expected = np.stack([function(image) for image in batch])
        np.testing.assert_array_equal(function(batch), expected)
        listed = function([batch[0], batch[1][:5]])
        np.testing.assert_array_equal(listed[0], expected[0])
        assert listed[1].dtype == expected.dtype
        assert function(batch[:0]).shape == (0, *expected.shape[1:])
    assert gi.center_crop(batch[0, :, :, 0], 4).shape == (4, 4)


def test_grey_of_a_photograph_and_of_many_colours():
    pillow = pytest.importorskip("PIL.Image")
    for image in (
        photo(),
        noise((200, 300, 3)),
        np.indices((16, 256, 16)).transpose(1, 2, 3, 0).reshape(256, 256, 3).astype(np.uint8),
    ):
        grey = gi.rgb_to_grayscale(image)[:, :, 0]
        np.testing.assert_array_equal(grey, pillow.fromarray(image).convert("L"))
        np.testing.assert_array_equal(grey, reference.grey(image))


def test_normalize_is_rounded_once():
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    every = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    np.testing.assert_array_equal(gi.normalize(every, mean, std), ((every / 255 - mean) / std).astype(np.float32))
    np.testing.assert_array_equal(gi.to_float(every), every.astype(np.float32) / np.float32(255))
    floats = noise((5, 6, 3), dtype=np.float32)
    np.testing.assert_array_equal(gi.normalize(floats, mean, std), ((floats - mean) / std).astype(np.float32))
    assert gi.normalize(every[..., 0], 0.5, 0.5).shape == (16, 16)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: gi.crop(noise((4, 4, 3)), 0, 0, 0, 4), OptionError, "1 or more"),
        (lambda: gi.center_crop(noise((4, 4, 3)), (1, 2, 3)), OptionError, "size="),
        (
            lambda: gi.pad([noise((4, 4, 3))], 1, fill=(1, 2)),
            ShapeError,
            "fill=.* has 2 numbers for images of 3 channels",
        ),
        (lambda: gi.rgb_to_grayscale([noise((4, 4, 4))]), ShapeError, r"images\[0\] .* 4 channels: expected 3"),
        (lambda: gi.normalize(noise((4, 4, 3)), (0, 0), 1), ShapeError, "mean=.* has 2 numbers"),
        (lambda: gi.to_float(noise((4, 4, 3)).astype(np.int64)), DTypeError, "int64.*expected uint8 or float32"),
        (lambda: gi.horizontal_flip(np.array([["a"]])), DTypeError, "expected numbers"),
    ],
)
def test_errors_say_what_to_do(call, error, text):
    with pytest.raises(error, match=text):
        call()
