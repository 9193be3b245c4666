"""Generated programs: random NumPy-style functions with awkward inputs, and what NumPy makes of them.

A program is Python source. It is written line by line, each line run by NumPy at once, and kept if NumPy accepts it.
Beside each value stands how near a fused result must come: equal, within some units in the last place, within an
absolute bound (sums), or not at all where an earlier result was only near (the shape and dtype must agree always).

``python tests/fusion/programs.py --count 5000 --seed 0`` checks thousands: compiled equals interpreted to the bit, and
both come near NumPy. With ``--ptx`` what is compiled is the PTX for a GPU, one architecture after the other, which an
interpreter runs.
"""

from __future__ import annotations

import argparse
import linecache
import sys
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
from hypothesis import strategies as st

import gpucompute as gp

if TYPE_CHECKING:
    from ptx_machine import PtxMachine

Array = np.ndarray[Any, Any]

DTYPES = ("bool", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8")
SHAPES = ((), (0,), (1,), (3,), (17,), (2, 3), (4, 1), (0, 3), (5, 2), (2, 3, 4), (1, 3, 1), (2, 2, 3, 3))
LONG_SHAPES = ((300,), (513,), (2, 260), (260, 2))
LARGEST = 1100  # elements of any value

EXACT_UNARY = (
    "-{a}", "+{a}", "abs({a})", "~{a}", "np.square({a})", "np.sqrt(abs({a}))", "np.floor({a})", "np.ceil({a})",
    "np.trunc({a})", "np.rint({a})", "np.isnan({a})", "np.isfinite({a})", "np.logical_not({a})",
    "np.reciprocal({a} + 0.5)",
    "np.reciprocal({a} | 1)",
    "np.where({a} > 0, {a}, 0)", "np.nan_to_num({a})", "{a}.astype(np.{dtype})", "np.ones_like({a})", "{a} / 255",
    "{a} + 1", "2 * {a}", "{a} - 0.5", "{a} // 3", "{a} % 3", "{a} ** 2", "{a} << 1", "{a} >> 1", "{a} < 2", "{a} == 0",
    "np.float32(1.5) * {a}", "{a} * np.int8(2)", "np.logical_and({a}, {a} != 1)", "np.conjugate({a})",
)  # fmt: skip
ZERO_SIGN_UNARY = (
    "np.clip({a}, 0, 2)",
    "np.clip({a}, None, 1.5)",
    "np.maximum({a}, 0)",
    "np.sign({a})",
    "np.fabs({a})",
)
ULP_UNARY = (
    *(
        f"np.{name}({{a}})"
        for name in ("exp", "expm1", "exp2", "tanh", "sin", "cos", "arctan", "cbrt", "sinh", "cosh", "arcsinh")
    ),
    "np.log(abs({a}))",
    "np.log1p(abs({a}))",
    "np.log2(abs({a}))",
    "np.log10(abs({a}))",
    "np.tan({a})",
)
EXACT_BINARY = (
    "{a} + {b}", "{a} - {b}", "{a} * {b}", "{a} / {b}", "{a} // {b}", "{a} % {b}", "{a} & {b}", "{a} | {b}",
    "{a} ^ {b}",
    "{a} << ({b} & 3)", "{a} >> ({b} & 3)", "{a} < {b}", "{a} >= {b}", "{a} == {b}", "{a} != {b}", "np.fmod({a}, {b})",
    "np.where({a} > {b}, {a}, {b})", "np.where({b}, {a}, 1)", "np.logical_xor({a}, {b})", "np.gcd({a}, {b})",
    "divmod({a}, {b})[1]",
)  # fmt: skip
ZERO_SIGN_BINARY = ("np.maximum({a}, {b})", "np.minimum({a}, {b})", "np.fmax({a}, {b})", "np.fmin({a}, {b})")
# (logaddexp of large values only: near zero NumPy's own result is off by more, as it is a difference)
ULP_BINARY = ("np.hypot({a}, {b})", "np.arctan2({a}, {b})", "np.logaddexp(abs({a}) + 1, {b})", "abs({a}) ** {b}")
VIEWS = (
    "{a}.T", "{a}[::-1]", "{a}[1:]", "{a}[:-1]", "{a}[::2]", "{a}[..., ::-2]", "{a}[None]", "{a}[..., None]", "{a}[0]",
    "{a}[..., -1]", "{a}[-1, 0]", "{a}.reshape(-1)", "{a}.ravel()", "{a}.squeeze()", "np.flip({a})",
    "np.swapaxes({a}, 0, -1)",
    "np.moveaxis({a}, 0, -1)", "np.expand_dims({a}, (0, -1))", "np.broadcast_to({a}, (2,) + {a}.shape)",
    "{a}.reshape({a}.shape[::-1])", "{a}.reshape(2, -1)", "np.rot90({a})", "np.diagonal({a})", "{a}[1:, None, ::2]",
    "{a}.T.reshape(-1)[::3]", "{a}.transpose(1, 0)", "np.atleast_2d({a})",
)  # fmt: skip
MOVES = (
    "np.roll({a}, 1)", "np.roll({a}, -2, axis=-1)", "np.concatenate([{a}, {a}[:1]])", "np.stack([{a}, {a}], axis=-1)",
    "np.concatenate([{a}, {b}], axis=-1)", "np.stack([{a}, {b}])", "np.pad({a}, 1)", "np.pad({a}, 2, mode='edge')",
    "np.tile({a}, 2)", "np.repeat({a}, 2, axis=0)", "np.take({a}, [0, -1, 0], axis=-1)", "{a}[[-1, 0]]",
    "{a}[..., [0, 0, 1]]", "{a}[[0, 1], [1, 0]]", "{a}[np.argmax({a} != 0, axis=0)]", "np.tril({a})", "np.triu({a}, 1)",
    "np.take({a}, abs({b}).astype(np.int64) % 2)", "np.hstack([{a}, {b}])", "np.split({a}, [1], axis=0)[1]",
)  # fmt: skip
EXACT_REDUCTIONS = ("argmin", "argmax", "any", "all", "count_nonzero")
ZERO_SIGN_REDUCTIONS = ("min", "max")
NEAR_REDUCTIONS = ("sum", "mean", "prod", "var", "std")
CHANGES = (
    "{v} = {a}.copy()\n    {v}[{v} > 0] = 1", "{v} = {a}.copy()\n    {v}[1:] = 2",
    "{v} = +{a}\n    {v}[..., 0] = {a}[..., -1]",
    "{v} = {a}.copy()\n    {v}[::-2] += 1", "{v} = {a}.copy()\n    {v} *= 2",
    "{v} = np.zeros_like({a})\n    {v}[1:-1] = {a}[2:]",
    "{v} = {a}.copy()\n    {v}.T[0] = 3", "{v} = {a}.copy()\n    {v}[{v} < 0] *= -1",
    "{v} = np.empty_like({a})\n    {v}[...] = {b}",
    "{v} = {a}.copy()\n    {v}[{a} != 0] -= 1",
)  # fmt: skip
SCALARS = (3, -2, 0, 255, True, 2.5, -0.0, 1e-3)


@dataclass
class Value:
    """A variable of a program: NumPy's value, and what a fused value must have in common with it."""

    name: str
    expected: Any
    check: str = "exact"  # exact, ulp, bound, shape
    bound: Any = None
    clean: bool = True  # equal to the last bit: fit to go on from


@dataclass
class Program:
    """A function with its arguments. `outputs` tell what NumPy returns for them."""

    source: str
    function: Callable[..., Any]
    args: tuple[Any, ...]
    outputs: list[Value]

    def __repr__(self) -> str:
        shown = [
            f"{a.dtype}{a.shape} strides {a.strides}\n{a!r}" if isinstance(a, np.ndarray) else repr(a)
            for a in self.args
        ]
        return self.source + "\n# arguments: " + "\n# ".join("\n".join(shown).splitlines())

    @property
    def arrays(self) -> list[Array]:
        return [a for a in self.args if isinstance(a, (np.ndarray, np.generic))]

    @property
    def scalars(self) -> list[Any]:
        return [a for a in self.args if not isinstance(a, (np.ndarray, np.generic))]


@dataclass
class _Writer:
    random: Random
    lines: list[str] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)

    def add(self, template: str, a: Value, b: Value, check: str = "exact", clean: bool = True, **more: str) -> None:
        name = f"v{len(self.values)}"
        text = template.format(a=a.name, b=b.name, v=name, **more)
        text = text if template in CHANGES else f"{name} = {text}"
        scope = {value.name: value.expected for value in self.values} | {"np": np, "gp": gp}
        try:
            with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):
                exec(text.replace("\n    ", "\n"), scope)
        except (TypeError, ValueError, IndexError, OverflowError, AttributeError, ZeroDivisionError):
            return
        result = scope[name]
        if np.size(result) > LARGEST or not hasattr(result, "dtype") or result.dtype.char not in "?bBhHiIlLefd":
            return
        result = np.array(result) if isinstance(result, np.ndarray) else result
        used = [value for value in (a, b) if value.name in text.replace("=", " ").replace(".", " ").replace("(", " ")]
        undefined = "astype" in text and not _in_range(a.expected, result.dtype)
        if undefined or not all(value.clean for value in used):
            check, clean = "shape", False
        self.lines.append(text)
        self.values.append(Value(name, result, check, None, clean and check == "exact"))


