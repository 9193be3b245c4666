#!/usr/bin/env python
"""Build a wheel of PyCUDA for this Python on a machine that may have neither a GPU nor the whole CUDA toolkit.

PyCUDA comes as source only. Its build wants ``curand.h`` and a ``libcuda.so`` to link with, which the NVIDIA driver
brings. Here it is built without cuRAND and linked with an empty stand-in that bears the driver's name; at run time the
driver of the machine is loaded (or, in the tests, `gpucompute.testing.driver`).

    python tools/build_pycuda.py              # the wheel goes to wheels/
    python -m pip install wheels/pycuda-*.whl

Needs g++ and CUDA's headers: those of a toolkit (its nvcc on PATH, or CUDA_HOME), or of the packages
``nvidia-cuda-runtime nvidia-cuda-profiler-api`` from PyPI. Takes about two minutes of one core.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

VERSION = "2026.1"


def include_folders() -> list[Path]:
    """Return the folders that hold ``cuda.h`` and ``cudaProfiler.h``."""
    roots = [Path(os.environ[name]) for name in ("CUDA_HOME", "CUDA_PATH") if name in os.environ]
    if nvcc := shutil.which("nvcc"):
        roots += [Path(nvcc).resolve().parent.parent, *Path("/usr/local").glob("cuda")]
    candidates = [root / "include" for root in roots]
    spec = importlib.util.find_spec("nvidia")
    for place in () if spec is None else spec.submodule_search_locations or ():
        candidates += sorted(Path(place).glob("*/include"), reverse=True)
    for folder in candidates:
        if (folder / "cuda.h").exists() and (folder / "cudaProfiler.h").exists():
            return [folder]
    parts = [next((f for f in candidates if (f / name).exists()), None) for name in ("cuda.h", "cudaProfiler.h")]
    if None in parts:
        sys.exit(
            "no CUDA headers (cuda.h and cudaProfiler.h): install a toolkit and put its nvcc on PATH, or\n"
            "python -m pip install nvidia-cuda-runtime nvidia-cuda-profiler-api"
        )
    return [part for part in parts if part is not None]


def write_stand_in(folder: Path, include: list[Path]) -> None:
    """Make a ``libcuda.so`` that defines the driver's names, so that the linker notes that it is needed."""
    names: set[str] = set()
    for header in [place / name for place in include for name in ("cuda.h", "cudaProfiler.h")]:
        if header.exists():
            text = header.read_text(encoding="utf-8", errors="replace")
            names |= set(re.findall(r"\bCUDAAPI\s+(cu[A-Za-z0-9_]+)\s*\(", text))
            names |= set(re.findall(r"#\s*define\s+cu\w+\s+(?:__CUDA_API_P?TS[ZDP]*\()?(cu[A-Za-z0-9_]+)", text))
    source = folder / "cuda.c"
    source.write_text("".join(f"int {name}(void) {{ return 100; }}\n" for name in sorted(names)))
    command = ["gcc", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", str(folder / "libcuda.so"), str(source)]
    subprocess.run(command, check=True)


def main() -> None:
    """Build it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=Path("wheels"), help="where the wheel goes")
    folder = parser.parse_args().folder
    include = include_folders()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        write_stand_in(home, include)
        settings = {
            "CUDA_ROOT": str(include[0].parent),
            "CUDA_INC_DIR": [str(place) for place in include],
            "CUDADRV_LIB_DIR": [str(home)],
            "CUDA_ENABLE_CURAND": False,
        }
        # PyCUDA's build reads its settings from this file in the home folder, and from nowhere else.
        (home / ".aksetup-defaults.py").write_text("".join(f"{key} = {value!r}\n" for key, value in settings.items()))
        command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", str(folder), f"pycuda=={VERSION}"]
        # So pip is given another home for the build, and told where its own settings and cache are.
        places = {"XDG_CONFIG_HOME": str(Path.home() / ".config"), "XDG_CACHE_HOME": str(Path.home() / ".cache")}
        environment = {**places, **os.environ, "HOME": str(home)}
        subprocess.run(command, check=True, env=environment)


if __name__ == "__main__":
    main()
