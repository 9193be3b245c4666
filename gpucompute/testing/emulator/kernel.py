"""`emulate`: a CUDA kernel as a Python function that runs it on the CPU."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from ...errors import CompileError
from ...launch.extents import three
from . import build
from .arguments import pack
from .library import Kernel, Library, load
from .source import Source
from .source import load as load_source


class EmulatedKernel:
    """A CUDA kernel that runs on the CPU; called as CuPy's `RawKernel`: ``k(grid, block, args, *, shared_mem=0)``.

    Attributes
    ----------
    name : str
    parameters : tuple
        The kernel's parameters: ``.name``, ``.dtype``, ``.pointer``, ``.constant``.
    """

    def __init__(self, library: Library, kernel: Kernel) -> None:
        self._library = library
        self._kernel = kernel
        self.name = kernel.name
        self.parameters = kernel.parameters

    def __call__(
        self,
        grid: int | Sequence[int],
        block: int | Sequence[int],
        args: Sequence[Any],
        *,
        shared_mem: int = 0,
        stream: object = None,
    ) -> None:
        """Run the kernel to its end.

        Parameters
        ----------
        grid, block : int or tuple of 1 to 3 ints
            Blocks of the grid, threads of a block.
        args : sequence
            C-contiguous NumPy arrays for pointers, written in place (None for a null pointer), and NumPy scalars of the
            parameters' types.
        shared_mem : int
            Dynamic shared memory of a block, in bytes.
        stream
            Taken and not used: the kernel has ended when the call returns.

        Raises
        ------
        DTypeError, ShapeError
            For arguments that do not fit the parameter that the message names.
        OptionError
            For a grid or a block that no GPU takes.
        LaunchError
            If the kernel fails: barriers that some threads never reach, a failed ``assert``, an illegal address.
        """
        del stream
        packed, alive = pack(self._kernel, args)
        self._library.launch(self._kernel, three(grid, "grid"), three(block, "block"), int(shared_mem), packed)
        del alive

    def symbol(self, name: str, nbytes: int) -> Any:
        """Return the memory of a ``__device__`` or ``__constant__`` variable beside the kernel, as `nbytes` bytes.

        Returns
        -------
        (nbytes,) ndarray of uint8
            Not a copy: what is written to it, kernels see.
        """
        return self._library.symbol(name, nbytes)

    def __repr__(self) -> str:
        return f"<emulated kernel {self.name}({', '.join(f'{p.name}: {p}' for p in self.parameters)})>"


def find(source: Source, name: str, *, checked: bool = False) -> tuple[Library, Kernel]:
    """Return the library of `source` that has the kernel `name`, compiled if it is not in the cache."""
    names = (name,) if "<" in name else ()
    try:
        path = build.library(source, names, checked=checked)
    except CompileError:  # perhaps for the sake of another kernel
        alone = name.partition("<")[0].strip().split("::")[-1]
        path = build.library(source, names, checked=checked, only=alone)
    library = load(path)
    return library, library.kernel(name)


def emulate(code_or_path: str | os.PathLike[str], name: str, *, options: Sequence[str] = ()) -> EmulatedKernel:
    """Compile a CUDA kernel for the CPU.

    Grids, blocks, shared memory, barriers, warp functions and atomics mean what they mean on a GPU. Arithmetic is IEEE
    and never contracted, as NVRTC's with ``--fmad=false``. Needs g++ or clang++; what it compiles is kept on disk.

    Parameters
    ----------
    code_or_path : str or path
        CUDA C++, or the path of a file that ends in ``.cu``.
    name : str
        The kernel's name; a template's with its arguments, as ``"sum<float, 256>"``.
    options : sequence of str
        As NVRTC's: ``-D``, ``-I`` and ``-std`` count, those that concern a GPU are ignored.

    Returns
    -------
    EmulatedKernel
        Called as ``k(grid, block, args, *, shared_mem=0)``.

    Raises
    ------
    CompileError
        If the source does not compile, has no such kernel, or there is no compiler.

    Examples
    --------
    >>> import numpy as np
    >>> code = '''
    ... extern "C" __global__ void axpy(float *y, const float *x, float a, int n) {
    ...   int i = blockIdx.x * blockDim.x + threadIdx.x;
    ...   if (i < n) y[i] += a * x[i];
    ... }'''
    >>> axpy = emulate(code, "axpy")
    >>> y = np.zeros(1000, np.float32)
    >>> axpy(4, 256, (y, np.arange(1000, dtype=np.float32), np.float32(2), np.int32(1000)))
    >>> y[-1]
    np.float32(1998.0)
    """
    return EmulatedKernel(*find(load_source(code_or_path, tuple(options)), name))
