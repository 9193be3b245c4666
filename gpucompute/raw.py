"""CUDA C++ written by hand: compiled by NVRTC when it is first launched, cached, checked, and run on GPU or CPU."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from .errors import DeviceError, DTypeError, OptionError, ShapeError
from .launch import arrays, cubins, cuda, drivers, signature
from .launch.cuda import Function, Module
from .launch.extents import three

Cpu = Callable[..., Any] | Literal["emulate"] | None


class RawModule:
    """Several kernels in CUDA C++, compiled and loaded together.

    Parameters
    ----------
    code_or_path : str or Path
        CUDA C++, or the path of a file whose name ends in ``.cu``. It may include files beside it, and CUDA's own
        headers, but not the C++ standard library's.
    options : sequence of str
        Options of NVRTC: ``("-DTILE=16", "-Iinclude")``. Arithmetic is not contracted, so that results have the bits
        of the CPU; ``--fmad=true`` or ``--use_fast_math`` allow it.

    Examples
    --------
    >>> import gpucompute as gp
    >>> module = gp.RawModule('extern "C" __global__ void one(float *x) {}  extern "C" __global__ void two(int n) {}')
    >>> module.names
    ['one', 'two']
    >>> module.get_function("one")
    RawKernel one(float *x)
    """

    def __init__(self, code_or_path: str | Path, *, options: Sequence[str] = ()) -> None:
        self._origin = code_or_path
        self._path = _path(code_or_path)
        self.code = str(code_or_path) if self._path is None else _text(self._path)
        self.options = tuple(options)
        self._modules: dict[str, Module] = {}

    @property
    def names(self) -> list[str]:
        """The names of its kernels."""
        return signature.names(self.code)

    def get_function(self, name: str, *, cpu: Cpu = None) -> RawKernel:
        """Return one of its kernels; `cpu` as for `RawKernel`."""
        return RawKernel(self._origin, name, options=self.options, cpu=cpu, _module=self)

    def _compile(self, arch: str, expression: str) -> Any:
        expressions = (expression,) if expression else ()
        return cubins.from_cuda(self._path or self.code, arch, self.options, expressions=expressions)

    def _loadable(self, expression: str) -> Module:
        """Return the module for kernels of C names, or the one of a kernel that needs its C++ name instantiated."""
        if expression not in self._modules:
            self._modules[expression] = cuda.Module(lambda arch: self._compile(arch, expression).code)
        return self._modules[expression]


class RawKernel:
    """A kernel in CUDA C++, called as CuPy's.

    Parameters
    ----------
    code_or_path : str or Path
        As for `RawModule`.
    name : str
        The kernel's name; ``"scale<float>"`` for an instance of a template.
    options : sequence of str
        As for `RawModule`.
    cpu : callable or "emulate", optional
        What runs when the arrays are NumPy's: a function called as ``cpu(*args)``, or the emulator, which runs the
        kernel itself (`gpucompute.testing.emulate`).

    Raises
    ------
    OptionError
        There is no such kernel; the message lists those that there are.

    Notes
    -----
    A call checks each argument against the parameter: the dtype, C order, the alignment that a vector type needs, and
    that all arrays are on one device. It launches on that device, on `stream` or else on CuPy's current stream, and
    does not wait. Numbers are NumPy scalars of the parameter's type, or Python numbers, which take it. A pointer may
    also be given as its address (an ``int``), which is not checked, or as None for a null pointer.

    Examples
    --------
    >>> import numpy as np
    >>> import gpucompute as gp
    >>> source = '''
    ... extern "C" __global__ void axpy(float *y, const float *x, float a, int n) {
    ...     int i = blockIdx.x * blockDim.x + threadIdx.x;
    ...     if (i < n) y[i] += a * x[i];
    ... }'''
    >>> def on_cpu(y, x, a, n):
    ...     y[:n] += a * x[:n]
    >>> axpy = gp.RawKernel(source, "axpy", cpu=on_cpu)
    >>> y, x = np.zeros(5, np.float32), np.arange(5, dtype=np.float32)
    >>> axpy((1,), (32,), (y, x, np.float32(2), np.int32(5)))
    >>> y
    array([0., 2., 4., 6., 8.], dtype=float32)
    >>> axpy(1, 32, (y, x.astype(np.float64), 2.0, 5))
    Traceback (most recent call last):
        ...
    gpucompute.errors.DTypeError: axpy: parameter 2, `const float *x`: got an array of float64, expected float32; convert it with astype('float32')
    """  # noqa: E501 - the error is one line

    def __init__(
        self,
        code_or_path: str | Path,
        name: str,
        *,
        options: Sequence[str] = (),
        cpu: Cpu = None,
        _module: RawModule | None = None,
    ) -> None:
        if cpu is not None and cpu != "emulate" and not callable(cpu):
            raise OptionError(f"RawKernel {name!r}: cpu={cpu!r}: expected a function, 'emulate' or None")
        self._module = RawModule(code_or_path, options=options) if _module is None else _module
        self._signature = signature.read(self._module.code, name, self._module.options)
        self._cpu = cpu
        self._functions: dict[tuple[tuple[str, int], ...], Function] = {}
        self.name = name

    @property
    def code(self) -> str:
        """Its CUDA C++."""
        return self._module.code

    @property
    def options(self) -> tuple[str, ...]:
        """The compiler's options."""
        return self._module.options

    def __repr__(self) -> str:
        return f"RawKernel {self.name}({', '.join(p.text for p in self._signature.parameters)})"

    def __call__(
        self,
        grid: int | Sequence[int],
        block: int | Sequence[int],
        args: Sequence[Any],
        *,
        shared_mem: int = 0,
        stream: Any = None,
    ) -> None:
        """Run the kernel.

        Parameters
        ----------
        grid, block : int or sequence of one to three int
            Blocks, and threads in a block.
        args : sequence
            One for each parameter.
        shared_mem : int
            Bytes of dynamic shared memory.
        stream : stream, optional
            Of CuPy, PyCUDA, PyTorch or numba; by default CuPy's current one.

        Raises
        ------
        DTypeError, ShapeError, DeviceError
            An argument does not fit; the message names the parameter.
        CompileError
            With the compiler's log.
        LaunchError, DeviceMemoryError
            The driver refuses; the message says what to do.
        """
        parameters = self._signature.parameters
        if len(args) != len(parameters):
            raise OptionError(
                f"{self.name} takes {len(parameters)} arguments ({', '.join(p.text for p in parameters)}), "
                f"got {len(args)}"
            )
        whole_grid, whole_block = three(grid, "grid"), three(block, "block", 1)
        words = self._quick_words(args)
        if words is not None:
            function = self._plain_function
        elif self._on_gpu(args):
            words, layout = self._words(args)
            function = self._function(layout)
        else:
            self._run_on_cpu(whole_grid, whole_block, args, shared_mem, stream)
            return
        operands = self._operands(args)
        function.launch(whole_grid, whole_block, words, shared_mem, stream, self._device(args), operands)

    def _quick_words(self, args: Sequence[Any]) -> list[Any] | None:
        """Return the words of a launch if every argument is of its parameter's own type, as is usual; else None."""
        words = []
        for (scalar, dtype, typestr, constant, alignment), value in zip(self._plan, args, strict=True):
            if scalar is None:
                word: Any = arrays.address_if(value, dtype, typestr, constant)
                if not word or word % alignment:
                    return None
            elif type(value) is scalar:
                word = value
            else:
                return None
            words.append(word)
        return words

    @functools.cached_property
    def _plan(self) -> list[tuple[Any, ...]]:
        """What `_quick_words` asks of each parameter; an unknown type, or one that is packed as bytes, fits nothing."""
        plan: list[tuple[Any, ...]] = []
        for p in self._signature.parameters:
            plain = p.dtype is not None and not p.loose
            if p.pointer:
                dtype = p.dtype if plain and p.dtype is not None else np.dtype("V0")
                plan.append((None, dtype, dtype.str, p.constant, p.alignment))
            else:
                number = plain and p.lanes == 1 and p.dtype is not None and len(signature.letter_of(p.dtype)) == 1
                plan.append((p.dtype.type if number and p.dtype is not None else _Nothing, None, "", True, 1))
        return plan

    @functools.cached_property
    def _operands(self) -> Callable[[Sequence[Any]], Any]:
        """What picks the arrays out of the arguments."""
        places = [number for number, parameter in enumerate(self._signature.parameters) if parameter.pointer]
        return operator.itemgetter(*places) if len(places) > 1 else lambda args: [args[place] for place in places]

    @functools.cached_property
    def _plain_function(self) -> Function:
        letters = [
            ("Q", 8) if p.pointer or p.dtype is None else (signature.letter_of(p.dtype), p.alignment)
            for p in self._signature.parameters
        ]
        return self._function(letters)

    def _words(self, args: Sequence[Any]) -> tuple[list[Any], list[tuple[str, int]]]:
        """Return the words of a launch, and the letter and alignment of each; raise where an argument does not fit."""
        words: list[Any] = []
        layout: list[tuple[str, int]] = []
        for number, (parameter, value) in enumerate(zip(self._signature.parameters, args, strict=True)):
            word, letter, alignment = value, "Q", 8
            if not parameter.pointer:
                word, letter, alignment = self._scalar(number, value)
            elif _is_address(value):
                word = value or 0
            else:
                if not arrays.on_gpu(value):
                    raise DeviceError(
                        f"{self._where(number)}: got {_kind(value)}, but other arguments are on a GPU; move it there "
                        "with gpucompute.asarray(x, device='cuda')"
                    )
                seen = arrays.view(value)
                self._check(number, seen.dtype, seen.contiguous, seen.writable, seen.address)
                word = seen.address
            words.append(word)
            layout.append((letter, alignment))
        return words, layout

    def _device(self, args: Sequence[Any]) -> int:
        if drivers.count() == 1:
            return 0  # without asking the arrays, which takes longer than all else
        parameters = self._signature.parameters
        return arrays.device_of(
            {
                parameter.name or f"parameter {number + 1}": value
                for number, (parameter, value) in enumerate(zip(parameters, args, strict=True))
                if parameter.pointer and not _is_address(value)
            }
        )

    def _on_gpu(self, args: Sequence[Any]) -> bool:
        """Whether any array is on a GPU; with addresses only, whether there is one."""
        plain = True
        for parameter, value in zip(self._signature.parameters, args, strict=True):
            if parameter.pointer:
                if arrays.on_gpu(value):
                    return True
                plain = plain and _is_address(value)
        return plain and self._cpu is None and drivers.available() is not None

    def _function(self, layout: list[tuple[str, int]]) -> Function:
        key = tuple(layout)
        function = self._functions.get(key)
        if function is None:
            expression = self.name if self._signature.expression else ""
            module = self._module._loadable(expression)
            symbol = self._symbol(expression) if expression else self.name
            function = cuda.Function(module, symbol, signature.layout(layout), label=self.name)
            self._functions[key] = function
        return function

    def _symbol(self, expression: str) -> str:
        symbols: dict[str, str] = self._module._compile(cuda.architecture(), expression).symbols
        return symbols[expression]

    def _run_on_cpu(
        self, grid: tuple[int, ...], block: tuple[int, ...], args: Sequence[Any], shared_mem: int, stream: Any
    ) -> None:
        if self._cpu is None:
            raise DeviceError(
                f"{self.name}: no argument is on a GPU, and the kernel has no cpu=; move arrays with "
                "gpucompute.asarray(x, device='cuda'), or give RawKernel cpu=function or cpu='emulate'"
            )
        checked = list(args)
        for number, (parameter, value) in enumerate(zip(self._signature.parameters, args, strict=True)):
            if not parameter.pointer:
                checked[number] = self._number(number, value)
            elif value is not None:
                if not isinstance(value, np.ndarray):
                    raise DeviceError(
                        f"{self._where(number)}: got {_kind(value)}, expected a NumPy array or one on a GPU, "
                        "or None for a null pointer"
                    )
                address = value.__array_interface__["data"][0]
                self._check(number, value.dtype, value.flags.c_contiguous, value.flags.writeable, address)
        if self._cpu == "emulate":
            self._emulated(grid, block, checked, shared_mem=shared_mem, stream=stream)
        else:
            self._cpu(*checked)

    @functools.cached_property
    def _emulated(self) -> Callable[..., Any]:
        from .testing import emulate

        source = self._module.code if self._module._path is None else str(self._module._path)
        return emulate(source, self.name, options=self._module.options)

    # ---------------------------------------------------------------- arguments against parameters

    def _where(self, number: int) -> str:
        return f"{self.name}: parameter {number + 1}, `{self._signature.parameters[number].text}`"

    def _check(self, number: int, dtype: np.dtype[Any], contiguous: bool, writable: bool, address: int) -> None:
        parameter = self._signature.parameters[number]
        if not parameter.accepts(dtype):
            raise DTypeError(
                f"{self._where(number)}: got an array of {dtype}, expected {parameter.dtype}; "
                f"convert it with astype({str(parameter.dtype)!r})"
            )
        if not contiguous:
            raise ShapeError(
                f"{self._where(number)}: the array is not in C order, and a kernel sees only an address; "
                "copy it with ascontiguousarray(x)"
            )
        if not writable and not parameter.constant:
            raise OptionError(
                f"{self._where(number)}: the array is read-only; declare the parameter const, or give a copy"
            )
        if address % parameter.alignment:
            raise ShapeError(
                f"{self._where(number)}: the array begins at an address that is no multiple of {parameter.alignment} "
                "bytes, as this type needs; copy it with x.copy()"
            )

    def _number(self, number: int, value: Any) -> Any:
        """Return a scalar argument in its parameter's dtype."""
        parameter = self._signature.parameters[number]
        wanted = parameter.dtype
        if isinstance(value, bool | int | float | complex) and not isinstance(value, np.generic):
            if wanted is None or parameter.lanes > 1:
                raise DTypeError(
                    f"{self._where(number)}: got {value!r} for a type that is not a number; expected a NumPy scalar, "
                    "for a struct one of a dtype made with align=True"
                )
            try:
                if np.can_cast(np.min_scalar_type(value), wanted, "same_kind") and _fits(value, wanted):
                    return wanted.type(value)
            except (TypeError, OverflowError, ValueError):
                pass
            raise DTypeError(f"{self._where(number)}: {value!r} is no value of {wanted}")
        dtype, shape = getattr(value, "dtype", None), getattr(value, "shape", None)
        lanes = parameter.lanes
        fits = dtype is not None and (parameter.accepts(dtype) or dtype.kind == "V")
        if not fits or isinstance(value, np.ndarray | np.generic) is False or shape not in ((), (lanes,)):
            expected = f"a NumPy scalar of {wanted}" if lanes == 1 else f"an array of {lanes} {wanted}"
            raise DTypeError(f"{self._where(number)}: got {_kind(value)}, expected {expected}")
        return value

    def _scalar(self, number: int, value: Any) -> tuple[Any, str, int]:
        """Return a scalar argument as struct packs it, the letter, and the alignment in bytes."""
        checked = self._number(number, value)
        parameter = self._signature.parameters[number]
        letter = signature.letter_of(checked.dtype) if checked.ndim == 0 else f"{checked.nbytes}s"
        alignment = checked.dtype.alignment if parameter.dtype is None else parameter.alignment
        if checked.dtype.kind == "c":
            alignment = checked.itemsize
        return (checked.tobytes() if letter.endswith("s") else checked.item()), letter, alignment


