"""Statistics and normalisation of a Zarr four times larger than the memory limits of the workers together.

    python benchmarks/larger_than_memory.py                                  # 4 GiB, two workers of 512 MiB
    python benchmarks/larger_than_memory.py --memory-limit 400MiB --times 2

The columns of a float32 table are standardised: one pass for mean, deviation, minimum and maximum, one that writes
(x - mean) / deviation to another Zarr. Peaks are each worker's own (Linux: VmHWM), so nothing between two looks is
missed. Afterwards the same is computed without Dask, in one piece for the statistics and by NumPy for the blocks that
were written, and the bits are compared. Ends with status 1 if they differ, if a worker was lost or if one went above
its limit.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import dask
import numpy as np
import zarr
from dask.utils import format_bytes

import gpucompute as gp

COLUMNS = 256
STORED = 4096  # rows in a chunk of the source


@gp.fuse
def describe(x: Any) -> Any:
    return x.mean(axis=0), x.std(axis=0), x.min(axis=0), x.max(axis=0)


@gp.fuse
def standardise(x: Any, mean: Any, std: Any) -> Any:
    return (x - mean) / std


class Run(NamedTuple):
    """What a run came to: seconds of both passes, peaks of the workers in bytes, workers lost, chunks, statistics."""

    seconds: tuple[float, float]
    peaks: list[int]
    lost: int
    chunks: tuple[int, ...]
    statistics: tuple[np.ndarray, ...]


def write(path: Path, nbytes: int) -> None:
    """Write a Zarr of noise, a chunk at a time."""
    rows = nbytes // (4 * COLUMNS * STORED) * STORED + 100  # the last chunk is not full
    array = zarr.create_array(
        path, shape=(rows, COLUMNS), chunks=(STORED, COLUMNS), dtype="float32", compressors=None, fill_value=0
    )
    noise = np.random.default_rng(0).random((STORED, COLUMNS), np.float32) * np.linspace(0.5, 3, COLUMNS, dtype="f4")
    for start in range(0, rows, STORED):
        array[start : start + STORED] = noise[: rows - start] + np.float32(start / rows)


def peak() -> int:
    """Return the most memory that this process ever had, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def run(source: Path, target: Path, workers: int, memory_limit: str) -> Run:
    """Do both passes on a cluster with automatic chunks."""
    with gp.chunked.start_cluster(device="cpu", workers=workers, memory_limit=memory_limit) as cluster:
        began = cluster.client.run(os.getpid)
        x = gp.chunked.from_zarr(source)
        first = time.perf_counter()
        statistics = dask.compute(*describe(x))
        second = time.perf_counter()
        gp.chunked.to_zarr(standardise(x, *statistics[:2]), target)
        end = time.perf_counter()
        lost = len(set(began.items()) - set(cluster.client.run(os.getpid).items()))
        peaks = list(cluster.client.run(peak).values())
    return Run((second - first, end - second), peaks, lost, x.chunksize, statistics)


def is_equal(source: Path, target: Path, statistics: tuple[np.ndarray, ...]) -> bool:
    """Tell whether the bits are those of the same without Dask."""
    array, written = zarr.open_array(source, mode="r"), zarr.open_array(target, mode="r")
    values = array[:]
    if gp.digest(*describe(values)) != gp.digest(*statistics):
        return False
    mean, std = statistics[:2]
    rows = written.chunks[0]
    return all(
        np.array_equal(written[start : start + rows], (values[start : start + rows] - mean) / std)
        for start in range(0, len(values), rows)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--memory-limit", default="512MiB", help="of each worker (512MiB)")
    parser.add_argument("--times", type=float, default=4, help="the data, in memory limits of all workers (4)")
    parser.add_argument("--folder", help="where the Zarrs are written, twice the size of the data; they are removed")
    options = parser.parse_args()
    limit = dask.utils.parse_bytes(options.memory_limit)
    nbytes = int(options.workers * limit * options.times)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        source, target = Path(folder) / "x.zarr", Path(folder) / "y.zarr"
        write(source, nbytes)
        done = run(source, target, options.workers, options.memory_limit)
        equal = is_equal(source, target, done.statistics)
    print(f"data                 {format_bytes(nbytes)}, float32, {COLUMNS} columns")
    print(f"workers              {options.workers}, memory limit {format_bytes(limit)} each")
    print(f"automatic chunks     {done.chunks}, {format_bytes(4 * done.chunks[0] * done.chunks[1])}")
    print(f"statistics           {done.seconds[0]:.1f} s")
    print(f"normalise and write  {done.seconds[1]:.1f} s")
    print(f"peaks of the workers {', '.join(format_bytes(n) for n in done.peaks)}")
    print(f"workers lost         {done.lost}")
    print(f"bits as without Dask {'yes' if equal else 'NO'}")
    sys.exit(0 if equal and not done.lost and max(done.peaks) <= limit else 1)


if __name__ == "__main__":
    main()