def _in_range(value: Any, dtype: Any) -> bool:
    """Tell whether a cast to `dtype` is defined by C."""
    value = np.asarray(value, np.float64) if np.asarray(value).dtype.kind == "f" else np.asarray(value)
    if dtype.kind not in "iu" or value.dtype.kind != "f" or not value.size:
        return True
    limits = np.iinfo(dtype)
    return bool(np.isfinite(value).all() and value.min() >= limits.min and value.max() < float(limits.max))


def _reduce(writer: _Writer, name: str, a: Value) -> None:
    """Add a reduction and how near it must come."""
    rank = np.ndim(a.expected)
    axis = writer.random.choice([None, *range(-1, rank), *([(0, rank - 1)] if rank > 1 else [])])
    keep = writer.random.choice(["", ", keepdims=True"])
    before = len(writer.values)
    check = "exact" if name in EXACT_REDUCTIONS + ZERO_SIGN_REDUCTIONS else "bound"
    writer.add(f"np.{name}({{a}}, axis={axis}{keep})", a, a, check, clean=check == "exact")
    if len(writer.values) == before:
        return
    value = writer.values[-1]
    given = np.asarray(a.expected)
    if value.check == "bound" and given.dtype.kind in "iub" and name in ("sum", "prod"):
        value.check, value.clean = "exact", True
    elif value.check == "bound":
        value.bound = _bound(name, given, axis, value.expected)
        value.check = "shape" if value.bound is None else "bound"
    _taint(name in ZERO_SIGN_REDUCTIONS, value)


