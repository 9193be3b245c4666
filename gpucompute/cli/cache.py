"""``gpucompute cache``: the folder of compiled kernels."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NamedTuple


class Usage(NamedTuple):
    """What lies in the cache."""

    folder: str
    entries: int
    bytes: int


def add_to(subparsers: Any) -> None:
    """Add the subcommand and its own."""
    command = subparsers.add_parser(
        "cache",
        help="show, fill or empty the cache of compiled kernels",
        description="Show, fill or empty the folder of compiled kernels (GPUCOMPUTE_CACHE_DIR).",
    )
    actions = command.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, function, text in (
        ("info", show, "show its folder, files and size"),
        ("clear", clear, "remove its files; they are made again when they are needed"),
    ):
        action = actions.add_parser(name, help=text, description=text.capitalize() + ".")
        action.set_defaults(run=function, name=f"cache {name}", if_interrupted="", if_failed="")
    action = actions.add_parser(
        "build",
        help="compile kernels for GPUs that need not be here, so that other machines compile nothing",
        description="Compile the CUDA C++ kernels of this package, or the given files, and fused functions into the "
        "cache. Needs no GPU. A file names its variants in comments: // options: -DTILE=16",
    )
    action.add_argument("files", nargs="*", type=Path, metavar="FILE.cu", help="instead of this package's own kernels")
    action.add_argument(
        "--arch", action="append", required=True, metavar="ARCH", help="sm_90 for example; may be given several times"
    )
    action.add_argument(
        "--function", metavar="MODULE:NAME", help="a fused function instead, for the calls that --like describes"
    )
    action.add_argument(
        "--like",
        action="append",
        default=[],
        metavar="ARGUMENTS",
        help="of a call: 'uint8[64,224,224,3] float32[3] 0.5 axis=1' for example; other sizes of the same order of "
        "magnitude run the same code; may be given several times",
    )
    action.set_defaults(run=build, name="cache build", if_interrupted="", if_failed="")


def usage() -> Usage:
    """Return what lies in the cache, which may not exist yet."""
    from ..config import cache_dir

    folder = cache_dir()
    sizes = [path.stat().st_size for path in _files(folder)]
    return Usage(str(folder), len(sizes), sum(sizes))


def show(_: argparse.Namespace) -> int:
    """Print what lies in the cache."""
    from .info import size

    now = usage()
    print(f"{now.folder}: {now.entries} files, {size(now.bytes)}")
    return 0


def clear(_: argparse.Namespace) -> int:
    """Remove the files of the cache."""
    from ..config import cache_dir
    from .info import size

    before = usage()
    for path in _files(cache_dir()):
        path.unlink(missing_ok=True)  # another process may be clearing too
    print(f"{before.folder}: {before.entries} files removed, {size(before.bytes)}")
    return 0


def build(options: argparse.Namespace) -> int:
    """Compile files or a function for architectures."""
    from ..errors import OptionError
    from ..launch import cubins, nvrtc
    from .info import size

    for arch in options.arch:
        nvrtc.check_architecture(arch)
    if options.function or options.like:
        return _build_function(options)
    if missing := [str(path) for path in options.files if not path.is_file()]:
        raise OptionError(f"no such file: {', '.join(missing)}")
    files = options.files or cubins.own_files()
    total = count = 0
    for path, variant, arch, nbytes in cubins.build(files, options.arch):
        print(f"{arch}  {size(nbytes):>9}  {' '.join((path.name, *variant))}")
        total, count = total + nbytes, count + 1
    print(f"{usage().folder}: {count} kernel files for {', '.join(options.arch)}, {size(total)}")
    return 0


def _build_function(options: argparse.Namespace) -> int:
    from ..errors import OptionError
    from ..fusion.cuda import ahead
    from .info import size

    if not (options.function and options.like) or options.files:
        raise OptionError("give --function with at least one --like, and no files")
    function = ahead.fused(options.function)
    total = count = 0
    for like in options.like:
        args, kwargs = ahead.arguments(like)
        for arch in options.arch:
            for what, nbytes in ahead.build(function, args, kwargs, arch):
                print(f"{arch}  {size(nbytes):>9}  {what} of {like}")
                total, count = total + nbytes, count + 1
    print(f"{usage().folder}: {count} kernels for {', '.join(options.arch)}, {size(total)}")
    return 0


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []
