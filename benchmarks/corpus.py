"""Real photographs for the benchmarks, without a download: crops of those that scikit-image and scikit-learn ship."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from gpucompute.data.samples import copy_samples

WIDTH, HEIGHT, QUALITY = 512, 384, 90


def photographs(count: int) -> list[Path]:
    """Return `count` JPEGs of 512 × 384 pixels, the same on every machine with the same packages.

    Each is a random 4:3 part, of 45% to all of the largest, of one of the colour photographs in turn. They are kept
    in the temporary folder.
    """
    from PIL import Image

    folder = Path(tempfile.gettempdir()) / "gpucompute-benchmark-photographs"
    paths = [folder / f"{WIDTH}x{HEIGHT}" / f"{index:04d}.jpg" for index in range(count)]
    if all(path.exists() for path in paths):
        return paths
    copy_samples(folder / "originals")
    paths[0].parent.mkdir(exist_ok=True)
    originals = []
    for path in sorted((folder / "originals").glob("*/*.*")):
        with Image.open(path) as image:
            if image.mode in ("RGB", "RGBA") and min(image.size) >= 300:  # the others are grey, or too small
                originals.append(image.convert("RGB"))
    for index, path in enumerate(paths):
        original, random = originals[index % len(originals)], np.random.default_rng(index)
        width = min(original.width, original.height * WIDTH / HEIGHT) * random.uniform(0.45, 1.0)
        height = width * HEIGHT / WIDTH
        left, upper = random.uniform(0, original.width - width), random.uniform(0, original.height - height)
        box = (left, upper, left + width, upper + height)
        original.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS, box=box).save(path, quality=QUALITY)
    return paths


def decoded(count: int) -> np.ndarray[tuple[int, int, int, int], np.dtype[np.uint8]]:
    """Return (count, 384, 512, 3) uint8."""
    from PIL import Image

    return np.stack([np.asarray(Image.open(path)) for path in photographs(count)])
