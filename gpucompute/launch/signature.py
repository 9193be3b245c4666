"""The parameters of a kernel, read from its CUDA C++ text: enough to check arguments and to lay them out.

No C++ is understood beyond declarations: object-like macros, ``#if`` of simple conditions, ``typedef``, ``using`` and
template arguments are followed; a type that stays unknown (a struct, or one that depends on what the compiler alone
knows) is not checked, and its size is that of the value given for it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import OptionError

_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_DEFINE = re.compile(r"^[ \t]*#[ \t]*define[ \t]+(\w+)[ \t]+(.+?)[ \t]*$", re.MULTILINE)
_CONDITION = re.compile(r"[ \t]*#[ \t]*(ifdef|ifndef|if|elif|else|endif)\b(.*)")
_OPTION = re.compile(r"(?:-D|--define-macro=)\s*(\w+)(?:=(.*))?")
_ALIAS = re.compile(r"\btypedef\s+([\w:<> ]+?)\s+(\w+)\s*;|\busing\s+(\w+)\s*=\s*([\w:<> ]+?)\s*;")
_KERNEL = re.compile(r"__global__([^;{}]*?)\b(\w+)\s*\(")
_ATTRIBUTES = re.compile(
    r"\b(?:__launch_bounds__|__cluster_dims__|__block_size__|__maxnreg__)\s*\([^()]*(?:\([^()]*\)[^()]*)*\)"
)
_DECORATION = re.compile(r"\b(?:__restrict__|__restrict|volatile|__grid_constant__|struct|typename|const)\b")

_TYPES = {
    "bool": "?", "char": "i1", "signed char": "i1", "unsigned char": "u1", "float": "f4", "double": "f8",
    "short": "i2", "int": "i4", "long": "l", "long long": "i8", "half": "f2", "__half": "f2", "size_t": "u8",
    "ptrdiff_t": "i8", "intptr_t": "i8", "uintptr_t": "u8", "__int64": "i8",
    "cuFloatComplex": "c8", "cuComplex": "c8", "complex<float>": "c8",
    "cuDoubleComplex": "c16", "complex<double>": "c16",
    "__nv_bfloat16": "u2", "nv_bfloat16": "u2", "__half2": "2f2", "half2": "2f2", "__nv_bfloat162": "2u2",
    **{f"{sign}int{bits}_t": f"{sign or 'i'}{bits // 8}" for sign in ("u", "") for bits in (8, 16, 32, 64)},
}  # fmt: skip
_TYPES |= {"unsigned": "u4", "unsigned short": "u2", "unsigned long": "L", "unsigned long long": "u8"}
_VECTOR = re.compile(r"(u?)(char|short|int|long|longlong|float|double)([1-4])")
# struct's letter for each dtype; complex numbers and vectors go as bytes
_LETTERS = {"?": "?", "i1": "b", "u1": "B", "i2": "h", "u2": "H", "i4": "i", "u4": "I", "i8": "q", "u8": "Q"}
_LETTERS |= {"f2": "e", "f4": "f", "f8": "d"}


@dataclass(frozen=True)
class Parameter:
    """A parameter of a kernel.

    text : as in the source; name : "" where it has none; pointer : takes an array; constant : which the kernel only
    reads; dtype : of its elements, or its own, None where unknown; lanes : elements of a vector type; loose : any
    dtype of this size will do (``char``, ``bfloat16``).
    """

    text: str
    name: str
    pointer: bool
    constant: bool
    dtype: np.dtype[Any] | None
    lanes: int = 1
    loose: bool = False

    def accepts(self, dtype: np.dtype[Any]) -> bool:
        """Whether an array or scalar of `dtype` may be given for it."""
        return self.dtype is None or dtype == self.dtype or (self.loose and dtype.itemsize == self.dtype.itemsize)

    @property
    def alignment(self) -> int:
        """What an address must be a multiple of, in bytes."""
        if self.dtype is None:
            return 1
        # CUDA aligns vectors of two and four to their size, up to 16 bytes, and vectors of three as their elements.
        return self.dtype.itemsize if self.lanes in (1, 3) else min(16, self.dtype.itemsize * self.lanes)


@dataclass(frozen=True)
class Signature:
    """A kernel's name in C++ and its parameters; `expression`: its symbol is to be asked of the compiler."""

    name: str
    parameters: tuple[Parameter, ...]
    expression: bool


