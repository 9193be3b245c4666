"""A run that was killed anywhere ends, when started again, with the bytes of one that was not."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from photo_trees import SMALL, break_at_fixture, digests, make_tree, tree_fixture, whole_fixture  # noqa: F401 - fixtures

from gpucompute.data import Settings, preprocess
from gpucompute.data import journal as journal_module
from gpucompute.data.preprocess import OutputError
from gpucompute.data.source import SourceError
from gpucompute.data.store import Store

module = sys.modules["gpucompute.data.preprocess"]

# where the process is killed: (owner, function, number of the call or end of its last argument, before or after it)
POINTS = [
    ("Path", "mkdir", 0, "after"),  # an OUT.partial with nothing in it
    ("Store", "create", 0, "after"),  # before run.json
    ("Store", "open", 0, "before"),  # before the first chunk
    ("Store", "write", 0, "after"),  # a chunk that the journal does not know
    ("Store", "write", 3, "before"),
    ("Store", "write", 5, "after"),
    ("Journal", "bad", 0, "after"),
    ("Journal", "commit", 0, "after"),
    ("Journal", "commit", 4, "torn"),  # half a line
    ("Array", "resize", 0, "before"),  # all chunks there
    ("Array", "resize", 0, "after"),
    ("Group", "create_array", 2, "after"),  # `images` was the first; among the columns
    ("zarr", "consolidate_metadata", 0, "after"),
    ("os", "replace", "run.json", "before"),
    ("os", "replace", "out.zarr.ledger.jsonl", "before"),  # the ledger is written, but not in its place
    ("os", "replace", "out.zarr.ledger.jsonl", "after"),  # between ledger and Zarr
    ("os", "replace", "out.zarr", "after"),  # all but the cleaning up
]

KILLER = """
import json, os, signal, sys
from pathlib import Path
import numpy as np
import zarr
from zarr import Array, Group
import gpucompute.data
from gpucompute.data.journal import Journal
from gpucompute.data.store import Store

sys.path.insert(0, {here!r})
from photo_trees import SMALL

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def arm(owner, name, nth, when):
    original, calls = getattr(owner, name), iter(range(10**9))
    def armed(*args, **kwargs):
        hit = next(calls) == nth if isinstance(nth, int) else str(args[-1]).endswith(nth)
        if hit and when == "before":
            die()
        if hit and when == "torn":
            args[0]._file.write(b'{{"next": 40, "ro')
            args[0]._file.flush()
            die()
        result = original(*args, **kwargs)
        if hit:
            die()
        return result
    setattr(owner, name, armed)

SMALL.transform()([np.zeros((8, 8, 3), np.uint8)])  # compiled once, not in every child
tree, folder, points = json.loads(sys.argv[1])
for place, (owner, name, nth, when) in enumerate(points):
    child = os.fork()
    if child == 0:
        arm(globals()[owner], name, nth, when)
        gpucompute.data.preprocess(tree, Path(folder) / f"{{place}}" / "out.zarr", SMALL)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, (owner, name, nth, when, status)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
def test_killed_anywhere_ends_with_the_same_bytes(tree: Path, whole: Path, tmp_path: Path) -> None:
    for place in range(len(POINTS)):
        (tmp_path / str(place)).mkdir()
    argument = json.dumps([str(tree), str(tmp_path), POINTS])
    code = KILLER.format(here=str(Path(__file__).parents[1]))
    subprocess.run([sys.executable, "-W", "ignore", "-c", code, argument], check=True, timeout=120)
    expected = digests(whole)
    for place, point in enumerate(POINTS):
        out = tmp_path / str(place) / "out.zarr"
        summary = preprocess(tree, out, SMALL)
        assert digests(out) == expected, point
        assert (summary.rows, summary.bad) == (58, 5)
        if point[:2] == ("Journal", "commit"):
            assert 0 < summary.new < 63, "it went on, it did not start anew"


def test_the_number_of_workers_changes_no_byte(tree: Path, whole: Path, tmp_path: Path) -> None:
    preprocess(tree, tmp_path / "out.zarr", SMALL, workers=5)
    assert digests(tmp_path / "out.zarr") == digests(whole)


