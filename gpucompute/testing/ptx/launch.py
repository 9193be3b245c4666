"""run_ptx: a kernel of a PTX text on NumPy arrays."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...errors import DTypeError, OptionError, PtxError, ShapeError
from .assembler import Program, assemble
from .machine import Lanes, Machine, Shape
from .memory import LOCAL_WINDOW, PARAMETER_WINDOW, POISON, SHARED_WINDOW, Memory, Region, host_regions
from .parser import parse
from .syntax import Function, Module, Name
from .types import Array

BATCH_THREADS = 1 << 15  # threads that run together: much fewer pay for each NumPy call, many more leave the caches
BATCH_BYTES = 1 << 27  # and what they may have of shared and local memory
MAX_BLOCK = 1024  # threads, on all GPUs

Dim = int | Sequence[int]


def run_ptx(
    ptx: str,
    name: str,
    grid: Dim,
    block: Dim,
    args: Sequence[Any],
    *,
    shared_mem: int = 0,
    memory: Sequence[Array] = (),
) -> None:
    """Execute a kernel from PTX text on the CPU, in NumPy, with CUDA's semantics.

    What arithmetic gives is what a GPU gives, to the bit, but for the forms that PTX itself calls approximate; see
    the module `floating`. Blocks run in batches in their order; blocks of one batch at the same time, so a kernel in
    which blocks wait for each other finishes only if they fit into one batch (2**15 threads).

    Parameters
    ----------
    ptx : str
        From nvcc, NVRTC, numba.cuda or by hand. The texts used last stay parsed.
    name : str
        The kernel: as the PTX calls it, or any part of it that tells it from the others, such as the C++ or Python
        function's name without what mangling adds.
    grid, block : int or sequence of 1 to 3 int
        As CUDA counts: x first.
    args : sequence
        One for each parameter: a C-contiguous ndarray for a pointer (the kernel writes into it), a NumPy scalar of
        the parameter's size for anything else. An int64 or uint64 scalar may be an address inside an array that
        `memory` has.
    shared_mem : int
        Dynamic shared memory of each block, in bytes.
    memory : sequence of ndarray
        Further arrays that the kernel may reach.

    Raises
    ------
    PtxError
        If the text cannot be read, a thread reaches an instruction that is not known, an access is out of bounds or
        misaligned (with the PTX line, the thread and the address), or threads wait for each other for ever.
    ShapeError, DTypeError, OptionError
        If arguments do not fit.

    Examples
    --------
    >>> twice = '''
    ... .version 8.0
    ... .target sm_75
    ... .address_size 64
    ... .visible .entry twice(.param .u64 x)
    ... {
    ...     .reg .b32 %r<3>;
    ...     .reg .b64 %rd<4>;
    ...     ld.param.u64 %rd1, [x];
    ...     mov.u32 %r1, %tid.x;
    ...     mul.wide.u32 %rd2, %r1, 4;
    ...     add.u64 %rd3, %rd1, %rd2;
    ...     ld.global.u32 %r2, [%rd3];
    ...     add.u32 %r2, %r2, %r2;
    ...     st.global.u32 [%rd3], %r2;
    ...     ret;
    ... }'''
    >>> x = np.arange(4, dtype=np.int32)
    >>> run_ptx(twice, "twice", 1, 4, [x])
    >>> x
    array([0, 2, 4, 6], dtype=int32)
    """
    module = parse(ptx)
    program = assemble(module, _entry(module, name).name)
    shape = Shape(_extent("grid", grid), _extent("block", block), int(shared_mem))
    if shape.threads > MAX_BLOCK:
        raise ShapeError(f"block={block!r}: got {shape.threads} threads, expected at most {MAX_BLOCK}")
    if shared_mem < 0:
        raise OptionError(f"shared_mem={shared_mem!r}: expected a number of bytes, 0 or more")
    parameters, pointed = _arguments(program, args)
    arrays = [*pointed, *((f"memory[{k}]", _checked(f"memory[{k}]", array)) for k, array in enumerate(memory))]
    _execute(program, shape, parameters, host_regions(arrays))


def instructions(ptx: str, name: str | None = None) -> Counter[str]:
    """Count the instructions of a PTX text.

    Parameters
    ----------
    ptx : str
    name : str, optional
        A kernel, as for `run_ptx`: count those of this kernel and its device functions only.

    Returns
    -------
    collections.Counter
        By instruction with its modifiers, such as ``"fma.rn.f32"``.

    Raises
    ------
    PtxError
        If a function among them cannot be read. Instructions that `run_ptx` does not know are counted as others.

    Examples
    --------
    >>> text = ".version 8.0 .target sm_75"
    >>> [count for name, count in instructions(text).items() if name.startswith("fma")]
    []
    """
    module = parse(ptx)
    functions = list(module.functions.values())
    if name is not None:
        functions = [_entry(module, name)]
        for function in functions:  # grows by what is called
            names = [
                o.name for i in function.body or () if i.opcode == "call" for o in i.operands if isinstance(o, Name)
            ]
            called = [module.functions[n] for n in dict.fromkeys(names) if n in module.functions]
            functions += [f for f in called if f not in functions]
    for function in functions:
        if function.problem and function.body is None:
            raise PtxError(f"{function.name}: {function.problem}")
    return Counter(i.text for function in functions for i in function.body or ())


def numba_arguments(*args: Any) -> list[Any]:
    """Spread arrays over the parameters that numba.cuda's kernels have for each.

    An array of n dimensions is 5 + 2 n parameters: two pointers that a kernel does not use, the number of elements,
    the bytes of one, the data, and the extents and strides. Scalars stay as they are.

    Examples
    --------
    >>> [int(np.size(a)) for a in numba_arguments(np.zeros((2, 3), np.float32), np.int32(7))]
    [1, 1, 1, 1, 6, 1, 1, 1, 1, 1]
    """
    spread: list[Any] = []
    for arg in args:
        if isinstance(arg, np.ndarray):
            numbers = [0, 0, arg.size, arg.itemsize, *arg.shape, *arg.strides]
            words: list[Any] = [np.uint64(n & (2**64 - 1)) for n in numbers]
            spread += [*words[:4], arg, *words[4:]]
        else:
            spread.append(arg)
    return spread


def _entry(module: Module, name: str) -> Function:
    """Find a kernel by its name or a part of it."""
    entries = [function for function in module.functions.values() if function.is_entry]
    exact = [f for f in entries if f.name == name]
    # Itanium mangling: each name is written behind its length
    mangled = [f for f in entries if re.search(rf"(?<!\d){len(name)}{re.escape(name)}", f.name)]
    for found in (exact, mangled, [f for f in entries if name in f.name]):
        if len(found) == 1:
            return found[0]
        if found:
            break
    names = ", ".join(f.name for f in found or entries) or "none"
    said = "several kernels match" if found else "no kernel has this name"
    raise OptionError(f"name={name!r}: {said}; expected one of: {names}")


def _extent(what: str, value: Dim) -> tuple[int, int, int]:
    values = (value,) if isinstance(value, (int, np.integer)) else tuple(value)
    if not 1 <= len(values) <= 3 or any(int(v) != v or v < 1 for v in values):
        raise ShapeError(f"{what}={value!r}: expected 1 to 3 whole numbers, 1 or more")
    x, y, z = (*(int(v) for v in values), 1, 1)[:3]
    return x, y, z


def _checked(what: str, array: Any) -> Array:
    if not isinstance(array, np.ndarray):
        raise DTypeError(f"{what}: got {type(array).__name__}, expected a NumPy array")
    if not array.flags.c_contiguous:
        raise ShapeError(f"{what}: got strides {array.strides}, expected a C-contiguous array; use ascontiguousarray")
    return array


def _arguments(program: Program, args: Sequence[Any]) -> tuple[Array, list[tuple[str, Array]]]:
    """Return the bytes of the parameters, and the arrays that they point to."""
    if len(args) != len(program.parameters):
        raise ShapeError(f"{program.name}: got {len(args)} arguments, expected {len(program.parameters)}")
    data = np.zeros(program.parameter_bytes, np.uint8)
    pointed = []
    for k, (arg, (parameter, offset)) in enumerate(zip(args, program.parameters, strict=True)):
        what = f"{program.name}: argument {k}"
        if isinstance(arg, np.ndarray) and arg.dtype.names is None:
            pointed.append((f"argument {k}", _checked(what, arg)))
            value = np.uint64(arg.ctypes.data).tobytes()
            got = "an array, which is a pointer of 8 bytes"
        elif isinstance(arg, (np.generic, np.ndarray)):  # a structure may be an array of no dimensions
            value = arg.tobytes()
            got = f"{arg.dtype} of {len(value)} bytes"
        else:
            raise DTypeError(f"{what}: got {type(arg).__name__}, expected a NumPy array or scalar, such as np.int32(3)")
        if len(value) != parameter.nbytes:
            raise DTypeError(f"{what}: got {got}, expected {parameter.nbytes} bytes (.{parameter.type.name})")
        data[offset : offset + len(value)] = np.frombuffer(value, np.uint8)
    return data, pointed


def _execute(program: Program, shape: Shape, parameters: Array, regions: list[Region]) -> None:
    """Run the blocks, batch after batch."""
    regions.append(Region("param", "the parameters", PARAMETER_WINDOW, parameters, None, writeable=False))
    for name, start, image, writeable in program.variables:
        data = np.frombuffer(image, np.uint8).copy()
        regions.append(Region("global", name, start, data, None, writeable))
    shared = program.shared_bytes + shape.dynamic_shared
    per_thread = program.frame_bytes + shared // shape.threads + 1
    at_once = max(1, min(BATCH_THREADS, BATCH_BYTES // per_thread) // shape.threads)
    lanes = Lanes(shape, min(at_once, shape.blocks))
    with np.errstate(all="ignore"):
        for first in range(0, shape.blocks, at_once):
            count = min(at_once, shape.blocks - first)
            if count * shape.threads != len(lanes.thread):
                lanes = Lanes(shape, count)
            own = [
                _own("shared", count, shared, lanes.block),
                _own("local", len(lanes.thread), program.frame_bytes, lanes.thread),
            ]
            windows = [region.at(start) for region, start in zip(own, (SHARED_WINDOW, LOCAL_WINDOW), strict=True)]
            reachable = Memory([*regions, *windows])
            reachable.named = {region.space: region for region in own}
            Machine(program, shape, first, count, reachable, lanes, parameters).run()


def _own(space: str, rows: int, nbytes: int, row: Array) -> Region:
    """Memory that each block or thread has for itself."""
    stride = -(-nbytes // 16) * 16
    data = np.full((rows, stride), POISON, np.uint8)
    region = Region(space, f"{space} memory", 0, data, row * stride)
    region.nbytes = nbytes
    return region
