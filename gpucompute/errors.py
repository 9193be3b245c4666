"""The errors that gpucompute raises.

Every class derives from `GpucomputeError` and from the built-in that Python programmers would catch
for the same mistake. Messages say what was got, what was expected and what to do.
"""

from __future__ import annotations


class GpucomputeError(Exception):
    """Base of all errors raised on purpose by gpucompute."""


class FusionError(GpucomputeError, TypeError):
    """A function given to `fuse` does something that cannot become part of a kernel."""


class ShapeError(GpucomputeError, ValueError):
    """An argument has the wrong shape or number of dimensions."""


class DTypeError(GpucomputeError, TypeError):
    """An argument has a dtype that the operation does not take."""


class OptionError(GpucomputeError, ValueError):
    """An option has a value that is not one of those it can have."""


class DeviceError(GpucomputeError, RuntimeError):
    """A device was asked for that is not there, or arrays are on different devices."""


class OutOfRangeError(GpucomputeError, IndexError):
    """An index computed inside a kernel lies outside the array it reads."""


class MissingExtraError(GpucomputeError, ImportError):
    """An optional dependency is needed and not installed."""

    def __init__(self, module: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {module!r}, which is not installed; "
            f"install it with: pip install 'gpucompute[{extra}]'"
        )
        self.extra = extra


class CompileError(GpucomputeError, RuntimeError):
    """CUDA C++ or PTX does not compile; the compiler's own words are in the message."""


class LaunchError(DeviceError):
    """The CUDA driver refused a kernel, or a kernel failed while it ran."""


class DeviceMemoryError(MemoryError, GpucomputeError):  # in this order tblib of Dask's workers can send it
    """A device has not enough memory, even after the idle blocks of its pool were freed."""


class PtxError(GpucomputeError, RuntimeError):
    """PTX text cannot be read, or a kernel that is interpreted does something that no GPU would do for it."""


class ClusterError(GpucomputeError, RuntimeError):
    """A cluster did not come up, or its workers cannot run what is sent to them."""


class ChunkError(GpucomputeError, OSError):
    """A part of a store cannot be read, or is damaged; the message names the store, the chunk and the cause."""
