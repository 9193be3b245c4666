"""Real photographs that come with scikit-image and scikit-learn, as a folder tree to try things on."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from ..errors import GpucomputeError, MissingExtraError

IMAGES = {"skimage": ("scikit-image", "data"), "sklearn": ("scikit-learn", "datasets/images")}


class Sample(NamedTuple):
    """A photograph: the module that ships it, its file, its class, and who made it under which terms."""

    module: str
    file: str
    label: str
    credit: str


# Those that the packages' wheels carry (others of scikit-image are downloaded when asked for). Credits as the
# packages state them, in skimage.data's docstrings and sklearn/datasets/images/README.txt.
SAMPLES = (
    Sample("skimage", "astronaut.png", "people", "NASA, Great Images; public domain"),
    Sample("skimage", "camera.png", "people", "Lav Varshney; CC0"),
    Sample("skimage", "chelsea.png", "animals", "Stefan van der Walt; CC0"),
    Sample("skimage", "coffee.png", "objects", "Rachel Michetti, Pikolo Espresso Bar; CC0"),
    Sample("skimage", "coins.png", "objects", "Brooklyn Museum; no known copyright restrictions"),
    Sample("skimage", "motorcycle_left.png", "objects", "Middlebury stereo data sets 2014, D. Scharstein et al."),
    Sample("skimage", "rocket.jpg", "space", "SpaceX; public domain"),
    Sample("skimage", "hubble_deep_field.jpg", "space", "NASA, HubbleSite; public domain"),
    Sample("skimage", "moon.png", "space", "from scikit-image"),
    Sample("skimage", "brick.png", "textures", "CC0Textures; CC0"),
    Sample("skimage", "grass.png", "textures", "linolafett, DeviantArt; CC0"),
    Sample("skimage", "gravel.png", "textures", "CC0Textures; CC0"),
    Sample("sklearn", "china.jpg", "places", "danielbuechele, flickr.com/photos/danielbuechele/6061409035; CC BY 2.0"),
    Sample("sklearn", "flower.jpg", "plants", "vultilion, flickr.com/photos/vultilion/6056698931; CC BY 2.0"),
)


class SamplesError(GpucomputeError, FileExistsError):
    """The folder for the photographs holds other files."""


def copy_samples(folder: Path, *, bad_file: bool = False) -> int:
    """Copy the photographs into class folders under `folder`, with a CREDITS.txt, and return how many.

    Parameters
    ----------
    folder : Path
        Made if it is missing; may hold these photographs already, and nothing else.
    bad_file : bool
        Add a photograph that is cut off in the middle, to see what a ledger is.

    Raises
    ------
    MissingExtraError
        If scikit-image or scikit-learn is not installed.
    SamplesError
        If `folder` holds other files.
    """
    homes = {module: _home(module) for module in IMAGES}
    # a release of a package may drop a file
    found = [sample for sample in SAMPLES if (homes[sample.module] / sample.file).is_file()]
    files = {f"{sample.label}/{sample.file}": (homes[sample.module] / sample.file).read_bytes() for sample in found}
    if bad_file:
        whole = files["places/china.jpg"]
        files["places/cut_off.jpg"] = whole[: len(whole) // 2]
    lines = [f"{sample.label}/{sample.file}: {sample.credit} (by {IMAGES[sample.module][0]})\n" for sample in found]
    files["CREDITS.txt"] = "".join(sorted(lines)).encode()
    if folder.exists():
        there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
        if not folder.is_dir() or (others := sorted(there - files.keys())):
            what = f"holds other files ({others[0]} ...)" if folder.is_dir() else "is a file"
            raise SamplesError(f"{folder} {what}; choose another name for the sample photographs")
    for name, data in files.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    return len(found)


def _home(module: str) -> Path:
    """Return the folder of the package's pictures, without importing the package."""
    package, inside = IMAGES[module]
    found = find_spec(module)
    if found is None or found.origin is None:
        raise MissingExtraError(package, "photos", "copying the sample photographs")
    return Path(found.origin).parent / inside
