"""Dask on device chunks: what Dask alone gets wrong, and what is mended; all on a stand-in that counts crossings.

A test under "Dask alone" that fails tells that a Dask has come which has mended the thing: the mend here can go.
"""

from __future__ import annotations

import sys
from types import SimpleNamespace

import dask
import dask.array as da
import device_array
import numpy as np
import pytest
from chunk_checks import cut, normal
from dask.array import core, dispatch, reductions, routines
from dask.base import tokenize
from dask.tokenize import normalize_token
from device_array import to_device, to_host, values, wrap
from distributed import protocol

import gpucompute as gp
from gpucompute import memory
from gpucompute.chunked import device_chunks, worker_setup
from gpucompute.chunked.partial import Node
from gpucompute.chunked.sources import to_host as hosted

VERSION = tuple(map(int, dask.__version__.split(".")[:2]))
FUNCTIONS = [(core, "store"), (routines, "histogram"), (reductions, "quantile"), (reductions, "nanmedian")]
data = np.random.default_rng(0).random((12, 10))


old_quantile = pytest.mark.skipif(VERSION < (2026, 7), reason="this Dask calls CuPy's quantile with weights=")


@pytest.fixture(name="alone")
def alone_fixture(monkeypatch):
    """Dask by itself, with the stand-in as CuPy."""
    for module, name in FUNCTIONS:
        function = getattr(module, name)
        function = function.__wrapped__ if hasattr(function, "_gpucompute") else function
        monkeypatch.setattr(module, name, function)
        monkeypatch.setattr(da, name, function)
    with device_array.installed() as cupy, dask.config.set(scheduler="sync"):
        if normalize_token._lazy.get("cupy") is device_chunks._register_token:
            del normalize_token._lazy["cupy"]
        for table in (dispatch.percentile_lookup, dispatch.empty_lookup):  # where fused calls before this test put it
            table._lazy.pop("cupy", None)
        yield cupy


@pytest.fixture(name="mended")
def mended_fixture(alone):
    device_chunks.watch()
    return alone


def chunked(array=data, chunks=(4, 5)):
    return da.from_array(wrap(array), chunks=chunks, name=False)


# ---- Dask alone


def test_alone_a_token_takes_the_array_to_the_host_and_back(alone):
    tokenize(wrap(data))
    assert sum(to_host) == sum(to_device) == 2 * data.nbytes


def test_alone_percentile_fails_as_the_first_function(alone):
    with pytest.raises(TypeError, match=r"Unsupported type .*numpy\.ndarray"):
        da.percentile(chunked()[:, 0], [25, 50])


@pytest.mark.parametrize("write", ["store", "to_zarr"])
def test_alone_chunks_cannot_be_stored(alone, write, tmp_path):
    target = np.zeros_like(data) if write == "store" else tmp_path / "x.zarr"
    with pytest.raises(TypeError, match="Implicit conversion"):
        getattr(chunked(), write)(target)


@old_quantile
def test_alone_results_are_said_to_be_numpys(alone):
    x = chunked()
    for lazy in (da.histogram(x, 5, (0, 1))[0], da.quantile(x, 0.5, axis=0), da.nanmedian(x, axis=0)):
        assert type(lazy._meta) is np.ndarray
        assert type(lazy.compute()) is alone.ndarray
    with pytest.raises(TypeError, match="Unsupported type"):
        da.histogram(x, np.linspace(0, 1, 5), density=True)[0].compute()


def test_alone_divide_needs_no_mending(alone):
    for lazy, want in ((chunked().mean(0), data.mean(0)), (da.divide(chunked(), 2), data / 2)):
        assert type(lazy._meta) is alone.ndarray
        np.testing.assert_allclose(values(lazy.compute()), want)
    assert not to_host
    assert not to_device


def test_this_dask_is_one_that_was_looked_at():
    assert VERSION < device_chunks.UNTIL


# ---- tokens


def test_a_token_crosses_with_16_bytes(mended):
    x = chunked()
    assert tokenize(wrap(data)) == tokenize(wrap(data.copy()))
    assert to_host == [16, 16]
    x = da.from_array(wrap(data), chunks=(4, 5))
    assert to_host == [16] * 3
    assert x.name == da.from_array(wrap(data), chunks=(4, 5)).name
    assert not to_device


