"""The table of elementwise operations: NumPy's name, scalar function, dtype rule, accuracy.

Everything that knows operations reads `OPS`: the tracer asks `Op.resolve` for dtypes, the code generator prints the
name that `Op.scalar` gives, the interpreter and the compiler take the functions from `scalar_namespace` and
`compiled_namespace`, documentation and tests read the bounds.

How a kernel calls a scalar function: the operands are converted to the loop's input dtypes, and **every result is
wrapped in the constructor of the output dtype** (``np.int8(add(x, y))``). Functions of integers rely on it: they may
return more bits than the dtype has, and the wrap keeps the low ones, as NumPy's wrap-around does. So an integer
function can be as plain as ``def add(x, y): return x + y``. A float16 value is a float32 that is already rounded to
float16: its operation is the float32 one, the result wrapped in ``half_round(...)``.

To add an operation:

1. write the function in a ``kernels/scalar_*.py`` (plain arithmetic, equal in Python and compiled);
2. add one row to a table below: name, ufunc, function name by dtype;
3. state its bound if it is not exact;
4. put other spellings in `aliases`;
5. run ``pytest tests/test_ops.py tests/test_scalar.py``: they read the row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from gpucompute.errors import DTypeError

Operand: TypeAlias = "np.dtype[Any] | type"
DType: TypeAlias = "np.dtype[Any]"

SUPPORTED = tuple(np.dtype(code) for code in ("?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8"))
_WEAK_VALUES = {int: 0, float: 0.0, complex: 0j}


@dataclass(frozen=True)
class Op:
    """One elementwise operation.

    Attributes
    ----------
    name : str
        NumPy's name.
    nin : int
        Number of operands.
    ufunc : numpy.ufunc or None
        The ufunc that means the same, if NumPy has one.
    kind : str
        Family, for documentation.
    functions : Mapping[str, str]
        Scalar function by loop dtype: "f4" (one dtype), then "f" (a kind), then "*" (any). float16 uses "f2" or "f4".
    ulp : Mapping[str, int]
        Largest distance from the correctly rounded result, in units in the last place, by float dtype; empty: exact.
    aliases : tuple of str
        Other names of the same operation, in NumPy and in the array API standard.
    rule : numpy.ufunc or None
        Decides the dtypes; None: all operands take ``np.result_type``.
    output : int
        Which result of `rule` this is, where it has several.
    """

    name: str
    nin: int
    ufunc: np.ufunc | None
    kind: str
    functions: Mapping[str, str]
    ulp: Mapping[str, int] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    rule: np.ufunc | None = None
    output: int = 0

    def scalar(self, dtypes: Sequence[DType]) -> str:
        """Name of the scalar function for the given loop input dtypes.

        Examples
        --------
        >>> OPS["exp"].scalar((np.dtype("f4"),))
        'exp_f4'
        """
        dtype = np.dtype(dtypes[-1] if self.name == "where" else dtypes[0])
        code = dtype.str[1:]
        for key in (code, "f4" if code == "f2" else code, dtype.kind, "*"):
            if key in self.functions:
                return self.functions[key]
        raise DTypeError(
            f"{self.name} has no loop for {dtype}; it has loops for: {', '.join(sorted(self.functions))}. "
            "Cast the operand first with .astype()."
        )

    def resolve(self, operands: Sequence[Operand]) -> tuple[tuple[DType, ...], DType]:
        """Loop input dtypes and output dtype, as NumPy chooses them (NEP 50).

        Parameters
        ----------
        operands
            A dtype for each array, or the Python type ``int``, ``float``, ``complex`` (weak) or ``bool`` for a scalar.

        Returns
        -------
        inputs : tuple of numpy.dtype
            What each operand is converted to.
        output : numpy.dtype
            The dtype of the result.

        Raises
        ------
        DTypeError
            NumPy rejects the operands, or needs a dtype that kernels do not have (complex, datetime, ...).

        Examples
        --------
        >>> OPS["add"].resolve((np.dtype("f4"), float))
        ((dtype('float32'), dtype('float32')), dtype('float32'))
        """
        if len(operands) != self.nin:
            raise DTypeError(f"{self.name} takes {self.nin} operands, got {len(operands)}.")
        given = tuple(_canonical(self.name, operand) for operand in operands)
        if all(isinstance(operand, type) for operand in given):  # no dtype to be weak against
            given = tuple(np.dtype(operand) for operand in given)
        if self.rule is None:
            inputs, output = self._common(given)
        else:
            try:
                found = self.rule.resolve_dtypes((*given, *[None] * self.rule.nout))
            except TypeError as error:
                raise DTypeError(self._refusal(given) + f" NumPy says: {error}") from error
            inputs, output = found[: self.nin], found[self.nin + self.output]
        if not all(dtype in SUPPORTED for dtype in (*inputs, output)):
            raise DTypeError(self._refusal(given) + " Kernels compute with " + ", ".join(map(str, SUPPORTED)) + ".")
        return inputs, output

    def _common(self, given: tuple[Operand, ...]) -> tuple[tuple[DType, ...], DType]:
        values = given[1:] if self.name == "where" else given
        common = np.result_type(*(_WEAK_VALUES[v] if isinstance(v, type) else v for v in values))
        condition = (np.dtype(bool),) if self.name == "where" else ()
        return (*condition, *[common] * len(values)), common

    def _refusal(self, given: tuple[Operand, ...]) -> str:
        shown = ", ".join(v.__name__ if isinstance(v, type) else str(v) for v in given)
        return f"{self.name} got ({shown}), which it cannot take; cast the operands to a dtype it takes with .astype()."


def _canonical(name: str, operand: Operand) -> Operand:
    if operand in _WEAK_VALUES:
        return operand
    try:
        return np.dtype(operand).newbyteorder("=")
    except TypeError as error:
        raise DTypeError(f"{name} got the operand type {operand!r}; expected a dtype, int, float or bool.") from error


_BOUND = {"f2": 1, "f4": 1, "f8": 2}


def _row(
    kind: str,
    ufunc: np.ufunc,
    functions: str | Mapping[str, str],
    *aliases: str,
    name: str | None = None,
    output: int = 0,
) -> Op:
    table = {"*": functions} if isinstance(functions, str) else functions
    whole = ufunc if name is None else None
    return Op(name or ufunc.__name__, ufunc.nin, whole, kind, table, {}, aliases, ufunc, output)


def _floats(stem: str) -> dict[str, str]:
    return {"f4": f"{stem}_f4", "f8": f"{stem}_f8"}


def _transcendental(kind: str, ufunc: np.ufunc, *aliases: str) -> Op:
    stem = ufunc.__name__
    return Op(stem, ufunc.nin, ufunc, kind, _floats(stem), _BOUND, aliases, ufunc)


_ARITHMETIC = (
    _row("arithmetic", np.add, {"b": "logical_or", "*": "add"}),
    _row("arithmetic", np.subtract, "subtract"),
    _row("arithmetic", np.multiply, {"b": "logical_and", "*": "multiply"}),
    _row("arithmetic", np.divide, {"f": "true_divide_f"}, "true_divide"),
    _row("arithmetic", np.floor_divide, {"i8": "floor_divide_i8", "u8": "floor_divide_u8", "i": "floor_divide_small",
                                         "u": "floor_divide_small", **_floats("floor_divide")}),
    _row("arithmetic", np.remainder, {"i8": "remainder_i8", "u8": "remainder_u8", "i": "remainder_small",
                                      "u": "remainder_small", **_floats("remainder")}, "mod"),
    _row("arithmetic", np.fmod, {"i8": "fmod_i8", "u8": "remainder_u8", "i": "fmod_small", "u": "fmod_small",
                                 **_floats("fmod")}),
    _row("arithmetic", np.negative, {"f": "negative_f", "*": "negative_i"}),
    _row("arithmetic", np.positive, "positive"),
    _row("arithmetic", np.conjugate, {"*": "positive"}, "conj"),
    _row("arithmetic", np.absolute, {"f": "absolute_f", "i": "absolute_i", "*": "positive"}, "abs"),
    _row("arithmetic", np.fabs, {"f": "absolute_f"}),
    _row("arithmetic", np.sign, {"f": "sign_f", "i": "sign_i", "u": "sign_u"}),
    _row("arithmetic", np.square, "square"),
    _row("arithmetic", np.sqrt, "sqrt_f"),
    _row("arithmetic", np.reciprocal, {"i": "reciprocal_i", "u": "reciprocal_u", **_floats("reciprocal")}),
    _row("arithmetic", np.heaviside, "heaviside_f"),
    _row("arithmetic", np.gcd, {"i": "gcd_i", "u": "gcd_u"}),
    _row("arithmetic", np.lcm, {"i": "lcm_i", "u": "lcm_u"}),
)  # fmt: skip

_COMPARISON = (
    _row("comparison", np.equal, "equal"),
    _row("comparison", np.not_equal, "not_equal"),
    _row("comparison", np.less, "less"),
    _row("comparison", np.less_equal, "less_equal"),
    _row("comparison", np.greater, "greater"),
    _row("comparison", np.greater_equal, "greater_equal"),
    _row("selection", np.maximum, {"b": "logical_or", "*": "maximum"}),
    _row("selection", np.minimum, {"b": "logical_and", "*": "minimum"}),
    _row("selection", np.fmax, {"b": "logical_or", "*": "fmax"}),
    _row("selection", np.fmin, {"b": "logical_and", "*": "fmin"}),
    Op("clip", 3, None, "selection", {"*": "clip"}),
    Op("where", 3, None, "selection", {"*": "where"}),
)

_LOGIC = (
    _row("logic", np.logical_and, "logical_and"),
    _row("logic", np.logical_or, "logical_or"),
    _row("logic", np.logical_xor, "logical_xor"),
    _row("logic", np.logical_not, "logical_not"),
    _row("bits", np.bitwise_and, "bitwise_and"),
    _row("bits", np.bitwise_or, "bitwise_or"),
    _row("bits", np.bitwise_xor, "bitwise_xor"),
    _row("bits", np.invert, {"b": "logical_not", "*": "invert"}, "bitwise_not", "bitwise_invert"),
    _row("bits", np.left_shift, "left_shift", "bitwise_left_shift"),
    _row("bits", np.right_shift, {"i": "right_shift_i", "u": "right_shift_u"}, "bitwise_right_shift"),
    _row("bits", np.bitwise_count, {"i": "bitwise_count_i", "*": "bitwise_count_u"}),
)

_FLOAT = (
    _row("classes", np.isnan, {"f": "isnan_f", "*": "never"}),
    _row("classes", np.isinf, {"f": "isinf_f", "*": "never"}),
    _row("classes", np.isfinite, {"f": "isfinite_f", "*": "always"}),
    _row("classes", np.signbit, _floats("signbit")),
    _row("rounding", np.floor, {"f": "floor_f", "*": "positive"}),
    _row("rounding", np.ceil, {"f": "ceil_f", "*": "positive"}),
    _row("rounding", np.trunc, {"f": "trunc_f", "*": "positive"}),
    _row("rounding", np.rint, "rint_f"),
    _row("parts", np.copysign, _floats("copysign")),
    _row("parts", np.nextafter, {"f2": "nextafter_f2", **_floats("nextafter")}),
    _row("parts", np.spacing, {"f2": "spacing_f2", **_floats("spacing")}),
    _row("parts", np.ldexp, _floats("ldexp")),
    _row("parts", np.frexp, _floats("frexp_mantissa"), name="frexp_mantissa", output=0),
    _row("parts", np.frexp, _floats("frexp_exponent"), name="frexp_exponent", output=1),
    _row("parts", np.modf, _floats("modf_fractional"), name="modf_fractional", output=0),
    _row("parts", np.modf, {"f": "trunc_f"}, name="modf_integral", output=1),
    _row("angles", np.deg2rad, _floats("deg2rad"), "radians"),
    _row("angles", np.rad2deg, _floats("rad2deg"), "degrees"),
)

_TRANSCENDENTAL = (
    *(_transcendental("exponential", u) for u in (np.exp, np.exp2, np.expm1)),
    *(_transcendental("logarithm", u) for u in (np.log, np.log2, np.log10, np.log1p)),
    *(_transcendental("sum of exponentials", u) for u in (np.logaddexp, np.logaddexp2)),
    _transcendental("power", np.cbrt),
    _transcendental("power", np.hypot),
    *(_transcendental("trigonometric", u) for u in (np.sin, np.cos, np.tan)),
    _transcendental("trigonometric", np.arcsin, "asin"),
    _transcendental("trigonometric", np.arccos, "acos"),
    _transcendental("trigonometric", np.arctan, "atan"),
    _transcendental("trigonometric", np.arctan2, "atan2"),
    *(_transcendental("hyperbolic", u) for u in (np.sinh, np.cosh, np.tanh)),
    _transcendental("hyperbolic", np.arcsinh, "asinh"),
    _transcendental("hyperbolic", np.arccosh, "acosh"),
    _transcendental("hyperbolic", np.arctanh, "atanh"),
    Op(
        "power",
        2,
        np.power,
        "power",
        {"i": "power_i", "u": "power_int", **_floats("power")},
        _BOUND,
        ("pow",),
        np.power,
    ),
    Op("float_power", 2, np.float_power, "power", {"f8": "power_f8"}, _BOUND, (), np.float_power),
    Op("erf", 1, None, "error function", _floats("erf"), _BOUND, (), np.exp),
    Op("erfc", 1, None, "error function", _floats("erfc"), _BOUND, (), np.exp),
    Op("sigmoid", 1, None, "exponential", _floats("sigmoid"), _BOUND, ("expit",), np.exp),
)

OPS: dict[str, Op] = {op.name: op for op in (*_ARITHMETIC, *_COMPARISON, *_LOGIC, *_FLOAT, *_TRANSCENDENTAL)}
"""Every operation by NumPy's name."""

