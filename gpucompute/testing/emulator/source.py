"""Kernels' source as one text: the user's headers put in, CUDA's left out, and preprocessed."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import CompileError, OptionError

NAME = "kernel.cu"  # of a source that is given as text

# What nvcc and NVRTC define. The system's headers must not see these, so they are given to the preprocessor only.
MACROS = {
    "__CUDACC__": "1",
    "__CUDACC_RTC__": "1",
    "__CUDACC_VER_MAJOR__": "12",
    "__CUDACC_VER_MINOR__": "9",
    "__CUDA_ARCH__": "900",
    "__NVCC__": "1",
    "CUDART_VERSION": "12090",
    "GPUCOMPUTE_EMULATOR": "1",
}

# cuda.hpp declares what these do.
_KNOWN = re.compile(
    r"cuda\.h|cuda_runtime(_api)?\.h|cuda_fp16\.hp?p?|cuda_bf16\.hp?p?|cuda/atomic|cuda_device_runtime_api\.h"
    r"|device_(launch_parameters|functions|atomic_functions)\.h|cooperative_groups(/\w+)?\.h|math_(constants|functions)\.h"
    r"|vector_(types|functions)\.h|sm_\d+_\w+\.h|builtin_types\.h|crt/\w+\.h|c?assert(\.h)?|cuComplex\.h"
)
_FOREIGN = re.compile(r"cub/|thrust/|cuda/|curand|cublas|cufft|mma\.h|cuda_|cutlass/|nvrtc|texture|surface")
_INCLUDE = re.compile(r"^[ \t]*#[ \t]*include[ \t]*([\"<])([^\">]+)[\">].*$", re.MULTILINE)
_ONCE = re.compile(r"^[ \t]*#[ \t]*pragma[ \t]+once\b.*$", re.MULTILINE)
_MARK = "#pragma gpucompute include"  # comes through the preprocessor as it is

# Options of nvcc and NVRTC that change nothing here, or what is never done here (contraction, fast division).
_IGNORED = re.compile(
    r"--?(arch|gpu-architecture|gpu-code|code|fmad|ftz|prec-div|prec-sqrt|use_fast_math|lineinfo|generate-line-info|G|g"
    r"|O\d?|device-debug|maxrregcount|restrict|extra-device-vectorization|device-as-default-execution-space|rdc|dc|w"
    r"|Xptxas|default-device|diag-suppress|relocatable-device-code|ptxas-options|split-compile|minimal|expt-\S+"
    r"|extended-lambda)\b.*"
)
_PAIRED = ("-arch", "-code", "-maxrregcount", "--maxrregcount", "--gpu-architecture", "-Xptxas", "--ptxas-options")


@dataclass(frozen=True)
class Options:
    """What of a compiler's options matters here."""

    macros: tuple[str, ...] = ()  # -DNAME=VALUE and -UNAME, in order
    folders: tuple[Path, ...] = ()  # -I
    standard: str = "-std=c++17"


@dataclass(frozen=True)
class Source:
    """Kernels' source: `text` holds the user's own headers too, with ``#line`` to say which is which."""

    name: str
    text: str
    options: Options = field(default_factory=Options)


def parse_options(options: tuple[str, ...]) -> Options:
    """Read the options of NVRTC or nvcc.

    Raises
    ------
    OptionError
        For an option that is not known.

    Examples
    --------
    >>> parse_options(("-DN=4", "--std=c++14", "--fmad=false"))
    Options(macros=('-DN=4',), folders=(), standard='-std=c++14')
    """
    macros, folders, standard = [], [], Options.standard
    rest = iter(options)
    for option in rest:
        if option in ("-D", "-U", "-I", "--define-macro", "--undefine-macro", "--include-path"):
            option = {"--d": "-D", "--u": "-U", "--i": "-I"}.get(option[:3], option) + next(rest, "")
        for long, short in (("--define-macro=", "-D"), ("--undefine-macro=", "-U"), ("--include-path=", "-I")):
            option = option.replace(long, short)
        if option.startswith(("-D", "-U")):
            macros.append(option)
        elif option.startswith("-I"):
            folders.append(Path(option[2:]))
        elif re.match(r"--?std=", option):
            standard = "-" + option.lstrip("-")
        elif option in _PAIRED:
            next(rest, None)
        elif not _IGNORED.fullmatch(option):
            raise OptionError(
                f"compiler option {option!r}: the emulator takes -D, -U, -I and -std, and ignores those of NVRTC that "
                "concern a GPU; leave this one out"
            )
    return Options(tuple(macros), tuple(folders), standard)


