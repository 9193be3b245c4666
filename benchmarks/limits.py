"""The physical limit as a contender: move the bytes that cannot be avoided, and do nothing else."""

from __future__ import annotations

import ctypes
import hashlib
import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from harness import options, threads

# Reads `nr` bytes and writes `nw`, by cache lines and interleaved in proportion. Non-temporal stores where there
# are any: a line that is overwritten whole need not be read first.
STREAM = r"""
#include <stddef.h>
#include <stdint.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif
typedef uint64_t line __attribute__((vector_size(64), aligned(64)));

static uint64_t part(const char *r, size_t nr, char *w, size_t nw) {
    const size_t steps = 256;
    const line *from = (const line *)r;
    line sum = {0};
    for (size_t s = 0; s < steps; s++) {
        for (size_t i = nr / 64 * s / steps; i < nr / 64 * (s + 1) / steps; i++) sum += from[i];
        for (size_t i = nw / 64 * s / steps; i < nw / 64 * (s + 1) / steps; i++) {
#ifdef __SSE2__
            for (int k = 0; k < 4; k++) _mm_stream_si128((__m128i *)w + 4 * i + k, _mm_set1_epi64x(s));
#else
            ((line *)w)[i] = (line){s, s, s, s, s, s, s, s};
#endif
        }
    }
#ifdef __SSE2__
    _mm_sfence();
#endif
    return sum[0] + sum[1] + sum[2] + sum[3] + sum[4] + sum[5] + sum[6] + sum[7];
}

uint64_t stream(const char *r, size_t nr, char *w, size_t nw, int threads) {
    uint64_t sum = 0;
    #pragma omp parallel for num_threads(threads) reduction(+ : sum)
    for (int t = 0; t < threads; t++) {
        size_t r0 = nr / 64 * t / threads * 64, r1 = nr / 64 * (t + 1) / threads * 64;
        size_t w0 = nw / 64 * t / threads * 64, w1 = nw / 64 * (t + 1) / threads * 64;
        sum += part(r + r0, r1 - r0, w + w0, w1 - w0);
    }
    return sum;
}
"""


def compile_c(source: str, *flags: str) -> ctypes.CDLL | None:
    """Compile C with the system's compiler and load it; None without one. Kept in the temporary folder."""
    digest = hashlib.sha256(repr((source, flags)).encode()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"gpucompute-benchmarks-{os.getuid() if hasattr(os, 'getuid') else 0}"
    folder.mkdir(exist_ok=True, mode=0o700)
    library = folder / f"{digest}.so"
    if not library.exists():
        text = folder / f"{digest}.c"
        text.write_text(source)
        made = library.with_suffix(f".{os.getpid()}.so")
        command = ["cc", "-O3", "-march=native", "-fopenmp", "-shared", "-fPIC", str(text), "-o", str(made), *flags]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        made.replace(library)
    return ctypes.CDLL(str(library))


def stream(read: int, written: int) -> Callable[[], object]:
    """Return a function that reads and writes so many bytes, on all threads."""
    source, target = _lines(read), _lines(written)
    library = compile_c(STREAM)
    if library is None:
        return _copy(source, target)
    function = library.stream
    function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    function.restype = ctypes.c_uint64
    return lambda: function(source.ctypes.data, source.nbytes, target.ctypes.data, target.nbytes, options.threads)


def _lines(nbytes: int) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    """Return touched bytes that begin at a cache line."""
    nbytes = -(-nbytes // 64) * 64
    room = np.ones(nbytes + 64, np.uint8)
    start = -room.ctypes.data % 64
    return room[start : start + nbytes]


def _copy(source: np.ndarray, target: np.ndarray) -> Callable[[], object]:
    """The same with NumPy, which cannot avoid reading what it overwrites: a limit somewhat too slow."""
    pool, both = threads(), min(source.size, target.size)

    def part(index: int) -> None:
        lo, hi = both * index // options.threads, both * (index + 1) // options.threads
        np.copyto(target[lo:hi], source[lo:hi])
        rest = (source if source.size > both else target)[both:]
        rest = rest[rest.size * index // options.threads : rest.size * (index + 1) // options.threads]
        if rest.size and source.size > both:
            rest[: rest.size // 8 * 8].view(np.uint64).max()
        elif rest.size:
            rest.fill(1)

    return lambda: list(pool.map(part, range(options.threads)))
