"""Dask on CuPy chunks, mended where Dask 2026.8 still copies, fails or misnames them.

| what | Dask alone | here |
|---|---|---|
| `tokenize` | pickles: the whole array twice to the host and back | a hash made on the device; 16 bytes cross |
| `percentile` | fails until another function has met CuPy in this process | knows CuPy from the start |
| `store`, `to_zarr` | "Implicit conversion to a NumPy array is not allowed" | each chunk crosses once |
| `histogram`, `quantile`, `nanmedian` | say that their chunks are NumPy's; `concatenate` then fails | say CuPy's |
| `histogram(density=True)` | fails: divides by NumPy's widths | works |

The first two are entries in Dask's tables. For the others Dask has none, so their functions are wrapped, for versions
before `UNTIL`; where no array is CuPy's the wrapper calls the function and does no more. Nothing changes in a process
that has not loaded CuPy.

Between workers, CuPy's arrays go as `distributed.protocol.cupy` says: UCX sends them from GPU to GPU, TCP by way of the
host. `register_states` has the states of our reductions, which hold such arrays, go the same way.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import hardware

UNTIL = (2027, 1)  # the first version of Dask whose functions nobody has looked at yet
PART = 2**22  # 32-bit words hashed at a time, with 100 MB for what lies between

_U64 = np.uint64
# The two multipliers of MurmurHash3's last step (Appleby, 2011), and the odd number next to 2**64 over the golden ratio
_FIRST, _SECOND, _THIRD = _U64(0xFF51AFD7ED558CCD), _U64(0xC4CEB9FE1A85EC53), _U64(0x9E3779B97F4A7C15)


def watch() -> None:
    """Have Dask treat CuPy's chunks as the table above says, in this process, if CuPy is loaded by then."""
    from dask.array import backends, dispatch
    from dask.tokenize import normalize_token

    # what Dask registers itself by now stays as it is
    if "cupy" not in normalize_token._lazy:
        normalize_token.register_lazy("cupy", _register_token)
    for table in (dispatch.percentile_lookup, dispatch.empty_lookup):
        if "cupy" not in table._lazy:
            table.register_lazy("cupy", backends.register_cupy)
    if "cupy" in sys.modules:
        _wrap_functions()


def _register_token() -> None:
    from dask.tokenize import normalize_token

    normalize_token.register(hardware.import_cupy().ndarray, token)


def register_states() -> None:
    """Have distributed send states of reductions field by field, so that arrays on a GPU need not be pickled.

    Pickling takes them to the host even where UCX could send them as they are. All workers of a cluster must call this,
    since the one that takes a state must know it too.
    """
    from distributed.protocol import cuda_deserialize, cuda_serialize, register_generic

    from .partial import Node

    register_generic(Node)
    register_generic(Node, "cuda", cuda_serialize, cuda_deserialize)


# ---- tokens


def token(x: Any) -> tuple[str, np.dtype[Any], tuple[int, ...], str]:
    """Return what tells an array on a device from others: equal for equal dtype, shape and bytes.

    Parameters
    ----------
    x : cupy.ndarray
        Of any strides. One that is not in C order is copied on the device first, as a copy to the host would.

    Returns
    -------
    tuple
        Its kind, dtype, shape and a hash of 128 bits of its elements in C order, made on the device: all that crosses
        is 16 bytes. The hash is no cryptographic one.
    """
    return "cupy.ndarray", x.dtype, x.shape, _content(x) if x.size else ""


def _content(x: Any) -> str:
    """Return two sums, modulo 2**64, of mixed pairs of a place and a 32-bit word; whole numbers add up in any order."""
    cupy = hardware.import_cupy()
    with x.device:
        words = _words(cupy, x)
        totals = cupy.zeros(2, np.uint64)
        for start in range(0, words.size, PART):
            part = words[start : start + PART].astype(np.uint64)
            # place and word side by side, so that each pair is another number; 16 GiB further they are turned over
            mixed = cupy.arange(part.size, dtype=np.uint64)
            mixed += _U64(start % 2**32)
            mixed <<= _U64(32)
            mixed |= part
            mixed ^= _U64((start >> 32) * int(_THIRD) % 2**64)
            for factor in (_FIRST, _SECOND):
                mixed ^= mixed >> _U64(33)
                mixed *= factor
            mixed ^= mixed >> _U64(33)
            totals[:1] += mixed.sum(dtype=np.uint64)
            mixed *= _THIRD
            mixed ^= mixed >> _U64(29)
            totals[1:] += mixed.sum(dtype=np.uint64)
        return bytes(totals.get()).hex()


