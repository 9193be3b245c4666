"""What a cluster will be, worked out from the machine and the wishes, before anything is started."""

from __future__ import annotations

import contextlib
import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import numpy as np

from .. import detect, limits
from ..errors import DeviceError, MissingExtraError, OptionError

EXTRA = "dask-cuda"
DEVICES = ("auto", "cpu", "cuda")
PROTOCOLS = ("auto", "tcp", "tls", "ws", "wss", "ucx", "ucxx")
DEVICE_SHARE = 0.8  # of a GPU's memory; what lies above is spilled to the host's. Dask-CUDA's default
POOL_SHARE = 0.5  # of a GPU's memory, taken by RMM's pool at the start; it grows


@dataclass(frozen=True)
class Plan:
    """A cluster as it will be started, or as it was found; ``str(plan)`` is a table.

    Attributes
    ----------
    where : str
        ``"this machine"``, or the address of a scheduler.
    device : {"cpu", "cuda"} or None
        Where the workers compute; None where only the workers know.
    workers : int or None
        Processes; for a cluster that exists, those that are waited for before the plan is filled in.
    threads_per_worker : int or None
        Tasks that a worker runs at a time.
    kernel_threads : int or None
        Threads that gpucompute's kernels use in a worker, over all its tasks. Tasks and kernels share them, so
        ``workers * kernel_threads`` is never more than the cores, unless more workers than cores were asked for. Before
        the start: at most so many; the cores next to a GPU may be fewer, or ``GPUCOMPUTE_NUM_THREADS`` ask for fewer.
    memory_limit : int or None
        Bytes of host memory per worker; None for no limit.
    device_memory_limit : int or None
        Bytes on the GPU of a worker beyond which chunks are spilled to the host; None for no spilling.
    rmm_pool : int, float, str or None
        RMM's pool on each GPU at the start: bytes, a fraction or a text with a unit; None for CuPy's own pool.
    protocol : str or None
        How workers talk to one another.
    gpus : tuple of str
        The name of the GPU of each worker.
    notes : tuple of str
        What else there is to know, such as wishes that have no meaning here.
    """

    where: str
    device: str | None
    workers: int | None = None
    threads_per_worker: int | None = None
    kernel_threads: int | None = None
    memory_limit: int | None = None
    device_memory_limit: int | None = None
    rmm_pool: float | str | None = None
    protocol: str | None = None
    gpus: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def memory_per_task(self) -> int | None:
        """Bytes of host memory for each of the tasks that a worker runs at a time; None for no limit."""
        if self.memory_limit is None or not self.threads_per_worker:
            return None
        return self.memory_limit // self.threads_per_worker

    def __str__(self) -> str:
        shown = [(name, text) for name, text in self._rows() if text is not None]
        width = max(len(name) for name, _ in shown)
        lines = [f"{name:<{width}}  {text}" for name, text in shown]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])

    def _rows(self) -> list[tuple[str, str | None]]:
        known = self.threads_per_worker is not None
        gpu = self.device == "cuda" and known
        pool = "none: CuPy's own" if self.rmm_pool is None else f"{_amount(self.rmm_pool)} at first, for CuPy too"
        return [
            ("cluster", self.where),
            ("device", self.device or "as its workers have it"),
            ("workers", _text(self.workers) if known else f"at least {self.workers}"),
            ("GPUs", ", ".join(self.gpus) or None),
            ("CPU affinity", "each worker on the cores next to its GPU" if gpu else None),
            ("tasks at a time per worker", _text(self.threads_per_worker)),
            ("kernel threads per worker", _text(self.kernel_threads)),
            ("memory limit per worker", _size(self.memory_limit) if known else None),
            ("device memory before spilling", _size(self.device_memory_limit) if gpu else None),
            ("RMM pool per GPU", pool if gpu else None),
            ("protocol", self.protocol),
        ]


def _text(value: int | None) -> str | None:
    return None if value is None else str(value)


