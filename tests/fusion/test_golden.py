"""Bits that must not change from release to release, nor from machine to machine.

A digest that differs on another processor is a defect. One that a change of ours makes differ needs a line in the
changelog, and the new digest here.
"""

from __future__ import annotations

import numpy as np
import pytest

import gpucompute as gp


def ramp(dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return values of all magnitudes that need no random generator: a quadratic residue walk."""
    n = int(np.prod(shape))
    k = np.arange(n, dtype=np.int64)
    walk = (k * k * 7919 + k * 104729) % 65521 - 32760
    if np.dtype(dtype).kind == "f":
        return (walk / 1024.0 * np.exp2(k % 7 - 3)).astype(dtype).reshape(shape)
    return walk.astype(dtype).reshape(shape)


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def elementary(x):
    y = abs(x) + x.dtype.type(0.5)
    bounded = np.tanh(x)
    plain = (np.exp, np.expm1, np.sin, np.cos, np.tan, np.arctan, np.arcsinh, np.cbrt, gp.erf, gp.sigmoid)
    return (
        *(function(x) for function in plain),
        *(np.log(y), np.log1p(y), np.arcsin(bounded), np.sinh(bounded)),
        *(y**bounded, np.hypot(x, y), np.arctan2(x, y)),
    )


def moments(x):
    return x.sum(), x.mean(0), x.std(axis=1), x.var(), x.prod(axis=0), x.min(1), x.argmax(0)


PROGRAMS = {
    "softmax float32": (softmax, ("f4", (37, 700))),
    "softmax float16": (softmax, ("f2", (5, 300))),
    "elementary float32": (elementary, ("f4", (3000,))),
    "elementary float64": (elementary, ("f8", (3000,))),
    "moments float32": (moments, ("f4", (70, 333))),
    "moments uint8": (moments, ("u1", (70, 333))),
    "normalise": (lambda x: ((x / np.float32(255) - np.float32(0.45)) / np.float32(0.22)).T, ("u1", (40, 50))),
}
DIGESTS = {
    "softmax float32": "ddaf402336a62ae7d658f4d26c1a8c5e9f5da836acc95ad1a38594bdba8774de",
    "softmax float16": "49100a2de24a478681834136175ea0930616477a6bdabc54b055513184e9c5c6",
    "elementary float32": "f5731d554b3acff1be898021e305b08ad11493a782ab6708c543b26c799df7f2",
    "elementary float64": "0dc175fff703c4468755f0622afe88c1b8776de52e4c95f7a1e38e786e16fd81",
    "moments float32": "6c0f9fba9783d999f3ac2b6b8af2e48189e38d234e63cf8561330db6e0638abc",
    "moments uint8": "be845593de7e61e0e0ac0c53d60f08ccb82bd54a3373fe2d2062f8d286f10846",
    "normalise": "889d249affdb3c3f0debb6fe3a83d2d7092e450995ca4690cf545a737cee692c",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_digests(name: str) -> None:
    function, (dtype, shape) = PROGRAMS[name]
    results = gp.fuse(function)(ramp(dtype, shape))
    assert gp.digest(*(results if isinstance(results, tuple) else (results,))) == DIGESTS[name]
