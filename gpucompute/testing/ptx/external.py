"""Functions that kernels call and the driver brings: printf and failed assertions."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from .machine import Machine, Threads
from .memory import Fault
from .types import Array

_CONVERSION = re.compile(r"%([-+ #0]*)(\*|\d*)(\.(?:\*|\d+))?(hh|h|ll|l|z|j|t)?([diouxXcsfFeEgGaAp%])")
_LONG = {"ll", "l", "z", "j", "t"}
_BYTE = np.dtype(np.uint8)


class _Thread:
    """The arguments of one thread: its `places` in the frame hold them, 8 bytes each."""

    def __init__(self, machine: Machine, number: int, places: list[int]) -> None:
        self.machine, self.number = machine, np.array([number])
        frame = machine.memory.named["local"].data.reshape(machine.n, -1)[number]
        self.values = [int(frame[place : place + 8].view(np.uint64)[0]) for place in places]

    def bytes(self, address: int, count: int) -> Array:
        """Read memory."""
        where = np.array([address], np.uint64)
        one_each = (
            self.machine.memory.load(-1, "generic", where + np.uint64(k), _BYTE, 1, self.number)[0]
            for k in range(count)
        )
        return np.concatenate(list(one_each))

    def text(self, address: int) -> str:
        """Read a text that ends with 0."""
        found = bytearray()
        while byte := int(self.bytes(address + len(found), 1)[0]):
            found.append(byte)
        return found.decode(errors="replace")


def _formatted(thread: _Thread) -> str:
    """Return what printf prints: its arguments lie one after the other, each at a multiple of its size."""
    form, at = thread.text(thread.values[0]), thread.values[1]

    def value(kind: str, length: str | None) -> Any:
        nonlocal at
        size = 8 if length in _LONG or kind in "fFeEgGaAsp" else 4
        at = -(-at // size) * size
        dtype = f"f{size}" if kind in "fFeEgGaA" else f"{'i' if kind in 'dic' else 'u'}{size}"
        number = thread.bytes(at, size).view(dtype)[0].item()
        at += size
        return thread.text(number) if kind == "s" else number

    def replaced(match: re.Match[str]) -> str:
        flags, width, precision, length, kind = match.groups()
        if kind == "%":
            return "%"
        stars = [value("d", None) for part in (width, precision) if part and "*" in part]
        number = value(kind, length)
        if kind == "p":
            return hex(number)
        kind = {"u": "d", "i": "d", "a": "g", "A": "G"}.get(kind, kind)
        return f"%{flags}{width}{precision or ''}{kind}" % (*stars, number)

    return _CONVERSION.sub(replaced, form)


def _print(machine: Machine, threads: Threads, places: list[int]) -> None:
    for number in machine.numbers(threads):
        print(_formatted(_Thread(machine, int(number), places[:2])), end="")


def _assertion(machine: Machine, threads: Threads, places: list[int]) -> None:
    machine.active = threads
    thread = _Thread(machine, int(machine.numbers(threads)[0]), places[:2])
    raise Fault(f"the assertion {thread.text(thread.values[0])!r} of {thread.text(thread.values[1])} failed")


FUNCTIONS: dict[str, Callable[[Machine, Threads, list[int]], None]] = {"vprintf": _print, "__assertfail": _assertion}
