"""The pool: what comes back, when, and above all when not."""

from __future__ import annotations

import copy
import ctypes
import gc
import os
import pickle
import subprocess
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from gpucompute import memory
from gpucompute.errors import OptionError

MIB = 2**20


_at_start = 0


@pytest.fixture(autouse=True)
def _others() -> None:
    """Note what the results of other tests that are still alive hold."""
    global _at_start
    gc.collect()
    _at_start = memory.stats().in_use


def in_use() -> int:
    """Bytes that the arrays of this test hold."""
    return memory.stats().in_use - _at_start


class Holder:
    def __init__(self, array: Any) -> None:
        self.array, self.__array_interface__ = array, array.__array_interface__


def next_of(iterator: Any) -> Any:
    next(iterator)
    return iterator


def out_of_band(array: Any) -> Any:
    buffers: list[pickle.PickleBuffer] = []
    stream = pickle.dumps(array, protocol=5, buffer_callback=buffers.append)
    return pickle.loads(stream, buffers=buffers)


def caught(array: Any) -> BaseException:
    try:
        raise ValueError(array)
    except ValueError as error:
        return error.with_traceback(None)  # whose frame would be a cycle


def reshaped(array: Any) -> Any:
    view = array[:]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Setting the shape", DeprecationWarning)  # of NumPy 2.5
        view.shape = (-1,)
    return view


KEEPERS: dict[str, Callable[[Any], Any]] = {
    "itself": lambda a: a,
    "slice": lambda a: a[1:3],
    "one element's view": lambda a: a[:1, :1],
    "view of views": lambda a: a[1:].T[::2][:, ::-1][None, 3:],
    "transpose": lambda a: a.T,
    "another dtype": lambda a: a.view(np.uint8),
    "subclass": lambda a: a.view(np.recarray),
    "asarray of a subclass": lambda a: np.asarray(a.view(np.recarray)[1:]),
    "memoryview": memoryview,
    "cast memoryview's slice": lambda a: memoryview(a).cast("B")[100:],
    "frombuffer": lambda a: np.frombuffer(memoryview(a.reshape(-1)), np.float32),
    "frombuffer of frombuffer": lambda a: np.frombuffer(np.frombuffer(a.reshape(-1), np.uint8), np.uint32)[5:],
    "strided by hand": lambda a: np.lib.stride_tricks.as_strided(a, (3, 3), (4, 4)),
    "broadcast": lambda a: np.broadcast_to(a, (2, *a.shape)),
    "array interface": lambda a: np.asarray(Holder(a)),
    "from_dlpack": np.from_dlpack,
    "DLPack capsule": lambda a: a.__dlpack__(),
    "base": lambda a: a.base,
    "view of the base": lambda a: a.base[5:],
    "memoryview of the base": lambda a: memoryview(a.base),
    "plain array of the base": lambda a: np.asarray(a.base),
    "ctypes pointer": lambda a: a.ctypes.data_as(ctypes.POINTER(ctypes.c_float)),
    "ctypes array": lambda a: (ctypes.c_char * a.nbytes).from_buffer(a),
    "iterator": lambda a: next_of(iter(a)),
    "flat iterator": lambda a: next_of(a.flat),
    "nditer": np.nditer,
    "generator": lambda a: next_of(row for row in a),
    "pickle buffer": pickle.PickleBuffer,
    "out-of-band pickle": out_of_band,
    "bound method": lambda a: a.sum,
    "closure": lambda a: lambda: a,
    "exception": caught,
    "object array": lambda a: np.array([a, None], object),
    "new shape in place": reshaped,
    "torch.from_numpy": lambda a: pytest.importorskip("torch").from_numpy(a)[1:],
    "torch.from_dlpack": lambda a: pytest.importorskip("torch").from_dlpack(a).T,
    "torch and back": lambda a: pytest.importorskip("torch").from_numpy(a)[2:].numpy(),
    "multiprocessing-like copy of a view": lambda a: (copy.deepcopy(a[1:]), a[1:]),
}


@pytest.fixture(autouse=True)
def fresh_pool() -> Iterator[None]:
    before = memory.stats().limit
    memory.release()
    memory.set_limit(64 * MIB)
    yield
    memory.release()
    memory.set_limit(before)


def address(array: Any) -> int:
    return int(array.__array_interface__["data"][0])


def new(shape: Any = (256, 256), dtype: Any = np.float32) -> Any:
    return memory.empty(shape, dtype)


