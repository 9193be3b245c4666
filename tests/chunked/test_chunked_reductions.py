"""Reductions over chunks: values, bits, and how many tasks they take."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
from chunk_checks import assert_near, assert_same, cut, normal, tasks
from hypothesis import given, settings
from hypothesis import strategies as st

import gpucompute as gp
from gpucompute.chunked import budget
from gpucompute.chunked.joins import Join
from gpucompute.chunked.partial import Node, fold_tiles, merge, root
from gpucompute.fusion import tree

values = normal(2048, 6) + 3
aligned = {
    "a power of two of tiles": cut(values, 512, 6),
    "three tiles": cut(values, 768, 4),
    "of different lengths": cut(values, (256, 1280, 512), 6),
    "with a rest": cut(values[:2000], 768, 6),
    "of one row": cut(values.reshape(1, 2048, 6), 1, 256, 6)[0],
}
crooked = cut(values, 300, 4)
table = cut((values * 20).astype(np.int16), 300, 4)


def moments(x):
    return x.mean(0), x.std(0, ddof=1), x.max(0)


def standardise(x):
    return (x - x.mean(0)) / x.std(0)


def softmax(x):
    e = np.exp(x - x.max(0, keepdims=True))
    return e / e.sum(0, keepdims=True)


def nested(x):
    centred = x - x.mean(0)
    return (centred * centred).sum(0) / np.where(x.mean(0) > 3, x, 1).sum(0)


root_mean_square = gp.reduction(
    lambda x: (x * x, 1),
    lambda a, b: (a[0] + b[0], a[1] + b[1]),
    (0.0, 0),
    finalize=lambda s: (s[0] / s[1]) ** 0.5,
)
largest_distance = gp.reduction(lambda x: abs(x), lambda a, b: max(a, b), 0.0)


@pytest.mark.parametrize("name", aligned)
def test_chunks_of_whole_tiles_change_no_bit(name):
    assert_same(moments, aligned[name])


@pytest.mark.parametrize("function", [standardise, softmax, nested])
def test_reductions_inside_a_function(function):
    assert_same(function, aligned["three tiles"])
    assert_near(function, crooked)


def test_reductions_over_all_axes():
    def everything(x):
        return x.mean(keepdims=True), x.std()

    assert_same(everything, cut(values[:512] / 3, 128, 6))  # 128 * 6 elements are three tiles
    assert_near(everything, cut(values[:512] / 3, 128, 4))


@pytest.mark.parametrize("axis", [0, None])
def test_integers_and_selections_are_exact_for_any_chunks(axis):
    def exact(x):
        return x.sum(axis), x.mean(axis), x.var(axis), x.argmax(axis), (x > 3).any(axis)

    assert_same(exact, table)


@pytest.mark.parametrize("axis", [0, 1, None])
def test_positions_of_nan_and_of_equals(axis):
    awkward = np.zeros((600, 3), np.float32)
    awkward[[20, 410], 1] = np.nan
    awkward[[5, 590], 2] = 7
    got = gp.fuse(lambda x: (x.argmax(axis), x.argmin(axis), x.max(axis)))(cut(awkward, 100, 2))
    for lazy, function in zip(got, (np.argmax, np.argmin, np.max), strict=True):
        np.testing.assert_array_equal(lazy.compute(scheduler="sync"), function(awkward, axis))


def test_reductions_along_axes_that_are_whole_are_part_of_the_map():
    assert_same(lambda x: x - x.mean(1, keepdims=True), cut(values, 300, 6))
    assert tasks(gp.fuse(lambda x: x - x.mean(1, keepdims=True))(cut(values, 512, 6))) == {"fused": 4}


def test_batch_normalisation():
    images = cut(normal(8, 3, 16, 16), 2, 3, 16, 16)
    assert_near(lambda x: (x - x.mean((0, 2, 3), keepdims=True)) / x.std((0, 2, 3), keepdims=True), images)


def test_reductions_of_the_users_own():
    assert_same(lambda x: root_mean_square(x, 0), aligned["three tiles"])
    assert_same(lambda x: largest_distance(x, 0), crooked)


def test_all_statistics_of_an_array_take_one_pass():
    def statistics(x):
        return x.mean(), x.var(), x.std(), x.min(), x.max()

    arrays = gp.fuse(statistics)(cut(values, 256, 6))
    assert tasks(*arrays) == {"statistics-partial": 8, "statistics-reduced": 1, "statistics": 5}


def test_reductions_over_different_axes_share_the_pass():
    arrays = gp.fuse(lambda x: (x.max(0), x.max(1)))(cut(values, 512, 3))
    assert tasks(*arrays) == {"fused-partial": 8, "fused-reduced": 2 + 4}


def test_one_task_for_each_chunk_and_stage():
    x = cut(values, 512, 6)
    assert tasks(gp.fuse(standardise)(x)) == {"standardise-partial": 4, "standardise-reduced": 1, "standardise": 4}
    assert tasks(gp.fuse(softmax)(x)) == {"softmax-partial": 8, "softmax-reduced": 2, "softmax": 4}
    assert tasks(gp.fuse(lambda x: x.max(0))(x)) == {"fused-partial": 4, "fused-reduced": 1}


def test_many_chunks_are_joined_in_steps():
    total = gp.fuse(lambda x: x.sum(0))(cut(values, 16, 6))
    assert tasks(total) == {"fused-partial": 128, "fused-combine": 4, "fused-reduced": 1}
    assert_same(lambda x: x.sum(0), cut(normal(40 * 256), 256))


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(0, 255), st.sampled_from(["sum", "prod", "m2"]))
def test_nodes_of_any_chunks_of_tiles_make_the_tree(tiles, rest, op):
    numbers = normal(sum(tiles) * 256 + rest, seed=len(tiles)).astype(np.float64) / 2 + 1
    join = Join(op, np.dtype(np.float64))

    def field(part):
        total = tree.fold(part, np.add)
        return (total / len(part), tree.squares(part)) if op == "m2" else (tree.reduce_rows(op, part),)

    nodes, first = [], 0
    for count in tiles:
        parts = [field(numbers[(first + i) * 256 : (first + i + 1) * 256]) for i in range(count)]
        nodes += fold_tiles((join,), (tuple(map(np.array, zip(*parts, strict=True))),), first)
        first += count
    if rest:
        nodes.append(Node(first, 1, rest, (field(numbers[first * 256 :]),)))
    for place in range(len(nodes)):  # as two tasks of a tree would
        top = root((join,), [*merge((join,), nodes[:place]), *merge((join,), nodes[place:])])
        assert join.finish(top.states[0], top.count) == tree.reduce_rows(op, numbers)


def test_states_that_do_not_fit_are_refused_before_they_are_made(monkeypatch):
    """Of 8 MiB each: a partial task holds 2.5 times what it reads and twice its states, one that joins two at least."""
    x = da.zeros((16, 1 << 20), chunks=(1, 1 << 20))

    def made(function, room):
        monkeypatch.setattr(budget, "limit", lambda like=None: budget.Limit(room << 20, "a worker"))
        return gp.fuse(function)(x)

    made(lambda x: x + 1, 37)
    with pytest.raises(gp.DeviceMemoryError, match=r"16.00 MiB and makes 8.00 MiB \(two states that are joined\)"):
        made(lambda x: x.max(0), 50)
    pairs = made(lambda x: x.max(0), 57)
    assert tasks(pairs)["fused-combine"] == 14  # two at a time, where four do not fit
    with pytest.raises(gp.DeviceMemoryError, match=r"reads 8.00 MiB and makes 32.00 MiB"):
        made(lambda x: (x.std(0), x.argmin(0)), 80)
    assert tasks(made(lambda x: x.max(0), 1000)) == {"fused-partial": 16, "fused-combine": 4, "fused-reduced": 1}


def test_chunks_that_dask_makes_on_the_way_must_fit_too(monkeypatch):
    x = da.zeros((4096, 6144), chunks=(128, 3072))
    monkeypatch.setattr(budget, "limit", lambda like=None: budget.Limit(64 << 20, "a worker"))
    with pytest.raises(gp.DeviceMemoryError, match=r"makes 192.00 MiB"):
        gp.fuse(lambda x: np.reshape(x * 2, (6144, 4096)))(x)
