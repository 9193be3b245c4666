"""Times of kernels on a GPU, against the limit that its memory sets."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, Self

if TYPE_CHECKING:
    from .launch.cuda import Function, Observer
    from .launch.drivers import Driver

MOST = 512 << 20  # bytes of a buffer that is copied to measure the bandwidth; the caches of today's GPUs hold 126 MB
COPIES = 20


class KernelTimes(NamedTuple):
    """What a kernel took in all its launches.

    name : its label; device : ``"cuda:0"``; launches : how many; seconds : on the device, between two events; nbytes :
    that it must read and write, as `explain` says of fused kernels; of others, each operand once and whole; share : of
    the bandwidth that a copy reaches, 1.0 being all of it.
    """

    name: str
    device: str
    launches: int
    seconds: float
    nbytes: int
    share: float


class _Launch(NamedTuple):
    name: str
    driver: Driver
    device: int
    start: Any
    end: Any
    nbytes: int


class Profile:
    """What ran in a block under `profile`; empty until the block has ended.

    Attributes
    ----------
    kernels : list of KernelTimes
        The longest first.
    bandwidth : dict
        What a copy on each device reaches, in bytes per second, read and written ones counted both.
    """

    def __init__(self) -> None:
        self.kernels: list[KernelTimes] = []
        self.bandwidth: dict[str, float] = {}
        self._launches: list[_Launch] = []
        self._outer: Observer | None = None

    def __enter__(self) -> Self:
        from .launch import cuda

        self._outer, cuda.observer = cuda.observer, self
        return self

    def __exit__(self, *_: object) -> None:
        from .launch import cuda

        cuda.observer = self._outer
        self._sum_up()

    @contextmanager
    def watch(
        self, function: Function, driver: Driver, device: int, stream: Any, operands: Sequence[Any], nbytes: int | None
    ) -> Iterator[None]:
        """Record an event before and after a launch; what `gpucompute.launch.cuda` calls."""
        from .launch import arrays

        moved = sum(map(arrays.nbytes, operands)) if nbytes is None else nbytes
        start = driver.record(device, stream)
        yield
        self._launches.append(_Launch(function.label, driver, device, start, driver.record(device, stream), moved))

    def _sum_up(self) -> None:
        found: dict[tuple[str, str], list[tuple[float, int]]] = {}
        for one in self._launches:
            place = f"cuda:{one.device}"
            if place not in self.bandwidth:
                self.bandwidth[place] = copy_bandwidth(one.driver, one.device)
            taken = one.driver.milliseconds(one.start, one.end) / 1e3, one.nbytes
            found.setdefault((one.name, place), []).append(taken)
        self._launches.clear()
        for (name, place), times in found.items():
            seconds, nbytes = sum(t for t, _ in times), sum(n for _, n in times)
            share = nbytes / seconds / self.bandwidth[place] if seconds else 0.0
            self.kernels.append(KernelTimes(name, place, len(times), seconds, nbytes, share))
        self.kernels.sort(key=lambda kernel: kernel.seconds, reverse=True)

    def __str__(self) -> str:
        if not self.kernels:
            return "no kernel was launched on a GPU"
        lines = [f"{place}: a copy moves {speed / 1e9:.0f} GB/s" for place, speed in self.bandwidth.items()]
        width = max(len(kernel.name) for kernel in self.kernels)
        lines.append(f"{'kernel':<{width}}  device  launches         ms        GB/s  of a copy's")
        for kernel in self.kernels:
            speed = kernel.nbytes / kernel.seconds / 1e9 if kernel.seconds else 0.0
            lines.append(
                f"{kernel.name:<{width}}  {kernel.device:<6}  {kernel.launches:8}  {kernel.seconds * 1e3:9.3f}"
                f"  {speed:10.1f}  {kernel.share:12.0%}"
            )
        return "\n".join(lines)


def profile() -> Profile:
    """Return a context that reports each kernel's time on the GPU, the bytes it moved, and its share of the bandwidth.

    Events around each launch tell the time; nothing waits for them before the block ends. Kernels of all threads are
    counted, and only those that this package launches.

    Returns
    -------
    Profile
        Print it, or read its `kernels`.

    Examples
    --------
    >>> import gpucompute as gp
    >>> with gp.profile() as report:
    ...     pass
    >>> print(report)
    no kernel was launched on a GPU
    """
    return Profile()


_measured: dict[tuple[Driver, int], float] = {}


def copy_bandwidth(driver: Driver, device: int) -> float:
    """Return the bytes per second that a large copy on a device moves, read and written ones counted both.

    The median of 20 copies of 512 MiB, or of an eighth of the free memory if that is less; measured once.
    """
    import numpy as np

    if (driver, device) in _measured:
        return _measured[driver, device]
    size = min(MOST, driver.memory_free(device) // 8)
    stream = None
    source, target = (driver.empty((size,), np.dtype(np.uint8), device) for _ in range(2))
    times = []
    for _ in range(COPIES + 1):
        start = driver.record(device, stream)
        driver.copy(target, source, device, stream)
        times.append(driver.milliseconds(start, driver.record(device, stream)))
    _measured[driver, device] = 2 * size / (statistics.median(times[1:]) / 1e3)  # the first one warms up
    return _measured[driver, device]