def different():
    """Arrays that differ in dtype, shape, order of elements or one bit; all tokens must."""
    base = np.arange(24, dtype=np.int32)
    yield from (base, base[::-1], base.reshape(4, 6), base.reshape(4, 6).T, base.astype("i8"), base.view("u4"))
    yield from (base.view("f4"), base.view("i1"), base.view("i2"), base[:23], base[1:], base[:0], base[:1], base[0])
    yield from (base[:0].astype("f4"), base[:0].reshape(0, 3), np.zeros(3, bool), np.zeros(2, bool), np.zeros(3, "i1"))
    for place in range(24):
        for bit in (0, 31):
            changed = base.copy()
            changed.view(np.uint32)[place] ^= np.uint32(1) << np.uint32(bit)
            yield changed
    swapped = base.copy()
    swapped[[3, 7]] = swapped[[7, 3]]
    yield from (swapped, np.float32([0.0, 1]), np.float32([-0.0, 1]), np.complex64([1j, 0]), np.float16([1, 2, 3]))


def test_other_content_has_another_token(mended):
    tokens = [tokenize(wrap(array)) for array in different()]
    assert len(set(tokens)) == len(tokens)


@pytest.mark.parametrize("dtype", ["?", "i1", "u2", "f2", "i4", "f8", "c16"])
def test_strides_and_places_in_memory_do_not_count(mended, dtype):
    plain = (np.random.default_rng(1).random((7, 9)) * 100).astype(dtype)
    wide = np.zeros((14, 27), dtype)
    wide[::2, ::3] = plain
    memory = np.zeros(plain.nbytes + 9, np.uint8)
    shifted = np.ndarray(plain.shape, dtype, memory, offset=1)
    shifted[...] = plain
    others = [np.asfortranarray(plain), wide[::2, ::3], plain[::-1].copy()[::-1], shifted]
    assert {tokenize(wrap(other)) for other in others} == {tokenize(wrap(plain))}


def test_parts_of_a_large_array_are_told_apart(mended, monkeypatch):
    monkeypatch.setattr(device_chunks, "PART", 2**4)
    large = np.arange(200, dtype=np.int32)
    moved = np.concatenate([large[16:32], large[:16], large[32:]])
    once = device_chunks.token(wrap(large))
    assert once != device_chunks.token(wrap(moved))
    monkeypatch.undo()
    assert once == device_chunks.token(wrap(large))


