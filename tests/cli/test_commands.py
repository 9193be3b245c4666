"""The command line: exit codes, what is printed, and that it starts fast."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from photo_trees import break_at_fixture, digests, encoded, tree_fixture, whole_fixture  # noqa: F401 - fixtures

from gpucompute.cli import main as cli
from gpucompute.cli.progress import ProgressBar
from gpucompute.data.lock import lock
from gpucompute.data.store import Store

SMALL = ["--resize", "24", "--crop", "16", "--batch-size", "8"]
Output = pytest.CaptureFixture[str]


def test_bad_files_give_3_and_are_named(tree: Path, whole: Path, tmp_path: Path, capsys: Output) -> None:
    out, sheet = tmp_path / "out.zarr", tmp_path / "sheet.png"
    assert cli.main(["preprocess", str(tree), str(out), *SMALL, "--preview", str(sheet)]) == 3
    text = capsys.readouterr().out
    assert "58 images, 58 x 3 x 16 x 16 float32 NCHW, 3 classes" in text
    assert "5 bad files, left out:\n  a/03.jpg: empty file" in text
    assert "other files passed over: 1 .txt" in text
    assert f"{sheet}: 24 of them to look at" in text and sheet.exists()
    sheet.unlink()
    assert digests(out) == digests(whole)
    assert cli.main(["preprocess", str(tree), str(out), *SMALL]) == 3
    assert "it was complete before" in capsys.readouterr().out


def test_no_bad_file_gives_0(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "one.jpg").write_bytes(encoded(1))
    command = ["preprocess", str(tmp_path / "src"), str(tmp_path / "out"), "--quiet", "--normalize", "none"]
    assert cli.main([*command, "--dtype", "uint8", "--layout", "NHWC", "--resize", "20x30", "--crop", "none"]) == 0


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--resize", "big"], "--resize big: expected a number of pixels, HEIGHTxWIDTH, or none"),
        (["--crop", "1x2x3"], "--crop 1x2x3: expected"),
        (["--crop", "0"], "crop=(0, 0): expected whole numbers, 1 or more"),
        (["--normalize", "imagnet"], "--normalize imagnet: expected one of imagenet, clip, half, unit, none, or three"),
        (["--normalize", "1,2/3"], "--normalize 1,2/3: expected"),
        (["--normalize", "0,0,0/1,0,1"], "a standard deviation of 0"),
        (["--dtype", "float64"], "dtype='float64': expected one of float32"),
        (["--layout", "CHWN"], "layout='CHWN'"),
        (["--workers", "0"], "--workers 0: expected 1 or more"),
        (["--device", "tpu"], "--device 'tpu': expected "),
        (["--preview", "x.doc"], "expected the name of a picture"),
    ],
)
def test_wrong_use_gives_2(tree: Path, tmp_path: Path, capsys: Output, options: list[str], text: str) -> None:
    assert cli.main(["preprocess", str(tree), str(tmp_path / "out"), *options]) == 2
    assert text in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments", [[], ["preprocess"], ["nonsense"], ["cache"], ["preprocess", "a", "b", "--batch-size", "x"]]
)
def test_argparse_gives_2(arguments: list[str], capsys: Output) -> None:
    with pytest.raises(SystemExit) as error:
        cli.main(arguments)
    assert error.value.code == 2
    assert "usage: gpucompute" in capsys.readouterr().err


def test_failures_give_1(
    tree: Path,
    whole: Path,
    tmp_path: Path,
    capsys: Output,
    break_at: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command = ["preprocess", str(tree), str(tmp_path / "out.zarr"), *SMALL]
    break_at(Store, "write", OSError(errno.ENOSPC, "No space left on device", "chunk"), nth=2)
    assert cli.main(command) == 1
    said = capsys.readouterr().err
    assert "chunk: No space left on device. What is done is kept; give the same command again to go on" in said
    monkeypatch.undo()
    with lock(tmp_path / "out.zarr.lock"):
        assert cli.main(command) == 1
    assert "another gpucompute preprocess is writing this output" in capsys.readouterr().err
    assert cli.main(command) == 3
    assert digests(tmp_path / "out.zarr") == digests(whole)
    assert cli.main([*command, "--crop", "12"]) == 1
    assert "made with other settings (crop: [16, 16] there, [12, 12] given)" in capsys.readouterr().err


def test_a_failure_before_anything_is_done_says_so(
    tree: Path, tmp_path: Path, capsys: Output, break_at: Callable[..., None]
) -> None:
    break_at(Store, "create", OSError(errno.EROFS, "Read-only file system", "out.zarr.partial"))
    assert cli.main(["preprocess", str(tree), str(tmp_path / "out.zarr"), *SMALL]) == 1
    said = capsys.readouterr().err
    assert "out.zarr.partial: Read-only file system. Nothing was done; choose another output" in said
    assert "same command" not in said


def test_missing_packages_of_the_samples(tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpucompute.data.samples.find_spec", lambda name: None)
    assert cli.main(["sample-photographs", str(tmp_path / "photos")]) == 1
    assert "copying the sample photographs needs the package 'scikit-" in capsys.readouterr().err


def test_a_missing_gpu_gives_1(tree: Path, tmp_path: Path, capsys: Output) -> None:
    assert cli.main(["preprocess", str(tree), str(tmp_path / "out"), "--device", "cuda:7"]) == 1
    assert "--device 'cuda:7' is not usable here" in capsys.readouterr().err


def test_ctrl_c_gives_130(
    tree: Path,
    whole: Path,
    tmp_path: Path,
    capsys: Output,
    break_at: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command = ["preprocess", str(tree), str(tmp_path / "out.zarr"), *SMALL]
    break_at(ProgressBar, "__call__", KeyboardInterrupt(), nth=30)
    assert cli.main(command) == 130
    assert "interrupted; give the same command again to go on" in capsys.readouterr().err
    monkeypatch.undo()
    assert cli.main(command) == 3
    assert digests(tmp_path / "out.zarr") == digests(whole)


def test_progress_on_a_terminal_and_in_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 0.05, 1.0, 31.0, 40.0])
    monkeypatch.setattr("time.monotonic", lambda: next(times))

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for stream in (Terminal(), io.StringIO()):
        times = iter([0.0, 0.05, 1.0, 31.0, 40.0])
        bar = ProgressBar(stream)
        for done in (100, 110, 200, 410, 500):
            bar(done, 1, 500)
        bar.close()
        lines = stream.getvalue().replace("\x1b[K", "").split("\r" if stream.isatty() else "\n")
        if stream.isatty():
            assert len(lines) == 4 and lines[1].endswith("200/500 files, 1 bad, 100 images/s, 3 s left")
            assert lines[-1] == "#" * 24 + " 500/500 files, 1 bad, 10 images/s\n"
        else:
            assert lines == ["#" * 19 + "." * 5 + " 410/500 files, 1 bad, 10 images/s, 9 s left", ""]


def test_info(capsys: Output) -> None:
    assert cli.main(["info"]) == 0
    text = capsys.readouterr().out
    for word in ("device      cpu: ", "threads ", "GB/s, measured", "cache ", "numpy ", "zarr "):
        assert word in text
    assert cli.main(["info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["devices"][0]["device"] == "cpu"
    assert 1e8 < facts["bandwidth"] < 1e13


def test_info_names_what_is_missing(capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    from gpucompute.cli import info

    monkeypatch.setitem(info.PACKAGES, "no-such-package", "images")
    assert cli.main(["info"]) == 0
    assert "not installed: pip install 'gpucompute[images]'" in capsys.readouterr().out


def test_cache(tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUCOMPUTE_CACHE_DIR", str(tmp_path / "cache"))
    assert cli.main(["cache", "info"]) == 0
    assert f"{tmp_path / 'cache'}: 0 files, 0 B" in capsys.readouterr().out
    (tmp_path / "cache" / "x").mkdir(parents=True)
    (tmp_path / "cache" / "x" / "kernel").write_bytes(bytes(2048))
    assert cli.main(["cache", "clear"]) == 0
    assert "1 files removed, 2.0 KiB" in capsys.readouterr().out
    assert cli.main(["cache", "info"]) == 0
    assert "0 files" in capsys.readouterr().out


def test_sample_photographs(tmp_path: Path, capsys: Output) -> None:
    pytest.importorskip("skimage")
    pytest.importorskip("sklearn")
    assert cli.main(["sample-photographs", str(tmp_path / "photos"), "--with-bad-file"]) == 0
    assert "photographs and a bad file; who made them: " in capsys.readouterr().out


HELP = """
import sys
from gpucompute.cli.main import main
try:
    main(["preprocess", "--help"])
except SystemExit:
    pass
heavy = {"numpy", "numba", "PIL", "zarr", "simplejpeg"} & set(sys.modules)
sys.exit(str(heavy) if heavy else 0)
"""


def test_help_loads_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--normalize" in done.stdout


def test_a_closed_pipe_is_no_traceback() -> None:
    read, write = os.pipe()
    os.close(read)
    run = [sys.executable, "-m", "gpucompute.cli.main", "cache", "info"]
    done = subprocess.run(run, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")
