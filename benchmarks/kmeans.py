"""Ten iterations of k-means: 200,000 rows of 64 features into 64 clusters, and the colours of a photograph into 32.

The limit is the two operations for each feature, row and centre (a difference, and a fused multiply-add of its square)
for ten iterations and the labels at the end. scikit-learn multiplies matrices instead: one fused multiply-add.
"""

from harness import LIMIT, OURS, PEER, Case, WrongResult, options, run, size  # isort: split

import ctypes

import dask
import dask.array as da
import numpy as np
from limits import compile_c

import gpucompute as gp

ITERATIONS = 10
CHUNKS = 16
OPERATIONS = r"""
typedef float lanes __attribute__((vector_size(64), aligned(64)));
float operate(long rounds, int threads) {
    float result = 0;
    #pragma omp parallel for num_threads(threads) reduction(+ : result)
    for (int t = 0; t < threads; t++) {
        lanes sums[16] = {{0}}, x = {1, 2, 3}, c = {3, 2, 1};
        for (long i = 0; i < rounds / threads; i++) {
            #pragma GCC unroll 16
            for (int k = 0; k < 16; k++) { lanes d = x - c; sums[k] = d * d + sums[k]; __asm__("" : "+v"(x)); }
        }
        #pragma GCC unroll 16
        for (int k = 0; k < 16; k++) result += sums[k][0];
    }
    return result;
}
"""
dask.config.set(scheduler="threads", num_workers=options.threads)


def reference(x, centres):
    """Return the inertia after the iterations, in float64."""
    x, centres = x.astype(np.float64), centres.astype(np.float64)
    squares = (x * x).sum(1)
    for turn in range(ITERATIONS + 1):
        distances = squares[:, None] - 2 * x @ centres.T + (centres * centres).sum(1)
        labels = distances.argmin(1)
        if turn < ITERATIONS:
            counts = np.bincount(labels, minlength=len(centres))
            sums = [np.bincount(labels, column, minlength=len(centres)) for column in x.T]
            centres = np.stack(sums, axis=1) / np.maximum(counts, 1)[:, None]
    return float(np.square(x - centres[labels]).sum())


def fit_chunks(x, arguments):
    """Return a model, after the pass that finds the labels too."""
    model = gp.cluster.KMeans(**arguments).fit(x)
    model.labels_.persist()
    return model


def case_of(title, x, k):
    """Return the contenders for some rows; the first k of them are where the centres start."""
    start = x[:k].copy()
    expected = reference(x, start)
    arguments = {"n_clusters": k, "init": start, "n_init": 1, "max_iter": ITERATIONS, "tol": 0}

    def check(model):
        if model.n_iter_ != ITERATIONS or model.cluster_centers_.dtype != x.dtype:
            raise WrongResult(f"{model.n_iter_} iterations, {model.cluster_centers_.dtype}")
        return abs(model.inertia_ / expected - 1)

    title = f"{title}: {len(x)} × {x.shape[1]} {x.dtype}, k = {k}, {ITERATIONS} iterations"
    case = Case(title, check, tolerance=1e-2)  # colours are often equally near, which rounding decides
    case.target("gpucompute", "scikit-learn", 1.0)

    @case.add("gpucompute", OURS)
    def _():
        return lambda: gp.cluster.KMeans(**arguments).fit(x)

    chunks = da.from_array(x, chunks=(-(-len(x) // CHUNKS), -1)).persist()

    @case.add(f"gpucompute, {CHUNKS} chunks of a Dask array", OURS)
    def _():
        return lambda: fit_chunks(chunks, arguments)

    @case.add(f"gpucompute, {CHUNKS} chunks, in tasks of Dask's threads", OURS)
    def _():
        tasks = chunks.map_blocks(np.asarray, dtype=x.dtype)
        return lambda: fit_chunks(tasks, arguments)

    @case.add("scikit-learn", PEER, needs="sklearn.cluster")
    def _(cluster):
        return lambda: cluster.KMeans(**arguments).fit(x)

    @case.add("limit: its operations", LIMIT)
    def _():
        library = compile_c(OPERATIONS, "-ffp-contract=fast", "-fno-trapping-math")
        if library is None:
            raise ImportError("a C compiler", name="a C compiler")
        library.operate.argtypes, library.operate.restype = [ctypes.c_long, ctypes.c_int], ctypes.c_float
        rounds = (ITERATIONS + 1) * x.size * k // (16 * 16)
        return lambda: library.operate(rounds, options.threads)

    return case


def photograph():
    """Return pixels in random order, or else the first would all be of one colour."""
    from sklearn.datasets import load_sample_image

    pixels = load_sample_image("flower.jpg").reshape(-1, 3).astype(np.float32)
    return np.random.default_rng(0).permutation(pixels)[: size(len(pixels))]


if __name__ == "__main__":
    noise = np.random.default_rng(0).standard_normal((size(200_000), 64)).astype(np.float32)
    run(case_of("k-means of noise", noise, 64), case_of("k-means of colours", photograph(), 32))
