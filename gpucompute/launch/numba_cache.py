"""Where numba keeps the compiled hand-written kernels: in our cache folder, not beside the installed source."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any

from numba.core.caching import CompileResultCacheImpl, FunctionCache, UserWideCacheLocator

from .. import config
from .cache import surroundings


class _Locator(UserWideCacheLocator):  # type: ignore[misc]  # numba has no types
    """The folder of one source file's functions."""

    def get_cache_path(self) -> str:
        return str(config.cache_dir() / "functions" / os.path.basename(self._cache_path))

    def ensure_cache_path(self) -> None:
        with contextlib.suppress(OSError):  # one that cannot be written can still be read
            os.makedirs(self.get_cache_path(), exist_ok=True)

    def get_source_stamp(self) -> Any:
        return super().get_source_stamp(), surroundings()  # a kernel may call functions of other files


class _Implementation(CompileResultCacheImpl):  # type: ignore[misc]  # numba has no types
    _locator_classes = (_Locator,)


class _Cache(FunctionCache):  # type: ignore[misc]  # numba has no types
    """A cache that costs only speed when the disk is full, read-only or damaged: numba lets the errors out."""

    _impl_class = _Implementation

    def load_overload(self, *args: Any) -> Any:
        with contextlib.suppress(Exception):  # OSError, or whatever unpickling a damaged file raises
            return super().load_overload(*args)

    def save_overload(self, *args: Any) -> None:
        with contextlib.suppress(Exception):
            super().save_overload(*args)


def cache_of(function: Callable[..., Any]) -> Any:
    """Return the cache for a dispatcher of numba.

    Raises
    ------
    RuntimeError
        The function has no source file.
    """
    return _Cache(function)
