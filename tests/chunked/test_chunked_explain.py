"""What `explain` tells of calls with Dask arrays: the tasks and bytes of the graph that the call makes."""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from itertools import product

import dask
import dask.array as da
import numpy as np
import pytest
from chunk_checks import cut, flat, normal
from dask.task_spec import Task
from dask.utils import key_split

import gpucompute as gp
from gpucompute.chunked.explain import _nodes
from gpucompute.chunked.joins import Join
from gpucompute.chunked.kernel import Kernel
from gpucompute.chunked.partial import Combine, Node, fold_tiles
from gpucompute.chunked.tasks import Family, MapTask, PartialTask
from gpucompute.fusion.trace import trace
from gpucompute.fusion.tree import TILE

x = cut(normal(1024, 4), 128, 4)
uneven = cut(normal(1000, 6), (300, 300, 400), (4, 2))
of_tiles = cut(normal(1000, 4), (192, 448, 360), 4)  # 3, 7 and 5.6 tiles of 256 elements

norm = gp.reduction(lambda x: abs(x), lambda a, b: a + b, 0.0)
leaky = gp.vectorize(lambda a: a if a > 0 else a * 0.1)


class Store:
    """Something with slices that is no array of NumPy's."""

    shape, dtype, chunks = (1024, 4), np.dtype("f4"), (256, 4)

    def __getitem__(self, key):
        return np.zeros(self.shape, self.dtype)[key]


def standardise(x):
    return (x - x.mean(axis=0)) / x.std(axis=0)


def softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


CALLS = {
    "standardise": (standardise, x),
    "standardise uneven": (standardise, uneven),
    "standardise tiles": (standardise, of_tiles),
    "softmax over whole rows": (softmax, x),
    "softmax over cut rows": (softmax, uneven),
    "several results": (lambda x: {"sin": np.sin(x * x), "all": [np.cos(x * x), x.sum(), x.argmax(axis=0)]}, x),
    "two families": (lambda x: (x.mean(0), x.max(1)), uneven),
    "exact": (lambda x: ((x * 9).astype("i4").var(), x.min()), x),
    "moved between chunks": (lambda x: (x * 2).reshape(4, 1024) + 1, x),
    "neighbours": (lambda x: x[1:] - x[:-1], x),
    "gathered": (lambda x: x[np.array([33, 0, -1])], x),
    "of NumPy's arrays": (lambda x, t: x * t + np.arange(1024)[:, None], x, normal(1024, 4)),
    "a large NumPy array": (lambda x, t: x + t, x, normal(1024, 4).astype("f8").repeat(4, 0)[:1024] + 0),
    "scalars": (lambda x, s: x * s, x, 2.5),
    "of an array that is not there yet": (lambda x: x - x.max(0), da.ones((1024, 4), chunks=128) * 2),
    "of a store": (standardise, gp.chunked.from_array(Store(), chunks=(256, 4))),
    "users' functions": (lambda x: leaky(x) / norm(x, axis=0), x),
    "of the other byte order": (standardise, x.astype(">f4").persist(scheduler="sync")),
    "the other byte order, as it is": (lambda x: (x[100:], x * 2), x.astype(">f4").persist(scheduler="sync")),
    "with empty chunks": (standardise, da.from_array(normal(1024, 4), chunks=((512, 0, 512), 4))),
    "empty": (lambda x: (x * 2, x.sum(0)), x[:0]),
    "padded": (lambda x: np.pad(x, 2, mode="edge") * 2, x),
    "a slice of a product": (lambda x: (x * x.max(0))[5:] + 1, x),
    "nothing": (lambda x: x, x),
}


def tasks_of(lazy, args):
    """Return the keys of the tasks that a call has added to its inputs' graphs."""
    given = {name for array in args if isinstance(array, da.Array) for name in array.dask.layers}
    layers = {name: layer for array in lazy for name, layer in array.dask.layers.items() if name not in given}
    return [key for layer in layers.values() for key, task in layer.items() if isinstance(task, Task)]


@pytest.mark.parametrize("name", CALLS)
def test_it_counts_the_tasks_of_the_graph(name):
    function, *args = CALLS[name]
    fused = gp.fuse(function)
    explanation = fused.explain(*args)
    made = tasks_of(flat(fused(*args)), args)
    told = Counter(explanation.others)
    for stage in explanation.stages:
        told[stage.key] += stage.tasks
    assert told == Counter(key_split(key).replace("-combine", "-reduced") for key in made)
    assert explanation.tasks == len(made)


def nbytes(value):
    """Return the bytes of what a task takes or gives: arrays, or the states of nodes."""
    if isinstance(value, (list, tuple)):
        return sum(map(nbytes, value))
    return nbytes(value.states) if isinstance(value, Node) else np.asarray(value).nbytes


