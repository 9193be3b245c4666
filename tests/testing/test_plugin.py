"""The pytest plugin, in a pytest of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gpucompute import detect

pytest_plugins = ["pytester"]

TESTS = """
import numpy as np
import pytest
import gpucompute as gp

def test_on_each(gpucompute_device):
    assert gp.device() == gpucompute_device

@pytest.mark.gpu
def test_marked():
    pass

@pytest.mark.gpu
def test_marked_on_each(gpucompute_device):
    assert gpucompute_device.kind == "cuda"
"""


@pytest.fixture(name="run")
def run_fixture(pytester: pytest.Pytester, request: pytest.FixtureRequest) -> Callable[..., Any]:
    pytester.makepyfile(TESTS)
    pytester.makeini("[pytest]\naddopts = --strict-markers")
    loaded = any(request.config.pluginmanager.hasplugin(name) for name in ("gpucompute", "gpucompute.testing.plugin"))
    first = [] if loaded else ["-p", "gpucompute.testing.plugin"]
    return lambda *options: pytester.runpytest_inprocess(*first, "-p", "no:cacheprovider", "-rs", *options)


def found(monkeypatch: pytest.MonkeyPatch, *gpus: detect.Gpu) -> None:
    search = detect.Search(gpus, True, bool(gpus), ("driver library: not found",))
    monkeypatch.setattr(detect, "search", lambda: search)


def test_without_a_gpu_marked_tests_are_skipped_with_the_reason(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    found(monkeypatch)
    result = run()
    result.assert_outcomes(passed=1, skipped=2)
    result.stdout.fnmatch_lines(["*needs a CUDA device; looked at: driver library: not found*"])


def test_with_gpus_tests_run_on_each(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    found(monkeypatch, detect.Gpu("GPU-1", "one", 1), detect.Gpu("GPU-2", "two", 1))
    result = run("-v")
    result.assert_outcomes(passed=6)
    result.stdout.fnmatch_lines(["*test_on_each?cpu?*", "*test_on_each?cuda:1?*", "*test_marked_on_each?cuda:0?*"])


def test_the_option_chooses(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    found(monkeypatch, detect.Gpu("GPU-1", "one", 1))
    run("--gpucompute-devices=cuda:0").assert_outcomes(passed=3)
    run("--gpucompute-devices=cpu", "-k", "test_on_each").assert_outcomes(passed=1, deselected=2)
    result = run("--gpucompute-devices=cuda:7")
    assert result.ret != 0
    result.stdout.fnmatch_lines(["*--gpucompute-devices: 'cuda:7' is not usable here; usable: 'cpu', 'cuda:0'*"])
