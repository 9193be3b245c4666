"""Machine code that needs no linker: the parts of an object file laid out as one block of memory.

A process that finds its kernels on disk then starts them without LLVM: the block is copied to memory, the addresses
in it are moved to where it lies, and it is made executable. Only what kernels consist of is understood: the
relocatable ELF files that LLVM writes for x86-64 Linux, with code and constants, and calls of the C library (a loop
of zeros becomes memset). For everything else `flatten` returns None, and LLVM's own loader is asked.

Source: System V Application Binary Interface, AMD64 Architecture Processor Supplement, chapter 4.
"""

from __future__ import annotations

import ctypes
import mmap
import platform
import struct
import sys
from typing import Any, NamedTuple

_X86_64 = 62  # e_machine
_TABLE, _RELOCATIONS, _NO_BITS = 2, 4, 8  # sh_type: SYMTAB, RELA, NOBITS
_WRITE, _ALLOCATE = 1, 2  # sh_flags
_UNDEFINED, _RESERVED = 0, 0xFF00  # st_shndx
_ABSOLUTE = 1  # R_X86_64_64
_RELATIVE = {2: "<i", 4: "<i", 24: "<q"}  # R_X86_64_PC32, R_X86_64_PLT32, R_X86_64_PC64
_HEAD = struct.Struct("<QQQ")  # where the function starts, how many words hold addresses, bytes of outside names
_REPORTS = ("Py", "numba_gil_")  # what Python provides is called to report errors, which kernels do not raise


class _Section(NamedTuple):
    name: int
    kind: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    align: int
    entry: int


def flatten(code: bytes, symbol: str) -> bytes | None:
    """Lay out an object file.

    Parameters
    ----------
    code : bytes
        A relocatable object file.
    symbol : str
        The function that `load` shall return.

    Returns
    -------
    bytes or None
        What `load` takes; None if the file has something that is not understood here.
    """
    if code[:6] != b"\x7fELF\x02\x01" or struct.unpack_from("<H", code, 18)[0] != _X86_64:
        return None
    start, count = struct.unpack_from("<Q", code, 40)[0], struct.unpack_from("<H", code, 60)[0]
    sections = [_Section(*struct.unpack_from("<IIQQQQIIQQ", code, start + 64 * i)) for i in range(count)]
    names = sections[struct.unpack_from("<H", code, 62)[0]]
    block, places = bytearray(), {}
    for index, section in enumerate(sections):
        if not section.flags & _ALLOCATE or not section.size or _text(code, names, section.name) == ".eh_frame":
            continue
        if section.flags & _WRITE or section.kind == _NO_BITS:
            return None  # variables: the block is not writable
        block += bytes(-len(block) % max(section.align, 1))
        places[index] = len(block)
        block += code[section.offset : section.offset + section.size]
    table = next(s for s in sections if s.kind == _TABLE)
    symbols = [struct.unpack_from("<IBBHQQ", code, table.offset + 24 * i) for i in range(table.size // 24)]
    strings = sections[table.link]
    words, outside = [], []
    for section in sections:
        if section.kind != _RELOCATIONS or section.info not in places:
            continue
        for at in range(section.offset, section.offset + section.size, 24):
            offset, what, addend = struct.unpack_from("<QQq", code, at)
            offset += places[section.info]
            name, _, _, home, value, _ = symbols[what >> 32]
            kind = what & 0xFFFFFFFF
            if home in places:
                target = places[home] + value + addend
                if kind == _ABSOLUTE:
                    struct.pack_into("<q", block, offset, target)
                    words.append(offset)
                elif kind in _RELATIVE:
                    struct.pack_into(_RELATIVE[kind], block, offset, target - offset)
                else:
                    return None
            elif home != _UNDEFINED or kind != _ABSOLUTE:
                return None
            elif not (called := _text(code, strings, name)).startswith(_REPORTS):
                if not hasattr(_libraries(), called):
                    return None
                outside.append(f"{offset} {called}")
    for name, _, _, home, value, _ in symbols:
        if home in places and _text(code, strings, name) == symbol:
            names_outside = "\n".join(outside).encode()
            head = _HEAD.pack(places[home] + value, len(words), len(names_outside))
            return head + struct.pack(f"<{len(words)}Q", *words) + names_outside + block
    return None


def _libraries() -> ctypes.CDLL:
    """What the process has loaded, the C library among it."""
    return ctypes.CDLL(None, use_errno=True)


def _text(code: bytes, table: _Section, offset: int) -> str:
    begin = table.offset + offset
    return code[begin : code.index(b"\0", begin)].decode()


def supported() -> bool:
    """Whether this machine can run what `flatten` returns."""
    return sys.platform == "linux" and platform.machine() == "x86_64"


def load(flat: bytes) -> tuple[int, Any]:
    """Put `flat` into executable memory.

    Returns
    -------
    address : int
        Of the function.
    keep : object
        What owns the memory.

    Raises
    ------
    OSError
        If the system gives no executable memory, or a function of the C library is missing.
    """
    start, count, named = _HEAD.unpack_from(flat)
    words = struct.unpack_from(f"<{count}Q", flat, _HEAD.size)
    names = _HEAD.size + 8 * count
    block = bytearray(flat[names + named :])
    memory = mmap.mmap(-1, len(block))
    base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libraries = _libraries()
    for word in words:
        struct.pack_into("<Q", block, word, struct.unpack_from("<Q", block, word)[0] + base)
    for line in flat[names : names + named].decode().splitlines():
        word, name = line.split()
        if not hasattr(libraries, name):
            raise OSError(f"the C library has no {name}")
        struct.pack_into("<Q", block, int(word), ctypes.cast(getattr(libraries, name), ctypes.c_void_p).value)
    memory[:] = bytes(block)
    protect = libraries.mprotect
    protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    if protect(base, len(block), mmap.PROT_READ | mmap.PROT_EXEC):
        raise OSError(ctypes.get_errno(), "mprotect: memory cannot be made executable")
    return base + start, memory
