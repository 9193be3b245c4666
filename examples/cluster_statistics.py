"""Statistics and normalisation of images in a Zarr, a chunk at a time, on the GPUs or cores of this machine.

    python examples/cluster_statistics.py                    # 2000 images: 94 MiB
    python examples/cluster_statistics.py --images 6000      # 281 MiB, and a result of 1125 MiB
    python examples/cluster_statistics.py --source DIR.zarr  # yours: uint8 (n, height, width, channels)

Takes about 11 seconds on two cores, a third of it to start, and the first time some more to compile. It prints:

    cluster                     this machine
    device                      cpu
    workers                     2
    tasks at a time per worker  1
    kernel threads per worker   1
    memory limit per worker     512.00 MiB
    protocol                    tcp
    dashboard: http://127.0.0.1:8787/status
    [########################################] | 100% Completed | 1.2s
    94 MiB read twice, 375 MiB written
    [########################################] | 100% Completed | 3.4s
    mean [0.49998444 0.50002486 0.49995422], deviation [0.28978455 0.2898203  0.28981957], in 6.0 s
    peak memory of the workers: 190 MiB, 193 MiB

The images are noise. Memory does not grow with their number, since each task holds one chunk and its result: with 6000
images the workers' peaks were 191 and 206 MiB. A worker that has to compile the kernels peaks at 310 MiB.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import dask
import numpy as np
import zarr
from distributed import progress

import gpucompute as gp

ROWS = 32  # images in a chunk


@gp.fuse
def channel_statistics(images: Any) -> Any:
    x = images.astype(np.float32) / 255
    return x.mean(axis=(0, 1, 2)), x.std(axis=(0, 1, 2))


@gp.fuse
def normalise(images: Any, mean: Any, std: Any) -> Any:
    return ((images.astype(np.float32) / 255 - mean) / std).transpose(0, 3, 1, 2)


def write_noise(path: Path, count: int) -> None:
    """Write a Zarr of uint8, (count, 128, 128, 3), a chunk at a time."""
    array = zarr.create_array(
        path, shape=(count, 128, 128, 3), chunks=(ROWS, 128, 128, 3), dtype="uint8", compressors=None
    )
    for start in range(0, count, ROWS):
        block = np.random.default_rng(start).integers(0, 256, (min(ROWS, count - start), 128, 128, 3), np.uint8)
        array[start : start + ROWS] = block


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # MiB


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--source", type=Path)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--memory-limit", default="512MiB", help="of each worker")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source, target = options.source or Path(folder) / "images.zarr", Path(folder) / "normalised.zarr"
        if options.source is None:
            write_noise(source, options.images)
        with gp.chunked.start_cluster(memory_limit=options.memory_limit) as cluster:
            print(cluster.plan)
            print("dashboard:", cluster.client.dashboard_link)
            began = time.perf_counter()
            images = gp.chunked.from_zarr(source)
            mean, std = dask.persist(*channel_statistics(images))
            progress(mean, std)
            result = normalise(images, mean, std)
            print(f"\n{images.nbytes / 2**20:.0f} MiB read twice, {result.nbytes / 2**20:.0f} MiB written")
            written = cluster.client.compute(gp.chunked.to_zarr(result, target, compute=False))
            progress(written)  # it is shown until all is done
            written.result()  # raises where something failed
            print(f"\nmean {mean.compute()}, deviation {std.compute()}, in {time.perf_counter() - began:.1f} s")
            peaks = cluster.client.run(peak).values()
            print("peak memory of the workers:", ", ".join(f"{value:.0f} MiB" for value in peaks))


if __name__ == "__main__":
    main()
