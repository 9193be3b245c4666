"""Build the fake ``libcuda.so.1``: its C source, and a stand-in for every other function that PyCUDA links with."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import threading
from pathlib import Path

from ... import config
from ...errors import MissingExtraError

SOURCE = Path(__file__).with_name("libcuda.c")
_NOT_SUPPORTED = 801  # CUDA_ERROR_NOT_SUPPORTED


def missing() -> str:
    """Return what a build lacks here, in one line; empty if it lacks nothing."""
    if os.name != "posix" or not hasattr(os, "memfd_create"):
        return "the fake driver is written for Linux"
    if compiler() is None:
        return "no C compiler (gcc, cc or g++ on PATH)"
    if extension() is None:
        return "PyCUDA is not installed (python tools/build_pycuda.py builds it without a GPU)"
    return ""


def compiler() -> list[str] | None:
    """Return the command of the system's C compiler."""
    for name, flags in (("gcc", []), ("cc", []), ("g++", ["-x", "c"])):
        if path := shutil.which(name):
            return [path, *flags]
    return None


def extension() -> Path | None:
    """Return PyCUDA's extension module, which is not imported for it."""
    spec = importlib.util.find_spec("pycuda")
    for place in () if spec is None else spec.submodule_search_locations or ():
        for path in Path(place).glob("_driver*.so"):
            return path
    return None


def library() -> Path:
    """Return the path of the fake driver, built now if it is not in the cache."""
    command, wanted = compiler(), extension()
    if command is None or wanted is None:
        raise MissingExtraError("pycuda", "pycuda", f"the fake driver: {missing()};")
    source = SOURCE.read_text(encoding="utf-8")
    have = set(re.findall(r"\b(cu[A-Z]\w+)\s*[(,]", source)) | {f"cuMemsetD{n}{v}" for n in (8, 16, 32) for v in _FORMS}
    # The names are found as bytes of the file: it needs no tool, and a name too many does no harm.
    names = {name.decode() for name in re.findall(rb"\bcu[A-Z][A-Za-z0-9]+(?:_v\d)?(?=\0)", wanted.read_bytes())}
    source += "".join(f"int {name}(void) {{ return {_NOT_SUPPORTED}; }}\n" for name in sorted(names - have))
    key = hashlib.sha256(source.encode()).hexdigest()[:20]
    path = config.cache_dir() / "testing" / f"libcuda-{key}.so.1"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        unit = path.with_suffix(f".{os.getpid()}.{threading.get_ident()}")
        unit.with_suffix(".c").write_text(source, encoding="utf-8")
        flags = ["-O1", "-fPIC", "-shared", "-Wl,-soname,libcuda.so.1"]
        subprocess.run([*command, str(unit.with_suffix(".c")), *flags, "-o", str(unit), "-ldl"], check=True)
        os.replace(unit, path)
        unit.with_suffix(".c").unlink()
    return path


_FORMS = ("_v2", "Async")  # of what the macro FILL defines
