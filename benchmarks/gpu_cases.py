"""On a GPU, with one command: the cases of this folder against CuPy, cupy.fuse, JAX and torch.compile.

    python benchmarks/gpu_cases.py --json results.json

Every contender gets the same values on the device, is run until it has compiled, and takes its turn in each round; its
time in a round is that of several calls between two waits for the device. Inputs are far larger than the last cache.
The limit is the bandwidth of a copy, measured in the same run, applied to the bytes that must be read and written.
Results are compared with those of the CPU on a part of the data: ours to the bit, the peers' within a tolerance. What
is claimed is judged under the tables; with other bits than the CPU's the exit status is 1.

``--dry`` takes the same steps on the CPU, with NumPy in CuPy's place and little data: it shows that they run.
"""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import statistics
import time
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import gpucompute as gp
from gpucompute import image, profiling
from gpucompute.launch import drivers

ROUNDS, CALLS = 7, 5
SHARE = 0.9  # of the copy's bandwidth that cases bound by memory claim
OTHER_BITS = "OTHER BITS than the CPU"
HALF_ROOT = np.float32(0.7071067811865476)
Call = Callable[[], Any]


@dataclass
class Case:
    """Something to compute: what it must move, and who computes it."""

    title: str
    nbytes: int
    ours: Call
    reference: Callable[[Any], bool]  # whether our result has the CPU's bits
    peers: dict[str, Callable[[], Call]]  # made when its turn comes: a peer may be missing or refuse
    near: Callable[[Any], bool]  # whether a peer's result is right
    bound: bool = True  # by memory
    times: dict[str, list[float]] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)


def to_torch(torch: Any, x: Any) -> Any:
    return torch.from_dlpack(x)


def to_jax(jax: Any, x: Any) -> Any:
    return jax.dlpack.from_dlpack(x)


def peers_of(function: Callable[..., Any], args: tuple[Any, ...], cupy: Any, *, eager: bool = True) -> dict[str, Any]:
    """Return the usual peers of a function of arrays, written as ``function(xp, *args)``."""

    def cupy_fuse() -> Call:
        fused = cupy.fuse()(lambda *a: function(cupy, *a))
        return lambda: fused(*args)

    def jax_jit() -> Call:
        jax = importlib.import_module("jax")
        given = [to_jax(jax, x) if hasattr(x, "ndim") else x for x in args]
        compiled = jax.jit(lambda *a: function(importlib.import_module("jax.numpy"), *a))
        return lambda: jax.block_until_ready(compiled(*given))

    def torch_compile() -> Call:
        torch = importlib.import_module("torch")
        given = [to_torch(torch, x) if hasattr(x, "ndim") else x for x in args]
        compiled = torch.compile(lambda *a: function(torch, *a))
        return lambda: compiled(*given)

    found: dict[str, Any] = {"cupy.fuse": cupy_fuse, "JAX jit": jax_jit, "torch.compile": torch_compile}
    return {"CuPy": lambda: lambda: function(cupy, *args), **found} if eager else found


def normalise(cupy: Any, scale: float) -> Case:
    batch = max(4, int(2048 * scale))
    images = cupy.random.default_rng(0).integers(0, 256, (batch, 224, 224, 3), dtype=np.uint8)
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])

    @gp.fuse
    def fused(images: Any, mean: Any, std: Any) -> Any:
        return ((images.astype(np.float32) / 255 - mean) / std).transpose(0, 3, 1, 2)

    def plain(xp: Any, images: Any, mean: Any, std: Any) -> Any:
        values = (images.astype("float32") if hasattr(images, "astype") else images.float()) / 255
        values = (values - mean) / std
        moved = values.permute(0, 3, 1, 2) if hasattr(values, "permute") else values.transpose(0, 3, 1, 2)
        return moved.contiguous() if hasattr(moved, "contiguous") else (moved + 0 if xp is cupy else moved)

    on_device = (images, cupy.asarray(mean), cupy.asarray(std))
    want = fused(cupy.asnumpy(images[:2]), mean, std)
    return Case(
        f"a. uint8 {batch}×224×224×3 → normalised float32 NCHW", images.size * 5, lambda: fused(images, mean, std),
        lambda r: gp.digest(cupy.asnumpy(r[:2])) == gp.digest(want),
        peers_of(plain, on_device, cupy), lambda r: np.allclose(_host(r, 2), want, atol=1e-4),
    )  # fmt: skip


