"""cvt: between integers and floats of all sizes (PTX ISA, "Data Movement and Conversion Instructions")."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from . import floats
from .floating import extremum
from .operation import Modifiers, Operation, UnknownForm
from .types import TYPES, Array, Type

_TO_INTEGER = ("rni", "rzi", "rmi", "rpi")


def convert(modifiers: Modifiers, kind: Type) -> Operation:
    """Build ``cvt{.rounding}{.ftz}{.sat}{.relu}.to.from``; `kind` is the last type, that of the operand."""
    to = modifiers.type()
    if to.lanes == 2:
        return _pack(modifiers, to, kind)
    whole = modifiers.choice(*_TO_INTEGER, default="none")
    mode = modifiers.choice(*floats.MODES, default="rn")
    ftz, saturate, relu = (modifiers.flag(name) for name in ("ftz", "sat", "relu"))
    steps: list[Callable[[Array], Array]] = []
    if ftz and kind.name == "f32":
        steps.append(floats.flush)
    if not kind.is_float and not to.is_float:
        steps.append(_integer(to, saturate))
        saturate = False
    elif not kind.is_float:
        steps.append(_to_float(to, mode))
    elif to.is_float:
        steps.append(_between_floats(kind, to, mode, whole))
    else:
        steps.append(_to_integer(kind, to, "rzi" if whole == "none" else whole))
        saturate = False
    if ftz and to.name == "f32":
        steps.append(floats.flush)
    if saturate:
        steps.append(floats.saturate)
    if relu:
        steps.append(lambda x: extremum("max", to)(x, np.zeros(1, to.dtype), nan=True))

    def function(x: Array) -> Array:
        for step in steps:
            x = step(x)
        return x

    return Operation(function, (to,), (kind,))


def _integer(to: Type, saturate: bool) -> Callable[[Array], Array]:
    if not saturate:
        return lambda x: x.astype(to.dtype)
    limits = np.iinfo(to.dtype)

    def clamp(x: Array) -> Array:
        low, high = max(int(limits.min), int(np.iinfo(x.dtype).min)), min(int(limits.max), int(np.iinfo(x.dtype).max))
        return np.clip(x, low, high).astype(to.dtype)

    return clamp


def _halves(x: Array) -> tuple[Array, Array]:
    """Return a 64-bit integer as the sum of two float64, both exact."""
    low = x & x.dtype.type(0xFFFFFFFF)
    return (x - low).astype(np.float64), low.astype(np.float64)


def _to_float(to: Type, mode: str) -> Callable[[Array], Array]:
    if mode == "rn" and to.name in ("f32", "f64"):
        return lambda x: x.astype(to.dtype)
    if to.name == "f64":
        return lambda x: floats.directed_sum64(*_halves(x.astype(np.int64) if x.itemsize < 8 else x), mode)

    def function(x: Array) -> Array:
        exact = floats.odd_add(*_halves(x)) if x.dtype.itemsize == 8 else x.astype(np.float64)
        return floats.narrow(exact, to, mode)

    return function


def _between_floats(kind: Type, to: Type, mode: str, whole: str) -> Callable[[Array], Array]:
    if whole != "none":
        rounder = floats.ROUNDERS[whole[:2]]
        return lambda x: floats.narrow(np.copysign(rounder(floats.widen(x, kind)), floats.widen(x, kind)), to)
    return lambda x: floats.narrow(floats.widen(x, kind), to, mode)


def _to_integer(kind: Type, to: Type, whole: str) -> Callable[[Array], Array]:
    """Round, clamp to the integer's range; NaN is 0, but the highest bit alone from f64 or to 64 bits."""
    rounder = floats.ROUNDERS[whole[:2]]
    limits = np.iinfo(to.dtype)
    nan = 0
    if kind.name == "f64" or to.bits == 64:
        nan = -(1 << to.bits - 1) if to.kind == "s" else 1 << to.bits - 1
    top = float(limits.max) if to.bits < 64 else float(2 ** (63 + (to.kind != "s")))

    def function(x: Array) -> Array:
        value = rounder(floats.widen(x, kind))
        inside = np.where((value >= float(limits.min)) & (value < top), value, 0.0)
        result = np.where(value >= top, limits.max, inside.astype(to.dtype))
        result = np.where(value < float(limits.min), limits.min, result)
        return np.where(value != value, to.dtype.type(nan), result).astype(to.dtype)

    return function


def _pack(modifiers: Modifiers, to: Type, kind: Type) -> Operation:
    """``cvt.rn.f16x2.f32 d, a, b``: a in the upper half, b in the lower."""
    mode = modifiers.choice(*floats.MODES, default="rn")
    relu = modifiers.flag("relu")
    if kind != TYPES["f32"] or modifiers.sources != 2:
        raise UnknownForm

    def function(a: Array, b: Array) -> Array:
        low, high = np.broadcast_arrays(*(floats.narrow(floats.widen(v, kind), to, mode) for v in (b, a)))
        both = np.stack([low, high], axis=-1)
        return extremum("max", to)(both, np.zeros(1, to.dtype), nan=True) if relu else both

    return Operation(function, (to,), (kind, kind))