@pytest.mark.parametrize(
    "dtype",
    [
        "bool",
        "uint8",
        "int16",
        "float16",
        "float32",
        "float64",
        "complex128",
        ">i4",
        "M8[s]",
        "S7",
        [("a", "u1"), ("b", "f8")],
    ],
)
@pytest.mark.parametrize(
    "shape",
    [
        0,
        5,
        100_000,
        np.int64(50_000),
        (),
        (0, 7),
        (3, 5),
        [300, 200],
        (41, 43, 47),
        (2**20,),
        (np.int64(300), np.int64(200)),
        (np.uint8(200), np.uint8(250)),
        np.array([300, 200]),
    ],
)
def test_ordinary_arrays(shape: Any, dtype: Any) -> None:
    for _ in range(2):  # new memory, then reused memory
        array, expected = memory.empty(shape, dtype), np.empty(shape, dtype)
        assert type(array) is np.ndarray
        assert (array.shape, array.dtype, array.strides) == (expected.shape, expected.dtype, expected.strides)
        assert array.flags.c_contiguous and array.flags.writeable and array.flags.aligned
        if array.nbytes >= memory.SMALL:
            assert address(array) % memory.ALIGNMENT == 0
        array[...] = np.zeros((), dtype)
        assert not array.tobytes().strip(b"\0")
        del array


def test_what_numpy_refuses_is_refused_alike() -> None:
    for shape, dtype in [
        ((-1, 100_000), "f4"),
        (-5, "f4"),
        ((2, 2.5), "f4"),
        ("ab", "f4"),
        (5, "no such"),
        ((1,) * 65, "f4"),
    ]:
        with pytest.raises((ValueError, TypeError)) as expected:
            np.empty(shape, dtype)
        with pytest.raises(expected.type):
            memory.empty(shape, dtype)


def test_objects_never_lie_in_the_pool() -> None:
    array = memory.empty(100_000, object)
    assert array.flags.owndata and array[-1] is None


def test_dead_arrays_are_reused() -> None:
    first = new()
    where = address(first)
    del first
    before = memory.stats()
    second = new((128, 512))
    assert address(second) == where
    assert memory.stats().reused == before.reused + 1
    assert memory.stats().allocated == before.allocated


def test_the_newest_idle_block_is_taken_first() -> None:
    arrays = [new() for _ in range(3)]
    places = [address(array) for array in arrays]
    while arrays:
        arrays.pop(0)
    assert address(new()) == places[-1]


@pytest.mark.parametrize("name", KEEPERS)
def test_nothing_is_recycled_while_reachable(name: str) -> None:
    array = new()
    array[...] = 7
    where = range(address(array), address(array) + array.nbytes)
    keeper = KEEPERS[name](array)
    del array
    others = [new() for _ in range(3)]
    for other in others:
        assert address(other) not in where
        other[...] = -1
    del other, others
    for _ in range(3):
        assert address(new()) not in where
    assert keeper is not None


@pytest.mark.parametrize("name", KEEPERS)
def test_everything_is_recycled_afterwards(name: str) -> None:
    array = new()
    where = address(array)
    keeper = KEEPERS[name](array)
    of_base = "base" in name  # who reaches past the array takes its block out of the pool: only safety is promised
    del array, keeper
    assert in_use() == 0
    assert of_base or address(new()) == where


def test_a_view_outlives_the_array_and_brings_the_block_back() -> None:
    array = new()
    where, view = address(array), array[10:].T
    del array
    assert in_use() > 0 and address(new()) != where
    del view
    assert in_use() == 0 and address(new()) == where


def test_values_survive_in_pickles_and_copies() -> None:
    array = new()
    array[...] = 3
    kept = [pickle.loads(pickle.dumps(array)), copy.copy(array), array.astype("f8"), np.array(array)]
    del array
    new()[...] = 9
    assert all((each == 3).all() for each in kept)


def test_weak_references_never_reach_recycled_memory() -> None:
    array = new()
    seen: list[object] = []
    reference = weakref.ref(array, lambda ref: seen.append(ref()))
    del array
    assert reference() is None and seen == [None]


def test_arrays_in_garbage_cycles_come_back_at_collection() -> None:
    class Node:
        pass

    node, where = Node(), 0
    node.me, node.array = node, new()  # type: ignore[attr-defined]
    where = address(node.array)  # type: ignore[attr-defined]
    del node
    assert in_use() > 0
    gc.collect()
    assert in_use() == 0 and address(new()) == where


