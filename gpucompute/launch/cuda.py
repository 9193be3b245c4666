"""The way of every kernel on to a GPU: `Function.launch`.

It puts a launch on the device that holds the arrays and on the stream that is current there, loads a cubin once for
each device, and makes the driver's errors ours. Nothing here waits for a device, except with ``GPUCOMPUTE_SYNC=1``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike

from . import arrays, cubins, drivers, faults, forks, streams

Dim = tuple[int, int, int]
Image = bytes | Callable[[str], bytes]
_NO_LAUNCHER = None, 0
_lock = forks.renewed_lock(globals())


class Observer(Protocol):
    """What `gpucompute.profile` puts around launches."""

    def watch(
        self,
        function: Function,
        driver: drivers.Driver,
        device: int,
        stream: Any,
        operands: Sequence[Any],
        nbytes: int | None,
    ) -> AbstractContextManager[Any]:
        """Return a context for one launch."""


observer: Observer | None = None


class Module:
    """Kernels that were compiled together, and are loaded together on each device that one is launched on.

    Parameters
    ----------
    image : bytes or callable
        The cubin; or ``image(arch: str) -> bytes``, asked once for each architecture in use.
    """

    __slots__ = ("_granted", "_image", "_loaded")

    def __init__(self, image: Image) -> None:
        self._image = image
        self._loaded: dict[tuple[drivers.Driver, int], Any] = {}
        self._granted: dict[tuple[drivers.Driver, int, str], int] = {}

    def on(self, driver: drivers.Driver, device: int) -> Any:
        """Return the module as a driver loaded it on a device."""
        loaded = self._loaded.get((driver, device))
        if loaded is None:
            image = self._image
            code = image if isinstance(image, bytes) else image(architecture(device))
            loaded = self._loaded[driver, device] = driver.load(device, code)
        return loaded

    def launcher(
        self, driver: drivers.Driver, device: int, symbol: str, parameters: str, shared: int
    ) -> tuple[drivers.Launcher, int]:
        """Return what launches a kernel on a device, and the bytes of dynamic shared memory that it may ask for.

        Functions that share a module share the kernel, whose limit the driver only sets anew: it is never lowered.
        """
        key = driver, device, symbol
        module = self.on(driver, device)
        with _lock:
            granted = max(shared, self._granted.get(key, 0))
            launcher = driver.launcher(device, module, symbol, parameters, granted)
            self._granted[key] = granted  # only now: the driver may have refused
        return launcher, granted


class Function:
    """A kernel, loaded on the devices that it is launched on.

    Parameters
    ----------
    image : bytes, callable or Module
        The cubin; or ``image(arch: str) -> bytes``, asked once for each architecture in use; or a module that several
        functions share.
    symbol : str
        The kernel's name in it.
    parameters : str
        The types of its parameters as the module `struct` names them; ``"P"`` is an address. With a leading ``"<"``
        there is no alignment but by ``"x"``.
    label : str, optional
        What errors and `gpucompute.profile` call it; by default the symbol.
    """

    __slots__ = ("_launchers", "_module", "label", "parameters", "symbol")

    def __init__(self, image: Image | Module, symbol: str, parameters: str, *, label: str = "") -> None:
        self.symbol, self.parameters, self.label = symbol, parameters, label or symbol
        self._module = image if isinstance(image, Module) else Module(image)
        self._launchers: dict[tuple[drivers.Driver, int], tuple[drivers.Launcher, int]] = {}

    def __repr__(self) -> str:
        return f"<CUDA kernel {self.label}>"

    def launch(
        self,
        grid: Dim,
        block: Dim,
        words: Sequence[Any],
        shared_mem: int = 0,
        stream: Any = None,
        device: int = 0,
        operands: Sequence[Any] = (),
        nbytes: int | None = None,
    ) -> None:
        """Launch the kernel and return at once.

        Parameters
        ----------
        grid, block : tuple of three int
            Blocks in the grid, and threads in a block. Nothing is launched for a grid without blocks.
        words : sequence of numbers
            The values of the parameters.
        shared_mem : int
            Bytes of dynamic shared memory for each block.
        stream : stream, optional
            Of CuPy, PyCUDA, PyTorch or numba; by default the one that CuPy has current, or the null stream.
        device : int
            The index of the device that holds the arrays.
        operands : sequence of arrays
            Named in errors; kept alive by nobody. The launch comes after the stream that one of another library names.
        nbytes : int, optional
            Bytes read and written, for `gpucompute.profile`; by default those of the operands.

        Raises
        ------
        LaunchError
            The driver refuses; the message says what to do.
        DeviceMemoryError
            The device is full, also after the pool's idle blocks were freed.
        """
        if 0 in grid:
            return
        driver, native = streams.choose(stream, device)
        if None in map(arrays.asked, map(type, operands)):  # not CuPy's and PyCUDA's arrays only
            streams.follow(operands, driver, device, native)
        for freed in (False, True):
            try:
                launcher, granted = self._launchers.get((driver, device), _NO_LAUNCHER)
                if launcher is None or shared_mem > granted:
                    launcher, granted = self._launchers[driver, device] = self._module.launcher(
                        driver, device, self.symbol, self.parameters, shared_mem
                    )
                if observer is None:
                    launcher(grid, block, words, shared_mem, native)
                else:
                    with observer.watch(self, driver, device, native, operands, nbytes):
                        launcher(grid, block, words, shared_mem, native)
                break
            except Exception as error:
                if not faults.of_the_driver(error):
                    raise
                if freed or not drivers.out_of_memory(error):
                    raise faults.translated(error, self._what(grid, block, shared_mem, device, operands)) from error
            drivers.free_idle()
        if faults.synchronous():
            what = functools.partial(self._what, grid, block, shared_mem, device, operands)
            faults.synchronize(driver, device, native, what)

    def _what(self, grid: Dim, block: Dim, shared: int, device: int, operands: Sequence[Any]) -> str:
        text = f"kernel {self.label!r} on cuda:{device}, grid {tuple(grid)}, block {tuple(block)}"
        if shared:
            text += f", {shared} bytes of dynamic shared memory"
        return text + (f", arrays {faults.describe(operands)}" if operands else "")


@functools.cache
def own_kernel(stem: str, name: str, parameters: str) -> Function:
    """Return a kernel of ``kernels/cuda/<stem>.cu``; `parameters` as for `Function`."""
    return Function(_own_module(stem), name, parameters)


@functools.cache
def _own_module(stem: str) -> Module:
    path = next(path for path in cubins.own_files() if path.stem == stem)
    return Module(lambda arch: cubins.from_cuda(path, arch).code)


def architecture(device: int = 0) -> str:
    """Return the architecture of a device as compilers call it, such as ``"sm_90"``."""
    major, minor = drivers.preferred().capability(device)
    return f"sm_{major}{minor}"


def empty(shape: int | Sequence[int], dtype: DTypeLike, device: int = 0) -> Any:
    """Return an uninitialised array in C order on a device: CuPy's, from its pool; where there is no CuPy, PyCUDA's.

    Raises
    ------
    DeviceMemoryError
        The device is full, also after the pool's idle blocks were freed.
    """
    whole = (shape,) if isinstance(shape, int) else tuple(shape)
    kind = np.dtype(dtype)
    driver = drivers.for_arrays()
    try:
        return drivers.with_memory(lambda: driver.empty(whole, kind, device))
    except Exception as error:
        raise faults.translated(error, f"an array of {kind} {whole} on cuda:{device}") from error


def synchronize(device: int = 0, stream: Any = None) -> None:
    """Wait for a stream (by default the current one) and raise what its kernels have found wrong."""
    driver, native = streams.choose(stream, device)
    faults.synchronize(driver, device, native, lambda: f"work on cuda:{device}")
