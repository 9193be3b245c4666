"""Run every case, each in a process of its own, and keep all times in ``results/<date>-<processor>.json``.

Takes the options of the cases (``--rounds``, ``--threads``, ``--quick``, ``--only``). Prints Markdown tables. About
20 minutes on two cores; nothing else should run on the machine.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

HERE = Path(__file__).parent
CASES = (
    *("normalise", "black_scholes", "softmax", "standardise", "resize"),
    *("short_rows", "channel_statistics", "photographs", "overhead", "kmeans"),
)
PACKAGES = (
    *("gpucompute", "numpy", "numba", "llvmlite", "torch", "torchvision", "jax", "numexpr", "scipy", "scikit-learn"),
    *("scikit-image", "pillow", "opencv-python-headless", "opencv-python", "albumentations", "kornia", "simplejpeg"),
)


def processor() -> str:
    """Return the processor's name."""
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Return the versions of what is installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def main() -> int:
    """Run the cases one after another."""
    given, name = sys.argv[1:], processor()
    results, failed = {}, []
    print(f"{name}, {os.cpu_count()} cores; options: {' '.join(given) or 'none'}\n{versions()}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for case in CASES:
            path = Path(folder) / f"{case}.json"
            command = [sys.executable, "-W", "ignore", str(HERE / f"{case}.py"), *given, "--json", str(path)]
            if subprocess.run(command, check=False).returncode or not path.exists():
                failed.append(case)
            else:
                results[case] = json.loads(path.read_text())
    today = dt.datetime.now(dt.UTC).date().isoformat()
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    target = HERE / "results" / f"{today}-{slug}{'-quick' if '--quick' in given else ''}.json"
    target.parent.mkdir(exist_ok=True)
    machine = {"processor": name, "cores": os.cpu_count(), "system": platform.platform(), "options": given}
    kept = {"date": today, "machine": machine, "versions": versions(), "results": results, "failed": failed}
    target.write_text(json.dumps(kept, indent=1) + "\n")
    print(f"\nall times: {target}")
    claims = [claim for parts in results.values() for part in parts for claim in part["targets"]]
    print(f"{sum(met for _, met in claims)} of {len(claims)} claims met" + f"; failed: {failed}" * bool(failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
