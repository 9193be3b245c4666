"""`check`: a kernel is run in several orders of its threads, and what goes wrong is told with its line.

Every load and store is seen (hooks.hpp). The arrays are copies with room around them that belongs to nothing, so that
an access past an end is seen as one, and not as one of the array that happens to lie there.
"""

from __future__ import annotations

import mmap
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import CompileError, DTypeError, LaunchError, ShapeError
from ...launch.extents import three
from .arguments import pack
from .build import INCLUDE
from .kernel import find
from .library import Kernel, Library
from .report import Finding, Report
from .source import load as load_source

Array = np.ndarray[Any, Any]

# Name, order and seed as `Library.configure` takes them, and the byte that shared memory holds before it is written.
_RUNS = (
    ("forward", 0, 1, 0xFF),
    ("backward", 1, 1, 0x3F),
    ("in random order", 2, 1, 0xCB),
    ("in random order", 2, 2, 0x5A),
)
_GAP = 1 << 16  # bytes on either side of an array that belong to nothing
# Relative, by the bytes of a number: sums by atomics are rounded in the order that they come.
_TOLERANCE = {2: 1e-2, 4: 1e-4, 8: 1e-11}


def check(
    code_or_path: str | os.PathLike[str],
    name: str,
    grid: int | Sequence[int],
    block: int | Sequence[int],
    args: Sequence[Any],
    *,
    shared_mem: int = 0,
    options: Sequence[str] = (),
    memory: Sequence[Array] = (),
) -> Report:
    """Run a CUDA kernel on the CPU and look for its bugs.

    Found are: accesses out of bounds (arrays, static and dynamic shared memory) and misaligned ones, shared memory that
    is read before it is written, data races in shared and global memory, barriers that some threads miss or that do not
    match, warp functions whose lanes never come, shuffles from lanes that take no part, faults, and results that depend
    on the order of threads. Warnings: threads that leave before a barrier, races in which all write the same value,
    and results of kernels with atomic functions that depend on the order.

    Only what these arguments make the kernel do is seen. `emulate` is 5 to 150 times faster; a few blocks are enough
    here.

    Parameters
    ----------
    code_or_path, name, options
        As for `emulate`.
    grid, block, args, shared_mem
        As for a launch. Arrays are copied; the caller's are not written to.
    memory : sequence of ndarray
        Arrays that the kernel reaches through addresses in other arrays or in structs. The kernel runs on them, and
        they are put back as they were.

    Returns
    -------
    Report
        ``.errors`` and ``.warnings``; ``str()`` shows both.

    Raises
    ------
    CompileError, DTypeError, ShapeError, OptionError
        As `emulate` and a launch do.

    Examples
    --------
    >>> import numpy as np
    >>> code = '''
    ... extern "C" __global__ void mirror(float *x) {
    ...   __shared__ float s[64];
    ...   s[threadIdx.x] = x[threadIdx.x];
    ...   x[threadIdx.x] = s[63 - threadIdx.x];
    ... }'''
    >>> report = check(code, "mirror", 1, 64, (np.zeros(64, np.float32),))
    >>> sorted({error.kind for error in report.errors})
    ['order', 'race', 'uninitialised']
    """
    if sys.platform != "linux":  # hooks.hpp asks the loader where the library's own variables lie
        raise CompileError(f"the checker of CUDA kernels needs Linux, this is {sys.platform}; emulate() runs here")
    library, kernel = find(load_source(code_or_path, tuple(options)), name, checked=True)
    extents = three(grid, "grid"), three(block, "block")
    report = Report(kernel.name)
    first: list[Array] = []
    reached = _Reached(memory)
    for number, (run, order, seed, poison) in enumerate(_RUNS):
        copies = _Copies(kernel, args, reached)
        packed, alive = pack(kernel, copies.args)
        library.watch(copies.buffers)
        library.configure(order, seed, poison, silent=number > 0)
        try:
            library.launch(kernel, *extents, shared_mem, packed)
            finished = True
        except LaunchError:  # it is among the findings, with its place
            finished = False
        finally:
            library.watch([])
            del alive
            results = [array.copy() for array in copies.arrays]
            reached.put_back()
        absent = _collect(library, report)
        if not finished:
            break
        if first:
            _compare(library, copies.names, report, run, first, results, absent)
        first = first or results
    return report


class _Reached:
    """Arrays that are reached through addresses, which only these have: they cannot be copies."""

    def __init__(self, memory: Sequence[Array]) -> None:
        self.arrays = list(memory)
        for i, array in enumerate(self.arrays):
            if not isinstance(array, np.ndarray):
                raise DTypeError(f"check, memory[{i}]: got a {type(array).__name__}, expected a NumPy array")
            if not (array.flags.c_contiguous and array.flags.writeable):
                raise ShapeError(f"check, memory[{i}]: expected an array that is C-contiguous and not read-only")
        self.before = [array.copy() for array in self.arrays]

    def holds(self, argument: Array) -> bool:
        begin, end = argument.ctypes.data, argument.ctypes.data + argument.nbytes
        return any(a.ctypes.data <= begin and end <= a.ctypes.data + a.nbytes for a in self.arrays)

    def put_back(self) -> None:
        for array, before in zip(self.arrays, self.before, strict=True):
            array[...] = before


