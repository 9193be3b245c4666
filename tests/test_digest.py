"""The digest: equal for equal content however it lies in memory, different for anything else."""

from __future__ import annotations

import hashlib
import struct
import tracemalloc
from typing import Any

import numpy as np
import pytest

from gpucompute.errors import DTypeError
from gpucompute.hashing import PART, digest

RNG = np.random.default_rng(7)


def test_anyone_can_compute_it() -> None:
    a, b = np.arange(6, dtype=">i2").reshape(2, 3), np.float64(1.5)
    expected = hashlib.sha256(b"<i2(2, 3)" + struct.pack("<6h", *range(6)) + b"<f8()" + struct.pack("<d", 1.5))
    assert digest(a, b) == expected.hexdigest()
    assert digest() == hashlib.sha256().hexdigest()


@pytest.mark.parametrize(
    "dtype", ["bool", "uint8", "int32", "float16", "float32", "float64", "complex64", "M8[ns]", "U3", "V5"]
)
@pytest.mark.parametrize("shape", [(), (0,), (7,), (5, 0, 2), (3, 4, 5), (2, PART + 3)])
def test_the_place_in_memory_does_not_count(dtype: str, shape: tuple[int, ...]) -> None:
    size = np.dtype(dtype).itemsize * int(np.prod(shape))
    a = np.frombuffer(RNG.integers(0, 2, size, np.uint8).tobytes(), dtype).reshape(shape)
    wide = np.empty([2 * n + 1 for n in shape], dtype)
    inside = wide[(..., *(slice(0, 2 * n, 2) for n in shape))]
    back = (..., *(slice(None, None, -1) for _ in shape))
    backwards = a[back].copy()[back]
    unaligned = np.zeros(size + 1, np.uint8)[1:].view(dtype).reshape(shape)
    inside[...] = unaligned[...] = a
    readonly = a.copy()
    readonly.flags.writeable = False
    same = [a.copy("F"), inside, backwards, unaligned, readonly, a.astype(a.dtype.newbyteorder(">"))]
    assert {digest(each) for each in same} == {digest(a)}


def test_what_counts() -> None:
    a = np.arange(6, dtype=np.int32)
    different = [
        a, a.reshape(2, 3), a.reshape(3, 2), a.astype("u4"), a.astype("i8"), a[::-1], a[:5], a.astype("f4"),
        a.view("u1"),
        np.array(0.0), np.array(-0.0), np.array([0.0]), np.zeros((0, 3)), np.zeros((3, 0)), np.zeros(0),
    ]  # fmt: skip
    assert len({digest(each) for each in different}) == len(different)
    assert digest(a, a) != digest(a) and digest(a[:3], a[3:]) != digest(a) != digest(a[:2], a[2:])
    assert digest(a, a + 1) != digest(a + 1, a)


@pytest.mark.parametrize(
    ("dtype", "bits"), [("f2", "u2"), ("f4", "u4"), ("f8", "u8"), (">f4", ">u4"), ("c8", "u4"), ("c16", "u8")]
)
def test_all_nans_are_one(dtype: str, bits: str) -> None:
    a = np.zeros(1000, dtype)
    b = a.copy()
    a[[3, 999]] = np.nan
    b[[3, 999]] = np.nan
    raw = b.view(bits)
    nan = np.isnan(b.view(b.real.dtype))
    assert nan.sum() == 2
    sign = 1 << (8 * raw.itemsize - 1)
    raw[nan] |= np.array([sign | 1, 5], raw.dtype)  # signs and payloads
    before = raw.copy()
    assert a.tobytes() != b.tobytes()
    assert digest(a) == digest(b)
    assert (raw == before).all()  # the caller's array is left alone
    b[0] = np.nan
    assert digest(a) != digest(b)
    assert digest(np.array([np.inf], dtype)) != digest(np.array([np.nan], dtype))


def test_structured_arrays_go_field_by_field() -> None:
    packed, padded = np.dtype([("a", "u1"), ("b", "f8")]), np.dtype([("a", "u1"), ("b", "f8")], align=True)
    raw = np.full(3 * padded.itemsize, 255, np.uint8).view(padded)
    other = np.zeros(3, padded)
    raw[:] = other[:] = [(1, 2.0), (2, np.nan), (3, 4.0)]
    for name in padded.names or ():
        raw[name] = other[name]
    assert digest(raw) == digest(other) == digest(other.astype(packed))
    renamed = other.astype(packed)
    renamed.dtype.names = ("a", "c")
    assert digest(renamed) != digest(other)


def test_what_asarray_takes() -> None:
    assert digest([1.0, 2.0]) == digest((1.0, 2.0)) == digest(np.array([1.0, 2.0]))
    assert digest(True) == digest(np.bool_(True))
    assert digest(np.ma.array([1, 2])) == digest(np.array([1, 2]))
    torch = pytest.importorskip("torch")
    assert digest(torch.arange(6).reshape(2, 3).T) == digest(np.arange(6).reshape(2, 3).T)


def test_gpu_arrays_are_fetched() -> None:
    class OnGpu:
        __cuda_array_interface__ = None

        def get(self) -> Any:
            return np.arange(3)

    assert digest(OnGpu()) == digest(np.arange(3))


@pytest.mark.parametrize("wrong", [np.array([object()]), [{}, None], np.zeros(2, "g"), np.zeros(2, [("a", object)])])
def test_undefined_bytes_are_refused(wrong: Any) -> None:
    with pytest.raises(DTypeError, match=r"got an array of dtype .*; expected numbers.*astype"):
        digest(wrong)


@pytest.mark.parametrize("view", ["a.T", "a[:, ::2]", "a.astype('>f8')", "a[::-1]"])
def test_big_arrays_are_not_copied_as_a_whole(view: str) -> None:
    a = np.zeros((1000, 4000))
    a[5, 7] = np.nan
    array = eval(view)
    tracemalloc.start()
    try:
        digest(array)
        assert tracemalloc.get_traced_memory()[1] < 4 * PART * 8 < a.nbytes / 4
    finally:
        tracemalloc.stop()
