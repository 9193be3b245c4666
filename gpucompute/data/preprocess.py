"""The main job: a folder of photographs in, a Zarr that training reads out, whatever happens on the way.

DESIGN.md says why a killed run ends with the same bytes.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from .. import __version__
from ..errors import GpucomputeError, OptionError
from . import decode, source
from .budget import Budget
from .journal import BadFile, Journal, bad_files
from .lock import lock
from .settings import Settings, Transform, differences
from .store import MARK, Row, Store, import_zarr, read_attributes

PICTURE_BYTES = 16  # for a pixel, measured: 13 for a PNG, 3 for a JPEG, some more where a mode is converted
BUDGET = 512 << 20  # bytes of all pictures being decoded; a larger one goes alone
SMALL_FILE = 16 << 20  # bytes; a larger file is read alone
BEGUN = "run.json"  # says what the unfinished run in its folder is
BAD_AT_ONCE = 1000  # bad files held before they are noted

OnProgress = Callable[[int, int, int], None]


class OutputError(GpucomputeError, RuntimeError):
    """The place of the output holds something that must not be overwritten."""


@dataclass(frozen=True)
class Summary:
    """What a run did.

    `files` candidates became `rows` rows and `bad` lines of the ledger; `new` of them were read by this run (none
    if the output was complete before).
    """

    out: Path
    ledger: Path
    rows: int
    bad: int
    new: int
    files: int
    classes: list[str] = field(repr=False)
    ignored: dict[str, int] = field(default_factory=dict, repr=False)


def preprocess(
    src: str | os.PathLike[str],
    out: str | os.PathLike[str],
    settings: Settings | None = None,
    *,
    workers: int | None = None,
    overwrite: bool = False,
    on_progress: OnProgress | None = None,
) -> Summary:
    """Turn a folder tree of photographs into a Zarr v3 group of arrays.

    Rows follow the sorted relative paths. A file that cannot be decoded gets no row but a line in the ledger,
    ``OUT.ledger.jsonl`` (``{"path": ..., "reason": ...}``), and the run goes on. A run that was stopped, in
    whatever way, goes on when it is started again with the same arguments, and ends with the same bytes.

    Parameters
    ----------
    src : path
        Its first-level folders are the classes.
    out : path
        The Zarr, which appears when it is complete; until then there is ``OUT.partial``. Arrays: ``images``;
        ``labels`` (int64, index into the attribute ``class_names``, -1 outside a class folder); ``names`` (the
        relative paths); ``ids`` (int64, hash of the relative path).
    settings : Settings, optional
        What becomes of each photograph.
    workers : int, optional
        Threads that decode, `gpucompute.get_threads()` by default. The bytes do not depend on it.
    overwrite : bool
        Replace an output that is there, and give up an unfinished run.
    on_progress : callable, optional
        Called as ``on_progress(done, bad, total)``, in files, after each.

    Returns
    -------
    Summary

    Raises
    ------
    OptionError
        If `src` is no folder or holds no photographs, or `out` lies inside it.
    OutputError
        If `out` is complete or unfinished with other settings, or is something else.
    SourceError
        If the files changed since an unfinished run was begun.
    LockedError
        If another run writes `out`.
    OSError
        If the disk is full or does not take the output; what is done is kept.
    """
    settings = settings or Settings()
    src, out = Path(src), Path(out)
    _check_places(src, out)
    import_zarr()
    workers = workers or _threads()
    with decode.codecs(), lock(sibling(out, ".lock")):
        listing = sibling(out, ".files")
        try:
            run = _Run(src, out, settings, overwrite, listing)
            return run.finish(workers, on_progress or (lambda *_: None))
        finally:
            listing.unlink(missing_ok=True)


def sibling(out: Path, suffix: str) -> Path:
    """Return a path beside `out` that a run uses: its name with ".partial", ".ledger.jsonl", ".lock" or ".files"."""
    return out.with_name(out.name + suffix)


def is_begun(out: Path) -> bool:
    """Tell whether there is an output, or an unfinished run that goes on when it is started again."""
    return os.path.lexists(out) or (sibling(out, ".partial") / BEGUN).exists()


def _threads() -> int:
    from ..launch.cpu import get_threads

    return get_threads()


def _check_places(src: Path, out: Path) -> None:
    if not src.is_dir():
        raise OptionError(f"{src}: expected a folder of photographs, found {'a file' if src.exists() else 'nothing'}")
    if not out.parent.is_dir():
        raise OptionError(f"{out.parent} is not a folder; make it first, or write the output elsewhere")
    inner, outer = out.resolve(), src.resolve()
    if inner.is_relative_to(outer) or outer.is_relative_to(inner):
        raise OptionError(f"the output {out} and the photographs in {src} lie inside each other; keep them apart")


class _Run:
    """One run, with what is on disk already."""

    def __init__(self, src: Path, out: Path, settings: Settings, overwrite: bool, listing: Path) -> None:
        self.src, self.out, self.settings, self.overwrite, self.listing = src, out, settings, overwrite, listing
        self.ledger = sibling(out, ".ledger.jsonl")
        self.partial = sibling(out, ".partial")
        self.manifest = self.partial / "files.jsonl"
        self.journal = self.partial / "journal.jsonl"
        self.begun = self.partial / BEGUN
        self.store = Store(self.partial / "zarr", settings)

    def finish(self, workers: int, on_progress: OnProgress) -> Summary:
        """Do what is left to do."""
        if os.path.lexists(self.out) and (kept := read_attributes(self.out)) is None:
            raise OutputError(
                f"{self.out} exists and was not made by gpucompute preprocess; choose another output or remove it"
            )
        found = source.survey(self.src, self.listing)
        if not found.files:
            raise OptionError(f"{self.src} holds no photographs ({' '.join(sorted(source.EXTENSIONS))})")
        identity = {"version": __version__, "settings": self.settings.to_json(), "source": found.digest}
        if os.path.lexists(self.out) and not self.overwrite:
            assert kept is not None
            self._same(self.out, kept[MARK], identity)
            if not self.store.path.exists():  # killed between the last rename and the cleaning up
                shutil.rmtree(self.partial, ignore_errors=True)
            return self._summary(found, kept[MARK]["rows"], new=0)
        self._begin(found, identity)
        self.store.open()
        with closing(Journal(self.journal, self.store.chunk_size)) as journal:
            new = found.files - journal.progress.next
            self.store.forget_after(journal.progress.chunks)
            rows = self._work(journal, found, workers, on_progress)
        self._publish(found, rows)
        return self._summary(found, rows, new)

    def _summary(self, found: source.Survey, rows: int, new: int) -> Summary:
        bad = found.files - rows
        return Summary(
            self.out, self.ledger, rows, bad, new, found.files, self._class_names(found), dict(found.ignored)
        )

    @staticmethod
    def _class_names(found: source.Survey) -> list[str]:
        return [source.printable(name) for name in found.classes]

    def _same(self, place: Path, kept: dict[str, Any], given: dict[str, Any]) -> None:
        advice = "give the same settings, choose another output, or add --overwrite to start anew"
        if differing := differences({**kept["settings"], "version": kept["version"]},
                                    {**given["settings"], "version": given["version"]}):  # fmt: skip
            raise OutputError(f"{place} was made with other settings ({differing}); {advice}")
        if kept["source"] != given["source"]:
            raise source.SourceError(
                f"{place} was made when other files, or files of other sizes, were in {self.src}; bring them back, "
                "choose another output, or add --overwrite to start anew"
            )

    def _begin(self, found: source.Survey, identity: dict[str, Any]) -> None:
        """Make the folder of an unfinished run, unless there is one to go on with."""
        try:
            kept = json.loads(self.begun.read_bytes())
        except (FileNotFoundError, NotADirectoryError, ValueError):
            kept = None
        # --overwrite gives up a run that was begun without it. One that was begun with it, and is the same, goes
        # on: after an interruption the same command is given again.
        if kept is not None and self.overwrite and (not kept["overwrite"] or kept["identity"] != identity):
            kept = None
        if kept is not None:
            self._same(self.partial, kept["identity"], identity)
            return
        if self.partial.exists():
            shutil.rmtree(self.partial)
        self.partial.mkdir()
        os.replace(self.listing, self.manifest)
        self.store.create(found.files)
        _write_whole(self.begun, [json.dumps({"identity": identity, "overwrite": self.overwrite}).encode()])

    def _work(self, journal: Journal, found: source.Survey, workers: int, on_progress: OnProgress) -> int:
        """Read the candidates that are left, write their chunks, and return the number of rows."""
        done, rows, bad, chunk = journal.progress
        buffers = [np.empty(self.settings.shape(self.store.batch), self.settings.dtype) for _ in range(2)]
        filled, reasons = 0, list[BadFile]()
        reader = _Reader(self.src, self.settings)
        results = reader.read(source.read_manifest(self.manifest, done), workers)
        with _Writer() as writer, closing(results):
            on_progress(done, bad, found.files)
            for position, entry, result in results:
                if isinstance(result, str):
                    reasons.append(BadFile(position, source.printable(entry.path), result))
                    bad += 1
                else:
                    buffers[chunk % 2][filled] = result
                    filled += 1
                    rows += 1
                if filled == self.store.batch:
                    writer.do(self._note, journal, chunk, buffers[chunk % 2], reasons, (position + 1, rows, bad))
                    filled, chunk, reasons = 0, chunk + 1, []
                elif len(reasons) == BAD_AT_ONCE:
                    writer.do(journal.bad, reasons)
                    reasons = []
                on_progress(position + 1, bad, found.files)
            if filled:
                last = (found.files, rows, bad)
                writer.do(self._note, journal, chunk, buffers[chunk % 2][:filled], reasons, last)
            else:
                writer.do(journal.bad, reasons)
        return rows

    def _note(
        self,
        journal: Journal,
        chunk: int,
        batch: npt.NDArray[Any],
        reasons: list[BadFile],
        progress: tuple[int, int, int],
    ) -> None:
        size = self.store.write(chunk, batch)
        journal.bad(reasons)
        journal.commit(*progress, size)

    def _publish(self, found: source.Survey, rows: int) -> None:
        """Put the ledger and the complete group in their places."""
        index = {name: label for label, name in enumerate(found.classes)}
        attributes = {
            "class_names": self._class_names(found),
            MARK: {"source": found.digest, "files": found.files, "rows": rows, "bad": found.files - rows},
        }
        self.store.finish(self._rows(index), rows, attributes)
        lines = (json.dumps({"path": bad.path, "reason": bad.reason}) + "\n" for bad in bad_files(self.journal))
        _write_whole(self.ledger, (line.encode() for line in lines))
        if self.out.exists():
            os.replace(self.out, self.partial / "replaced")
        os.replace(self.store.path, self.out)
        shutil.rmtree(self.partial, ignore_errors=True)  # the output is complete; a later run removes the rest

    def _rows(self, index: dict[str, int]) -> Iterator[Row]:
        """Yield the rows: the candidates that the journal does not name, both being in the same order."""
        bad = bad_files(self.journal)
        skip = next(bad, None)
        for position, entry in source.read_manifest(self.manifest):
            if skip is not None and position == skip.position:
                skip = next(bad, None)
            else:
                label = index.get(source.class_of(entry.path), -1)
                yield Row(label, source.printable(entry.path), source.identity(entry.path))


class _Reader:
    """Files to rows, on a pool of threads, in order and with bounded memory."""

    def __init__(self, src: Path, settings: Settings) -> None:
        self.src, self.settings = src, settings
        self.transform: Transform = settings.transform()
        self.budget = Budget(BUDGET)
        self.max_file = 8 * settings.max_pixels + (1 << 20)  # four channels of 16 bits, not compressed, and a header
        # once on this thread, so that what compiles at the first call does not compile in every worker
        self._row(np.zeros((8, 8, 3), np.uint8))

    def read(
        self, candidates: Iterator[tuple[int, source.Entry]], workers: int
    ) -> Generator[tuple[int, source.Entry, npt.NDArray[Any] | str]]:
        """Yield (position, entry, row or reason) of each candidate, in their order."""
        pool = ThreadPoolExecutor(workers, thread_name_prefix="gpucompute-decode")
        under_way = deque[tuple[int, source.Entry, Future[npt.NDArray[Any] | str]]]()
        try:
            for position, entry in candidates:
                under_way.append((position, entry, pool.submit(self._one, entry)))
                if len(under_way) > 4 * workers:  # enough for one slow picture not to stop the others
                    position, entry, future = under_way.popleft()
                    yield position, entry, future.result()
            for position, entry, future in under_way:
                yield position, entry, future.result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _one(self, entry: source.Entry) -> npt.NDArray[Any] | str:
        """Return the row of a file, or the reason why it has none."""
        if entry.problem:
            return entry.problem
        if entry.size > self.max_file:
            return f"file of {entry.size:,} bytes; at most {self.max_file:,} are read (8 for each of --max-pixels)"
        try:
            if entry.size > SMALL_FILE:
                with self.budget.take(BUDGET):
                    picture = self._open(entry)
                    return self._row(picture.load())
            picture = self._open(entry)
            with self.budget.take(PICTURE_BYTES * picture.height * picture.width):
                return self._row(picture.load())
        except decode.BadFileError as error:
            return str(error)
        except MemoryError:
            return "not enough memory to decode it"

    def _open(self, entry: source.Entry) -> decode.Picture:
        try:
            data = (self.src / entry.path).read_bytes()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):  # not the file's fault
                raise
            if isinstance(error, FileNotFoundError):
                raise source.SourceError(
                    f"{self.src / entry.path} has vanished since the folder was listed; bring it back and start again"
                ) from None
            raise decode.BadFileError(f"cannot be read: {error.strerror}") from None
        picture = decode.open_picture(data, self.settings.max_pixels)
        resize, short = self.settings.resize, min(picture.height, picture.width)
        if isinstance(resize, int) and short < resize:
            long = max(picture.height, picture.width) * resize // short
            if long * resize > self.settings.max_pixels:
                raise decode.BadFileError(
                    f"{picture.width} x {picture.height} pixels, so thin that --resize {resize} would make it "
                    f"{long:,} pixels long"
                )
        return picture

    def _row(self, pixels: decode.Pixels) -> npt.NDArray[Any]:
        row: npt.NDArray[Any] = self.transform([pixels])[0]
        return row


class _Writer:
    """A thread that does one thing after another, at most one ahead of the caller."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="gpucompute-write")
        self._last: Future[None] | None = None

    def do(self, what: Callable[..., None], *args: Any) -> None:
        """Start `what`, after what was started before has ended; its error is raised here."""
        if self._last is not None:
            self._last.result()
        self._last = self._thread.submit(what, *args)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._thread.shutdown()
        if kind is None and self._last is not None:
            self._last.result()


def _write_whole(path: Path, parts: Iterable[bytes]) -> None:
    """Write a file so that it is there whole or not at all."""
    temporary = sibling(path, ".tmp")
    with open(temporary, "wb") as file:
        file.writelines(parts)
    os.replace(temporary, path)
