"""Data larger than the worker's memory: in time, within the limit, with the bits of the whole array."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("distributed", reason="the extra 'dask' is not installed")
pytest.importorskip("zarr", reason="the extra 'images' is not installed")

from deadline import deadline_fixture  # noqa: F401

LIMIT = 400 << 20
_found: Any = importlib.util.spec_from_file_location(
    "larger_than_memory", Path(__file__).parents[2] / "benchmarks" / "larger_than_memory.py"
)
script: Any = importlib.util.module_from_spec(_found)  # it does the same with four times the memory, 4 GiB
_found.loader.exec_module(script)


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
def test_one_worker_normalises_more_than_its_memory(tmp_path: Path) -> None:
    source, target = tmp_path / "x.zarr", tmp_path / "y.zarr"
    script.write(source, LIMIT * 5 // 4)
    done = script.run(source, target, 1, str(LIMIT))
    assert done.lost == 0
    assert max(done.peaks) < LIMIT
    assert script.is_equal(source, target, done.statistics)
