"""The record of an unfinished run: which photographs are done, and which were bad.

A text file of JSON lines, appended to and never rewritten. ``{"bad": [position, path, reason]}`` names a bad
file; ``{"next": n, "rows": r, "bad": b, "bytes": s}`` says that every candidate before position `n` is done: `r` rows
and `b` bad files so far, and `s` bytes in the chunk just written. What follows the last such line does not count.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple


class Progress(NamedTuple):
    """How far a run has come, in candidates, rows, bad files and chunks."""

    next: int = 0
    rows: int = 0
    bad: int = 0
    chunks: int = 0


class BadFile(NamedTuple):
    """A candidate without a row: its position among all, its path as it can be printed, and why."""

    position: int
    path: str
    reason: str


class Journal:
    """The journal at `path`, opened to go on after its last commit.

    Parameters
    ----------
    path : Path
        The file, made if it is missing.
    chunk_size : callable
        Called with a chunk's number, returns the bytes it has on disk. Commits count up to the first chunk whose
        size is not the one noted: after a power cut the journal may be ahead of the data.
    """

    def __init__(self, path: Path, chunk_size: Callable[[int], int]) -> None:
        self.path = path
        self.progress = Progress()
        end = 0
        if path.exists():
            for stop, line in _lines(path):
                if "next" not in line:
                    continue
                if chunk_size(self.progress.chunks) != line["bytes"]:
                    break
                self.progress = Progress(line["next"], line["rows"], line["bad"], self.progress.chunks + 1)
                end = stop
        self._file = open(path, "ab")  # noqa: SIM115 - closed by close()
        self._file.truncate(end)

    def bad(self, files: list[BadFile]) -> None:
        """Note bad files, in the order of their positions."""
        self._file.write(b"".join(_dump({"bad": file}) for file in files))

    def commit(self, next_position: int, rows: int, bad: int, size: int) -> None:
        """Note that a chunk is on disk, with all candidates before `next_position` done."""
        self._file.write(_dump({"next": next_position, "rows": rows, "bad": bad, "bytes": size}))
        self._file.flush()  # the system's from here on: a killed process loses nothing of it

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def bad_files(path: Path) -> Iterator[BadFile]:
    """Yield every bad file that the journal names."""
    for _, line in _lines(path):
        if "next" not in line:
            yield BadFile(*line["bad"])


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (offset after the line, what it says) up to the first line that is torn."""
    end = 0
    with open(path, "rb") as file:
        for line in file:
            end += len(line)
            try:
                record = json.loads(line)
            except ValueError:
                return
            if not line.endswith(b"\n"):
                return
            yield end, record


def _dump(record: object) -> bytes:
    return json.dumps(record).encode() + b"\n"
