"""How many kernels the tests compile, emulate and interpret, and how many threads these run a second.

Counted where all of them pass: the compilers' calls, the launch of an emulator's library, a batch of the interpreter.
What PyCUDA runs on the fake driver goes from C to C past this, and what nvcc compiles is not counted, nor are kernels
that come from a cache on disk.
"""

from __future__ import annotations

import functools
import hashlib
import math
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

_KERNEL = re.compile(rb"\.nv\.constant0\.([\w$]+)\0")  # every kernel in a cubin has a section for its parameters
EMULATED, CHECKED, INTERPRETED = "emulated", "emulated under checks", "interpreted as PTX"


@dataclass
class Runs:
    """Launches of one kind; kernels by what tells them apart in all processes."""

    kernels: set[str] = field(default_factory=set)
    launches: int = 0
    threads: int = 0
    seconds: float = 0.0
    best: float = 0.0  # threads a second

    def note(self, kernel: str, launches: int, threads: int, seconds: float) -> None:
        self.add([kernel], launches, threads, seconds, threads / max(seconds, 1e-9))

    def add(self, kernels: list[str], launches: int, threads: int, seconds: float, best: float) -> None:
        self.kernels.update(kernels)
        self.launches += launches
        self.threads += threads
        self.seconds += seconds
        self.best = max(self.best, best)


class Counts:
    """The counts of one process, or of several added up."""

    def __init__(self) -> None:
        self.compiled: dict[str, set[str]] = {}  # by architecture
        self.runs = {how: Runs() for how in (EMULATED, CHECKED, INTERPRETED)}

    def packed(self) -> Any:
        """Return the counts as plain lists, which travel between processes."""
        runs = [[how, sorted(r.kernels), r.launches, r.threads, r.seconds, r.best] for how, r in self.runs.items()]
        return [[[arch, sorted(kernels)] for arch, kernels in self.compiled.items()], runs]

    def add(self, packed: Any) -> None:
        """Add the counts of another process."""
        compiled, runs = packed
        for arch, kernels in compiled:
            self.compiled.setdefault(arch, set()).update(kernels)
        for how, kernels, *numbers in runs:
            self.runs[how].add(kernels, *numbers)

    def note_cubin(self, cubin: bytes, arch: str) -> None:
        digest = hashlib.sha256(cubin).hexdigest()[:16]
        names = {name.decode() for name in _KERNEL.findall(cubin)}
        self.compiled.setdefault(arch, set()).update(f"{digest} {name}" for name in names)

    def lines(self) -> list[str]:
        """Return the table, without lines if nothing was counted."""
        table = []
        if self.compiled:
            order = sorted(self.compiled, key=lambda arch: (len(arch), arch))
            each = ", ".join(f"{arch} {len(self.compiled[arch])}" for arch in order)
            table.append(f"compiled to machine code: {sum(map(len, self.compiled.values()))} ({each})")
        runs = {how: r for how, r in self.runs.items() if r.launches}
        if runs:
            table.append(f"{'':<24}{'kernels':>9}{'launches':>10}{'threads':>13}{'threads/s':>12}{'at best':>12}")
        for how, r in runs.items():
            rate = r.threads / max(r.seconds, 1e-9)
            table.append(f"{how:<24}{len(r.kernels):>9}{r.launches:>10}{r.threads:>13}{rate:>12,.0f}{r.best:>12,.0f}")
        return table

    def watch(self) -> None:
        """Count from now on what this process compiles and runs."""
        from gpucompute.launch import nvrtc
        from gpucompute.testing.emulator.library import Library
        from gpucompute.testing.ptx.machine import Machine

        checked: set[Library] = set()

        def compiled(made: Any, seconds: float, source: str, arch: str, *_: Any, **__: Any) -> None:
            self.note_cubin(made if isinstance(made, bytes) else made[0], arch)

        def watched(result: Any, seconds: float, library: Library, buffers: Any) -> None:
            checked.add(library)  # only the checker names memory to watch

        def emulated(
            result: Any, seconds: float, library: Library, kernel: Any, grid: Any, block: Any, *_: Any, **__: Any
        ) -> None:
            runs = self.runs[CHECKED if library in checked else EMULATED]
            runs.note(f"{library.path.name} {kernel.name}", 1, math.prod((*grid, *block)), seconds)

        def interpreted(result: Any, seconds: float, machine: Machine) -> None:
            program = machine.program
            name = f"{program.name} {zlib.crc32(repr(program.lines).encode())}"
            self.runs[INTERPRETED].note(name, int(machine.first == 0), machine.n, seconds)

        _after(nvrtc, "compile_cuda", compiled)
        _after(nvrtc, "compile_ptx", compiled)
        _after(Library, "watch", watched)
        _after(Library, "launch", emulated)
        _after(Machine, "run", interpreted)


def _after(owner: Any, name: str, note: Callable[..., None]) -> None:
    """Let each call of a function that does not fail be noted: its result, its seconds, its arguments."""
    function = getattr(owner, name)

    @functools.wraps(function)
    def counted(*args: Any, **kwargs: Any) -> Any:
        start = perf_counter()
        result = function(*args, **kwargs)
        note(result, perf_counter() - start, *args, **kwargs)
        return result

    setattr(owner, name, counted)
