"""From the bytes of a photograph to RGB pixels, equal to what Pillow makes of them.

The meaning is Pillow's ``ImageOps.exif_transpose(Image.open(file)).convert("RGB")``:

- the EXIF orientation is applied (an EXIF block that cannot be read counts as none);
- transparency is dropped, not blended: the colours stored under transparent pixels are kept;
- grey is repeated in three channels, palettes are looked up, CMYK becomes RGB without ICC profiles;
- the first picture of a file that holds several.

One exception: grey samples of 16 bits keep their high byte, as Pillow itself does with 16-bit colour, where its
conversion would clip them to white. Samples of 32 bits have no such meaning and are refused.

JPEG in YCbCr or grey goes through simplejpeg, which is libjpeg-turbo like Pillow's decoder: with the accurate DCT
and "fancy" upsampling, both defaults of the library, its bytes are the same (1,200 photographs of five sizes,
three qualities, four subsamplings, progressive or not: all equal), and it skips Pillow's copy between pixel
formats. What simplejpeg objects to, even mildly, is left to Pillow, whose verdict counts.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import GpucomputeError, MissingExtraError

if TYPE_CHECKING:
    from PIL import Image

Pixels = npt.NDArray[np.uint8]

# Raster photographs only: no format that runs a program (EPS), none that has no signature (TGA).
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "DIB", "GIF", "PPM", "MPO", "JPEG2000", "AVIF")
MAX_PIXELS = 178_956_970  # Pillow's own limit, beyond which it speaks of a decompression bomb

# EXIF orientation (tag 0x0112) -> what brings the stored pixels upright
UPRIGHT: dict[int, Callable[[Pixels], Pixels]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a.transpose(1, 0, 2)[:, ::-1],
    7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda a: a.transpose(1, 0, 2)[::-1],
}


class BadFileError(GpucomputeError, ValueError):
    """A file that is not a photograph that can be decoded; the text is the reason for the ledger."""


class Picture(NamedTuple):
    """A photograph whose header has been read: its size in pixels as stored, and `load`, which decodes it."""

    height: int
    width: int
    load: Callable[[], Pixels]


@contextmanager
def codecs() -> Iterator[None]:
    """Set Pillow up for a run: its global pixel limit gives way to ours, and its warnings are silent.

    Both are settings of the whole process, so this is entered once around all threads.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtraError("pillow", "images", "reading photographs") from error
    try:
        import simplejpeg  # noqa: F401 - missing, it should be said here and not at the first JPEG
    except ImportError as error:
        raise MissingExtraError("simplejpeg", "images", "reading photographs") from error
    Image.init()
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def open_picture(data: bytes, max_pixels: int = MAX_PIXELS) -> Picture:
    """Read the header of an encoded photograph.

    Parameters
    ----------
    data : bytes
        The whole file.
    max_pixels : int
        The largest height times width that is taken.

    Returns
    -------
    Picture
        Its `load()` returns a C-contiguous (height, width, 3) uint8 array, upright.

    Raises
    ------
    BadFileError
        Here or in `load`, if the file is empty, cut off, too large or not an image. Within `codecs()` only.
    """
    if not data:
        raise BadFileError("empty file")
    picture = (_open_jpeg(data) if data.startswith(b"\xff\xd8\xff") else None) or _open_any(data)
    if picture.height * picture.width > max_pixels:
        raise BadFileError(
            f"{picture.width} x {picture.height} pixels; at most {max_pixels:,} are taken (--max-pixels)"
        )
    return picture


def _open_jpeg(data: bytes) -> Picture | None:
    """Return the picture for simplejpeg, or None where Pillow should look."""
    import simplejpeg

    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    if colours not in ("YCbCr", "Gray"):
        return None

    def load() -> Pixels:
        try:
            pixels = simplejpeg.decode_jpeg(data, "RGB", fastdct=False, fastupsample=False)
        except ValueError:
            return _open_any(data).load()
        return _upright(pixels, _jpeg_orientation(data))

    return Picture(height, width, load)


def _jpeg_orientation(data: bytes) -> int:
    # a search through 100 KB takes 5 us, opening the file with Pillow 60
    if b"Exif\0\0" not in data and b"tiff:Orientation" not in data:
        return 1
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            return int(image.getexif().get(0x0112, 1))
    except Exception:  # noqa: BLE001 - see _open_any
        return 1


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    turn = UPRIGHT.get(orientation)
    return pixels if turn is None else np.ascontiguousarray(turn(pixels))


def _open_any(data: bytes) -> Picture:
    from PIL import Image, ImageOps, UnidentifiedImageError

    # Pillow's plugins meet damaged files with nearly every built-in exception, so all of them mean a bad file
    try:
        image = Image.open(io.BytesIO(data), formats=[name for name in FORMATS if name in Image.OPEN])
    except UnidentifiedImageError:
        raise BadFileError(_unidentified(data)) from None
    except Exception as error:
        raise BadFileError(_reason(error)) from error

    def load() -> Pixels:
        with image:
            try:
                image.load()
                with suppress(Exception):  # the picture is sound, only what was written about it is not
                    ImageOps.exif_transpose(image, in_place=True)
                return _rgb(image)
            except (BadFileError, MemoryError):
                raise
            except Exception as error:
                raise BadFileError(_reason(error)) from error

    return Picture(image.height, image.width, load)


def _rgb(image: Image.Image) -> Pixels:
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        grey = (np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode in ("I", "F"):
        raise BadFileError("samples of 32 bits, which have no fixed white; save it with 8 or 16 bits")
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))  # convert copies in any case


def _unidentified(data: bytes) -> str:
    if data[4:8] == b"ftyp":
        return "HEIC, or another format of that family, which Pillow cannot read; convert it to JPEG"
    if not data.strip(b"\0"):
        return "not an image: nothing but zero bytes"
    return f"not an image of a known format (begins with the bytes {data[:8].hex(' ')})"


def _reason(error: Exception) -> str:
    """Return the first line of the error, without addresses in memory: a ledger must not differ between runs."""
    text = str(error).strip().partition("\n")[0]
    text = re.sub(r" ?<[^>]* at 0x[0-9a-fA-F]+>", "", text)[:300]
    return f"cannot be decoded: {text or type(error).__name__}"