def _words(cupy: Any, x: Any) -> Any:
    """Return the bytes of an array in C order as 32-bit words, the last one filled up with zeros."""
    flat = cupy.ascontiguousarray(x).reshape(-1).view(np.uint8)
    if flat.size % 4 or flat.__cuda_array_interface__["data"][0] % 4:  # GPUs read words at whole addresses only
        padded = cupy.zeros(-(-flat.size // 4) * 4, np.uint8)
        padded[: flat.size] = flat
        flat = padded
    return flat.view(np.uint32)


# ---- functions


def _is_device(x: Any) -> bool:
    """Tell whether a Dask array says that its chunks are CuPy's."""
    return hardware.library_of(getattr(x, "_meta", None)) == "cupy"


def _wrap_functions() -> None:
    """Put the wrappers in the places of Dask's functions, once."""
    import dask
    from dask.array import core, reductions, routines

    if tuple(map(int, dask.__version__.split(".")[:2])) >= UNTIL:
        return
    for module, name, wrap in (
        (core, "store", _store),
        (routines, "histogram", _histogram),
        (reductions, "quantile", _of_same_kind),
        (reductions, "nanmedian", _of_same_kind),
    ):
        original = getattr(module, name)
        if not hasattr(original, "_gpucompute"):
            wrapper = functools.wraps(original)(wrap(original))
            wrapper._gpucompute = True  # type: ignore[attr-defined]
            setattr(module, name, wrapper)
            setattr(dask.array, name, wrapper)


def _store(original: Callable[..., Any]) -> Callable[..., Any]:
    """Bring chunks to the host on their way to a target that is there: its ``__setitem__`` would refuse them."""

    def store(sources: Any, targets: Any, *args: Any, **options: Any) -> Any:
        if _is_device(sources):
            sources = _hosted(sources, targets)
        elif isinstance(sources, (list, tuple)) and any(map(_is_device, sources)) and len(sources) == len(targets):
            sources = [_hosted(source, target) for source, target in zip(sources, targets, strict=True)]
        return original(sources, targets, *args, **options)

    return store


def _hosted(source: Any, target: Any) -> Any:
    from .sources import to_host

    return to_host(source) if _is_device(source) and not _takes_chunks_of_devices(target) else source


def _takes_chunks_of_devices(target: Any) -> bool:
    if hasattr(target, "__cuda_array_interface__"):
        return True
    zarr = sys.modules.get("zarr")  # after zarr.config.enable_gpu()
    return zarr is not None and isinstance(target, zarr.Array) and ".gpu." in zarr.config.get("ndbuffer", "")


def _histogram(original: Callable[..., Any]) -> Callable[..., Any]:
    """Say that counts are of the kind of the data, and divide them by widths of that kind."""

    def histogram(a: Any, *args: Any, density: Any = None, **options: Any) -> Any:
        if not _is_device(a):
            return original(a, *args, density=density, **options)
        import dask.array as da
        from dask.array.utils import asarray_safe

        counts, edges = original(a, *args, **options)
        counts = _like(counts, a)
        if density:
            if isinstance(edges, da.Array):
                widths = da.diff(edges).map_blocks(asarray_safe, like=a._meta, dtype=float)
            else:
                widths = da.from_array(asarray_safe(np.diff(edges).astype(float), like=a._meta), counts.chunks)
            counts = counts / _like(widths, a) / counts.sum()
        return counts, edges

    return histogram


def _of_same_kind(original: Callable[..., Any]) -> Callable[..., Any]:
    """Say that a result is of the kind of the data, where Dask's call with an empty array did not tell."""

    def function(a: Any, *args: Any, **options: Any) -> Any:
        result = original(a, *args, **options)
        return _like(result, a) if _is_device(a) else result

    return function


def _like(x: Any, like: Any) -> Any:
    """Return a Dask array that says that its chunks are of the kind of those of `like`."""
    from dask.array.utils import meta_from_array

    x._meta = meta_from_array(like._meta, x.ndim, x.dtype)
    return x
