"""`resize` against Pillow, byte for byte, and against the slow reference."""

from __future__ import annotations

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from image_samples import noise, photo

from gpucompute import get_threads, set_threads
from gpucompute.errors import DTypeError, OptionError, ShapeError
from gpucompute.image import coefficients, resize

Image = pytest.importorskip("PIL.Image")
FILTERS = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4, "hamming": 5}


def test_every_filter_is_compared():
    assert set(FILTERS) == set(coefficients.INTERPOLATIONS)


def by_pillow(image, size, interpolation="bilinear", box=None):
    """Resize (H, W, C) by Pillow: three or four bytes at once as RGB and CMYK, the rest plane by plane."""
    method = FILTERS[interpolation]
    if image.dtype == np.uint8 and image.shape[2] in (3, 4):
        picture = Image.frombytes({3: "RGB", 4: "CMYK"}[image.shape[2]], image.shape[1::-1], image.tobytes())
        return np.asarray(picture.resize(size[::-1], method, box=box))
    mode = "L" if image.dtype == np.uint8 else "F"
    planes = [Image.frombytes(mode, image.shape[1::-1], plane.tobytes()) for plane in np.moveaxis(image, 2, 0)]
    return np.stack([np.asarray(plane.resize(size[::-1], method, box=box)) for plane in planes], axis=2)


def assert_as_pillow(image, size, interpolation, box=None):
    got = resize(image, size, interpolation=interpolation, box=box)
    expected = by_pillow(image, size, interpolation, box)
    assert got.dtype == image.dtype
    np.testing.assert_array_equal(got, expected)


SIZES = [(300, 451), (224, 224), (100, 100), (37, 451), (300, 50), (1, 1), (700, 3), (2, 900), (299, 452)]


@pytest.mark.parametrize("interpolation", FILTERS)
def test_photo(interpolation):
    for size in SIZES:
        assert_as_pillow(photo(), size, interpolation)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("interpolation", FILTERS)
def test_extreme_shapes(interpolation, dtype):
    shapes = [(1, 1), (1, 300), (300, 1), (2, 3), (3, 2), (17, 16)]
    for shape in shapes:
        for size in [(1, 1), (1, 70), (70, 1), (33, 2), (2, 33)]:
            assert_as_pillow(noise((*shape, 3), dtype=dtype), size, interpolation)


side = st.integers(1, 70)


@st.composite
def cases(draw):
    height, width, dtype = draw(side), draw(side), draw(st.sampled_from([np.uint8, np.float32]))
    image = noise((height, width, draw(st.integers(1, 6))), draw(st.integers(0, 9)), dtype)
    box = None
    if draw(st.booleans()):
        edges = [draw(st.tuples(st.floats(0, n, width=32), st.floats(0, n, width=32))) for n in (width, height)]
        if draw(st.booleans()):
            edges = [(np.floor(a), np.ceil(b)) for a, b in edges]
        (left, right), (upper, lower) = (sorted(map(float, pair)) for pair in edges)
        box = (left, upper, right, lower) if left < right and upper < lower else None
    return image, (draw(side), draw(side)), draw(st.sampled_from(sorted(FILTERS))), box


@settings(max_examples=250, deadline=None)
@given(cases())
def test_any_size_and_box(case):
    assert_as_pillow(*case)


@settings(max_examples=40, deadline=None)
@given(cases(), st.booleans())
def test_reference(case, antialias):
    image, size, interpolation, box = case
    got = resize(image[:, :, 0], size, interpolation=interpolation, antialias=antialias, box=box)
    np.testing.assert_array_equal(got, reference.resize(image[:, :, 0], size, interpolation, antialias, box))


@pytest.mark.parametrize("interpolation", FILTERS)
def test_weights_are_the_references_to_the_last_bit(interpolation):
    for size, resized, start, stop in [(300, 17, 0, 300), (50, 90, 0, 50), (97, 10, 3.3, 96.9), (9, 9, 0.25, 8.5)]:
        for antialias in (True, False):
            got = coefficients.windows(size, resized, start, stop, interpolation, antialias)
            expected = reference.taps(size, resized, start, stop, interpolation, antialias)
            assert [
                (first, row[:taps]) for first, taps, row in zip(*map(np.ndarray.tolist, got), strict=True)
            ] == expected


def test_a_box_that_changes_one_axis_only():
    for dtype in (np.uint8, np.float32):
        image = noise((20, 21, 3), dtype=dtype)
        assert_as_pillow(image, (8, 21), "bicubic", (0, 7, 21, 17))
        assert_as_pillow(image, (20, 8), "bicubic", (7, 0, 17, 20))
        assert_as_pillow(image, (10, 10), "bicubic", (7, 7, 17, 17))


def test_edges_of_a_box_are_float32_as_pillows():
    image = noise((4, 5, 3))
    np.testing.assert_array_equal(resize(image, (3, 3), box=(0, 0, 5 + 1e-9, 4 - 1e-9)), resize(image, (3, 3)))


def test_the_order_of_the_passes_is_pillows():
    # Pillow 13 weighs the rows first where the height loses more than twice as many pixels as the width
    image = noise((90, 60, 3))
    for height in (29, 30, 31):
        assert_as_pillow(image, (height, 30), "bicubic")
        assert_as_pillow(image.astype(np.float32), (height, 30), "bicubic")


def test_no_antialias_is_interpolation_between_neighbours():
    ramp = np.arange(12, dtype=np.float32)[None].repeat(2, axis=0)
    # the middle of every three pixels, and between the middle two of every four
    np.testing.assert_array_equal(resize(ramp, (2, 4), antialias=False)[0], [1, 4, 7, 10])
    np.testing.assert_array_equal(resize(ramp, (2, 3), antialias=False)[0], [1.5, 5.5, 9.5])


