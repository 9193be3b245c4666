"""What the parser makes of PTX text: modules, functions, variables, instructions and their operands."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from .types import Type

_NUMBERED = re.compile(r"(.*?)([0-9]+)$")


@dataclass(frozen=True, slots=True)
class Name:
    """A register, variable, label or function: which one, the scope tells."""

    name: str
    offset: int = 0  # in bytes, of a variable
    negated: bool = False  # a predicate written !p


@dataclass(frozen=True, slots=True)
class Literal:
    """A number; of a float (0f, 0d) the bits."""

    value: int
    float_bits: int = 0  # 32 or 64 for a float, 0 for an integer


@dataclass(frozen=True, slots=True)
class Address:
    """[base + offset], the offset in bytes."""

    base: Name | Literal
    offset: int


@dataclass(frozen=True, slots=True)
class Vector:
    """{a, b, ...}, and the lists in parentheses of a call."""

    items: tuple[Operand, ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """d|p: two results of one instruction."""

    first: Name
    second: Name


Operand = Name | Literal | Address | Vector | Pair


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction.

    Attributes
    ----------
    opcode : str
        The first word, such as ``add``.
    modifiers : tuple of str
        The words after it, such as ``("rn", "f32")``.
    operands : tuple of Operand
    guard : Name or None
        The predicate before it (``@p``, ``@!p``).
    line : int
        The line of the PTX text, from 1.
    scope : Scope
        Where its names are looked up.
    unknown : str
        The whole statement and why, if it was not understood; then there are no operands.
    """

    opcode: str
    modifiers: tuple[str, ...]
    operands: tuple[Operand, ...]
    guard: Name | None
    line: int
    scope: Scope
    unknown: str = ""

    @property
    def text(self) -> str:
        """The opcode with its modifiers."""
        return ".".join((self.opcode, *self.modifiers))


@dataclass(eq=False, slots=True)
class Register:
    """A declared register; each thread has its own."""

    name: str
    type: Type


@dataclass(eq=False, slots=True)
class Label:
    """A place in a function: before the instruction of this index."""

    name: str
    index: int


@dataclass(eq=False, slots=True)
class Targets:
    """The labels that an indexed branch may go to."""

    labels: tuple[str, ...]


@dataclass(eq=False, slots=True)
class Variable:
    """Declared memory: a kernel's parameter, a shared array, a table, ...

    Attributes
    ----------
    name, space : str
        The space without its dot: param, shared, local, global, const.
    nbytes : int or None
        None for ``extern`` memory without a size (dynamic shared memory).
    align : int
    type : Type
        Of one element.
    values : tuple
        The initial elements: numbers, or names whose addresses are meant.
    defined : bool
        False if it is only named (``extern``).
    """

    name: str
    space: str
    nbytes: int | None
    align: int
    type: Type
    values: tuple[int | Name, ...] = ()
    defined: bool = True


@dataclass(eq=False, slots=True)
class Unknown:
    """What a name means whose declaration was not understood: the statement and its line."""

    text: str
    line: int


@dataclass(eq=False, slots=True)
class Scope:
    """The names that a pair of braces declares."""

    parent: Scope | None = None
    names: dict[str, Entity] = field(default_factory=dict)
    ranges: dict[str, tuple[int, Type | Unknown]] = field(default_factory=dict)  # %r<10>: the registers %r0 to %r9

    def declare(self, name: str, kind: Type) -> None:
        """Add one register."""
        self.names[name] = Register(name, kind)

    def find(self, name: str) -> Entity | None:
        """Return what a name means here, or None."""
        scope: Scope | None = self
        numbered = _NUMBERED.match(name)
        while scope is not None:
            found = scope.names.get(name)
            if found is None and numbered:
                count, kind = scope.ranges.get(numbered[1], (0, None))
                if kind is not None and int(numbered[2]) < count:
                    found = scope.names[name] = kind if isinstance(kind, Unknown) else Register(name, kind)
            if found is not None:
                return found
            scope = scope.parent
        return None


@dataclass(eq=False, slots=True)
class Function:
    """A kernel (``entry``) or a device function.

    Attributes
    ----------
    parameters, results : list of Variable
    body : list of Instruction or None
        None if it is only declared.
    problem : str
        Why it cannot be executed: what was not understood besides the statements of its body.
    """

    name: str
    is_entry: bool
    parameters: list[Variable]
    results: list[Variable]
    scope: Scope
    body: list[Instruction] | None = None
    variables: list[Variable] = field(default_factory=list)  # declared inside
    problem: str = ""


@dataclass(eq=False, slots=True)
class Module:
    """One PTX text."""

    functions: dict[str, Function] = field(default_factory=dict)
    variables: dict[str, Variable] = field(default_factory=dict)


Entity = Register | Variable | Label | Targets | Function | Unknown
