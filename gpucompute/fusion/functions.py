"""All NumPy functions that proxies know (importing this module registers them), and elementwise ones NumPy lacks."""

from __future__ import annotations

from typing import Any

from . import composed, elementwise, indexing, joins, reductions, summaries, views
from .elementwise import elementwise_function

__all__ = ["composed", "elementwise", "erf", "erfc", "indexing", "joins", "reductions", "sigmoid", "summaries", "views"]

_DOC = """{what}, element by element.

    Parameters
    ----------
    x : array_like of float
        Integers are taken as the float that ``np.exp`` would give.
    out : ndarray, optional
        Where to write.

    Returns
    -------
    ndarray
        In {bounds}, of the shape and float dtype of `x`.

    References
    ----------
    {source}
    """


def _function(name: str, what: str, bounds: str, source: str) -> Any:
    return elementwise_function(name, _DOC.format(what=what, bounds=bounds, source=source))


erf = _function(
    "erf",
    "Error function: the integral of ``2 / sqrt(pi) * exp(-t**2)`` from 0 to `x`",
    "[-1, 1]",
    "NIST Digital Library of Mathematical Functions, 7.2.1.",
)
erfc = _function(
    "erfc",
    "Complementary error function ``1 - erf(x)``, accurate for large `x` too",
    "[0, 2]",
    "NIST Digital Library of Mathematical Functions, 7.2.2.",
)
sigmoid = _function(
    "sigmoid",
    "Logistic function ``1 / (1 + exp(-x))``, without overflow",
    "[0, 1]",
    "NIST Digital Library of Mathematical Functions, 4.2.",
)