def test_full_disk_keeps_what_is_done(
    tree: Path, whole: Path, tmp_path: Path, break_at: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.zarr"
    break_at(Store, "write", OSError(errno.ENOSPC, "No space left on device"), nth=3)
    with pytest.raises(OSError, match="No space left") as error:
        preprocess(tree, out, SMALL)
    assert error.value.errno == errno.ENOSPC
    monkeypatch.undo()
    assert not out.exists()
    assert preprocess(tree, out, SMALL).new < 63
    assert digests(out) == digests(whole)


def test_ctrl_c_keeps_what_is_done(tree: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.zarr"

    def press(done: int, bad: int, total: int) -> None:
        if done == 40:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        preprocess(tree, out, SMALL, on_progress=press)
    assert preprocess(tree, out, SMALL).new < 40
    assert digests(out) == digests(whole)


def test_many_bad_files_are_noted_as_they_come(
    tree: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BAD_AT_ONCE", 1)
    preprocess(tree, tmp_path / "out.zarr", SMALL)
    assert digests(tmp_path / "out.zarr") == digests(whole)


def test_a_chunk_that_was_lost_is_written_again(
    tree: Path, whole: Path, tmp_path: Path, break_at: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.zarr"
    break_at(Store, "write", OSError(errno.EIO, "Input/output error"), nth=5)
    with pytest.raises(OSError, match="Input/output"):
        preprocess(tree, out, SMALL)
    monkeypatch.undo()
    chunks = out.with_name("out.zarr.partial") / "zarr/images/c"
    (chunks / "2/0/0/0").write_bytes(b"cut by a power failure")
    (chunks / "4/0/0/0.0123abcd.partial").write_bytes(b"half of what zarr was writing under another name")
    assert preprocess(tree, out, SMALL).new > 63 - 4 * 8
    assert digests(out) == digests(whole)


def test_a_complete_output_is_left_alone(tree: Path, whole: Path) -> None:
    before = digests(whole)
    summary = preprocess(tree, whole, SMALL)
    assert (summary.new, summary.rows, summary.bad, summary.files) == (0, 58, 5, 63)
    assert digests(whole) == before


def test_other_settings_are_named_and_nothing_is_lost(tree: Path, whole: Path) -> None:
    before = digests(whole)
    with pytest.raises(
        OutputError, match=r"dtype: float32 there, float16 given; resize: 24 there, 25 given.*--overwrite"
    ):
        preprocess(tree, whole, Settings(resize=25, crop=(16, 16), batch_size=8, dtype="float16"))
    assert digests(whole) == before


def test_unfinished_with_other_settings_or_files(
    tmp_path: Path, break_at: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    tree, out = make_tree(tmp_path / "tree", 30), tmp_path / "out.zarr"
    break_at(Store, "write", OSError(errno.EIO, "Input/output error"), nth=2)
    with pytest.raises(OSError, match="Input/output"):
        preprocess(tree, out, SMALL)
    monkeypatch.undo()
    with pytest.raises(
        OutputError, match=r"out.zarr.partial was made with other settings \(batch_size: 8 there, 4 given\)"
    ):
        preprocess(tree, out, Settings(resize=24, crop=(16, 16), batch_size=4))
    (tree / "a/new.jpg").write_bytes(b"")
    with pytest.raises(SourceError, match="when other files, or files of other sizes"):
        preprocess(tree, out, SMALL)
    (tree / "a/new.jpg").unlink()
    other = Settings(resize=24, crop=(16, 16), batch_size=4)
    assert preprocess(tree, tmp_path / "other.zarr", other).new == preprocess(tree, out, other, overwrite=True).new


def test_overwrite_replaces_and_can_itself_be_interrupted(
    tmp_path: Path, break_at: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    tree, out = make_tree(tmp_path / "tree", 30), tmp_path / "out.zarr"
    other = Settings(resize=20, crop=(16, 16), batch_size=8)
    preprocess(tree, tmp_path / "expected.zarr", other)
    preprocess(tree, out, SMALL)
    break_at(Store, "write", OSError(errno.EIO, "Input/output error"), nth=2)
    with pytest.raises(OSError, match="Input/output"):
        preprocess(tree, out, other, overwrite=True)
    monkeypatch.undo()
    assert preprocess(tree, out, SMALL).new == 0, "the old output is still there"
    assert preprocess(tree, out, other, overwrite=True).new < 34, "it goes on"
    expected = {name.replace("expected", "out"): value for name, value in digests(tmp_path / "expected.zarr").items()}
    assert digests(out) == expected


@pytest.mark.parametrize(
    "make", [Path.mkdir, lambda path: path.write_text("a file"), lambda path: path.symlink_to("nowhere")]
)
def test_something_else_is_never_replaced(tree: Path, tmp_path: Path, make: Callable[[Path], object]) -> None:
    out = tmp_path / "precious"
    make(out)
    with pytest.raises(OutputError, match="was not made by gpucompute preprocess"):
        preprocess(tree, out, SMALL, overwrite=True)
    assert os.path.lexists(out)


def test_journal_counts_up_to_the_last_whole_commit(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = journal_module.Journal(path, lambda chunk: 100)
    journal.bad([journal_module.BadFile(1, "b.jpg", "empty file")])
    journal.commit(5, 4, 1, 100)
    journal.bad([journal_module.BadFile(6, "g.jpg", "empty file")])
    journal.close()
    assert len(list(journal_module.bad_files(path))) == 2
    journal = journal_module.Journal(path, lambda chunk: 100)
    journal.close()
    assert journal.progress == (5, 4, 1, 1)
    assert [bad.path for bad in journal_module.bad_files(path)] == ["b.jpg"]
    journal = journal_module.Journal(path, lambda chunk: 99)
    journal.close()
    assert journal.progress == (0, 0, 0, 0)
    assert path.read_bytes() == b""
