"""PTX text to `syntax.Module`.

The grammar is that of NVIDIA's "Parallel Thread Execution ISA", chapters 4 to 6 and 11, as far as compilers write it.
Debugging sections and hints for the assembler are read over. What is not understood is kept: a statement up to its
semicolon as an unknown instruction, a declaration by its names, a function by its own. It is an error to whoever
executes or uses it.
"""

from __future__ import annotations

import re
import struct
from functools import lru_cache

from ...errors import PtxError
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
    Scope,
    Targets,
    Unknown,
    Variable,
    Vector,
)
from .tokens import Tokens
from .types import TYPES, Type

_SPACES = {".param", ".shared", ".local", ".global", ".const"}
_LINKAGE = {".visible", ".extern", ".weak", ".common"}
_LINE_DIRECTIVES = {".version", ".target", ".address_size", ".file", ".loc"}  # they end where their line ends
# What begins an item of a module.
_FIRST_WORDS = frozenset({".entry", ".func", ".section", *_SPACES, *_LINKAGE, *_LINE_DIRECTIVES})
_FUNCTION_NAME = re.compile(r"\.(?:entry|func)\b(?:\s*\.[\w:]+|\s*\([^)]*\))*\s*([\w$%]+)")
# What follows the parameters of a function and changes nothing here.
_ATTRIBUTES = {
    *(".maxntid", ".reqntid", ".minnctapersm", ".maxnctapersm", ".maxnreg", ".noreturn", ".unique"),
    *(".explicitcluster", ".maxclusterrank", ".abi_preserve", ".abi_preserve_control"),
}


