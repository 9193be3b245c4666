"""A photograph in 32 colours: k-means over the pixels of a Dask array, with the same bits for any chunks.

    python examples/kmeans.py                     # a photograph that scikit-learn ships
    python examples/kmeans.py --output FILE.png   # and write it in its new colours
    python examples/kmeans.py --photograph FILE   # your own JPEG or PNG

Needs ``pip install 'gpucompute[images,photos,dask]'``. Takes about 6 seconds on two cores, half of it to import,
and the first time some more to compile. It prints:

    273280 pixels in 5 chunks, 96615 colours
    32 colours after 39 iterations, in 1.2 s
    root mean square distance of a pixel from its colour: 13.88 of 255
    other chunks, equal bits: True
    digest of the colours: 171a1a6c12fd4eea
"""

from __future__ import annotations

import argparse
from pathlib import Path
from time import perf_counter

import dask.array as da
import numpy as np
from PIL import Image

import gpucompute as gp


def sample() -> Path:
    """Return the path of a photograph."""
    import sklearn.datasets

    return Path(sklearn.datasets.__file__).parent / "images" / "china.jpg"


def main() -> None:
    """Find the colours, and say how near they come."""
    parser = argparse.ArgumentParser(description="a photograph in few colours")
    parser.add_argument("--photograph", type=Path, metavar="FILE", help="JPEG or PNG (default: one of scikit-learn's)")
    parser.add_argument("--colours", type=int, default=32)
    parser.add_argument("--output", type=Path, metavar="FILE", help="where to write the photograph in its new colours")
    options = parser.parse_args()

    photograph = np.asarray(Image.open(options.photograph or sample()).convert("RGB"))
    pixels = photograph.reshape(-1, 3)
    rows = da.from_array(pixels, chunks=(65536, 3)).astype(np.float32).persist()
    print(f"{len(rows)} pixels in {rows.numblocks[0]} chunks, {len(np.unique(pixels, axis=0))} colours")

    began = perf_counter()
    model = gp.cluster.KMeans(options.colours, random_state=0).fit(rows)
    print(f"{options.colours} colours after {model.n_iter_} iterations, in {perf_counter() - began:.1f} s")
    print(f"root mean square distance of a pixel from its colour: {(model.inertia_ / len(rows)) ** 0.5:.2f} of 255")

    again = gp.cluster.KMeans(options.colours, random_state=0).fit(rows.rechunk((50000, 3)))
    print(f"other chunks, equal bits: {np.array_equal(model.cluster_centers_, again.cluster_centers_)}")
    print(f"digest of the colours: {gp.digest(model.cluster_centers_)[:16]}")

    if options.output is not None:
        palette = np.rint(model.cluster_centers_).astype(np.uint8)
        labels = model.labels_.compute().reshape(photograph.shape[:2])  # lazy until here
        Image.fromarray(palette[labels]).save(options.output)


if __name__ == "__main__":
    main()
