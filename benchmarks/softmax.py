"""Softmax of each row: float32 (20000, 1000)."""

from harness import HAND, LIMIT, OURS, PEER, Call, Case, largest_error, options, run, size, threads  # isort: split

import numpy as np
from limits import stream

import gpucompute as gp

ROWS = size(20_000)
x = (4 * np.random.default_rng(0).standard_normal((ROWS, 1000))).astype(np.float32)
CHECKED = slice(0, 500)


def softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


reference = softmax(x[CHECKED].astype(np.float64))
case = Case(
    f"c1. softmax of the rows of float32 {ROWS}×1000",
    lambda result: largest_error(result, reference, "float32", CHECKED),
    tolerance=1e-6,
)
case.target("gpucompute, steady state", "limit", 2.5)

exact = gp.fuse(softmax)
fast = gp.fuse(softmax, precision="fast")


@case.add("gpucompute, steady state", OURS)
def _():
    return lambda: exact(x)


@case.add('gpucompute, precision="fast"', OURS)
def _():
    return lambda: fast(x)


@case.add("gpucompute, out=", OURS)
def _():
    out = np.empty_like(x)
    return lambda: exact(x, out=out)


@case.add("gpucompute, fresh memory at every call", OURS)
def _():
    return Call(lambda: exact(x), before=gp.memory.release)


@case.add("NumPy, as written", PEER)
def _():
    return lambda: softmax(x)


def _rows(out, lo, hi):
    """64 rows at a time, so that they stay in the cache."""
    for start in range(lo, hi, 64):
        given, made = x[start : min(start + 64, hi)], out[start : min(start + 64, hi)]
        np.subtract(given, given.max(axis=1, keepdims=True), out=made)
        np.exp(made, out=made)
        made *= 1 / made.sum(axis=1, keepdims=True)


@case.add("NumPy by rows, threads", HAND)
def _():
    pool = threads()
    edges = [ROWS * t // options.threads for t in range(options.threads + 1)]

    def call():
        out = np.empty_like(x)
        list(pool.map(lambda t: _rows(out, edges[t], edges[t + 1]), range(options.threads)))
        return out

    return call


@case.add("scipy.special.softmax", PEER, needs="scipy.special")
def _(special):
    return lambda: special.softmax(x, axis=1)


@case.add("torch.softmax", PEER, needs="torch")
def _(torch):
    given = torch.from_numpy(x)
    return lambda: torch.softmax(given, 1)


@case.add("torch.softmax, reused output", HAND, needs="torch")
def _(torch):
    given, out = torch.from_numpy(x), torch.empty(x.shape)
    return lambda: torch.softmax(given, 1, out=out)


@case.add("torch.compile", PEER, needs="torch")
def _(torch):
    given = torch.from_numpy(x)
    compiled = torch.compile(lambda x: torch.softmax(x, 1))
    return lambda: compiled(given)


@case.add("JAX jit", PEER, needs="jax jax.numpy")
def _(jax, jnp):
    given = jnp.asarray(x)
    compiled = jax.jit(lambda x: jax.nn.softmax(x, axis=1))
    return lambda: compiled(given)


@case.add("limit: its bytes, streamed", LIMIT)
def _():
    return stream(x.nbytes, x.nbytes)


if __name__ == "__main__":
    run(case)
