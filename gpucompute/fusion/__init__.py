"""Fused functions: one loop over the data for as much of a NumPy-style function as can share it."""

from .explain import Explanation
from .run import Fused, fuse
from .user import reduction, vectorize

__all__ = ["Explanation", "Fused", "fuse", "reduction", "vectorize"]
