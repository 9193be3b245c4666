"""A parsed kernel to a list of steps: Python functions that execute one instruction for a group of threads.

Names become slots and addresses here, once; a launch looks nothing up. Device functions are laid out before the
functions that call them, so that a group inside a callee goes first and its threads meet the others again behind the
call. Parameters of calls and local arrays of all functions have fixed places in one frame per thread, for which
reason functions must not call themselves.

An instruction that cannot be assembled becomes a step that raises the reason: a kernel that never comes there runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NoReturn

import numpy as np

from ...errors import PtxError
from . import conversion, floating, integers, logic, special
from .machine import STOP, Machine, Step, Threads
from .memory import LOCAL_WINDOW, PARAMETER_WINDOW, VARIABLE_WINDOW, Fault
from .operation import Builder, Modifiers, Operation, UnknownForm
from .parser import bits_as
from .syntax import (
    Address,
    Function,
    Instruction,
    Label,
    Literal,
    Module,
    Name,
    Operand,
    Pair,
    Register,
    Unknown,
    Variable,
)
from .types import PREDICATE, STORAGE, TYPES, Array, Type, constant

Reader = Callable[[Machine, Threads], Array]
Writer = Callable[[Machine, Threads, Array], None]
# The operands that an opcode has at least, with its results; of others it is one.
FEWEST = dict.fromkeys(("ld", "ldu", "st", "mov", "cvta", "isspacep", "red", "brx", "vote", "match", "redux"), 2)
FEWEST |= {"atom": 3, "shfl": 4, "elect": 2, **dict.fromkeys(("call", "ret", "exit", "trap", "brkpt", "cp"), 0)}
FEWEST |= dict.fromkeys(("discard", "membar", "fence", "nanosleep", "griddepcontrol", "pmevent"), 0)
UNKNOWN = "this instruction is not known to the interpreter"
GAP = 256  # bytes between variables of a module, which nobody may touch

ANY_TYPE: dict[str, Builder] = {
    "cvt": conversion.convert,
    "setp": logic.set_predicate,
    "set": logic.set_value,
    "selp": logic.select,
    "slct": logic.select_by_sign,
    "mov": logic.move,
}


@dataclass
class Program:
    """A kernel ready to run.

    Attributes
    ----------
    steps : list of Step
        A plain one returns nothing; another one the next instruction, or STOP.
    lines : list of (int, str)
        Of each step: the line of the PTX text, and the instruction.
    initial : list of ndarray
        What the registers hold at first, by slot.
    start : int
        The kernel's first step.
    shared_bytes, frame_bytes : int
        Shared memory of a block without the dynamic part; memory of each thread.
    parameters : list of (Variable, int)
        With the offsets of each.
    parameter_bytes : int
    variables : list of (str, int, bytes, bool)
        Of the module: name, address, initial bytes, writeable.
    """

    name: str
    steps: list[Step] = field(default_factory=list)
    is_plain: list[bool] = field(default_factory=list)
    lines: list[tuple[int, str]] = field(default_factory=list)
    initial: list[Array] = field(default_factory=list)
    start: int = 0
    shared_bytes: int = 0
    frame_bytes: int = 0
    parameters: list[tuple[Variable, int]] = field(default_factory=list)
    parameter_bytes: int = 0
    variables: list[tuple[str, int, bytes, bool]] = field(default_factory=list)


def _aligned(offset: int, align: int) -> int:
    return -(-offset // align) * align


Built = tuple[Step, bool]  # a step, and whether it is plain


class Assembler:
    """Turns one kernel and what it calls into a `Program`."""

    def __init__(self, module: Module, entry: Function) -> None:
        if entry.problem:
            raise PtxError(f"{entry.name} cannot be run: {entry.problem}")
        self.module = module
        self.program = Program(entry.name)
        self.slots: dict[Any, int] = {}
        self.places: dict[Variable, int] = {}  # the offset in its space; for variables of a module the address
        self.bases: dict[Function, int] = {}
        self.returns: dict[int, list[tuple[int, int, int]]] = {}  # by the step after a call: what to copy back
        self.dynamic: list[Variable] = []
        self.instruction: Instruction | None = None
        self._order: list[Function] = []
        self._visit(entry)
        self.entry = entry
        self._place_variables()
        for function in self._order:
            self.bases[function] = len(self.program.steps)
            self._assemble(function)
        self.program.start = self.bases[entry]

    # Functions

    def _visit(self, function: Function, above: tuple[Function, ...] = ()) -> None:
        if function in above or function in self._order:
            return
        for instruction in function.body or ():
            if instruction.opcode == "call":
                callee = self.callee(instruction)
                if callee is not None and callee.body is not None:
                    self._visit(callee, (*above, function))
        self._order.append(function)

    def callee(self, instruction: Instruction) -> Function | None:
        """Return the function that is called, or None if a register says it."""
        for operand in instruction.operands:
            if isinstance(operand, Name):
                found = instruction.scope.find(operand.name)
                return self.module.functions.get(operand.name) if not isinstance(found, Register) else None
        return None

    def _place_variables(self) -> None:
        program = self.program
        offset = 0
        for parameter in self.entry.parameters:
            offset = _aligned(offset, parameter.align)
            self.places[parameter] = offset
            program.parameters.append((parameter, offset))
            offset += parameter.nbytes or 0
        program.parameter_bytes = offset
        self._place_module_variables()
        for function in self._order:
            own = [] if function is self.entry else [*function.parameters, *function.results]
            for variable in (*own, *function.variables):
                self._place(variable)
        for variable in self.module.variables.values():
            if variable.space in ("shared", "local"):
                self._place(variable)
        program.shared_bytes = _aligned(program.shared_bytes, 16)
        for variable in self.dynamic:
            self.places[variable] = program.shared_bytes
        program.frame_bytes = _aligned(program.frame_bytes, 16)

    def _place(self, variable: Variable) -> None:
        if variable.space == "shared" and variable.nbytes is None:
            self.dynamic.append(variable)
            return
        attribute = "shared_bytes" if variable.space == "shared" else "frame_bytes"
        self.places[variable] = _aligned(getattr(self.program, attribute), variable.align)
        setattr(self.program, attribute, self.places[variable] + (variable.nbytes or 0))

    def _place_module_variables(self) -> None:
        variables = [v for v in self.module.variables.values() if v.space in ("global", "const")]
        address = VARIABLE_WINDOW
        for variable in variables:
            self.places[variable] = address = _aligned(address + GAP, max(variable.align, 16))
            address += variable.nbytes or 0
        for variable in variables:
            size = variable.type.nbytes
            elements = [self._element(value) & ((1 << 8 * size) - 1) for value in variable.values]
            data = b"".join(value.to_bytes(size, "little") for value in elements)
            image = data.ljust(variable.nbytes or 0, b"\0")
            self.program.variables.append((variable.name, self.places[variable], image, variable.space == "global"))

    def _element(self, value: int | Name) -> int:
        if isinstance(value, int):
            return value
        variable = self.module.variables.get(value.name)
        return (self.places[variable] if variable is not None else 0) + value.offset

    def _assemble(self, function: Function) -> None:
        for instruction in function.body or ():
            self.instruction = instruction
            step, plain = self._step(function, instruction)
            self._append(step, plain, instruction.line, instruction.text)
        from .flow import finish

        step, plain = finish(self, function)  # the end of the text is a return
        self._append(step, plain, self.instruction.line if self.instruction else 0, "end of the function")

    def _append(self, step: Step, plain: bool, line: int, text: str) -> None:
        self.program.steps.append(step)
        self.program.is_plain.append(plain)
        self.program.lines.append((line, text))

    @property
    def pc(self) -> int:
        """The instruction that is being assembled."""
        return len(self.program.steps)

    def fail(self, message: str) -> NoReturn:
        """Give up the instruction that is being assembled: an error to the thread that executes it."""
        raise UnknownForm(message)

    # Operands

    def find(self, name: str) -> Any:
        """Return what a name means at the current instruction."""
        assert self.instruction is not None
        found = self.instruction.scope.find(name)
        if found is None:
            self.fail(f"{name} is not declared")
        if isinstance(found, Unknown):
            self.fail(f"{name} is declared in a form not known to the interpreter: PTX line {found.line}, {found.text}")
        return found

    def slot(self, register: Any, kind: Type) -> int:
        """Return the number of a register among all."""
        found = self.slots.get(register)
        if found is None:
            found = self.slots[register] = len(self.program.initial)
            self.program.initial.append(np.zeros(1, STORAGE[kind.bits]))
        return found

    def in_frame(self, variable: Variable) -> bool:
        """Tell whether each thread has a variable for itself."""
        return variable.space == "local" or (variable.space == "param" and variable not in self.entry.parameters)

    def address_of(self, variable: Variable) -> int:
        """Return where a variable is: in its own space if that is shared or local, else in all memory."""
        if variable.space == "param":
            return (LOCAL_WINDOW if self.in_frame(variable) else PARAMETER_WINDOW) + self.places[variable]
        return self.places[variable]

    def read(self, operand: Operand, kind: Type) -> Reader:
        """Return a function that gives an operand as an instruction's type sees it.

        Its array has one element per thread of the group or a single one, and for packed types an axis of lanes.
        """
        if isinstance(operand, Literal):
            return _always(constant(bits_as(operand, kind), STORAGE[kind.bits]), kind)
        if not isinstance(operand, Name):
            self.fail(f"got {operand}, expected a register or a number")
        if operand.name == special.WARP_SIZE:
            return _always(constant(32, STORAGE[kind.bits]), kind)
        if special.type_of(operand.name) is not None:
            return self._read_special(operand.name, kind)
        found = self.find(operand.name)
        if isinstance(found, Variable):
            return _always(constant(self.address_of(found) + operand.offset, STORAGE[kind.bits]), kind)
        if not isinstance(found, Register):
            self.fail(f"{operand.name} is neither a register nor a variable")
        slot = self.slot(found, found.type)
        read = _register_reader(slot, self._look(found.type.bits, kind))
        if operand.negated:
            return lambda machine, threads: ~read(machine, threads)
        return read

    def _look(self, bits: int, kind: Type) -> Callable[[Array], Array] | None:
        """Return how a register's bits are looked at as a type."""
        if bits < kind.bits or (bits == 1) != (kind.bits == 1):
            self.fail(f"a register of {bits} bits cannot be read as {kind.name}")
        dtype = kind.dtype
        if kind.lanes > 1:
            return lambda v: v.view(dtype).reshape(-1, kind.lanes)
        narrower = STORAGE[kind.bits] if bits > kind.bits else None
        if narrower is not None:
            return lambda v: v.astype(narrower).view(dtype)
        return None if STORAGE[bits] == dtype else lambda v: v.view(dtype)

    def _read_special(self, name: str, kind: Type) -> Reader:
        def read(machine: Machine, threads: Threads) -> Array:
            values = special.read(machine, name)
            if threads is not None and values.shape[0] != 1:
                values = values.take(threads)
            return values.astype(STORAGE[kind.bits], copy=False).view(kind.dtype)

        return read

    def write(self, operand: Operand, kind: Type) -> Writer:
        """Return a function that sets a register to values of an instruction's type."""
        if not isinstance(operand, Name):
            self.fail(f"got {operand}, expected a register")
        if operand.name == "_":
            return lambda machine, threads, value: None
        found = self.find(operand.name)
        if not isinstance(found, Register):
            self.fail(f"{operand.name} is not a register")
        return register_writer(self.slot(found, found.type), self._store(found.type.bits, kind))

    def _store(self, bits: int, kind: Type) -> Callable[[Array], Array] | None:
        """Return how values become a register's bits; narrower ones are extended, by their sign if they have one."""
        if bits < kind.bits or (bits == 1) != (kind.bits == 1):
            self.fail(f"{kind.name} does not fit into a register of {bits} bits")
        storage = STORAGE[bits]
        if kind.lanes > 1:
            return lambda v: np.ascontiguousarray(v).reshape(-1).view(storage)
        if bits == kind.bits:
            return None if kind.dtype == storage else lambda v: v.view(storage)
        if kind.kind == "s":
            signed = np.dtype(f"i{storage.itemsize}")
            return lambda v: v.astype(signed).view(storage)
        own = STORAGE[kind.bits]
        return lambda v: v.view(own).astype(storage)

    def address(self, operand: Operand, space: str) -> tuple[Reader, str]:
        """Return a function that gives the addresses [base + offset] as uint64, and the space that they are in."""
        if not isinstance(operand, Address):
            self.fail(f"got {operand}, expected an address")
        base = operand.base
        if isinstance(base, Literal):
            return _always(constant(base.value + operand.offset, STORAGE[64]), TYPES["u64"]), space
        found = self.find(base.name)
        offset = base.offset + operand.offset
        if isinstance(found, Variable):
            space = "local" if self.in_frame(found) else found.space
            start = self.places[found] if space == "local" else self.address_of(found)
            return _always(constant(start + offset, STORAGE[64]), TYPES["u64"]), space
        if not isinstance(found, Register):
            self.fail(f"{base.name} is neither a register nor a variable")
        if found.type.bits not in (32, 64):
            self.fail(f"{base.name} has {found.type.bits} bits, expected an address of 32 or 64")
        return self._register_address(base.name, found.type.bits, offset), space

    def _register_address(self, name: str, bits: int, offset: int) -> Reader:
        read = self.read(Name(name), TYPES[f"u{bits}"])
        step = constant(offset, STORAGE[bits])
        if bits == 64:
            return (lambda m, threads: read(m, threads) + step) if offset else read
        return lambda m, threads: (read(m, threads) + step).astype(np.uint64)

    def parameter_offset(self, operand: Operand) -> int | None:
        """Return where in the arguments a kernel's parameter lies that an address names, or None."""
        if isinstance(operand, Address) and isinstance(operand.base, Name):
            found = self.find(operand.base.name)
            if isinstance(found, Variable) and found.space == "param" and not self.in_frame(found):
                return self.places[found] + operand.base.offset + operand.offset
        return None

    def label(self, function: Function, operand: Operand) -> int:
        """Return the step that a label names."""
        found = self.find(operand.name) if isinstance(operand, Name) else None
        if not isinstance(found, Label):
            self.fail(f"got {operand}, expected a label")
        return self.bases[function] + found.index

    # Steps

    def _step(self, function: Function, instruction: Instruction) -> Built:
        try:
            step, plain = self._executed(function, instruction)
        except UnknownForm as unknown:
            step, plain = _refused(str(unknown)), True
        return self._guarded(step, plain, instruction), plain

    def _executed(self, function: Function, instruction: Instruction) -> Built:
        """Build an instruction without its predicate."""
        from . import access, flow, warps

        if instruction.unknown:
            raise UnknownForm(f"{UNKNOWN}: {instruction.unknown}")
        if len(instruction.operands) < FEWEST.get(instruction.opcode, 1):
            raise UnknownForm
        for table in (access.TABLE, warps.TABLE, flow.TABLE):
            if instruction.opcode in table:
                built = table[instruction.opcode](self, instruction, function)
                if built is not None:
                    return built
        return self._arithmetic(instruction), True

    def _guarded(self, step: Step, plain: bool, instruction: Instruction) -> Step:
        """Add the predicate in front of an instruction."""
        if instruction.guard is None:
            return step
        try:
            predicate = self.read(instruction.guard, PREDICATE)
        except UnknownForm as unknown:
            return _refused(str(unknown))
        after = self.pc + 1

        def guarded(machine: Machine, threads: Threads) -> Any:
            holds = predicate(machine, threads)
            if holds.all():
                return step(machine, threads)
            if not holds.any():
                return after
            if plain:
                step(machine, np.flatnonzero(holds) if threads is None else threads[holds])
                return after
            numbers = machine.numbers(threads)
            machine.add(after, numbers[~holds])
            target = step(machine, numbers[holds])
            if target != STOP:
                machine.add(target, numbers[holds])
            return STOP

        return guarded

    def _arithmetic(self, instruction: Instruction) -> Step:
        operation = self._operation(instruction)
        operands = list(instruction.operands)
        destination = operands.pop(0)
        results = (destination.first, destination.second) if isinstance(destination, Pair) else (destination,)
        writers: list[Writer | None] = [self.write(r, k) for r, k in zip(results, operation.results, strict=False)]
        writers += [None] * (len(operation.results) - len(writers))  # setp without the second predicate
        if len(operands) != len(operation.operands):
            self.fail(f"got {len(operands)} operands, expected {len(operation.operands)}")
        readers = [self.read(o, k) for o, k in zip(operands, operation.operands, strict=True)]
        if operation.carry_in or operation.carry_out:
            carry = self.slot("the carry flag", PREDICATE)
            if operation.carry_in:
                readers.append(_register_reader(carry, None))
            if operation.carry_out:
                writers.append(register_writer(carry, None))
        return _computation(operation.function, readers, writers)

    def _operation(self, instruction: Instruction) -> Operation:
        name = instruction.opcode
        modifiers = Modifiers(instruction.modifiers, len(instruction.operands) - 1)
        kind = modifiers.type()
        if kind is PREDICATE and name in logic.PREDICATES:
            operation = logic.PREDICATES[name]
        else:
            table = ANY_TYPE if name in ANY_TYPE else floating.TABLE if kind.is_float else integers.TABLE
            if name not in table or PREDICATE.name in instruction.modifiers:
                raise UnknownForm
            operation = table[name](modifiers, kind)
        modifiers.finish()
        return operation


