"""One run at a time on an output: a lock that the system drops when its process dies, however it dies."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import GpucomputeError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

# what file systems without locks say, some network ones: better without a lock than not at all
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


class LockedError(GpucomputeError, RuntimeError):
    """Another process is writing the same output."""


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold the lock file `path` for the length of the block; afterwards it is removed (Windows keeps it, empty).

    Raises
    ------
    LockedError
        If another process, or another thread of this one, holds it.
    """
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _acquire(handle)
        except OSError:
            os.close(handle)
            raise LockedError(
                f"{path} is locked: another gpucompute preprocess is writing this output; wait for it or choose "
                "another output"
            ) from None
        with suppress(OSError):  # the holder before may have removed the file between our open and our lock
            if os.path.samestat(os.fstat(handle), os.stat(path)):
                break
        os.close(handle)
    try:
        yield
    finally:
        if sys.platform != "win32":  # removed while still locked: who opened it just before sees that it is gone
            path.unlink(missing_ok=True)
        os.close(handle)


def _acquire(handle: int) -> None:
    if sys.platform == "win32":
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
