"""What an arithmetic instruction is to the interpreter: a function of arrays, and the types it looks through."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .types import TYPES, Type

# What atom, red and redux make of integers.
COMBINATIONS: dict[str, np.ufunc] = {
    "add": np.add,
    "min": np.minimum,
    "max": np.maximum,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
}


@dataclass(frozen=True, slots=True)
class Operation:
    """An instruction that computes results from operands, each thread by itself.

    Attributes
    ----------
    function : callable
        Takes one array per operand and returns the result, or a tuple of results. Arrays have one element per active
        thread, or one element for all; those of packed types have a last axis of lanes. It returns new arrays.
    results, operands : tuple of Type
    carry_in, carry_out : bool
        Whether the carry flag is one more operand, one more result.
    """

    function: Callable[..., Any]
    results: tuple[Type, ...]
    operands: tuple[Type, ...]
    carry_in: bool = False
    carry_out: bool = False


class UnknownForm(Exception):
    """An instruction, or a form of one, that cannot be executed; why, or no words if it is just not known."""


class Modifiers:
    """The modifiers of one instruction; each is taken once, and one that nobody takes is an error.

    Attributes
    ----------
    left : list of str
        What is not taken yet.
    sources : int
        How many operands the instruction has, without its result.
    """

    def __init__(self, modifiers: tuple[str, ...], sources: int) -> None:
        self.left = list(modifiers)
        self.sources = sources

    def flag(self, name: str) -> bool:
        """Take a modifier if it is there."""
        if name in self.left:
            self.left.remove(name)
            return True
        return False

    def choice(self, *names: str, default: str = "") -> str:
        """Take whichever is there; without a default it must be."""
        for word in self.left:
            if word in names:
                self.left.remove(word)
                return word
        if not default:
            raise UnknownForm
        return default

    def type(self) -> Type:
        """Take the last type."""
        for k in reversed(range(len(self.left))):
            if self.left[k] in TYPES:
                return TYPES[self.left.pop(k)]
        raise UnknownForm

    def ignore(self, *names: str) -> None:
        """Take what changes nothing here, such as hints for caches."""
        self.left = [word for word in self.left if word not in names]

    def finish(self) -> None:
        """Raise if something was not understood."""
        if self.left:
            raise UnknownForm


Builder = Callable[[Modifiers, Type], Operation]


def same(function: Callable[..., Any], count: int) -> Builder:
    """Return the builder of an operation whose result and operands all have the instruction's type."""
    return lambda modifiers, kind: Operation(function, (kind,), (kind,) * count)
