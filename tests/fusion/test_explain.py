"""What `explain` tells."""

from __future__ import annotations

import numpy as np
import pytest

import gpucompute as gp
from gpucompute.fusion.explain import Explanation, Stage, size


def softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def test_rows() -> None:
    x = np.zeros((200, 100), np.float32)
    explanation = gp.fuse(softmax).explain(x)
    (stage,) = explanation.stages
    assert stage.name == "row by row: max, sum over axes (1,) of 200 × 100, then elementwise"
    assert (stage.bytes_read, stage.bytes_written) == (80_000, 80_000)
    assert "each row is finished while it is in the cache" in stage.reason
    assert "exp_nonpositive_f4(" in stage.source
    assert explanation.limit == 160_000 / explanation.bandwidth
    text = str(explanation)
    assert text.startswith("softmax: 1 kernel, 160 kB moved, at least ")
    assert stage.source.rstrip() in text
    assert "<table>" in explanation._repr_html_()


def test_bytes_of_broadcast_operands_count_once() -> None:
    x, row = np.zeros((200, 100), np.float32), np.zeros(100, np.float32)
    (stage,) = gp.fuse(lambda x, row: x + row).explain(x, row).stages
    assert (stage.bytes_read, stage.bytes_written) == (80_400, 80_000)


def test_two_stages_say_why() -> None:
    x = np.zeros((200, 100), np.float32)
    first, second = gp.fuse(lambda x: x - x.mean(0)).explain(x).stages
    assert first.reason == "a reduction is complete only after all of its elements"
    assert (first.bytes_read, first.bytes_written) == (80_000, 400)
    assert second.name == "elementwise over 200 × 100"


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [(999.4, "999 B"), (999.6, "1 kB"), (2.5e9, "2.5 GB"), (8.8e12, "8.8 TB"), (4e15, "4 PB"), (9e18, "9 EB")],
)
def test_bytes_have_a_unit_that_fits(nbytes: float, text: str) -> None:
    assert size(nbytes) == text


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [
        (2e4, "20 kB moved, at least 2 µs"),
        (9.996e6, "10 MB moved, at least 1 ms"),
        (4.1e12, "4.1 TB moved, at least 410 s"),
        (8e13, "80 TB moved, at least 8,000 s"),
    ],
)
def test_times_have_a_unit_that_fits(nbytes: int, text: str) -> None:
    explanation = Explanation("f", [Stage("all", "", int(nbytes), 0, "")], 1e10)
    assert f"f: 1 kernel, {text} at 10.0 GB/s" in str(explanation)