def load(code_or_path: str | os.PathLike[str], options: tuple[str, ...] = ()) -> Source:
    """Return the source that is given as text, or as a path that ends in ``.cu`` or ``.cuh``."""
    parsed = parse_options(tuple(options))
    given = os.fspath(code_or_path)
    if "\n" in given or not given.endswith((".cu", ".cuh")):
        if isinstance(code_or_path, os.PathLike):
            raise OptionError(f"{given!r}: a path to kernels ends in .cu or .cuh; or give their text as a str")
        return Source(NAME, _expand(given, NAME, Path.cwd(), parsed.folders, set(), ()), parsed)
    path = Path(given)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise CompileError(f"{given}: cannot be read ({error.strerror}); give a .cu file or its text") from error
    return Source(path.name, _expand(text, path.name, path.parent, parsed.folders, set(), ()), parsed)


def _expand(
    text: str, name: str, folder: Path, folders: tuple[Path, ...], once: set[Path], within: tuple[Path, ...]
) -> str:
    """Put the user's own headers in the place of their #include, and deal with the others."""
    # a comment may hold an #include; it is put in and stays a comment only if it is of one line, so leave those out
    parts, end = [f'#line 1 "{name}"\n'], 0
    for match in _INCLUDE.finditer(text):
        parts.append(text[end : match.start()])
        end = match.end()
        quote, wanted = match.groups()
        line = text.count("\n", 0, match.start()) + 1
        found = _find(wanted, ([folder] if quote == '"' else []) + list(folders))
        if found is None:
            parts.append(_system(wanted, f"{name}:{line}"))
        elif found not in once and found not in within:
            inner = found.read_text(encoding="utf-8")
            if _ONCE.search(inner):
                once.add(found)
                inner = _ONCE.sub("", inner)
            inner = _expand(inner, found.name, found.parent, folders, once, (*within, found))
            parts.append(f'{inner}\n#line {line} "{name}"')
            parts.append(f'\n#line {line + 1} "{name}"')
    return "".join([*parts, text[end:]])


def _find(wanted: str, folders: list[Path]) -> Path | None:
    for folder in folders:
        if (folder / wanted).is_file():
            return (folder / wanted).resolve()
    return None


def _system(wanted: str, place: str) -> str:
    """Return the line that stands for an #include of something that is not the user's."""
    if wanted.startswith("cuda/std/"):
        return f"{_MARK} <{wanted.removeprefix('cuda/std/')}>"
    if _KNOWN.fullmatch(wanted):
        return ""
    if _FOREIGN.match(wanted):
        raise CompileError(
            f"{place}: the emulator has nothing for <{wanted}>; "
            "guard what needs it with #ifndef GPUCOMPUTE_EMULATOR, or write it out"
        )
    return f"{_MARK} <{wanted}>"


def preprocessor_input(source: Source) -> tuple[list[str], str]:
    """Return the options and the text for ``-E``."""
    macros = [f"-D{name}={value}" for name, value in MACROS.items()]
    return [source.options.standard, *macros, *source.options.macros], source.text


def with_system_headers(preprocessed: str) -> str:
    """Turn what stood for the system's headers back into #include lines."""
    return re.sub(rf"^{_MARK} (<[^>]+>)[ \t]*$", r"#include \1", preprocessed, flags=re.MULTILINE)
