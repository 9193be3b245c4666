"""What cannot be said with macros: shared and guarded variables, inline assembly, and where kernels are and end.

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
_VARIABLE = {"__device__", "__constant__", "__managed__"}
# What makes a statement with one of these words no definition of a variable, or one that constants may be made from.
_NO_VARIABLE = {"template", "typedef", "using", "extern", "friend", "operator", "constexpr", "auto", "&"}
_CODE = ("function", "kernel")  # kinds of scopes
_CLASSES = {"struct", "class", "union", "enum"}
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


def rewrite(text: str, *, checked: bool = False, only: str = "") -> Rewritten:
    """Rewrite preprocessed CUDA C++ for the host's compiler.

    If `checked`, with room around ``__device__`` variables. With the name of a kernel as `only`, functions that it does
    not need lose their bodies: what cannot be compiled there does no harm.

    Examples
    --------
    >>> made = rewrite('extern "C" __global__ void axpy(float* y, float a) { y[0] *= a; }')
    >>> made.kernels[0].name, made.kernels[0].parameters
    ('axpy', ('y', 'a'))
    """
    rewriter = _Rewriter(text, checked)
    kernels = rewriter.run()
    if only:
        rewriter.empty_all_but(only)
    text = "".join(token + "".join(rewriter.added.get(i, ())) for i, token in enumerate(rewriter.tokens))
    return Rewritten(text, kernels)


class _Rewriter:
    def __init__(self, text: str, checked: bool) -> None:
        self.checked = checked
        self.tokens: list[str] = []
        self.code: list[int] = []  # indices of tokens that are neither space nor a line marker
        for match in _TOKEN.finditer(text):
            if match.lastgroup not in ("marker", "space"):
                self.code.append(len(self.tokens))
            self.tokens.append(match.group())
        self.kernels: list[Declared] = []
        self.bodies: set[int] = set()  # positions in code of the { of a kernel
        self.scopes: list[tuple[str, str]] = []  # kind and name
        self.declared_before: set[str] = set()  # variables, by extern
        self.added: dict[int, list[str]] = {}  # what comes after a token
        self.functions: list[tuple[int, int, int]] = []  # at file scope: positions of the start, the { and the }

    def at(self, k: int) -> str:
        return self.tokens[self.code[k]] if k < len(self.code) else ""

    def run(self) -> list[Declared]:
        k = begin = depth = 0
        start = -1  # of the function at file scope that the loop is in
        while k < len(self.code):
            token = self.at(k)
            if token == "{" and depth == 0:
                scope = self.scope(begin, k)
                if scope[0] in _CODE and self.at_file_scope():
                    start, opening = begin, k
                self.scopes.append(scope)
            elif token == "}" and depth == 0:
                kind, _ = self.scopes.pop() if self.scopes else ("", "")
                if kind in _CODE and self.at_file_scope():
                    self.functions.append((start, opening, k))
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
            elif token in _VARIABLE and self.checked and depth == 0:
                self.variable(begin, k)
            elif token in ("asm", "__asm__", "__asm"):
                self.assembly(k)
            elif token == "__noinline__":  # a macro of this name would break the system's headers
                self.tokens[self.code[k]] = "__attribute__((noinline))"
            if depth == 0 and token in ("{", "}", ";"):
                begin = k + 1
            k += 1
        return self.kernels

    def at_file_scope(self) -> bool:
        return all(kind in ("namespace", "extern") for kind, _ in self.scopes)

    def scope(self, begin: int, k: int) -> tuple[str, str]:
        words = [self.at(i) for i in range(begin, k)]
        if k in self.bodies:
            return "kernel", ""
        if "namespace" in words:
            return "namespace", "".join(words[words.index("namespace") + 1 :])
        if words[:1] == ["extern"] and len(words) == 2:
            return "extern", ""
        if _CLASSES & set(words) and "(" not in words:
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

    def assembly(self, at: int) -> None:
        """Put a call in the place of inline PTX, that is an error if a thread comes there."""
        opening = at + 1
        while self.at(opening) in ("volatile", "__volatile__", "goto"):
            opening += 1
        if self.at(opening) != "(":
            return
        file, _, line = self.place(at).rpartition(":")
        name = file.replace("\\", "\\\\").replace('"', '\\"')
        empty = self.at(opening + 1) == '""'  # a barrier for the compiler; its operands are a GPU's
        self.blank(at, self.closing(opening))
        self.tokens[self.code[at]] = 'asm volatile("" ::: "memory")' if empty else f'gce::assembly("{name}", {line})'

    def blank(self, first: int, last: int) -> None:
        """Take the tokens of a range away, without its lines."""
        for i in range(first, last + 1):
            self.tokens[self.code[i]] = "\n" * self.at(i).count("\n")

    def variable(self, begin: int, at: int) -> None:
        """Give the variables of a definition room on either side, of which the checker knows (shared.hpp).

        What is not a plain definition of variables at file scope stays as it is: functions, members, what `extern` has
        declared, constants that may be part of types.
        """
        if begin <= at and any(self.at(i) in _VARIABLE for i in range(begin, at)):
            return  # `__device__ __constant__`, seen already
        if not self.at_file_scope():
            return
        found = self.declarators(begin)
        if found is None:
            return
        names, end = found
        for k in names:
            name = self.at(k)
            kept, holder = f"gce_initial_{name}", f"gce_variable_{name}"
            self.tokens[self.code[k]] = kept
            self.added.setdefault(self.code[end], []).append(
                f" static gce::Variable<decltype({kept})> {holder}; static decltype({kept}) &{name} = "
                f'{holder}.slot.value; static gce::DeclareAtLoad {kept}_({holder}, (const void *)&{kept}, "{name}");'
            )

    def declarators(self, begin: int) -> tuple[list[int], int] | None:
        """Return the names that a definition of variables gives, and where its semicolon is; None for anything else."""
        names: list[int] = []
        words: list[str] = []
        name, brackets, k = -1, False, begin
        while (token := self.at(k)) != ";":
            if token == "extern":
                while self.at(k) not in (";", "(", "{", ""):
                    self.declared_before.add(self.at(k))
                    k += 1
            if token in _NO_VARIABLE or token in ("", "(", "__global__", "}"):
                return None
            if token in _ATTRIBUTES:
                k = self.closing(k + 1)
            elif token == "<":
                k = self.closing_angle(k)
            elif token == "[":
                brackets, k = True, self.closing(k)
            elif token in ("=", "{"):
                if token == "{" and _CLASSES & set(words):
                    return None  # a class without a name cannot be named again
                while self.at(k) not in (",", ";"):
                    k = self.closing(k) if self.at(k) in _OPEN else k
                    k += 1
                continue
            elif token == ",":
                names.append(name)
                words.append(token)
            elif re.match(r"[A-Za-z_]", token):
                words.append(token)
                name = k
            k += 1
        names.append(name)
        constant = "const" in words and not brackets  # it may be an array's extent
        plain = len(set(names)) == len(names) and -1 not in names and all(self.at(i - 1) != "::" for i in names)
        taken = any(self.at(i) in self.declared_before for i in names)
        return None if constant or taken or not plain else (names, k)

    def closing_angle(self, k: int) -> int:
        depth = 0
        for i in range(k, len(self.code)):
            depth += {"<": 1, ">": -1, ">>": -2}.get(self.at(i), 0)
            if depth <= 0:
                return i
        return len(self.code)

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
        inside = any(kind in _CODE for kind, _ in self.scopes)
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

    def empty_all_but(self, wanted: str) -> None:
        """Take away the bodies of functions that nothing names that `wanted` needs, overloads taken together."""
        bodies: dict[str, list[tuple[int, int, int]]] = {}
        within: set[int] = set()
        for function in self.functions:
            if name := self.function_name(*function[:2]):
                bodies.setdefault(name, []).append(function)
                within.update(range(function[0], function[2] + 1))
        waiting = {self.at(k) for k in range(len(self.code)) if k not in within} | {wanted}
        needed: set[str] = set()
        while waiting:
            needed |= waiting
            found = {self.at(k) for name in waiting for f in bodies.get(name, []) for k in range(f[0], f[2])}
            waiting = {word.removesuffix(SUFFIX) for word in found} - needed
        for name in bodies.keys() - needed:
            for _, opening, end in bodies[name]:
                self.blank(opening + 1, end - 1)

    def function_name(self, begin: int, opening: int) -> str:
        """Return what a function is called by, "" for one that cannot do without its body or is none."""
        k = begin
        while k < opening and self.at(k) != "(":
            if self.at(k) in _ATTRIBUTES:
                k = self.closing(k + 1)
            elif self.at(k) == "<":
                k = self.closing_angle(k)
            k += 1
        name = self.at(k - 1) if begin < k < opening else ""
        if {"constexpr", "operator", "="} & {self.at(i) for i in range(begin, k)}:
            return ""
        return name.removesuffix(SUFFIX) if re.match(r"[A-Za-z_]", name) else ""

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