def _size(nbytes: int | None) -> str:
    """Return bytes as people read them.

    >>> _size(3 << 29), _size(200), _size(None)
    ('1.50 GiB', '200 B', 'no limit')
    """
    if nbytes is None:
        return "no limit"
    step = max(0, min(4, int(math.log2(max(nbytes, 1))) // 10))
    return f"{nbytes} B" if not step else f"{nbytes / 1024**step:.2f} {' KMGT'[step]}iB"


def _amount(value: float | str) -> str:
    with contextlib.suppress(ValueError):
        value = float(value)
    if isinstance(value, str):
        return value
    return f"{value:.0%} of its memory" if value <= 1 else _size(int(value))


def make_plan(
    *,
    device: str = "auto",
    workers: int | None = None,
    memory_limit: float | str | None = "auto",
    device_memory_limit: float | str | None = "auto",
    rmm_pool: float | str | bool | None = None,
    protocol: str = "auto",
) -> Plan:
    """Return the plan of a cluster on this machine; the parameters are those of `start_cluster`."""
    _check_choice("device", device, DEVICES)
    _check_choice("protocol", protocol, PROTOCOLS)
    workers = _count(workers)
    if protocol.startswith("ucx") and find_spec("distributed_ucxx") is None:
        raise MissingExtraError("distributed-ucxx", "dask-cuda", f"protocol={protocol!r}")
    found = detect.search()
    on_gpus, notes = _choose(device, found)
    cores = limits.cores_available()
    if not on_gpus:
        if device_memory_limit != "auto" or rmm_pool not in (None, False):
            notes += ("device_memory_limit and rmm_pool have no meaning without GPUs",)
        # As many threads as processes, as Dask does it: processes for what holds the GIL, threads to share memory.
        count = cores // math.isqrt(cores) if workers is None else workers
        threads = max(1, cores // count)
        return Plan(
            "this machine", "cpu", count, threads, threads, _host_limit(memory_limit, count),
            protocol="tcp" if protocol == "auto" else protocol, notes=notes,
        )  # fmt: skip
    gpus = found.gpus
    count = len(gpus) if workers is None else workers
    if count > len(gpus):
        raise OptionError(f"workers={count}, but there are {len(gpus)} GPUs and each worker has one; ask for fewer")
    if protocol == "auto":
        protocol = "ucx" if count > 1 and find_spec("distributed_ucxx") is not None else "tcp"
    pool, notes = _pool(rmm_pool, notes)
    return Plan(
        # One task at a time: several threads that launch on one GPU wait for one another.
        "this machine", "cuda", count, 1, max(1, cores // count), _host_limit(memory_limit, count),
        _device_limit(device_memory_limit, [gpu.memory for gpu in gpus[:count]]), pool, protocol,
        tuple(gpu.name for gpu in gpus[:count]), notes,
    )  # fmt: skip


def plan_existing(where: str, workers: int | None, set_elsewhere: Sequence[str]) -> Plan:
    """Return the plan for a cluster that exists, of which nothing is known before it is asked."""
    if set_elsewhere:
        names = " and ".join(set_elsewhere)
        raise OptionError(
            f"{names}: given together with a cluster that exists ({where}); set such things where it is started"
        )
    return Plan(where, None, _count(workers) or 1)


def _check_choice(name: str, value: Any, valid: Sequence[str]) -> None:
    if value not in valid:
        raise OptionError(f"{name}={value!r}: expected one of {', '.join(map(repr, valid))}")


def _count(workers: Any) -> int | None:
    if workers is None:
        return None
    with contextlib.suppress(TypeError):
        if not isinstance(workers, bool) and (count := operator.index(workers)) >= 1:
            return count
    raise OptionError(f"workers={workers!r}: expected a whole number, 1 or more, or None")


def _choose(device: str, found: detect.Search) -> tuple[bool, tuple[str, ...]]:
    """Return whether the workers have GPUs, and a note where GPUs lie idle."""
    if device == "cpu":
        return False, ()
    missing = next((name for name in ("dask_cuda", "cupy") if find_spec(name) is None), None)
    if missing is None and find_spec("numba_cuda") is None and find_spec("rmm") is None:
        missing = "numba-cuda"  # distributed cannot send CuPy's arrays without it or RMM
    if not found.gpus:
        if device == "cuda":
            raise DeviceError("device='cuda', but no GPU was found:\n  " + "\n  ".join(found.looked))
        return False, ()
    if missing is None:
        return True, ()
    name = missing.replace("_", "-")
    if device == "cuda":
        raise MissingExtraError(name, "dask-cuda", "a cluster of GPUs")
    idle = f"{len(found.gpus)} GPU(s) lie idle, since {name!r} is not installed: pip install 'gpucompute[{EXTRA}]'"
    return False, (idle,)


def _pool(rmm_pool: float | str | bool | None, notes: tuple[str, ...]) -> tuple[Any, tuple[str, ...]]:
    there = find_spec("rmm") is not None
    if rmm_pool is None:
        without = (f"RMM is not installed, so CuPy's own pool is used: pip install 'gpucompute[{EXTRA}]'",)
        return (POOL_SHARE, notes) if there else (None, notes + without)
    if rmm_pool is False or rmm_pool == 0:
        return None, notes
    if not there:
        raise MissingExtraError("rmm", "dask-cuda", f"rmm_pool={rmm_pool!r}")
    if rmm_pool is True:
        return POOL_SHARE, notes
    return (None if _bytes("rmm_pool", rmm_pool, 1) is None else rmm_pool), notes


def _host_limit(value: float | str | None, workers: int) -> int | None:
    total = limits.memory_available()
    if value == "auto":
        return None if total is None else total // workers
    return _bytes("memory_limit", value, total)


def _device_limit(value: float | str | None, memories: Sequence[int | None]) -> int | None:
    smallest = min((memory for memory in memories if memory is not None), default=None)
    if value == "auto":
        return None if smallest is None else int(smallest * DEVICE_SHARE)
    return _bytes("device_memory_limit", value, smallest)


def _bytes(name: str, given: Any, whole: int | None) -> int | None:
    """Return a limit in bytes, at most `whole`; None or 0: none.

    Parameters
    ----------
    name : str
        Of the option.
    given : float, str or None
        Bytes, a fraction of `whole`, or a text of either, with or without a unit.
    whole : int or None
        What there is, in bytes, if that is known.
    """
    value: Any = given.item() if isinstance(given, np.generic) else given
    if isinstance(value, str):
        from dask.utils import parse_bytes

        with contextlib.suppress(ValueError):
            value = int(parse_bytes(given))
        with contextlib.suppress(ValueError):
            value = float(given)  # without a unit it is the number that it says, as for Dask and Dask-CUDA
    if value is None or (value == 0 and not isinstance(value, bool)):
        return None
    if isinstance(value, float) and 0 < value <= 1 and whole is not None:
        return int(whole * value)
    if isinstance(value, int | float) and value > 1 and value % 1 == 0:  # neither True nor infinity
        return int(value) if whole is None else min(int(value), whole)
    raise OptionError(
        f"{name}={given!r}: expected a number of bytes, a fraction such as 0.5, a text such as '4GiB', or 'auto'"
    )
