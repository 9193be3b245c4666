"""What the operating system lets this process use: cores and memory, control groups (containers) included."""

from __future__ import annotations

import functools
import os
import time
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


def _cgroup_values(v1_controller: str, name: str) -> list[list[str]]:
    """Return the words of the file `name` in every control group above this process, as they were a second ago or less.

    Each Dask graph asks, and to read them takes half a millisecond.
    """
    return _read(v1_controller, name, _CGROUPS, _MEMBERSHIP, int(time.monotonic()))


@functools.lru_cache(maxsize=16)
def _read(v1_controller: str, name: str, groups: Path, membership: Path, second: int) -> list[list[str]]:
    """Return the words of the file `name` in every control group above this process, the innermost first.

    Version 2 has one tree, version 1 one for each controller; inside a container the path that the kernel
    tells may lie above the mounted root, so the root itself is read too. A limit set anywhere above holds.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return []  # not Linux
    found = []
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers and v1_controller not in controllers.split(","):
            continue
        root = groups / v1_controller if controllers else groups
        folder = root / group.strip("/")
        for place in (folder, *folder.parents):
            if not place.is_relative_to(root):
                break
            try:
                found.append((place / name).read_text().split())
            except OSError:
                continue
    return found


def _number(text: str) -> int | None:
    """Return a limit as a number; ``max`` (version 2) and ``-1`` (version 1) mean none."""
    try:
        return int(text) if int(text) > 0 else None
    except ValueError:
        return None


def cores_available() -> int:
    """Return how many cores this process may keep busy: its affinity, cut by a control group's CPU quota."""
    if hasattr(os, "process_cpu_count"):  # Python 3.13, honours -X cpu_count too
        count = os.process_cpu_count() or 1
    elif hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    quotas = [words for words in _cgroup_values("cpu", "cpu.max") if len(words) == 2]
    v1 = zip(_cgroup_values("cpu", "cpu.cfs_quota_us"), _cgroup_values("cpu", "cpu.cfs_period_us"), strict=False)
    quotas += [quota[:1] + period[:1] for quota, period in v1]
    for quota, period in quotas:
        allowed, interval = _number(quota), _number(period)
        if allowed and interval:
            count = min(count, -(-allowed // interval))  # a quota of 1.5 cores keeps two threads busy part-time
    return max(1, count)


def memory_available() -> int | None:
    """Return the bytes of memory this process may fill (physical, cut by control groups); None if unknown."""
    try:
        sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        sizes = []
    for name in ("memory.max", "memory.limit_in_bytes"):
        sizes += [limit for words in _cgroup_values("memory", name) if words and (limit := _number(words[0]))]
    return min((size for size in sizes if size > 0), default=None)
