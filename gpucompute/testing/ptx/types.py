"""The types that PTX instructions name, and the NumPy dtypes that hold their bits.

A register of n bits is kept as an unsigned integer of n bits (a predicate as a bool); an instruction looks at these
bits through the dtype of its own type, as the hardware does. bfloat16 has no NumPy dtype and stays uint16 until
`floats.py` widens it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Type:
    """One PTX type.

    Attributes
    ----------
    name : str
        As in PTX, without the dot.
    kind : str
        ``b`` bits, ``u`` unsigned, ``s`` signed, ``f`` IEEE binary, ``bf`` bfloat16, ``p`` predicate.
    bits : int
        Bits of the whole value, all lanes together.
    lanes : int
        Values packed into one: 2 for ``f16x2``.
    dtype : numpy.dtype
        What one lane is looked at as.
    """

    name: str
    kind: str
    bits: int
    lanes: int
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        return self.bits // 8

    @property
    def is_float(self) -> bool:
        return self.kind in ("f", "bf")

    @property
    def lane(self) -> Type:
        """The type of one lane."""
        return TYPES[self.name.partition("x")[0]]


def _scalar(name: str) -> Type:
    kind = name.rstrip("0123456789")
    bits = int(name[len(kind) :])
    code = {"f": "f", "s": "i"}.get(kind, "u")
    return Type(name, kind, bits, 1, np.dtype(f"{code}{bits // 8}"))


TYPES = {f"{kind}{bits}": _scalar(f"{kind}{bits}") for kind in "bus" for bits in (8, 16, 32, 64)}
TYPES |= {name: _scalar(name) for name in ("f16", "f32", "f64", "bf16")}
TYPES |= {
    f"{name}x2": Type(f"{name}x2", TYPES[name].kind, 2 * TYPES[name].bits, 2, TYPES[name].dtype)
    for name in ("f16", "bf16", "u16", "s16", "f32")
}
PREDICATE = TYPES["pred"] = Type("pred", "p", 1, 1, np.dtype(bool))

STORAGE = {1: np.dtype(bool), 8: np.dtype("u1"), 16: np.dtype("u2"), 32: np.dtype("u4"), 64: np.dtype("u8")}


def constant(value: int, dtype: np.dtype[Any]) -> Array:
    """Return an array of one element: the low bits of `value` as an integer dtype (negative numbers wrap)."""
    bits = STORAGE[8 * dtype.itemsize]
    return np.array([value & ((1 << 8 * dtype.itemsize) - 1)], bits).view(dtype)
