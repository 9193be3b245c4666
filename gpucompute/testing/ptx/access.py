"""Instructions that touch memory: ld, st, mov, cvta, copies from global to shared memory, prefetches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import atomics
from .assembler import Assembler, Built, Reader, Writer
from .machine import Machine, Threads
from .memory import LOCAL_WINDOW, SHARED_WINDOW
from .operation import Modifiers, UnknownForm
from .syntax import Function, Instruction, Literal, Name, Operand, Vector
from .types import PREDICATE, STORAGE, TYPES, constant

SPACES = ("global", "shared", "local", "const", "param")
WINDOWS = {"shared": SHARED_WINDOW, "local": LOCAL_WINDOW}
# What orders accesses or hints at caches: here every access is done at once and in order.
_ORDERS = ("weak", "relaxed", "acquire", "release", "volatile", "mmio", "acq_rel")
_SCOPES = ("cta", "cluster", "gpu", "sys")
_CACHES = ("ca", "cg", "cs", "lu", "cv", "wb", "wt", "nc", "unified")


def space_of(modifiers: Modifiers) -> str:
    """Take the state space, and everything that says nothing about values."""
    for word in list(modifiers.left):
        if word.startswith(("L1::", "L2::")):
            modifiers.left.remove(word)
        elif "::" in word:  # shared::cta, param::entry
            modifiers.left[modifiers.left.index(word)] = word.partition("::")[0]
    modifiers.ignore(*_ORDERS, *_SCOPES, *_CACHES)
    return modifiers.choice(*SPACES, default="generic")


def _vector(operand: Operand, modifiers: Modifiers) -> tuple[Operand, ...]:
    count = int(modifiers.choice("v2", "v4", "v8", default="v1")[1:])
    items = operand.items if isinstance(operand, Vector) else (operand,)
    if len(items) != count:
        raise UnknownForm
    return items


def _load(assembler: Assembler, instruction: Instruction, function: Function) -> Built:
    modifiers = Modifiers(instruction.modifiers, 1)
    kind = modifiers.type()
    if kind.lanes > 1 or kind is PREDICATE:
        raise UnknownForm
    space = space_of(modifiers)
    items = _vector(instruction.operands[0], modifiers)
    modifiers.finish()
    writers = [assembler.write(item, kind) for item in items]
    source = instruction.operands[1]
    address, space = assembler.address(source, space)
    site, count, dtype = assembler.pc, len(items), kind.dtype
    if space == "param":
        offset = assembler.parameter_offset(source)
        if offset is not None:
            return _load_parameter(offset, count, dtype, writers), True

    def step(machine: Machine, threads: Threads) -> None:
        machine.active = threads
        values = machine.memory.load(site, space, address(machine, threads), dtype, count, threads)
        for write, value in zip(writers, values, strict=True):
            write(machine, threads, value)

    return step, True


def _load_parameter(
    offset: int, count: int, dtype: np.dtype[Any], writers: list[Writer]
) -> Callable[[Machine, Threads], None]:
    """An argument at a fixed place, the same for all threads."""
    slices = [slice(offset + k * dtype.itemsize, offset + (k + 1) * dtype.itemsize) for k in range(count)]

    def step(machine: Machine, threads: Threads) -> None:
        for write, where in zip(writers, slices, strict=True):
            write(machine, threads, machine.parameters[where].view(dtype))

    return step


def _store(assembler: Assembler, instruction: Instruction, function: Function) -> Built:
    modifiers = Modifiers(instruction.modifiers, 1)
    kind = modifiers.type()
    if kind.lanes > 1 or kind is PREDICATE:
        raise UnknownForm
    space = space_of(modifiers)
    items = _vector(instruction.operands[1], modifiers)
    modifiers.finish()
    readers = [assembler.read(item, kind) for item in items]
    address, space = assembler.address(instruction.operands[0], space)
    site = assembler.pc

    def step(machine: Machine, threads: Threads) -> None:
        machine.active = threads
        values = [read(machine, threads) for read in readers]
        where = address(machine, threads)
        machine.memory.store(site, space, where, values, threads)

    return step, True


# mov


def _move(assembler: Assembler, instruction: Instruction, function: Function) -> Built | None:
    """``mov`` that packs, unpacks or takes an address; None for plain values."""
    destination, source = instruction.operands[:2]
    kind = TYPES.get((instruction.modifiers or ("",))[-1])
    if isinstance(source, Name):
        found = instruction.scope.find(source.name)
        if isinstance(found, Function):
            assembler.fail("the address of a function: calls through registers are not supported")
    if kind is None or not (isinstance(destination, Vector) or isinstance(source, Vector)):
        return None
    items = destination.items if isinstance(destination, Vector) else source.items if isinstance(source, Vector) else ()
    part = TYPES.get(f"b{kind.bits / len(items):g}") if items else None
    if part is None:
        raise UnknownForm
    whole = TYPES[f"b{kind.bits}"]
    if isinstance(destination, Vector):
        return _unpack(assembler.read(source, whole), [assembler.write(item, part) for item in items]), True
    return _pack([assembler.read(item, part) for item in items], assembler.write(destination, whole)), True


def _unpack(read: Reader, writers: list[Writer]) -> Callable[[Machine, Threads], None]:
    def step(machine: Machine, threads: Threads) -> None:
        values = read(machine, threads)
        part = STORAGE[8 * values.itemsize // len(writers)]
        parts = values.view(part).reshape(-1, len(writers))
        for k, write in enumerate(writers):
            write(machine, threads, parts[:, k].copy())

    return step


def _pack(readers: list[Reader], write: Writer) -> Callable[[Machine, Threads], None]:
    def step(machine: Machine, threads: Threads) -> None:
        parts = np.stack(np.broadcast_arrays(*[read(machine, threads) for read in readers]), axis=1)
        write(machine, threads, parts.view(STORAGE[8 * parts.itemsize * len(readers)])[:, 0].copy())

    return step


# Addresses


def _convert_address(assembler: Assembler, instruction: Instruction, function: Function) -> Built:
    modifiers = Modifiers(instruction.modifiers, 1)
    kind = modifiers.type()
    if kind.bits != 64:
        assembler.fail("addresses must have 64 bits")
    back = modifiers.flag("to")
    window = WINDOWS.get(space_of(modifiers), 0)
    modifiers.finish()
    shift = constant(-window if back else window, STORAGE[64])
    read = assembler.read(instruction.operands[1], kind)
    write = assembler.write(instruction.operands[0], kind)
    return lambda machine, threads: write(machine, threads, read(machine, threads) + shift), True


def _is_space(assembler: Assembler, instruction: Instruction, function: Function) -> Built:
    modifiers = Modifiers((*instruction.modifiers, "u64"), 1)
    kind = modifiers.type()
    space = space_of(modifiers)
    window = WINDOWS.get(space)
    read = assembler.read(instruction.operands[1], kind)
    write = assembler.write(instruction.operands[0], PREDICATE)

    def step(machine: Machine, threads: Threads) -> None:
        top = read(machine, threads) & np.uint64(0xF << 60)
        elsewhere = (top == SHARED_WINDOW) | (top == LOCAL_WINDOW)
        write(machine, threads, ~elsewhere if window is None else top == window)

    return step, True


# Copies


def _copy_async(assembler: Assembler, instruction: Instruction, function: Function) -> Built:
    """``cp.async.{ca,cg}.shared.global [d], [s], n{, used}``, done at once; its commits and waits do nothing."""
    if instruction.modifiers[:2] in (("async", "commit_group"), ("async", "wait_group"), ("async", "wait_all")):
        return (lambda machine, threads: None), True
    if instruction.modifiers[:1] != ("async",) or "bulk" in instruction.modifiers or len(instruction.operands) < 3:
        raise UnknownForm
    to, _ = assembler.address(instruction.operands[0], "shared")
    source, _ = assembler.address(instruction.operands[1], "global")
    size = instruction.operands[2]
    if not isinstance(size, Literal):
        raise UnknownForm
    count, site, byte = size.value, assembler.pc, np.dtype(np.uint8)
    used = assembler.read(instruction.operands[3] if len(instruction.operands) > 3 else size, TYPES["u32"])

    def step(machine: Machine, threads: Threads) -> None:
        machine.active = threads
        words = machine.memory.load(site, "global", source(machine, threads), byte, count, threads)
        limit = used(machine, threads)
        values = [np.where(k < limit, word, np.uint8(0)) for k, word in enumerate(words)]
        machine.memory.store(site, "shared", to(machine, threads), values, threads)

    return step, True


def _nothing(assembler: Assembler, instruction: Instruction, function: Function) -> Built:
    return (lambda machine, threads: None), True


TABLE: dict[str, Callable[[Assembler, Instruction, Function], Built | None]] = {
    "ld": _load,
    "ldu": _load,
    "st": _store,
    "mov": _move,
    "cvta": _convert_address,
    "isspacep": _is_space,
    "atom": atomics.build,
    "red": atomics.build,
    "cp": _copy_async,
    "prefetch": _nothing,
    "prefetchu": _nothing,
    "discard": _nothing,
    "membar": _nothing,
    "fence": _nothing,
    "nanosleep": _nothing,
    "griddepcontrol": _nothing,
    "pmevent": _nothing,
}
