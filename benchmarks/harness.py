"""Times contenders against each other: interleaved rounds, medians, and the physical limit as one of the rows.

A case file builds `Case` objects and ends with ``run(...)``. Import this module before NumPy: it pins the number of
threads of every library, which most of them read once, when they are loaded.

How it is made fair:

- every contender's result is checked against a reference before anything is timed;
- contenders take turns, in an order that rotates from round to round, so that a machine that slows down slows all;
- each turn begins with a pause, in which the threads of the one before stop spinning, and an untimed call;
- results are dropped before the next call, so who keeps freed memory may reuse it;
- the limit is timed in the same rounds as everybody else.
"""

from __future__ import annotations

import argparse
import os
import sys

_parser = argparse.ArgumentParser(formatter_class=argparse.RawDescriptionHelpFormatter)
_parser.add_argument("--threads", type=int, default=2, help="threads for every contender (2)")
_parser.add_argument("--rounds", type=int, default=7, help="rounds, of which the medians are shown (7)")
_parser.add_argument("--quick", action="store_true", help="a tenth of the data")
_parser.add_argument("--only", default="", metavar="A,B", help="only contenders whose names hold one of these")
_parser.add_argument("--json", default="", metavar="PATH", help="also write all times there")
options = _parser.parse_known_args()[0]  # checked in `run`, when the case's own text is known

for _name in (
    *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"),
    *("NUMEXPR_NUM_THREADS", "NUMEXPR_MAX_THREADS", "GPUCOMPUTE_NUM_THREADS"),
):
    os.environ[_name] = str(options.threads)
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
if hasattr(os, "sched_setaffinity"):  # XLA's and OpenCV's pools follow the cores, not a variable
    _cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, _cores[: options.threads])

import gc
import importlib
import json
import statistics
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter, sleep
from typing import Any, NamedTuple

import numpy as np

PAUSE = 0.05  # seconds; libgomp's threads spin for about 20 ms after their work, and would take a core from others
TURN = 0.1  # seconds that a contender's timed calls in one round should take together
CALLS = 20  # calls in a turn at most
# "by hand": more than a library does by itself; "part": of the work; "limit", "promise": always shown
OURS, PEER, HAND, PART, LIMIT, PROMISE = "ours", "peer", "by hand", "part", "limit", "promise"

Builder = Callable[..., Any]


class WrongResult(Exception):
    """A contender's result is not the reference's."""


class Seconds(float):
    """What a contender returns that times itself, inside another process for instance."""


@dataclass
class Call:
    """What a builder may return instead of a function, if something must be done, untimed, before each call."""

    function: Callable[[], Any]
    before: Callable[[], object]


class Row(NamedTuple):
    """A contender of a case: `build` is given the modules that it needs and returns what is timed."""

    name: str
    group: str
    needs: tuple[str, ...]
    build: Builder
    exact: bool


class Target(NamedTuple):
    """What is claimed: `ours` takes at most `ratio` times as long as `than` (beginnings of names of rows)."""

    ours: str
    than: tuple[str, ...]
    ratio: float


@dataclass
class Case:
    """Contenders that do the same work.

    Parameters
    ----------
    title : str
    check : function from a result to the largest error
        Raises `WrongResult` if the result has another shape or dtype than it should.
    tolerance : float
        A contender with a larger error is not timed. Those declared ``exact=True`` have none.
    """

    title: str
    check: Callable[[Any], float]
    tolerance: float
    rows: list[Row] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)

    def add(self, name: str, group: str, needs: str = "", exact: bool = False) -> Callable[[Builder], Builder]:
        """Decorate a builder: it gets the modules named in `needs` and returns the function to time."""

        def decorate(build: Builder) -> Builder:
            self.rows.append(Row(name, group, tuple(needs.split()), build, exact))
            return build

        return decorate

    def target(self, ours: str, than: str | tuple[str, ...], ratio: float = 1.0) -> None:
        """Claim that `ours` takes at most `ratio` times as long as each of `than`."""
        self.targets.append(Target(ours, (than,) if isinstance(than, str) else than, ratio))


@dataclass
class Result:
    """The times of a case, in seconds, one for each round."""

    title: str
    groups: dict[str, str] = field(default_factory=dict)
    times: dict[str, list[float]] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    targets: list[tuple[str, bool]] = field(default_factory=list)

    def median(self, name: str) -> float:
        return statistics.median(self.times[name])

    def fastest(self, *groups: str) -> float:
        """Return the smallest median of `groups`, NaN without one."""
        return min((self.median(name) for name in self.times if self.groups[name] in groups), default=float("nan"))


