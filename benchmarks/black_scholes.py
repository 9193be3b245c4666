"""Black-Scholes price of European calls: 10 million float32 triples (spot, strike, years), one rate, one volatility."""

from harness import HAND, LIMIT, OURS, PEER, Call, Case, largest_error, options, run, size, threads  # isort: split

import ctypes

import numpy as np
from limits import compile_c, stream

import gpucompute as gp

COUNT = size(10_000_000)
_random = np.random.default_rng(0)
spot, strike = (_random.uniform(20, 120, COUNT).astype(np.float32) for _ in range(2))
years = _random.uniform(0.1, 3, COUNT).astype(np.float32)
RATE, VOLATILITY, HALF_ROOT = 0.03, 0.25, 0.5**0.5
BLOCK = 16384  # elements that stay in the cache between NumPy's passes
CHECKED = slice(0, 200_000)


def price(spot, strike, years, rate, volatility, xp=np, erf=gp.erf):
    """The formula once, for every library that speaks NumPy's words (Black & Scholes 1973, equation 13)."""
    spread = volatility * xp.sqrt(years)
    d1 = (xp.log(spot / strike) + (rate + 0.5 * volatility * volatility) * years) / spread
    below, above = (0.5 * (1 + erf(d * HALF_ROOT)) for d in (d1, d1 - spread))
    return spot * below - strike * xp.exp(-rate * years) * above


def _reference():
    from math import erf

    s, k, t = (x[CHECKED].astype(np.float64) for x in (spot, strike, years))
    return price(s, k, t, RATE, VOLATILITY, erf=np.vectorize(erf, otypes=[np.float64]))


reference = _reference()
case = Case(
    f"b. Black-Scholes, {COUNT:,} float32",
    lambda result: largest_error(result, reference, "float32", CHECKED),
    tolerance=1e-4,  # numexpr's erf is a polynomial of 1.5e-7, times a strike of up to 120
)
case.target("gpucompute, exact", ("torch.compile", "JAX jit"))
case.target('gpucompute, precision="fast"', "C, gcc with libmvec")

exact = gp.fuse(price)
fast = gp.fuse(price, precision="fast")
ARGUMENTS = (spot, strike, years, RATE, VOLATILITY)


@case.add("gpucompute, exact", OURS)
def _():
    return lambda: exact(*ARGUMENTS)


@case.add('gpucompute, precision="fast"', OURS)
def _():
    return lambda: fast(*ARGUMENTS)


@case.add("gpucompute, exact, out=", OURS)
def _():
    out = np.empty_like(spot)
    return lambda: exact(*ARGUMENTS, out=out)


@case.add("gpucompute, exact, fresh memory at every call", OURS)
def _():
    return Call(lambda: exact(*ARGUMENTS), before=gp.memory.release)


@case.add("NumPy + scipy.special.erf", PEER, needs="scipy.special")
def _(special):
    return lambda: price(*ARGUMENTS, erf=special.erf)


@case.add("NumPy by blocks, threads", HAND, needs="scipy.special")
def _(special):
    pool = threads()

    def part(out, lo, hi):
        for start in range(lo, hi, BLOCK):
            cut = slice(start, min(start + BLOCK, hi))
            out[cut] = price(spot[cut], strike[cut], years[cut], RATE, VOLATILITY, erf=special.erf)

    def call():
        out = np.empty_like(spot)
        edges = [COUNT * t // options.threads for t in range(options.threads + 1)]
        list(pool.map(lambda t: part(out, edges[t], edges[t + 1]), range(options.threads)))
        return out

    return call


@case.add("numexpr", PEER, needs="numexpr")
def _(numexpr):
    """PyPI's numexpr has no erf: Abramowitz & Stegun 7.1.26. Constants are float32, or all would become float64."""
    f = np.float32
    coefficients = (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)
    constants = dict(zip("ABCDE", map(f, coefficients), strict=True), P=f(0.3275911), one=f(1), half=f(0.5))
    constants |= {"root": f(HALF_ROOT), "r": f(RATE), "v": f(VOLATILITY), "drift": f(RATE + VOLATILITY**2 / 2)}

    def below(d):
        z = numexpr.evaluate("abs(d) * root", {**constants, "d": d})
        t = numexpr.evaluate("one / (one + P * z)", {**constants, "z": z})
        tail = numexpr.evaluate(
            "((((A * t + B) * t + C) * t + D) * t + E) * t * exp(-z * z)", {**constants, "t": t, "z": z}
        )
        return numexpr.evaluate("half * where(d < 0, tail, one + one - tail)", {**constants, "d": d, "tail": tail})

    def call():
        given = {**constants, "S": spot, "K": strike, "T": years}
        spread = numexpr.evaluate("v * sqrt(T)", given)
        d1 = numexpr.evaluate("(log(S / K) + drift * T) / w", {**given, "w": spread})
        return numexpr.evaluate("S * n1 - K * exp(-r * T) * n2", {**given, "n1": below(d1), "n2": below(d1 - spread)})

    return call


@case.add("torch eager", PEER, needs="torch")
def _(torch):
    given = tuple(map(torch.from_numpy, (spot, strike, years)))
    return lambda: price(*given, RATE, VOLATILITY, torch, torch.erf)


@case.add("torch.compile", PEER, needs="torch")
def _(torch):
    given = tuple(map(torch.from_numpy, (spot, strike, years)))
    compiled = torch.compile(lambda *arrays: price(*arrays, RATE, VOLATILITY, torch, torch.erf))
    return lambda: compiled(*given)


@case.add("JAX jit", PEER, needs="jax jax.numpy jax.scipy.special")
def _(jax, jnp, special):
    given = tuple(map(jnp.asarray, (spot, strike, years)))
    compiled = jax.jit(lambda *arrays: price(*arrays, RATE, VOLATILITY, jnp, special.erf))
    return lambda: compiled(*given)


SOURCE = r"""
#include <math.h>
void price(const float *s, const float *k, const float *t, float r, float v, float *out, long n, int threads) {
    #pragma omp parallel for simd num_threads(threads)
    for (long i = 0; i < n; i++) {
        float spread = v * sqrtf(t[i]), d1 = (logf(s[i] / k[i]) + (r + 0.5f * v * v) * t[i]) / spread;
        float below = 0.5f * (1 + erff(d1 * 0.70710678f)), above = 0.5f * (1 + erff((d1 - spread) * 0.70710678f));
        out[i] = s[i] * below - k[i] * expf(-r * t[i]) * above;
    }
}
"""


def _c(out_of):
    library = compile_c(SOURCE, "-ffast-math", "-mprefer-vector-width=512", "-lmvec", "-lm")
    if library is None:
        raise ImportError("a C compiler with libmvec", name="a C compiler with libmvec")
    pointer = ctypes.c_void_p
    library.price.argtypes = [pointer] * 3 + [ctypes.c_float] * 2 + [pointer, ctypes.c_long, ctypes.c_int]
    library.price.restype = None

    def call():
        out = out_of()
        given = (x.ctypes.data for x in (spot, strike, years))
        library.price(*given, RATE, VOLATILITY, out.ctypes.data, COUNT, options.threads)
        return out

    return call


@case.add("C, gcc with libmvec", HAND)
def _():
    return _c(lambda: np.empty_like(spot))


@case.add("C, libmvec, reused output", HAND)
def _():
    out = np.empty_like(spot)
    return _c(lambda: out)


@case.add("limit: its bytes, streamed", LIMIT)
def _():
    return stream(3 * spot.nbytes, spot.nbytes)


if __name__ == "__main__":
    run(case)
