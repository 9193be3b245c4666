"""A contact sheet: what was written, as a picture to look at."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import OptionError
from .settings import Settings
from .store import import_zarr

MOST = 24  # pictures on a sheet
THUMB = 224  # pixels; larger rows are shown smaller
CAPTION, GAP = 30, 8  # pixels


def check_preview(path: str | os.PathLike[str]) -> None:
    """Raise `OptionError` if no picture can be written under this name."""
    from PIL import Image

    Image.init()
    known = {suffix for suffix, name in Image.registered_extensions().items() if name in Image.SAVE}
    if Path(path).suffix.lower() not in known:
        raise OptionError(f"preview {os.fspath(path)!r}: expected the name of a picture, such as preview.png")
    if not Path(path).absolute().parent.is_dir():
        raise OptionError(f"preview {os.fspath(path)!r}: its folder does not exist; make it first")


def contact_sheet(out: str | os.PathLike[str], path: str | os.PathLike[str], settings: Settings) -> int:
    """Draw rows of the Zarr `out`, spread evenly over it, with their classes and names, and return how many."""
    from PIL import Image, ImageDraw, ImageFont

    group = import_zarr().open_group(Path(out), mode="r")
    images, names, labels = group["images"], group["names"], group["labels"]
    classes = group.attrs["class_names"]
    rows = images.shape[0]
    chosen = np.unique(np.linspace(0, rows - 1, min(rows, MOST)).round().astype(int))
    columns = max(1, math.ceil(math.sqrt(len(chosen) * 1.5)))  # wider than high, like a screen
    height, width = settings.size
    scale = min(1.0, THUMB / max(height, width))
    thumb = (max(1, round(width * scale)), max(1, round(height * scale)))
    step = (thumb[0] + GAP, thumb[1] + GAP + CAPTION)
    size = (columns * step[0] + GAP, max(1, math.ceil(len(chosen) / columns)) * step[1] + GAP)
    sheet = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default()
    for place, row in enumerate(chosen):
        x, y = GAP + place % columns * step[0], GAP + place // columns * step[1]
        sheet.paste(Image.fromarray(to_pixels(images[row], settings)).resize(thumb), (x, y))
        label = int(labels[row])
        lines = [classes[label] if label >= 0 else "", str(names[row]).rpartition("/")[2]]
        for line, text in enumerate(filter(None, lines)):
            # Pillow's own font has Latin letters only; 6 pixels is about a letter
            shown = text.encode("ascii", "replace").decode()[: thumb[0] // 6]
            draw.text((x, y + thumb[1] + 2 + 13 * line), shown, fill="black", font=font)
    sheet.save(path)
    return len(chosen)


def to_pixels(row: npt.NDArray[Any], settings: Settings) -> npt.NDArray[np.uint8]:
    """Return a row of `images` as (height, width, 3) uint8 again, the normalisation undone."""
    values = row.transpose(1, 2, 0) if settings.layout == "NCHW" else row
    if settings.normalize is None:
        return values.astype(np.uint8, order="C")
    mean, std = (np.array(numbers, np.float32) for numbers in settings.normalize)
    pixels = (values.astype(np.float32) * std + mean) * 255
    return pixels.round().clip(0, 255).astype(np.uint8, order="C")