def test_arrays_revived_by_a_finaliser_are_not_recycled() -> None:
    kept: list[Any] = []

    class Phoenix:
        def __init__(self) -> None:
            self.array, self.me = new(), self
            self.array[...] = 5

        def __del__(self) -> None:
            kept.append(self.array)

    Phoenix()
    gc.collect()
    new()[...] = 1
    assert (kept[0] == 5).all()


def test_a_finaliser_may_use_the_pool() -> None:
    class Uses:
        def __del__(self) -> None:
            new()[...] = 2

    for _ in range(200):
        thing = Uses()
        thing.me, thing.array = thing, new()  # type: ignore[attr-defined]
        del thing
        new()
    gc.collect()
    assert in_use() == 0


@pytest.mark.filterwarnings("ignore:Setting the (shape|dtype):DeprecationWarning")  # of NumPy 2.5
def test_changing_an_array_in_place_is_safe() -> None:
    array = new()
    view = array[1:]
    with pytest.raises(ValueError, match="does not own its data"):
        array.resize((5, 5), refcheck=False)
    array.setflags(write=False)
    array.flags.writeable = True
    array.shape, array.dtype = (-1,), np.uint8
    view[...] = 4
    array.__setstate__((1, (3,), np.dtype("u1"), False, b"abc"))  # what unpickling into it does: other memory
    new()[...] = 8
    assert (view == 4).all()


