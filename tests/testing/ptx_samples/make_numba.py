"""Write numba_*.ptx: what numba.cuda makes of the kernels below (numba-cuda 0.30, CUDA 13.0).

pip install "numba-cuda[cu13]" "cuda-toolkit==13.0.*" && python make_numba.py
"""

from __future__ import annotations

import math
from pathlib import Path

from numba import cuda, float32, types


def waves(x, y):  # two functions that numba calls, tables and local memory
    i = cuda.grid(1)
    if i < x.size:
        y[i] = math.exp(-x[i] * x[i]) * math.sin(x[i] * 1e6)


def block_sums(x, out):
    warps = cuda.shared.array(32, float32)
    i = cuda.grid(1)
    v = x[i] if i < x.size else float32(0)
    step = 16
    while step:
        v += cuda.shfl_down_sync(0xFFFFFFFF, v, step)
        step //= 2
    if cuda.threadIdx.x % 32 == 0:
        warps[cuda.threadIdx.x // 32] = v
    cuda.syncthreads()
    if cuda.threadIdx.x == 0:
        total = float32(0)
        for w in range(cuda.blockDim.x // 32):
            total += warps[w]
        cuda.atomic.add(out, 0, total)


def compile_all() -> dict[str, str]:
    """The PTX of each kernel by its name."""
    double, single = (types.Array(t, 1, "C") for t in (types.float64, types.float32))
    signatures = {waves: (double, double), block_sums: (single, single)}
    return {f.__name__: cuda.compile_ptx(f, signature, cc=(8, 0))[0] for f, signature in signatures.items()}


if __name__ == "__main__":
    for name, ptx in compile_all().items():
        (Path(__file__).parent / f"numba_{name}.ptx").write_text(ptx)
