"""Compiled kernels: in memory, on disk, or compiled now.

The key of a kernel is a hash of its source and of everything else that can change its code: the processor and its
features, the versions of numba and llvmlite, and the text of the functions that kernels call. On disk a kernel is
one file (`disk`) with machine code that needs no linker (`flat`), or else its object code, which LLVM loads.

Processes of a machine that need a new kernel at the same moment compile it once: the first leaves a claim beside the
place of the file, and the others wait until it has gone, up to `PATIENCE`. Whatever goes wrong there costs only speed.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import importlib.metadata
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import config
from . import disk, flat, forks
from .fingerprint import fingerprint, without_addresses

if TYPE_CHECKING:
    from .compiler import Unit

_MAGIC = b"gpucompute kernel 2\n"
PATIENCE = 20.0  # seconds that a claim holds for others; a kernel compiles in one, or in a few on a busy machine
_TELLING = {"vendor_id", "cpu family", "model", "flags"}  # lines of /proc/cpuinfo on x86-64
_FLAT, _OBJECT = b"flat\n", b"object\n"
_PROTOTYPE = ctypes.CFUNCTYPE(
    None, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64,
    ctypes.c_void_p,
)  # fmt: skip


class CacheInfo(NamedTuple):
    """How kernels were found, and how many there are.

    compiled, loaded, hits : compiled, loaded from disk, found in memory (counts, of this process); entries : kernels
    in memory; bytes : their machine code. Those for GPUs count too.
    """

    compiled: int
    loaded: int
    hits: int
    entries: int
    bytes: int


class Entry(NamedTuple):
    """The machine code of a kernel.

    call : the kernel as a function that releases the GIL while it runs; keep : what owns the code; raises : it may
    raise, which a call of it in C does not show (see `raised`).
    """

    address: int
    call: Callable[..., None]
    keep: Any
    nbytes: int
    raises: bool = False


_entries: dict[str, Entry] = {}
_lock = forks.renewed_lock(globals())
_counts = {"compiled": 0, "loaded": 0, "hits": 0}


def cache_info() -> CacheInfo:
    """Return how many kernels were compiled, loaded from disk and found in memory so far.

    Examples
    --------
    >>> cache_info().compiled >= 0
    True
    """
    from . import cubins

    entries, nbytes = cubins.size()
    with _lock:
        counts = {name: count + cubins.counts[name] for name, count in _counts.items()}
        nbytes += sum(entry.nbytes for entry in _entries.values())
        return CacheInfo(**counts, entries=entries + len(_entries), bytes=nbytes)


def folder() -> Path:
    """Return the folder of kernels on disk (it may not exist yet)."""
    return config.cache_dir() / "kernels"


def find(kernel: Unit, fast: bool) -> Entry:
    """Return a kernel's machine code; `fast` lets the compiler contract and use reciprocals."""
    key, on_disk = _key(kernel, fast)
    with _lock:
        entry = _entries.get(key)
        if entry is not None:
            _counts["hits"] += 1
            return entry
        how, entry = _make(kernel, fast, key, on_disk)
        _counts[how] += 1
        _entries[key] = entry
        return entry


def find_own(function: Unit) -> Entry:
    """Return the machine code of a function of this package's, of which `cache_info` does not tell."""
    with _lock:
        return _make(function, False, *_key(function, False))[1]


def _make(kernel: Unit, fast: bool, key: str, on_disk: bool) -> tuple[str, Entry]:
    """Load or compile a kernel; say which."""
    how, entry = "loaded", _load(key) if on_disk else None
    if entry is None:
        with _turn(folder() / f"{key}.claim") if on_disk else contextlib.nullcontext():
            entry = _load(key) if on_disk else None  # another process may have made it meanwhile
            if entry is None:
                how, entry = "compiled", _compile(kernel, fast, key, on_disk)
    return how, entry


@contextlib.contextmanager
def _turn(claim: Path) -> Iterator[None]:
    """Be the only process of those that share the cache to compile a kernel, or wait for the one that does."""
    mine = f"{socket.gethostname()} {os.getpid()}"
    end = time.monotonic() + PATIENCE
    made = False
    with contextlib.suppress(OSError):  # the folder cannot be written to
        claim.parent.mkdir(parents=True, exist_ok=True)
        made = _made(claim, mine)
        while not made and _holds(claim) and time.monotonic() < end:
            time.sleep(0.01)
    # Who has waited compiles without a claim if there is no file even now: some kernels cannot be kept on disk.
    try:
        yield
    finally:
        if made:
            with contextlib.suppress(OSError):
                claim.unlink()