def size(n: int) -> int:
    """Return `n`, or a tenth of it with ``--quick``."""
    return max(1, n // 10) if options.quick else n


def threads() -> ThreadPoolExecutor:
    """Return a pool of ``--threads`` threads, for contenders that bring none."""
    return ThreadPoolExecutor(options.threads)


def largest_error(result: Any, reference: np.ndarray[Any, Any], dtype: str, part: Any = ...) -> float:
    """Return the largest absolute difference of `result[part]` from a reference in float64."""
    found = np.asarray(result)
    if found.dtype != dtype or found[part].shape != reference.shape:
        raise WrongResult(f"{found.dtype} {found[part].shape}, expected {dtype} {reference.shape}")
    return float(np.abs(found[part].astype(np.float64) - reference).max())


def run(*cases: Case) -> list[Result]:
    """Time the cases, print a table for each, and write ``--json``; return what was found."""
    _parser.description = sys.modules["__main__"].__doc__
    _parser.parse_args()
    results = [_time(case) for case in cases]
    for result in results:
        print(table(result), flush=True)
    if options.json:
        Path(options.json).write_text(json.dumps([vars(result) for result in results], indent=1) + "\n")
    return results


def _time(case: Case) -> Result:
    result = Result(case.title)
    calls: dict[str, Call] = {}
    only = [part for part in options.only.split(",") if part]
    for row in case.rows:
        if only and row.group in (OURS, PEER, HAND, PART) and not any(part in row.name for part in only):
            continue
        try:
            calls[row.name] = _ready(case, row, result)
            result.groups[row.name] = row.group
        except Exception as error:  # noqa: BLE001 - one that fails must not take the others with it
            result.missing[row.name] = _why(error)
    names = list(calls)
    for turn in range(options.rounds):
        for index in range(len(names)):
            name = names[(index + turn) % len(names)]
            if name in result.missing:
                continue
            try:
                result.times.setdefault(name, []).append(_turn(calls[name]))
            except Exception as error:  # noqa: BLE001 - as above
                result.missing[name] = _why(error)
                result.times.pop(name)
    if options.quick:  # little data stays in the caches, where the limit is another one
        return result
    result.targets = [told for target in case.targets if (told := _judge(result, target)) is not None]
    return result


def _ready(case: Case, row: Row, result: Result) -> Call:
    """Build a contender and check what it gives."""
    built = row.build(*(importlib.import_module(name) for name in row.needs))
    call = built if isinstance(built, Call) else Call(built, lambda: None)
    call.before()
    given = _wait(call.function())
    if row.group in (OURS, PEER, HAND):
        error = case.check(given)
        tolerance = 0.0 if row.exact else case.tolerance
        if not error <= tolerance:
            raise WrongResult(f"error {error:.2g}, at most {tolerance:.2g} is taken")
        result.errors[row.name] = error
    return call


def _why(error: Exception) -> str:
    """Say why a contender is not in the table."""
    if isinstance(error, ImportError):
        return f"missing: {error.name or error}"
    if isinstance(error, WrongResult):
        return f"wrong: {error}"
    return f"failed: {type(error).__name__}: {str(error)[-200:]}".replace("\n", " ")


def _turn(call: Call) -> float:
    """Return the median of the calls of one turn."""
    gc.collect()
    sleep(PAUSE)
    first = _one(call)
    if isinstance(first, Seconds):  # it starts a process; there is nothing to warm up in this one
        return first
    count = max(1, min(CALLS, int(TURN / max(first, 1e-9))))
    return statistics.median(_one(call) for _ in range(count))


def _one(call: Call) -> float:
    call.before()
    began = perf_counter()
    given = _wait(call.function())
    seconds = perf_counter() - began
    return given if isinstance(given, Seconds) else seconds


def _wait(given: Any) -> Any:
    """Wait for what JAX computes behind the caller's back."""
    for part in given if isinstance(given, tuple) else (given,):
        if hasattr(part, "block_until_ready"):
            part.block_until_ready()
    return given


def _judge(result: Result, target: Target) -> tuple[str, bool] | None:
    """Say whether a target is met, None if a row of it was not timed."""
    ours = [name for name in result.times if name.startswith(target.ours)]
    than = [name for name in result.times if name.startswith(target.than)]
    if not ours or not than:
        return None
    best = min(than, key=result.median)
    ratio = result.median(ours[0]) / result.median(best)
    text = f"{ours[0]}: {ratio:.2f} × {best}; at most {target.ratio:g} is claimed"
    return text, ratio <= target.ratio


def table(result: Result) -> str:
    """Return a result as a Markdown table, fastest first."""
    peer, limit = result.fastest(PEER), result.fastest(LIMIT)
    lines = [
        f"\n### {result.title}\n",
        "| contender | | median ms | min ms | × fastest peer | × limit | largest error |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for name in sorted(result.times, key=result.median):
        median = result.median(name)
        error = f"{result.errors[name]:.2g}" if name in result.errors else ""
        shown = f"**{name}**" if result.groups[name] == OURS else name
        lines.append(
            f"| {shown} | {result.groups[name]} | {_ms(median)} | {_ms(min(result.times[name]))} "
            f"| {_ratio(median / peer)} | {_ratio(median / limit)} | {error} |"
        )
    lines += [f"| {name} | {why} | | | | | |" for name, why in result.missing.items()]
    lines += [""] + [f"- {'met' if met else '**MISSED**'}: {text}" for text, met in result.targets]
    return "\n".join(lines)


def _ms(seconds: float) -> str:
    digits = 4 if seconds < 1e-3 else 2 if seconds < 0.1 else 0
    return f"{seconds * 1e3:.{digits}f}"


def _ratio(value: float) -> str:
    return "" if value != value else f"{value:.2f}"
