"""Compiled kernels travel from where they were compiled to the workers whose processor or GPU is of the same make.

Kernels are files whose names are hashes of all that decides their code (`launch.cache`, `launch.cubins`). A *family*
is a folder of them together with a hash of what is the same for all in it: processor, versions, settings. A *place* is
a machine and a cache folder. The client is the hub: workers tell it of new files, it fetches each once for a family and
hands it to one worker of every other place of this family. Files that are never asked for cost only their bytes, and
whatever goes wrong costs only that a worker compiles for itself.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .. import config
from ..launch import disk

FIRST = 64 << 20  # bytes of kernels that a new place is given at once, the newest first: about a thousand kernels
_FOLDER = re.compile(r"kernels|cubins/sm_\d+[a-z]?")
_NAME = re.compile(r"[0-9a-f]{64}\.(kernel|cubin)")


def short(text: str) -> str:
    """Return a hash of a text, short enough for messages."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def place() -> str:
    """Return what tells this machine's cache folder from those of others."""
    folder = config.cache_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        status = folder.stat()
    except OSError:  # nothing can be kept there, nor sent
        return f"{socket.gethostname()} {folder}"
    return f"{socket.gethostname()} {status.st_dev} {status.st_ino}"


def stamp(folder: str) -> int:
    """Return a number that changes when a file comes into a folder; 0 where there is none."""
    try:
        return (config.cache_dir() / folder).stat().st_mtime_ns
    except OSError:
        return 0


def names(folder: str) -> set[str]:
    """Return the names of the kernels in a folder."""
    return {path.name for path in _paths(folder)}


def newest(folder: str, room: int = FIRST) -> list[str]:
    """Return the names of the newest kernels in a folder that are together no larger than `room` bytes."""
    found = []
    for path in _paths(folder):
        try:
            status = path.stat()
        except OSError:  # deleted meanwhile
            continue
        found.append((-status.st_mtime_ns, path.name, status.st_size))
    chosen = []
    for _, name, size in sorted(found):
        room -= size
        if room < 0:
            break
        chosen.append(name)
    return chosen


def _paths(folder: str) -> list[Path]:
    try:
        return [path for path in (config.cache_dir() / folder).iterdir() if _NAME.fullmatch(path.name)]
    except OSError:
        return []


def load(folder: str, wanted: Iterable[str]) -> dict[str, bytes]:
    """Return the contents of those files of `wanted` that are there."""
    contents = {}
    for name in wanted:
        try:
            contents[name] = _checked(folder, name).read_bytes()
        except OSError:
            continue
    return contents


def store(folder: str, contents: dict[str, bytes]) -> list[str]:
    """Write files that are whole and not there yet; return their names."""
    written = []
    for name, data in contents.items():
        path = _checked(folder, name)
        magic, body = data[: data.find(b"\n") + 1], data[data.find(b"\n") + 33 :]
        if not path.exists() and data[len(magic) : len(magic) + 32] == hashlib.sha256(body).digest():
            disk.write(path, magic, body)
            written.append(name)
    return written


def _checked(folder: str, name: str) -> Path:
    """Return a path in the cache; what came over the network may not lead out of it."""
    if not _FOLDER.fullmatch(folder) or not _NAME.fullmatch(name):
        raise ValueError(f"{folder}/{name}: not a file of the kernel cache")
    return config.cache_dir() / folder / name


class Hub:
    """The client's side: who has which kernels, and the sending of those that are missing.

    Its coroutines run in the client's event loop, one message after another.
    """

    def __init__(self, client: Any, families: dict[str, str]) -> None:
        self.client = client
        self.own = place()
        self.workers: dict[str, list[str]] = {self.own: []}  # place -> addresses
        self.families: dict[str, dict[str, str]] = {self.own: families}
        self.has: dict[tuple[str, str], set[str]] = {}  # place, folder -> names
        self.sent = 0  # files
        self._messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._reader: asyncio.Task[None] | None = None

    async def start(self, sites: dict[str, tuple[str, dict[str, str]]]) -> None:
        """Give the workers that are there (address -> place, families) what the client has, and listen from now on."""
        for address, (where, families) in sites.items():
            await self._meet(address, where, families)
        self._reader = asyncio.ensure_future(self._read())

    async def stop(self) -> None:
        """Listen no more."""
        if self._reader is not None:
            self._reader.cancel()

    def heard(self, event: tuple[float, dict[str, Any]]) -> None:
        """Take a worker's message (see `worker_setup.Setup`), without keeping the client from its other messages."""
        self._messages.put_nowait(event[1])

    async def _read(self) -> None:
        while True:
            message = await self._messages.get()
            where = message["place"]
            await self._meet(message["worker"], where, message["families"])
            for folder, found in message["names"].items():
                fresh = set(found) - self.has.setdefault((where, folder), set())
                self.has[where, folder] |= fresh
                if fresh and not message["first"]:  # what lay there before may be much, and may never be asked for
                    await self._spread(where, folder, fresh)

    async def _meet(self, address: str, where: str, families: dict[str, str]) -> None:
        """Take note of a worker; a place that is new is given the newest of what the client has."""
        addresses = self.workers.setdefault(where, [])
        if address not in addresses:
            addresses.append(address)
        if where in self.families:
            return
        self.families[where] = families
        for folder, key in families.items():
            if self.families[self.own].get(folder) == key:
                there = set(await self._run(where, names, folder) or ())
                self.has.setdefault((where, folder), set()).update(there)
                await self._send(where, folder, load(folder, [name for name in newest(folder) if name not in there]))

    async def _spread(self, source: str, folder: str, found: set[str]) -> None:
        """Give kernels that were compiled at `source` to the other places of the same family."""
        key = self.families[source].get(folder)
        others = [place for place, there in self.families.items() if place != source and there.get(folder) == key]
        lacking = {place: found - self.has.get((place, folder), set()) for place in others}
        if self.own in lacking:
            lacking[self.own] -= names(folder)
        wanted = sorted(set().union(*lacking.values()))
        contents = await self._run(source, load, folder, wanted) if wanted else None
        for place, missing in lacking.items():
            await self._send(place, folder, {name: data for name, data in (contents or {}).items() if name in missing})

    async def _send(self, where: str, folder: str, contents: dict[str, bytes]) -> None:
        if not contents:
            return
        written = store(folder, contents) if where == self.own else await self._run(where, store, folder, contents)
        self.has.setdefault((where, folder), set()).update(contents)
        self.sent += len(written or ())

    async def _run(self, where: str, function: Any, *args: Any) -> Any:
        """Run a function of this module where a place is; None where no worker answers."""
        if where == self.own:
            return function(*args)
        for address in reversed(self.workers[where]):
            try:
                return (await self.client.run(function, *args, workers=[address]))[address]
            except (OSError, ValueError, KeyError):  # it has gone; one that starts anew says so
                self.workers[where].remove(address)
        return None
