"""Fused functions on Dask arrays against plain dask.array, cubed, and map_blocks with loops written by hand for numba.

Six programs, on Dask's threads and on a cluster of two processes, each library on the same data in the same chunks:

- *gpucompute* is the program under ``gp.fuse``, *compiled* is the plain one under ``gp.chunked.install()``;
- *dask.array* is the program on Dask arrays;
- *by hand* is Dask with numba loops, one thread for each task, in as few passes as are known to us;
- *cubed*, on its own threads, reads and writes Zarr: here in memory, not compressed, and results are not read back.

A call builds the graph and computes all chunks; they stay chunks (on the workers, where there is a cluster), since
putting them together costs all contenders the same. Inputs lie in memory before the call. The names say how many tasks
Dask's scheduler runs after Dask's own optimisation, data not counted. The last case tells what a chunk costs before
anything is computed: 500 of 64 numbers each.
"""

from harness import HAND, LIMIT, OURS, PEER, Case, largest_error, options, run, size  # isort: split

import json
import os
import shutil
import statistics
import tempfile
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from time import sleep
from typing import Any

import chunked_programs
import dask
import dask.array as da
import distributed
import numpy as np
from chunked_programs import CHUNKS, Program
from dask.task_spec import Task
from harness import Call

import gpucompute as gp

SMALL_CHUNKS = 500
Ways = list[tuple[str, str, Callable[..., Any], bool]]  # name, group, function of Dask arrays, whether installed


def tasks(array: Any) -> int:
    """Return how many tasks the scheduler gets, data and other names of it left out."""
    graph = dict(dask.optimize(array)[0].__dask_graph__())
    return sum(isinstance(task, Task) for task in graph.values())


def on_dask(program: Program) -> Ways:
    """Return the ways that run on Dask."""
    if program.overlap:
        functions = [gp.fuse(program.function), program.function, program.by_hand]
        fused, plain, by_hand = (_overlapped(function) for function in functions)
    else:
        fused, plain, by_hand = gp.fuse(program.function), program.function, program.by_hand
    return [
        ("gpucompute", OURS, fused, False),
        ("compiled", OURS, plain, True),
        ("dask.array", PEER, plain, False),
        ("by hand", HAND, by_hand, False),
    ]


def _overlapped(function: Any) -> Callable[[Any], Any]:
    return lambda x: chunked_programs.overlapped(function, x)


def add(case: Case, ways: Ways, args: tuple[Any, ...], client: Any) -> None:
    """Add contenders that run on Dask's threads, or on a client's cluster."""
    for name, group, function, installed in ways:
        context = gp.chunked.install if installed else nullcontext
        with context():
            count = tasks(function(*args))

        def build(function=function, context=context):
            def call():
                with context():
                    result = function(*args).persist()
                if client is not None:
                    distributed.wait(result)
                return result

            return Call(call, lambda: _forget(client))

        case.add(f"{name}, {count} tasks", group)(build)


def _forget(client: Any) -> None:
    """Wait until the scheduler has forgotten results that were dropped; it would not compute them again."""
    while client is not None and client.run_on_scheduler(_results):
        sleep(0.01)


def _results(dask_scheduler: Any) -> int:
    """Return how many tasks the scheduler knows besides data that a client put there."""
    return sum(bool(task.dependencies) for task in dask_scheduler.tasks.values())


