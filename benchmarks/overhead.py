"""What is paid besides the work: a warm call on little data, compiling, loading compiled code, and new shapes."""

from harness import HAND, OURS, PEER, PROMISE, Case, Seconds, run  # isort: split

import os
import subprocess
import sys
import tempfile
from itertools import count

import numpy as np

import gpucompute as gp

COUNT = 1000
x, y = (np.random.default_rng(seed).standard_normal(COUNT).astype(np.float32) for seed in (0, 1))


def expression(x, y):
    return 2.5 * x + y * y - 0.5


reference = expression(x.astype(float), y.astype(float))
warm = Case(
    "overhead: a warm call of 2.5 * x + y * y - 0.5 on 1,000 float32",
    lambda result: float(np.abs(np.asarray(result) - reference).max()),
    tolerance=1e-5,
)
warm.target("gpucompute", "promise", 1.0)


@warm.add("gpucompute", OURS)
def _():
    fused = gp.fuse(expression)
    return lambda: fused(x, y)


@warm.add("gpucompute, out=", OURS)
def _():
    fused, out = gp.fuse(expression), np.empty_like(x)
    return lambda: fused(x, y, out=out)


@warm.add("NumPy", PEER)
def _():
    return lambda: expression(x, y)


@warm.add("numba.vectorize", HAND, needs="numba")
def _(numba):
    @numba.vectorize([numba.float32(numba.float32, numba.float32)])
    def compiled(x, y):
        return np.float32(2.5) * x + y * y - np.float32(0.5)

    return lambda: compiled(x, y)


@warm.add("numexpr", PEER, needs="numexpr")
def _(numexpr):
    names = {"x": x, "y": y, "a": np.float32(2.5), "b": np.float32(0.5)}
    return lambda: numexpr.evaluate("a * x + y * y - b", names)


@warm.add("torch eager", PEER, needs="torch")
def _(torch):
    given = torch.from_numpy(x), torch.from_numpy(y)
    return lambda: expression(*given)


@warm.add("torch.compile", PEER, needs="torch")
def _(torch):
    given, compiled = (torch.from_numpy(x), torch.from_numpy(y)), torch.compile(expression)
    return lambda: compiled(*given)


@warm.add("JAX jit", PEER, needs="jax jax.numpy")
def _(jax, jnp):
    given, compiled = (jnp.asarray(x), jnp.asarray(y)), jax.jit(expression)
    return lambda: compiled(*given)


def promised(seconds, case):
    """Add a row that takes as long as is promised."""

    @case.add(f"promise: {seconds * 1e3:g} ms", PROMISE)
    def _():
        return lambda: Seconds(seconds)


promised(20e-6, warm)

# In new processes. Each prints the seconds that count; what comes before is everybody's own start.
NORMALISE = """
import numpy as np
images = np.zeros((4, 64, 64, 3), np.uint8)
mean, std = np.full(3, 0.5, np.float32), np.full(3, 0.25, np.float32)
from time import perf_counter
"""
OURS_DEFINED = (
    NORMALISE
    + """
import gpucompute as gp
@gp.fuse
def normalise(images, mean, std):
    x = images.astype(np.float32) / 255
    return ((x - mean) / std).transpose(0, 3, 1, 2)
"""
)
TIMED = """
began = perf_counter()
{call}
print(perf_counter() - began)
"""
OURS_CALL = TIMED.format(call="result = normalise(images, mean, std)")


def in_new_process(code, **environment):
    """Return a function that runs `code` in a new process and returns the seconds that it prints."""

    def call():
        command = [sys.executable, "-c", code]
        ran = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
        if ran.returncode:
            raise RuntimeError(ran.stderr)
        return Seconds(ran.stdout.split()[-1])

    return call


def new_process_case(title):
    return Case(title, lambda result: 0.0, tolerance=0.0)


first = new_process_case("overhead: the first call of case a in a new process, nothing cached")
first.target("gpucompute", "promise")
promised(0.5, first)


@first.add("gpucompute, numba warmed up by another function", OURS)
def _():
    # What numba does once in a process is not counted; all that gpucompute does is.
    warm_up = "import numba; numba.njit(lambda x: x + 1)(np.zeros(3))\n"

    def call():
        with tempfile.TemporaryDirectory() as folder:
            return in_new_process(OURS_DEFINED + warm_up + OURS_CALL, GPUCOMPUTE_CACHE_DIR=folder)()

    return call