def read(source: str, name: str, options: Sequence[str] = ()) -> Signature:
    """Return the signature of the kernel `name`, for example ``"axpy"`` or ``"scale<float>"``.

    Raises
    ------
    OptionError
        There is no such kernel; the message lists those that there are.
    """
    text = _compiled(_COMMENT.sub(" ", source), options)
    base, _, arguments = name.partition("<")
    base = base.rpartition("::")[2].strip()
    kernels = _KERNEL.finditer(_ATTRIBUTES.sub(lambda found: " " * len(found[0]), text))
    declared = [kernel for kernel in kernels if kernel[2] == base]
    if not declared:
        known = ", ".join(names(source)) or "none"
        raise OptionError(f"no kernel {name!r} in the source; its kernels (__global__ functions) are: {known}")
    aliases = _aliases(text, options)
    lists = [_parameters(text, kernel, arguments, aliases) for kernel in declared]
    before = text[: declared[0].start()]
    expression = "<" in name or "::" in name or not _is_c(before)
    return Signature(name, _common(lists), expression)


def _parameters(text: str, kernel: re.Match[str], arguments: str, aliases: dict[str, str]) -> tuple[Parameter, ...]:
    """Return the parameters of a declaration, a template's with its arguments put in."""
    head = re.split(r"[;}]", text[: kernel.start()])[-1]
    if arguments and (template := re.search(r"template\s*<(.*?)>\s*(?:\S.*)?$", head, re.DOTALL)):
        given = _split(arguments.rstrip("> "))
        formal = [re.sub(r"=.*", "", part).split()[-1] for part in _split(template[1])]
        aliases = aliases | dict(zip(formal, given, strict=False))
    parts = _split(_inside(text, kernel.end()))
    return tuple(_parameter(part, aliases) for part in parts if part not in ("", "void"))


def _common(lists: Sequence[tuple[Parameter, ...]]) -> tuple[Parameter, ...]:
    """Return what all declarations of a kernel agree on; where they differ in a type, it is unknown."""
    first, *others = lists
    for other in others:
        if [p.pointer for p in other] == [p.pointer for p in first]:
            first = tuple(p if (p.dtype, p.lanes) == (q.dtype, q.lanes) else replace(p, dtype=None, lanes=1)
                          for p, q in zip(first, other, strict=True))  # fmt: skip
    return first


def _compiled(text: str, options: Sequence[str]) -> str:
    """Blank out what ``#if 0``, ``#if 1`` and macros of the options leave out; other conditions leave all branches."""
    macros = {given[1]: given[2] or "1" for given in map(_OPTION.fullmatch, options) if given}
    branches: list[str] = []  # of each open #if, what is read now: "taken", "skipped", "over" (one was), or "unknown"
    kept = []
    for line in text.split("\n"):
        found = _CONDITION.match(line)
        if found and found[1] == "endif":
            branches = branches[:-1]
        elif found and found[1] in ("elif", "else"):
            after = {"taken": "over", "over": "over", "skipped": "taken" if found[1] == "else" else "unknown"}
            branches = [*branches[:-1], after.get(branches[-1] if branches else "", "unknown")]
        elif found:
            branches.append({True: "taken", False: "skipped", None: "unknown"}[_holds(found[1], found[2], macros)])
        left_out = found or "skipped" in branches or "over" in branches
        kept.append("" if left_out else line)
    return "\n".join(kept)


def _holds(word: str, condition: str, macros: dict[str, str]) -> bool | None:
    """Return whether the condition of ``#if``, ``#ifdef`` or ``#ifndef`` holds; None where that is not plain."""
    condition = condition.strip()
    if word != "if":
        return (word == "ifdef") if condition in macros else None
    value = macros.get(condition, condition)
    if value.isdecimal():
        return int(value) != 0
    defined = re.fullmatch(r"(!?)\s*defined\s*\(?\s*(\w+)\s*\)?", condition)
    return not defined[1] if defined and defined[2] in macros else None


def names(source: str) -> list[str]:
    """Return the names of the kernels in a source.

    >>> names('extern "C" __global__ void __launch_bounds__(256) f(int n) {}  __global__ void g() {}')
    ['f', 'g']
    """
    text = _ATTRIBUTES.sub(" ", _COMMENT.sub(" ", source))
    return list(dict.fromkeys(kernel[2] for kernel in _KERNEL.finditer(text)))


def _is_c(before: str) -> bool:
    """Whether what follows the text `before` is ``extern "C"``, itself or by the block it stands in."""
    if re.search(r'extern\s+"C"(?![^;{}]*[;{}])', before):
        return True
    for block in re.finditer(r'extern\s+"C"\s*\{', before):
        rest = before[block.end() :]
        if rest.count("{") >= rest.count("}"):
            return True
    return False


