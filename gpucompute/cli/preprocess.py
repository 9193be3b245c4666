"""``gpucompute preprocess``: a folder of photographs into a Zarr."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .progress import ProgressBar

if TYPE_CHECKING:
    from ..data import Settings, Summary
    from ..data.settings import Normalization

SHOWN = 10  # bad files named at the end; all are in the ledger
EPILOG = """\
SRC may hold JPEG, PNG, WebP, TIFF, BMP, GIF, PPM, JPEG 2000 and AVIF files at any depth. Its first-level folders
are the classes. EXIF orientation is applied, transparency dropped, all colours become RGB, as Pillow does it.

OUT is a Zarr v3 group: images, labels (-1: no class), names, ids; rows in the order of the sorted relative paths.
A file that cannot be decoded gets no row but a line in OUT.ledger.jsonl, and the exit code is 3.

A run that was stopped in any way goes on when the same command is given again, and ends with the same bytes.
"""


def add_to(subparsers: Any) -> None:
    """Add the subcommand."""
    command = subparsers.add_parser(
        "preprocess",
        help="turn a folder of photographs into a Zarr of batches",
        description="Decode, resize, crop and normalise a folder of photographs into a Zarr.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = command.add_argument
    add("src", metavar="SRC", help="folder of photographs")
    add("out", metavar="OUT.zarr", help="the Zarr to write")
    add("--resize", default="256", metavar="SIZE", help="shorter side in pixels, HEIGHTxWIDTH, or none (256)")
    add(
        "--crop",
        default="224",
        metavar="SIZE",
        help="side of the square cut from the centre, HEIGHTxWIDTH, or none (224)",
    )
    add("--interpolation", default="bilinear", help="nearest, box, bilinear, hamming, bicubic or lanczos (bilinear)")
    add("--normalize", default="imagenet", metavar="HOW",
        help="imagenet, clip, half (to -1 .. 1), unit (to 0 .. 1), none (0 .. 255), or "
             "MEAN,MEAN,MEAN/STD,STD,STD of pixels from 0 to 1 (imagenet)")  # fmt: skip
    add("--dtype", default="float32", help="float32, float16 or uint8 (float32)")
    add("--layout", default="NCHW", help="NCHW or NHWC (NCHW)")
    add("--batch-size", type=int, default=64, metavar="N", help="images in a chunk (64)")
    add("--compression", default="none", help="none, or zstd: a third of the size, takes twice as long (none)")
    add("--max-pixels", type=int, metavar="N", help="larger photographs are bad files (178956970)")
    add("--device", default="auto", help="auto, cpu or cuda (auto)")
    add("--workers", type=int, metavar="N", help="threads that decode (the cores that may be used)")
    add("--preview", metavar="FILE.png", help="draw a contact sheet of what was written")
    add("--overwrite", action="store_true", help="replace an output that is there, give up an unfinished run")
    add("--quiet", action="store_true", help="no progress bar")
    again = "; give the same command again to go on"
    command.set_defaults(run=run, name="preprocess", if_interrupted=again, if_failed=". What is done is kept" + again)


def run(options: argparse.Namespace) -> int:
    """Do it and return the exit code."""
    from ..data import preprocess
    from ..data.preprocess import is_begun
    from ..data.preview import check_preview, contact_sheet

    if options.workers is not None and options.workers < 1:
        from ..errors import OptionError

        raise OptionError(f"--workers {options.workers}: expected 1 or more")
    check_device(options.device)
    settings = settings_from(options)
    if options.preview:
        check_preview(options.preview)
    progress = None if options.quiet else ProgressBar()
    began = time.perf_counter()
    try:
        summary = preprocess(
            options.src,
            options.out,
            settings,
            workers=options.workers,
            overwrite=options.overwrite,
            on_progress=progress,
        )
    except OSError:
        if not is_begun(Path(options.out)):
            options.if_failed = ". Nothing was done; choose another output, or remove what is in the way"
        raise
    finally:
        if progress is not None:
            progress.close()
    print(_report(summary, settings, time.perf_counter() - began))
    if options.preview:
        count = contact_sheet(summary.out, options.preview, settings)
        print(f"{options.preview}: {count} of them to look at")
    return 3 if summary.bad else 0


def settings_from(options: argparse.Namespace) -> Settings:
    """Return the settings that the options say."""
    from ..data import Settings

    crop = parse_size(options.crop, "--crop")
    more = {} if options.max_pixels is None else {"max_pixels": options.max_pixels}
    return Settings(
        resize=parse_size(options.resize, "--resize"),
        crop=(crop, crop) if isinstance(crop, int) else crop,
        interpolation=options.interpolation,
        normalize=parse_normalize(options.normalize),
        dtype=options.dtype,
        layout=options.layout,
        batch_size=options.batch_size,
        compression=options.compression,
        **more,
    )


def parse_size(text: str, option: str) -> int | tuple[int, int] | None:
    """Return a size: one number, HEIGHTxWIDTH, or None for "none".

    >>> parse_size("256", "--resize"), parse_size("240x320", "--resize"), parse_size("none", "--resize")
    (256, (240, 320), None)
    """
    from ..errors import OptionError

    if text == "none":
        return None
    parts = text.lower().split("x")
    if not all(part.isdecimal() for part in parts) or len(parts) > 2:
        raise OptionError(f"{option} {text}: expected a number of pixels, HEIGHTxWIDTH, or none")
    return int(parts[0]) if len(parts) == 1 else (int(parts[0]), int(parts[1]))


def parse_normalize(text: str) -> Normalization | None:
    """Return the normalisation with this name, or these numbers, or None for "none"."""
    from ..data.settings import NORMALIZATIONS, Normalization
    from ..errors import OptionError

    if text == "none":
        return None
    if text in NORMALIZATIONS:
        return NORMALIZATIONS[text]
    try:
        mean, std = (tuple(float(number) for number in half.split(",")) for half in text.split("/"))
        (m0, m1, m2), (s0, s1, s2) = mean, std
    except ValueError:
        names = ", ".join(NORMALIZATIONS)
        raise OptionError(
            f"--normalize {text}: expected one of {names}, none, or three means, a slash and three standard "
            "deviations, such as 0.5,0.5,0.5/0.25,0.25,0.25"
        ) from None
    return Normalization((m0, m1, m2), (s0, s1, s2))


def check_device(name: str) -> None:
    """Raise unless this can run on the device `name`; "auto" is the CPU until there are kernels for others."""
    from ..errors import DeviceError
    from ..hardware import resolve

    if name != "auto" and resolve(name, "--device ").kind != "cpu":
        raise DeviceError(f"--device {name}: preprocess has kernels for the CPU only; use auto or cpu")


def _report(summary: Summary, settings: Settings, seconds: float) -> str:
    shape = " x ".join(str(length) for length in settings.shape(summary.rows))
    kind = f"{shape} {settings.dtype} {settings.layout}"
    lines = [f"{summary.out}: {summary.rows:,} images, {kind}, {len(summary.classes)} classes"]
    if summary.new:
        lines.append(f"{summary.new:,} files read in {seconds:.1f} s, {summary.new / seconds:,.0f} images/s")
    else:
        lines.append("it was complete before; nothing was done (--overwrite starts anew)")
    if summary.ignored:
        kinds = ", ".join(f"{count} {kind or 'without extension'}" for kind, count in sorted(summary.ignored.items()))
        lines.append(f"other files passed over: {kinds}")
    if summary.bad:
        lines.append(f"{summary.ledger}: {summary.bad:,} bad files, left out:")
        lines += [f"  {path}: {reason}" for path, reason in _first_of(summary)]
        if summary.bad > SHOWN:
            lines.append(f"  ... and {summary.bad - SHOWN:,} more")
    return "\n".join(lines)


def _first_of(summary: Summary) -> list[tuple[str, str]]:
    import json
    from itertools import islice

    with open(summary.ledger, encoding="utf-8") as file:
        return [(line["path"], line["reason"]) for line in map(json.loads, islice(file, SHOWN))]
