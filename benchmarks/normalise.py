"""Photographs to network input: uint8 (64, 224, 224, 3) to (x / 255 - mean) / std, float32 (64, 3, 224, 224)."""

from harness import HAND, LIMIT, OURS, PEER, Call, Case, largest_error, options, run, size, threads  # isort: split

import numpy as np
from limits import stream

import gpucompute as gp

BATCH = size(64)
images = np.random.default_rng(0).integers(0, 256, (BATCH, 224, 224, 3), dtype=np.uint8)
mean = np.array([0.485, 0.456, 0.406], np.float32)
std = np.array([0.229, 0.224, 0.225], np.float32)
scale, shift = 1 / (255 * std), -mean / std
reference = ((images[:2] / 255.0 - mean.astype(float)) / std.astype(float)).transpose(0, 3, 1, 2)
OUT = (BATCH, 3, 224, 224)

case = Case(
    f"a. uint8 {BATCH}×224×224×3 → normalised float32 NCHW",
    lambda result: largest_error(result, reference, "float32", np.s_[:2]),
    tolerance=1e-5,
)
case.target("gpucompute, steady state", "limit", 1.5)
case.target("gpucompute, steady state", ("torch.compile", "JAX jit"))


@gp.fuse
def normalise(images, mean, std):
    x = images.astype(np.float32) / 255
    return ((x - mean) / std).transpose(0, 3, 1, 2)


@case.add("gpucompute, steady state", OURS)
def _():
    return lambda: normalise(images, mean, std)


@case.add("gpucompute, out=", OURS)
def _():
    out = np.empty(OUT, np.float32)
    return lambda: normalise(images, mean, std, out=out)


@case.add("gpucompute, fresh memory at every call", OURS)
def _():
    return Call(lambda: normalise(images, mean, std), before=gp.memory.release)


@case.add("gpucompute.image.Compose", OURS)
def _():
    chain = gp.image.Compose([gp.image.Normalize(mean, std)])
    return lambda: chain(images)


@case.add("NumPy, as written", PEER)
def _():
    return lambda: np.ascontiguousarray(
        ((images.astype(np.float32) / np.float32(255) - mean) / std).transpose(0, 3, 1, 2)
    )


def _planes(out, lo, hi):
    """One image at a time, so that its planes stay in the cache."""
    for index in range(lo, hi):
        planes = np.ascontiguousarray(images[index].transpose(2, 0, 1))
        for channel in range(3):
            np.multiply(planes[channel], scale[channel], out=out[index, channel], dtype=np.float32, casting="unsafe")
            out[index, channel] += shift[channel]


def _on_threads(out, pool):
    edges = [BATCH * t // options.threads for t in range(options.threads + 1)]
    list(pool.map(lambda t: _planes(out, edges[t], edges[t + 1]), range(options.threads)))
    return out


@case.add("NumPy by planes, threads", HAND)
def _():
    pool = threads()
    return lambda: _on_threads(np.empty(OUT, np.float32), pool)


@case.add("NumPy by planes, threads, reused output", HAND)
def _():
    pool, out = threads(), np.empty(OUT, np.float32)
    return lambda: _on_threads(out, pool)


@case.add("numexpr", PEER, needs="numexpr")
def _(numexpr):
    names = {
        "x": images.transpose(0, 3, 1, 2), "a": scale[:, None, None].copy(), "b": shift[:, None, None].copy()
    }  # fmt: skip
    return lambda: numexpr.evaluate("x * a + b", names, out=np.empty(OUT, np.float32), casting="unsafe")


@case.add("OpenCV blobFromImagesWithParams", PEER, needs="cv2")
def _(cv2):
    cv2.setNumThreads(options.threads)
    params = cv2.dnn.Image2BlobParams()
    params.scalefactor = (*scale.tolist(), 1.0)
    params.mean = (*(255 * mean).tolist(), 0.0)
    params.ddepth = cv2.CV_32F
    return lambda: cv2.dnn.blobFromImagesWithParams(list(images), params)


@case.add("torch eager", PEER, needs="torch")
def _(torch):
    x, a, b = (torch.from_numpy(v) for v in (images, scale[:, None, None].copy(), shift[:, None, None].copy()))
    return lambda: torch.empty(OUT).copy_(x.permute(0, 3, 1, 2)).mul_(a).add_(b)


@case.add("torch eager, reused output", HAND, needs="torch")
def _(torch):
    x, a, b = (torch.from_numpy(v) for v in (images, scale[:, None, None].copy(), shift[:, None, None].copy()))
    out = torch.empty(OUT)
    return lambda: out.copy_(x.permute(0, 3, 1, 2)).mul_(a).add_(b)


@case.add("torch.compile", PEER, needs="torch")
def _(torch):
    x, m, s = (torch.from_numpy(v) for v in (images, mean[:, None, None].copy(), std[:, None, None].copy()))
    compiled = torch.compile(lambda x, m, s: ((x.permute(0, 3, 1, 2).float() / 255 - m) / s).contiguous())
    return lambda: compiled(x, m, s)


@case.add("JAX jit", PEER, needs="jax jax.numpy")
def _(jax, jnp):
    compiled = jax.jit(lambda x, m, s: jnp.transpose((x.astype(jnp.float32) / 255 - m) / s, (0, 3, 1, 2)))
    x, m, s = map(jnp.asarray, (images, mean, std))
    return lambda: compiled(x, m, s)


@case.add("limit: its bytes, streamed", LIMIT)
def _():
    return stream(images.nbytes, 4 * images.nbytes)


if __name__ == "__main__":
    run(case)