@first.add("gpucompute, with numba's import and warm-up", OURS)
def _():
    def call():
        with tempfile.TemporaryDirectory() as folder:
            return in_new_process(OURS_DEFINED + OURS_CALL, GPUCOMPUTE_CACHE_DIR=folder)()

    return call


@first.add("JAX jit, another function compiled before", PEER, needs="jax")
def _(jax):
    return in_new_process(
        NORMALISE
        + """
import jax, jax.numpy as jnp
jax.jit(lambda x: x + 1)(jnp.zeros(3)).block_until_ready()
normalise = jax.jit(lambda x, m, s: jnp.transpose((x.astype(jnp.float32) / 255 - m) / s, (0, 3, 1, 2)))
images, mean, std = map(jnp.asarray, (images, mean, std))
"""
        + TIMED.format(call="normalise(images, mean, std).block_until_ready()")
    )


TORCH = (
    NORMALISE
    + """
import torch
images, mean, std = map(torch.from_numpy, (images, mean[:, None, None].copy(), std[:, None, None].copy()))
{warm_up}
compiled = torch.compile(lambda x, m, s: ((x.permute(0, 3, 1, 2).float() / 255 - m) / s).contiguous())
"""
    + TIMED.format(call="compiled(images, mean, std)")
)

TORCH_WARM_UP = "torch.compile(lambda x: x + 1)(torch.zeros(3))"


@first.add("torch.compile, another function compiled before", PEER, needs="torch")
def _(torch):
    code = TORCH.format(warm_up=TORCH_WARM_UP)

    def call():
        with tempfile.TemporaryDirectory() as folder:
            return in_new_process(code, TORCHINDUCTOR_CACHE_DIR=folder)()

    return call


cached = new_process_case("overhead: the first call of case a in a new process, from the cache on disk")
cached.target("gpucompute", "promise")
promised(0.02, cached)


def _from_disk(before):
    # numba must not be imported: the kernel's object code is loaded without it.
    check = "import sys; assert 'numba' not in sys.modules; assert gp.cache_info().loaded == 1, gp.cache_info()\n"
    folder = tempfile.mkdtemp()
    in_new_process(OURS_DEFINED + OURS_CALL, GPUCOMPUTE_CACHE_DIR=folder)()
    return in_new_process(OURS_DEFINED + before + OURS_CALL + check, GPUCOMPUTE_CACHE_DIR=folder)


@cached.add("gpucompute", OURS)
def _():
    return _from_disk("")


@cached.add("gpucompute, llvmlite imported before", OURS)
def _():
    return _from_disk("import llvmlite.binding\n")


@cached.add("torch.compile, another function compiled before", PEER, needs="torch")
def _(torch):
    code = TORCH.format(warm_up=TORCH_WARM_UP)
    call = in_new_process(code, TORCHINDUCTOR_CACHE_DIR=tempfile.mkdtemp())
    call()
    return call


shapes = Case("overhead: a call with an image size and batch size never seen before", lambda result: 0.0, tolerance=0.0)
_sizes = count(17)


def _new_images():
    side = next(_sizes)
    return np.zeros((1 + side % 7, side, side + 3, 3), np.uint8)


@shapes.add("gpucompute, which compiles nothing", OURS)
def _():
    @gp.fuse
    def normalise(images, mean, std):
        x = images.astype(np.float32) / 255
        return ((x - mean) / std).transpose(0, 3, 1, 2)

    constants = np.full(3, 0.5, np.float32), np.full(3, 0.25, np.float32)
    normalise(_new_images(), *constants)
    compiled = gp.cache_info().compiled

    def call():
        normalise(_new_images(), *constants)
        if gp.cache_info().compiled != compiled:
            raise AssertionError("a new shape was compiled")

    return call


@shapes.add("JAX jit, which compiles anew", PEER, needs="jax jax.numpy")
def _(jax, jnp):
    compiled = jax.jit(lambda x, m, s: jnp.transpose((x.astype(jnp.float32) / 255 - m) / s, (0, 3, 1, 2)))
    constants = jnp.full(3, 0.5), jnp.full(3, 0.25)
    return lambda: compiled(jnp.asarray(_new_images()), *constants)


@shapes.add("torch.compile(dynamic=True)", PEER, needs="torch")
def _(torch):
    compiled = torch.compile(lambda x, m, s: ((x.permute(0, 3, 1, 2).float() / 255 - m) / s).contiguous(), dynamic=True)
    constants = torch.full((3, 1, 1), 0.5), torch.full((3, 1, 1), 0.25)
    return lambda: compiled(torch.from_numpy(_new_images()), *constants)


if __name__ == "__main__":
    run(warm, first, cached, shapes)
