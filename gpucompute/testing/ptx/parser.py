"""PTX text to `syntax.Module`.

The grammar is that of NVIDIA's "Parallel Thread Execution ISA", chapters 4 to 6 and 11, as far as compilers write it.
Debugging sections and hints for the assembler are read over.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from functools import lru_cache
from typing import NoReturn, TypeVar

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
    Variable,
    Vector,
)
from .types import TYPES, Type

_TOKEN = re.compile(
    r"""
    (?P<newline>\n)
  | (?P<skip>[ \t\r\f]+ | //[^\n]*)
  | (?P<comment>/\*.*?\*/)
  | (?P<float>0[fF][0-9a-fA-F]{8}\b | 0[dD][0-9a-fA-F]{16}\b | \d+\.\d*(?:[eE][+-]?\d+)? | \d+[eE][+-]?\d+)
  | (?P<integer>0[xX][0-9a-fA-F]+U? | 0[bB][01]+U? | \d+U?)
  | (?P<word>[A-Za-z_$%][\w$]*(?:(?:\.|::)[\w$]+)*)
  | (?P<directive>\.[A-Za-z_]\w*(?:::\w+)*)
  | (?P<string>"[^"]*")
  | (?P<mark>[{}()\[\],;:@!|+\-<>=])
    """,
    re.VERBOSE | re.DOTALL,
)
_SPACES = {".param", ".shared", ".local", ".global", ".const"}
_LINKAGE = {".visible", ".extern", ".weak", ".common"}
_LINE_DIRECTIVES = {".version", ".target", ".address_size", ".file", ".loc"}  # they end where their line ends

Item = TypeVar("Item")


class _Parser:
    def __init__(self, text: str) -> None:
        self.kinds: list[str] = []
        self.words: list[str] = []
        self.lines: list[int] = []
        self.module = Module()
        self.top = Scope()
        self.at = 0
        self._split(text)

    def _split(self, text: str) -> None:
        at, line = 0, 1
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None:
                raise PtxError(f"PTX line {line}: cannot read {text[at : at + 20]!r}; expected PTX text")
            at = match.end()
            kind = match.lastgroup
            if kind == "newline":
                line += 1
            elif kind == "comment":
                line += match[0].count("\n")
            elif kind is not None and kind != "skip":
                self.kinds.append(kind)
                self.words.append(match[0])
                self.lines.append(line)
        self.kinds.append("end")
        self.words.append("the end of the text")
        self.lines.append(line)

    # Tokens

    @property
    def word(self) -> str:
        return self.words[self.at]

    @property
    def kind(self) -> str:
        return self.kinds[self.at]

    def fail(self, expected: str) -> NoReturn:
        raise PtxError(f"PTX line {self.lines[self.at]}: got {self.word!r}, expected {expected}")

    def next(self) -> str:
        word = self.words[self.at]
        self.at += 1
        return word

    def accept(self, word: str) -> bool:
        if self.word != word:
            return False
        self.at += 1
        return True

    def expect(self, word: str) -> None:
        if not self.accept(word):
            self.fail(repr(word))

    def name(self) -> str:
        if self.kind != "word":
            self.fail("a name")
        return self.next()

    def integer(self) -> int:
        sign = -1 if self.accept("-") else 1
        if self.kind != "integer":
            self.fail("an integer")
        word = self.next().rstrip("U")
        octal = len(word) > 1 and word.isdigit() and word[0] == "0"  # as in C
        return sign * int(word, 8 if octal else 0)

    def skip_line(self) -> None:
        line = self.lines[self.at]
        while self.lines[self.at] == line and self.kind != "end":
            self.at += 1

    def skip_braces(self) -> None:
        depth = 0
        while True:
            depth += {"{": 1, "}": -1}.get(self.word, 0)
            if self.kind == "end":
                self.fail("'}'")
            if self.next() == "}" and not depth:
                return

    def list_of(self, item: Callable[[], Item], end: str) -> list[Item]:
        """Read items with commas between them, and the mark that ends them."""
        found: list[Item] = []
        while not self.accept(end):
            if found:
                self.expect(",")
            found.append(item())
        return found

    # Declarations

    def parse(self) -> Module:
        while self.kind != "end":
            if self.word in _LINE_DIRECTIVES:
                self.skip_line()
            elif self.word == ".section":
                self.at += 1
                self.skip_braces()
            elif self.word == ".pragma":
                while not self.accept(";"):
                    self.at += 1
            elif self.word in (".alias", ".samplerref", ".surfref", ".texref"):
                self.fail("no aliases and textures: these are not supported")
            else:
                self._module_item()
        return self.module

    def _module_item(self) -> None:
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

    def _function(self) -> None:
        is_entry = self.next() == ".entry"
        scope = Scope(self.top)
        results = self.list_of(self._parameter, ")") if self.accept("(") else []
        name = self.name()
        parameters = self.list_of(self._parameter, ")") if self.accept("(") else []
        function = Function(name, is_entry, parameters, results, scope)
        for variable in (*results, *parameters):
            scope.names[variable.name] = variable
        while self.word not in ("{", ";"):  # .maxntid 256, 1, 1 and the like
            self.at += 1
            if self.kind == "end":
                self.fail("the body of a function")
        if not self.accept(";"):
            function.body = []
            self.next()
            self._block(function, scope)
        known = self.module.functions.get(name)
        if known is None or known.body is None:
            self.module.functions[name] = self.top.names[name] = function

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
                while not self.accept(")"):
                    self.at += 1
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
        elif word == ".reg":
            self._registers(scope)
        elif word in _SPACES:
            for variable in self._variables():
                scope.names[variable.name] = variable
                function.variables.append(variable)
        elif self.kind == "directive":  # .pragma
            while not self.accept(";"):
                self.at += 1
        elif self.kind == "word" and self.words[self.at + 1] == ":":
            self.at += 2
            if self.accept(".branchtargets"):
                scope.names[word] = Targets(tuple(self.list_of(self.name, ";")))
            elif self.word in (".callprototype", ".calltargets"):
                while not self.accept(";"):
                    self.at += 1
            else:
                scope.names[word] = Label(word, len(function.body))
        else:
            function.body.append(self._instruction(scope))

    def _registers(self, scope: Scope) -> None:
        self.next()
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
        line = self.lines[self.at]
        guard = None
        if self.accept("@"):
            guard = Name(negated=self.accept("!"), name=self.name())
        opcode, *modifiers = re.split(r"\.(?=\w)", self.name())
        operands = self.list_of(self._operand, ";")
        return Instruction(opcode, tuple(modifiers), tuple(operands), guard, line, scope)

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
        If the text is not PTX, or uses a directive that is not known; the message has the line.
    """
    return _Parser(ptx).parse()