def _is_address(value: Any) -> bool:
    """Whether a pointer is given as its address, or as None for a null pointer."""
    return value is None or isinstance(value, int | np.integer)


class _Nothing:
    """The type of no argument."""


def _fits(value: complex, dtype: np.dtype[Any]) -> bool:
    """Whether a Python number is one of a dtype: in the range of an integer, and no fraction for one."""
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return isinstance(value, int) and int(limits.min) <= value <= int(limits.max)
    return dtype.kind != "b" or isinstance(value, bool)


def _kind(value: Any) -> str:
    """Return what a value is, for errors."""
    if isinstance(value, np.ndarray):
        return f"a NumPy array of {value.dtype} {value.shape}"
    if isinstance(value, np.generic):
        return f"a NumPy scalar of {value.dtype}"
    return f"an object of type {type(value).__module__}.{type(value).__qualname__}"


def _path(code_or_path: str | Path) -> Path | None:
    """Return the path if it is one: a `Path`, or a text without line breaks that ends in ``.cu``."""
    if isinstance(code_or_path, Path):
        return code_or_path
    return Path(code_or_path) if code_or_path.endswith(".cu") and "\n" not in code_or_path else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise OptionError(
            f"no such file: {str(path)!r}; expected CUDA C++ or the path of a .cu file (looked in {Path.cwd()})"
        ) from None
