"""On a GPU, with one command: what is there, what a launch costs, what a compile costs, and what a copy reaches.

    python benchmarks/gpu.py --everything --json results.json

``--everything`` also runs the GPU's tests, thousands of generated programs and the kernel pairs against the CPU's bits,
the cases of `gpu_cases.py` and compute-sanitizer, each as a command of its own. ``--fake`` takes the same steps without
a GPU, on the fake driver or the CPU: it shows that they run, not what they would take. The exit status is 1 if a
command failed or could not run; goals of speed that were missed are marked.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import gpucompute as gp
from gpucompute import profiling
from gpucompute.launch import arrays, cubins, cuda, drivers, nvrtc
from gpucompute.testing import driver as fake

CALLS = 10_000
# At most; "cold" is after the compiler's first use.
GOALS = {"launch, us": {"": 10.0}, "compile, ms": {"from disk": 20.0, "": 300.0, "first use": float("inf")}}
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
    fused = gp.fuse(lambda a, b, c: a + b * c)
    out, *given = operands
    return {
        "RawKernel": microseconds(lambda: kernel(grid, block, args), calls, cuda.synchronize),
        "Function.launch": microseconds(lambda: function.launch(grid, block, words), calls, cuda.synchronize),
        "fuse": microseconds(lambda: fused(*given), calls, cuda.synchronize),
        "fuse, out=": microseconds(lambda: fused(*given, out=out), calls, cuda.synchronize),
    }


def compiles() -> dict[str, float]:
    """Return milliseconds: the compilers' first use in this process, then a kernel, then one from disk."""
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
    x, salt = cuda.empty((300, 700), np.float32), time.time()  # the salt makes kernels that no cache has
    gp.fuse(lambda x: x.sum() * (x + salt))(x)
    functions: dict[str, Callable[[Any], Any]] = {
        "fuse, elementwise": lambda x: np.exp(x) * salt + x,
        "fuse, mean": lambda x: (x * salt).mean(),
        "fuse, softmax": lambda x: np.exp(x * salt - x.max(1, keepdims=True)) / x.sum(1, keepdims=True),
        "fuse, std of columns": lambda x: (x * salt).std(0),
    }
    for name, function in functions.items():
        times[name] = milliseconds(lambda function=function: gp.fuse(function)(x))
        cubins.clear()
        times[f"{name}, from disk"] = milliseconds(lambda function=function: gp.fuse(function)(x))
    return times


HERE = Path(__file__).parent
TESTS = HERE.parent / "tests"


def everything(fake_gpu: bool, cases: Path) -> dict[str, list[str]]:
    """Return the commands that only a GPU can answer, by name; without one, as near to them as runs here."""
    python, pytest = [sys.executable], [sys.executable, "-m", "pytest", "-q", "-o", "addopts="]
    pairs = [*pytest, str(TESTS / "kernels" / "test_pairs_gpu.py")]
    programs = [*python, str(TESTS / "fusion" / "programs.py")]
    timed = [*python, str(HERE / "gpu_cases.py"), "--json", str(cases)]
    if fake_gpu:
        return {
            "tests": [*pytest, "-m", "gpu", str(TESTS), "--collect-only"],
            "pairs": pairs,
            "programs": [*programs, "--ptx", "--count", "2"],
            "cases": [*timed, "--dry"],
        }
    found = {
        "tests": [*pytest, "-m", "gpu", str(TESTS)],
        "pairs": pairs,
        "programs": [*programs, "--gpu", "--count", "2000"],
        "cases": timed,
    }
    sanitizer = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    for tool in ("memcheck", "racecheck"):
        found[tool] = [sanitizer, "--tool", tool, "--error-exitcode", "9", *pairs, "-k", "0 or NCHW or large"]
    return found


def answers(commands: dict[str, list[str]]) -> dict[str, str]:
    """Run the commands; return for each whether it went well, and the last that it says."""
    said = {}
    for name, command in commands.items():
        started = time.perf_counter()
        try:
            done = subprocess.run(command, check=False, capture_output=True, text=True)
        except OSError as error:
            said[name] = f"not run: {error}"
            continue
        lines = [*filter(None, (done.stdout + done.stderr).splitlines()), ""]
        outcome = "passed" if done.returncode == 0 else f"FAILED ({done.returncode})"
        said[name] = f"{outcome} in {time.perf_counter() - started:.0f} s: {lines[-2] if lines[:-1] else ''}"
        if name == "cases" or done.returncode:
            print(done.stdout[-8000:], done.stderr[-8000:], sep="\n")
    return said


def verdict(table: str, row: str, value: Any) -> str:
    """Say whether a goal is met, where there is one: that of the longest name with which the row's ends."""
    goals = [(name, goal) for name, goal in GOALS.get(table, {}).items() if row.endswith(name)]
    if not goals:
        return ""
    goal = max(goals, key=lambda found: len(found[0]))[1]
    return f"{'met' if value <= goal else 'MISSED'}: at most {goal:g}"


def main() -> None:
    parser = argparse.ArgumentParser(description="What this package does on a GPU.")
    parser.add_argument("--fake", action="store_true", help="on the fake driver, to see that every step runs")
    parser.add_argument("--everything", action="store_true", help="also all tests, cases and checks of a GPU")
    parser.add_argument("--json", type=Path, metavar="PATH", help="also write all of it there")
    options = parser.parse_args()
    with fake.running() if options.fake else contextlib.nullcontext():
        chosen = drivers.preferred()
        found: dict[str, Any] = {
            "launcher": chosen.name,
            "architecture": cuda.architecture(),
            "launch, us": launches(100 if options.fake else CALLS),
            "compile, ms": compiles(),
            "copy, GB/s": profiling.copy_bandwidth(drivers.for_arrays(), 0) / 1e9,
        }
    if options.everything:
        with tempfile.TemporaryDirectory() as folder:
            cases = Path(folder) / "cases.json"
            found["answers"] = answers(everything(options.fake, cases))
            found["cases"] = json.loads(cases.read_text()) if cases.exists() else {}
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))
    found.pop("cases", None)
    for name, value in found.items():
        for part, number in value.items() if isinstance(value, dict) else [("", value)]:
            shown = f"{number:.2f}" if isinstance(number, float) else number
            print(f"{name:<14}  {part:<30}  {shown}  {'' if options.fake else verdict(name, part, number)}".rstrip())
    wrong = [name for name, said in found.get("answers", {}).items() if not said.startswith("passed")]
    if wrong:
        raise SystemExit(f"gpu: failed or not run: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
