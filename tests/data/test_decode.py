"""Pixels equal Pillow's; what is not a photograph is said to be so, always in the same words."""

from __future__ import annotations

import io
import itertools
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from photo_trees import encoded

from gpucompute.data import decode

Image = pytest.importorskip("PIL.Image")
ImageOps = pytest.importorskip("PIL.ImageOps")


@pytest.fixture(autouse=True)
def set_up() -> Iterator[None]:
    with decode.codecs():
        yield


def pillow(data: bytes) -> np.ndarray:
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))


def ours(data: bytes) -> np.ndarray:
    pixels = decode.open_picture(data).load()
    assert pixels.flags.c_contiguous and pixels.dtype == np.uint8 and pixels.shape[2:] == (3,)
    return pixels


def saved(image: Any, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def picture(mode: str, size: tuple[int, int] = (31, 20)) -> Any:
    rng = np.random.default_rng(5)
    channels = len(Image.new(mode, (1, 1)).getbands())
    return Image.frombytes(mode, size, rng.integers(0, 256, size[0] * size[1] * channels, np.uint8).tobytes())


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0", "4:1:1"])
def test_jpeg_equals_pillow(subsampling: str) -> None:
    for size, quality, progressive in itertools.product([(64, 48), (33, 17), (1, 1)], [30, 95], [False, True]):
        data = encoded(1, "JPEG", size, subsampling=subsampling, quality=quality, progressive=progressive)
        np.testing.assert_array_equal(ours(data), pillow(data))


def test_real_photographs_equal_pillow() -> None:
    images = pytest.importorskip("sklearn.datasets").__path__[0]
    for path in Path(images, "images").glob("*.jpg"):
        np.testing.assert_array_equal(ours(path.read_bytes()), pillow(path.read_bytes()))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(10))  # 1 to 8 have a meaning
def test_exif_orientation(form: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(2, form, (24, 16), exif=exif, **({"lossless": True} if form == "WEBP" else {}))
    expected = pillow(data)
    assert expected.shape == ((24, 16, 3) if orientation in (5, 6, 7, 8) else (16, 24, 3))
    np.testing.assert_array_equal(ours(data), expected)


@pytest.mark.parametrize(
    ("mode", "form"),
    [("L", "JPEG"), ("CMYK", "JPEG"), ("CMYK", "TIFF"), ("1", "PNG"), ("L", "PNG"), ("LA", "PNG"), ("RGBA", "PNG"),
     ("RGBA", "WEBP"), ("YCbCr", "TIFF"), ("RGB", "BMP"), ("RGB", "PPM"), ("RGB", "JPEG2000"), ("L", "GIF")],
)  # fmt: skip
def test_modes_mean_what_they_mean_to_pillow(mode: str, form: str) -> None:
    image = picture("L").convert("1") if mode == "1" else picture(mode)
    data = saved(image, form)
    np.testing.assert_array_equal(ours(data), pillow(data))


def test_palettes_and_several_pictures() -> None:
    frames = [picture("RGB").quantize(16), picture("RGB").rotate(90).quantize(16)]
    for form in ("GIF", "PNG", "TIFF"):
        data = saved(frames[0], form, save_all=True, append_images=frames[1:])
        np.testing.assert_array_equal(ours(data), np.asarray(frames[0].convert("RGB")))
    transparent = saved(frames[0], "PNG", transparency=3)
    np.testing.assert_array_equal(ours(transparent), np.asarray(frames[0].convert("RGB")))


def test_transparency_is_dropped_not_blended() -> None:
    image = Image.new("RGBA", (2, 1), (200, 100, 50, 0))
    np.testing.assert_array_equal(ours(saved(image, "PNG")), np.full((1, 2, 3), (200, 100, 50)))


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM"])
def test_grey_of_16_bits_keeps_the_high_byte(form: str) -> None:
    values = np.array([[0, 255, 256, 32768, 65535]], np.uint16)
    expected = np.repeat((values >> 8).astype(np.uint8)[:, :, None], 3, axis=2)
    np.testing.assert_array_equal(ours(saved(Image.fromarray(values), form)), expected)


def test_colour_of_16_bits_keeps_the_high_byte() -> None:
    row = b"\0" + struct.pack(">6H", 0x0102, 0xFFFF, 0x80FF, 0, 0x1234, 0xFE01)

    data = png(struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0), zlib.compress(row))
    np.testing.assert_array_equal(ours(data), [[[0x01, 0xFF, 0x80], [0, 0x12, 0xFE]]])


