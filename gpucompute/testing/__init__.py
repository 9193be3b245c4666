"""CUDA kernels without a GPU: run, checked and interpreted on the CPU.

`emulate` runs CUDA C++, `check` looks for its bugs, `run_ptx` interprets PTX. What tests of GPU code need from pytest
is in `plugin`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .emulator.checking import check as check
    from .emulator.kernel import emulate as emulate
    from .emulator.report import Report as Report
    from .ptx import run_ptx as run_ptx

# Names are imported when they are first used: this package is also where pytest finds the plugin.
_HOMES = {
    "check": "emulator.checking",
    "emulate": "emulator.kernel",
    "Report": "emulator.report",
    "run_ptx": "ptx",
}
__all__ = ["Report", "check", "emulate", "run_ptx"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
