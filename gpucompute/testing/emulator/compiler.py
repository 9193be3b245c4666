"""The system's C++ compiler: which it is, and how it is called."""

from __future__ import annotations

import functools
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from ...errors import CompileError

_INSTALL = {
    "linux": "apt-get install g++ (Debian, Ubuntu), dnf install gcc-c++ (Fedora, RHEL) or conda install cxx-compiler",
    "darwin": "xcode-select --install",
}

# Equal bits: no contraction. CUDA's C++: integers wrap, and pointers of any type may point anywhere.
_COMMON = ["-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-fno-math-errno", "-fno-strict-aliasing", "-fwrapv"]
_QUICK = ["-fno-threadsafe-statics", "-w"]
_PLAIN = ["-O2", "-DGCE_CHECK=0"]
# The instrumentation alone: its library is not linked, hooks.hpp answers. Structs are kept whole, since a float4 that
# is read in four parts is never misaligned. A canary above local arrays, which have no bounds else.
_CHECKED = ["-O1", "-g1", "-gdwarf-4", "-DGCE_CHECK=1", "-fsanitize=thread", "-fstack-protector-strong"]
_CHECKED += ["-fno-builtin-printf", "-U_FORTIFY_SOURCE"]  # or it may be called by other names
_CHECKED_GCC = ["--param=tsan-instrument-func-entry-exit=0", "--param=tsan-distinguish-volatile=1", "-fno-tree-sra"]
_CHECKED_CLANG = ["-mllvm", "-tsan-instrument-func-entry-exit=0", "-mllvm", "-tsan-distinguish-volatile=1"]


@dataclass(frozen=True)
class Compiler:
    """A compiler that works: how it is called, and what tells it from another."""

    command: tuple[str, ...]
    version: str
    is_clang: bool

    def flags(self, checked: bool) -> list[str]:
        flags = [*_COMMON, *_QUICK]
        if not self.is_clang:
            flags.append("-fno-gnu-unique")  # else static variables of templates would be one in all libraries
        if checked:
            return [*flags, *_CHECKED, *(_CHECKED_CLANG if self.is_clang else _CHECKED_GCC)]
        return [*flags, *_PLAIN]

    def run(self, arguments: list[str], folder: Path, purpose: str, text: str | None = None) -> str:
        """Call it in `folder` and return what it prints.

        Raises
        ------
        CompileError
            With the compiler's messages, if it fails.
        """
        command = [*self.command, *arguments]
        environment = {**os.environ, "LC_ALL": "C"}
        done = subprocess.run(
            command, cwd=folder, env=environment, input=text, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise CompileError(f"{purpose}:\n{_shortened(done.stderr)}")
        return done.stdout


def _shortened(messages: str) -> str:
    """Return the first errors, with the user's lines and without the notes after them."""
    lines = [line for line in messages.splitlines() if not re.match(r"In file included from|\s+from ", line)]
    return "\n".join(lines[:40])


@functools.cache
def find_compiler() -> Compiler:
    """Return the compiler of ``GPUCOMPUTE_CXX`` or ``CXX``, else g++, clang++ or c++, whichever is there first.

    Raises
    ------
    CompileError
        If there is none; it says what to install.
    """
    if sys.platform == "win32":
        raise CompileError("the emulator of CUDA kernels needs Linux or macOS; on Windows use it within WSL")
    for name in ("GPUCOMPUTE_CXX", "CXX"):
        if command := shlex.split(os.environ.get(name, "")):
            if not shutil.which(command[0]):
                raise CompileError(f"{name}={os.environ[name]!r}: there is no such program; set it to a C++ compiler")
            return _described(command)
    for program in ("g++", "clang++", "c++"):
        if shutil.which(program):
            return _described([program])
    install = _INSTALL.get(sys.platform, "install g++ or clang++")
    raise CompileError(f"to emulate a kernel takes a C++ compiler, and neither g++ nor clang++ was found; {install}")


def _described(command: list[str]) -> Compiler:
    said = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False).stdout
    return Compiler(tuple(command), f"{said.partition(chr(10))[0]} {platform.machine()}", "clang" in said)
