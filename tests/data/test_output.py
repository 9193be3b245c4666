"""What is in the Zarr, who can open it, and how much memory a run takes."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from photo_trees import BAD, SMALL, encoded, tree_fixture, whole_fixture  # noqa: F401 - fixtures

from gpucompute import MissingExtraError, OptionError
from gpucompute.data import NORMALIZATIONS, Settings, decode, preprocess, source
from gpucompute.data.lock import LockedError, lock

zarr = pytest.importorskip("zarr")


def good(tree: Path) -> list[str]:
    paths = (path.relative_to(tree).as_posix() for path in tree.rglob("[!.]*.*g"))
    return sorted(path for path in paths if path not in BAD)


def test_rows_follow_the_sorted_paths_and_bad_files_have_none(tree: Path, whole: Path) -> None:
    group = zarr.open_group(whole, mode="r")
    names = good(tree)
    assert list(group["names"][:]) == names
    assert group.attrs["class_names"] == ["a", "b", "c"]
    assert list(group["labels"][:]) == ["abc".index(name[0]) for name in names]
    assert list(group["ids"][:]) == [source.identity(name) for name in names]
    assert group["labels"].dtype == group["ids"].dtype == np.int64
    images = group["images"]
    assert images.shape == (58, 3, 16, 16) and images.chunks == (8, 3, 16, 16) and images.dtype == np.float32
    assert images.metadata.dimension_names == ("image", "channel", "height", "width")
    assert group["names"].metadata.dimension_names == ("image",)
    transform = SMALL.transform()
    with decode.codecs():
        expected = [decode.open_picture((tree / name).read_bytes()).load() for name in names]
    np.testing.assert_array_equal(images[:], transform(expected))
    kept = group.attrs["gpucompute"]
    assert (kept["rows"], kept["bad"], kept["files"]) == (58, 5, 63)
    assert kept["settings"] == SMALL.to_json()
    assert group.attrs["std"] == list(NORMALIZATIONS["imagenet"].std)


def test_ledger(whole: Path) -> None:
    lines = [json.loads(line) for line in whole.with_name("out.zarr.ledger.jsonl").read_text().splitlines()]
    assert [line["path"] for line in lines] == sorted(BAD)
    assert all(list(line) == ["path", "reason"] and line["reason"] for line in lines)
    assert lines[0]["reason"] == "empty file"


def test_a_file_at_the_top_has_no_class(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "one.jpg").write_bytes(encoded(1))
    summary = preprocess(tmp_path / "src", tmp_path / "out", Settings(dtype="uint8", normalize=None, layout="NHWC"))
    group = zarr.open_group(tmp_path / "out", mode="r")
    assert list(group["labels"][:]) == [-1]
    assert group["images"].shape == group["images"].chunks == (1, 224, 224, 3), "a chunk is not larger than the array"
    assert (summary.rows, summary.bad, summary.new) == (1, 0, 1)
    assert summary.ledger.read_bytes() == b""


def test_all_files_bad(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "one.jpg").touch()
    assert preprocess(tmp_path / "src", tmp_path / "out", SMALL).bad == 1
    group = zarr.open_group(tmp_path / "out", mode="r")
    assert group["images"].shape == (0, 3, 16, 16)
    assert group["names"].shape == (0,)


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_a_black_batch_is_written(tmp_path: Path, compression: str) -> None:
    (tmp_path / "src").mkdir()
    from PIL import Image

    for number in range(3):
        Image.new("RGB", (20, 20)).save(tmp_path / "src" / f"{number}.png")
    settings = Settings(resize=None, normalize=None, batch_size=2, crop=(20, 20), compression=compression)
    preprocess(tmp_path / "src", tmp_path / "out", settings)
    assert sorted(path.name for path in (tmp_path / "out/images/c").iterdir()) == ["0", "1"]
    assert not zarr.open_group(tmp_path / "out", mode="r")["images"][:].any()


def test_xarray_opens_it(whole: Path) -> None:
    xarray = pytest.importorskip("xarray")
    with xarray.open_zarr(whole, chunks=None) as data:
        assert data["images"].dims == ("image", "channel", "height", "width")
        assert data["names"].dims == data["labels"].dims == ("image",)
        first = data.isel(image=0)
        assert str(first["names"].values) == "a/00.png" and float(first["images"].mean()) != 0


def test_dask_opens_it(whole: Path) -> None:
    array = pytest.importorskip("dask.array")
    images = array.from_zarr(str(whole), component="images")
    assert images.chunksize == (8, 3, 16, 16)
    np.testing.assert_array_equal(images[50:].compute(), zarr.open_group(whole, mode="r")["images"][50:])


def test_torch_takes_a_batch(whole: Path) -> None:
    torch = pytest.importorskip("torch")
    batch = torch.from_numpy(zarr.open_group(whole, mode="r")["images"][:8])
    assert batch.shape == (8, 3, 16, 16) and batch.dtype == torch.float32


def test_one_run_at_a_time(tree: Path, tmp_path: Path) -> None:
    with lock(tmp_path / "out.zarr.lock"), pytest.raises(LockedError, match="another gpucompute preprocess is writing"):
        preprocess(tree, tmp_path / "out.zarr", SMALL)
    assert list(tmp_path.iterdir()) == []


def test_a_lock_of_a_dead_process_does_not_count(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "out.zarr.lock").touch()
    assert preprocess(tree, tmp_path / "out.zarr", SMALL).rows == 58


def refuse_to_read(monkeypatch: pytest.MonkeyPatch, name: str, error: OSError) -> None:
    read = Path.read_bytes

    def read_bytes(path: Path) -> bytes:
        if path.name == name:
            raise error
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl")

    def flock(handle: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with lock(tmp_path / "x.lock"):
        assert (tmp_path / "x.lock").exists()


def test_a_file_that_vanishes_stops_the_run(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_to_read(monkeypatch, "05.jpg", FileNotFoundError(2, "No such file or directory"))
    with pytest.raises(source.SourceError, match=r"05\.jpg has vanished since the folder was listed"):
        preprocess(tree, tmp_path / "out.zarr", SMALL)


def test_a_file_that_cannot_be_read_is_bad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "shut.jpg").write_bytes(b"123")
    refuse_to_read(monkeypatch, "shut.jpg", PermissionError(13, "Permission denied"))
    summary = preprocess(tmp_path / "src", tmp_path / "out", SMALL)
    assert json.loads(summary.ledger.read_text())["reason"] == "cannot be read: Permission denied"


def test_files_and_pictures_too_large_are_bad(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "large.jpg").write_bytes(encoded(1, size=(400, 300)))
    (tmp_path / "src" / "long.jpg").write_bytes(encoded(1) + bytes(2 << 20))
    summary = preprocess(tmp_path / "src", tmp_path / "out", Settings(max_pixels=10_000))
    reasons = [json.loads(line)["reason"] for line in summary.ledger.read_text().splitlines()]
    assert reasons[0] == "400 x 300 pixels; at most 10,000 are taken (--max-pixels)"
    assert reasons[1].endswith("at most 1,128,576 are read (8 for each of --max-pixels)")


def test_a_thread_of_a_picture_is_bad(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "thin.png").write_bytes(encoded(1, "PNG", (20_000, 1)))
    summary = preprocess(tmp_path / "src", tmp_path / "out", Settings())
    reason = json.loads(summary.ledger.read_text())["reason"]
    assert reason == "20000 x 1 pixels, so thin that --resize 256 would make it 5,120,000 pixels long"


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"dtype": "float64"}, "dtype='float64': expected one of float32, float16, uint8"),
        ({"crop": None}, "resize=256 without a crop leaves pictures of different sizes"),
        ({"crop": (0, 5)}, r"crop=\(0, 5\): expected whole numbers, 1 or more"),
        ({"dtype": "uint8"}, "dtype='uint8' cannot hold normalised values"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"compression": "zip"}, "expected one of none, zstd"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(OptionError, match=text):
        Settings(**settings)


def test_places_that_make_no_sense(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="expected a folder of photographs, found nothing"):
        preprocess(tmp_path / "none", tmp_path / "out")
    with pytest.raises(OptionError, match="expected a folder of photographs, found a file"):
        preprocess(tree / "README.txt", tmp_path / "out")
    with pytest.raises(OptionError, match="lie inside each other"):
        preprocess(tree, tree / "out")
    with pytest.raises(OptionError, match="lie inside each other"):
        preprocess(tree, tree)
    with pytest.raises(OptionError, match="is not a folder; make it first"):
        preprocess(tree, tmp_path / "no" / "out")
    (tmp_path / "src").mkdir()
    with pytest.raises(OptionError, match="holds no photographs"):
        preprocess(tmp_path / "src", tmp_path / "out")


@pytest.mark.parametrize(("module", "package"), [("PIL", "pillow"), ("simplejpeg", "simplejpeg"), ("zarr", "zarr")])
def test_a_missing_package_is_named(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf"'{package}', .*pip install 'gpucompute\[images\]'"):
        preprocess(tree, tmp_path / "out.zarr", SMALL)


MEASURE = """
import resource, sys
from gpucompute.data import Settings, preprocess
preprocess(sys.argv[1], sys.argv[2], Settings(batch_size=8), workers=2)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_folder(tmp_path: Path) -> None:
    pytest.importorskip("resource")
    photograph = encoded(1, size=(1000, 800), quality=20)  # 2.4 MB as pixels

    def peak(count: int) -> float:
        folder = tmp_path / str(count)
        folder.mkdir()
        for number in range(count):
            (folder / f"{number}.jpg").write_bytes(photograph)
        run = [sys.executable, "-c", MEASURE, str(folder), str(folder) + ".zarr"]
        rss = int(subprocess.run(run, check=True, capture_output=True, text=True).stdout)
        return rss / (1 << 20 if sys.platform == "darwin" else 1 << 10)  # macOS counts bytes, Linux KiB

    peak(1)  # compiles, once
    few, many = peak(16), peak(160)
    assert many - few < 40, "144 photographs more are 346 MB of pixels and 87 MB of rows"