def test_broken_exif_is_no_reason_to_lose_a_picture() -> None:
    whole = encoded(3, exif=b"Exif\0\0MM\0*\xff\xff\xff\xff broken")
    np.testing.assert_array_equal(ours(whole), ours(encoded(3)))


def png(header: bytes, data: bytes) -> bytes:
    parts = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    chunks = (struct.pack(">I", len(d)) + kind + d + struct.pack(">I", zlib.crc32(kind + d)) for kind, d in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def huge_png() -> bytes:
    return png(struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0), zlib.compress(bytes(100)))


def huge_jpeg() -> bytes:
    data = encoded(1)
    at = data.index(b"\xff\xc0")
    return data[: at + 5] + struct.pack(">HH", 60_000, 60_000) + data[at + 9 :]


BAD = {
    "nothing in it": (b"", "empty file"),
    "zeros": (bytes(50), "not an image: nothing but zero bytes"),
    "text": (b"GIF as text", r"not an image of a known format \(begins with the bytes 47 49 46 20 61 73 20 74\)"),
    "HEIC": (b"\0\0\0\x18ftypheic\0\0", "HEIC, or another format of that family"),
    "a JPEG's first half": (encoded(1)[:900], "cannot be decoded: image file is truncated"),
    "a JPEG's header": (encoded(1)[:20], "cannot be decoded|not an image"),
    "a PNG's first half": (encoded(1, "PNG")[:3000], "cannot be decoded: "),
    "a WebP's first half": (encoded(1, "WEBP")[:500], "cannot be decoded|not an image"),
    "floats": (saved(Image.fromarray(np.ones((2, 2), np.float32)), "TIFF"), "samples of 32 bits"),
    "a bomb": (huge_png(), r"100000 x 100000 pixels; at most 178,956,970 are taken \(--max-pixels\)"),
    "a JPEG bomb": (huge_jpeg(), "60000 x 60000 pixels; at most 178,956,970"),
    "a program": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image of a known format"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_have_reasons_that_do_not_change(name: str) -> None:
    data, reason = BAD[name]
    texts = []
    for _ in range(2):
        with pytest.raises(decode.BadFileError, match=reason) as error:
            ours(data)
        texts.append(str(error.value))
    assert texts[0] == texts[1] and "0x" not in texts[0] and "\n" not in texts[0]


def test_reasons_hold_no_addresses() -> None:
    error = OSError("cannot read <_io.BytesIO object at 0x7f00aa> further\nmore")
    assert decode._reason(error) == "cannot be decoded: cannot read further"
    assert decode._reason(EOFError()) == "cannot be decoded: EOFError"


def test_damage_anywhere_never_raises_anything_else() -> None:
    rng = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    forms = ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000"]
    whole = [encoded(1, form, (24, 16), **({"exif": exif} if form in ("JPEG", "PNG") else {})) for form in forms]
    for data in whole:
        for _ in range(60):
            damaged = bytearray(data)
            for at in rng.integers(0, min(len(data), 400), rng.integers(1, 6)):
                damaged[at] = rng.integers(256)
            with suppress(decode.BadFileError):
                decode.open_picture(bytes(damaged), max_pixels=1 << 22).load()


def test_pillows_settings_come_back() -> None:
    with decode.codecs():
        assert Image.MAX_IMAGE_PIXELS is None
    before = Image.MAX_IMAGE_PIXELS
    with pytest.raises(RuntimeError), decode.codecs():
        raise RuntimeError
    assert before == Image.MAX_IMAGE_PIXELS
