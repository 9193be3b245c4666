"""Resize 64 photographs from 512×384 to 224×224, bilinear with antialias. Pillow's bytes are the reference."""

from harness import LIMIT, OURS, PEER, Call, Case, WrongResult, run, size, threads  # isort: split

import numpy as np
from corpus import decoded
from limits import stream
from PIL import Image

import gpucompute as gp

BATCH = size(64)
SIDE = 224
photographs = decoded(BATCH)


def pillow(photograph):
    return np.asarray(Image.fromarray(photograph).resize((SIDE, SIDE), Image.Resampling.BILINEAR))


reference = np.stack(list(map(pillow, photographs)))


def check(result):
    found = np.asarray(result)
    if found.shape == (BATCH, 3, SIDE, SIDE):
        found = found.transpose(0, 2, 3, 1)
    if found.dtype != np.uint8 or found.shape != reference.shape:
        raise WrongResult(f"{found.dtype} {found.shape}, expected uint8 {reference.shape}")
    return float(np.abs(found.astype(int) - reference).max())


# The others' meanings of antialias differ from Pillow's, and no one's from all others: they are all let in.
case = Case(f"d. resize {BATCH} photographs 512×384 → 224×224, Pillow's bytes", check, tolerance=255)
case.target("gpucompute", "torch uint8, channels last")


@case.add("gpucompute", OURS, exact=True)
def _():
    return lambda: gp.image.resize(photographs, (SIDE, SIDE))


@case.add("gpucompute, fresh memory at every call", OURS, exact=True)
def _():
    return Call(lambda: gp.image.resize(photographs, (SIDE, SIDE)), before=gp.memory.release)


@case.add("Pillow", PEER)
def _():
    return lambda: np.stack(list(map(pillow, photographs)))


@case.add("Pillow, threads", PEER)
def _():
    pool = threads()
    return lambda: np.stack(list(pool.map(pillow, photographs)))


def _opencv(name, label):
    @case.add(label, PEER, needs="cv2")
    def _(cv2):
        cv2.setNumThreads(1)  # one image for each thread is faster than one image on all of them
        pool, how = threads(), getattr(cv2, name)
        return lambda: np.stack(list(pool.map(lambda x: cv2.resize(x, (SIDE, SIDE), interpolation=how), photographs)))


_opencv("INTER_LINEAR", "OpenCV INTER_LINEAR (no antialias), threads")
_opencv("INTER_AREA", "OpenCV INTER_AREA, threads")


def _torch(label, prepare):
    @case.add(label, PEER, needs="torch")
    def _(torch):
        given = prepare(torch.from_numpy(photographs).permute(0, 3, 1, 2))
        resize = torch.nn.functional.interpolate
        return lambda: resize(given, (SIDE, SIDE), mode="bilinear", antialias=True)


_torch("torch uint8, channels last", lambda x: x)
_torch("torch uint8, channels first", lambda x: x.contiguous())


@case.add("torch float32, channels last", PEER, needs="torch")
def _(torch):
    given = torch.from_numpy(photographs).permute(0, 3, 1, 2)

    def call():
        made = torch.nn.functional.interpolate(given.float(), (SIDE, SIDE), mode="bilinear", antialias=True)
        return made.round_().clamp_(0, 255).to(torch.uint8)

    return call


@case.add("JAX jit", PEER, needs="jax jax.numpy jax.image")
def _(jax, jnp, image):
    @jax.jit
    def resize(x):
        made = image.resize(x.astype(jnp.float32), (BATCH, SIDE, SIDE, 3), "bilinear", antialias=True)
        return jnp.clip(jnp.round(made), 0, 255).astype(jnp.uint8)

    given = jnp.asarray(photographs)
    return lambda: resize(given)


@case.add("albumentations, INTER_AREA", PEER, needs="albumentations cv2")
def _(albumentations, cv2):
    step = albumentations.Resize(SIDE, SIDE, interpolation=cv2.INTER_AREA)
    return lambda: np.stack([step(image=x)["image"] for x in photographs])


@case.add("kornia", PEER, needs="kornia torch")
def _(kornia, torch):
    given = torch.from_numpy(photographs).permute(0, 3, 1, 2)

    def call():
        made = kornia.geometry.resize(given.float(), (SIDE, SIDE), "bilinear", antialias=True)
        return made.round_().clamp_(0, 255).to(torch.uint8)

    return call


@case.add("scikit-image", PEER, needs="skimage.transform")
def _(transform):
    def one(x):
        return (255 * transform.resize(x, (SIDE, SIDE), order=1, anti_aliasing=True)).round().astype(np.uint8)

    return lambda: np.stack(list(map(one, photographs)))


@case.add("limit: its bytes, streamed", LIMIT)
def _():
    return stream(photographs.nbytes, reference.nbytes)


if __name__ == "__main__":
    run(case)
