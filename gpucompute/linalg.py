"""Linear algebra: `numpy.linalg`, working where its arguments are.

The names that are not defined here are NumPy's own functions, which dispatch on their arguments.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .namespace import lookup_in


def _complex(x: Any) -> Any:
    x = x if hasattr(x, "dtype") else np.asarray(x)
    return x.astype(np.result_type(x.dtype, np.complex64))


def eig(x: Any, /) -> Any:
    """Return the eigenvalues and right eigenvectors of square matrices, always complex.

    `numpy.linalg.eig` answers a real matrix with real numbers where they happen to suffice; the standard, and
    what a kernel compiled beforehand needs, is a dtype that does not depend on the values.

    Parameters
    ----------
    x : (..., M, M) array_like
        Real or complex.

    Returns
    -------
    eigenvalues : (..., M) array
    eigenvectors : (..., M, M) array
        ``eigenvectors[..., :, i]`` belongs to ``eigenvalues[..., i]``.

    Examples
    --------
    >>> import gpucompute as gp
    >>> gp.linalg.eig([[2.0, 0.0], [0.0, 3.0]]).eigenvalues
    array([2.+0.j, 3.+0.j])
    """
    result = np.linalg.eig(x)
    return type(result)(*map(_complex, result))


def eigvals(x: Any, /) -> Any:
    """Return the eigenvalues of square matrices, always complex; see `eig`.

    Parameters
    ----------
    x : (..., M, M) array_like
        Real or complex.

    Returns
    -------
    (..., M) array
    """
    return _complex(np.linalg.eigvals(x))


__all__ = list(np.linalg.__all__)


def __getattr__(name: str) -> Any:
    return lookup_in(np.linalg, name)


def __dir__() -> list[str]:
    return __all__
