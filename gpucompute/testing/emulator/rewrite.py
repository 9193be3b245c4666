"""What cannot be said with macros: shared variables, and where kernels are and end.

Works on preprocessed text: no comments, no macros, headers put in. It keeps every line where it is, so that the
compiler's messages and the debugger's lines are the user's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from ...errors import CompileError

SUFFIX = "__gce"  # kernels are renamed: one may be called div, index or y0, as functions of libc are

_TOKEN = re.compile(
    r"""(?P<marker>^[ \t]*\#[^\n]*)
      | (?P<space>\s+)
      | (?P<string>(?:u8|[uUL])?R"(?P<raw>[^(\s]*)\(.*?\)(?P=raw)"
                 | (?:u8|[uUL])?"(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])+')
      | (?P<number>\.?\d(?:[eEpP][+-]|['\w.])*)
      | (?P<word>[A-Za-z_$][\w$]*)
      | (?P<sign>::|->|<<|>>|.)""",
    re.VERBOSE | re.MULTILINE | re.DOTALL,
)
_OPEN, _CLOSE = dict(zip("([{", ")]}", strict=True)), dict(zip(")]}", "([{", strict=True))
_ATTRIBUTES = {"__align__", "alignas", "__attribute__", "__launch_bounds__", "__maxnreg__", "__cluster_dims__"}
_BEFORE_NAME = {"void", "static", "inline", "extern", "constexpr", "__forceinline__", "__inline__", "__host__"}
_QUALIFIERS = {"const", "volatile", "__restrict__", "__restrict", "__grid_constant__"}
_TYPES = {"*", "bool", "char", "double", "float", "int", "long", "short", "signed", "unsigned", "void"}


@dataclass(frozen=True)
class Declared:
    """A kernel of the source."""

    name: str  # with its namespaces
    parameters: tuple[str, ...]  # their names, "?" for one without
    is_template: bool
    bounds: str  # what __launch_bounds__ holds, "" without


@dataclass
class Rewritten:
    """The text for the compiler, and the kernels that it defines."""

    text: str
    kernels: list[Declared] = field(default_factory=list)


def rewrite(text: str) -> Rewritten:
    """Rewrite preprocessed CUDA C++ for the host's compiler.

    Examples
    --------
    >>> made = rewrite('extern "C" __global__ void axpy(float* y, float a) { y[0] *= a; }')
    >>> made.kernels[0].name, made.kernels[0].parameters
    ('axpy', ('y', 'a'))
    """
    return _Rewriter(text).run()


class _Rewriter:
    def __init__(self, text: str) -> None:
        self.tokens: list[str] = []
        self.code: list[int] = []  # indices of tokens that are neither space nor a line marker
        for match in _TOKEN.finditer(text):
            if match.lastgroup not in ("marker", "space"):
                self.code.append(len(self.tokens))
            self.tokens.append(match.group())
        self.kernels: list[Declared] = []
        self.bodies: set[int] = set()  # positions in code of the { of a kernel
        self.scopes: list[tuple[str, str]] = []  # kind and name

    def at(self, k: int) -> str:
        return self.tokens[self.code[k]] if k < len(self.code) else ""

    def run(self) -> Rewritten:
        k = begin = depth = 0
        while k < len(self.code):
            token = self.at(k)
            if token == "{" and depth == 0:
                self.scopes.append(self.scope(begin, k))
            elif token == "}" and depth == 0:
                kind, _ = self.scopes.pop() if self.scopes else ("", "")
                if kind == "kernel":
                    self.tokens[self.code[k]] = "gce::reached_end(); }"
            elif token in ("(", "["):
                depth += 1
            elif token in (")", "]"):
                depth -= 1
            elif token == "{":  # a lambda or an initialiser among arguments
                k = self.closing(k)
            elif token == "__shared__":
                k = self.shared(begin, k)
                begin = k + 1
            elif token == "__global__":
                self.kernel(begin, k)
            elif token in ("asm", "__asm__", "__asm"):
                self.refuse_assembly(k)
            elif token == "__noinline__":  # a macro of this name would break the system's headers
                self.tokens[self.code[k]] = "__attribute__((noinline))"
            if depth == 0 and token in ("{", "}", ";"):
                begin = k + 1
            k += 1
        return Rewritten("".join(self.tokens), self.kernels)

    def scope(self, begin: int, k: int) -> tuple[str, str]:
        words = [self.at(i) for i in range(begin, k)]
        if k in self.bodies:
            return "kernel", ""
        if "namespace" in words:
            return "namespace", "".join(words[words.index("namespace") + 1 :])
        if words[:1] == ["extern"] and len(words) == 2:
            return "extern", ""
        if {"struct", "class", "union", "enum"} & set(words) and "(" not in words:
            return "class", ""
        return "function", ""

    def closing(self, k: int) -> int:
        """Return where the bracket closes that opens at `k`."""
        depth = 0
        for i in range(k, len(self.code)):
            depth += (self.at(i) in _OPEN) - (self.at(i) in _CLOSE)
            if depth == 0:
                return i
        raise CompileError(f"{self.place(k)}: {self.at(k)!r} is never closed")

    def place(self, k: int) -> str:
        """Return file and line of a token, from the line markers before it."""
        file, line = "kernel.cu", 1
        for token in self.tokens[: self.code[k]]:
            marker = re.match(r'[ \t]*#(?:line)?[ \t]*(\d+)[ \t]+"([^"]*)"', token)
            if marker:
                line, file = int(marker[1]) - 1, marker[2]
            else:
                line += token.count("\n")
        return f"{file}:{line}"

    def refuse_assembly(self, k: int) -> None:
        while self.at(k + 1) in ("volatile", "__volatile__"):
            k += 1
        if self.at(k + 2) != '""':  # an empty one is a barrier for the compiler
            raise CompileError(
                f"{self.place(k)}: inline PTX cannot be emulated; guard it with #ifndef GPUCOMPUTE_EMULATOR and give "
                "C++ in its place, or run the kernel's PTX with gpucompute.testing.run_ptx"
            )

    def shared(self, begin: int, at: int) -> int:
        """Rewrite the declaration around the `__shared__` at `at`; return where it ends."""
        end = at
        while self.at(end) != ";":
            if end >= len(self.code):
                raise CompileError(f"{self.place(at)}: the declaration of a __shared__ variable has no end")
            end = self.closing(end) if self.at(end) in _OPEN else end
            end += 1
        is_extern = False
        names: list[int] = []
        name = angle = -1
        angle = 0
        k = begin
        while k <= end:
            token = self.at(k)
            if token in ("__shared__", "static", "extern"):
                is_extern |= token == "extern"
                self.tokens[self.code[k]] = ""
            elif token in _ATTRIBUTES:
                close = self.closing(k + 1)
                for i in range(k, close + 1):
                    self.tokens[self.code[i]] = ""
                k = close
            elif token in _OPEN:
                k = self.closing(k)
            elif token in ("<", ">", ">>"):
                angle += {"<": 1, ">": -1, ">>": -2}[token]
            elif token in (",", ";") and angle == 0:
                names.append(name)
            elif angle == 0 and re.match(r"[A-Za-z_]", token):
                name = k
            k += 1
        self.declare(begin, end, names, is_extern)
        return end

    def declare(self, begin: int, end: int, names: list[int], is_extern: bool) -> None:
        inside = any(kind in ("function", "kernel") for kind, _ in self.scopes)
        after = []
        for k in names:
            name = self.at(k)
            made, holder = f"gce_type_{name}", f"gce_shared_{name}"
            self.tokens[self.code[k]] = made
            if is_extern:  # a pointer to what the launch gives; the first extent is the launch's
                if self.at(k + 1) == "[":
                    for i in range(k + 1, self.closing(k + 1) + 1):
                        self.tokens[self.code[i]] = ""
                after.append(f" static {made} *const {name} = reinterpret_cast<{made} *>(gce::dynamic_shared);")
                after.append(f' gce::enter_dynamic<{made}>("{name}");' if inside else "")
                continue
            enter = f'{holder}.enter("{name}");' if inside else f'static gce::EnterAtLoad {made}_({holder}, "{name}");'
            after.append(f" static gce::Shared<{made}> {holder}; static {made} &{name} = {holder}.slot.value; {enter}")
        self.tokens[self.code[begin]] = "typedef " + self.tokens[self.code[begin]]
        self.tokens[self.code[end]] = ";" + "".join(after)

    def kernel(self, begin: int, at: int) -> None:
        is_template = any(self.at(i) == "template" for i in range(begin, at))
        bounds, k = "", at + 1
        while self.at(k) in _ATTRIBUTES | _BEFORE_NAME:
            if self.at(k) in _ATTRIBUTES:
                close = self.closing(k + 1)
                if self.at(k) == "__launch_bounds__":
                    bounds = "".join(self.tokens[self.code[k + 1] + 1 : self.code[close]])
                k = close
            k += 1
        while self.at(k + 1) == "::":  # an instantiation from outside its namespace
            k += 2
        name = self.at(k)
        self.tokens[self.code[k]] = name + SUFFIX
        if not is_template:  # static, so that what a library does not list is not compiled
            for i in range(begin, k):
                if self.at(i) in ("extern", "static", '"C"'):
                    self.tokens[self.code[i]] = ""
            self.tokens[self.code[at]] = "static"
        opening = k + 1
        while opening < len(self.code) and self.at(opening) != "(":  # template arguments of a specialisation
            opening += 1
        closing = self.closing(opening)
        if self.at(closing + 1) != "{":
            return  # a declaration, or an explicit instantiation
        self.bodies.add(closing + 1)
        spaces = [name for kind, name in self.scopes if kind == "namespace" and name]
        self.kernels.append(
            Declared("::".join([*spaces, name]), self.parameters(opening, closing), is_template, bounds.strip())
        )

    def parameters(self, opening: int, closing: int) -> tuple[str, ...]:
        names: list[str] = []
        words: list[str] = []
        angle, k = 0, opening + 1
        while k <= closing:
            token = self.at(k)
            if token in _OPEN:
                k = self.closing(k)
            elif token in ("<", ">", ">>"):
                angle += {"<": 1, ">": -1, ">>": -2}[token]
            elif k == closing or (token == "," and angle == 0):
                if words:
                    names.append(words[-1] if len(words) > 1 and words[-1] not in _TYPES else "?")
                words = []
            elif angle == 0 and re.match(r"[A-Za-z_*]", token) and token not in _QUALIFIERS:
                words.append(token)
            k += 1
        return tuple(names)
