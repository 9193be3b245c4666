"""Fused functions on Dask arrays: what is computed block by block."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
from chunk_checks import assert_same, cut, normal, tasks
from dask.utils import key_split

import gpucompute as gp

values = normal(40, 12)
x = cut(values, 10, 12)
uneven = cut(values, (7, 7, 20, 6), 5)


def pad_and_smooth(block):
    padded = np.pad(block, ((1, 1), (0, 0)), mode="edge")
    return (padded[2:] + padded[1:-1] + padded[:-2]) / 3


MAPS = {
    "elementwise": lambda x: np.sqrt(abs(x)) * 2 + 1,
    "transposed": lambda x: (x.T * 2).T + x,
    "square with its transpose": lambda x: x[:12] + x[:12].T,
    "reversed along the cut axis": lambda x: np.exp(x)[::-1, ::2],
    "neighbours": lambda x: x[1:] - x[:-1],
    "slices of slices": lambda x: (x + 1)[2:][1::3],
    "a cut slice of a whole one": lambda x: (x[:, 1::2] * 2)[3:, 1:],
    "a slice of a slice of an input": lambda x: x[:, 1::2][3:, 1:],
    "scalar axis": lambda x: x[3] * x[:, 2][:12],
    "new axes": lambda x: x[:, None] * x[None, :3, :],
    "merged axes": lambda x: (x * 2).reshape(-1),
    "split axes": lambda x: (x * 2).reshape(40, 3, 4)[:, :, 1],
    "split cut axis": lambda x: (x * 2).reshape(20, 2, 12),
    "moved between chunks": lambda x: (x * 2).reshape(12, 40) + 1,
    "gathered": lambda x: x[:, np.array([3, 0, -1])],
    "gathered along the cut axis": lambda x: x[np.array([33, 0, -1])],
    "stacked": lambda x: np.stack([x, -x]),
    "joined": lambda x: np.concatenate([x, x * 2, x[:3]]),
    "padded": lambda x: np.pad(x * 2, 1, mode="edge"),
    "padded by reflection": lambda x: np.pad(x, ((3, 2), (0, 1)), mode="reflect") + 1,
    "padded symmetrically": lambda x: np.pad(x + x.T[:1, :1], ((0, 45), (2, 0)), mode="symmetric"),
    "padded with itself": lambda x: np.pad(x, ((90, 1), (0, 0)), mode="wrap"),
    "tiled": lambda x: np.tile(x * 2, (2, 3)) + 1,
    "tiled into more axes": lambda x: np.broadcast_to(x, (3, *x.shape)).reshape(120, 12) * np.tile(x, (3, 2, 1))[1, 0],
    "slices of a centred array": lambda x: (x - x.max(0))[5:, ::-1] + (x * x.min(0))[:-5],
    "a slice of an outer product": lambda x: (x[:, 0, None] * x[:, 1])[3:, ::2],
    "rolled": lambda x: np.roll(x, 3, axis=0),
    "positions": lambda x: np.tril(x) + np.arange(40)[:, None],
    "a triangle": lambda x: np.tril(x),
    "written to": lambda x: _written(x),
    "broadcast": lambda x: np.broadcast_to(x[0], (3, 12)),
    "of a constant": lambda x: np.full_like(x, 2) + 1,
    "many results": lambda x: {"sum": x + 1, "parts": [x * 2, (x.T,)]},
    "as it is": lambda x: x,
}


def _written(x):
    y = x.copy()
    y[3:7, 1:] = 0
    y[y > 1] = 1
    return y


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("array", [x, uneven], ids=["even", "uneven"])
def test_chunks_change_nothing(name, array):
    assert_same(MAPS[name], array)


def test_two_arrays_with_other_chunks_meet():
    assert_same(lambda a, b: a * b, x, uneven)
    assert gp.fuse(lambda a, b: a * b)(x, uneven).chunks == x.chunks[:1] + uneven.chunks[1:]


def test_numpy_arrays_and_scalars_ride_along():
    row, column, table = normal(12), normal(40, 1), normal(40, 12, seed=1)
    assert_same(lambda x, r, c, t, s: (x - r) * c + t * s, x, row, column, table, 2.5)
    large = np.arange(40 * 12 * 64.0).reshape(64, 40, 12)
    assert_same(lambda x, t: x + t, uneven, large)
    assert_same(lambda x, s: x * s, x, np.float32(3))


def test_dtypes_follow_numpy():
    for dtype in ("int8", "uint16", "float16", "float64", "bool", ">f4"):
        assert_same(lambda x: (x + 1, x * 2.5, x > 0, x.sum(1)), cut((values * 9).astype(dtype), 10, 12))


def test_empty_arrays_and_empty_chunks():
    assert_same(lambda x: (x * 2, x.sum(0)), cut(np.zeros((0, 3)), 1, 3))
    holes = x[10:10], x
    assert_same(lambda x: x * 2 + x.max(0), da.concatenate(holes))
    assert_same(lambda x: x + 1, cut(np.array(3.0)))


def test_one_task_for_each_chunk():
    chain = gp.fuse(lambda x, y: np.exp(x[:, None, :3].transpose(0, 2, 1) * 2).reshape(-1) + y)
    assert tasks(chain(x, np.float32(1))) == {"fused": 4}
    assert tasks(gp.fuse(lambda a, b: a / b)(x, x + 1))["fused"] == 4


PROGRAMS = {
    "reversed": lambda m, x, y, z: (x * y)[::-1],
    "cut off": lambda m, x, y, z: (x * y + z)[5:],
    "whole chunks": lambda m, x, y, z: (x * y)[10:] + 1,
    "one chunk": lambda m, x, y, z: (x * y)[10:20],
    "every second": lambda m, x, y, z: m.sqrt(abs(x.T * y.T)[:, ::2]),
    "neighbours": lambda m, x, y, z: m.diff(m.sqrt(abs(x * y + z)), axis=0),
    "neighbours of neighbours": lambda m, x, y, z: m.diff(m.diff(x, axis=0), axis=0),
    "of one input": lambda m, x, y, z: m.exp(x * 2)[3:] + 1,
    "mirrored": lambda m, x, y, z: (x * x[:, ::-1])[3:],
    "outer": lambda m, x, y, z: (x[:, :1] * y[:, 0])[5:],
    "outer neighbours": lambda m, x, y, z: m.diff(x[:, :1] * y[:, 0], axis=0),
    "centred": lambda m, x, y, z: (x - x.max(0))[5:],
    "with a NumPy array": lambda m, x, y, z: (x * values)[5:],
    "with a large NumPy array": lambda m, x, y, z: (x[:, :1] * large)[5:],
    "a triangle": lambda m, x, y, z: m.tril(x)[5:],
    "rolled": lambda m, x, y, z: m.roll(x * y, 3, axis=0) + 1,
    "tiled": lambda m, x, y, z: m.tile(x * 2, 2) + 1,
    "tiled along the cut axis": lambda m, x, y, z: m.tile(x * 2, (2, 1)) + 1,
    "padded": lambda m, x, y, z: m.pad(x, 1, mode="edge"),
    "padded by reflection": lambda m, x, y, z: m.pad(x * y, 3, mode="reflect") + 1,
}
large = normal(40, 500)


@pytest.mark.parametrize("name", PROGRAMS)
def test_no_more_tasks_than_dask(name):
    program, arrays = PROGRAMS[name], [da.from_array(normal(40, 12, seed=i), chunks=(10, 12)) for i in range(3)]
    got, want = gp.fuse(lambda *given: program(np, *given))(*arrays), program(da, *arrays)
    assert tasks(got).total() <= tasks(want).total()
    np.testing.assert_allclose(got.compute(scheduler="sync"), want.compute(scheduler="sync"), rtol=1e-6)


def test_values_that_are_used_twice_are_sliced_once():
    def doubled(x, y):
        for _ in range(40):  # 2**40 paths lead to the inputs
            x = x * x + y
        return x[5:]

    for second, each in ((x, 4), (x + 1, 8)):
        assert tasks(gp.fuse(doubled)(x, second)).total() <= each


def test_padding_keeps_the_chunks():
    padded = gp.fuse(lambda x: np.pad(x, 1, mode="edge"))(x)
    assert padded.chunks == ((1, 10, 10, 10, 10, 1), (14,))
    assert gp.fuse(lambda x: np.pad(x, ((100, 0), (0, 0)), mode="wrap"))(x).numblocks == (2 + 4 + 4 + 4, 1)


def test_other_byte_orders_take_no_tasks():
    swapped = cut(values.astype(">f4"), 10, 12)
    assert tasks(gp.fuse(lambda x: np.exp(x) - x.max(0))(swapped)).total() == 4 + 1 + 4
    for function in (lambda x: x, lambda x: x[5:], lambda x: np.roll(x, 3, 0), lambda x: x.reshape(12, 40)):
        assert_same(function, swapped)
    others = gp.fuse(lambda x, y, t: (x + 1 + t, y[5:]))(swapped.astype(">f8"), x, memoryview(b"abcdefghijkl"))
    assert not tasks(others[1])["native"]


def test_results_that_share_work_share_their_task(tmp_path):
    def shared(x):
        y = np.exp(x)
        return np.sin(y), np.cos(y), x * 2

    def apart(x):
        return np.sin(x), np.cos(x)

    assert tasks(*gp.fuse(shared)(x)) == {"shared-several": 4, "shared": 12}
    assert tasks(*gp.fuse(apart)(x)) == {"apart": 8}  # as many as Dask's
    gp.chunked.to_zarr(x, tmp_path / "x.zarr")
    stored = gp.chunked.from_zarr(tmp_path / "x.zarr", chunks=x.chunks)
    assert tasks(*gp.fuse(apart)(stored)) == {"apart-several": 4, "apart": 8}  # which read it once


def test_tasks_bear_the_users_names():
    @gp.vectorize
    def leaky(a):
        return a if a > 0 else a * np.float32(0.1)

    def centred(x):
        return x - x.mean(0)

    def squared(a):
        return a * a

    assert set(tasks(leaky(x))) == {"leaky"}
    total = gp.reduction(squared, lambda a, b: a + b, 0.0)
    assert set(tasks(total(x, 1))) == {"squared"}
    total.__name__ = "energy"
    assert set(tasks(total(x + 0, 1))) >= {"energy"}
    unnamed = gp.reduction(lambda a: a * a, lambda a, b: a + b, 0.0)
    assert set(tasks(unnamed(x, 1))) == {"reduction"}
    blocks = x.map_blocks(gp.image.Compose([gp.image.Resize(8)]), dtype="f4", chunks=(4, 3, 8, 8))
    assert key_split(blocks.name) == "compose"
    assert tasks(gp.fuse(centred)(x)) == {"centred-partial": 4, "centred-reduced": 1, "centred": 4}
    assert_same(leaky, x)


def test_inside_map_blocks_and_map_overlap():
    fused = gp.fuse(pad_and_smooth)
    for function in (lambda f: x.map_blocks(f), lambda f: x.map_overlap(f, depth=(1, 0), boundary="reflect")):
        np.testing.assert_allclose(
            function(fused).compute(scheduler="sync"), function(pad_and_smooth).compute(scheduler="sync"), rtol=1e-6
        )


def test_static_arguments_and_containers():
    fused = gp.fuse(lambda pair, axis: pair["x"].sum(axis) + pair["y"], static_argnames="axis")
    got = fused({"x": x, "y": np.float32(1)}, axis=1)
    np.testing.assert_array_equal(got.compute(scheduler="sync"), fused({"x": values, "y": np.float32(1)}, axis=1))


def test_scalars_are_checked_before_anything_runs():
    with pytest.raises(OverflowError, match="out of bounds for uint8"):
        gp.fuse(lambda x, s: x + s)(cut(np.zeros(4, np.uint8), 2), 300)


def test_a_new_scalar_is_another_array_with_the_same_kernel():
    scaled = gp.fuse(lambda x, s: x * s)
    one, two, again = scaled(x, 2.0), scaled(x, 3.0), scaled(x, 2.0)
    assert one.name == again.name != two.name
    kernels = [next(iter(a.dask.layers[a.name].values())).func.kernel for a in (one, two)]
    assert kernels[0] is kernels[1]


def test_what_cannot_be_chunked_is_an_error_that_says_so():
    unknown = x[x[:, 0] > 0]
    with pytest.raises(gp.ShapeError, match=r"chunks of unknown size .* compute_chunk_sizes"):
        gp.fuse(lambda x: x * 2)(unknown)
    masked = x.map_blocks(np.ma.masked_greater, 0, meta=np.ma.empty((0, 0), np.float32))
    with pytest.raises(gp.FusionError, match="each chunk of a Dask array is of type MaskedArray"):
        gp.fuse(lambda x: x * 2)(masked)
    with pytest.raises(gp.FusionError, match="out= with Dask arrays"):
        gp.fuse(lambda x: x * 2)(x, out=np.empty((40, 12), np.float32))


def test_a_chunk_of_another_shape_than_its_array_says():
    wrong = x.map_blocks(lambda block: block[:5], dtype=x.dtype, chunks=x.chunks)
    with pytest.raises(gp.ShapeError, match=r"a chunk has shape \(5, 12\), but its Dask array says"):
        gp.fuse(lambda x, y: x + y)(x, wrong).compute(scheduler="sync")


def test_a_chunk_of_another_dtype_than_its_array_says():
    whole = da.arange(8, chunks=4)
    for wrong, text in [
        (whole.map_blocks(lambda block: block / 3, dtype="i8"), "a chunk is of float64, but its Dask array says int64"),
        (whole.map_blocks(lambda block: block.astype("i4"), dtype="f8"), "of int32, but its Dask array says float64"),
    ]:
        for function in (lambda x: x + 1, lambda x: x.sum()):
            with pytest.raises(gp.DTypeError, match=text):
                gp.fuse(function)(wrong).compute(scheduler="sync")
    swapped = whole.map_blocks(lambda block: block.astype(">i8"), dtype="i8")
    assert gp.fuse(lambda x: x + 1)(swapped).compute(scheduler="sync").tolist() == list(range(1, 9))


def test_an_index_out_of_range_names_the_line():
    def pick(x, i):
        return x[:, i]

    with pytest.raises(gp.OutOfRangeError, match=r"index 12 is out of bounds .*\n.*test_chunked_maps"):
        gp.fuse(pick)(x, cut(np.array([1, 12]), 2)).compute(scheduler="sync")