def slow_hash(array):
    """The hash in whole numbers of Python, from its definition."""
    size = 2**64
    content = array.tobytes() + bytes(-array.nbytes % 4)
    sums = [0, 0]
    for place in range(len(content) // 4):
        x = place << 32 | int.from_bytes(content[4 * place : 4 * place + 4], "little")
        for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
            x = (x ^ x >> 33) * factor % size
        x ^= x >> 33
        sums[0] += x
        x = x * 0x9E3779B97F4A7C15 % size
        sums[1] += x ^ x >> 29
    return b"".join((total % size).to_bytes(8, "little") for total in sums).hex()


def test_the_hash_is_what_it_is_said_to_be(mended):
    for array in (np.arange(5.0), np.arange(7, dtype="u1"), np.array(3), np.ones((3, 5), "f2")):
        assert device_chunks.token(wrap(array))[-1] == slow_hash(array)
    assert slow_hash(np.arange(5.0)) == "a1eb9274d3a7371391aac36f8f26f29f"


def test_bits_of_hashes_are_evenly_set(mended):
    hashes = [int(device_chunks.token(wrap(np.int64([n, 0, 0])))[-1], 16) for n in range(512)]
    for bit in range(128):
        assert 170 < sum(h >> bit & 1 for h in hashes) < 342  # 256, give or take seven and a half sigma


# ---- storing


@pytest.mark.parametrize("write", ["method", "store", "stores", "to_zarr", "gp"])
def test_each_chunk_crosses_once_when_it_is_stored(mended, write, tmp_path):
    zarr = pytest.importorskip("zarr")
    x = chunked()
    target = np.zeros_like(data)
    if write == "method":
        x.store(target)
    elif write == "store":
        da.store(x, target)
    elif write == "stores":
        da.store([x, da.from_array(data, (4, 5))], [target, second := np.zeros_like(data)])
        np.testing.assert_array_equal(second, data)
    else:
        (x.to_zarr if write == "to_zarr" else lambda path: gp.chunked.to_zarr(x, path))(tmp_path / "x.zarr")
        target = zarr.open(tmp_path / "x.zarr", mode="r")[:]
    np.testing.assert_array_equal(target, data)
    assert to_host == [160] * 6
    assert not to_device


def test_a_target_on_the_device_gets_chunks_as_they_are(mended):
    target = wrap(np.zeros_like(data))
    chunked().store(target)
    np.testing.assert_array_equal(values(target), data)
    assert to_host == [16]  # the target's token


def test_zarr_gets_chunks_as_they_are_where_its_buffers_are_on_the_device(mended):
    zarr = pytest.importorskip("zarr")
    target = zarr.create_array({}, shape=data.shape, chunks=(4, 5), dtype=data.dtype)
    layers = [chunked().store(target, compute=False).dask.layers]
    with zarr.config.set({"ndbuffer": "zarr.buffer.gpu.NDBuffer"}):
        layers.append(chunked().store(target, compute=False).dask.layers)
    assert [any("to-host" in name for name in names) for names in layers] == [True, False]


def test_what_was_stored_and_is_loaded_again_is_numpys(mended):
    back = chunked().store(np.zeros_like(data), return_stored=True)
    assert type(back._meta) is np.ndarray
    np.testing.assert_array_equal(back.compute(), data)


def test_chunks_of_numpy_are_stored_by_dask_itself(mended):
    x = da.from_array(data, (4, 5))
    graphs = [store(x, np.zeros_like(data), compute=False) for store in (da.store, da.store.__wrapped__)]
    layers = [{name.rsplit("-", 1)[0] for name in graph.dask.layers} for graph in graphs]
    assert layers[0] == layers[1]


# ---- functions


def test_percentile_is_the_first_function_of_a_process(mended):
    got = da.percentile(chunked()[:, 0].rechunk(12), [25, 50])
    np.testing.assert_allclose(values(got.compute()), np.percentile(data[:, 0], [25, 50]))


def test_percentile_runs_in_a_worker_that_has_seen_no_chunk(mended):
    lazy = da.percentile(chunked()[:, 0].rechunk(12), [25, 50])
    with device_array.installed():
        device_chunks.watch()
        np.testing.assert_allclose(values(lazy.compute()), np.percentile(data[:, 0], [25, 50]))


EDGES = np.linspace(0, 1, 5)
RESULTS = {
    "histogram": lambda x: da.histogram(x, bins=5, range=(0, 1))[0],
    "histogram with edges": lambda x: da.histogram(x, EDGES)[0],
    "histogram with weights": lambda x: da.histogram(x, EDGES, weights=x)[0],
    "density": lambda x: da.histogram(x, EDGES, density=True)[0],
    "density with bins": lambda x: da.histogram(x, 5, (0, 1), density=True)[0],
    "density with lazy edges": lambda x: da.histogram(x, da.from_array(EDGES, 5), density=True)[0],
    "quantile": lambda x: da.quantile(x, 0.5, axis=0),
    "quantiles": lambda x: da.quantile(x, [0.25, 0.5], axis=1, keepdims=True),
    "nanmedian": lambda x: da.nanmedian(x, axis=0),
    "joined": lambda x: da.concatenate([x, da.quantile(x, 0.5, axis=0, keepdims=True)]),
    "subtracted": lambda x: x - da.quantile(x, 0.5, axis=0),
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=old_quantile) if n in ("quantile", "quantiles", "joined", "subtracted") else n
        for n in RESULTS
    ],
)
def test_results_are_said_to_be_of_the_device_and_stay_there(mended, name):
    lazy = RESULTS[name](chunked())
    want = RESULTS[name](da.from_array(data, (4, 5)))
    assert type(lazy._meta) is mended.ndarray
    assert (lazy.shape, lazy.dtype, lazy.chunks) == (want.shape, want.dtype, want.chunks)
    np.testing.assert_allclose(values(lazy.compute()), want.compute())
    assert all(nbytes <= 64 for nbytes in to_host + to_device)  # tokens, edges and quantiles
    assert type(hosted(lazy).compute()) is np.ndarray


