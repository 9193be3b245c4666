"""The command ``gpucompute`` and its exit codes."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from .. import __version__
from ..errors import GpucomputeError, OptionError
from . import cache, info, photographs, preprocess

FAILURE, WRONG_USE, BAD_FILES, INTERRUPTED = 1, 2, 3, 130
SUBCOMMANDS = (preprocess, photographs, info, cache)


def parser() -> argparse.ArgumentParser:
    """Return the parser with all subcommands; each module adds its own and names the function that runs it."""
    whole = argparse.ArgumentParser(
        prog="gpucompute",
        description="Array programs fused into one kernel, and photographs turned into arrays to train on.",
        epilog="Exit codes: 0 done; 3 done, with bad files in the ledger; 1 failure; 2 wrong use; 130 interrupted.",
    )
    whole.add_argument("--version", action="version", version=f"gpucompute {__version__}")
    subparsers = whole.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in SUBCOMMANDS:
        module.add_to(subparsers)
    return whole


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with the given arguments, `sys.argv` by default, and return its exit code."""
    options = parser().parse_args(arguments)
    try:
        code: int = options.run(options)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        _say(options, "interrupted" + options.if_interrupted)
        return INTERRUPTED
    except OptionError as error:
        _say(options, str(error))
        return WRONG_USE
    except BrokenPipeError:  # `gpucompute info | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python's last flush fails too
        return FAILURE
    except GpucomputeError as error:
        _say(options, str(error))
    except OSError as error:
        place = error.filename or getattr(options, "out", "")
        _say(options, f"{place}{': ' if place else ''}{error.strerror or error}{options.if_failed}")
    return FAILURE


def _say(options: argparse.Namespace, text: str) -> None:
    print(f"gpucompute {options.name}: {text}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
