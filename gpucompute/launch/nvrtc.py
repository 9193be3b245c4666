"""CUDA C++ and PTX to machine code for a given architecture: NVIDIA's compilers as libraries, called without a GPU.

NVRTC and nvJitLink come from PyPI with the extras ``cuda12`` and ``cuda13``; no CUDA toolkit and no nvcc are needed.
A small kernel takes NVRTC 45 ms (nvcc: 400 to 670) and nvJitLink 20 ms from PTX. Code for the exact architecture also
avoids that a driver refuses PTX of a version newer than itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import CompileError, MissingExtraError, OptionError

# Plain arithmetic unless the caller asks otherwise: the bits are then those of the CPU. Later options win.
DEFAULTS = ("--std=c++17", "--fmad=false")
ARCHITECTURE = re.compile(r"sm_\d{2,3}[af]?")


def check_architecture(arch: str) -> str:
    """Return `arch` if it looks like ``sm_90``."""
    if not ARCHITECTURE.fullmatch(arch):
        raise OptionError(f"architecture {arch!r}: expected 'sm_' and the compute capability, such as 'sm_90'")
    return arch


def compile_cuda(
    source: str, arch: str, options: Sequence[str] = (), *, name: str = "kernel.cu", expressions: Sequence[str] = ()
) -> tuple[bytes, dict[str, str]]:
    """Compile CUDA C++ by NVRTC.

    Parameters
    ----------
    source : str
        May include CUDA's own headers (``cuda_fp16.h``) and what the options' ``-I`` folders hold; the C++ standard
        library's are not there.
    arch : str
        The architecture, such as ``"sm_90"``.
    options : sequence of str
        NVRTC's options, after `DEFAULTS`.
    name : str
        The file name in the compiler's messages.
    expressions : sequence of str
        C++ names of kernels that are not ``extern "C"``, such as ``"scale<float>"``; naming them instantiates them.

    Returns
    -------
    cubin : bytes
    symbols : dict
        The symbol of each of the `expressions` in the cubin.

    Raises
    ------
    CompileError
        With the compiler's log.
    """
    nvrtc = _bindings("nvrtc")
    flags = [f"--gpu-architecture={check_architecture(arch)}", *DEFAULTS, *options]
    flags += [f"--include-path={folder}" for folder in _headers()]
    program = _checked(nvrtc.nvrtcCreateProgram(source.encode(), name.encode(), 0, [], []))
    try:
        for expression in expressions:
            _checked(nvrtc.nvrtcAddNameExpression(program, expression.encode()))
        (status,) = nvrtc.nvrtcCompileProgram(program, len(flags), [flag.encode() for flag in flags])
        if status:
            log = _buffer(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, program)
            text = log.rstrip(b"\0").decode(errors="replace").strip() or status.name
            shown = " ".join([*DEFAULTS, *options])
            raise CompileError(f"{name} does not compile for {arch} with {shown}:\n{text}")
        symbols = {e: _checked(nvrtc.nvrtcGetLoweredName(program, e.encode())).decode() for e in expressions}
        return _buffer(nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN, program), symbols
    finally:
        nvrtc.nvrtcDestroyProgram(program)


def compile_ptx(ptx: str, arch: str, *, name: str = "kernel.ptx") -> bytes:
    """Assemble PTX by nvJitLink, whose version may be newer than the driver's, and return the cubin.

    Raises
    ------
    CompileError
        With the linker's log.
    """
    linker = _bindings("nvjitlink")
    code = ptx.encode().rstrip(b"\0 \n") + b"\n"
    handle = linker.create(1, [f"-arch={check_architecture(arch)}"])
    try:
        linker.add_data(handle, linker.InputType.PTX, code, len(code), name)
        linker.complete(handle)
        cubin = bytearray(linker.get_linked_cubin_size(handle))
        linker.get_linked_cubin(handle, cubin)
    except linker.nvJitLinkError as error:
        log = bytearray(linker.get_error_log_size(handle))
        linker.get_error_log(handle, log)
        text = log.rstrip(b"\0").decode(errors="replace").strip() or str(error)
        raise CompileError(f"{name} does not assemble for {arch}:\n{text}") from None
    finally:
        linker.destroy(handle)
    return bytes(cubin)


def _bindings(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(f"cuda.bindings.{name}")
    except ImportError as error:
        raise MissingExtraError("cuda-bindings", "cuda13", "compiling for a GPU") from error


def _headers() -> list[Path]:
    """Return the folders of CUDA's own headers, if there are any."""
    from cuda import pathfinder

    folder = pathfinder.find_nvidia_header_directory("cudart")
    return [] if folder is None else [Path(folder)]


def _checked(answer: tuple[Any, ...]) -> Any:
    """Return what a call of NVRTC gives besides its status."""
    status, *values = answer
    if status:
        raise CompileError(f"NVRTC: {status.name}")
    return values[0] if values else None


def _buffer(size: Any, fill: Any, program: Any) -> bytes:
    content = b" " * int(_checked(size(program)))  # the bindings write into the bytes object
    _checked(fill(program, content))
    return content