class _Parser(Tokens):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.module = Module()
        self.top = Scope()

    # Declarations

    def parse(self) -> Module:
        while self.kind != "end":
            if self.word in _LINE_DIRECTIVES:
                self.skip_line()
            elif self.word == ".section":
                self.at += 1
                self.skip_braces()
            elif self.word == ".pragma":
                self.skip_to(";")
            else:
                start = self.at
                try:
                    self._item()
                except PtxError as error:
                    self._unknown_item(start, error)
        return self.module

    def _item(self) -> None:
        external = False
        while self.word in _LINKAGE:
            external |= self.next() == ".extern"
        if self.word in (".entry", ".func"):
            self._function()
        elif self.word in _SPACES:
            for variable in self._variables():
                variable.defined = not external
                self.module.variables[variable.name] = self.top.names[variable.name] = variable
        else:
            self.fail("a directive of a module")

    def _unknown_item(self, start: int, error: PtxError) -> None:
        """Keep what was not understood by its names: whoever uses one gets to know why."""
        if self.kinds[start] != "directive":
            raise error
        text = self.skip_statement(start, error, _FIRST_WORDS)
        words = self.words[start : self.at]
        is_entry = ".entry" in words
        if is_entry or ".func" in words:
            name = _FUNCTION_NAME.search(text)
            if name is None:
                raise error
            function = Function(name[1], is_entry, [], [], Scope(self.top), problem=str(error))
            self.module.functions[function.name] = self.top.names[function.name] = function
        else:
            self._unknown_names(self.top, start, Unknown(text, self.lines[start]))

    def _unknown_names(self, scope: Scope, start: int, unknown: Unknown) -> None:
        """Note the names that the words from `start` to here declare: ``.space .align n .type name[n], name, ...``."""
        depth = 0
        for k in range(start, self.at):
            word = self.words[k]
            depth += (word in "{([") - (word in "})]")
            before = self.words[k - 1] == "," or self.kinds[k - 1] in ("directive", "integer")
            if depth or self.kinds[k] != "word" or not before:
                continue
            if self.words[k + 1] == "<":
                scope.ranges.setdefault(word, (int(self.words[k + 2]), unknown))
            else:
                scope.names.setdefault(word, unknown)

    def _function(self) -> None:
        is_entry = self.next() == ".entry"
        scope = Scope(self.top)
        results = self.list_of(self._parameter, ")") if self.accept("(") else []
        name = self.name()
        parameters = self.list_of(self._parameter, ")") if self.accept("(") else []
        function = Function(name, is_entry, parameters, results, scope)
        for variable in (*results, *parameters):
            scope.names[variable.name] = variable
        self._attributes(function)
        if not self.accept(";"):
            function.body = []
            self.next()
            self._block(function, scope)
        known = self.module.functions.get(name)
        if known is None or known.body is None:
            self.module.functions[name] = self.top.names[name] = function

    def _attributes(self, function: Function) -> None:
        """Read ``.maxntid 256, 1, 1`` and the like, up to the body or the end of a declaration."""
        while self.word not in ("{", ";"):
            if self.word == ".pragma":
                self.skip_to(";")
                continue
            if self.kind != "directive":
                self.fail("the body of a function")
            line, word = self.line, self.next()
            numbers = []
            while self.kind == "integer" or self.word == ",":
                numbers += [] if self.accept(",") else [self.integer()]
            alone = word == ".reqnctapercluster" and set(numbers) == {1}
            if word not in _ATTRIBUTES and not alone and not function.problem:
                function.problem = f"PTX line {line}: got '{word}', expected an attribute that the interpreter knows"

    def _parameter(self) -> Variable:
        (variable,) = self._variables(single=True)
        return variable

    def _variables(self, single: bool = False) -> list[Variable]:
        """Read ``.space .align n .type name[n] = {...}, ...;`` (`single`: one parameter of a function)."""
        space, align, kind = self.next()[1:], 0, None
        if space not in ("param", "shared", "local", "global", "const"):
            self.at -= 1
            self.fail("a state space")
        while self.kind == "directive":
            word = self.next()
            if word == ".align":
                align = self.integer()
            elif word == ".attribute":
                self.skip_to(")")
            elif word[1:] in TYPES:
                kind = TYPES[word[1:]]
            elif word not in (".ptr", ".global", ".const", ".shared", ".local"):  # .ptr: what a parameter points to
                self.at -= 1
                self.fail("a type")
        if kind is None:
            self.fail("a type")
        if single:
            return [self._variable(space, align, kind)]
        return self.list_of(lambda: self._variable(space, align, kind), ";")

    def _variable(self, space: str, align: int, kind: Type) -> Variable:
        name = self.name()
        count: int | None = 1
        values: tuple[int | Name, ...] = ()
        while self.accept("["):
            count = None if self.word == "]" else (count or 1) * self.integer()
            self.expect("]")
        if self.accept("="):
            values = tuple(self._values(kind))
            count = max(count or 0, len(values))
        nbytes = None if count is None else count * kind.nbytes
        return Variable(name, space, nbytes, align or kind.nbytes, kind, values)

    def _values(self, kind: Type) -> list[int | Name]:
        if self.accept("{"):
            return [value for values in self.list_of(lambda: self._values(kind), "}") for value in values]
        if self.word == "generic":
            self.at += 1
            self.expect("(")
            name = self._named()
            self.expect(")")
            return [name]
        operand = self._operand()
        if isinstance(operand, Name):
            return [operand]
        if not isinstance(operand, Literal):
            self.fail("a number or a name")
        return [bits_as(operand, kind)]

    # Bodies

    def _block(self, function: Function, scope: Scope) -> None:
        while not self.accept("}"):
            if self.kind == "end":
                self.fail("'}'")
            self._statement(function, scope)

    def _statement(self, function: Function, scope: Scope) -> None:
        assert function.body is not None
        word = self.word
        if self.accept("{"):
            self._block(function, Scope(scope))
        elif self.accept(";"):
            pass
        elif word in _LINE_DIRECTIVES:
            self.skip_line()
        elif word == ".pragma":
            self.skip_to(";")
        elif word == ".reg" or word in _SPACES:
            start, line = self.at, self.line
            try:
                self._declaration(function, scope)
            except PtxError as error:
                text = self.skip_statement(start, error)
                self._unknown_names(scope, start, Unknown(text, line))
        elif self.kind == "word" and self.words[self.at + 1] == ":":
            self.at += 2
            if self.accept(".branchtargets"):
                scope.names[word] = Targets(tuple(self.list_of(self.name, ";")))
            elif self.word in (".callprototype", ".calltargets"):
                self.skip_to(";")
            else:
                scope.names[word] = Label(word, len(function.body))
        else:
            function.body.append(self._instruction(scope))

    def _declaration(self, function: Function, scope: Scope) -> None:
        if self.accept(".reg"):
            self._registers(scope)
            return
        for variable in self._variables():
            scope.names[variable.name] = variable
            function.variables.append(variable)

    def _registers(self, scope: Scope) -> None:
        kind = TYPES.get(self.word[1:])
        if kind is None:
            self.fail("a type of registers")
        self.next()
        for name, count in self.list_of(self._register, ";"):
            if count:
                scope.ranges[name] = (count, kind)
            else:
                scope.declare(name, kind)

    def _register(self) -> tuple[str, int]:
        name, count = self.name(), 0
        if self.accept("<"):
            count = self.integer()
            self.expect(">")
        return name, count

    def _instruction(self, scope: Scope) -> Instruction:
        line = self.line
        guard = None
        if self.accept("@"):
            guard = Name(negated=self.accept("!"), name=self.name())
        start = self.at
        words = self.next() if self.kind == "directive" else self.name()
        opcode, *modifiers = re.split(r"(?<=\w)\.(?=\w)", words)
        operands, unknown = [], ""
        try:
            if self.kinds[start] == "directive":
                self.fail("an instruction")
            operands = self.list_of(self._operand, ";")
        except PtxError as error:
            unknown = f"{self.skip_statement(start, error)} ({error})"
        return Instruction(opcode, tuple(modifiers), tuple(operands), guard, line, scope, unknown)

    def _operand(self) -> Operand:
        if self.accept("{"):
            return Vector(tuple(self.list_of(self._operand, "}")))
        if self.accept("("):
            return Vector(tuple(self.list_of(self._operand, ")")))
        if self.accept("["):
            base = self._named() if self.kind == "word" else Literal(self.integer())
            self.expect("]")
            return Address(Name(base.name), base.offset) if isinstance(base, Name) else Address(base, 0)
        if self.accept("!"):
            return Name(self.name(), negated=True)
        if self.kind == "word":
            name = self._named()
            return Pair(name, Name(self.name())) if self.accept("|") else name
        negative = self.accept("-")
        if self.kind == "float":
            return _float(self.next(), negative)
        value = self.integer()
        return Literal(-value if negative else value)

    def _named(self) -> Name:
        name, offset = self.name(), 0
        while self.word in ("+", "-"):
            sign = 1 if self.next() == "+" else -1
            offset += sign * self.integer()
        return Name(name, offset)