def _taint(ambiguous: bool, value: Value) -> None:
    """NumPy leaves the sign of a zero among -0.0 and 0.0 to chance: do not go on from it."""
    if ambiguous and np.asarray(value.expected).dtype.kind == "f" and np.any(np.asarray(value.expected) == 0):
        value.clean = False


def _bound(name: str, x: Array, axis: Any, expected: Any) -> Any:
    """Return how far a float reduction may lie from NumPy's, None if that is not known."""
    dtype = np.asarray(expected).dtype
    if name == "prod" or not x.size or (name in ("var", "std") and dtype == np.float16):
        return None
    eps = float(np.finfo(dtype).eps)
    wide = np.abs(x.astype(np.float64))
    with np.errstate(all="ignore"):
        total = np.sum(wide, axis=axis, keepdims=True)
        if not np.all(total < float(np.finfo(dtype).max) / 8):
            return None
        count = wide.size / total.size
        largest = np.max(wide, axis=axis, keepdims=True)
        if name == "sum":
            bound = 8 * eps * total
        elif name == "mean":
            bound = 8 * eps * (total / count)
        else:
            variance = np.var(x.astype(np.float64), axis=axis, keepdims=True)
            if np.any(largest > np.sqrt(float(np.finfo(dtype).max)) / 8):
                return None
            # the means of tiles are rounded, and their distances enter Chan's update
            bound = 32 * eps * variance + 64 * (eps * largest) ** 2 + 4 * eps * largest * np.sqrt(variance)
            if name == "std":
                bound = np.where(variance > 0, np.minimum(bound / np.sqrt(variance), np.sqrt(bound)), np.sqrt(bound))
                bound = bound + 4 * eps * np.sqrt(variance)
        return (bound + float(np.finfo(dtype).smallest_normal)).reshape(np.shape(expected))


# ---- inputs


def array(random: Random, shape: tuple[int, ...], dtype: str) -> Array:
    """Return an array with awkward values in an awkward layout."""
    numbers = np.random.default_rng(random.getrandbits(32))
    kind = np.dtype(dtype)
    if kind.kind == "f":
        values = (numbers.normal(size=shape) * random.choice([1, 1, 100])).astype(kind)
        limits = np.finfo(kind)
        specials = [0.0, -0.0, 1.0, np.nan, np.inf, -np.inf, limits.smallest_subnormal, -limits.tiny / 2, limits.max]
        if random.random() < 0.35 and values.size:
            for _ in range(3):
                values.reshape(-1)[random.randrange(values.size)] = random.choice(specials)
    elif kind.kind == "b":
        values = numbers.integers(0, 2, shape).astype(kind)
    else:
        limits = np.iinfo(kind)
        wide = random.random() < 0.3
        low, high = (limits.min, limits.max) if wide else (max(limits.min, -9), 20)
        values = numbers.integers(low, high, shape, dtype=kind, endpoint=True)
    return _laid_out(random, np.asarray(values))


