"""SHA-256 of results for any number of workers, for threads and processes, and for three ways of cutting.

    python benchmarks/same_bits.py               # 1, 2 and 4 threads; 1, 2 and 4 processes
    python benchmarks/same_bits.py --workers 1,2

Two of the cuts end on multiples of 256 rows, one does not. What docs/dask.md promises of each function is the third
column: *any chunks*, the bits of the call without Dask, however the array is cut; *tiles*, the same for chunks that end
on multiples of 256, and for others a result that depends on the cuts alone. Ends with status 1 if a promise is broken.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any, NamedTuple

import dask
import dask.array as da
import numpy as np

import gpucompute as gp

ROWS = 5000
CUTS = {"1024 rows": 1024, "768 rows": 768, "1000 rows": 1000}
ANY, TILES = "any chunks", "tiles"
random = np.random.default_rng(0)
VALUES = (random.standard_normal((ROWS, 24)) * 10 + 3).astype(np.float32)
IMAGES = random.integers(0, 256, (ROWS, 6, 5, 3), dtype=np.uint8)

root_mean_square = gp.reduction(lambda x: x * x, lambda a, b: a + b, 0.0, finalize=lambda s: math.sqrt(s / ROWS))


def normalise(images: Any) -> Any:
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    return ((images.astype(np.float32) / 255 - mean) / std).transpose(0, 3, 1, 2)


def standardise(x: Any) -> Any:
    return (x - x.mean(axis=0)) / x.std(axis=0)


def softmax(x: Any) -> Any:
    e = np.exp(x - x.max(axis=0))
    return e / e.sum(axis=0)


def channels(images: Any) -> Any:
    axes = (0, 1, 2)
    return images.mean(axis=axes), images.std(axis=axes), images.min(axis=axes), images.max(axis=axes)


class Case(NamedTuple):
    """A function, its argument, and what is promised of its bits."""

    name: str
    function: Callable[[Any], Any]
    argument: Any
    promise: str


CASES = [
    Case("normalise", normalise, IMAGES, ANY),
    Case("standardise columns", standardise, VALUES, TILES),
    Case("softmax of columns", softmax, VALUES, TILES),
    Case("mean, var, std", lambda x: (x.mean(axis=0), x.var(axis=0), x.std(axis=0)), VALUES, TILES),
    Case("min, max", lambda x: (x.min(axis=0), x.max(axis=0)), VALUES, ANY),
    Case("channels of uint8", channels, IMAGES, ANY),
    Case("gp.reduction", lambda x: root_mean_square(x, axis=0), VALUES, TILES),
    Case("argmin", lambda x: x.argmin(axis=0), VALUES, ANY),
]


def digest(case: Case, rows: int | None = None) -> str:
    """Return the digest of the results, without Dask or with chunks of so many rows."""
    if rows is None:
        made = gp.fuse(case.function)(case.argument)
    else:
        lazy = gp.fuse(case.function)(da.from_array(case.argument, chunks=(rows, *case.argument.shape[1:])))
        made = dask.compute(lazy)[0]
    return gp.digest(*(made if isinstance(made, tuple) else (made,)))


@contextmanager
def workers(kind: str, count: int) -> Iterator[None]:
    """Have Dask compute on so many threads, or processes."""
    if kind == "threads":
        with dask.config.set(scheduler="threads", num_workers=count):
            yield
    else:
        with gp.chunked.start_cluster(device="cpu", workers=count, memory_limit="1GiB"):
            yield


def collect(ways: Iterable[tuple[str, int]]) -> dict[tuple[str, str], set[str]]:
    """Return all digests of each case and cut; the cut "" is the call without Dask."""
    found = {(case.name, ""): {digest(case)} for case in CASES}
    for way in ways:
        with workers(*way):
            for case, (cut, rows) in product(CASES, CUTS.items()):
                found.setdefault((case.name, cut), set()).add(digest(case, rows))
    return found


def is_kept(case: Case, cut: str, found: dict[tuple[str, str], set[str]]) -> bool:
    """Tell whether the promise for a case is kept for a cut."""
    digests = found[case.name, cut]
    whole = case.promise == ANY or CUTS[cut] % 256 == 0
    return digests == found[case.name, ""] if whole else len(digests) == 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", default="1,2,4", help="numbers of threads, and of processes (1,2,4)")
    counts = [int(n) for n in parser.parse_args().workers.split(",")]
    found = collect(product(("threads", "processes"), counts))
    print(f"Each cell: the digests of {2 * len(counts)} runs, {counts} threads and {counts} processes.\n")
    print(f"| function | without Dask | promise | {' | '.join(CUTS)} | kept |\n|---|---|---|{'---|' * len(CUTS)}---|")
    broken = 0
    for case in CASES:
        cells = [", ".join(sorted(text[:8] for text in found[case.name, cut])) for cut in ("", *CUTS)]
        kept = all(is_kept(case, cut, found) for cut in CUTS)
        broken += not kept
        print(f"| {' | '.join([case.name, cells[0], case.promise, *cells[1:], 'yes' if kept else 'NO'])} |")
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
