"""`Compose` against its steps one by one, and against Pillow and NumPy."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from image_samples import noise, photo

import gpucompute.image as gi
from gpucompute import get_threads, memory, set_threads
from gpucompute.errors import DTypeError, OptionError, ShapeError
from gpucompute.image import (
    CenterCrop,
    Compose,
    Crop,
    Grayscale,
    HorizontalFlip,
    Normalize,
    Pad,
    Resize,
    ToFloat,
    VerticalFlip,
)

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

ONE_BY_ONE = {
    Resize: lambda image, step: gi.resize(image, step.size, interpolation=step.interpolation, antialias=step.antialias),
    Crop: lambda image, step: gi.crop(image, step.top, step.left, step.height, step.width),
    CenterCrop: lambda image, step: gi.center_crop(image, step.size),
    Pad: lambda image, step: gi.pad(image, step.padding, step.fill, step.padding_mode),
    HorizontalFlip: lambda image, step: gi.horizontal_flip(image),
    VerticalFlip: lambda image, step: gi.vertical_flip(image),
    Grayscale: lambda image, step: gi.rgb_to_grayscale(image),
    Normalize: lambda image, step: gi.normalize(image, step.mean, step.std),
    ToFloat: lambda image, step: gi.to_float(image),
}


def one_by_one(steps, image):
    for step in steps:
        image = ONE_BY_ONE[type(step)](image, step)
    return image


def test_the_usual_chain_on_photographs_of_many_sizes():
    pillow = pytest.importorskip("PIL.Image")
    images = [photo(), photo()[:, :250], photo()[::-1, 20:320], noise((500, 260, 3)), noise((90, 100, 3))]
    batch = Compose([Resize(256), CenterCrop(224), Normalize(MEAN, STD)])(images)
    assert batch.shape == (5, 3, 224, 224)
    assert batch.dtype == np.float32
    assert batch.flags.c_contiguous
    for image, got in zip(images, batch, strict=True):
        height, width = reference.resized_size(256, *image.shape[:2])
        resized = np.asarray(pillow.fromarray(np.ascontiguousarray(image)).resize((width, height), 2))
        cropped = reference.center_crop(resized, 224, 224)
        np.testing.assert_array_equal(got, ((cropped / 255 - MEAN) / STD).astype(np.float32).transpose(2, 0, 1))


small = st.integers(1, 30)
PADDINGS = st.one_of(st.integers(0, 4), st.tuples(*[st.integers(0, 4)] * 2), st.tuples(*[st.integers(0, 4)] * 4))
STEPS = st.one_of(
    st.builds(Resize, st.tuples(small, small), st.sampled_from(["nearest", "bilinear", "lanczos"]), st.booleans()),
    st.builds(Crop, st.integers(-5, 20), st.integers(-5, 20), small, small),
    st.builds(CenterCrop, st.tuples(small, small)),
    st.builds(Pad, PADDINGS, st.integers(0, 255), st.sampled_from(["constant", "edge", "symmetric"])),
    st.just(HorizontalFlip()),
    st.just(VerticalFlip()),
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(STEPS, max_size=6), st.booleans(), small, small,
    st.sampled_from(["uint8", "float16", "float32"]), st.sampled_from(["NCHW", "NHWC"]),
)  # fmt: skip
def test_a_chain_equals_its_steps_one_by_one(steps, grey, height, width, dtype, layout):
    image = noise((height, width, 3))
    if grey:
        steps = [*steps[:3], Grayscale(), *steps[3:]]
    expected = one_by_one(steps, image).astype(dtype)
    got = Compose(steps, dtype=dtype, layout=layout)([image])
    np.testing.assert_array_equal(got[0] if layout == "NHWC" else got[0].transpose(1, 2, 0), expected)


@pytest.mark.parametrize("last", [Normalize(MEAN, STD), Normalize(0.5, 0.25), ToFloat()])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_normalised_and_padded(last, layout):
    image = noise((20, 30, 3))
    steps = [Resize((10, 12)), Pad((1, 2, 3, 4), fill=(9, 8, 7)), HorizontalFlip(), last]
    expected = one_by_one(steps, image)
    got = Compose(steps, layout=layout)(image)
    np.testing.assert_array_equal(got[0], expected.transpose(2, 0, 1) if layout == "NCHW" else expected)
    half = Compose(steps, dtype="float16", layout=layout)(image)
    table = last.table(3).astype(np.float16)
    assert half.dtype == np.float16
    assert set(half.ravel().tolist()) <= set(table.ravel().tolist())
    np.testing.assert_allclose(half, got, atol=2e-3)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
def test_channels(channels):
    image = noise((20, 31, channels))
    steps = [Resize(16), VerticalFlip(), Pad(1, 5), ToFloat()]
    for layout in ("NCHW", "NHWC"):
        got = Compose(steps, layout=layout)(image[None])[0]
        got = got.transpose(1, 2, 0) if layout == "NCHW" else got
        np.testing.assert_array_equal(got, one_by_one(steps, image))


def test_padding_of_padding():
    image = noise((5, 6, 3))
    for second in (Pad(3, 9), *(Pad(3, padding_mode=mode) for mode in ("symmetric", "reflect", "edge"))):
        for first in (Pad(2, 7), Crop(-2, -1, 9, 9), Pad(2, padding_mode="edge")):
            got = Compose([first, second], dtype="uint8", layout="NHWC")(image)[0]
            np.testing.assert_array_equal(got, one_by_one([first, second], image))


def test_only_what_the_crop_keeps_is_read():
    chain = Compose([Resize(64), CenterCrop(16)], dtype="uint8", layout="NHWC")
    image = noise((128, 256, 3))
    plan = chain._planned(image.shape, None)
    y, x = plan.passes[0].y, plan.passes[0].x
    assert (y.stop - y.start, x.stop - x.start) == (34, 34)  # 16 * 2 and one beyond each end
    other = np.zeros_like(image)
    other[y.start : y.stop, x.start : x.stop] = image[y.start : y.stop, x.start : x.stop]
    np.testing.assert_array_equal(chain(image), chain(other))


def test_a_crop_before_a_resize_is_one_pass():
    chain = Compose([Crop(3, 5, 20, 22), Resize((8, 9)), HorizontalFlip(), Crop(1, 1, 5, 5)])
    assert chain.describe(40, 50).count("pass") == 1
    assert Compose([HorizontalFlip(), Resize((8, 9))]).describe(40, 50).count("pass") == 2


def test_forms():
    image = noise((40, 50, 3))
    chain = Compose([Resize(20)], dtype="uint8", layout="NHWC")
    one = chain([image])
    assert chain(np.stack([image] * 3)).shape == (3, 20, 25, 3)
    np.testing.assert_array_equal(chain(image), one)
    assert chain(image[:, :, 0]).shape == (1, 20, 25, 1)
    assert chain(np.zeros((0, 40, 50, 3), np.uint8)).shape == (0, 20, 25, 3)
    np.testing.assert_array_equal(
        chain([image[:, ::-1], image.T[:3].transpose(2, 1, 0)])[0], chain(image[:, ::-1].copy())[0]
    )
    assert Compose([], dtype="uint8", layout="NHWC")(image).tobytes() == image.tobytes()


def test_out_and_memory():
    images = noise((4, 40, 50, 3))
    chain = Compose([Resize((20, 30)), ToFloat()])
    out = np.empty((4, 3, 20, 30), np.float32)
    assert chain(images, out=out) is out
    np.testing.assert_array_equal(out, chain(images))
    before = memory.stats().reused
    batch = chain(noise((16, 40, 50, 3)))
    del batch
    chain(noise((16, 40, 50, 3)))
    assert memory.stats().reused > before
    for bad in (out[:3], out.astype(np.float64), out[..., ::-1]):
        with pytest.raises(ShapeError, match=r"expected a writeable array in C order of shape \(4, 3, 20, 30\)"):
            chain(images, out=bad)


def test_threads_do_not_change_a_bit():
    images = [noise((300 + 10 * i, 200, 3)) for i in range(7)]
    chain = Compose([Resize(90), CenterCrop(64), Normalize(MEAN, STD)])
    usual, results = get_threads(), []
    try:
        for threads in (1, 2, 4):
            set_threads(threads)
            results += [chain(images).tobytes(), chain(images[:1]).tobytes() + chain(images[1:]).tobytes()]
    finally:
        set_threads(usual)
    assert len(set(results)) == 1


def test_a_chain_prints_compares_and_pickles():
    chain = Compose([Resize(256), CenterCrop(224), Normalize(MEAN, STD)], dtype="float16", layout="NHWC")
    assert repr(chain) == (
        "Compose([Resize(size=256, interpolation='bilinear', antialias=True), CenterCrop(size=224), "
        "Normalize(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))], dtype='float16', layout='NHWC')"
    )
    assert repr(pickle.loads(pickle.dumps(chain))) == repr(chain)
    assert eval(repr(chain.steps), vars(gi)) == chain.steps


RGB = noise((8, 9, 3))


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: Compose([Resize(8), 3]), OptionError, "step 1 of Compose is 3"),
        (lambda: Compose([Normalize(0, 1), Resize(8)]), OptionError, "step 0 .* must be the last"),
        (lambda: Compose([], dtype="float64"), OptionError, "expected one of uint8, float16, float32"),
        (lambda: Compose([], dtype="pixels"), OptionError, "dtype='pixels'"),
        (lambda: Compose([ToFloat()], dtype="uint8"), OptionError, "cannot hold the fractions"),
        (lambda: Compose([], layout="CHWN"), OptionError, "expected one of NCHW, NHWC"),
        (lambda: Normalize(0, 0), OptionError, "finite numbers above 0"),
        (lambda: Resize(8, "cubic"), OptionError, "interpolation='cubic'"),
        (lambda: Pad(-1), OptionError, "padding=-1"),
        (lambda: Pad(1, padding_mode="wrap"), OptionError, "constant, edge, reflect, symmetric"),
        (lambda: Compose([Pad(1, fill=0.5)])(RGB), OptionError, "whole numbers from 0 to 255"),
        (lambda: Compose([Pad(9, padding_mode="reflect")])(RGB), ShapeError, "'reflect' on a side of 8"),
        (lambda: Compose([Normalize((0, 0), (1, 1))])([RGB]), ShapeError, r"images\[0\]: mean=.* 2 numbers"),
        (lambda: Compose([Grayscale()])([RGB, RGB[:, :, 0]]), ShapeError, r"images\[1\]: Grayscale on images of 1"),
        (lambda: Compose([Resize(4)])([RGB, RGB[:, :, :2]]), ShapeError, r"images\[1\] of shape \(8, 9, 2\) becomes"),
        (lambda: Compose([Resize(4)])([RGB, RGB[:, :4]]), ShapeError, r"images\[1\].*CenterCrop\(224\)"),
        (lambda: Compose([Resize(4)])([RGB, RGB / 255]), DTypeError, r"images\[1\] has dtype float64.*expected uint8"),
        (lambda: Compose([Resize(4)])([]), ShapeError, "empty list"),
    ],
)  # fmt: skip
def test_errors_say_what_to_do(call, error, text):
    with pytest.raises(error, match=text):
        call()
