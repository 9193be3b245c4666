"""All NumPy functions that proxies know (importing this module registers them), and elementwise ones NumPy lacks."""

from __future__ import annotations

from . import composed, elementwise, indexing, joins, reductions, summaries, views
from .elementwise import elementwise_function

__all__ = ["composed", "elementwise", "erf", "erfc", "indexing", "joins", "reductions", "sigmoid", "summaries", "views"]

erf = elementwise_function(
    "erf",
    """Error function: the integral of ``2 / sqrt(pi) * exp(-t**2)`` from 0 to `x`, element by element.

    Parameters
    ----------
    x : array_like of float
        Integers are taken as the float that ``np.exp`` would give.
    out : ndarray, optional
        Where to write.

    Returns
    -------
    ndarray
        In [-1, 1], of the shape and float dtype of `x`.

    References
    ----------
    NIST Digital Library of Mathematical Functions, 7.2.1.
    """,
)
erfc = elementwise_function(
    "erfc",
    """Complementary error function ``1 - erf(x)``, element by element, accurate for large `x` too.

    Parameters
    ----------
    x : array_like of float
        Integers are taken as the float that ``np.exp`` would give.
    out : ndarray, optional
        Where to write.

    Returns
    -------
    ndarray
        In [0, 2], of the shape and float dtype of `x`.

    References
    ----------
    NIST Digital Library of Mathematical Functions, 7.2.2.
    """,
)
sigmoid = elementwise_function(
    "sigmoid",
    """Logistic function ``1 / (1 + exp(-x))``, element by element, without overflow.

    Parameters
    ----------
    x : array_like of float
        Integers are taken as the float that ``np.exp`` would give.
    out : ndarray, optional
        Where to write.

    Returns
    -------
    ndarray
        In [0, 1], of the shape and float dtype of `x`.
    """,
)
