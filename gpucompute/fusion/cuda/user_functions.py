"""Users' scalar functions made ready for numba-cuda: what they call has the bits of the CPU.

`scalar_source.rewritten` has put our functions in the places of those of `math` and NumPy; here these get a meaning
for the GPU. Other ufuncs become ours too, since numba-cuda would take libdevice's or has none.
"""

from __future__ import annotations

import dis
import types
from collections.abc import Callable
from typing import Any

import numpy as np

from ... import ops
from ...errors import FusionError
from ...launch.fingerprint import is_users, names_in
from .. import scalar_source

Function = Callable[..., Any]
Decorate = Callable[[Function], Any]
# Functions of math that numba-cuda takes from libdevice: NumPy's that mean the same.
_OF_MATH = {"fmod": np.fmod, "sqrt": np.sqrt, "degrees": np.degrees, "radians": np.radians}

_LOOK_UP = (
    "{} looks something up in an array that it captures, and on a GPU nobody would check the index; give the array to "
    "a fused function as an argument and use np.take"
)


class Translator:
    """Makes device functions of users' functions and of all that they call.

    Parameters
    ----------
    names : dict
        The scalar functions, compiled for the GPU.
    decorate : callable
        Makes of a plain function one that kernels call.
    """

    def __init__(self, names: dict[str, Any], decorate: Decorate) -> None:
        self.names = names
        self.decorate = decorate
        self._functions: dict[Function, Any] = {}
        self._modules: dict[str, types.ModuleType] = {}
        self._stubs: dict[str, Any] = {}

    def function(self, function: Function) -> Any:
        """Return the device function of `function`, which `scalar_source.rewritten` gave."""
        function = getattr(function, "py_func", function)
        if function not in self._functions:
            assert isinstance(function, types.FunctionType)
            _refuse_exceptions(function)
            scope: dict[str, Any] = {}
            cells = tuple(types.CellType(self._value(cell.cell_contents)) for cell in function.__closure__ or ())
            copy = types.FunctionType(function.__code__, scope, function.__name__, function.__defaults__, cells)
            self._functions[function] = self.decorate(copy)
            used = function.__globals__.keys() & names_in(function.__code__)
            scope.update({name: self._value(function.__globals__[name]) for name in used})
        return self._functions[function]

    def _value(self, value: Any) -> Any:
        """Return what stands for `value`, which a user's function reads."""
        if isinstance(value, types.ModuleType):
            if value.__name__ in ("math", "numpy"):
                return self._module(value)
            if is_users(value.__name__):  # what `scalar_source` has put in its place
                return scalar_source.module_of(value.__name__, ((n, self._value(v)) for n, v in _content(value)))
            return value
        if hasattr(value, "py_func"):
            return self.function(value)
        if scalar_source._OURS in getattr(value, "__dict__", {}):
            return self._elementary(value.__name__)
        if getattr(value, "__module__", None) == "math":
            value = _OF_MATH.get(value.__name__, value)
        if isinstance(value, np.ufunc) and ops.find(value.__name__) is not None:
            return self._elementary(value.__name__)
        return value

    def _module(self, module: types.ModuleType) -> types.ModuleType:
        """Return a stand-in for `math` or NumPy."""
        if module.__name__ not in self._modules:
            ours = self._modules[module.__name__] = types.ModuleType(module.__name__)
            for name, value in _content(module):
                setattr(ours, name, value if isinstance(value, types.ModuleType) else self._value(value))
        return self._modules[module.__name__]

    def _elementary(self, name: str) -> Any:
        """Return our function of NumPy's name `name`, for all types that it takes."""
        op = ops.find(name)
        assert op is not None
        if op.name not in self._stubs:
            self._stubs[op.name] = self._stub(op)
        return self._stubs[op.name]

    def _stub(self, op: ops.Op) -> Any:
        from numba.cuda.extending import overload

        def chosen(*kinds: Any) -> tuple[Any, ...]:
            """The scalar function for arguments of these types, the types it takes, the type of the result."""
            inputs, output = _loop(op, kinds)
            return self.names[op.scalar(inputs)], *(_scalar_type(dtype) for dtype in (*inputs, output))

        def one(x: Any) -> Any:
            raise NotImplementedError

        def two(x: Any, y: Any) -> Any:
            raise NotImplementedError

        # numba wants the same signature, annotations included, as that of the lambdas
        def choose_one(x):  # type: ignore[no-untyped-def]
            f, a, result = chosen(x)
            return lambda x: result(f(a(x)))

        def choose_two(x, y):  # type: ignore[no-untyped-def]
            f, a, b, result = chosen(x, y)
            return lambda x, y: result(f(a(x), b(y)))

        stub, choose = (one, choose_one) if op.nin == 1 else (two, choose_two)
        stub.__name__ = stub.__qualname__ = op.name
        overload(stub, inline="never")(choose)
        return stub


def _content(module: types.ModuleType) -> list[tuple[str, Any]]:
    return [(name, value) for name, value in vars(module).items() if not name.startswith("_")]


def _refuse_exceptions(function: types.FunctionType) -> None:
    """Raise where the function could: a kernel on a GPU has no way to say so."""
    place = f"{function.__name__} ({function.__code__.co_filename}:{function.__code__.co_firstlineno})"
    if any(instruction.opname == "RAISE_VARARGS" for instruction in dis.get_instructions(function)):
        raise FusionError(f"{place} raises or asserts, which a GPU cannot report; return a value that tells, as NaN")
    captured = [cell.cell_contents for cell in function.__closure__ or ()]
    captured += [value for name, value in function.__globals__.items() if name in names_in(function.__code__)]
    for module in captured:
        if isinstance(module, types.ModuleType) and is_users(module.__name__):
            captured += [value for _, value in _content(module)]
    if any(isinstance(value, np.ndarray) for value in captured):
        raise FusionError(_LOOK_UP.format(place))


def _loop(op: ops.Op, kinds: tuple[Any, ...]) -> tuple[tuple[np.dtype[Any], ...], np.dtype[Any]]:
    """Return the dtypes of the arguments and the result, as numba and `scalar_source` choose them on the CPU."""
    from numba.np.numpy_support import as_dtype

    dtypes = tuple(as_dtype(kind) for kind in kinds)
    if op.ulp:
        single = all(dtype == np.float32 for dtype in dtypes)
        chosen = np.dtype(np.float32 if single else np.float64)
        return (chosen,) * op.nin, chosen
    inputs, output = op.resolve(dtypes)
    return tuple(map(_computed, inputs)), _computed(output)


def _computed(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return float32 for float16, which numba does not have."""
    return np.dtype(np.float32) if dtype == np.float16 else dtype


def _scalar_type(dtype: np.dtype[Any]) -> Any:
    return np.bool_ if dtype.kind == "b" else dtype.type