def _refused(reason: str) -> Step:
    """Return the step of an instruction that nobody may reach."""

    def step(machine: Machine, threads: Threads) -> None:
        machine.active = threads
        raise Fault(reason or UNKNOWN)

    return step


def _always(value: Array, kind: Type) -> Reader:
    seen = value.view(kind.dtype).reshape(-1, kind.lanes) if kind.lanes > 1 else value.view(kind.dtype)
    return lambda machine, threads: seen


def _register_reader(slot: int, look: Callable[[Array], Array] | None) -> Reader:
    if look is None:

        def read(machine: Machine, threads: Threads) -> Array:
            values = machine.registers[slot]
            return values if threads is None or values.shape[0] == 1 else values.take(threads)

        return read

    def read_as(machine: Machine, threads: Threads) -> Array:
        values = machine.registers[slot]
        return look(values if threads is None or values.shape[0] == 1 else values.take(threads))

    return read_as


def register_writer(slot: int, store: Callable[[Array], Array] | None) -> Writer:
    """Return a function that sets a register of some threads; `store` turns values into its bits."""

    def write(machine: Machine, threads: Threads, value: Array) -> None:
        bits = value if store is None else store(value)
        if threads is None:
            machine.registers[slot] = bits
            return
        before = machine.registers[slot]
        if before.shape[0] == 1:
            before = machine.registers[slot] = np.repeat(before, machine.n)
        before[threads] = bits

    return write


def _computation(function: Callable[..., Any], readers: list[Reader], writers: list[Writer | None]) -> Step:
    """Return the step that reads operands, computes and writes results."""
    write = writers[0]
    if len(writers) == 1 and write is not None:
        if len(readers) == 1:
            (first,) = readers
            return lambda m, t: write(m, t, function(first(m, t)))
        if len(readers) == 2:
            first, second = readers
            return lambda m, t: write(m, t, function(first(m, t), second(m, t)))

        return lambda m, t: write(m, t, function(*[read(m, t) for read in readers]))

    def step(machine: Machine, threads: Threads) -> None:
        values = function(*[read(machine, threads) for read in readers])
        for writer, value in zip(writers, values, strict=True):
            if writer is not None:
                writer(machine, threads, value)

    return step


@lru_cache(maxsize=256)
def assemble(module: Module, name: str) -> Program:
    """Return the program of one kernel; the last few hundred are remembered."""
    return Assembler(module, module.functions[name]).program