class _Copies:
    """Arguments whose arrays are copies with room around them, and what is reached through addresses."""

    def __init__(self, kernel: Kernel, args: Sequence[Any], reached: _Reached) -> None:
        pack(kernel, args)  # checks them
        self.args: list[Any] = []
        self.arrays: list[Array] = []
        self.names: list[str] = []
        self.buffers: list[tuple[int, int, int, str]] = []
        made: dict[tuple[int, int], Array] = {}
        for parameter, argument in zip(kernel.parameters, args, strict=True):
            if not parameter.pointer or argument is None:
                self.args.append(argument)
                continue
            if reached.holds(argument):
                self.args.append(argument)
                continue
            key = (argument.ctypes.data, argument.nbytes)  # given twice, it stays one array
            if key not in made:
                made[key] = _guarded(argument)
                element = parameter.bytes * parameter.elements or argument.itemsize
                self.buffers.append((made[key].ctypes.data, argument.nbytes, element, parameter.name))
            self.args.append(made[key])
            self.arrays.append(made[key])
            self.names.append(parameter.name)
        for i, array in enumerate(reached.arrays):
            self.buffers.append((array.ctypes.data, array.nbytes, array.itemsize, f"memory[{i}]"))
            self.arrays.append(array)
            self.names.append(f"memory[{i}]")


def _guarded(array: Array) -> Array:
    room = mmap.mmap(-1, array.nbytes + 3 * _GAP)
    start = _GAP + array.ctypes.data % 16  # NumPy aligns to 16 bytes; a view keeps its place within them
    copy = np.frombuffer(room, array.dtype, array.size, start).reshape(array.shape)
    copy[...] = array
    return copy


def _collect(library: Library, report: Report) -> list[Finding]:
    """Add the findings of a run to the report; return those that count only if the results differ."""
    rows = library.findings()
    codes = {int(code, 16) for row in rows for code in row[4:6]} - {0}
    places = _places(library.path, sorted(codes))
    absent = []
    for severity, kind, file, line, code, other, block, thread, message in rows:
        place = (Path(file).name, int(line)) if file else places.get(int(code, 16), ("", 0))
        there = places.get(int(other, 16))
        message = message.replace("{there}", f"line {there[1]}" if there else "an unknown line")
        if kind == "stopped" and message.count(": ") and not file:
            place, message = _split(message)
        finding = Finding(kind, message, *place, _axes(block), _axes(thread))
        if kind == "missing lane":
            absent.append(finding)
            continue
        findings = report.errors if severity == "error" else report.warnings
        if not any((old.kind, old.file, old.line) == (finding.kind, finding.file, finding.line) for old in findings):
            findings.append(finding)
    return absent


def _axes(text: str) -> tuple[int, int, int]:
    x, y, z = map(int, text.split())
    return x, y, z


def _split(message: str) -> tuple[tuple[str, int], str]:
    """Split "file:line: message"."""
    place, _, rest = message.partition(": ")
    file, _, line = place.rpartition(":")
    return ((Path(file).name, int(line)), rest) if line.isdigit() else (("", 0), message)


def _places(path: Path, codes: list[int]) -> dict[int, tuple[str, int]]:
    """Return file and line of places in the machine code, as far as binutils' addr2line knows them."""
    program = shutil.which("addr2line") or shutil.which("llvm-addr2line")
    if not program or not codes:
        return {}
    # one byte back: they are return addresses
    command = [program, "-a", "-i", "-e", str(path), *(hex(code - 1) for code in codes)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    places: dict[int, tuple[str, int]] = {}
    code = 0
    for line in done.stdout.splitlines():
        if line.startswith("0x"):
            code = int(line, 16) + 1
            continue
        file, _, number = line.partition(" ")[0].rpartition(":")
        # from the innermost: the first that is not the emulator's own
        if code not in places and number.isdigit() and file != "??" and not Path(file).is_relative_to(INCLUDE):
            places[code] = (Path(file).name, int(number))
    return places


def _compare(
    library: Library,
    names: list[str],
    report: Report,
    run: str,
    first: list[Array],
    now: list[Array],
    absent: list[Finding],
) -> None:
    """Report arrays that differ between two orders."""
    atomics = library.used_atomics()
    for name, one, other in zip(names, first, now, strict=True):
        differs = one.reshape(-1).view(np.uint8) != other.reshape(-1).view(np.uint8)
        if not differs.any() or (atomics and _close(one, other)):
            continue
        index = int(differs.argmax()) // one.itemsize
        values = one.reshape(-1)[index], other.reshape(-1)[index]
        message = (
            f"the result depends on the order of threads: {name}, element {index}, is {values[0]} forward "
            f"and {values[1]} {run}"
        )
        if absent:
            message += f"; perhaps since {absent[0]}"
        if atomics:
            message += "; the kernel uses atomic functions, so this may be meant"
        findings = report.warnings if atomics else report.errors
        if not any(old.kind == "order" for old in findings):
            findings.append(Finding("order", message))


def _close(one: Array, other: Array) -> bool:
    if one.dtype.kind not in "fc":
        return False
    tolerance = _TOLERANCE.get(one.dtype.itemsize if one.dtype.kind == "f" else one.dtype.itemsize // 2, 0.0)
    scale = float(np.max(np.abs(one), initial=0))
    return bool(np.allclose(one, other, rtol=tolerance, atol=tolerance * scale, equal_nan=True))
