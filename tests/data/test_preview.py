"""The contact sheet shows the photographs, and the sample photographs are there to be shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from photo_trees import SMALL, tree_fixture, whole_fixture  # noqa: F401 - fixtures

from gpucompute import MissingExtraError, OptionError
from gpucompute.data import NORMALIZATIONS, Settings, preview, samples, store

Image = pytest.importorskip("PIL.Image")


def test_contact_sheet_has_the_rows_spread_over_the_output(whole: Path, tmp_path: Path) -> None:
    assert preview.contact_sheet(whole, tmp_path / "sheet.png", SMALL) == 24
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    images = store.import_zarr().open_group(whole, mode="r")["images"]
    first = sheet[preview.GAP : preview.GAP + 16, preview.GAP : preview.GAP + 16]
    np.testing.assert_array_equal(first, preview.to_pixels(images[0], SMALL))
    last = preview.to_pixels(images[57], SMALL)
    windows = np.lib.stride_tricks.sliding_window_view(sheet, (16, 16, 3))[:, :, 0]
    assert (windows == last).all(axis=(2, 3, 4)).any()


@pytest.mark.parametrize("normalize", [None, *NORMALIZATIONS.values()])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_pixels_come_back_from_every_normalisation(normalize: Any, layout: str) -> None:
    settings = Settings(resize=None, crop=(16, 16), normalize=normalize, layout=layout)
    pixels = np.arange(768, dtype=np.uint16).astype(np.uint8).reshape(16, 16, 3)
    np.testing.assert_array_equal(preview.to_pixels(settings.transform()([pixels])[0], settings), pixels)


def test_preview_names_are_checked_before_the_work(tmp_path: Path) -> None:
    preview.check_preview(tmp_path / "x.JPG")
    with pytest.raises(OptionError, match=r"expected the name of a picture, such as preview\.png"):
        preview.check_preview(tmp_path / "x.doc")
    with pytest.raises(OptionError, match="its folder does not exist"):
        preview.check_preview(tmp_path / "no" / "x.png")


def test_sample_photographs_are_real_and_credited(tmp_path: Path) -> None:
    pytest.importorskip("skimage")
    pytest.importorskip("sklearn")
    folder = tmp_path / "photos"
    for _ in range(2):  # a second time changes nothing
        count = samples.copy_samples(folder, bad_file=True)
        assert count >= 10
        credits = (folder / "CREDITS.txt").read_text().splitlines()
        files = {path.relative_to(folder).as_posix() for path in folder.glob("*/*")}
        assert len(files) == count + 1 and {line.partition(":")[0] for line in credits} == files - {
            "places/cut_off.jpg"
        }
    for name in files - {"places/cut_off.jpg"}:
        with Image.open(folder / name) as image:
            assert min(image.size) >= 200
    (folder / "mine.txt").touch()
    with pytest.raises(samples.SamplesError, match=r"photos holds other files \(mine.txt"):
        samples.copy_samples(folder)


def test_missing_sample_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"'scikit-image', .*pip install 'gpucompute\[photos\]'"):
        samples.copy_samples(tmp_path / "photos")
    assert not (tmp_path / "photos").exists()