def _float(word: str, negative: bool) -> Literal:
    if word[:2] in ("0f", "0F", "0d", "0D"):
        bits = 32 if word[1] in "fF" else 64
        digits = word[2:]
        return Literal(int(digits, 16) ^ (negative << (bits - 1)), bits)
    value = -float(word) if negative else float(word)
    return Literal(int.from_bytes(struct.pack("<d", value), "little"), 64)


def bits_as(literal: Literal, kind: Type) -> int:
    """Return the bits of a literal as an operand of some type."""
    if not literal.float_bits:
        if kind.kind == "f" and kind.bits >= 32:
            return int.from_bytes(struct.pack(_PACK[kind.bits], literal.value), "little")
        return literal.value & ((1 << kind.bits) - 1)
    if not kind.is_float or literal.float_bits == kind.bits:
        return literal.value
    (value,) = struct.unpack(_PACK[literal.float_bits], literal.value.to_bytes(literal.float_bits // 8, "little"))
    return int.from_bytes(struct.pack(_PACK[kind.bits], value), "little")


_PACK = {16: "<e", 32: "<f", 64: "<d"}


@lru_cache(maxsize=256)
def parse(ptx: str) -> Module:
    """Return what a PTX text declares; the last few hundred texts are remembered.

    Raises
    ------
    PtxError
        If the text is not PTX; the message has the line.
    """
    return _Parser(ptx).parse()
