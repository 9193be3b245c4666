"""Resizing float32: `.cu` under the emulator and as PTX, the CPU twin and the slow reference, to the bit."""

from __future__ import annotations

from math import prod

import numpy as np
import nvcc
import pytest
import reference_resample
from hypothesis import given, settings
from hypothesis import strategies as st
from test_resample import SOURCE, Engine, by_emulator, by_ptx

import gpucompute as gp
from gpucompute.image import device, device_float
from gpucompute.image.coefficients import INTERPOLATIONS
from gpucompute.image.resampling import check_box, target_size
from gpucompute.testing import check


def emulated(images, plans, run=by_emulator):
    """Return what the kernel makes of images that lie one after the other, and the engine that ran it."""
    engine = Engine(run)
    starts = np.cumsum([0, *(image.nbytes for image in images)]).tolist()
    sources = [device.Source(start, image.shape) for start, image in zip(starts, images, strict=False)]
    shapes = [(*plan.size, image.shape[2]) for plan, image in zip(plans, images, strict=True)]
    places = np.cumsum([0, *map(prod, shapes)]).tolist()
    out = np.full(places[-1], 99, np.float32)
    pixels = np.concatenate([image.reshape(-1) for image in images])
    device_float.run(engine, pixels, sources, plans, out, [4 * place for place in places[:-1]])
    return [out[a : a + prod(shape)].reshape(shape) for a, shape in zip(places, shapes, strict=False)], engine


def plans_for(images, size, interpolation="bilinear", antialias=True, box=None):
    sizes = [target_size(size, *image.shape[:2]) for image in images]
    boxes = [check_box(box, *image.shape[:2], "images") for image in images]
    return [
        device_float.plan(image.shape, *one, interpolation, antialias)
        for image, *one in zip(images, sizes, boxes, strict=True)
    ]


def noise(seed, shape):
    values = np.random.default_rng(seed).standard_normal(shape).astype(np.float32) * 100
    values.reshape(-1)[:: 7 + seed % 5] = -0.0  # a copy keeps its sign
    return values


side = st.integers(1, 40)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(side, side, st.integers(1, 4)), min_size=1, max_size=3),
    st.one_of(st.integers(1, 30), st.tuples(side, side)),
    st.sampled_from(INTERPOLATIONS),
    st.booleans(),
)
def test_any_batch_and_size(shapes, size, interpolation, antialias):
    images = [noise(seed, shape) for seed, shape in enumerate(shapes)]
    plans = plans_for(images, size, interpolation, antialias)
    got, engine = emulated(images, plans)
    assert len(engine.launches) <= 2
    twin = gp.image.resize(images, size, interpolation=interpolation, antialias=antialias)
    for image, plan, one, other in zip(images, plans, got, twin, strict=True):
        assert one.tobytes() == other.tobytes()
        assert one.tobytes() == reference_resample.float_resize(image, plan).tobytes()


@pytest.mark.parametrize("size", [(7, 9), (40, 50), (20, 30), (18, 29)])
@pytest.mark.parametrize("box", [(1, 2, 31, 22), (0.5, 1.25, 33.75, 21.5), (3, 0, 4, 24)])
def test_boxes(size, box):
    image = noise(0, (24, 35, 3))
    (got,), _ = emulated([image], plans_for([image], size, "bicubic", box=box))
    assert got.tobytes() == gp.image.resize(image, size, interpolation="bicubic", box=box).tobytes()


CHECKED = {
    "shrink": ((30, 41, 3), (11, 9), "bilinear"),
    "rows first": ((60, 21, 3), (11, 20), "lanczos"),
    "columns only": ((9, 21, 2), (9, 13), "bicubic"),
    "rows only": ((20, 7, 1), (33, 7), "bilinear"),
    "nearest": ((13, 21, 2), (20, 9), "nearest"),
}


@pytest.mark.parametrize(("shape", "size", "interpolation"), CHECKED.values(), ids=CHECKED)
def test_the_checker_finds_nothing(shape, size, interpolation):
    images = [noise(0, shape), noise(1, shape)]
    _, engine = emulated(images, plans_for(images, size, interpolation))
    for name, grid, block, args in engine.launches:
        report = check(SOURCE, name, grid, block, args)
        assert not report.errors and not report.warnings, str(report)


@nvcc.needed
@pytest.mark.parametrize(("shape", "size", "interpolation"), CHECKED.values(), ids=CHECKED)
def test_the_ptx_of_a_gpu(shape, size, interpolation):
    image = noise(0, shape)
    (got,), _ = emulated([image], plans_for([image], size, interpolation), run=by_ptx)
    assert got.tobytes() == gp.image.resize(image, size, interpolation=interpolation).tobytes()


def test_structures_are_those_of_the_source():
    assert device_float.JOB.itemsize == 6 * 8 + 6 * 4
    body = SOURCE.read_text().split("struct Job {")[1].split("};")[0]
    fields = [line.split("//")[0].strip(" ;") for line in body.splitlines()]
    names = [name.strip() for field in fields if field for name in field.split(" ", 1)[1].split(",")]
    assert names == list(device_float.JOB.names)
