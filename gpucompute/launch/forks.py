"""What a forked child must not inherit: locks that another thread of the parent may hold."""

from __future__ import annotations

import os
import threading
from typing import Any


def renewed_lock(namespace: dict[str, Any], name: str = "_lock") -> threading.RLock:
    """Return a lock for the module whose ``globals()`` these are, and give it a new one in each forked child."""

    def renew() -> None:
        namespace[name] = threading.RLock()

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=renew)
    return threading.RLock()