def _aliases(text: str, options: Sequence[str]) -> dict[str, str]:
    """Return what names stand for; an option wins over the source, where a name of several meanings has none."""
    meanings: dict[str, set[str]] = {}
    for old, new, name, meaning in _ALIAS.findall(text):
        meanings.setdefault(new or name, set()).add(old or meaning)
    for name, meaning in _DEFINE.findall(text):
        meanings.setdefault(name, set()).add(meaning)
    found = {name: min(several) for name, several in meanings.items() if len(several) == 1}
    return found | {given[1]: given[2] for given in map(_OPTION.fullmatch, options) if given and given[2]}


def _inside(text: str, start: int) -> str:
    """Return what stands between the parenthesis that ends before `start` and its partner."""
    depth = 1
    for end in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[end], 0)
        if not depth:
            return text[start:end]
    return text[start:]


def _split(text: str) -> list[str]:
    """Split at the commas that stand in no bracket."""
    parts, depth = [""], 0
    for letter in text:
        depth += {"(": 1, "<": 1, "[": 1, ")": -1, ">": -1, "]": -1}.get(letter, 0)
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]


def _parameter(text: str, aliases: dict[str, str]) -> Parameter:
    declaration = re.sub(r"=.*", "", text, flags=re.DOTALL)
    shown = " ".join(text.split())
    first, star, rest = declaration.partition("*")
    if star or "[" in declaration:
        after = rest if star else first
        found = re.search(r"(\w+)\s*(?:\[[^\]]*\]\s*)*$", _DECORATION.sub(" ", after))
        name = found[1] if found else ""
        kind = first if star else first[: first.rindex(name)]
        constant = bool(re.search(r"\bconst\b", first))
        pointer = True
    else:
        words = _DECORATION.sub(" ", declaration).split()
        whole = " ".join(words)
        # The last word is the name, unless the words are a type without one.
        name = "" if len(words) < 2 or _known(whole, aliases) else words[-1]
        kind, constant, pointer = whole.removesuffix(name) if name else whole, True, False
    element = _resolve(_DECORATION.sub(" ", kind), aliases)
    if element.endswith("*"):  # an alias of a pointer type
        element, pointer, constant = element.rstrip("* "), True, False
    code = "" if rest.count("*") and pointer else _code(element)  # an array of pointers: addresses, unchecked
    lanes = int(code[0]) if code[:1].isdigit() else 1
    dtype = np.dtype(code.lstrip("1234")) if code else None
    loose = element.replace("signed ", "") == "char" or "bfloat16" in element
    return Parameter(shown, name, pointer, constant, dtype, lanes, loose)


def _known(text: str, aliases: dict[str, str]) -> bool:
    return bool(_code(_resolve(text, aliases)))


def _resolve(kind: str, aliases: dict[str, str]) -> str:
    """Return a type's own name for one that stands for it."""
    for _ in range(16):  # more would be a circle
        kind = " ".join(kind.replace("std::", " ").replace("thrust::", " ").replace("cuda::", " ").split())
        words = [aliases.get(word, word) for word in re.findall(r"\w+|\W", kind)]
        further = "".join(words)
        if further == kind:
            break
        kind = _DECORATION.sub(" ", further)
    return kind


def _code(kind: str) -> str:
    """Return NumPy's code for a C++ type, with the lanes of a vector before it; "" for one that is not known."""
    kind = kind.replace(" ", "") if "<" in kind else kind
    if vector := _VECTOR.fullmatch(kind):
        unsigned, base, lanes = vector.groups()
        return lanes + _code(("unsigned " if unsigned else "") + base.replace("longlong", "long long"))
    words = sorted(kind.split())
    if set(words) <= {"unsigned", "signed", "short", "int", "long"} and words:
        if len(words) > 1:
            words = [word for word in words if word not in ("int", "signed")] or ["int"]
        if words == ["signed"]:
            words = ["int"]
        sign = ["unsigned"] if "unsigned" in words else []
        kind = " ".join(sign + [word for word in words if word != "unsigned"])
    return _TYPES.get(kind, "")


def layout(values: Sequence[tuple[str, int]]) -> str:
    """Return struct's format for parameters given by letter (or bytes, "16s") and alignment, padded as CUDA lays out.

    >>> layout([("q", 8), ("i", 4), ("q", 8), ("16s", 16)])
    '<qi4xq8x16s'
    """
    text, offset = "<", 0
    for letter, alignment in values:
        gap = -offset % alignment
        text += (f"{gap}x" if gap else "") + letter
        offset += gap + (int(letter[:-1]) if letter.endswith("s") else np.dtype(letter).itemsize)
    return text


def letter_of(dtype: np.dtype[Any]) -> str:
    """Return struct's letter for a scalar's dtype, bytes for what has none."""
    return _LETTERS.get(dtype.str[1:] if dtype.kind != "b" else "?") or f"{dtype.itemsize}s"
