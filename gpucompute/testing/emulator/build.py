"""Shared libraries made of kernels, kept on disk.

What a file's name holds is a hash of all that can change its content: the source with its headers, the options, the
emulator's own headers and the compiler. A file is made under another name and then renamed, so that many processes can
share a folder.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from ... import config
from ...errors import CompileError
from .compiler import Compiler, find_compiler
from .rewrite import SUFFIX, Declared, rewrite
from .source import Source, preprocessor_input, with_system_headers

INCLUDE = Path(__file__).with_name("include")
_KERNEL_EXPRESSION = re.compile(r"\s*(?P<base>[\w:]+?)\s*(?P<arguments><.*>)?\s*", re.DOTALL)


def library(source: Source, names: tuple[str, ...] = (), *, checked: bool = False, only: str = "") -> Path:
    """Return the path of a shared library with kernels of `source`.

    Parameters
    ----------
    source : Source
    names : tuple of str
        Instances of templates: ``"sum<float, 256>"``. Without any, all kernels that are no templates.
    checked : bool
        With every load and store reported to the checker.
    only : str
        Leave out what this kernel does not need.

    Raises
    ------
    CompileError
        If there is no compiler, or the source does not compile.
    """
    compiler = find_compiler()
    key = _key(source.name, source.text, source.options.macros, source.options.standard, names, checked, only)
    stem = re.sub(r"\W", "-", Path(source.name).stem)

    def make(folder: Path) -> Path:
        return _compile(compiler, source, names, checked, only, folder)

    return _kept(f"{stem}-{key}.so", make)


def folder() -> Path:
    """Return the folder of compiled files (it may not exist yet)."""
    return config.cache_dir() / "emulator"


@functools.cache
def _surroundings() -> str:
    """What can change any file: the emulator's own files, where they lie (compiled files name it), and the compiler."""
    digest = hashlib.sha256(repr((find_compiler().command, find_compiler().version, str(INCLUDE))).encode())
    for path in [*sorted(INCLUDE.glob("*.hpp")), *(Path(__file__).with_name(f"{name}.py") for name in _MAKERS)]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


_MAKERS = ("build", "compiler", "rewrite", "source")


def _key(*parts: object) -> str:
    return hashlib.sha256("\0".join([_surroundings(), *map(repr, parts)]).encode()).hexdigest()[:24]


@functools.cache
def _fallback() -> Path:
    """A folder for this process alone, for when the cache cannot be written."""
    return Path(tempfile.mkdtemp(prefix="gpucompute-emulator-"))


def _kept(name: str, make: Callable[[Path], Path]) -> Path:
    """Return the file or folder `name` of the cache, made now if it is not there."""
    target = folder() / name
    if target.exists():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".making-", dir=target.parent))
    except OSError:  # read-only or full
        target = _fallback() / name
        if target.exists():
            return target
        work = Path(tempfile.mkdtemp(prefix=".making-", dir=target.parent))
    try:
        made = make(work)
        with contextlib.suppress(OSError):  # a folder that another process has just put there
            os.replace(made, target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


def _compile(compiler: Compiler, source: Source, names: tuple[str, ...], checked: bool, only: str, work: Path) -> Path:
    before, text = preprocessor_input(source)
    complaint = f"{source.name} does not compile for the emulator"
    expanded = compiler.run(["-E", "-x", "c++", *before, "-"], work, complaint, text)
    rewritten = rewrite(with_system_headers(expanded), checked=checked, only=only)
    kernels = [one for one in rewritten.kernels if one.name.split("::")[-1] == only] or rewritten.kernels
    unit = f"{rewritten.text}\n{_table(kernels, names, source.name)}"
    (work / "unit.cpp").write_text(unit, encoding="utf-8")
    flags = [source.options.standard, *compiler.flags(checked)]
    flags += _headers(compiler, tuple(flags))
    runtime = _runtime(compiler, checked)
    compiler.run([*flags, "-x", "c++", "-c", "unit.cpp", "-o", "unit.o"], work, complaint)
    # the runtime first: its variables are there before the kernels' are registered
    hooked = ["-Wl,--wrap=printf"] if checked else []
    compiler.run(["-shared", *hooked, str(runtime), "unit.o", "-o", "unit.so"], work, complaint)
    return work / "unit.so"


def _table(kernels: list[Declared], names: tuple[str, ...], file: str) -> str:
    """Return the C++ that lists the kernels of a library."""
    rows = [_row(one.name, one, "", one.bounds) for one in kernels if not one.is_template and not names]
    for name in names:
        match = _KERNEL_EXPRESSION.fullmatch(name)
        base = match["base"] if match else name
        found = [one for one in kernels if one.name == base] or [k for k in kernels if k.name.endswith(f"::{base}")]
        if not match or not found:
            raise CompileError(f"{file} has no kernel {name!r}; it has {_listed(kernels)}")
        rows.append(_row(name, found[0], match["arguments"] or "", ""))
    if not rows:
        raise CompileError(
            f"{file} has no kernel that can be called by its name alone; it has {_listed(kernels)}; name a template "
            "with its arguments, as 'sum<float, 256>'"
        )
    body = ",\n".join(rows)
    return (
        f'#include "{INCLUDE / "entry.hpp"}"\nnamespace gce {{\n'
        f"extern const Kernel kernels[] = {{\n{body}}};\nextern const int kernel_count = {len(rows)};\n}}\n"
    )


def _row(name: str, kernel: Declared, arguments: str, bounds: str) -> str:
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    threads = f"first({bounds})" if bounds else "1024"
    return f'entry<&::{kernel.name}{SUFFIX}{arguments}>("{quoted}", "{" ".join(kernel.parameters)}", {threads})'


def _listed(kernels: list[Declared]) -> str:
    shown = [f"{kernel.name}<...>" if kernel.is_template else kernel.name for kernel in kernels]
    return ", ".join(shown) or "none at all"


def _headers(compiler: Compiler, flags: tuple[str, ...]) -> list[str]:
    """Return the options that include cuda.hpp, compiled beforehand where the compiler can use that."""
    if compiler.is_clang:
        return ["-include", str(INCLUDE / "cuda.hpp")]

    def make(work: Path) -> Path:
        made = work / "made"
        made.mkdir()
        (made / "cuda.hpp").write_text(f'#include "{INCLUDE / "cuda.hpp"}"\n', encoding="utf-8")
        arguments = [*flags, "-x", "c++-header", "cuda.hpp", "-o", "cuda.hpp.gch"]
        compiler.run(arguments, made, "the emulator's headers do not compile")
        return made

    place = _kept(f"headers-{_key('headers', flags)}", make)
    return ["-include", str(place / "cuda.hpp")]


def _runtime(compiler: Compiler, checked: bool) -> Path:
    """Return the object file of the emulator's own side."""
    # without the instrumentation: it watches the kernels only
    flags = ["-std=c++17", *(f for f in compiler.flags(False) if f != "-DGCE_CHECK=0"), f"-DGCE_CHECK={int(checked)}"]

    def make(work: Path) -> Path:
        (work / "runtime.cpp").write_text(f'#include "{INCLUDE / "runtime.hpp"}"\n', encoding="utf-8")
        arguments = [*flags, "-c", "runtime.cpp", "-o", "runtime.o"]
        compiler.run(arguments, work, "the emulator's runtime does not compile")
        return work / "runtime.o"

    return _kept(f"runtime-{_key('runtime', flags)}.o", make)
