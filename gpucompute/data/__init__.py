"""From a folder of photographs to a Zarr that training reads directly: sources, decoding, ledger, resume.

DESIGN.md beside this file says how a run that was killed goes on and ends with the same bytes.
"""

from __future__ import annotations

from .preprocess import Summary, preprocess
from .settings import NORMALIZATIONS, Settings

__all__ = ["NORMALIZATIONS", "Settings", "Summary", "preprocess"]