ALIASES: dict[str, str] = {alias: op.name for op in OPS.values() for alias in op.aliases}
"""Other spellings, to the name in `OPS`."""

SEVERAL: dict[str, tuple[str, ...]] = {
    "divmod": ("floor_divide", "remainder"),
    "frexp": ("frexp_mantissa", "frexp_exponent"),
    "modf": ("modf_fractional", "modf_integral"),
}
"""NumPy's ufuncs with several results, as the operations that give each of them."""


def find(name: str) -> Op | None:
    """The operation of that name or alias, or None.

    Examples
    --------
    >>> find("atan2").name
    'arctan2'
    """
    return OPS.get(ALIASES.get(name, name))


def cast_scalar(source: DType, target: DType) -> str:
    """Name of the scalar function that converts `source` to `target`; the caller's wrap does the rest.

    A float out of an integer's range is truncated to int64 (NaN and beyond: the most negative), then wrapped to the
    width. The result for a float16 target is a float32 rounded to float16.

    Examples
    --------
    >>> cast_scalar(np.dtype("f4"), np.dtype("u1"))
    'float_to_int'
    """
    for dtype in (source, target):
        if dtype not in SUPPORTED:
            raise DTypeError(
                f"cannot cast {source} to {target}: kernels have no {dtype}. "
                "They compute with " + ", ".join(map(str, SUPPORTED)) + "; convert outside the kernel."
            )
    if source == target:
        return "positive"
    if target.kind == "b":
        return "to_bool"
    if source.kind == "f" and target.kind in "iu":
        return "float_to_u8" if target == np.dtype("u8") else "float_to_int"
    if target == np.dtype("f2"):
        return {"f4": "half_round", "f8": "half_round_f8"}.get(source.str[1:], "int_to_half")
    return "positive"


def scalar_namespace() -> dict[str, Any]:
    """The scalar functions by name, plain: for NumPy scalars under ``np.errstate(all="ignore")``."""
    from gpucompute.kernels import scalar

    functions: dict[str, Any] = scalar.namespace()
    return functions


def compiled_namespace() -> dict[str, Any]:
    """The scalar functions by name, as numba functions for the CPU that inline into the kernel that calls them."""
    import numba

    from gpucompute.kernels import scalar

    functions: dict[str, Any] = scalar.compile_namespace(
        numba.njit(forceinline=True, error_model="numpy"), numba.njit(inline="always", error_model="numpy")
    )
    return functions
