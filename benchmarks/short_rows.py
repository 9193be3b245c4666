"""Softmax of many short rows, the scores of eight classes: float32 (2500000, 8)."""

from harness import LIMIT, OURS, PEER, Case, largest_error, run, size  # isort: split

import numpy as np
from limits import stream

import gpucompute as gp

ROWS = size(2_500_000)
x = (4 * np.random.default_rng(0).standard_normal((ROWS, 8))).astype(np.float32)
CHECKED = slice(0, 50_000)


def softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


case = Case(
    f"c3. softmax of the rows of float32 {ROWS}×8",
    lambda result: largest_error(result, reference, "float32", CHECKED),
    tolerance=1e-6,
)
reference = softmax(x[CHECKED].astype(np.float64))
fused = gp.fuse(softmax)


@case.add("gpucompute, steady state", OURS)
def _():
    return lambda: fused(x)


@case.add("NumPy, as written", PEER)
def _():
    return lambda: softmax(x)


@case.add("scipy.special.softmax", PEER, needs="scipy.special")
def _(special):
    return lambda: special.softmax(x, axis=1)


@case.add("torch.softmax", PEER, needs="torch")
def _(torch):
    given = torch.from_numpy(x)
    return lambda: torch.softmax(given, 1)


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
