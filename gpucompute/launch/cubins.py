"""Machine code for GPUs: in memory, on disk per architecture, or compiled now. No GPU is needed to make it.

The key of a cubin is a hash of all that decides it: the source with the files that it includes, options,
architecture, and the versions of the compilers' packages. A process that finds its cubins on disk loads no compiler.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from .. import config
from . import disk, forks, nvrtc

_MAGIC = b"gpucompute cubin 1\n"
_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*"([^"\n]+)"', re.MULTILINE)
_VARIANT = re.compile(r"^//[ \t]*options:(.*)$", re.MULTILINE)
# What compiles: a package of one of these names may be installed, for CUDA 12 or 13.
_COMPILERS = (
    *("cuda-bindings", "nvidia-cuda-nvrtc", "nvidia-cuda-nvrtc-cu12", "nvidia-nvjitlink", "nvidia-nvjitlink-cu12"),
    *("numba", "numba-cuda"),
)

_memory: dict[str, bytes] = {}
_lock = forks.renewed_lock(globals())
counts = {"compiled": 0, "loaded": 0, "hits": 0}


class Cubin(NamedTuple):
    """Machine code, and the symbols in it of kernels that were asked for by a C++ name."""

    code: bytes
    symbols: dict[str, str]


def folder(arch: str) -> Path:
    """Return the folder of the cubins for an architecture (it may not exist yet)."""
    return config.cache_dir() / "cubins" / nvrtc.check_architecture(arch)


def size() -> tuple[int, int]:
    """Return how many cubins are in memory, and their bytes."""
    with _lock:
        return len(_memory), sum(map(len, _memory.values()))


def cached(parts: Iterable[str], arch: str, make: Callable[[], bytes]) -> bytes:
    """Return what `make` gave, here or in any process, for the same `parts` and architecture.

    Parameters
    ----------
    parts : iterable of str
        All that decides the code besides the architecture and the versions of the compilers.
    arch : str
        Such as ``"sm_90"``.
    make : callable
        ``make() -> bytes``; called only when neither memory nor disk has it.
    """
    key = hashlib.sha256("\0".join((arch, versions(), *parts)).encode()).hexdigest()
    with _lock:
        code = _memory.get(key)
        if code is not None:
            counts["hits"] += 1
            return code
        path = folder(arch) / f"{key}.cubin"
        code = disk.read(path, _MAGIC)
        if code is not None:
            counts["loaded"] += 1
        else:
            code = make()
            counts["compiled"] += 1
            disk.write(path, _MAGIC, code)
        _memory[key] = code
        return code


@functools.cache
def versions() -> str:
    """Return which compilers are installed, by their packages, so that none need be loaded to know its version."""
    found = [os.environ.get(name, "") for name in ("CUDA_HOME", "CUDA_PATH")]  # a toolkit that may stand before them
    for name in _COMPILERS:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return "\n".join(found)


def from_cuda(
    source: str | Path, arch: str, options: Sequence[str] = (), *, expressions: Sequence[str] = (), name: str = ""
) -> Cubin:
    """Return the cubin of CUDA C++: a text, or the path of a file.

    Parameters
    ----------
    source : str or Path
        The text, or a `Path`. What it includes with quotes is looked for beside the file and in ``-I`` folders.
    arch, options, expressions, name
        As for `nvrtc.compile_cuda`; `name` is the file's by default.

    Raises
    ------
    CompileError
        With the compiler's log.
    """
    places = [Path(option[2:]) for option in options if option.startswith("-I") and len(option) > 2]
    if isinstance(source, Path):
        places.insert(0, source.resolve().parent)
        name, text = name or source.name, source.read_text(encoding="utf-8")
    else:
        text = source
    included = list(_included(text, tuple(places), set()))

    def make() -> bytes:
        flags = [*options, f"--include-path={places[0]}"] if isinstance(source, Path) else options
        code, symbols = nvrtc.compile_cuda(text, arch, flags, name=name or "kernel.cu", expressions=expressions)
        return json.dumps(symbols).encode() + b"\n" + code

    parts = ["cuda", text, repr(list(options)), repr(list(expressions)), repr(nvrtc.DEFAULTS), *included]
    symbols, code = cached(parts, arch, make).split(b"\n", 1)
    return Cubin(code, json.loads(symbols))


def from_ptx(ptx: str, arch: str) -> bytes:
    """Return the cubin of PTX; not cached here, for whoever made the PTX knows a key that spares making it."""
    return nvrtc.compile_ptx(ptx, arch)


def _included(text: str, places: tuple[Path, ...], seen: set[Path]) -> Iterator[str]:
    """Yield the texts of the files that `text` includes with quotes, and of those that they include."""
    for wanted in _INCLUDE.findall(text):
        path = next((place / wanted for place in places if (place / wanted).is_file()), None)
        if path is not None and path not in seen:
            seen.add(path)
            inner = path.read_text(encoding="utf-8")
            yield f"{wanted}\n{inner}"
            yield from _included(inner, (path.parent, *places), seen)


def variants(text: str) -> list[tuple[str, ...]]:
    r"""Return the options of each variant that a ``.cu`` file names in its comments, or one without options.

    >>> variants("// options: -DGC_T=float -DGC_BLOCK=256\n// options: -DGC_T=double")
    [('-DGC_T=float', '-DGC_BLOCK=256'), ('-DGC_T=double',)]
    >>> variants("no such comment")
    [()]
    """
    return [tuple(line.split()) for line in _VARIANT.findall(text)] or [()]


def build(files: Iterable[Path], architectures: Sequence[str]) -> Iterator[tuple[Path, tuple[str, ...], str, int]]:
    """Compile all variants of CUDA C++ files into the cache; yield the file, options, architecture and bytes."""
    for path in files:
        for options in variants(path.read_text(encoding="utf-8")):
            for arch in architectures:
                yield path, options, arch, len(from_cuda(path, arch, options).code)


def own_files() -> list[Path]:
    """Return the CUDA C++ files of this package."""
    from .. import kernels as package

    return sorted(path for root in package.__path__ for path in (Path(root) / "cuda").glob("*.cu"))


def clear() -> None:
    """Forget the cubins in memory; those on disk stay."""
    with _lock:
        _memory.clear()