def _laid_out(random: Random, values: Array) -> Array:
    match random.choice(["C", "C", "C", "F", "reversed", "strided", "bytes", "unaligned", "read-only", "repeated"]):
        case "F":
            return np.asfortranarray(values)
        case "reversed" if values.ndim:
            return values[::-1].copy()[::-1]
        case "strided" if values.ndim:
            return np.repeat(values, 2, axis=-1)[..., ::2]
        case "bytes":
            return values.astype(values.dtype.newbyteorder())
        case "unaligned":
            room = np.zeros(values.nbytes + 1, np.uint8)
            moved = np.ndarray(values.shape, values.dtype, room.data, 1)
            moved[...] = values
            return moved
        case "read-only":
            values.flags.writeable = False
        case "repeated" if values.ndim and values.shape[0]:
            return np.broadcast_to(values[:1], values.shape)
    return values


def _related_shape(random: Random, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape that broadcasts with `shape`."""
    kept = shape[random.randrange(len(shape) + 1) :] if random.random() < 0.3 else shape
    return tuple(1 if random.random() < 0.2 else n for n in kept)


def make(random: Random) -> Program:
    """Return a program drawn from `random`."""
    shape = random.choice(LONG_SHAPES if random.random() < 0.15 else SHAPES)
    dtypes = [random.choice(DTYPES) for _ in range(2)]
    writer = _Writer(random)
    args: list[Any] = []
    for index in range(random.randint(1, 3)):
        kind = random.random()
        if kind < 0.15 and index:
            value: Any = random.choice(SCALARS)
        else:
            value = array(random, _related_shape(random, shape) if index else shape, random.choice(dtypes))
            value = value[()] if kind > 0.97 and value.ndim == 0 else value  # a NumPy scalar
        args.append(value)
        writer.values.append(Value(f"v{index}", value))
    for _ in range(random.randint(1, 9)):
        arrays = [value for value in writer.values if hasattr(value.expected, "dtype")]
        a = random.choice(arrays[-4:])
        b = random.choice(writer.values)
        _line(writer, a, b)
    made = writer.values[len(args) :]
    kept = made[-1:] + random.sample(made[:-1], min(len(made[:-1]), random.randint(0, 2))) if made else []
    outputs = kept or [writer.values[0]]
    names = [value.name for value in outputs]
    source = "\n    ".join(
        [f"def program({', '.join(f'v{i}' for i in range(len(args)))}):", *writer.lines, f"return {', '.join(names)},"]
    )
    name = f"<program {abs(hash(source))}>"
    scope = {"np": np, "gp": gp}
    exec(compile(source, name, "exec"), scope)
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    return Program(source, scope["program"], tuple(args), outputs)  # type: ignore[arg-type]


def _line(writer: _Writer, a: Value, b: Value) -> None:
    pick = writer.random.choice
    match writer.random.choices(
        ["unary", "binary", "ulp", "ulp2", "zero", "view", "move", "reduce", "change"], [5, 6, 2, 1, 1, 3, 3, 5, 2]
    )[0]:
        case "unary":
            writer.add(pick(EXACT_UNARY), a, b, dtype=np.dtype(pick(DTYPES)).name)
        case "binary":
            writer.add(pick(EXACT_BINARY), a, b)
        case "ulp":
            writer.add(pick(ULP_UNARY), a, b, "ulp")
        case "ulp2":
            writer.add(pick(ULP_BINARY), a, b, "ulp")
        case "zero":
            before = len(writer.values)
            writer.add(pick(ZERO_SIGN_UNARY + ZERO_SIGN_BINARY), a, b)
            if len(writer.values) > before:
                _taint(True, writer.values[-1])
        case "view":
            writer.add(pick(VIEWS), a, b)
        case "move":
            writer.add(pick(MOVES), a, b)
        case "reduce":
            _reduce(writer, pick(EXACT_REDUCTIONS + ZERO_SIGN_REDUCTIONS + NEAR_REDUCTIONS), a)
        case "change":
            writer.add(pick(CHANGES), a, b)


programs = st.randoms(use_true_random=False).map(make)


# ---- comparison


def near_numpy(program: Program, results: tuple[Any, ...]) -> None:
    """Raise AssertionError where a result is not as near to NumPy's as it must be."""
    assert len(results) == len(program.outputs)
    for value, got in zip(program.outputs, results, strict=True):
        want, have = np.asarray(value.expected), np.asarray(got)
        place = f"{value.name} ({value.check})\n{program!r}"
        assert have.shape == want.shape, f"shape {have.shape}, NumPy {want.shape}: {place}"
        assert have.dtype == want.dtype.newbyteorder("="), f"dtype {have.dtype}, NumPy {want.dtype}: {place}"
        if value.check != "shape":
            wrong = ~_near(value, have, want)
            assert not wrong.any(), f"{have[wrong][:5]}, NumPy {want[wrong][:5]}: {place}"


def _near(value: Value, have: Array, want: Array) -> Array:
    with np.errstate(all="ignore"):
        same = np.asarray((have == want) | ((have != have) & (want != want)))
        if value.check == "exact" or want.dtype.kind != "f":
            return same
        distance = np.abs(have.astype(np.float64) - want.astype(np.float64))
        if value.check == "bound":
            return same | (distance <= value.bound)
        # NumPy's own functions are up to 4 units off; the exponent's change doubles the unit
        return same | (distance <= 8 * np.spacing(np.abs(want)).astype(np.float64))


def same_bits(a: Any, b: Any) -> bool:
    """Tell whether two results agree to the bit; NaNs count as one value."""
    a, b = np.asarray(a), np.asarray(b)
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if a.dtype.kind == "f":
        a, b = (np.where(np.isnan(x), np.asarray(np.nan, x.dtype), x) for x in (a, b))
    return np.ascontiguousarray(a).tobytes() == np.ascontiguousarray(b).tobytes()


def main() -> int:
    """Check many programs; print those that fail."""
    from gpucompute.fusion import ir
    from gpucompute.fusion.interpret import interpret
    from gpucompute.fusion.run import fuse
    from gpucompute.fusion.trace import trace

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--interpret-only", action="store_true", help="compile nothing")
    parser.add_argument("--ptx", action="store_true", help="compile for a GPU, and run the PTX in the interpreter")
    parser.add_argument("--gpu", action="store_true", help="run on the current GPU, with CuPy's arrays")
    options = parser.parse_args()
    failed = 0
    for seed in range(options.seed, options.seed + options.count):
        program = make(Random(seed))
        try:
            traced = trace(program.function, program.args)
            ir.verify(traced.outputs)
            meaning = traced.rebuild(interpret(traced, program.arrays, program.scalars))
            near_numpy(program, meaning)
            if not options.interpret_only:
                if options.gpu:
                    results = run_gpu(program)
                else:
                    results = run_ptx(program, seed)[0] if options.ptx else fuse(program.function)(*program.args)
                for value, ours, slow in zip(program.outputs, results, meaning, strict=True):
                    assert same_bits(ours, slow), f"{value.name}: compiled {ours!r}, interpreted {slow!r}\n{program!r}"
        except Exception:  # noqa: BLE001 - report every kind and go on
            failed += 1
            print(f"--- seed {seed}\n{program!r}\n{traceback.format_exc(limit=-4)}")
    print(f"{options.count} programs, {failed} failed")
    return failed > 0


def run_ptx(program: Program, number: int) -> tuple[tuple[Any, ...], PtxMachine]:
    """Return what a program gives on a GPU of architecture `number`, and the interpreter that ran its PTX.

    The PTX is what numba makes for that architecture, and must not contract.
    """
    from ptx_machine import ARCHITECTURES, PtxMachine, run

    from gpucompute.testing.ptx import instructions

    machine = PtxMachine(arch=ARCHITECTURES[number % len(ARCHITECTURES)])
    results = run(program.function, *program.args, machine=machine)
    for ptx in machine.ptx:
        assert f".target {machine.arch}\n" in ptx
        found = [name for name in instructions(ptx) if "fma" in name or "approx" in name]
        assert not found, found
    return results, machine


def run_gpu(program: Program) -> tuple[Any, ...]:
    """Return what a program gives on the current GPU."""
    import cupy

    from gpucompute import asnumpy, fuse

    args = [cupy.asarray(arg) if isinstance(arg, np.ndarray) else arg for arg in program.args]
    if not any(isinstance(arg, cupy.ndarray) for arg in args):
        return tuple(fuse(program.function)(*program.args))
    return tuple(map(asnumpy, fuse(program.function)(*args)))


if __name__ == "__main__":
    sys.exit(main())
