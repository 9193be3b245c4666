"""On a GPU, with one command: what is there, what a launch costs, what a compile costs, and what a copy reaches.

``--fake`` takes the same steps on the fake driver: it shows that they run, not what they would take.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import gpucompute as gp
from gpucompute import profiling
from gpucompute.launch import arrays, cubins, cuda, drivers, nvrtc
from gpucompute.testing import driver as fake

CALLS = 10_000
SOURCE = """
extern "C" __global__ void four(float *y, const float *a, const float *b, const float *c, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = a[i] + b[i] * c[i];
}"""


def microseconds(call: Callable[[], object], calls: int, after: Callable[[], object]) -> float:
    """Return the CPU time of a call: the median over ten parts, the device waited for between them."""
    part, times = max(1, calls // 10), []
    call()
    for _ in range(10):
        after()
        started = time.process_time()
        for _ in range(part):
            call()
        times.append((time.process_time() - started) / part * 1e6)
    return statistics.median(times)


def launches(calls: int) -> dict[str, float]:
    """Return microseconds of CPU time for a warm launch of a kernel with four arrays."""
    kernel = gp.RawKernel(SOURCE, "four")
    operands = [cuda.empty((1024,), np.float32) for _ in range(4)]
    args = (*operands, np.int32(1024))
    function = cuda.Function(lambda arch: cubins.from_cuda(SOURCE, arch).code, "four", "PPPPi")
    words = [arrays.view(x).address for x in operands] + [1024]
    grid, block = (8, 1, 1), (128, 1, 1)
    return {
        "RawKernel": microseconds(lambda: kernel(grid, block, args), calls, cuda.synchronize),
        "Function.launch": microseconds(lambda: function.launch(grid, block, words), calls, cuda.synchronize),
    }


def compiles() -> dict[str, float]:
    """Return milliseconds: NVRTC's first use in this process, then a kernel, then one from disk."""
    arch = cuda.architecture()

    def milliseconds(call: Callable[[], Any]) -> float:
        started = time.perf_counter()
        call()
        return (time.perf_counter() - started) * 1e3

    unique = f"// {time.time_ns()}\n"
    times = {"first use": milliseconds(lambda: nvrtc.compile_cuda(f"{unique}{SOURCE}", arch))}
    times["cold"] = milliseconds(lambda: cubins.from_cuda(f"{unique}{SOURCE}//", arch))
    cubins.clear()
    times["from disk"] = milliseconds(lambda: cubins.from_cuda(f"{unique}{SOURCE}//", arch))
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description="What this package does on a GPU.")
    parser.add_argument("--fake", action="store_true", help="on the fake driver, to see that every step runs")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    options = parser.parse_args()
    with fake.running() if options.fake else contextlib.nullcontext():
        chosen = drivers.preferred()
        found = {
            "launcher": chosen.name,
            "architecture": cuda.architecture(),
            "launch, us": launches(100 if options.fake else CALLS),
            "compile, ms": compiles(),
            "copy, GB/s": profiling.copy_bandwidth(drivers.for_arrays(), 0) / 1e9,
        }
    if options.json:
        print(json.dumps(found, indent=2))
        return
    for name, value in found.items():
        for part, number in value.items() if isinstance(value, dict) else [("", value)]:
            shown = f"{number:.2f}" if isinstance(number, float) else number
            print(f"{name:<14}  {part:<16}  {shown}")


if __name__ == "__main__":
    main()
