"""``gpucompute info``: what this machine has, and what the library will use of it."""

from __future__ import annotations

import argparse
import json
import platform
from typing import Any

# distribution -> the extra that brings it; None: a dependency that is always there
PACKAGES: dict[str, str | None] = {
    "numpy": None,
    "numba": None,
    "llvmlite": None,
    "pillow": "images",
    "simplejpeg": "images",
    "zarr": "images",
    "scikit-image": "photos",
    "scikit-learn": "photos",
}


def add_to(subparsers: Any) -> None:
    """Add the subcommand."""
    command = subparsers.add_parser(
        "info",
        help="show devices, versions, caches, threads and the measured memory bandwidth",
        description="Show devices, versions, caches, threads and the measured memory bandwidth of this machine.",
    )
    command.add_argument("--json", action="store_true", help="for programs: one JSON object, sizes in bytes")
    command.set_defaults(run=run, name="info", if_interrupted="", if_failed="")


def run(options: argparse.Namespace) -> int:
    """Print it."""
    facts = collect()
    print(json.dumps(facts, indent=2) if options.json else describe(facts))
    return 0


def collect() -> dict[str, Any]:
    """Return the facts; sizes in bytes, the bandwidth in bytes per second."""
    from .. import __version__
    from ..hardware import device, devices
    from ..launch.bandwidth import measure
    from ..launch.cpu import get_threads
    from ..limits import cores_available
    from . import parts
    from .cache import usage

    return {
        "gpucompute": __version__,
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        "system": platform.platform(),
        "devices": [
            {"device": str(one), "name": one.name, "memory_total": one.memory_total, "memory_free": one.memory_free}
            for one in devices()
        ],
        "current_device": str(device()),
        "threads": get_threads(),
        "cores": cores_available(),
        "packages": {name: _version(name) for name in PACKAGES},
        "cache": usage()._asdict(),
        "bandwidth": measure(),
        "parts": [part._asdict() for part in parts.look()],
    }


def _version(name: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def describe(facts: dict[str, Any]) -> str:
    """Return the facts as text for people."""
    lines = [
        f"gpucompute  {facts['gpucompute']}",
        f"python      {facts['python']}",
        f"system      {facts['system']}",
    ]
    for device in facts["devices"]:
        current = ", current" if device["device"] == facts["current_device"] else ""
        free, total = size(device["memory_free"]), size(device["memory_total"])
        lines.append(f"device      {device['device']}: {device['name']}, {free} free of {total}{current}")
    lines += [
        f"threads     {facts['threads']} (cores that may be used: {facts['cores']})",
        f"bandwidth   {facts['bandwidth'] / 1e9:.1f} GB/s, measured: a large copy, bytes read and written",
        f"cache       {facts['cache']['folder']}: {facts['cache']['entries']} files, {size(facts['cache']['bytes'])}",
    ]
    for name, version in facts["packages"].items():
        extra = PACKAGES[name]
        missing = "not installed: pip install " + (f"'gpucompute[{extra}]'" if extra else name)
        lines.append(f"{name:<13} {version or missing}")
    for part in facts["parts"]:
        mend = f"; {part['mend']}" if part["mend"] else ""
        lines.append(f"{part['name']:<13} {'works' if part['works'] else 'does not work'}: {part['why']}{mend}")
    return "\n".join(lines)


def size(count: int | None) -> str:
    """Return bytes for people.

    >>> size(1536), size(3 << 30), size(None)
    ('1.5 KiB', '3.0 GiB', 'unknown')
    """
    if count is None:
        return "unknown"
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"
