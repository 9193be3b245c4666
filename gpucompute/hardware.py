"""Devices: which there are, which one is current, and how arrays come to them and back.

The current device decides where creation functions (`zeros`, `arange`, ...) and `asarray` put arrays; every other
function works where its arguments are.
"""

from __future__ import annotations

import contextlib
import contextvars
import ctypes
import functools
import importlib
import os
import platform
import re
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from . import detect
from .errors import DeviceError, DTypeError, MissingExtraError, OptionError

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

VARIABLE = "GPUCOMPUTE_DEVICE"


@dataclass(frozen=True)
class Device:
    """A place where arrays live; equal to another when kind and index are.

    Attributes
    ----------
    kind : {"cpu", "cuda"}
    index : int
        The number among devices of its kind, as CUDA counts the visible ones.
    name : str
        The processor's or graphics card's name.
    memory_total : int or None
        Physical memory in bytes; None where the system does not say.
    """

    kind: str
    index: int = 0
    name: str = field(default="", compare=False)
    memory_total: int | None = field(default=None, compare=False)

    @property
    def memory_free(self) -> int | None:
        """Memory that could be allocated now, in bytes; None where the system does not say."""
        if self.kind == "cpu":
            return _host_memory()[1]
        gpus = detect.search().gpus
        return detect.memory_free(gpus[self.index]) if self.index < len(gpus) else None

    def __str__(self) -> str:
        return "cpu" if self.kind == "cpu" else f"{self.kind}:{self.index}"


_chosen: contextvars.ContextVar[Device | None] = contextvars.ContextVar("gpucompute_device", default=None)


def devices() -> list[Device]:
    """Return the devices of this machine: the CPU first, then each GPU that CUDA would show.

    No CUDA context is started, and the process may fork afterwards.

    Examples
    --------
    >>> import gpucompute as gp
    >>> gp.devices()[0].kind
    'cpu'
    """
    gpus = detect.search().gpus
    return [_cpu(), *(Device("cuda", index, gpu.name, gpu.memory) for index, gpu in enumerate(gpus))]


def device() -> Device:
    """Return the current device: that of the innermost `use`, else ``GPUCOMPUTE_DEVICE``, else the CPU.

    Raises
    ------
    OptionError
        ``GPUCOMPUTE_DEVICE`` has a value that names no device.
    DeviceError
        The device it names is not there.
    """
    return chosen() or _cpu()


def use(device: str | Device) -> AbstractContextManager[Device]:
    """Make `device` the current one inside a ``with`` block, for this thread or asynchronous task.

    Parameters
    ----------
    device : {"cpu", "cuda", "cuda:1", ...} or Device
        ``"cuda"`` is ``"cuda:0"``.

    Returns
    -------
    context manager
        Gives the `Device`. Arrays that exist stay where they are.

    Raises
    ------
    DeviceError
        The device is not there; the message says what was looked for.

    Examples
    --------
    >>> import gpucompute as gp
    >>> with gp.use("cpu"):
    ...     x = gp.zeros(3)
    """
    # Resolved here and not on entry, so that a call whose result is thrown away still reports a wrong name.
    return _using(resolve(device))


@contextmanager
def _using(device: Device) -> Iterator[Device]:
    token = _chosen.set(device)
    try:
        yield device
    finally:
        _chosen.reset(token)


def chosen(device: Any = None) -> Device | None:
    """Return the device asked for: `device`, else that of `use` or the environment; None if nobody asked."""
    if device is not None:
        return resolve(device)
    current = _chosen.get()
    if current is None and (text := os.environ.get(VARIABLE)):
        return resolve(text, f"{VARIABLE}=")
    return current


def resolve(device: Any, source: str = "device ") -> Device:
    """Return the `Device` that a name, a `Device` or a ``cupy.cuda.Device`` means, if it is there."""
    if device == "cpu":
        return _cpu()
    if type(device).__module__.partition(".")[0] == "cupy":
        device = f"cuda:{device.id}"
    match = re.fullmatch(r"cpu|cuda(?::(\d+))?", str(device))
    if match is None:
        raise OptionError(f"{source}{device!r}: expected 'cpu', 'cuda' or 'cuda:<index>'; usable here: {_names()}")
    if match[0] == "cpu":
        return _cpu()
    index = int(match[1] or 0)
    found = detect.search()
    gpus = found.gpus
    if not found.cupy or not gpus or (found.counted and index >= len(gpus)):
        reasons = "".join(f"\n  - {line}" for line in found.looked)
        raise DeviceError(
            f"{source}{str(device)!r} is not usable here; usable: {_names()}. Looked at:{reasons}\n"
            "Use 'cpu', or mend what is missing above."
        )
    gpu = gpus[min(index, len(gpus) - 1)]
    return Device("cuda", index, gpu.name, gpu.memory)


