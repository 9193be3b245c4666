"""The resample kernels on ragged batches: `.cu` under the emulator, the CPU twin and the slow reference, to the bit."""

from __future__ import annotations

from functools import cache
from math import prod

import numpy as np
import nvcc
import pytest
import reference_resample
from hypothesis import given, settings
from hypothesis import strategies as st

import gpucompute as gp
from gpucompute import image as im
from gpucompute.image import batches, device
from gpucompute.image.coefficients import INTERPOLATIONS
from gpucompute.image.resampling import check_box
from gpucompute.launch import cubins
from gpucompute.testing import check, emulate, run_ptx

(SOURCE,) = (path for path in cubins.own_files() if path.stem == "resample")
kernel = cache(lambda name: emulate(SOURCE, name))


def by_emulator(name, *launch):
    kernel(name)(*launch)


def by_ptx(name, grid, block, args):
    # the interpreter takes an array of structures for one that is passed by value
    run_ptx(nvcc.ptx(SOURCE), name, grid, block, [np.uint64(0) if arg is None else arg.view(np.uint8) for arg in args])


class Engine:
    """A `device.Engine` on the CPU; memory holds rubbish before it is written."""

    def __init__(self, run):
        self.launches = []
        self.run = run

    def empty(self, count, dtype):
        return np.full(count, 99, dtype)

    def upload(self, array):
        return array.copy()

    def launch(self, name, grid, block, args):
        self.launches.append((name, grid, block, list(args)))
        self.run(name, grid, block, args)


def packed(images, gap=0):
    """Return images one after the other, `gap` bytes between them, at an odd address, and where each is."""
    parts, sources, at = [np.zeros(3, np.uint8)], [], 0
    for image in images:
        sources.append(device.Source(at + gap, image.shape))
        parts += [np.zeros(gap, np.uint8), image.reshape(-1)]
        at += gap + image.size
    return np.concatenate(parts)[3:], sources


def emulated(images, plans, dtype=np.uint8, planes=False, gap=0, run=by_emulator):
    engine = Engine(run)
    pixels, sources = packed(images, gap)
    shapes = [plan.shape for plan in plans]
    places = np.cumsum([0, *map(prod, shapes)]).tolist()
    out = np.zeros(places[-1], dtype)
    targets = [device.target(place, shape, planes) for place, shape in zip(places, shapes, strict=False)]
    device.run(engine, pixels, sources, plans, out.view(f"u{out.itemsize}"), targets)
    formed = [(s[2], *s[:2]) if planes else s for s in shapes]
    return [out[a : a + prod(s)].reshape(s) for a, s in zip(places, formed, strict=False)], engine


def noise(random, shape):
    return random.integers(0, 256, shape, dtype=np.uint8)


side = st.integers(1, 48)
# The twin is compiled for each number of channels, in 5 s each. Here it is asked for three, and the reference for all;
# tests/image/test_resize.py compares the twin with Pillow for all.
TWINS = 3
channels = st.sampled_from([TWINS, TWINS, TWINS, 1, 2, 4, 5, 6])


@st.composite
def resizes(draw):
    """A ragged batch, the size to give it, and how."""
    random = np.random.default_rng(draw(st.integers(0, 999)))
    images = [noise(random, (draw(side), draw(side), draw(channels))) for _ in range(draw(st.integers(1, 3)))]
    size = draw(st.one_of(st.integers(1, 40), st.tuples(side, side)))
    return images, size, draw(st.sampled_from(INTERPOLATIONS)), draw(st.booleans()), draw(st.integers(0, 3))


def resize_plans(images, size, interpolation, antialias, box=None):
    from gpucompute.image.resampling import target_size

    return [
        batches.resize_plan(
            image.shape, target_size(size, *image.shape[:2]), check_box(box, *image.shape[:2], "images"),
            interpolation, antialias,
        )
        for image in images
    ]  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(resizes())