def test_values_that_are_not_finite_stay_in_their_windows():
    image = np.zeros((4, 4, 1), np.float32)
    image[0, 0], image[3, 3] = np.nan, np.inf
    assert_as_pillow(image, (8, 8), "bilinear")
    assert_as_pillow(image, (3, 3), "lanczos")


def test_an_int_is_the_shorter_side():
    for height, width in [(30, 41), (41, 30), (30, 30), (7, 100), (100, 7)]:
        for size in (1, 16, 45):
            assert resize(noise((height, width, 3)), size).shape[:2] == reference.resized_size(size, height, width)


def test_forms():
    image = noise((20, 30, 3))
    expected = by_pillow(image, (8, 9))
    np.testing.assert_array_equal(resize(np.stack([image, image]), (8, 9)), np.stack([expected, expected]))
    np.testing.assert_array_equal(resize(image[:, :, 1], (8, 9)), expected[:, :, 1])
    several = resize([image, image[:, :, 0], image[:10, :, :2]], 8)
    assert isinstance(several, list)
    assert [item.shape for item in several] == [(8, 12, 3), (8, 12), (8, 24, 2)]
    np.testing.assert_array_equal(several[2], by_pillow(image[:10, :, :2], (8, 24)))
    assert resize([], 8) == []
    assert resize(np.zeros((0, 20, 30, 3), np.uint8), 8).shape == (0, 8, 12, 3)
    np.testing.assert_array_equal(resize(Image.fromarray(image), (8, 9)), expected)


def test_views_and_read_only_arrays_are_read_and_not_changed():
    image = noise((40, 60, 3))
    before = image.copy()
    for view in (image[::2, ::-1], image[5:, 7:], image.transpose(1, 0, 2), image[..., ::-1], np.asfortranarray(image)):
        np.testing.assert_array_equal(resize(view, (11, 13)), by_pillow(np.ascontiguousarray(view), (11, 13)))
    image.flags.writeable = False
    np.testing.assert_array_equal(resize(image, (11, 13)), by_pillow(before, (11, 13)))
    np.testing.assert_array_equal(image, before)
    swapped = noise((9, 9, 1), dtype=np.float32).astype(">f4")
    np.testing.assert_array_equal(resize(swapped, (5, 5)), resize(swapped.astype("<f4"), (5, 5)))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_threads_do_not_change_a_bit(dtype):
    usual = get_threads()
    images = [noise((400, 300, 3), dtype=dtype), *(noise((50, 60 + i, 3), dtype=dtype) for i in range(9))]
    results = []
    try:
        for threads in (1, 2, 5):
            set_threads(threads)
            results.append([item.tobytes() for item in resize(images, (100, 90), interpolation="lanczos")])
            results.append([resize(item, (100, 90), interpolation="lanczos").tobytes() for item in images])
    finally:
        set_threads(usual)
    assert all(result == results[0] for result in results)


def test_a_new_size_compiles_nothing():
    from gpucompute.kernels.cpu import resample

    from gpucompute.launch import cpu

    def signatures():
        kernels = (resample.horizontal, resample.vertical)
        return sum(len(cpu.compile(kernel).signatures) for kernel in kernels)

    resize(noise((50, 60, 3)), (20, 20))
    before = signatures()
    for height, width in [(1, 1), (1, 50), (50, 1), (2, 2), (3, 3), (31, 33), (64, 64), (200, 3)]:
        for size in [(1, 1), (1, 9), (9, 1), (64, 64), (20, 300)]:
            resize(noise((height, width, 3)), size, interpolation="lanczos")
    assert signatures() == before


def test_bits_the_kernels_and_the_tables_agree_on():
    from gpucompute.kernels.cpu import resample

    assert coefficients.STEP == resample.STEP
    assert coefficients.ONE == 1 << resample.BITS


@pytest.mark.parametrize(
    ("images", "keywords", "error", "text"),
    [
        (noise((4, 4, 3)), {"size": 0}, OptionError, "size=0: expected an int or a pair"),
        (noise((4, 4, 3)), {"size": (3, 2, 1)}, OptionError, "expected an int or a pair"),
        (noise((4, 4, 3)), {"size": 2.5}, OptionError, "size=2.5"),
        (noise((4, 4, 3)), {"size": 2, "interpolation": "cubic"}, OptionError, "nearest, box, bilinear, hamming"),
        (noise((4, 5, 3)), {"size": 2, "box": (0, 0, 6, 4)}, OptionError, "0 <= left < right <= 5"),
        (noise((4, 5, 3)), {"size": 2, "box": (2, 0, 2, 4)}, OptionError, r"box=\(2, 0, 2, 4\) for images"),
        ([noise((4, 5, 3)), noise((2, 2, 3))], {"size": 2, "box": (0, 0, 5, 4)}, OptionError, r"images\[1\]"),
        ([noise((4, 4, 3)), np.zeros((4, 4, 3))], {"size": 2}, DTypeError, r"images\[1\] has dtype float64"),
        ([noise((4, 4, 3)), np.zeros(4, np.uint8)], {"size": 2}, ShapeError, r"images\[1\] has shape \(4,\)"),
        ([noise((4, 4, 3)), "a.jpg"], {"size": 2}, DTypeError, r"images\[1\]"),
        (np.zeros((0, 4, 3), np.uint8), {"size": 2}, ShapeError, "at least one row"),
        (np.zeros((2, 2, 4, 4, 3), np.uint8), {"size": 2}, ShapeError, "expected .height, width, channels."),
    ],
)
def test_errors_say_what_to_do(images, keywords, error, text):
    with pytest.raises(error, match=text):
        resize(images, **keywords)
