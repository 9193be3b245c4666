"""Mean, standard deviation, minimum and maximum of each channel of 2 GB of uint8 images (n, 224, 224, 3)."""

from harness import HAND, LIMIT, OURS, PEER, Case, WrongResult, options, run, size, threads  # isort: split

import numpy as np
from limits import stream

import gpucompute as gp

COUNT = size(13_286)
AXES = (0, 1, 2)
PIECE = 32  # images that the peers take at a time: what they make of them stays in the cache
images = np.empty((COUNT, 224, 224, 3), np.uint8)
_tile = np.random.default_rng(0).integers(0, 256, (64, 224, 224, 3), np.uint8)
_tile = _tile // np.array([1, 1, 2], np.uint8) + np.array([0, 0, 5], np.uint8)  # the channels shall differ
for _start in range(0, COUNT, 64):
    images[_start : _start + 64] = _tile[: COUNT - _start]


def from_histogram(counts):
    """Return the four results of (3, 256) counts, in whole numbers until the last divisions."""
    values = np.arange(256, dtype=object)
    results = []
    for row in counts.astype(int).astype(object):
        n, total, squares = row.sum(), (row * values).sum(), (row * values * values).sum()
        held = np.flatnonzero(row)
        results.append((total / n, (float(n * squares - total * total)) ** 0.5 / n, held[0], held[-1]))
    return np.array(results, dtype=float).T


def _histogram():
    whole, rest = divmod(COUNT, 64)
    count = [[np.bincount(x[..., c].ravel(), minlength=256) for c in range(3)] for x in (_tile, _tile[:rest])]
    return whole * np.array(count[0]) + np.array(count[1])


reference = from_histogram(_histogram())


def check(result):
    if len(result) != 4:
        raise WrongResult(f"{len(result)} results, expected 4")
    return float(np.abs(np.array([np.asarray(x, float).ravel() for x in result]) - reference).max())


case = Case(f"e. mean, std, min, max per channel of {images.nbytes / 1e9:.2f} GB of uint8", check, tolerance=0.01)
case.target("gpucompute", "limit", 3)


def statistics(images):
    return images.mean(axis=AXES), images.std(axis=AXES), images.min(axis=AXES), images.max(axis=AXES)


fused = gp.fuse(statistics)


@case.add("gpucompute", OURS)
def _():
    return lambda: fused(images)


def finish(count, totals, squares):
    mean = totals / count
    return mean, (squares / count - mean * mean) ** 0.5


@case.add("NumPy by pieces, threads", PEER)
def _():
    """448 pixels make one long row, so that every reduction is along the first axis, which NumPy vectorises."""
    pool = threads()

    def part(start):
        rows = images[start : start + 8].reshape(-1, 3 * 448)
        values = rows.astype(np.float32)
        sums = values.sum(0), np.einsum("ij,ij->j", values, values)
        return [x.reshape(-1, 3).sum(0, dtype=float) for x in sums] + [
            rows.min(0).reshape(-1, 3).min(0),
            rows.max(0).reshape(-1, 3).max(0),
        ]

    def call():
        totals, squares, least, most = (np.array(x) for x in zip(*pool.map(part, range(0, COUNT, 8)), strict=True))
        return (*finish(images.size // 3, totals.sum(0), squares.sum(0)), least.min(0), most.max(0))

    return call


@case.add("OpenCV calcHist, threads", PEER, needs="cv2")
def _(cv2):
    cv2.setNumThreads(1)
    pool = threads()

    def part(start):
        rows = images[start : start + 64].reshape(-1, 224, 3)
        return [cv2.calcHist([rows], [c], None, [256], [0, 256]).ravel().astype(int) for c in range(3)]

    return lambda: from_histogram(sum(map(np.array, pool.map(part, range(0, COUNT, 64)))))


@case.add("torch.compile by pieces", PEER, needs="torch")
def _(torch):
    def part(rows):
        values = rows.to(torch.float32)
        least, most = rows.amin(0), rows.amax(0)
        sums = values.sum(0), (values * values).sum(0)
        return *(x.view(-1, 3).sum(0) for x in sums), least.view(-1, 3).amin(0), most.view(-1, 3).amax(0)

    pieces = [x.reshape(-1, 3 * 448) for x in torch.from_numpy(images).split(PIECE)]
    compiled = torch.compile(part, dynamic=False)

    def call():
        totals, squares = torch.zeros(2, 3, dtype=torch.float64)
        least, most = torch.full((3,), 255, dtype=torch.uint8), torch.zeros(3, dtype=torch.uint8)
        for rows in pieces:
            total, square, low, high = compiled(rows)
            totals, squares = totals + total, squares + square
            least, most = torch.minimum(least, low), torch.maximum(most, high)
        return (*finish(images.size // 3, totals, squares), least, most)

    return call


@case.add("numba, parallel", HAND, needs="numba")
def _(numba):
    """Each thread keeps sums of 1,344 columns in 32 bits for one image, then adds them up in 64."""

    @numba.njit(parallel=True, fastmath=True)
    def sums(rows, parts):
        n, length = rows.shape
        totals, squares = np.zeros((parts, 3)), np.zeros((parts, 3))
        least, most = np.full((parts, 3), 255, np.uint8), np.zeros((parts, 3), np.uint8)
        for t in numba.prange(parts):
            total, square = np.zeros(1344, np.uint32), np.zeros(1344, np.uint32)
            low, high = np.full(1344, 255, np.uint8), np.zeros(1344, np.uint8)
            for i in range(t * n // parts, (t + 1) * n // parts):
                total[:], square[:] = 0, 0
                for start in range(0, length, 1344):
                    row = rows[i, start : start + 1344]
                    for j in range(1344):
                        value = np.uint32(row[j])
                        total[j] += value
                        square[j] += value * value
                    for j in range(1344):
                        low[j], high[j] = min(low[j], row[j]), max(high[j], row[j])
                for j in range(1344):
                    totals[t, j % 3] += total[j]
                    squares[t, j % 3] += square[j]
            for j in range(1344):
                least[t, j % 3] = min(least[t, j % 3], low[j])
                most[t, j % 3] = max(most[t, j % 3], high[j])
        return totals, squares, least, most

    rows = images.reshape(COUNT, -1)

    def call():
        totals, squares, least, most = sums(rows, options.threads)
        return (*finish(images.size // 3, totals.sum(0), squares.sum(0)), least.min(0), most.max(0))

    return call


@case.add("limit: its bytes, read", LIMIT)
def _():
    return stream(images.nbytes, 0)


if __name__ == "__main__":
    run(case)
