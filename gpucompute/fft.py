"""Discrete Fourier transforms: `numpy.fft`, working where its arguments are.

The names that are not defined here are NumPy's own functions, which dispatch on their arguments. The transforms
are library calls (pocketfft, cuFFT): their results agree between devices within rounding, not to the bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .namespace import created, lookup_in

_fftfreq = created(np.fft.fftfreq)
_rfftfreq = created(np.fft.rfftfreq)


def fftfreq(n: int, /, d: float = 1.0, *, dtype: Any = None, device: Any = None) -> Any:
    """Return the frequencies of the bins of a transform of `n` samples, zero first, the negative ones last.

    Parameters
    ----------
    n : int
        Length of the transform.
    d : float
        Time between two samples; the frequencies are in its inverse.
    dtype : dtype, optional
        Real floating; float64 by default.
    device : str or Device, optional
        The current device by default.

    Returns
    -------
    (n,) array

    Examples
    --------
    >>> import gpucompute as gp
    >>> gp.fft.fftfreq(4, dtype="float32")
    array([ 0.  ,  0.25, -0.5 , -0.25], dtype=float32)
    """
    frequencies = _fftfreq(n, d, device=device)
    return frequencies if dtype is None else frequencies.astype(dtype, copy=False)


def rfftfreq(n: int, /, d: float = 1.0, *, dtype: Any = None, device: Any = None) -> Any:
    """Return the frequencies of the bins of a real transform of `n` samples: `fftfreq` without the negative ones.

    Parameters
    ----------
    n, d, dtype, device
        As for `fftfreq`.

    Returns
    -------
    (n // 2 + 1,) array
    """
    frequencies = _rfftfreq(n, d, device=device)
    return frequencies if dtype is None else frequencies.astype(dtype, copy=False)


__all__ = list(np.fft.__all__)


def __getattr__(name: str) -> Any:
    return lookup_in(np.fft, name)


def __dir__() -> list[str]:
    return __all__
