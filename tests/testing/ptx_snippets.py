"""One PTX instruction (or a few) run over arrays, and the reference for floats: whole numbers and fractions."""

from __future__ import annotations

from fractions import Fraction
from math import isqrt

import numpy as np

from gpucompute.testing.ptx import run_ptx

HEAD = ".version 9.0\n.target sm_90\n.address_size 64\n"


def snippet(body: str, inputs: dict[str, np.dtype], outputs: dict[str, np.dtype]) -> str:
    """A kernel that loads %x for each input x, runs the body and stores each output; bool is a predicate."""
    lines = [HEAD, ".visible .entry snippet("]
    names = [*inputs, *outputs]
    lines.append(", ".join(f".param .u64 p_{name}" for name in names))
    lines.append(") {\n.reg .b32 %t;\n.reg .b64 %at, %i;\n.reg .b16 %byte;")
    lines.append("mov.u32 %t, %tid.x;\nmov.u32 %n, %ctaid.x;\nmad.lo.u32 %t, %n, %m, %t;")
    lines[-1] = ".reg .b32 %n, %m;\nmov.u32 %m, %ntid.x;\n" + lines[-1] + "\ncvt.u64.u32 %i, %t;"
    for name, dtype in (inputs | outputs).items():
        kind = "pred" if dtype.kind == "b" else f"b{max(8 * dtype.itemsize, 16)}"
        lines.append(f".reg .{kind} %{name};")
    for name, dtype in inputs.items():
        lines.append(f"ld.param.u64 %at, [p_{name}];\nmad.lo.u64 %at, %i, {dtype.itemsize}, %at;")
        if dtype.kind == "b":
            lines.append(f"ld.global.u8 %byte, [%at];\nsetp.ne.u16 %{name}, %byte, 0;")
        else:
            lines.append(f"ld.global.b{8 * dtype.itemsize} %{name}, [%at];")
    lines.append(body)
    for name, dtype in outputs.items():
        lines.append(f"ld.param.u64 %at, [p_{name}];\nmad.lo.u64 %at, %i, {dtype.itemsize}, %at;")
        if dtype.kind == "b":
            lines.append(f"selp.u16 %byte, 1, 0, %{name};\nst.global.u8 [%at], %byte;")
        else:
            lines.append(f"st.global.b{8 * dtype.itemsize} [%at], %{name};")
    return "\n".join([*lines, "ret;\n}\n"])


def evaluate(body: str, outputs: str | dict[str, str], block: int = 64, **inputs: np.ndarray) -> list[np.ndarray]:
    """Run the body once for each element of the inputs; outputs are `d`, or by name, with their dtypes."""
    kinds = {"d": outputs} if isinstance(outputs, str) else outputs
    out = {name: np.dtype(kind) for name, kind in kinds.items()}
    n = len(next(iter(inputs.values())))
    blocks = -(-n // block)
    arrays = [np.concatenate([v, np.repeat(v[-1:], blocks * block - n)]) for v in inputs.values()]
    results = [np.zeros(blocks * block, dtype) for dtype in out.values()]
    ptx = snippet(body, {name: v.dtype for name, v in inputs.items()}, out)
    run_ptx(ptx, "snippet", blocks, block, [*arrays, *results])
    return [r[:n] for r in results]


# IEEE formats by hand: bits of exponent and of fraction

FORMATS = {"f16": (5, 10), "bf16": (8, 7), "f32": (8, 23), "f64": (11, 52)}
DTYPES = {"f16": "f2", "bf16": "u2", "f32": "f4", "f64": "f8"}
BITS = {"f16": "u2", "bf16": "u2", "f32": "u4", "f64": "u8"}


def decode(bits: int, name: str) -> Fraction | None:
    """The number that finite bits stand for, else None."""
    exponent_bits, fraction_bits = FORMATS[name]
    bias = 2 ** (exponent_bits - 1) - 1
    sign = -1 if bits >> (exponent_bits + fraction_bits) else 1
    exponent = bits >> fraction_bits & (2**exponent_bits - 1)
    fraction = bits & (2**fraction_bits - 1)
    if exponent == 2**exponent_bits - 1:
        return None
    if exponent:
        return sign * Fraction(fraction + 2**fraction_bits) * Fraction(2) ** (exponent - bias - fraction_bits)
    return sign * Fraction(fraction) * Fraction(2) ** (1 - bias - fraction_bits)


def encode(value: Fraction, name: str, mode: str = "rn", negative_zero: bool = False) -> int:
    """The bits of a fraction rounded to a format."""
    exponent_bits, fraction_bits = FORMATS[name]
    bias = 2 ** (exponent_bits - 1) - 1
    top = exponent_bits + fraction_bits
    if value == 0:
        return int(negative_zero) << top
    negative, size = value < 0, abs(value)
    exponent = max(size.numerator.bit_length() - size.denominator.bit_length(), 1 - bias)
    exponent -= exponent > 1 - bias and size < Fraction(2) ** exponent  # the estimate is right or 1 too high
    steps = size / Fraction(2) ** (exponent - fraction_bits)
    whole, rest = divmod(steps, 1)
    whole = int(whole)
    up = {
        "rn": rest > Fraction(1, 2) or (rest == Fraction(1, 2) and whole % 2),
        "rna": rest >= Fraction(1, 2),
        "rz": False,
        "rm": negative and rest,
        "rp": not negative and rest,
    }[mode]
    whole += bool(up)
    # The bits of consecutive floats are consecutive whole numbers.
    bits = whole + ((exponent + bias - 1) << fraction_bits) if exponent > 1 - bias or whole >> fraction_bits else whole
    infinity = (2**exponent_bits - 1) << fraction_bits
    if bits >= infinity:
        inward = mode == "rz" or (mode == "rm" and not negative) or (mode == "rp" and negative)
        bits = infinity - 1 if inward else infinity
    return bits | negative << top


def exact_sqrt(value: Fraction) -> Fraction:
    """The square root, cut off far behind any format's last bit, with a mark that something is left."""
    shift = 700
    scaled = value * 4**shift
    root = isqrt(scaled.numerator // scaled.denominator)
    left = Fraction(root) ** 2 != scaled
    return (Fraction(root) + Fraction(left, 2)) / 2**shift


def random_floats(name: str, n: int, seed: int, moderate: bool = False) -> np.ndarray:
    """Floats of a format (bfloat16 as uint16): random bits, or numbers of similar size."""
    random = np.random.default_rng(seed)
    exponent_bits, fraction_bits = FORMATS[name]
    bits = random.integers(0, 2 ** (exponent_bits + fraction_bits + 1), n, dtype=np.uint64)
    if moderate:
        bias = 2 ** (exponent_bits - 1) - 1
        exponent = random.integers(bias - 4, bias + 4, n, dtype=np.uint64)
        keep = np.uint64((1 << fraction_bits) - 1 | 1 << (exponent_bits + fraction_bits))
        bits = (bits & keep) | exponent << np.uint64(fraction_bits)
    return bits.astype(BITS[name]).view(DTYPES[name])