@pytest.mark.parametrize("name", RESULTS)
def test_numpys_results_are_dasks_own(mended, name):
    x = da.from_array(data, (4, 5))
    assert type(RESULTS[name](x)._meta) is np.ndarray
    counts, edges = da.histogram(x, 5, (0, 1), density=True)
    wanted, borders = da.histogram.__wrapped__(x, 5, (0, 1), density=True)
    assert counts.name == wanted.name
    np.testing.assert_array_equal(edges, borders)


def test_wrappers_are_put_on_once_and_keep_their_names(mended):
    before = [getattr(module, name) for module, name in FUNCTIONS]
    device_chunks.watch()
    assert before == [getattr(module, name) for module, name in FUNCTIONS]
    for (_, name), function in zip(FUNCTIONS, before, strict=True):
        assert getattr(da, name) is function
        assert function.__name__ == name
        assert not hasattr(function.__wrapped__, "_gpucompute")


def test_a_dask_of_later_is_left_alone(alone, monkeypatch):
    monkeypatch.setattr(dask, "__version__", "2027.1.0")
    device_chunks.watch()
    assert not hasattr(core.store, "_gpucompute")


def test_without_cupy_nothing_is_wrapped(alone):
    with pytest.MonkeyPatch.context() as patch:  # its own: that of `alone` would bring the stand-in back at the end
        patch.delitem(sys.modules, "cupy")
        device_chunks.watch()
    assert not any(hasattr(getattr(module, name), "_gpucompute") for module, name in FUNCTIONS)


@pytest.mark.parametrize(
    "use",
    [
        lambda: gp.fuse(lambda x: x + 1)(da.ones(4, chunks=2)),
        lambda: gp.chunked.from_array(np.ones(4)),
        lambda: gp.chunked.install().__exit__(None, None, None),
    ],
    ids=["fuse", "from_array", "install"],
)
def test_who_uses_us_with_dask_has_it_mended(alone, use):
    use()
    tokenize(wrap(data))
    assert to_host == [16]


# ---- what goes between workers


def frames_of(value):
    """Return what a worker sends for a value: the pickle and headers go by themselves."""
    header, frames = protocol.serialize(value)
    return header, [np.frombuffer(frame, np.uint8) for frame in frames]


def shared(frames, array):
    return sum(np.shares_memory(frame, array) for frame in frames)


def test_results_are_sent_and_taken_without_a_copy():
    one, two = (memory.empty((512, 64), np.float32) for _ in range(2))
    assert one.base is not None, "from the pool"
    for value in (one, [one], (one, two), {"a": one, "b": [two]}):
        header, frames = frames_of(value)
        assert shared(frames, one) == 1
        assert sum(frame.nbytes for frame in frames) < sum(a.nbytes for a in (one, two)) + 1000
        back = protocol.deserialize(header, frames)
        first = next(iter(back.values())) if isinstance(back, dict) else back[0]
        assert shared(frames, first) == 1


def test_memory_on_its_way_is_not_given_to_others():
    def place(array):
        return array.ctypes.data

    one = memory.empty((512, 64), np.float32)
    one[:] = 1
    there = place(one)
    header, frames = frames_of([one])
    del one
    assert place(memory.empty((512, 64), np.float32)) != there
    assert (protocol.deserialize(header, frames)[0] == 1).all()
    del frames
    assert place(memory.empty((512, 64), np.float32)) == there


def test_states_of_reductions_are_sent_without_a_copy():
    states = tuple(memory.empty((8192,), np.float32) for _ in range(2))
    _, frames = frames_of([[Node(0, 1, 256, (states,))]])
    assert [shared(frames, field) for field in states] == [1, 1]


