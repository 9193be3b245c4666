"""``gpucompute cache build --function``: what it compiled, a process with a GPU finds on disk."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fake_cuda import machine_fixture, to_device, to_host  # noqa: F401 - a fixture

import gpucompute as gp
from gpucompute.cli.main import main
from gpucompute.fusion.cuda.device import key_of
from gpucompute.fusion.run import Fused
from gpucompute.launch import cubins
from gpucompute.testing.driver import Machine

pytest.importorskip("numba.cuda.cudadrv.nvvm", reason="numba-cuda is not installed")

from ptx_machine import program_for


@gp.fuse
def scaled(x: Any, mean: Any, factor: Any) -> Any:
    return (x.astype(np.float32) - mean) * factor, x.max()


TABLE = np.arange(3.0)  # an array, which might be another one in another process


@gp.vectorize
def unknown(x: Any) -> Any:
    return x + TABLE[1]


calls_unknown = gp.fuse(lambda x: unknown(x))


largest = gp.reduction(lambda x: x, lambda a, b: max(a, b), -np.inf)


def build(*arguments: str) -> int:
    return main(["cache", "build", "--arch", "sm_90", *arguments])


def test_a_call_compiles_nothing_then(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    assert build("--function", f"{__name__}:scaled", "--like", "uint8[40,30,3] float32[3] 0.5") == 0
    shown = capsys.readouterr().out
    assert "scaled, kernel 1 of uint8[40,30,3] float32[3] 0.5" in shown and "2 kernels for sm_90" in shown
    cubins.clear()
    before = cubins.counts.copy()
    x, mean = np.arange(50 * 40 * 3, dtype=np.uint8).reshape(50, 40, 3), np.float32([1, 2, 3])
    fresh = Fused(scaled.function, "exact", ())
    for got, expected in zip(fresh(to_device(x), to_device(mean), 2.5), fresh(x, mean, 2.5), strict=True):
        np.testing.assert_array_equal(to_host(got), expected)
    assert cubins.counts["compiled"] == before["compiled"] and cubins.counts["loaded"] == before["loaded"] + 2


@pytest.mark.parametrize(
    ("function", "like", "text"),
    [
        (f"{__name__}:nobody", "float32[3]", "has no attribute 'nobody'; expected package.module:name"),
        ("no.such.module:f", "float32[3]", "No module named"),
        (f"{__name__}:build", "float32[3]", "is function; expected one made by gpucompute.fuse"),
        (f"{__name__}:scaled", "float33[3]", "'float33[3]' in 'float33[3]': expected an array such as"),
    ],
)
def test_wrong_use(function: str, like: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert build("--function", function, "--like", like) == 2
    assert text in capsys.readouterr().err


def test_the_two_options_go_together(capsys: pytest.CaptureFixture[str]) -> None:
    assert build("--like", "float32[3]") == 2
    assert "give --function with at least one --like" in capsys.readouterr().err


def test_what_no_other_process_would_find(capsys: pytest.CaptureFixture[str]) -> None:
    assert build("--function", f"{__name__}:calls_unknown", "--like", "float32[3]") == 1
    assert "calls a function that uses an array or another object from outside" in capsys.readouterr().err


def test_keys_hold_no_addresses() -> None:
    step = program_for(lambda x: largest(x, axis=1), [np.zeros((3, 300), np.float32)])[1].steps[0]
    key = key_of(step.kernel, False)
    assert key is not None and not [part for part in key if " at 0x" in part]
