"""The same bits for threads and processes, for any number of them and for any chunks where that is promised."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import pytest

pytest.importorskip("distributed", reason="the extra 'dask' is not installed")

from deadline import deadline_fixture  # noqa: F401

import gpucompute as gp

_found: Any = importlib.util.spec_from_file_location(
    "same_bits", Path(__file__).parents[2] / "benchmarks" / "same_bits.py"
)
script: Any = importlib.util.module_from_spec(_found)  # it compares more numbers of workers
_found.loader.exec_module(script)


@pytest.fixture(scope="module", name="ways")
def ways_fixture() -> Iterator[list[dict[str, Any]]]:
    """Dask's settings for one thread, two threads and two processes."""
    with gp.chunked.start_cluster(device="cpu", workers=2, memory_limit="1GiB") as cluster:
        threads = [{"scheduler": "threads", "num_workers": count} for count in (1, 2)]
        yield [*threads, {"scheduler": cluster.client}]


@pytest.mark.parametrize("case", script.CASES, ids=lambda case: case.name)
def test_digests(case: Any, ways: list[dict[str, Any]]) -> None:
    found = {(case.name, ""): {script.digest(case)}}
    for way in ways:
        with dask.config.set(way):
            for cut, rows in script.CUTS.items():
                found.setdefault((case.name, cut), set()).add(script.digest(case, rows))
    assert all(script.is_kept(case, cut, found) for cut in script.CUTS)
    # where another rounding is allowed there is one, or the case could tell nothing
    assert (set.union(*found.values()) == found[case.name, ""]) == (case.promise == script.ANY)