def case_of(program: Program, client: Any) -> Case:
    """Return a case of a program; the reference is computed by NumPy in float64."""
    arrays, function = program.arrays, program.function
    wide = [array.astype(np.float64) if array.dtype.kind == "f" else array for array in arrays]
    reference = np.asarray(function(np.pad(wide[0], 1)) if program.overlap else function(*wide), np.float64)
    dtype = "float64" if arrays[0].dtype == np.float64 else "float32"
    where = "threads" if client is None else "cluster"

    def check(result: Any) -> float:
        return largest_error(result.compute() if hasattr(result, "compute") else result[:], reference, dtype)

    case = Case(f"{program.title}, {where}", check, program.tolerance)
    long = len(arrays[0])
    chunks = (long // CHUNKS, *arrays[0].shape[1:])
    args = [da.from_array(a, chunks=chunks[: a.ndim]) if len(a) == long else a for a in arrays]
    add(case, on_dask(program), tuple(dask.persist(*args)), client)
    if client is None:
        case.add("cubed", PEER, "cubed")(lambda cubed: _with_cubed(cubed, program))
    case.target("gpucompute", "dask.array")
    case.target("gpucompute", ("by hand", "cubed"))
    return case


def _with_cubed(cubed: Any, program: Program) -> Call:
    """Return a call of cubed on a Zarr in memory, which it reads faster than arrays of NumPy's."""
    import cubed.array_api as xp
    import zarr

    memory = Path("/dev/shm")
    held = tempfile.TemporaryDirectory(prefix="cubed-", dir=memory if memory.is_dir() else None)
    inputs, work = Path(held.name) / "inputs", Path(held.name) / "work"
    long = len(program.arrays[0])
    chunks = [(long // CHUNKS if len(a) == long else len(a), *a.shape[1:]) for a in program.arrays]
    for i, (array, chunk) in enumerate(zip(program.arrays, chunks, strict=True)):
        stored = {"shape": array.shape, "chunks": chunk, "dtype": array.dtype, "compressors": None}
        zarr.create_array(inputs / str(i), **stored)[:] = array

    def clean(held: Any = held) -> None:  # holds the folder, which goes with the last contender
        shutil.rmtree(work, ignore_errors=True)

    def call() -> Any:
        threads = {"max_workers": options.threads}
        spec = cubed.Spec(
            str(work), allowed_mem="4GB", executor_name="threads", executor_options=threads, zarr_compressor=None
        )
        cut = [cubed.from_zarr(str(inputs / str(i)), spec=spec) for i in range(len(chunks))]
        if program.overlap:
            x = cut[0]
            lazy = cubed.map_overlap(program.function, x, dtype=x.dtype, chunks=x.chunks, depth=1, boundary=0)
        else:
            lazy = program.function(*cut, xp=xp)
        cubed.to_zarr(lazy, str(work / "result"))
        return zarr.open(work / "result", mode="r")

    return Call(call, clean)


def overhead(client: Any) -> Case:
    """Return the case of chunks that hold next to nothing."""
    x = da.from_array(np.ones(64 * SMALL_CHUNKS, np.float32), chunks=64)
    x = x.persist()
    title = f"overhead: {SMALL_CHUNKS} chunks of 64 numbers, {'threads' if client is None else 'cluster'}"
    case = Case(title, lambda result: largest_error(result.compute(), np.full(x.shape, 1.5), "float32"), 0)

    def small(x):
        return (x * 2 + 1) / (abs(x) + 1)

    ways: Ways = [("gpucompute", OURS, gp.fuse(small), False), ("compiled", OURS, small, True)]
    ways += [("dask.array", PEER, small, False)]
    ways += [("blocks as they are", LIMIT, lambda x: x.map_blocks(_same, dtype=x.dtype, meta=x._meta), False)]
    add(case, ways, (x,), client)
    case.target("gpucompute", "dask.array")
    return case


def _same(block: Any) -> Any:
    return block


def summary(results: list[Any]) -> str:
    """Return one line for each case, the median of the ratios, and what a chunk costs."""
    lines = ["\n| case | tasks | dask's tasks | gpucompute ms | × faster than dask.array | by hand | cubed |"]
    lines += ["|---|--:|--:|--:|--:|--:|--:|"]
    ratios = []
    for result in results:
        named = {name.partition(",")[0]: name for name in result.times}
        ours, plain = named.get("gpucompute"), named.get("dask.array")
        if ours is None or plain is None:
            continue
        mine = result.median(ours)
        faster = {name: f"{result.median(full) / mine:.1f}" for name, full in named.items()}
        counts = [name.split()[-2] for name in (ours, plain)]
        columns = (f"{mine * 1e3:.1f}", faster["dask.array"], faster.get("by hand", ""), faster.get("cubed", ""))
        lines.append(f"| {result.title} | {' | '.join(counts)} | {' | '.join(columns)} |")
        if result.title.startswith("overhead"):
            each = [(name, result.median(full) / SMALL_CHUNKS * 1e6) for name, full in named.items()]
            lines[-1] += "  " + ", ".join(f"{name} {micros:.0f} µs a chunk" for name, micros in each)
        else:
            ratios.append(result.median(plain) / mine)
    return "\n".join([*lines, f"\nmedian of the cases: {statistics.median(ratios):.1f} × as fast as dask.array"])


def main() -> None:
    programs = chunked_programs.programs(size)
    with dask.config.set(scheduler="threads", num_workers=options.threads):
        cases = [*(case_of(program, None) for program in programs), overhead(None)]
        results = [result for case in cases for result in run(case)]
    os.environ["GPUCOMPUTE_NUM_THREADS"] = "1"  # of each worker
    warnings.filterwarnings("ignore", "Sending large graph")  # of the inputs, before anything is timed
    with gp.chunked.start_cluster(device="cpu", workers=options.threads, memory_limit="4GiB") as cluster:
        cases = [*(case_of(program, cluster.client) for program in programs), overhead(cluster.client)]
        results += [result for case in cases for result in run(case)]
    print(summary(results))
    if options.json:  # of all cases: `run` has written its last one
        Path(options.json).write_text(json.dumps([vars(result) for result in results], indent=1) + "\n")


if __name__ == "__main__":
    main()