def _names() -> str:
    found = detect.search()
    names = ["cpu", *(f"cuda:{index}" for index in range(len(found.gpus)) if found.cupy)]
    return ", ".join(map(repr, names))


def asarray(
    x: Any,
    dtype: DTypeLike | None = None,
    device: str | Device | None = None,
    *,
    copy: bool | None = None,
    order: Any = None,
    stream: Any = None,
) -> Any:
    """Return `x` as an array on a device, without a copy where none is needed.

    Parameters
    ----------
    x : array_like
        A number, nested lists, an array of NumPy, CuPy or Dask, or anything with DLPack, the buffer protocol
        or ``__cuda_array_interface__`` (PyTorch, JAX, numba).
    dtype : dtype, optional
        The dtype of the result; by default that of `x`.
    device : str or Device, optional
        Where the result shall be. By default the current device, if one was chosen by `use` or
        ``GPUCOMPUTE_DEVICE``; otherwise an array stays where it is, and the rest goes to the CPU.
    copy : bool, optional
        True: always copy. False: raise ValueError where a copy is needed. None: copy where needed.
    order : {"C", "F", "A", "K"}, optional
        Memory layout, as for `numpy.asarray`.
    stream : stream, optional
        Of CuPy, PyCUDA, PyTorch or numba: queue a copy to or from a GPU on it and do not wait. What is in page-locked
        memory (`pinned_empty`) is then copied while the CPU works on, and must not be changed before the stream has
        come there; an array that is copied to the CPU is filled when `stream` is done.

    Returns
    -------
    numpy.ndarray or cupy.ndarray
        A Dask array stays a Dask array, with its chunks on the device.

    Examples
    --------
    >>> import gpucompute as gp
    >>> gp.asarray([1, 2, 3], dtype="float32")
    array([1., 2., 3.], dtype=float32)
    """
    import numpy as np

    target = chosen(device)
    library = library_of(x)
    if library == "traced":
        return x if dtype is None else x.astype(dtype)
    if library == "dask":
        x = x if dtype is None else x.astype(dtype)
        return x if target is None else x.to_backend("numpy" if target.kind == "cpu" else "cupy")
    on_gpu = hasattr(x, "__cuda_array_interface__")
    to_gpu = on_gpu if target is None else target.kind == "cuda"
    if on_gpu != to_gpu and copy is False:
        raise ValueError(f"copy=False, but {type(x).__name__} must be copied to reach {target}; use copy=None")
    if to_gpu:
        cupy = import_cupy()
        with on(target), _on_stream(cupy, stream):
            return cupy.asarray(x, dtype=dtype, order=order, copy=copy)
    if on_gpu:
        x, copy = (asnumpy(x) if stream is None else _get(x, stream)), None
    return np.asarray(for_numpy(x), dtype=dtype, order=order, copy=copy)


def asnumpy(x: Any) -> NDArray[Any]:
    """Return `x` as a NumPy array in the memory of the CPU, without a copy if it is there already.

    Parameters
    ----------
    x : array_like
        As for `asarray`. A Dask array is computed; an array on a GPU is copied once its kernels are done.

    Returns
    -------
    numpy.ndarray
        Of the dtype and shape of `x`.

    Examples
    --------
    >>> import gpucompute as gp
    >>> gp.asnumpy([[1, 2], [3, 4]]).shape
    (2, 2)
    """
    import numpy as np

    if library_of(x) == "dask":
        x = x.compute()
    if hasattr(x, "__cuda_array_interface__"):
        values = import_cupy().asarray(x).get()
        if (faults := sys.modules.get("gpucompute.launch.faults")) is not None:
            faults.check()  # an index out of range, found by a kernel that this has waited for
        return values  # type: ignore[no-any-return]
    return np.asarray(for_numpy(x))


