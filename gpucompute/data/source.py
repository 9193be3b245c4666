"""The photographs of a folder tree: which files count, in which order, and how two listings are compared."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ..errors import GpucomputeError

# What is taken for a photograph by its name; the decoder then goes by the content alone. HEIC is here although
# Pillow cannot read it: a phone's pictures must be named in the ledger, not passed over in silence.
EXTENSIONS = frozenset(
    f".{name}"
    for name in (
        *("jpg", "jpeg", "jpe", "jfif", "mpo", "png", "apng", "webp", "tif", "tiff", "bmp", "dib", "gif"),
        *("ppm", "pgm", "pbm", "pnm", "jp2", "j2k", "jpx", "avif", "heic", "heif"),
    )
)


class SourceError(GpucomputeError, RuntimeError):
    """The folder of photographs changed while, or since, it was read."""


class Entry(NamedTuple):
    """One candidate file.

    `path` is relative to the folder, with "/" between its parts; bytes of the name that are not UTF-8 are lone
    surrogates, as `os.fsdecode` gives them. `problem` is the reason why it cannot be read, or "".
    """

    path: str
    size: int
    problem: str


@dataclass
class Survey:
    """What one walk over a folder found; `digest` is the SHA-256 of every path and size, in order."""

    files: int = 0
    digest: str = ""
    classes: list[str] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)


def printable(path: str) -> str:
    r"""Return a path as valid Unicode; bytes that are not UTF-8 are written as ``\xNN``.

    >>> printable("caf\udce9.jpg")
    'caf\\xe9.jpg'
    """
    return _encode(path).decode("utf-8", "backslashreplace")


def identity(path: str) -> int:
    """Return the id of a photograph: the first 63 bits of the SHA-256 of its relative path.

    It depends on the path alone, so it stays when other files are added, removed or found bad, and can key
    random draws. Two of a million paths share an id with a chance of about 5e-8.

    >>> identity("cats/chelsea.jpg")
    5290580527640296426
    """
    return int.from_bytes(hashlib.sha256(_encode(path)).digest()[:8], "big") >> 1


def _encode(path: str) -> bytes:
    return path.encode("utf-8", "surrogatepass" if os.name == "nt" else "surrogateescape")


def class_of(path: str) -> str:
    """Return the first folder of a relative path, or "" where the file lies at the top."""
    head, separator, _ = path.partition("/")
    return head if separator else ""


def walk(root: Path, ignored: Counter[str] | None = None) -> Iterator[Entry]:
    """Yield the candidate files under `root`, sorted by relative path.

    Only one folder's names are held at a time for each level, so memory does not grow with the tree. Links are
    followed, except to a folder that contains the link. Names that begin with a dot are passed over (``._x.jpg``
    is not a picture), and so are files with other extensions, which `ignored` counts.
    """
    ignored = Counter() if ignored is None else ignored
    top = os.stat(root)
    yield from _walk(os.fspath(root), "", frozenset([(top.st_dev, top.st_ino)]), ignored)


def _walk(folder: str, prefix: str, above: frozenset[tuple[int, int]], ignored: Counter[str]) -> Iterator[Entry]:
    try:
        names = sorted(_names(folder))
    except OSError as error:
        yield Entry(prefix, 0, f"folder cannot be read: {error.strerror}")
        return
    for name, is_folder in names:
        full = os.path.join(folder, name.rstrip("/") if is_folder else name)
        if is_folder:
            try:
                status = os.stat(full)
            except OSError as error:
                yield Entry(prefix + name, 0, f"folder cannot be read: {error.strerror}")
                continue
            key = (status.st_dev, status.st_ino)
            if key not in above:
                yield from _walk(full, prefix + name, above | {key}, ignored)
        elif (extension := os.path.splitext(name)[1].lower()) in EXTENSIONS:
            yield _entry(full, prefix + name)
        else:
            ignored[extension] += 1


def _names(folder: str) -> Iterator[tuple[str, bool]]:
    """Yield (name, is folder); a folder's name ends in "/", which makes the order that of whole relative paths."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            try:
                is_folder = entry.is_dir()
            except OSError:  # a link that leads to itself: a file that cannot be read
                is_folder = False
            yield (entry.name + "/" if is_folder else entry.name), is_folder


def _entry(full: str, path: str) -> Entry:
    try:
        status = os.stat(full)
    except OSError as error:  # a broken link
        return Entry(path, 0, f"cannot be read: {error.strerror}")
    if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
        return Entry(path, 0, "not a regular file")
    return Entry(path, status.st_size, "")


def survey(root: Path, manifest: Path) -> Survey:
    """Walk over `root` once and write the candidates to the file `manifest`, one JSON line each."""
    found, digest, classes = Survey(), hashlib.sha256(), set[str]()
    with open(manifest, "wb") as file:
        for entry in walk(root, found.ignored):
            line = json.dumps(entry).encode() + b"\n"
            file.write(line)
            digest.update(line)
            found.files += 1
            classes.add(class_of(entry.path))
    found.digest = digest.hexdigest()
    found.classes = sorted(classes - {""})
    return found


def read_manifest(manifest: Path, start: int = 0) -> Iterator[tuple[int, Entry]]:
    """Yield (position, entry) from the candidate at `start` on."""
    with open(manifest, "rb") as file:
        for position, line in enumerate(file):
            if position >= start:
                yield position, Entry(*json.loads(line))
