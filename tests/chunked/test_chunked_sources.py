"""Arrays and stores in chunks that fit, and plans that cannot."""

from __future__ import annotations

import pickle
import shutil

import cloudpickle
import dask
import dask.array as da
import numpy as np
import pytest
from chunk_checks import assert_same, cut, normal, tasks
from dask.delayed import Delayed

import gpucompute as gp
from gpucompute.chunked import budget, targets
from gpucompute.errors import ChunkError

zarr = pytest.importorskip("zarr")
values = normal(4096, 10)


@pytest.fixture
def store(tmp_path):
    array = zarr.create_array(tmp_path / "x.zarr", shape=values.shape, dtype=values.dtype, chunks=(128, 10))
    array[:] = values
    return tmp_path / "x.zarr"


def standardise(x):
    return (x - x.mean(0)) / x.std(0)


def test_each_pass_over_a_store_reads_it_anew(store):
    x = gp.chunked.from_zarr(store, chunks=(1024, 10))
    assert_same(standardise, x)
    names = tasks(gp.fuse(standardise)(x))
    assert names == {"standardise-partial": 4, "standardise-reduced": 1, "standardise": 4}
    kept = tasks(gp.fuse(standardise)(gp.chunked.from_zarr(store, chunks=(1024, 10), reread=False)))
    assert kept.total() == 4 + names.total()
    np.testing.assert_array_equal((x + 1)[5:].sum(1).compute(scheduler="sync"), (values + 1)[5:].sum(1))


def test_a_result_goes_to_zarr_and_comes_back(store, tmp_path):
    x = gp.chunked.from_zarr(store, chunks=(512, 10))
    gp.chunked.to_zarr(gp.fuse(standardise)(x), tmp_path / "y.zarr")
    back = gp.chunked.from_zarr(tmp_path / "y.zarr")
    np.testing.assert_array_equal(back.compute(scheduler="sync"), gp.fuse(standardise)(values))
    uneven = cut(values, (1000, 96, 3000), 10)
    delayed = gp.chunked.to_zarr(uneven, tmp_path / "group.zarr", "a/b", compute=False)
    assert isinstance(delayed, Delayed)
    assert delayed.compute(scheduler="sync") is None
    np.testing.assert_array_equal(zarr.open(tmp_path / "group.zarr", path="a/b", mode="r")[:], values)


@pytest.mark.parametrize(
    ("component", "text"),
    [
        (None, r" is a group; give component= one of its arrays: inner/a, top"),
        ("inner", r", 'inner'\) is a group; give component= one of its arrays: inner/a, top"),
        ("innre/a", r", 'innre/a'\) is not there; give component= one of its arrays: inner/a, top"),
        ("top/a", r", 'top/a'\) is not there; give"),
    ],
)
def test_arrays_of_a_group_are_named(tmp_path, component, text):
    group = zarr.create_group(tmp_path / "g.zarr")
    for name in ("inner/a", "top"):
        group.create_array(name, shape=(3,), dtype="f4")[:] = [1, 2, 3]
    for store in (tmp_path / "g.zarr", group):
        with pytest.raises(gp.OptionError, match=text):
            gp.chunked.from_zarr(store, component)
        np.testing.assert_array_equal(gp.chunked.from_zarr(store, "inner/a").compute(scheduler="sync"), [1, 2, 3])
    np.testing.assert_array_equal(gp.chunked.from_zarr(group["inner"], "a").compute(scheduler="sync"), [1, 2, 3])
    with pytest.raises(gp.OptionError, match=r"'a'\) is not there; .*: there are none"):
        gp.chunked.from_zarr(group["top"], "a")
    with pytest.raises(FileNotFoundError):
        gp.chunked.from_zarr(tmp_path / "nothing.zarr", "a")


def test_a_store_that_was_deleted_is_an_error(store):
    """Zarr gives fill values for chunks that are missing, and for all of them when the whole store is."""
    x = gp.chunked.from_zarr(store)
    shutil.rmtree(store)
    with pytest.raises(ChunkError, match=rf"cannot read elements .*FileNotFoundError: {store} is there no more"):
        x.sum().compute(scheduler="sync")


def test_arrays_that_are_not_dask(tmp_path):
    gp.chunked.to_zarr(values, tmp_path / "x.zarr")
    np.testing.assert_array_equal(zarr.open(tmp_path / "x.zarr", mode="r")[:], values)
    assert gp.chunked.to_host(values) is values

    class DataArray:
        dims, data = ("row", "column"), values

    with pytest.raises(gp.DTypeError, match=r"to_zarr of DataArray: expected an array; give its \.data"):
        gp.chunked.to_zarr(DataArray(), tmp_path / "y.zarr")


@pytest.mark.parametrize("shards", [None, (200, 10)])
def test_to_zarr_into_an_array_that_is_there(tmp_path, shards):
    target = zarr.create_array(tmp_path / "x.zarr", shape=values.shape, dtype="f8", chunks=(100, 5), shards=shards)
    x = cut(values, (1000, 96, 3000), 10)
    edges = np.cumsum(targets.fitted(x, target, ()).chunks[0])[:-1]
    assert edges.size == 1 and edges % (shards or target.chunks)[0] == 0, "two tasks write to one chunk"
    gp.chunked.to_zarr(x, target)
    np.testing.assert_array_equal(target[:], values)
    with pytest.raises(gp.ShapeError, match=r"x.zarr has shape \(4096, 10\), and what is to be written \(4096, 5\)"):
        gp.chunked.to_zarr(x[:, :5], target)
    with pytest.raises(gp.OptionError, match="overwrite and checksum given together with"):
        gp.chunked.to_zarr(x, target, overwrite=True, checksum=True)


@pytest.mark.parametrize("reread", [True, False])
@pytest.mark.parametrize("fused", [True, False])
def test_a_source_is_not_overwritten(store, tmp_path, monkeypatch, reread, fused):
    x = gp.chunked.from_zarr(store, chunks=(512, 10), reread=reread)
    x = gp.fuse(standardise)(x) if fused else x * 2
    monkeypatch.chdir(tmp_path)
    for target, component in [(store, None), ("x.zarr", None), (tmp_path, "x.zarr")]:
        with pytest.raises(gp.OptionError, match=r"is computed from .*x\.zarr, which would be overwritten"):
            gp.chunked.to_zarr(x, target, component, overwrite=True)
    with pytest.raises(gp.OptionError, match="which would be overwritten"):
        gp.chunked.to_zarr(x, zarr.open_array(store))
    np.testing.assert_array_equal(zarr.open(store, mode="r")[:], values)
    other = tmp_path / "y.zarr"
    for _ in range(2):
        gp.chunked.to_zarr(x, other, overwrite=True)
    gp.chunked.to_zarr(da.zeros(3), store, overwrite=True)
    assert zarr.open(store, mode="r").shape == (3,)


def test_a_group_in_which_a_source_lies_is_not_overwritten():
    memory = zarr.storage.MemoryStore()
    gp.chunked.to_zarr(cut(values, 1024, 10), memory, "a/b")
    with pytest.raises(gp.OptionError, match="which would be overwritten"):
        gp.chunked.to_zarr(gp.chunked.from_zarr(memory, "a/b") + 1, memory, "a", overwrite=True)
    gp.chunked.to_zarr(gp.chunked.from_zarr(memory, "a/b") + 1, memory, "a/bc", overwrite=True)
    np.testing.assert_array_equal(gp.chunked.from_zarr(memory, "a/bc").compute(scheduler="sync"), values + 1)


def test_memory_of_this_process_is_not_written_by_others():
    x = da.ones((40, 4), chunks=10)
    memory = zarr.storage.MemoryStore()
    gp.chunked.to_zarr(x, memory)
    assert zarr.open(memory)[:].sum() == 160
    lost = "into the memory of this process: the tasks run in other processes, and what they write would be lost"
    with dask.config.set(scheduler="processes"):
        for store in (memory, {}, zarr.open(memory)):
            with pytest.raises(gp.OptionError, match=lost):
                gp.chunked.to_zarr(x * 2, store)
    delayed = gp.chunked.to_zarr(x * 2, zarr.open(memory), compute=False)
    with pytest.raises(gp.OptionError, match=lost):
        delayed.compute(scheduler="processes")
    assert zarr.open(memory)[:].sum() == 160


def test_a_memory_map_travels_as_its_file(tmp_path):
    mapped = np.memmap(tmp_path / "x.bin", np.float32, "w+", shape=values.shape)
    mapped[:] = values
    mapped.flush()
    x = gp.chunked.from_array(mapped[10:, ::2], chunks=(1024, 5))
    assert_same(lambda x: x * 2 + x.max(0), x)
    parcel = cloudpickle.dumps(gp.fuse(lambda x: x * 2)(x))
    assert len(parcel) < 5000
    np.testing.assert_array_equal(cloudpickle.loads(parcel).compute(scheduler="sync"), values[10:, ::2] * 2)


def test_automatic_chunks_fit_and_end_on_tiles():
    with dask.config.set({"array.chunk-size": "100 kB"}):
        assert budget.automatic((10**6, 10), np.dtype(np.float32)) == (2048, 10)
        assert budget.automatic((10**6, 10), np.dtype(np.float32), (1000, 10)) == (2000, 10)
        assert budget.automatic((10**6, 10), np.dtype(np.float32), (128, 10)) == (2048, 10)
        assert budget.automatic((50, 1000, 1000), np.dtype(np.float32)) == (1, 16, 1000)
        assert budget.automatic((100, 10), np.dtype(np.float32)) == (100, 10)
        assert budget.automatic((), np.dtype(np.float32)) == ()
        assert gp.chunked.from_array(np.zeros((10**5, 10))).chunks[0][0] == 1024


