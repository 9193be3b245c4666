"""Compiled kernels: in memory, on disk, or compiled now.

The key of a kernel is a hash of its source and of everything else that can change its code: the processor and its
features, the versions of numba and llvmlite, and the text of the functions that kernels call. On disk a kernel is
one file with its object code, written under another name first and then renamed, so that many processes can share a
folder. A file that cannot be read is compiled anew; a folder that cannot be written costs only speed.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import importlib.metadata
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import config
from .fingerprint import fingerprint

if TYPE_CHECKING:
    from .compiler import Unit

_MAGIC = b"gpucompute kernel 1\n"
_PROTOTYPE = ctypes.CFUNCTYPE(
    None, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64,
    ctypes.c_void_p,
)  # fmt: skip


class CacheInfo(NamedTuple):
    """How kernels were found, and how many there are.

    compiled, loaded, hits : compiled by numba, loaded from disk, found in memory (counts, of this process);
    entries : kernels in memory; bytes : their object code.
    """

    compiled: int
    loaded: int
    hits: int
    entries: int
    bytes: int


class _Entry(NamedTuple):
    address: int
    call: Callable[..., None]
    keep: Any  # what owns the machine code
    nbytes: int


_entries: dict[str, _Entry] = {}
_lock = threading.RLock()
_counts = {"compiled": 0, "loaded": 0, "hits": 0}


def _renew_lock() -> None:
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def cache_info() -> CacheInfo:
    """Return how many kernels were compiled, loaded from disk and found in memory so far.

    Examples
    --------
    >>> cache_info().compiled >= 0
    True
    """
    with _lock:
        return CacheInfo(**_counts, entries=len(_entries), bytes=sum(e.nbytes for e in _entries.values()))


def folder() -> Path:
    """Return the folder of kernels on disk (it may not exist yet)."""
    return config.cache_dir() / "kernels"


def function_for(kernel: Unit, fast: bool) -> Callable[..., None]:
    """Return the machine code of a stage's kernel, as a function that releases the GIL while it runs.

    `fast` lets the compiler contract and use reciprocals.
    """
    return _find(kernel, fast).call


def address_of(kernel: Unit, fast: bool) -> int:
    """Return where the machine code of a function lies that kernels call."""
    return _find(kernel, fast).address


def _find(kernel: Unit, fast: bool) -> _Entry:
    key, on_disk = _key(kernel, fast)
    with _lock:
        entry = _entries.get(key)
        if entry is not None:
            _counts["hits"] += 1
            return entry
        entry = _load(key) if on_disk else None
        if entry is not None:
            _counts["loaded"] += 1
        else:
            entry = _compile(kernel, fast, key, on_disk)
            _counts["compiled"] += 1
        _entries[key] = entry
        return entry


def _key(kernel: Unit, fast: bool) -> tuple[str, bool]:
    """Return the key of a kernel, and whether other processes would find the same code under it."""
    users = [(name, fingerprint(user.function)) for name, user in sorted(kernel.users.items())]
    for name, fold in sorted(kernel.folds.items()):
        users += [(f"{name}.{part}", text) for part, text in fold.fingerprints()]
    shared = all(text is not None for _, text in users)
    if not shared:  # only this process knows the function: its identity tells it from others
        users = [(name, repr(id(user.function))) for name, user in sorted(kernel.users.items())]
    parts = [
        _surroundings(),
        str(fast),
        str(kernel.words),
        kernel.source,
        repr(sorted(kernel.folds.items())),
        repr(users),
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest(), shared


@functools.cache
def _surroundings() -> str:
    """What can change the code of any kernel: processor, versions, and the functions that kernels call."""
    import llvmlite.binding as llvm

    digest = hashlib.sha256()
    from .. import kernels as package

    for place in [Path(root) for root in package.__path__]:
        for path in sorted(place.rglob("*.py")):
            digest.update(path.read_bytes())
    digest.update(Path(__file__).with_name("compiler.py").read_bytes())
    versions = [importlib.metadata.version(name) for name in ("numba", "llvmlite")]
    return "\0".join([digest.hexdigest(), *versions, llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()])


def _compile(kernel: Unit, fast: bool, key: str, on_disk: bool) -> _Entry:
    from .compiler import compile_unit, stands_alone

    symbol, code, compiled = compile_unit(kernel, fast)
    if on_disk and stands_alone(compiled):
        _write(folder() / f"{key}.kernel", symbol, code)
    return _Entry(compiled.address, _PROTOTYPE(compiled.address), compiled, len(code))


def _write(path: Path, symbol: str, code: bytes) -> None:
    body = symbol.encode() + b"\n" + code
    temporary = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(_MAGIC + hashlib.sha256(body).digest() + body)
        os.replace(temporary, path)
    except OSError:  # read-only, full or gone: the next process compiles again
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _load(key: str) -> _Entry | None:
    """Return the kernel that another process, or this one earlier, has left on disk."""
    try:
        data = (folder() / f"{key}.kernel").read_bytes()
    except OSError:
        return None
    head = len(_MAGIC) + 32
    body = data[head:]
    if not data.startswith(_MAGIC) or hashlib.sha256(body).digest() != data[len(_MAGIC) : head]:
        return None  # cut short or of another make
    symbol, code = body.split(b"\n", 1)
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=3, jit=True
    )
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    address = engine.get_function_address(symbol.decode())
    return _Entry(address, _PROTOTYPE(address), engine, len(code)) if address else None