@pytest.fixture(name="moved")
def moved_fixture(monkeypatch):
    """What the tasks of each kind really read and write, a pair for each; kernels give zeros, uncompiled."""
    found = defaultdict(list)

    def zeros(self, arrays, scalars, symbols):
        traced = trace(functools.partial(self._trace, symbols), (*arrays, *scalars, 0), {}, frozenset())
        return tuple(np.zeros(node.shape, node.dtype) for node in traced.outputs)

    monkeypatch.setattr(Kernel, "__call__", zeros)

    def watched(kind, read):
        call = kind.__call__

        def counting(self, *given):
            result = call(self, *given)
            found[kind].append((nbytes(read(self, given)), nbytes(result)))
            return result

        monkeypatch.setattr(kind, "__call__", counting)

    watched(MapTask, lambda self, given: self.inputs.of(given)[0])
    watched(PartialTask, lambda self, given: self.inputs.of(given)[0])
    watched(Combine, lambda self, given: given if self.family is None else [nodes[self.family] for nodes in given])
    return found


@pytest.mark.parametrize("name", CALLS)
def test_bytes_are_those_that_tasks_move(name, moved):
    function, *args = CALLS[name]
    explanation = gp.fuse(function).explain(*args)
    assert not moved, "explain runs nothing"
    dask.compute(*flat(gp.fuse(function)(*args)), scheduler="sync", optimize_graph=False)
    kinds = {"partial": PartialTask, "reduced": Combine}
    told = defaultdict(list)
    for stage in explanation.stages:
        told[kinds.get(stage.key.rpartition("-")[2], MapTask)].append(stage)
    for kind in (MapTask, PartialTask, Combine):
        pairs, stages = moved[kind], told[kind]
        assert sum(read for read, _ in pairs) == sum(stage.bytes_read for stage in stages)
        assert sum(written for _, written in pairs) == sum(stage.bytes_written for stage in stages)
        assert max((read for read, _ in pairs), default=0) == max((s.largest_read for s in stages), default=0)
        assert max((written for _, written in pairs), default=0) == max((s.largest_written for s in stages), default=0)


def test_nodes_are_counted_as_they_are_made():
    join = Join("sum", np.dtype("f4"))
    family = Family((0,), (join,), (1,), (10**6,), (1,), 1, tiled=True)
    for first, tiles in product(range(9), range(20)):
        made = fold_tiles((join,), ((np.zeros(tiles, "f4"),),), first)
        assert _nodes(family, first * TILE, tiles * TILE) == len(made)
        assert _nodes(family, first * TILE, tiles * TILE + 3) == len(made) + 1


def test_text_and_html():
    explanation = gp.fuse(standardise).explain(x)
    short, *sources = str(explanation).split("\n\n")
    assert short == repr(explanation) == SHORT
    assert [source.partition("\n")[0] for source in sources if source.startswith("#")] == [
        "# kernel of stage 1: standardise-partial",
        "# kernel of stage 3: standardise",
    ]
    assert "sqrt_f(" in explanation.stages[2].source
    page = explanation._repr_html_()
    assert page.count("<tr>") == 4
    assert page.count("<summary>source</summary>") == 2
    assert "standardise-reduced<br>joins the states of sum, m2 over axes (0,)" in page


SHORT = """\
standardise: 3 stages, 17 tasks, 50.2 kB moved
1. standardise-partial: 8 tasks, sum, m2 over axes (0,) of each chunk of 128 × 4
   because what is reduced lies in 8 chunks, and no result is known before all have been read
   reads 16.4 kB, writes 384 B; the largest task 2.05 kB and 48 B
2. standardise-reduced: 1 task, joins the states of sum, m2 over axes (0,)
   because each task before knows its own chunk only
   reads 384 B, writes 32 B
3. standardise: 8 tasks, elementwise over 128 × 4
   because it needs the joined results of all chunks; from there on it is one task for each chunk
   reads 16.6 kB, writes 16.4 kB; the largest task 2.08 kB and 2.05 kB"""


def test_many_chunks_are_joined_in_a_tree():
    explanation = gp.fuse(lambda x: x.sum()).explain(cut(normal(50 * 256), 256))
    partial, joined = explanation.stages
    assert (partial.tasks, partial.bytes_written) == (50, 200)
    assert (joined.tasks, joined.bytes_read, joined.bytes_written) == (3, 200, 4)
    assert (joined.largest_read, joined.largest_written) == (32 * 4, 4)


def test_reasons():
    def reasons(name):
        function, *args = CALLS[name]
        return [stage.reason for stage in gp.fuse(function).explain(*args).stages]

    whole = "everything from the inputs to the result is computed chunk by chunk"
    assert reasons("softmax over whole rows") == [whole]
    assert reasons("softmax over cut rows")[2].endswith("it needs the joined results of a stage before")
    assert reasons("moved between chunks")[0].startswith("its values are stored")
    assert reasons("gathered") == [f"{whole}; axis 0 of the array of shape (1024, 4) becomes one chunk"]
    assert "results of one shape are made by one task" in reasons("several results")
    assert reasons("nothing") == []


def test_the_source_is_what_a_task_runs():
    fused = gp.fuse(lambda x: x * 2)
    (stage,) = fused.explain(x).stages
    (alone,) = fused.explain(normal(128, 4)).stages
    assert stage.source == alone.source.rstrip()
    assert stage.name == alone.name == "elementwise over 128 × 4"


def test_traced_arrays_are_still_refused():
    inner = gp.fuse(lambda x: x + 1)
    with pytest.raises(gp.FusionError, match="explain got an array that is being traced"):
        gp.fuse(lambda x: inner.explain(x))(normal(3))
