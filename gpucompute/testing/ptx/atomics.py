"""atom and red: threads that meet at one address take their turns in the order of their numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import floating
from .assembler import Assembler, Built, Reader, Writer
from .machine import Machine, Threads
from .memory import Piece, writable
from .operation import COMBINATIONS, Modifiers, UnknownForm
from .syntax import Function, Instruction, Name, Vector
from .types import STORAGE, TYPES, Array, Type

Update = Callable[..., Array]  # of the old value and the operands


def _increment(old: Array, limit: Array) -> Any:
    return np.where(old >= limit, old.dtype.type(0), old + old.dtype.type(1))


def _decrement(old: Array, limit: Array) -> Any:
    return np.where((old == 0) | (old > limit), limit, old - old.dtype.type(1))


def _exchange(old: Array, new: Array) -> Array:
    return new


def _compare_and_swap(old: Array, expected: Array, new: Array) -> Array:
    return np.where(old == expected, new, old)


UPDATES: dict[str, Update] = {
    **COMBINATIONS,
    "inc": _increment,
    "dec": _decrement,
    "exch": _exchange,
    "cas": _compare_and_swap,
}


def _update(name: str, kind: Type) -> Update:
    if not kind.is_float or name in ("exch", "cas"):
        return UPDATES[name]
    if name not in ("add", "min", "max"):
        raise UnknownForm
    update = floating.rounded("add", kind, "rn") if name == "add" else floating.extremum(name, kind)
    return update if kind.lanes == 1 else _on_lanes(update, kind)


def _on_lanes(update: Update, kind: Type) -> Update:
    """Let an update of single values work on packed ones, given as whole words."""
    bits = STORAGE[kind.bits]

    def packed(*words: Array) -> Array:
        lanes = [np.ascontiguousarray(word).view(kind.dtype).reshape(-1, kind.lanes) for word in words]
        return np.ascontiguousarray(update(*lanes)).view(bits)[:, 0]

    return packed


class _Turns:
    """Threads sorted by the address that they want, in the order of their numbers.

    Attributes
    ----------
    order : ndarray
        Which threads; those of one address stand together.
    places : ndarray
        Their addresses.
    starts : ndarray of bool
        True at the first of each address.
    """

    def __init__(self, index: Array) -> None:
        self.order = np.argsort(index, kind="stable")
        self.places = index[self.order]
        self.starts = np.concatenate([[True], self.places[1:] != self.places[:-1]])


def in_turn(view: Array, index: Array, update: Update, operands: list[Array]) -> Array:
    """Apply updates to elements of `view` one after the other and return what each found there.

    Turns are rounds: the first thread of each address, then the second of each, ...
    """
    turns = _Turns(index)
    first = np.flatnonzero(turns.starts)
    counts = np.diff(np.append(first, len(index)))
    old = np.empty(len(index), view.dtype)
    for turn in range(int(counts.max())):
        waiting = first[counts > turn] + turn
        threads, here = turns.order[waiting], turns.places[waiting]
        old[threads] = view[here]
        view[here] = update(old[threads], *[operand[threads] for operand in operands])
    return old


def sum_in_turn(view: Array, index: Array, update: Update, operands: list[Array]) -> Array:
    """Integer sums, which are exact, without rounds: what a thread finds is a running sum."""
    turns = _Turns(index)
    amount = operands[0][turns.order]
    before = np.cumsum(amount, dtype=amount.dtype) - amount
    start = before[turns.starts][np.cumsum(turns.starts) - 1]
    old = np.empty_like(amount)
    old[turns.order] = view[turns.places] + (before - start)
    np.add.at(view, index, operands[0])
    return old


def swap_in_turn(view: Array, index: Array, update: Update, operands: list[Array]) -> Array:
    """Compare-and-swap with one round for each success: all before it find the same value and change nothing."""
    order = np.argsort(index, kind="stable")
    old = np.empty(len(index), view.dtype)
    while len(order):
        place = index[order]
        found = view[place]
        success = np.flatnonzero(found == operands[0][order])
        success = success[np.unique(place[success], return_index=True)[1]]  # the first of each address
        view[place[success]] = operands[1][order[success]]
        until = np.full(len(order), len(order))  # where the first success at the same address is
        which = np.searchsorted(place[success], place)
        there = which < len(success)
        there[there] = place[success][which[there]] == place[there]
        until[there] = success[which[there]]
        done = np.arange(len(order)) <= until
        old[order[done]] = found[done]
        order = order[~done]
    return old


IN_TURN = {"cas": swap_in_turn}


def build(assembler: Assembler, instruction: Instruction, function: Function) -> Built:
    """Build the step of an atomic instruction."""
    from .access import space_of

    modifiers = Modifiers(instruction.modifiers, 0)
    kind = modifiers.type()
    space = space_of(modifiers)
    modifiers.ignore("noftz")
    name = modifiers.choice(*UPDATES)
    count = int(modifiers.choice("v2", "v4", "v8", default="v1")[1:])
    modifiers.finish()
    operands = list(instruction.operands)
    destination = operands.pop(0) if instruction.opcode == "atom" else Name("_")
    address, space = assembler.address(operands.pop(0), space)
    if len(operands) != (2 if name == "cas" else 1):
        raise UnknownForm
    lists = [list(o.items) if isinstance(o, Vector) else [o] for o in (destination, *operands)]
    if destination == Name("_"):
        lists[0] *= count
    update = _update(name, kind)
    if kind.lanes > 1:
        kind = TYPES[f"b{kind.bits}"]
    readers = [[assembler.read(item, kind) for item in items] for items in lists[1:]]
    writers = [assembler.write(item, kind) for item in lists[0]]
    # Without a result, ufunc.at does the same in one call. Its float sums round each time, in the threads' order.
    at = {"add": np.add.at, "min": np.minimum.at, "max": np.maximum.at}.get(name)
    unused, packed = destination == Name("_"), instruction.modifiers[-1] != kind.name
    native = not packed and (not kind.is_float or (name == "add" and kind.kind == "f"))
    exact_sum = name == "add" and not kind.is_float and not packed
    apply = _Atomic(update, at if unused and native else None, sum_in_turn if exact_sum else IN_TURN.get(name, in_turn))
    return _step(assembler.pc, space, kind, address, readers, writers, apply), True


class _Atomic:
    """What an atomic instruction does to one piece of memory."""

    def __init__(self, update: Update, quick: Callable[..., None] | None, slow: Callable[..., Array]) -> None:
        self.update, self.quick, self.slow = update, quick, slow

    def __call__(self, piece: Piece, offset: int, operands: list[Array]) -> Array | None:
        writable(piece)
        view, index = piece.view, piece.index + offset
        operands = [piece.of(operand) for operand in operands]
        if self.quick is not None:
            self.quick(view, index, operands[0])
            return None
        return self.slow(view, index, self.update, operands)


def _step(
    site: int,
    space: str,
    kind: Type,
    address: Reader,
    readers: list[list[Reader]],
    writers: list[Writer],
    apply: _Atomic,
) -> Callable[[Machine, Threads], Any]:
    def step(machine: Machine, threads: Threads) -> None:
        machine.active = threads
        active = machine.n if threads is None else len(threads)
        where = np.broadcast_to(address(machine, threads), active)
        operands = [[np.broadcast_to(read(machine, threads), active) for read in items] for items in readers]
        results = [np.empty(active, kind.dtype) for _ in writers]
        for piece in machine.memory.pieces(site, space, where, kind.dtype, len(writers), threads):
            for k, result in enumerate(results):
                old = apply(piece, k, [items[k] for items in operands])
                if old is not None:
                    result[slice(None) if piece.chosen is None else piece.chosen] = old
        for write, result in zip(writers, results, strict=True):
            write(machine, threads, result)

    return step
