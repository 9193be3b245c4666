"""Grids and blocks as users give them."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from typing import Any

from ..errors import OptionError


def three(given: int | Sequence[int], what: str, least: int = 0) -> tuple[int, int, int]:
    """Return a grid or block with all three of its extents, each at least `least`; `what` it is for errors.

    Examples
    --------
    >>> three((4, 2), "grid")
    (4, 2, 1)
    """
    try:
        return _whole(tuple(given) if isinstance(given, list) else given, least)
    except (TypeError, ValueError):
        few = f", {least} or more" if least else ""
        raise OptionError(f"{what}={given!r}: expected a whole number, or a tuple of one to three{few}") from None


@functools.lru_cache(maxsize=1024)
def _whole(given: Any, least: int) -> tuple[int, int, int]:
    extents = tuple(map(operator.index, given if isinstance(given, tuple) else (given,)))
    if not 1 <= len(extents) <= 3 or not all(least <= extent < 1 << 32 for extent in extents):
        raise ValueError(given)
    x, y, z = (*extents, 1, 1)[:3]
    return x, y, z