@pytest.mark.parametrize(
    ("nbytes", "room"),
    [(4 << 30, int((4 << 30) * 0.8) - budget.PROCESS), (512 << 20, int((512 << 20) * 0.8) - budget.PROCESS)],
)
def test_the_process_itself_is_taken_off_its_limit(monkeypatch, nbytes, room):
    monkeypatch.setattr(budget, "memory_available", lambda: nbytes)
    monkeypatch.setattr(budget, "cores_available", lambda: 2)
    assert budget.limit() == budget.Limit(room // 2, "each of 2 threads of this machine")
    with dask.config.set(scheduler="sync"):
        assert budget.limit().nbytes == room
    monkeypatch.setattr(budget, "memory_available", lambda: 300 << 20)  # less than a worker that compiles
    assert budget.limit().nbytes == (300 << 20) // budget.LEAST // 2


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
def test_automatic_chunks_pass_the_check(monkeypatch, dtype):
    """A task that reads one of them and makes two results as wide, or of float32, fits; one that makes nine no more."""
    allowed = budget.Limit(100 << 20, "a worker")
    monkeypatch.setattr(budget, "limit", lambda like=None: allowed)
    dtype = np.dtype(dtype)
    chunks = da.core.normalize_chunks(budget.automatic((10**9,), dtype), (10**9,), dtype=dtype)
    made = [(chunks, np.promote_types(dtype, np.float32))]
    budget.check("f", allowed, [(chunks, dtype)], 2 * made, [])
    with pytest.raises(gp.DeviceMemoryError, match=r"a worker has 100.00 MiB for chunks"):
        budget.check("f", allowed, [(chunks, dtype)], 9 * made, [])


def test_a_plan_that_cannot_fit_says_so_before_it_runs(monkeypatch):
    monkeypatch.setattr(budget, "limit", lambda like: budget.Limit(100_000, "each of 2 threads of a worker"))
    x = da.zeros((4096, 10), chunks=(1024, 10))
    message = (
        r"fused: a task reads 320.00 kiB and makes 80 B \(axis 0 of the array of shape \(4096, 10\) becomes one "
        r"chunk\), 800.16 kiB with what is decoded, compressed and waits meanwhile, but each of 2 threads of a worker "
        r"has 97.66 kiB for chunks; use smaller chunks"
    )
    with pytest.raises(gp.DeviceMemoryError, match=message):
        gp.fuse(lambda x: x[np.array([4000])])(x)
    with pytest.raises(gp.DeviceMemoryError, match=r"reads 80.00 kiB and makes 80.00 kiB, 360.00 kiB with"):
        gp.fuse(lambda x: x * 2)(x)
    gp.fuse(lambda x: x * 2)(x.rechunk((256, 10)))


def test_chunks_that_are_on_the_host_stay_there():
    x = cut(values, 1024, 10)
    assert gp.chunked.to_host(x) is x
    with pytest.raises(gp.DeviceError, match="'cuda' is not usable here"):
        gp.chunked.to_device(x)


def damage(path, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("reread", [True, False])
def test_a_chunk_that_cannot_be_read_is_named(store, reread):
    (store / "c/3/0").write_bytes(b"")
    x = gp.chunked.from_zarr(store, chunks=(512, 10), reread=reread)
    text = (
        rf"(?s)file://{store}: cannot read the chunk \(3, 0\) \(file c/3/0\), elements \[384:512, 0:10\] "
        r"\(.+Error: .+\); bring back this chunk from a copy"
    )
    with pytest.raises(ChunkError, match=text) as caught:
        gp.fuse(standardise)(x).compute(scheduler="sync")
    assert isinstance(caught.value, OSError)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert caught.value.__cause__ is not None
    assert (x[512:1024] + 1).sum().compute(scheduler="sync") == pytest.approx((values[512:1024] + 1).sum(), rel=1e-5)


class Elsewhere:
    """A store that has gone: neither its name nor its chunks are known."""

    shape, dtype = (1000, 2), np.dtype(np.float32)

    def __getitem__(self, key):
        raise ConnectionError("the other end hung up")


def test_a_store_that_has_gone_is_named():
    x = gp.chunked.from_array(Elsewhere(), chunks=(500, 2))
    text = (
        r"Elsewhere: cannot read elements \[0:500, 0:2\] \(ConnectionError: the other end hung up\); try again, or "
        "look at the store"
    )
    with pytest.raises(ChunkError, match=text):
        x[:500].compute(scheduler="sync")


def test_checksums_find_what_decoding_does_not(tmp_path):
    """One bit of a number: without a checksum the result is another, and nobody knows."""
    noise = np.random.default_rng(0).integers(0, 256, (512, 1000), np.uint8)  # zstd stores it as it is
    x = da.from_array(noise, chunks=(256, 1000))
    for checksum in (False, True):
        gp.chunked.to_zarr(x, tmp_path / f"{checksum}.zarr", checksum=checksum)
    wrong, found = (gp.chunked.from_zarr(tmp_path / f"{checksum}.zarr") for checksum in (False, True))
    for lazy in (wrong, found):
        np.testing.assert_array_equal(lazy.compute(scheduler="sync"), noise)
    for checksum in (False, True):
        damage(tmp_path / f"{checksum}.zarr" / "c/1/0", 5000)
    assert np.count_nonzero(wrong.compute(scheduler="sync") != noise) == 1
    with pytest.raises(ChunkError, match=r"(?i)True.zarr: cannot read the chunk \(1, 0\).*(crc32c|checksum)"):
        found.compute(scheduler="sync")
