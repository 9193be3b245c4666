"""Fused functions on Dask arrays: what is computed block by block."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
from chunk_checks import assert_same, cut, normal, tasks

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
    "padded": lambda x: np.pad(x, 1, mode="edge"),
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


def test_several_results_share_their_task():
    def two(x):
        return np.sin(x), np.cos(x)

    assert tasks(*gp.fuse(two)(x)) == {"two-several": 4, "two": 8}


def test_tasks_bear_the_users_names():
    @gp.vectorize
    def leaky(a):
        return a if a > 0 else a * np.float32(0.1)

    def centred(x):
        return x - x.mean(0)

    assert set(tasks(leaky(x))) == {"leaky"}
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
    with pytest.raises(gp.FusionError, match="out= with Dask arrays"):
        gp.fuse(lambda x: x * 2)(x, out=np.empty((40, 12), np.float32))


def test_a_chunk_of_another_shape_than_its_array_says():
    wrong = x.map_blocks(lambda block: block[:5], dtype=x.dtype, chunks=x.chunks)
    with pytest.raises(gp.ShapeError, match=r"a chunk has shape \(5, 12\), but its Dask array says"):
        gp.fuse(lambda x, y: x + y)(x, wrong).compute(scheduler="sync")


def test_an_index_out_of_range_names_the_line():
    def pick(x, i):
        return x[:, i]

    with pytest.raises(gp.OutOfRangeError, match=r"index 12 is out of bounds .*\n.*test_chunked_maps"):
        gp.fuse(pick)(x, cut(np.array([1, 12]), 2)).compute(scheduler="sync")
