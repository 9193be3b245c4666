"""Threads per second of emulated CUDA kernels, on one core: the fast build, and the one with every access checked.

Seconds are those of the core, without what it gave to others, and the best of some runs: the emulator uses one core,
and whoever else is on the machine can only make it slower.
"""

from __future__ import annotations

from time import thread_time

import numpy as np

from gpucompute.testing import check, emulate

N = 1_000_000
BLOCK = 256
BLOCKS = -(-N // BLOCK)
RUNS = 7
CODE = """
extern "C" __global__ void axpy(float *y, const float *x, float a, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] += a * x[i];
}

extern "C" __global__ void tree_sum(const float *x, float *out, int n) {  // 9 barriers
  extern __shared__ float s[];
  int t = threadIdx.x, i = blockIdx.x * blockDim.x + t;
  s[t] = i < n ? x[i] : 0;
  __syncthreads();
  for (int half = blockDim.x / 2; half > 0; half >>= 1) {
    if (t < half) s[t] += s[t + half];
    __syncthreads();
  }
  if (t == 0) out[blockIdx.x] = s[0];
}

extern "C" __global__ void warp_sum(const float *x, float *out, int n) {  // 5 shuffles
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  float v = i < n ? x[i] : 0;
  for (int d = 16; d; d /= 2) v += __shfl_xor_sync(0xffffffffu, v, d);
  if (threadIdx.x % 32 == 0) out[i / 32] = v;
}

extern "C" __global__ void histogram(const unsigned char *x, unsigned *bins, int n) {  // atomics in shared memory
  __shared__ unsigned s[256];
  s[threadIdx.x] = 0;
  __syncthreads();
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) atomicAdd(&s[x[i]], 1u);
  __syncthreads();
  if (s[threadIdx.x]) atomicAdd(&bins[threadIdx.x], s[threadIdx.x]);
}
"""

rng = np.random.default_rng(0)
x = rng.integers(-8, 8, N).astype(np.float32)  # sums of these are exact
pixels = rng.integers(0, 256, N, dtype=np.uint8)
sums = np.pad(x, (0, BLOCKS * BLOCK - N))

# name, arguments, bytes of shared memory, which argument is the result, what it must be, claimed million threads/s
CASES = [
    ("axpy", (np.zeros(N, np.float32), x, np.float32(2), np.int32(N)), 0, 0, 2 * x, 30),
    ("tree_sum", (x, np.zeros(BLOCKS, np.float32), np.int32(N)), 4 * BLOCK, 1, sums.reshape(-1, BLOCK).sum(1), 2.5),
    ("warp_sum", (x, np.zeros(BLOCKS * 8, np.float32), np.int32(N)), 0, 1, sums.reshape(-1, 32).sum(1), None),
    ("histogram", (pixels, np.zeros(256, np.uint32), np.int32(N)), 0, 1, np.bincount(pixels), None),
]


def main() -> None:
    print("| kernel | threads | best ms | million threads/s | claimed | checked, million threads/s |")
    print("|---|--:|--:|--:|--:|--:|")
    for name, args, shared_mem, result, expected, claimed in CASES:
        kernel = emulate(CODE, name)
        times = []
        for _ in range(RUNS):
            args[result][...] = 0
            began = thread_time()
            kernel(BLOCKS, BLOCK, args, shared_mem=shared_mem)
            times.append(thread_time() - began)
            np.testing.assert_array_equal(args[result], expected)
        rate = BLOCKS * BLOCK / min(times) / 1e6
        goal = "" if claimed is None else f"{claimed:g}, {'met' if rate >= claimed else '**MISSED**'}"
        print(
            f"| {name} | {BLOCKS * BLOCK:,} | {min(times) * 1e3:.1f} | {rate:.1f} | {goal} "
            f"| {checked_rate(name, args, shared_mem):.2f} |",
            flush=True,
        )


def checked_rate(name: str, args: tuple, shared_mem: int, blocks: int = 64) -> float:
    """Return millions of threads per second under `check`, which runs a kernel in four orders."""
    report = check(CODE, name, 1, BLOCK, args, shared_mem=shared_mem)  # compiles
    assert not report.errors, report
    began = thread_time()
    check(CODE, name, blocks, BLOCK, args, shared_mem=shared_mem)
    return 4 * blocks * BLOCK / (thread_time() - began) / 1e6


if __name__ == "__main__":
    main()