def for_numpy(x: Any) -> Any:
    """Return `x`, or for PyTorch's bfloat16, which NumPy lacks and refuses, the same memory as ml_dtypes' bfloat16.

    Raises
    ------
    DTypeError
        ml_dtypes is not installed.
    """
    if "torch" not in sys.modules or str(getattr(x, "dtype", "")) != "torch.bfloat16":
        return x
    try:
        import ml_dtypes
    except ImportError:
        raise DTypeError(
            f"got a tensor of torch.bfloat16 {tuple(x.shape)}, which NumPy does not have; "
            "install it (pip install ml_dtypes), or convert the tensor with x.float()"
        ) from None
    return x.view(sys.modules["torch"].int16).numpy().view(ml_dtypes.bfloat16)


def dtype_of(x: Any) -> Any:
    """Return the NumPy dtype of an array of any library; PyTorch's tensors have another in ``x.dtype``."""
    import numpy as np

    if isinstance(x.dtype, np.dtype):
        return x.dtype
    interface = getattr(x, "__cuda_array_interface__", None)
    return np.asarray(for_numpy(x)).dtype if interface is None else np.dtype(interface["typestr"])


def _on_stream(cupy: Any, stream: Any) -> AbstractContextManager[Any]:
    if stream is None:
        return contextlib.nullcontext()
    from .launch import drivers

    return drivers.on_stream(cupy, stream)


def _get(x: Any, stream: Any) -> NDArray[Any]:
    """Queue a copy to page-locked memory."""
    from .launch import transfers

    cupy = import_cupy()
    there = cupy.asarray(x)
    out = transfers.pinned_empty(there.shape, there.dtype)
    with on(Device("cuda", int(there.device.id))), _on_stream(cupy, stream):
        there.get(out=out, blocking=False)
    return out


# The array classes that are told apart, as (top-level module, class name) of any base; "traced" is fuse's proxy.
_LIBRARIES = {("cupy", "ndarray"): "cupy", ("dask", "Array"): "dask", ("gpucompute", "Traced"): "traced"}


def library_of(x: Any) -> str:
    """Return "cupy", "dask", "traced" or, for all else, "numpy", importing none of them."""
    kind: Any = type(x)
    return library_of_type(kind)


@functools.lru_cache(maxsize=1024)
def library_of_type(kind: type) -> str:
    """Return what `library_of` returns for the instances of a class."""
    for base in kind.__mro__:
        library = _LIBRARIES.get((base.__module__.partition(".")[0], base.__name__))
        if library is not None:
            return library
    return "numpy"


def on(device: Device | None) -> AbstractContextManager[Any]:
    """Return a context in which CuPy works on `device`; None leaves its choice alone."""
    return contextlib.nullcontext() if device is None else import_cupy().cuda.Device(device.index)


def import_cupy() -> Any:
    """Return the module CuPy; importing it starts no context."""
    try:
        return importlib.import_module("cupy")
    except ImportError as error:
        raise MissingExtraError("cupy", "cuda13", "working with arrays on a GPU") from error


@functools.lru_cache(maxsize=1)
def _cpu() -> Device:
    return Device("cpu", 0, _processor(), _host_memory()[0])


def _processor() -> str:
    # platform.processor() is empty on most Linux systems.
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _host_memory() -> tuple[int | None, int | None]:
    """Return the CPU's physical memory and what of it is available, in bytes."""
    if sys.platform == "win32":
        return _windows_memory()
    page = os.sysconf("SC_PAGE_SIZE")
    total = page * os.sysconf("SC_PHYS_PAGES")
    # Linux's MemAvailable counts caches that can be given up; SC_AVPHYS_PAGES does not, and macOS lacks both.
    with contextlib.suppress(OSError), open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return total, int(line.split()[1]) * 1024
    with contextlib.suppress(ValueError, OSError):
        return total, page * os.sysconf("SC_AVPHYS_PAGES")
    return total, None


def _windows_memory() -> tuple[int | None, int | None]:
    class Status(ctypes.Structure):  # MEMORYSTATUSEX
        _fields_ = [
            ("length", ctypes.c_ulong),
            ("load", ctypes.c_ulong),
            *((name, ctypes.c_ulonglong) for name in ("total", "free", "a", "b", "c", "d", "e")),
        ]

    status = Status()
    status.length = ctypes.sizeof(Status)
    kernel: Any = getattr(ctypes, "windll").kernel32  # noqa: B009 - the attribute exists on Windows only
    known = bool(kernel.GlobalMemoryStatusEx(ctypes.byref(status)))
    return (int(status.total), int(status.free)) if known else (None, None)