def black_scholes(cupy: Any, scale: float) -> Case:
    count = max(1000, int(2e8 * scale))
    random = cupy.random.default_rng(0)
    spot, strike, years = (random.random(count, dtype=np.float32) * w + a for a, w in ((80, 40), (80, 40), (0.1, 2)))

    def price(xp: Any, erf: Any, s: Any, k: Any, t: Any) -> Any:
        spread = 0.2 * xp.sqrt(t)
        d1 = (xp.log(s / k) + (0.03 + 0.5 * 0.2 * 0.2) * t) / spread
        below, above = (0.5 * (1 + erf(d * HALF_ROOT)) for d in (d1, d1 - spread))
        return s * below - k * xp.exp(-0.03 * t) * above

    def plain(xp: Any, *args: Any) -> Any:
        name = getattr(xp, "__name__", "")
        special = {"cupy": "cupyx.scipy.special", "jax.numpy": "jax.scipy.special", "torch": "torch"}[name]
        return price(xp, importlib.import_module(special).erf, *args)

    fused = gp.fuse(lambda s, k, t: price(np, gp.erf, s, k, t))
    given = (spot, strike, years)
    want = fused(*(cupy.asnumpy(x[:10000]) for x in given))
    return Case(
        f"b. Black-Scholes, {count:,} float32", count * 16, lambda: fused(*given),
        lambda r: gp.digest(cupy.asnumpy(r[:10000])) == gp.digest(want),
        peers_of(plain, given, cupy), lambda r: np.allclose(_host(r, 10000), want, atol=1e-3), bound=False,
    )  # fmt: skip


def rows(cupy: Any, scale: float) -> Iterator[Case]:
    count = max(10, int(400_000 * scale))
    x = cupy.random.default_rng(0).standard_normal((count, 1000), dtype=np.float32)

    def softmax(xp: Any, x: Any) -> Any:
        e = xp.exp(x - (xp.amax(x, 1, True) if xp.__name__ == "torch" else x.max(axis=1, keepdims=True)))
        return e / e.sum(1, keepdims=True)

    fused = gp.fuse(lambda x: softmax(np, x))
    want = fused(cupy.asnumpy(x[:100]))
    yield Case(
        f"c1. row softmax, float32 {count}×1000", x.nbytes * 2, lambda: fused(x),
        lambda r: gp.digest(cupy.asnumpy(r[:100])) == gp.digest(want),
        peers_of(softmax, (x,), cupy), lambda r: np.allclose(_host(r, 100), want, atol=1e-5),
    )  # fmt: skip

    def standardise(xp: Any, x: Any) -> Any:
        spread = x.std(0, correction=0) if xp.__name__ == "torch" else x.std(axis=0)
        return (x - x.mean(0)) / spread

    columns = gp.fuse(lambda x: standardise(np, x))
    few = x[: min(count, 20000)]
    same = columns(cupy.asnumpy(few))
    yield Case(
        f"c2. column standardise, float32 {count}×1000", x.nbytes * 3, lambda: columns(x),
        lambda r: gp.digest(gp.asnumpy(columns(few))) == gp.digest(same),
        peers_of(standardise, (x,), cupy), lambda r: abs(float(_host(r, 1000).mean())) < 0.1,
    )  # fmt: skip


def resize(cupy: Any, scale: float) -> Case:
    count = max(3, int(1024 * scale))
    photos = cupy.random.default_rng(0).integers(0, 256, (count, 384, 512, 3), dtype=np.uint8)
    few = cupy.asnumpy(photos[:3])
    want = image.resize(few, (224, 224))

    def torch_resize(compiled: bool) -> Callable[[], Call]:
        def make() -> Call:
            torch = importlib.import_module("torch")
            given = to_torch(torch, photos).permute(0, 3, 1, 2)  # bytes resize on a GPU as floats only
            resized = torch.nn.functional.interpolate

            def function(x: Any) -> Any:
                small = resized(x.float(), (224, 224), mode="bilinear", antialias=True)
                return small.round().clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous()

            call = torch.compile(function) if compiled else function
            return lambda: call(given)

        return make

    def jax_resize() -> Call:
        jax = importlib.import_module("jax")
        jnp, given = importlib.import_module("jax.numpy"), to_jax(jax, photos)

        def function(x: Any) -> Any:
            small = jax.image.resize(x.astype("float32"), (len(x), 224, 224, 3), "bilinear", antialias=True)
            return jnp.clip(jnp.round(small), 0, 255).astype("uint8")

        compiled = jax.jit(function)
        return lambda: jax.block_until_ready(compiled(given))

    def near(result: Any) -> bool:  # the others' float sums round apart from Pillow's fixed point, on noise by up to 2
        return bool(np.abs(_host(result, 3).astype(int) - want).max() <= 2)

    peers = {"torch": torch_resize(False), "torch.compile": torch_resize(True), "JAX jit": jax_resize}
    return Case(
        f"d. resize {count} photographs 384×512 → 224×224, Pillow's bytes", count * 3 * (384 * 512 + 224 * 224),
        lambda: image.resize(photos, (224, 224)),
        lambda r: gp.digest(cupy.asnumpy(r[:3])) == gp.digest(want), peers, near, bound=False,
    )  # fmt: skip


def statistics_of_channels(cupy: Any, scale: float) -> Case:
    count = max(100, int(1e9 * scale))
    x = cupy.random.default_rng(0).integers(0, 256, (count, 3), dtype=np.uint8)
    fused = gp.fuse(lambda x: (x.mean(axis=0), x.std(axis=0), x.min(axis=0), x.max(axis=0)))

    def plain(xp: Any, x: Any) -> Any:
        if xp.__name__ == "torch":
            wide = x.double()
            return wide.mean(0), wide.std(0, correction=0), x.amin(0), x.amax(0)
        return x.mean(axis=0), x.std(axis=0), x.min(axis=0), x.max(axis=0)

    few = x[: min(count, 1_000_000)]
    want = fused(cupy.asnumpy(few))
    return Case(
        f"e. mean, std, min, max per channel of {x.nbytes / 1e9:.2g} GB uint8", x.nbytes, lambda: fused(x),
        lambda r: gp.digest(*map(gp.asnumpy, fused(few))) == gp.digest(*want),
        peers_of(plain, (x,), cupy), lambda r: abs(float(_host(r[0], 3).mean()) - 127.5) < 0.1 + 300 / count**0.5,
    )  # fmt: skip


