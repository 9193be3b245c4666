"""What decides the bytes of an output, checked once and kept with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import OptionError
from .decode import MAX_PIXELS

Channels = tuple[float, float, float]
Transform = Callable[[Sequence[npt.NDArray[np.uint8]]], npt.NDArray[Any]]


class Normalization(NamedTuple):
    """Mean and standard deviation of each channel, of pixels divided by 255."""

    mean: Channels
    std: Channels


NORMALIZATIONS = {
    # torchvision's ImageNet constants
    "imagenet": Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    # Radford et al. 2021, "Learning transferable visual models from natural language supervision", its code
    "clip": Normalization((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "half": Normalization((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),  # to [-1, 1], as TensorFlow's Inception models
    "unit": Normalization((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),  # to [0, 1]
}
DTYPES = ("float32", "float16", "uint8")
LAYOUTS = {"NCHW": ("image", "channel", "height", "width"), "NHWC": ("image", "height", "width", "channel")}
COMPRESSIONS = ("none", "zstd")
INTERPOLATIONS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")


@dataclass(frozen=True)
class Settings:
    """How photographs become rows.

    Parameters
    ----------
    resize : int, (int, int) or None
        The length of the shorter side in pixels, or (height, width); None: not resized.
    crop : (int, int) or None
        (height, width) cut from the centre; None: not cropped.
    interpolation : str
        One of `INTERPOLATIONS`, in Pillow's meaning.
    normalize : Normalization or None
        Subtracted and divided by, after division by 255; None: values from 0 to 255.
    dtype, layout : str
        Of `DTYPES` and `LAYOUTS`.
    batch_size : int
        Rows in a chunk of the Zarr.
    compression : str
        Of `COMPRESSIONS`. "zstd" makes normalised float32 a third as large, and takes longer than all the rest:
        3.3 ms for a picture of 224 by 224, where decoding and resizing take about 2.
    max_pixels : int
        Larger photographs are bad files.
    """

    resize: int | tuple[int, int] | None = 256
    crop: tuple[int, int] | None = (224, 224)
    interpolation: str = "bilinear"
    normalize: Normalization | None = NORMALIZATIONS["imagenet"]
    dtype: str = "float32"
    layout: str = "NCHW"
    batch_size: int = 64
    compression: str = "none"
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        for name, choices in (
            ("interpolation", INTERPOLATIONS),
            ("dtype", DTYPES),
            ("layout", LAYOUTS),
            ("compression", COMPRESSIONS),
        ):
            if getattr(self, name) not in choices:
                raise OptionError(f"{name}={getattr(self, name)!r}: expected one of {', '.join(choices)}")
        for name in ("resize", "crop", "batch_size", "max_pixels"):
            value = getattr(self, name)
            for number in value if isinstance(value, tuple) else (value,):
                if number is not None and number < 1:
                    raise OptionError(f"{name}={value!r}: expected whole numbers, 1 or more")
        if self.crop is None and not isinstance(self.resize, tuple):
            raise OptionError(
                f"resize={self.resize!r} without a crop leaves pictures of different sizes, which do not fit in one "
                "array; give a crop, or resize to a height and a width"
            )
        if self.normalize is not None and self.dtype == "uint8":
            raise OptionError("dtype='uint8' cannot hold normalised values; take a float dtype or no normalisation")
        if self.normalize is not None and not all(self.normalize.std):
            raise OptionError(f"normalize: a standard deviation of 0 in {self.normalize.std}; expected other values")

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of every row."""
        size = self.crop if self.crop is not None else self.resize
        assert isinstance(size, tuple)
        return size

    @property
    def dimensions(self) -> tuple[str, ...]:
        """The names of the dimensions of `images`."""
        return LAYOUTS[self.layout]

    def shape(self, rows: int) -> tuple[int, ...]:
        """Return the shape of so many rows."""
        length = {"image": rows, "channel": 3, "height": self.size[0], "width": self.size[1]}
        return tuple(length[name] for name in self.dimensions)

    def transform(self) -> Transform:
        """Return the function from a list of (height, width, 3) uint8 arrays to a batch."""
        from ..image import CenterCrop, Compose, Normalize, Resize

        steps: list[Any] = []
        if self.resize is not None:
            steps.append(Resize(self.resize, interpolation=self.interpolation))
        if self.crop is not None:
            steps.append(CenterCrop(self.crop))
        if self.normalize is not None:
            steps.append(Normalize(*self.normalize))
        compose: Transform = Compose(steps, dtype=self.dtype, layout=self.layout)
        return compose

    def to_json(self) -> dict[str, Any]:
        """Return the settings as the output keeps them."""
        values = asdict(self)
        values["normalize"] = self.normalize and {k: list(v) for k, v in self.normalize._asdict().items()}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def differences(kept: dict[str, Any], given: dict[str, Any]) -> str:
    """Return the settings that differ, in words, or "" if none does.

    >>> differences({"crop": 224, "dtype": "uint8"}, {"crop": 192, "dtype": "uint8"})
    'crop: 224 there, 192 given'
    """
    names = sorted({*kept, *given})
    return "; ".join(
        f"{name}: {kept.get(name)} there, {given.get(name)} given"
        for name in names
        if kept.get(name) != given.get(name)
    )
