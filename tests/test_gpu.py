"""What only a GPU can show: the CPU's bits on real hardware, CuPy's arrays and streams. Run with ``pytest -m gpu``.

Thousands of programs: ``python tests/fusion/programs.py --gpu --count 2000``. Times: ``benchmarks/gpu_cases.py``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

import gpucompute as gp

pytestmark = pytest.mark.gpu
RANDOM = np.random.default_rng(0)


def softmax(x: Any) -> Any:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def standardise(x: Any) -> Any:
    return (x - x.mean(axis=0)) / x.std(axis=0)


FUNCTIONS = {
    "softmax": (softmax, (3000, 1000)),
    "softmax of long rows": (softmax, (3, 100_000)),
    "softmax of channels": (softmax, (5000, 3)),
    "standardise": (standardise, (5000, 300)),
    "moments": (lambda x: (x.sum(), x.mean(0), x.std(1), x.min(), x.argmax(1)), (700, 900)),
    "elementary": (
        lambda x: (np.exp(x), np.sin(x), np.log(abs(x)), np.tanh(x), gp.erf(x), np.sqrt(abs(x))),
        (100_000,),
    ),
    "sum of everything": (lambda x: (x.sum(), x.mean() * 2, x.std(), x.argmin()), (3_000_017,)),
    "long columns": (lambda x: (x.mean(0), x.std(0), x.max(0)), (300_001, 33)),
    "views": (lambda x: np.concatenate([x[::-1].T, x.T * 2]) - x[3, 5], (300, 500)),
}


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_same_bits_as_the_cpu(name: str, dtype: str) -> None:
    import cupy

    function, shape = FUNCTIONS[name]
    x = (RANDOM.standard_normal(shape) * 3).astype(dtype)
    fused = gp.fuse(function)
    on_gpu, on_cpu = fused(cupy.asarray(x)), fused(x)
    pairs = zip(*(r if isinstance(r, tuple) else (r,) for r in (on_gpu, on_cpu)), strict=True)
    for ours, meant in pairs:
        assert isinstance(ours, cupy.ndarray)
        assert gp.digest(gp.asnumpy(ours)) == gp.digest(np.asarray(meant))


def test_the_last_block_joins_every_time() -> None:
    import cupy

    fused = gp.fuse(lambda x: x.sum())
    x = cupy.asarray(RANDOM.standard_normal(5_000_000).astype(np.float32))
    sums = cupy.stack([fused(x) for _ in range(200)])  # the counters are back at 0 after each
    assert len(set(gp.asnumpy(sums).tolist())) == 1
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        beside = [fused(x) for _ in range(50)]
    here = [fused(x) for _ in range(50)]
    cupy.cuda.Device().synchronize()
    assert {float(value) for value in [*beside, *here]} == {float(sums[0])}


def test_generated_programs() -> None:
    sys.path.insert(0, str(Path(__file__).parent / "fusion"))
    from programs import make, run_gpu, same_bits

    random = Random(3)
    for _ in range(100):
        program = make(random)
        expected = gp.fuse(program.function)(*program.args)
        for ours, meant in zip(run_gpu(program), expected, strict=True):
            assert same_bits(ours, meant), program


def test_photographs() -> None:
    import cupy

    @gp.fuse
    def normalise(images: Any, mean: Any, std: Any) -> Any:
        return ((images.astype(np.float32) / 255 - mean) / std).transpose(0, 3, 1, 2)

    images = RANDOM.integers(0, 256, (5, 211, 197, 3), dtype=np.uint8)
    mean, std = np.float32([0.4, 0.5, 0.6]), np.float32([0.2, 0.3, 0.4])
    # The small NumPy arrays ride along.
    assert gp.digest(gp.asnumpy(normalise(cupy.asarray(images), mean, std))) == gp.digest(normalise(images, mean, std))


def test_an_index_out_of_range_is_raised_when_the_result_is_fetched() -> None:
    import cupy

    fused = gp.fuse(lambda x, i: x[i] * 2)
    result = fused(cupy.arange(10.0), cupy.array([3, 10]))
    with pytest.raises(gp.OutOfRangeError, match="index 10 is out of bounds for an axis of size 10"):
        gp.asnumpy(result)


def test_a_launch_follows_the_current_stream() -> None:
    import cupy

    fused = gp.fuse(lambda x: x + 1)
    x = cupy.zeros(1_000_000)
    stream = cupy.cuda.Stream(non_blocking=True)
    cupy.cuda.Device().synchronize()
    with stream:
        for _ in range(50):
            x = fused(x)
    stream.synchronize()
    assert float(x[0]) == float(x[-1]) == 50.0


SCALE = """
extern "C" __global__ void scale(float *y, const float *x, float a, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = a * x[i] + y[i];
}"""


def test_raw_kernel_gives_the_emulators_bits() -> None:
    import cupy

    x, y = (RANDOM.standard_normal(1000).astype(np.float32) for _ in range(2))
    expected = y.copy()
    gp.testing.emulate(SCALE, "scale")((4,), (256,), (expected, x, np.float32(0.1), np.int32(1000)))
    device = cupy.asarray(y)
    gp.RawKernel(SCALE, "scale")((4,), (256,), (device, cupy.asarray(x), np.float32(0.1), np.int32(1000)))
    assert gp.digest(gp.asnumpy(device)) == gp.digest(expected)


def test_profile_counts_what_ran() -> None:
    import cupy

    fused = gp.fuse(softmax)
    x = cupy.asarray(RANDOM.standard_normal((1000, 1000)).astype(np.float32))
    fused(x)
    with gp.profile() as report:
        fused(x)
    assert len(report.kernels) == 1 and report.kernels[0].seconds > 0
