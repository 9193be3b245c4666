"""Photographs to PyTorch: decode, resize, crop, normalise, and hand each batch over without a copy.

    python examples/photographs_to_torch.py                          # sample photographs, on the CPU
    python examples/photographs_to_torch.py --photographs DIR        # your own
    GPUCOMPUTE_DEVICE=cuda python examples/photographs_to_torch.py   # the same script, with the network on a GPU

Needs PyTorch and ``pip install 'gpucompute[images,photos]'``. Takes about 5 seconds on a CPU, most of them to import
PyTorch and numba, and the first time some more to compile. It prints:

    device: cpu (Intel(R) Xeon(R) Processor)
    14 photographs
    (300, 451, 3) uint8
    pass 1: rows 18 to 282, columns 93 to 358 -> (224, 224, 3), taps 3 x 3, columns first
    -> (3, 224, 224) float32
    batch 1: torch.float32 (8, 3, 224, 224) on cpu, the array's own memory: True
    batch 2: torch.float32 (6, 3, 224, 224) on cpu, the array's own memory: True
    features: torch.float32 (14, 16), all finite: True
    decoding 0.27 s, resizing to normalising 0.02 s, network 0.14 s
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

import gpucompute as gp

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, which most networks are trained with


def main() -> None:
    """Take all photographs of a folder through a small network."""
    parser = argparse.ArgumentParser(description="photographs to PyTorch batches, without a copy")
    parser.add_argument("--photographs", type=Path, metavar="DIR", help="JPEGs and PNGs (default: sample photographs)")
    parser.add_argument("--batch-size", type=int, default=8)
    options = parser.parse_args()
    try:
        import PIL  # noqa: F401 - asked for here, so that what is missing is said before any work
        import torch
    except ImportError as error:
        sys.exit(f"This example needs {error.name}. Install it with: pip install torch 'gpucompute[images,photos]'")

    with tempfile.TemporaryDirectory() as temporary:
        paths = find(options.photographs or samples(Path(temporary)))
        device = gp.device()
        print(f"device: {device} ({device.name})")
        print(f"{len(paths)} photographs")

        # One pass over each photograph: only the pixels that survive the crop are computed, and the last step writes
        # them where the network wants them.
        chain = gp.image.Compose(
            [gp.image.Resize(256), gp.image.CenterCrop(224), gp.image.Normalize(MEAN, STD)],
            dtype="float32",
            layout="NCHW",
        )
        chain([np.zeros((256, 256, 3), np.uint8)])  # loads the kernels, so that the times below are of the work alone
        torch.manual_seed(0)
        network = torch.nn.Sequential(
            torch.nn.Conv2d(3, 16, 7, stride=4), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
        ).eval()

        seconds = {"decoding": 0.0, "resizing to normalising": 0.0, "network": 0.0}
        features = []
        with ThreadPoolExecutor(gp.get_threads()) as pool, torch.inference_mode():
            for start in range(0, len(paths), options.batch_size):
                clock = perf_counter()
                photographs = list(pool.map(decode, paths[start : start + options.batch_size]))
                seconds["decoding"] += (decoded := perf_counter()) - clock
                if start == 0:
                    print(chain.describe(*photographs[0].shape))
                array = gp.asarray(chain(photographs))  # on the current device; on the CPU it is there already
                batch = torch.from_dlpack(array)  # PyTorch's view of the same memory
                seconds["resizing to normalising"] += (ready := perf_counter()) - decoded
                shared = batch.data_ptr() == pointer(array)
                where = f"{batch.dtype} {tuple(batch.shape)} on {batch.device}"
                print(f"batch {start // options.batch_size + 1}: {where}, the array's own memory: {shared}")
                features.append(network.to(batch.device)(batch).cpu())
                seconds["network"] += perf_counter() - ready
    made = torch.cat(features)
    print(f"features: {made.dtype} {tuple(made.shape)}, all finite: {bool(made.isfinite().all())}")
    print(", ".join(f"{name} {spent:.2f} s" for name, spent in seconds.items()))


def samples(folder: Path) -> Path:
    """Copy the photographs that scikit-image and scikit-learn ship into `folder`."""
    from gpucompute.data.samples import copy_samples

    try:
        copy_samples(folder / "photographs")
    except gp.MissingExtraError as error:
        sys.exit(f"{error}, or give a folder of your own with --photographs")
    return folder / "photographs"


def find(folder: Path) -> list[Path]:
    """Return the photographs below `folder`, in order."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not paths:
        sys.exit(f"{folder} holds no JPEG or PNG; give another folder with --photographs")
    return paths


def decode(path: Path) -> NDArray[np.uint8]:
    """Return (height, width, 3) pixels."""
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def pointer(array: Any) -> int:
    """Return where an array of NumPy or CuPy begins."""
    held = getattr(array, "__cuda_array_interface__", None) or array.__array_interface__
    return int(held["data"][0])


if __name__ == "__main__":
    main()