def _made(claim: Path, mine: str) -> bool:
    """Return whether a claim could be made: there was none, or one that no longer holds."""
    for _ in range(2):
        try:
            with claim.open("x") as file:
                file.write(mine)
        except FileExistsError:
            if _holds(claim):
                return False
            claim.unlink(missing_ok=True)
        else:
            return True
    return False


def _holds(claim: Path) -> bool:
    """Tell whether the process that made a claim may still be compiling."""
    try:
        text, age = claim.read_text(), time.time() - claim.stat().st_mtime
    except FileNotFoundError:
        return False
    if age > PATIENCE:
        return False
    host, _, pid = text.rpartition(" ")
    if host == socket.gethostname() and pid == str(os.getpid()):  # `_lock` is held: an interruption has left it
        return False
    if host == socket.gethostname() and os.name == "posix":  # elsewhere os.kill(pid, 0) is no question
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            return False
        except (OSError, ValueError):  # somebody else's, but alive; not a number
            return True
    return True


def _key(kernel: Unit, fast: bool) -> tuple[str, bool]:
    """Return the key of a kernel, and whether other processes would find the same code under it."""
    users = [(name, fingerprint(user.function)) for name, user in sorted(kernel.users.items())]
    for name, fold in sorted(kernel.folds.items()):
        users += [(f"{name}.{part}", text) for part, text in fold.fingerprints()]
    shared = all(text is not None for _, text in users)
    if not shared:  # only this process knows the function: its identity tells it from others
        users = [(name, repr(id(user.function))) for name, user in sorted(kernel.users.items())]
    folds = repr(sorted(kernel.folds.items()))
    if shared:
        folds = without_addresses(folds)
    parts = [
        surroundings(),
        str(fast),
        str(kernel.words),
        kernel.source,
        folds,
        repr(users),
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest(), shared


@functools.cache
def surroundings() -> str:
    """Return what can change the code of any kernel: processor, versions, and the functions that kernels call."""
    digest = hashlib.sha256()
    from .. import kernels as package

    for place in [Path(root) for root in package.__path__]:
        for path in sorted(place.rglob("*.py")):
            digest.update(path.read_bytes())
    for name in ("atomics.py", "compiler.py", "user_fold.py", "vectors.py"):
        digest.update(Path(__file__).with_name(name).read_bytes())
    versions = [importlib.metadata.version(name) for name in ("numba", "llvmlite")]
    settings = [f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith("NUMBA_")]
    return "\0".join([digest.hexdigest(), *versions, _processor(), *settings])


def _processor() -> str:
    """The processor and its features: as the kernel of Linux tells them, since LLVM takes 30 ms to import."""
    try:
        first = Path("/proc/cpuinfo").read_text().split("\n\n", 1)[0]
    except OSError:
        first = ""
    told = [line for line in first.splitlines() if line.split("\t", 1)[0] in _TELLING]
    if len(told) == len(_TELLING):
        return "\n".join(told)
    import llvmlite.binding as llvm

    return f"{llvm.get_host_cpu_name()} {llvm.get_host_cpu_features().flatten()}"


def _compile(kernel: Unit, fast: bool, key: str, on_disk: bool) -> Entry:
    from .compiler import compile_unit, may_raise, stands_alone

    symbol, code, compiled = compile_unit(kernel, fast)
    raises = may_raise(compiled)
    if on_disk and not raises:
        path, block = folder() / f"{key}.kernel", flat.flatten(code, symbol) if flat.supported() else None
        if block is not None:
            disk.write(path, _MAGIC, _FLAT + block)
        elif stands_alone(compiled):
            disk.write(path, _MAGIC, _OBJECT + symbol.encode() + b"\n" + code)
    return Entry(compiled.address, _PROTOTYPE(compiled.address), compiled, len(code), raises)


def _load(key: str) -> Entry | None:
    """Return the kernel that another process, or this one earlier, has left on disk."""
    body = disk.read(folder() / f"{key}.kernel", _MAGIC)
    if body is None:
        return None
    kind, rest = body.split(b"\n", 1)
    try:
        address, keep = flat.load(rest) if kind + b"\n" == _FLAT else _load_object(rest)
    except OSError:  # no executable memory for us: LLVM may know another way
        return None
    return Entry(address, _PROTOTYPE(address), keep, len(rest)) if address else None


def _load_object(body: bytes) -> tuple[int, Any]:
    """Return the address of an object file's function, by LLVM's loader, and what owns its memory."""
    import llvmlite.binding as llvm

    symbol, code = body.split(b"\n", 1)
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=3, jit=True
    )
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    return engine.get_function_address(symbol.decode()), engine