@pytest.fixture(name="on_workers")
def on_workers_fixture(mended, monkeypatch):
    """A process of a cluster of GPUs; the stand-in is sent as UCX sends CuPy's arrays."""
    for table in (
        protocol.cuda_serialize,
        protocol.cuda_deserialize,
        protocol.dask_serialize,
        protocol.dask_deserialize,
    ):
        monkeypatch.setattr(table, "_lookup", dict(table._lookup))
    protocol.cuda_serialize.register(mended.ndarray, lambda x: ({}, [x]))
    protocol.cuda_deserialize.register(mended.ndarray, lambda header, frames: frames[0])
    protocol.dask_serialize.register(mended.ndarray, lambda x: ({}, [memoryview(x.get())]))
    device_chunks.register_states()


def test_states_go_from_device_to_device_where_there_is_a_way(on_workers):
    states = ((wrap(data), wrap(data + 1)), (wrap(data[0]),))
    nodes = [[Node(3, 2, 512, states)], []]
    header, frames = protocol.serialize(nodes, serializers=("cuda", "dask", "pickle"))
    assert [frame for frame in frames if isinstance(frame, type(states[0][0]))] == [
        states[0][0],
        states[0][1],
        states[1][0],
    ]
    ((back,), nothing) = protocol.deserialize(header, frames)
    assert nothing == []
    assert (back.first, back.size, back.count) == (3, 2, 512)
    assert back.states[0][1] is states[0][1]
    assert type(back) is Node
    assert not to_host
    protocol.serialize(nodes, serializers=("dask", "pickle"))
    assert to_host == [960, 960, 80]


def test_states_of_numpys_arrays_are_sent_from_such_workers_without_a_copy(on_workers):
    states = tuple(memory.empty((8192,), np.float32) for _ in range(2))
    for field in states:
        field[:] = 1
    header, frames = frames_of([[Node(0, 1, 256, (states,))]])
    assert [shared(frames, field) for field in states] == [1, 1]
    ((back,),) = protocol.deserialize(header, frames)
    np.testing.assert_array_equal(back.states[0][1], states[1])


def test_arrays_that_travel_with_tasks_are_sent_without_a_copy():
    row = normal(1, 4096)
    lazy = gp.fuse(lambda x, row: x + row)(cut(normal(64, 4096), 32, 4096), row)
    task = next(iter(lazy.dask.layers[lazy.name].values()))
    header, frames = frames_of(task)
    assert header["serializer"] == "pickle"
    assert shared(frames, row) == 1
    assert frames[0].nbytes < 1500


def test_distributed_knows_cupys_arrays_by_itself():
    for table in (protocol.cuda_serialize, protocol.cuda_deserialize, protocol.dask_serialize):
        assert {"cupy", "rmm", "numba"} <= table._lazy.keys() | {t.__module__.partition(".")[0] for t in table._lookup}


@pytest.mark.parametrize("gpus", [0, 1])
def test_workers_with_a_gpu_are_set_up(monkeypatch, gpus):
    called = []
    monkeypatch.setattr(worker_setup.detect, "search", lambda: SimpleNamespace(gpus=[None] * gpus))
    for name in ("watch", "register_states"):
        monkeypatch.setattr(device_chunks, name, lambda name=name: called.append(name))
    monkeypatch.setattr(worker_setup, "set_threads", lambda threads: None)
    monkeypatch.setattr(worker_setup, "PeriodicCallback", lambda *_: SimpleNamespace(start=lambda: None))
    memory_manager, state = SimpleNamespace(memory_limit=None), SimpleNamespace(nthreads=1)
    worker = SimpleNamespace(
        data={}, address="", state=state, memory_manager=memory_manager, log_event=lambda topic, message: None
    )
    worker_setup.Setup(1).setup(worker)
    assert called == ["watch", "register_states"] * gpus


@pytest.mark.gpu
def test_a_gpu_gives_the_same_tokens():
    cupy = pytest.importorskip("cupy")
    if not cupy.is_available():
        pytest.skip("no GPU")
    for array in different():
        got = device_chunks.token(cupy.asarray(array))
        with device_array.installed():
            assert device_chunks.token(wrap(array)) == got
