"""A compiled library: its kernels, their parameters, and its launches."""

from __future__ import annotations

import ctypes
import functools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import CompileError, LaunchError, OptionError

_WORD = re.compile(r"(?P<pointer>\*?)(?P<constant>c?)(?P<kind>[fiubhBvs])(?P<bytes>\d+)(?:x(?P<elements>\d+))?")


@dataclass(frozen=True)
class Parameter:
    """One parameter of a kernel: what `gce_kernel_parameters` says of it (DESIGN.md)."""

    name: str
    kind: str
    bytes: int  # of one element
    elements: int  # of a vector type
    pointer: bool
    constant: bool

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """The dtype of one element, None for void, structs and bfloat16, which NumPy does not have."""
        code = {"f": "f", "i": "i", "u": "u", "b": "?", "h": "f"}.get(self.kind)
        if code is None or self.bytes not in (1, 2, 4, 8):
            return None
        return np.dtype(np.bool_) if code == "?" else np.dtype(f"{code}{self.bytes}")

    def __str__(self) -> str:
        names = {"v": "void", "s": f"struct of {self.bytes} bytes", "B": "bfloat16"}
        text = names.get(self.kind) or str(self.dtype)
        text += f" x {self.elements}" if self.elements > 1 else ""
        return f"{'const ' if self.constant else ''}{text}{' *' if self.pointer else ''}"


@dataclass(frozen=True)
class Kernel:
    """A kernel of a library."""

    number: int
    name: str
    parameters: tuple[Parameter, ...]


class Library:
    """A shared library that `build.library` made, loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._calls = ctypes.CDLL(str(path))
        for name in ("gce_kernel_name", "gce_kernel_parameters", "gce_kernel_names", "gce_error", "gce_findings"):
            getattr(self._calls, name).restype = ctypes.c_char_p
        self.kernels = [self._describe(i) for i in range(self._calls.gce_kernel_count())]

    def _describe(self, number: int) -> Kernel:
        def words(call: str) -> list[str]:
            text: bytes = getattr(self._calls, call)(number)
            return text.decode().split()

        names = words("gce_kernel_names")
        parameters = []
        for i, word in enumerate(words("gce_kernel_parameters")):
            match = _WORD.fullmatch(word)
            assert match is not None
            name = names[i] if i < len(names) and names[i] != "?" else f"number {i + 1}"
            sizes = int(match["bytes"]), int(match["elements"] or 1)
            parameters.append(Parameter(name, match["kind"], *sizes, bool(match["pointer"]), bool(match["constant"])))
        return Kernel(number, self._calls.gce_kernel_name(number).decode(), tuple(parameters))

    def kernel(self, name: str) -> Kernel:
        """Return the kernel of this name; its namespaces may be left out.

        Raises
        ------
        CompileError
            If there is none, or more than one in different namespaces.
        """
        found = [k for k in self.kernels if k.name == name]
        found = found or [k for k in self.kernels if k.name.endswith(f"::{name}")]
        if len(found) != 1:
            there = ", ".join(k.name for k in self.kernels)
            how_many = "several kernels are" if found else "no kernel is"
            raise CompileError(f"{how_many} named {name!r}; there are: {there}")
        return found[0]

    def launch(
        self, kernel: Kernel, grid: tuple[int, int, int], block: tuple[int, int, int], shared_mem: int, packed: Any
    ) -> None:
        """Run a kernel to its end; `packed` holds a pointer to each argument.

        Raises
        ------
        OptionError
            For a grid, a block or an amount of shared memory that no GPU takes.
        LaunchError
            If the kernel fails.
        """
        three = ctypes.c_uint * 3
        status = self._calls.gce_launch(
            kernel.number, three(*grid), three(*block), ctypes.c_size_t(shared_mem), ctypes.byref(packed)
        )
        if status:
            text = self._calls.gce_error().decode(errors="replace")
            raise OptionError(text) if status == 1 else LaunchError(f"{kernel.name}: {text}")

    def symbol(self, name: str, nbytes: int) -> Any:
        """Return the memory of a ``__device__`` or ``__constant__`` variable, as `nbytes` bytes."""
        try:
            variable = (ctypes.c_uint8 * nbytes).in_dll(self._calls, name)
        except ValueError:
            raise CompileError(
                f"no variable named {name!r}; those at file scope that are neither static nor in a namespace are there"
            ) from None
        return np.ctypeslib.as_array(variable)

    def configure(self, order: int, seed: int, poison: int, *, silent: bool = False) -> None:
        """Choose the order of threads and blocks (0 forward, 1 backward, 2 random), and what shared memory holds."""
        self._calls.gce_settings(order, seed, poison, int(silent))

    def watch(self, buffers: list[tuple[int, int, int, str]]) -> None:
        """Tell the checker of the memory that kernels may touch: address, bytes, bytes of an element, name."""
        self._calls.gce_clear_buffers()
        for address, nbytes, element, name in buffers:
            self._calls.gce_add_buffer(ctypes.c_void_p(address), ctypes.c_size_t(nbytes), element, name.encode())

    def findings(self) -> list[list[str]]:
        """Return what the last launch's checks found: the fields of findings.hpp, as text."""
        text: bytes = self._calls.gce_findings()
        return [line.split("\t") for line in text.decode(errors="replace").splitlines()]

    def used_atomics(self) -> bool:
        """Return whether the last launch ran atomic functions."""
        return bool(self._calls.gce_used_atomics())


@functools.cache
def load(path: Path) -> Library:
    """Return the library at `path`, loaded once in a process."""
    return Library(path)
