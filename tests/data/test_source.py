"""Which files are taken for photographs, in which order, and what is done about odd ones."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from pathlib import Path

import pytest

from gpucompute.data import source


def listing(root: Path) -> list[str]:
    return [entry.path for entry in source.walk(root)]


def test_order_is_that_of_whole_relative_paths(tmp_path: Path) -> None:
    # "-" and "." sort before "/", "0" after it: folder by folder would give another order
    names = ["a/1.jpg", "a-b/1.jpg", "a.jpg", "a0/1.JPG", "a/b/2.png", "a/b.webp", "Z.tif", "é.gif"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert listing(tmp_path) == sorted(names)


def test_names_that_are_passed_over_are_counted(tmp_path: Path) -> None:
    for name in ("x.txt", "y.txt", "noextension", ".x.jpg", "._y.jpg", "z.jpeg"):
        (tmp_path / name).touch()
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "w.jpg").touch()
    ignored: Counter[str] = Counter()
    assert [entry.path for entry in source.walk(tmp_path, ignored)] == ["z.jpeg"]
    assert ignored == {".txt": 2, "": 1}


def test_a_folder_may_be_named_like_a_photograph(tmp_path: Path) -> None:
    (tmp_path / "dir.jpg").mkdir()
    (tmp_path / "dir.jpg" / "in.jpg").touch()
    assert listing(tmp_path) == ["dir.jpg/in.jpg"]


@pytest.mark.skipif(os.name == "nt", reason="symbolic links and pipes")
def test_links_and_pipes(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.jpg").write_bytes(b"123")
    (tmp_path / "a" / "up").symlink_to(tmp_path)  # would lead round for ever
    (tmp_path / "b").symlink_to(tmp_path / "a")  # a second way to the same folder is a folder of its own
    (tmp_path / "broken.jpg").symlink_to("nowhere")
    (tmp_path / "itself.jpg").symlink_to("itself.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    entries = {entry.path: entry for entry in source.walk(tmp_path)}
    assert list(entries) == ["a/1.jpg", "b/1.jpg", "broken.jpg", "itself.jpg", "pipe.jpg"]
    assert entries["b/1.jpg"].size == 3
    assert entries["broken.jpg"].problem == "cannot be read: No such file or directory"
    assert entries["itself.jpg"].problem.startswith("cannot be read: ")
    assert entries["pipe.jpg"].problem == "not a regular file"


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shut").mkdir()
    (tmp_path / "z.jpg").touch()
    scandir = os.scandir

    def refuse(folder: str) -> object:
        if folder.endswith("shut"):
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    assert list(source.walk(tmp_path)) == [
        source.Entry("shut/", 0, "folder cannot be read: Permission denied"),
        source.Entry("z.jpg", 0, ""),
    ]


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jpg")).touch()
    except (OSError, UnicodeError):
        pytest.skip("this file system takes no such names")
    manifest = tmp_path / "files"
    found = source.survey(tmp_path, manifest)
    ((position, entry),) = source.read_manifest(manifest)
    assert (position, found.files) == (0, 1)
    assert (tmp_path / entry.path).exists()
    assert source.printable(entry.path) == "caf\\xe9.jpg"
    assert source.identity(entry.path) == int.from_bytes(hashlib.sha256(b"caf\xe9.jpg").digest()[:8], "big") >> 1


def test_survey_tells_classes_and_notices_changes(tmp_path: Path) -> None:
    root, manifest = tmp_path / "root", tmp_path / "files"
    for name in ("b/x/1.jpg", "a-b/1.jpg", "a/1.jpg", "top.jpg", "empty/notes.txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    found = source.survey(root, manifest)
    assert found.classes == ["a", "a-b", "b"]
    assert [position for position, _ in source.read_manifest(manifest, 2)] == [2, 3]
    assert source.survey(root, manifest).digest == found.digest
    (root / "a/1.jpg").write_bytes(b"longer")
    assert source.survey(root, manifest).digest != found.digest
