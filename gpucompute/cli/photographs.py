"""``gpucompute sample-photographs``: real photographs to try things on, without a download."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_to(subparsers: Any) -> None:
    """Add the subcommand."""
    command = subparsers.add_parser(
        "sample-photographs",
        help="copy the real photographs that scikit-image and scikit-learn ship into a folder",
        description="Copy the photographs that the installed scikit-image and scikit-learn ship into class folders. "
        "CREDITS.txt says who made them and under which terms.",
    )
    command.add_argument("folder", metavar="DIR", type=Path, help="folder to make")
    command.add_argument("--with-bad-file", action="store_true", help="add one that is cut off, to see the ledger")
    command.set_defaults(run=run, name="sample-photographs", if_interrupted="", if_failed="")


def run(options: argparse.Namespace) -> int:
    """Copy them."""
    from ..data.samples import copy_samples

    count = copy_samples(options.folder, bad_file=options.with_bad_file)
    bad = " and a bad file" if options.with_bad_file else ""
    print(f"{options.folder}: {count} photographs{bad}; who made them: {options.folder / 'CREDITS.txt'}")
    return 0
