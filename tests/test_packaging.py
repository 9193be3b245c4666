"""What is published: the files of the wheel, its metadata, and what is said when an extra is missing."""

from __future__ import annotations

import ast
import email.message
import email.parser
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import gpucompute
from gpucompute.cli.info import PACKAGES
from gpucompute.cli.main import main

ROOT = Path(__file__).parents[1]
BUILT_FROM = ("gpucompute", "kernels", "pyproject.toml", "setup.py", "README.md", "LICENSE")
BUILD = "import sys; from setuptools import build_meta; getattr(build_meta, sys.argv[1])(sys.argv[2])"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    """The wheel, made as `python -m build` makes it: from an unpacked source distribution."""
    tmp = tmp_path_factory.mktemp("build")
    tree, made = tmp / "tree", tmp / "made"
    tree.mkdir()
    for name in BUILT_FROM:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tree / name)
    build("build_sdist", tree, made)
    with tarfile.open(next(made.glob("*.tar.gz"))) as archive:
        archive.extractall(tmp, filter="data")
    build("build_wheel", next(tmp.glob("gpucompute-*")), made)
    with zipfile.ZipFile(next(made.glob("*.whl"))) as opened:
        yield opened


def build(what: str, tree: Path, to: Path) -> None:
    command = [sys.executable, "-c", BUILD, what, str(to)]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> email.message.Message:
    name = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return email.parser.Parser().parsestr(wheel.read(name).decode())


def requirements(metadata: email.message.Message, extra: str) -> set[str]:
    """Return the names of the distributions that `extra` brings, "" being no extra."""
    lines = metadata.get_all("Requires-Dist", [])
    marker = re.compile(r"extra == ['\"](.+?)['\"]")
    chosen = [line for line in lines if "".join(marker.findall(line)) == extra]
    return {re.split(r"[^A-Za-z0-9_.-]", line)[0] for line in chosen}


def test_the_wheel_holds_what_the_tree_holds(wheel: zipfile.ZipFile) -> None:
    expected = {
        (Path("gpucompute") / path.relative_to(ROOT) if top == "kernels" else path.relative_to(ROOT)).as_posix()
        for top in ("gpucompute", "kernels")
        for path in (ROOT / top).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".md"  # pages for those who read code
    }
    held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert held == expected
    assert {"gpucompute/py.typed", "gpucompute/kernels/scalar.py", "gpucompute/kernels/cpu/__init__.py"} <= held


def test_nothing_but_the_package_reaches_the_top_level(wheel: zipfile.ZipFile) -> None:
    # PyPI has a package called kernels; a second one at the top level would overwrite its files.
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert tops == {"gpucompute", f"gpucompute-{gpucompute.__version__}.dist-info"}


def test_metadata(wheel: zipfile.ZipFile, metadata: email.message.Message) -> None:
    assert metadata["Version"] == gpucompute.__version__
    assert metadata["License-Expression"] == "BSD-3-Clause"
    assert metadata["Requires-Python"] == ">=3.11"
    assert requirements(metadata, "") == {"numpy", "numba"}
    extras = set(metadata.get_all("Provides-Extra", []))
    expected = "bench cuda12 cuda13 dask dask-cuda dev docs images photos pycuda test"
    assert extras == set(expected.split())
    info = f"gpucompute-{gpucompute.__version__}.dist-info"
    assert "gpucompute = gpucompute.cli.main:main" in wheel.read(f"{info}/entry_points.txt").decode()
    assert wheel.read(f"{info}/licenses/LICENSE").startswith(b"BSD 3-Clause License")


def test_errors_and_info_name_extras_that_bring_the_package(metadata: email.message.Message) -> None:
    named = {(name, extra) for name, extra in PACKAGES.items() if extra}
    for path in (ROOT / "gpucompute").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "MissingExtraError":
                module, extra, _ = node.args
                assert isinstance(extra, ast.Constant), f"{path.name}: name the extra where the error is raised"
                if isinstance(module, ast.Constant):
                    named.add((module.value, extra.value))
    assert {("zarr", "images"), ("scikit-image", "photos"), ("cupy", "cuda13")} <= named
    for name, extra in named:
        brought = requirements(metadata, extra)
        assert any(one == name or one.startswith(f"{name}-cu") for one in brought), f"{name} is not in [{extra}]"


def test_a_missing_extra_is_named_with_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    monkeypatch.setitem(sys.modules, "zarr", None)  # `import zarr` raises ModuleNotFoundError
    assert main(["preprocess", str(tmp_path / "photos"), str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err == (
        "gpucompute preprocess: writing an array of photographs needs the package 'zarr', which is not installed; "
        "install it with: pip install 'gpucompute[images]'\n"
    )
