"""Small folders of photographs, and what two outputs are compared by."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpucompute.data import Settings

pytest.importorskip("PIL")
pytest.importorskip("simplejpeg")
pytest.importorskip("zarr")

SMALL = Settings(resize=24, crop=(16, 16), batch_size=8)
BAD = {
    "a/03.jpg": b"",
    "a/04.jpg": b"no picture at all",
    "b/11.png": b"\0" * 100,
    "c/29.jpg": b"\xff\xd8\xff\xe0 begins like a JPEG",
    "top.png": b"last of all, and bad",
}


def encoded(seed: int, form: str = "JPEG", size: tuple[int, int] = (64, 48), **options: Any) -> bytes:
    """Return a picture of noise under a gradient, encoded."""
    from PIL import Image

    noise = np.random.default_rng(seed).integers(0, 64, (size[1], size[0], 3), np.uint8)
    ramp = np.linspace(0, 191, size[0]).astype(np.uint8)[None, :, None]
    file = io.BytesIO()
    Image.fromarray(noise + ramp).save(file, form, **options)
    return file.getvalue()


def make_tree(root: Path, count: int = 60) -> Path:
    """Write `count` small photographs into the classes a, b and c, some of them bad, and one at the top."""
    for number in range(count):
        name = f"{'abc'[number * 3 // count]}/{number % 30:02}.{'jpg' if number % 3 else 'png'}"
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(encoded(number, "JPEG" if number % 3 else "PNG"))
    for name, data in BAD.items():
        (root / name).write_bytes(data)
    (root / "d").mkdir()
    (root / "README.txt").write_text("not a photograph")
    (root / ".hidden.jpg").write_bytes(b"not looked at")
    return root


def digests(out: Path) -> dict[str, str]:
    """Return the digest of every file of an output, the ledger included; nothing else may be left beside it."""
    ledger = out.with_name(out.name + ".ledger.jsonl")
    left = {path.name for path in out.parent.glob(out.name + "*")}
    assert left == {out.name, ledger.name}
    files = [ledger, *(path for path in sorted(out.rglob("*")) if path.is_file())]
    return {path.relative_to(out.parent).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(name="tree", scope="session")
def tree_fixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(tmp_path_factory.mktemp("photographs"))


@pytest.fixture(name="whole", scope="session")
def whole_fixture(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output of `tree` by a run that nothing disturbed."""
    from gpucompute.data import preprocess

    out = tmp_path_factory.mktemp("whole") / "out.zarr"
    preprocess(tree, out, SMALL)
    return out


@pytest.fixture(name="break_at")
def break_at_fixture(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make a function raise an error at its nth call (from 0), before it does anything."""

    def break_it(owner: Any, name: str, error: BaseException, nth: int = 0) -> None:
        original, calls = getattr(owner, name), iter(range(10**9))

        def broken(*args: Any, **kwargs: Any) -> Any:
            if next(calls) == nth:
                raise error
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, broken)

    return break_it
