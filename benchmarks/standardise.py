"""Standardise each column, (x - mean) / standard deviation: float32 (20000, 1000)."""

from harness import HAND, LIMIT, OURS, PEER, Call, Case, largest_error, options, run, size, threads  # isort: split

from itertools import pairwise

import numpy as np
from limits import stream

import gpucompute as gp

ROWS = size(20_000)
x = (3 + 4 * np.random.default_rng(0).standard_normal((ROWS, 1000))).astype(np.float32)
CHECKED = np.s_[:, :40]


def standardise(x):
    return (x - x.mean(axis=0)) / x.std(axis=0)


reference = standardise(x[CHECKED].astype(np.float64))
case = Case(
    f"c2. standardise the columns of float32 {ROWS}×1000",
    lambda result: largest_error(result, reference, "float32", CHECKED),
    tolerance=1e-4,
)
case.target("gpucompute, steady state", "limit", 1.8)

fused = gp.fuse(standardise)


@case.add("gpucompute, steady state", OURS)
def _():
    return lambda: fused(x)


@case.add("gpucompute, out=", OURS)
def _():
    out = np.empty_like(x)
    return lambda: fused(x, out=out)


@case.add("gpucompute, fresh memory at every call", OURS)
def _():
    return Call(lambda: fused(x), before=gp.memory.release)


@case.add("NumPy, as written", PEER)
def _():
    return lambda: standardise(x)


@case.add("NumPy by rows, threads", HAND)
def _():
    """Sums and sums of squares in float64, 200 rows at a time; then the same walk once more."""
    pool = threads()
    edges = [ROWS * t // options.threads for t in range(options.threads + 1)]
    spans = list(pairwise(edges))

    def blocks(lo, hi):
        return (slice(start, min(start + 200, hi)) for start in range(lo, hi, 200))

    def sums(span):
        total, squares = np.zeros(x.shape[1]), np.zeros(x.shape[1])
        for block in blocks(*span):
            total += x[block].sum(axis=0)
            squares += np.einsum("ij,ij->j", x[block], x[block])
        return total, squares

    def apply(out, span, mean, factor):
        for block in blocks(*span):
            np.subtract(x[block], mean, out=out[block])
            out[block] *= factor

    def call():
        out = np.empty_like(x)
        total, squares = (sum(parts) for parts in zip(*pool.map(sums, spans), strict=True))
        mean = total / ROWS
        factor = (1 / np.sqrt(squares / ROWS - mean * mean)).astype(np.float32)
        list(pool.map(lambda span: apply(out, span, mean.astype(np.float32), factor), spans))
        return out

    return call


@case.add("scikit-learn StandardScaler", PEER, needs="sklearn.preprocessing")
def _(preprocessing):
    return lambda: preprocessing.StandardScaler().fit_transform(x)


def standardise_torch(x):
    return (x - x.mean(0)) / x.std(0, correction=0)


@case.add("torch eager", PEER, needs="torch")
def _(torch):
    given = torch.from_numpy(x)
    return lambda: standardise_torch(given)


@case.add("torch eager, var_mean and in place", HAND, needs="torch")
def _(torch):
    given = torch.from_numpy(x)

    def call():
        variance, mean = torch.var_mean(given, 0, correction=0)
        return (given - mean).mul_(variance.rsqrt())

    return call


@case.add("torch.compile", PEER, needs="torch")
def _(torch):
    given = torch.from_numpy(x)
    compiled = torch.compile(standardise_torch)
    return lambda: compiled(given)


@case.add("JAX jit", PEER, needs="jax jax.numpy")
def _(jax, jnp):
    given, compiled = jnp.asarray(x), jax.jit(standardise)
    return lambda: compiled(given)


@case.add("limit: its bytes, read, then read and written", LIMIT)
def _():
    first, second = stream(x.nbytes, 0), stream(x.nbytes, x.nbytes)
    return lambda: (first(), second())


if __name__ == "__main__":
    run(case)