def _host(result: Any, count: int) -> np.ndarray:
    part = result[:count]
    return np.asarray(part.get() if hasattr(part, "get") else part.cpu() if hasattr(part, "cpu") else part)


def stand_in() -> Any:
    """Return NumPy with what these cases use of CuPy besides."""
    module = types.ModuleType("cupy")
    vars(module).update(
        {**vars(np), "__name__": "cupy", "asnumpy": np.asarray, "fuse": lambda: lambda function: function}
    )
    return module


def run(case: Case, wait: Call) -> None:
    """Time everybody in rounds."""
    calls: dict[str, Call] = {"gpucompute": case.ours}
    if not case.reference(case.ours()):
        case.notes["gpucompute"] = OTHER_BITS
    for name, make in case.peers.items():
        try:
            call = make()
            if not case.near(call()):
                case.notes[name] = "wrong result"
            calls[name] = call
        except Exception as error:  # noqa: BLE001 - a peer that is missing or refuses is a row that says so
            case.notes[name] = f"{type(error).__name__}: {str(error).splitlines()[0][:80] if str(error) else ''}"
    for turn in range(ROUNDS):
        order = list(calls)
        for name in order[turn % len(order) :] + order[: turn % len(order)]:
            calls[name]()
            wait()
            began = time.perf_counter()
            for _ in range(CALLS):
                calls[name]()
            wait()
            case.times.setdefault(name, []).append((time.perf_counter() - began) / CALLS)


def claims(case: Case, limit: float) -> list[tuple[str, bool]]:
    """Return what is claimed of a case, and whether it holds."""
    medians = {name: statistics.median(times) for name, times in case.times.items()}
    ours, name = medians.pop("gpucompute"), case.title.split(" ")[0]
    told = [(f"{name} the CPU's bits", case.notes.get("gpucompute") != OTHER_BITS)]
    if case.bound:
        told.append((f"{name} {limit / ours:.0%} of the copy's bandwidth, at least {SHARE:.0%}", limit / ours >= SHARE))
    right = {peer: time for peer, time in medians.items() if case.notes.get(peer) != "wrong result"}
    if right:
        best = min(right, key=lambda peer: right[peer])
        told.append((f"{name} {ours / right[best]:.2f} × {best}, at most 1", ours <= right[best]))
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scale", type=float, default=1.0, help="part of the data (1.0)")
    parser.add_argument("--json", help="also write all times there")
    parser.add_argument("--dry", action="store_true", help="on the CPU, to see that every step runs")
    options = parser.parse_args()
    if options.dry:
        cupy, wait, speed, device = stand_in(), lambda: None, 1e10, "no GPU"
        options.scale = min(options.scale, 1e-6)
    else:
        cupy = importlib.import_module("cupy")
        wait = cupy.cuda.Device().synchronize
        speed = profiling.copy_bandwidth(drivers.for_arrays(), 0)
        device = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
    print(f"{device}: a copy moves {speed / 1e9:.0f} GB/s")
    written: dict[str, Any] = {"device": device, "copy": speed, "python": platform.python_version(), "cases": {}}
    told: list[tuple[str, bool]] = []
    makers: list[Any] = [normalise, black_scholes, rows, resize, statistics_of_channels]
    for make in makers:
        made = make(cupy, options.scale)
        for case in made if isinstance(made, Iterator) else [made]:
            run(case, wait)
            limit = case.nbytes / speed
            print(f"\n{case.title}\n| | ms | of the copy's bandwidth | |\n|---|--:|--:|---|")
            print(f"| limit | {limit * 1e3:.3f} | 100% | |")
            for name in ["gpucompute", *case.peers]:
                times, note = case.times.get(name), case.notes.get(name, "")
                middle = statistics.median(times) if times else float("nan")
                print(f"| {name} | {middle * 1e3:.3f} | {limit / middle:.0%} | {note} |")
            told += claims(case, limit)
            written["cases"][case.title] = {"limit": limit, "times": case.times, "notes": case.notes}
            if not options.dry:
                cupy.get_default_memory_pool().free_all_blocks()
    if not options.dry:  # little data on the CPU says nothing of speed
        print("", *(f"- {'met' if met else '**MISSED**'}: {text}" for text, met in told), sep="\n")
        written["claims"] = dict(told)
    if options.json:
        with open(options.json, "w") as file:
            json.dump(written, file, indent=1)
    if any(text.endswith("bits") and not met for text, met in told):
        raise SystemExit("gpu_cases: results have other bits than the CPU's")


if __name__ == "__main__":
    main()
