"""What the checks of a kernel found."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a kernel, or may be.

    Attributes
    ----------
    kind : str
        ``"race"``, ``"out of bounds"``, ``"uninitialised"``, ``"misaligned"``, ``"barrier"``, ``"warp"``, ``"order"``,
        ``"early exit"``, ``"same value"``, ``"memory"``, ``"arithmetic"``, ``"deadlock"`` or ``"stopped"``.
    message : str
    file, line : str and int
        Where in the source; "" and 0 if it is not known.
    block, thread : tuple of 3 ints, or None
        ``blockIdx`` and ``threadIdx`` of the first thread that it was seen in.
    """

    kind: str
    message: str
    file: str = ""
    line: int = 0
    block: tuple[int, int, int] | None = None
    thread: tuple[int, int, int] | None = None

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}: " if self.file else ""
        who = f" [block {self.block}, thread {self.thread}]" if self.block is not None else ""
        return f"{place}{self.message}{who}"


@dataclass
class Report:
    """What `check` found.

    Attributes
    ----------
    kernel : str
    errors : list of Finding
        What CUDA leaves undefined, or what makes the result depend on chance.
    warnings : list of Finding
        What works on GPUs and is not promised, or may be meant.
    """

    kernel: str
    errors: list[Finding] = field(default_factory=list)
    warnings: list[Finding] = field(default_factory=list)

    def __str__(self) -> str:
        if not self.errors and not self.warnings:
            return f"{self.kernel}: no errors, no warnings"
        lines = [f"{self.kernel}: {_count(self.errors, 'error')}, {_count(self.warnings, 'warning')}"]
        lines += [f"  error: {finding}" for finding in self.errors]
        lines += [f"  warning: {finding}" for finding in self.warnings]
        return "\n".join(lines)


def _count(findings: list[Finding], word: str) -> str:
    return f"{len(findings) or 'no'} {word}{'' if len(findings) == 1 else 's'}"
