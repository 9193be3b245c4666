"""Dask: fused functions on chunked arrays, and Dask's own graphs compiled.

A function made by `gpucompute.fuse` takes Dask arrays and gives lazy ones, with one task for each chunk and stage. The
functions here bring arrays and stores to Dask in chunks that fit, and compile graphs that were not written with fuse.
Nothing of Dask is imported before it is needed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .cluster import start_cluster as start_cluster
    from .optimise import install as install
    from .optimise import optimize as optimize
    from .sources import from_array as from_array
    from .sources import from_zarr as from_zarr
    from .sources import to_device as to_device
    from .sources import to_host as to_host
    from .sources import to_zarr as to_zarr

_HOMES = {
    "start_cluster": "cluster",
    **dict.fromkeys(["install", "optimize"], "optimise"),
    **dict.fromkeys(["from_array", "from_zarr", "to_device", "to_host", "to_zarr"], "sources"),
}
__all__ = sorted(_HOMES)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name)
    try:
        value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "dask":
            raise
        from ..errors import MissingExtraError

        raise MissingExtraError("dask", "dask", f"gpucompute.chunked.{name}") from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
