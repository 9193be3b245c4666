"""Files of the kernel cache: whole or not there, for any number of processes, and never a reason to fail."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from pathlib import Path


def write(path: Path, magic: bytes, body: bytes) -> None:
    """Write a file under another name and rename it, so that nobody reads half of it; failing costs only speed."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(magic + hashlib.sha256(body).digest() + body)
        os.replace(temporary, path)
    except OSError:  # read-only, full or gone: the next process compiles again
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def read(path: Path, magic: bytes) -> bytes | None:
    """Return what `write` wrote; None if there is no such file, or it is cut short or of another make."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    head = len(magic) + 32
    body = data[head:]
    whole = data.startswith(magic) and hashlib.sha256(body).digest() == data[len(magic) : head]
    return body if whole else None
