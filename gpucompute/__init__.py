"""Write the array program once in NumPy's words; it runs as one fused kernel, with the same bits everywhere.

The package is a namespace of the Python array API standard, with NumPy's other functions beside it. Names are
imported when they are first used: ``import gpucompute`` loads neither numba nor any library of arrays.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__array_api_version__ = "2025.12"

# What type checkers and editors see of the lazy names. NumPy's stay Any: its stubs refuse `device="cuda"`.
if TYPE_CHECKING:
    from . import chunked as chunked
    from . import cluster as cluster
    from . import fft as fft
    from . import image as image
    from . import linalg as linalg
    from . import memory as memory
    from . import stats as stats
    from .errors import ChunkError as ChunkError
    from .errors import ClusterError as ClusterError
    from .errors import CompileError as CompileError
    from .errors import DeviceError as DeviceError
    from .errors import DeviceMemoryError as DeviceMemoryError
    from .errors import DTypeError as DTypeError
    from .errors import FusionError as FusionError
    from .errors import GpucomputeError as GpucomputeError
    from .errors import LaunchError as LaunchError
    from .errors import MissingExtraError as MissingExtraError
    from .errors import OptionError as OptionError
    from .errors import OutOfRangeError as OutOfRangeError
    from .errors import ShapeError as ShapeError
    from .fusion import Explanation as Explanation
    from .fusion import fuse as fuse
    from .fusion import reduction as reduction
    from .fusion import vectorize as vectorize
    from .hardware import Device as Device
    from .hardware import asarray as asarray
    from .hardware import asnumpy as asnumpy
    from .hardware import device as device
    from .hardware import devices as devices
    from .hardware import use as use
    from .hashing import digest as digest
    from .launch.cache import cache_info as cache_info
    from .launch.cpu import get_threads as get_threads
    from .launch.cpu import set_threads as set_threads
    from .launch.transfers import pinned_empty as pinned_empty
    from .namespace import __array_namespace_info__ as __array_namespace_info__
    from .profiling import Profile as Profile
    from .profiling import profile as profile
    from .raw import RawKernel as RawKernel
    from .raw import RawModule as RawModule

# Where each public name lives. No module may bear the name of a public function: importing it would overwrite it.
_HOMES = {
    name: home
    for home, names in {
        "errors": "ChunkError ClusterError CompileError DTypeError DeviceError DeviceMemoryError FusionError "
        "GpucomputeError LaunchError MissingExtraError OptionError OutOfRangeError ShapeError",
        "fusion": "Explanation fuse reduction vectorize",
        "hardware": "Device asarray asnumpy device devices use",
        "hashing": "digest",
        "launch.cache": "cache_info",
        "launch.cpu": "get_threads set_threads",
        "launch.transfers": "pinned_empty",
        "namespace": "__array_namespace_info__",
        "profiling": "Profile profile",
        "raw": "RawKernel RawModule",
    }.items()
    for name in names.split()
}
_MODULES = frozenset(["chunked", "cluster", "fft", "image", "linalg", "memory", "stats"])


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    elif name == "__all__":
        value = _starred()
    elif name.startswith("_"):  # Python and its tools ask for many such; NumPy need not be loaded to say no
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name)
    elif find_spec(f"{__name__}.{name}") is not None:
        value = import_module(f".{name}", __name__)
    else:
        value = _namespace().lookup(name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*_namespace().names(), *_HOMES, *_MODULES, "__version__", "__array_api_version__"})


def _starred() -> list[str]:
    return sorted({*_namespace().starred(), *(name for name in _HOMES if not name.startswith("_")), *_MODULES})


def _namespace() -> Any:
    # "from . import namespace" would first ask __getattr__ for the name, and come back here.
    return import_module(".namespace", __name__)
