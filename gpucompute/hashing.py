"""One number for the content of arrays: equal exactly when dtypes, shapes and values are."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from .errors import DTypeError

NANS = {2: 0x7E00, 4: 0x7FC0_0000, 8: 0x7FF8_0000_0000_0000}  # IEEE 754's quiet NaN without payload, by item size
PART = 2**17  # elements hashed at a time; the copies this needs stay in cache


def digest(*arrays: Any) -> str:
    """Return the SHA-256 of the dtype, shape and C-order bytes of `arrays`, as 64 hexadecimal digits.

    Two machines that computed the same give the same digest: byte order, strides and the place of the data do not
    count, and all NaNs of a type count as one (processors make them with different signs and payloads). ``-0.0``
    and ``0.0`` differ, and so do equal numbers of different dtypes.

    Parameters
    ----------
    *arrays : array_like
        Whatever `numpy.asarray` takes, and GPU arrays that have a ``get`` method (CuPy). Structured arrays are
        hashed field by field. Strided or byte-swapped arrays are not copied as a whole.

    Returns
    -------
    str
        The hash of, for each array, ``f"{dtype.str}{shape}"`` in ASCII with the dtype in little-endian order, and
        then the elements in C order, little-endian.

    Raises
    ------
    DTypeError
        If an array holds Python objects, or is of a type with undefined bytes (``longdouble``).

    Examples
    --------
    >>> import numpy as np
    >>> digest(np.arange(3, dtype="uint8"))
    'f85a16cb15ea56a8f89e637269c41d9c4270ccee021648c86bca6ea8f3ab2478'
    >>> digest(np.zeros((2, 3))) == digest(np.zeros((2, 3), order="F")) != digest(np.zeros((3, 2)))
    True
    """
    sha = hashlib.sha256()
    for array in arrays:
        on_gpu = hasattr(array, "__cuda_array_interface__") and hasattr(array, "get")
        _feed(sha, np.asarray(array.get() if on_gpu else array))
    return sha.hexdigest()


def _feed(sha: hashlib._Hash, array: np.ndarray[Any, Any]) -> None:
    dtype = array.dtype.newbyteorder("<")
    if dtype.names is not None:
        sha.update(f"{dtype.names}{array.shape}".encode())
        for name in dtype.names:
            _feed(sha, array[name])
        return
    if dtype.hasobject or dtype.char in "gG":
        raise DTypeError(
            f"digest: got an array of dtype {array.dtype}, whose bytes do not say what it holds; "
            "expected numbers, booleans, dates or fixed-width strings: convert it with astype() first"
        )
    sha.update(f"{dtype.str}{array.shape}".encode())
    parts = np.nditer(  # type: ignore[call-overload]  # the stubs misspell "contig"
        array,
        flags=["external_loop", "buffered", "zerosize_ok"],
        op_flags=[["readonly", "contig"]],
        order="C",
        buffersize=PART,
        op_dtypes=[dtype],
        casting="equiv",
    )
    for part in parts:
        if dtype.kind in "fc":
            part = _one_nan(part)
        sha.update(memoryview(part.view(np.uint8)))


def _one_nan(part: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return `part` with every NaN (of a complex number's two parts, too) replaced by the one of `NANS`."""
    if part.dtype.kind == "c":
        part = part.view(part.real.dtype)
    nan = np.isnan(part)
    if not nan.any():
        return part
    bits = part.view(f"<u{part.itemsize}").copy()
    bits[nan] = NANS[part.itemsize]
    return bits