def test_size_classes_waste_a_quarter_at_most() -> None:
    for nbytes in [memory.SMALL, memory.SMALL + 1, 20_481, 2**17 + 1, 2**20 - 1, 2**20, 2**20 + 2**18 + 1, 3_000_001]:
        array = memory.empty(nbytes, np.uint8)
        assert nbytes <= in_use() <= 1.25 * nbytes
        del array
    array = memory.empty(1_000_000, np.uint8)
    where = address(array)
    del array
    assert address(memory.empty(1_040_000, np.uint8)) == where  # a slightly different size
    assert address(memory.empty(MIB // 2, np.uint8)) != where


def test_small_arrays_stay_out() -> None:
    before = memory.stats()
    small = [memory.empty(memory.SMALL - 1, np.uint8) for _ in range(5)]
    assert memory.stats() == before and small[0].flags.owndata


def test_idle_memory_is_bounded_and_the_oldest_goes_first() -> None:
    memory.set_limit(4 * MIB)
    arrays = [memory.empty(size, np.uint8) for size in (MIB, 2 * MIB, MIB, 2 * MIB)]
    places = [address(array) for array in arrays]
    del arrays[0], arrays[0], arrays[0]  # 4 MiB idle: all kept
    assert memory.stats()[:3] == (2 * MIB, 4 * MIB, 4 * MIB)
    arrays.clear()  # 6 MiB: the first (1 MiB) and the second (2 MiB) go
    assert memory.stats()[:2] == (0, 3 * MIB)
    kept = memory.empty(MIB, np.uint8), memory.empty(2 * MIB, np.uint8)
    assert [address(array) for array in kept] == places[2:]


def test_an_array_beyond_the_limit_leaves_the_others_alone() -> None:
    memory.set_limit(2 * MIB)
    for size in (MIB, 3 * MIB):
        memory.empty(size, np.uint8)
    assert memory.stats().pooled == MIB


def test_many_live_results_are_all_different() -> None:
    arrays = [memory.empty(memory.SMALL, np.uint8) for _ in range(300)]
    assert len({address(array) for array in arrays}) == 300
    arrays.clear()
    assert memory.stats().pooled == 300 * memory.SMALL


def test_limit_zero_and_release() -> None:
    new()
    assert memory.stats().pooled == 2**18
    assert memory.release() == 2**18
    assert memory.stats().pooled == 0
    new()
    memory.set_limit(0)
    assert memory.stats()[:3] == (0, 0, 0)
    new()
    assert memory.stats()[:3] == (0, 0, 0)


@pytest.mark.parametrize("wrong", [-1, 1.5, "1", None])
def test_wrong_limits_say_what_is_expected(wrong: Any) -> None:
    with pytest.raises(OptionError, match=r"set_limit\(.*expected a whole number of bytes, 0 or more"):
        memory.set_limit(wrong)


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_limit_from_the_environment() -> None:
    show = "import gpucompute.memory as m; m.empty(2**20, 'u1'); print(m.stats()[1:3])"
    assert run(show, GPUCOMPUTE_POOL_LIMIT="3000000").stdout == "(1048576, 3000000)\n"
    default = run(show, GPUCOMPUTE_POOL_LIMIT="").stdout
    assert 0 < int(default.split()[1].rstrip(")")) <= 2**30
    wrong = run("import gpucompute.memory as m; m.empty(2**20, 'u1')", GPUCOMPUTE_POOL_LIMIT="1GB")
    assert wrong.returncode == 1 and "Exception ignored" not in wrong.stderr
    assert "GPUCOMPUTE_POOL_LIMIT='1GB': expected a whole number, 0 or more" in wrong.stderr


def test_out_of_memory_releases_the_pool_and_then_says_how_much() -> None:
    living, dead = new(), new()
    del dead
    with pytest.raises(
        MemoryError, match=r"no memory for an array of [\d,]{19,} bytes.*hold 262,144 bytes.*262,144 idle"
    ):
        memory.empty(2**60, np.uint8)
    assert memory.stats().pooled == 0
    assert living is not None


def test_out_of_memory_is_tried_again() -> None:
    pytest.importorskip("resource")
    code = """
import resource, numpy as np, gpucompute.memory as m
m.set_limit(2**30)
m.empty(400 * 2**20, "u1")
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 200 * 2**20,) * 2)
array = m.empty(500 * 2**20, "u1")
print(m.stats().pooled, m.stats().in_use >= array.nbytes)
"""
    if not os.path.exists("/proc/self/statm"):
        pytest.skip("needs Linux's /proc")
    done = run(code)
    assert done.stdout == "0 True\n", done.stderr


def test_threads_never_share_memory() -> None:
    wrong: list[str] = []
    rounds = 12_500  # 100,000 arrays

    def work(me: int) -> None:
        held: list[tuple[Any, int]] = []
        for turn in range(rounds):
            array = memory.empty(16_384 + (turn * me) % 7 * 4096, np.uint8)
            mark = (me * 37 + turn) % 251
            array[::1024] = mark
            held.append((array[turn % 2 * 1024 :: 1024].view(np.int8), mark))
            if len(held) > 5:
                view, expected = held.pop(turn % 5)
                if (view.view(np.uint8) != expected).any():
                    wrong.append(f"{me}: {view} for {expected}")
            del array

    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    before = memory.stats()
    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(switch)
    after = memory.stats()
    assert not wrong
    assert after.in_use == before.in_use and after.pooled <= after.limit
    assert after.reused + after.allocated == before.reused + before.allocated + 8 * rounds


def test_arrays_may_die_in_other_threads() -> None:
    arrays = [new() for _ in range(50)]
    threads = [threading.Thread(target=arrays.pop) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert memory.stats()[:2] == (0, 50 * 2**18)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_fork() -> None:
    code = """
import os, threading, warnings, numpy as np, gpucompute.memory as m
warnings.simplefilter("ignore")
idle, living = m.empty(2**20, "u1"), m.empty(2**20, "u1")
living[...] = 5
view = living[1:]
del idle
stop = False
def churn():
    while not stop:
        m.empty(50_000, "u1")[:] = 1
threads = [threading.Thread(target=churn, daemon=True) for _ in range(3)]
for t in threads: t.start()
for _ in range(20):
    pid = os.fork()
    if not pid:
        code = 1
        try:
            assert m.stats().pooled == 0 and (living == 5).all()
            other = m.empty(2**20, "u1"); other[...] = 6
            del living
            assert (view == 5).all()
            del view, other
            assert m.stats().pooled == 2 * 2**20, m.stats()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    assert (view == 5).all()
stop = True
for t in threads: t.join()
print("fine")
"""
    done = run(code)
    assert (done.stdout, done.stderr) == ("fine\n", "")


def test_interpreter_exit_is_silent() -> None:
    code = """
import atexit, sys, threading, numpy as np, gpucompute.memory as m
class Late:
    def __init__(self): self.array = m.empty(2**20, "u1"); self.me = self
    def __del__(self): self.array[:] = 1; self.view = self.array[3:]
late, more = Late(), m.empty(2**20, "u1")
sys.late, m.late, np.late = Late(), m.empty(2**20, "u1"), m.empty(2**20, "u1")[5:]
atexit.register(lambda: m.empty(2**20, "u1").fill(1))
def forever():
    while True: m.empty(2**20, "u1")
threading.Thread(target=forever, daemon=True).start()
"""
    done = run(code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_pages_are_kept_while_pooled() -> None:
    resource = pytest.importorskip("resource")
    memory.empty(8 * MIB, np.uint8).fill(1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        memory.empty(8 * MIB, np.uint8).fill(1)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 500  # new memory: 20,480
