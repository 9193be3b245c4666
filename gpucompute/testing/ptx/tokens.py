"""PTX text as words, and the place that a parser has reached among them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NoReturn, TypeVar

from ...errors import PtxError

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
  | (?P<mark>[{}()\[\],;:@!|+\-<>=~&^*/?])
    """,
    re.VERBOSE | re.DOTALL,
)
_DEPTHS = {"{": 1, "(": 1, "[": 1, "}": -1, ")": -1, "]": -1}

Item = TypeVar("Item")


class Tokens:
    """The words of a text, with their kinds (the names in `_TOKEN`) and lines; `at` is the next one."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.kinds: list[str] = []
        self.words: list[str] = []
        self.lines: list[int] = []
        self.starts: list[int] = []  # in the text
        self.at = 0
        self._split(text)

    def _split(self, text: str) -> None:
        at, line = 0, 1
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None:
                raise PtxError(f"PTX line {line}: cannot read {text[at : at + 20]!r}; expected PTX text")
            start, at = at, match.end()
            kind = match.lastgroup
            if kind == "newline":
                line += 1
            elif kind == "comment":
                line += match[0].count("\n")
            elif kind is not None and kind != "skip":
                self._append(kind, match[0], line, start)
        self._append("end", "the end of the text", line, at)

    def _append(self, kind: str, word: str, line: int, start: int) -> None:
        self.kinds.append(kind)
        self.words.append(word)
        self.lines.append(line)
        self.starts.append(start)

    @property
    def word(self) -> str:
        return self.words[self.at]

    @property
    def kind(self) -> str:
        return self.kinds[self.at]

    @property
    def line(self) -> int:
        return self.lines[self.at]

    def fail(self, expected: str) -> NoReturn:
        raise PtxError(f"PTX line {self.line}: got {self.word!r}, expected {expected}")

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

    def list_of(self, item: Callable[[], Item], end: str) -> list[Item]:
        """Read items with commas between them, and the mark that ends them."""
        found: list[Item] = []
        while not self.accept(end):
            if found:
                self.expect(",")
            found.append(item())
        return found

    # What is read over

    def skip_line(self) -> None:
        line = self.line
        while self.line == line and self.kind != "end":
            self.at += 1

    def skip_to(self, word: str) -> None:
        """Go on behind the next `word`."""
        while not self.accept(word):
            if self.kind == "end":
                self.fail(repr(word))
            self.at += 1

    def skip_braces(self) -> None:
        depth = 0
        while True:
            depth += {"{": 1, "}": -1}.get(self.word, 0)
            if self.kind == "end":
                self.fail("'}'")
            if self.next() == "}" and not depth:
                return

    def skip_statement(self, start: int, error: PtxError, ends_before: frozenset[str] = frozenset()) -> str:
        """Go back to the word `start` and on behind the statement that begins there.

        Parameters
        ----------
        start : int
        error : PtxError
            Why it is skipped; raised if the statement has no end.
        ends_before : set of str
            Words that begin something else when they stand first on a line. With these, braces end a statement too:
            that of a function.

        Returns
        -------
        str
            The statement, in one line.
        """
        self.at, depth = start, 0
        while True:
            depth += _DEPTHS.get(self.word, 0)
            if depth < 0 or self.kind == "end":
                raise error
            last = self.next()
            if depth:
                continue
            if last == ";":
                break
            is_next = self.word in ends_before and self.line > self.lines[self.at - 1]
            if ends_before and (is_next or self.kind == "end" or (last == "}" and self.kind == "directive")):
                break
        return " ".join(self.text[self.starts[start] : self.starts[self.at]].split()).removesuffix(";").rstrip()