def test_any_batch_and_size(case):
    images, size, interpolation, antialias, gap = case
    plans = resize_plans(images, size, interpolation, antialias)
    got, _ = emulated(images, plans, gap=gap)
    for image, plan, one in zip(images, plans, got, strict=True):
        np.testing.assert_array_equal(one, reference_resample.chain(image, plan))
    alike = [(image, one) for image, one in zip(images, got, strict=True) if image.shape[2] == TWINS]
    twin = gp.image.resize([image for image, _ in alike], size, interpolation=interpolation, antialias=antialias)
    for (_, one), other in zip(alike, twin, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("box", [(1, 2, 30, 20), (0.5, 1.25, 33.75, 21.5), (3, 0, 4, 24)])
def test_boxes(box):
    image = noise(np.random.default_rng(0), (24, 35, 3))
    for size in ((7, 9), (40, 50), (18, 29)):
        (got,), _ = emulated([image], resize_plans([image], size, "bicubic", True, box))
        np.testing.assert_array_equal(got, gp.image.resize(image, size, interpolation="bicubic", box=box))


NORMALIZE = im.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CHAINS = {
    "train": [im.Resize(20), im.CenterCrop(16), im.HorizontalFlip(), NORMALIZE],
    "test": [im.Resize((17, 33), interpolation="bicubic"), NORMALIZE],
    "padded": [im.Resize(9, interpolation="lanczos"), im.CenterCrop(24), im.Pad(2, fill=(1, 2, 3)), im.VerticalFlip()],
    "only padding": [im.Crop(100, 100, 5, 6)],
    "reflected": [im.CenterCrop(12), im.Pad((3, 4), padding_mode="reflect")],
    "twice": [im.Resize((40, 30)), im.Crop(3, -4, 20, 50), im.Resize((8, 13), interpolation="box")],
    "grey": [im.CenterCrop(15), im.Grayscale(), im.Resize((21, 7)), im.ToFloat()],
    "grey last": [im.Resize((21, 37)), im.Pad(1, fill=9), im.Grayscale()],
    "as it is": [im.Crop(0, 0, 13, 11)],
}


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("steps", CHAINS.values(), ids=CHAINS)
def test_chains(steps, layout):
    random = np.random.default_rng(0)
    images = [noise(random, (height, width, 3)) for height, width in ((33, 47), (90, 21), (24, 24), (13, 70))]
    whole = not isinstance(steps[-1], im.Normalize | im.ToFloat)
    for dtype in ("float32", "float16", *(["uint8"] if whole else [])):
        chain = im.Compose(steps, dtype=dtype, layout=layout)
        plans, shape = chain._plans([image.shape for image in images], len(images), "list")
        got, _ = emulated(images, plans, chain.dtype, layout == "NCHW")
        twin = chain(images)
        assert twin.shape == shape
        for image, plan, one, other in zip(images, plans, got, twin, strict=True):
            np.testing.assert_array_equal(one, reference_resample.chain(image, plan).view(one.dtype))
            np.testing.assert_array_equal(one, other)


def test_a_batch_of_any_size_takes_two_launches():
    images = [noise(np.random.default_rng(0), (20 + i, 60 - i, 3)) for i in range(20)]
    _, engine = emulated(images, resize_plans(images, (8, 8), "bilinear", True))
    assert [name for name, *_ in engine.launches] == ["resample_first", "resample_last1"]
    assert engine.launches[0][1][0] == 20


def test_more_tiles_than_a_grid_has_blocks(monkeypatch):
    monkeypatch.setattr(device, "MOST_TILES", 2)
    images = [noise(np.random.default_rng(0), (150, 70, 3))]
    (got,), engine = emulated(images, resize_plans(images, (140, 130), "bilinear", True))
    assert engine.launches[0][1] == (1, 2, 1)
    np.testing.assert_array_equal(got, gp.image.resize(images[0], (140, 130)))


CHECKED = {
    "shrink": ((40, 61, 3), (11, 9), "bilinear"),
    "rows first": ((90, 31, 3), (11, 30), "lanczos"),
    "enlarge": ((7, 5, 4), (20, 33), "bicubic"),
    "one column": ((40, 1, 1), (9, 3), "bilinear"),
    "six channels": ((13, 21, 6), (9, 9), "bilinear"),
    "two": ((13, 21, 2), (20, 9), "nearest"),
}


@pytest.mark.parametrize(("shape", "size", "interpolation"), CHECKED.values(), ids=CHECKED)
def test_the_checker_finds_nothing(shape, size, interpolation):
    images = [noise(np.random.default_rng(0), shape), noise(np.random.default_rng(1), shape)]
    plans = resize_plans(images, size, interpolation, True)
    _, engine = emulated(images, plans)
    for name, grid, block, args in engine.launches:
        report = check(SOURCE, name, grid, block, args)
        assert not report.errors and not report.warnings, str(report)


@nvcc.needed
@pytest.mark.parametrize(("shape", "size", "interpolation"), CHECKED.values(), ids=CHECKED)
def test_the_ptx_of_a_gpu(shape, size, interpolation):
    image = noise(np.random.default_rng(0), shape)
    plans = resize_plans([image], size, interpolation, True)
    (got,), _ = emulated([image], plans, run=by_ptx)
    np.testing.assert_array_equal(got, reference_resample.chain(image, plans[0]))


def test_structures_are_those_of_the_source():
    # 64 bits each, then two axes, then four more
    assert device.IMAGE.itemsize == 10 * 8 + 2 * 8 * 4 + 4 * 4
    body = SOURCE.read_text().split("struct Image {")[1].split("};")[0]
    fields = [line.split("//")[0].strip(" ;") for line in body.splitlines()]
    names = [name.strip() for field in fields if field for name in field.split(" ", 1)[1].split(",")]
    assert names == list(device.IMAGE.names)
