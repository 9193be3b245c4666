"""Clustering: scikit-learn's `KMeans` on arrays, chunks and stores, with the same bits for any chunks and threads."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .kmeans import KMeans as KMeans

__all__ = ["KMeans"]  # noqa: PLE0604, RUF100


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name)
    value = getattr(import_module(".kmeans", __name__), name)  # here, since it loads numba
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
