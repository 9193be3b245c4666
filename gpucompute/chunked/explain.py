"""What a fused call with Dask arrays runs: its stages, why there are that many, their tasks, bytes and sources."""

from __future__ import annotations

import functools
import html
from collections import Counter
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
from dask.task_spec import Task
from dask.utils import key_split

from ..fusion import explain as whole
from ..fusion import ir
from ..fusion.run import Fused
from ..fusion.trace import trace
from ..fusion.tree import TILE
from . import blocks, layers
from .call import given, prepared, results
from .joins import parts_of
from .kernel import Kernel
from .localise import concrete
from .lower import Lowering, Read, Spec
from .stages import Planner, fields_of
from .tasks import Family, MapTask, PartialTask


class ChunkStage(NamedTuple):
    """The tasks of one kind: those that a stage runs for its chunks, or those that join states or take results apart.

    name : what a task does, in the user's words; reason : why it is a stage of its own; key : under what name Dask
    shows its tasks; tasks : how many there are; bytes_read, bytes_written : by all of them together, in chunks, states
    and results, each once for each task (a tree of tasks that joins states: what goes in and what comes out);
    largest_read, largest_written : by one task with the largest chunk;
    source : the Python text of its kernel for that chunk, "" if there is none.
    """

    name: str
    reason: str
    key: str
    tasks: int
    bytes_read: int
    bytes_written: int
    largest_read: int
    largest_written: int
    source: str


@dataclass(frozen=True)
class ChunkedExplanation:
    """The stages of a fused call with Dask arrays.

    Attributes
    ----------
    function : str
        The name of the user's function.
    stages : list of ChunkStage
        In an order in which they can run.
    others : dict of str to int
        The tasks of Dask's own that the call adds between its stages (slices, other chunks), by their names.
    """

    function: str
    stages: list[ChunkStage]
    others: dict[str, int]

    @property
    def tasks(self) -> int:
        """How many tasks the call adds, before Dask's own optimisation."""
        return sum(stage.tasks for stage in self.stages) + sum(self.others.values())

    @property
    def nbytes(self) -> int:
        """Bytes that the tasks of all stages together read and write."""
        return sum(stage.bytes_read + stage.bytes_written for stage in self.stages)

    def __str__(self) -> str:
        lines = [_head(self)]
        for number, stage in enumerate(self.stages, 1):
            lines.append(f"{number}. {stage.key}: {_count(stage.tasks)}, {stage.name}")
            lines.append(f"   because {stage.reason}")
            lines.append(f"   {_moved(stage)}")
        for number, stage in enumerate(self.stages, 1):
            if stage.source:
                lines += ["", f"# kernel of stage {number}: {stage.key}", stage.source.rstrip()]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return str(self).split("\n\n")[0]

    def _repr_html_(self) -> str:
        rows = [
            (
                f"{html.escape(stage.key)}<br>{html.escape(stage.name)}<br><small>{html.escape(stage.reason)}</small>",
                str(stage.tasks),
                f"{whole.size(stage.bytes_read)}<br><small>{whole.size(stage.largest_read)} a task</small>",
                f"{whole.size(stage.bytes_written)}<br><small>{whole.size(stage.largest_written)} a task</small>",
                stage.source,
            )
            for stage in self.stages
        ]
        return whole.table(_head(self), ("stage", "tasks", "reads", "writes"), rows)


def _head(of: ChunkedExplanation) -> str:
    stages = f"{len(of.stages)} stage" + ("s" if len(of.stages) != 1 else "")
    text = f"{of.function}: {stages}, {_count(of.tasks)}, {whole.size(of.nbytes)} moved"
    others = ", ".join(f"{number} {name}" for name, number in of.others.items())
    return text + (f"; Dask's own tasks among them: {others}" if others else "")


def _moved(stage: ChunkStage) -> str:
    text = f"reads {whole.size(stage.bytes_read)}, writes {whole.size(stage.bytes_written)}"
    if stage.tasks > 1:
        largest = whole.size(stage.largest_read), whole.size(stage.largest_written)
        text += f"; the largest task {largest[0]} and {largest[1]}"
    return text


def _count(tasks: int) -> str:
    return f"{tasks} task" + ("s" if tasks != 1 else "")


def explain(fused: Fused, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ChunkedExplanation:
    """Return what a call with Dask arrays runs. Nothing is computed and, for CPUs, nothing compiled.

    Examples
    --------
    >>> import gpucompute as gp
    >>> gp.fuse(lambda x: x * 2 + 1).explain(da.ones((512, 4), chunks=(128, 4)))
    <lambda>: 1 stage, 4 tasks, 32.8 kB moved
    1. fused: 4 tasks, elementwise over 128 × 4
       because everything from the inputs to the result is computed chunk by chunk
       reads 16.4 kB, writes 16.4 kB; the largest task 4.1 kB and 4.1 kB
    """
    traced, planner = prepared(fused, args, kwargs, _Recorder)
    assert isinstance(planner, _Recorder)
    inputs = given(traced, args, kwargs)
    known = {name for array in inputs if isinstance(array, da.Array) for name in array.dask.layers}
    arrays = results(traced, planner, inputs)
    others: Counter[str] = Counter()
    for name, layer in {name: layer for array in arrays for name, layer in array.dask.layers.items()}.items():
        if name not in known | planner.seen:
            others.update(key_split(key) for key, task in layer.items() if isinstance(task, Task))
    return ChunkedExplanation(fused.__name__, planner.stages, dict(others))


class _Recorder(Planner):
    """A planner that takes notes.

    Attributes
    ----------
    stages : list of ChunkStage
    seen : set of str
        The layers of these stages.
    """

    def __init__(self, *args: Any) -> None:
        self.stages: list[ChunkStage] = []
        self.seen: set[str] = set()
        self._inside = 0  # of how many arrays that are stored on the way
        self._dtypes: dict[Any, np.dtype[Any]] = {}  # of states, by source and item
        super().__init__(*args)

    def materialise(self, node: ir.Node) -> Any:
        self._inside += 1
        try:
            return super().materialise(node)
        finally:
            self._inside -= 1

    def _check(self, work: Lowering, *rest: Any) -> None:
        self._work = work  # the last thing that is lowered before its layer is made
        super()._check(work, *rest)

    def _map(self, nodes: list[ir.Node]) -> list[Any]:
        made = super()._map(nodes)
        work = self._work
        graph = made[0].dask
        key = made[0].name if len(nodes) == 1 else next(iter(graph.dependencies[made[0].name]))
        task: MapTask = _task(graph.layers[key])
        chunks = made[0].chunks
        read, largest_read = self._read(work, chunks)
        itemsize = sum(node.dtype.itemsize for node in nodes)
        written, largest = prod(map(sum, chunks)) * itemsize, prod(map(max, chunks)) * itemsize
        name, source = self._kernel_of(task.kernel, task, work, chunks, ())
        self._note(key, name, self._why(work), prod(map(len, chunks)), (read, written, largest_read, largest), source)
        if len(nodes) > 1:
            apart = f"takes {len(nodes)} results apart"
            tasks = len(nodes) * prod(map(len, chunks))
            self._note(made[0].name, apart, "results of one shape are made by one task", tasks, (0, 0, 0, 0))
            self.seen.update(array.name for array in made)
        return made

    def _trees(self, reductions: list[ir.Reduce]) -> None:
        super()._trees(reductions)
        work = self._work
        chunks = concrete(self.graph.layout(reductions[0].arg), reductions[0].arg.shape)
        joined: dict[str, tuple[layers.Tuples, list[ir.Reduce]]] = {}
        for node in reductions:
            states, item = self._states[id(node)]
            self._dtypes[states.name, item] = node.dtype
            joined.setdefault(states.name, (states, []))[1].append(node)
        first = next(iter(joined.values()))[0]
        key = next(iter(first.dask.dependencies[first.name]))
        task: PartialTask = _task(first.dask.layers[key])
        sizes = [
            _states(family, nodes, chunks) for family, (_, nodes) in zip(task.families, joined.values(), strict=True)
        ]
        lengths = tuple(map(max, chunks))
        tiles = [family.tiles(lengths[family.axes[0]]) for family in task.families if family.tiled]
        kernel = task.kernels[tuple((whole_tiles > 0, rest > 0) for whole_tiles, rest in tiles)]
        _, source = self._kernel_of(kernel, task, work, chunks, tuple(n for pair in tiles for n in pair))
        name = "; ".join(_over(nodes) for _, nodes in joined.values()) + f" of each chunk of {_shape(lengths)}"
        numbers = " × ".join(str(len(along)) for along in chunks if len(along) > 1)
        reason = f"what is reduced lies in {numbers} chunks, and no result is known before all have been read"
        if _needs_results(work):
            reason += "; it needs the joined results of a stage before"
        read, largest_read = self._read(work, chunks)
        written, largest = sum(total for total, _ in sizes), sum(one for _, one in sizes)
        tasks = prod(map(len, chunks))
        self._note(key, name, _noted(work, reason), tasks, (read, written, largest_read, largest), source)
        for (states, nodes), (total, _) in zip(joined.values(), sizes, strict=True):
            results = sum(node.dtype.itemsize for node in nodes)
            written, largest = prod(map(sum, states.chunks)) * results, prod(map(max, states.chunks)) * results
            number = prod(len(chunks[axis]) for axis in nodes[0].axes)
            at_once = min(number, self._fan_in(fields_of(nodes, chunks)))
            # its share: states are as wide as results
            largest_read = -(-total * largest * at_once // (max(written, 1) * number))
            tasks = len(states.dask.layers[states.name])
            name = f"joins the states of {_over(nodes)}"
            reason = "each task before knows its own chunk only"
            self._note(states.name, name, reason, tasks, (total, written, largest_read, largest))

    def _note(
        self, key: str, name: str, reason: str, tasks: int, moved: tuple[int, int, int, int], source: str = ""
    ) -> None:
        self.seen.add(key)
        self.stages.append(ChunkStage(name, reason, key_split(key), tasks, *moved, source))

    def _why(self, work: Lowering) -> str:
        if self._inside:
            reason = "its values are stored: what follows takes them from several chunks at a time"
        elif _needs_results(work):
            reason = "it needs the joined results of all chunks; from there on it is one task for each chunk"
        else:
            reason = "everything from the inputs to the result is computed chunk by chunk"
        return _noted(work, reason)

    def _dtype(self, read: Read) -> np.dtype[Any]:
        if isinstance(read.source, layers.Tuples):
            return self._dtypes[read.source.name, read.item]
        dtype: np.dtype[Any] = read.source.dtype
        return dtype

    # ---- bytes

    def _read(self, work: Lowering, chunks: layers.Chunks) -> tuple[int, int]:
        """Return the bytes that all tasks of a stage read, and those of the largest."""
        total = largest = 0
        for read in work.reads:
            fixed = prod(n for n in read.spec if isinstance(n, int)) * self._dtype(read).itemsize
            everywhere, most = fixed, fixed
            for axis, along in enumerate(chunks):
                each = [_along(read.spec, axis, n // work.units[axis]) for n in along]
                everywhere *= sum(each)
                most *= max(each)
            total, largest = total + everywhere, largest + most
        return total, largest

    # ---- sources

    def _kernel_of(
        self, kernel: Kernel, task: MapTask | PartialTask, work: Lowering, chunks: layers.Chunks, tiles: tuple[int, ...]
    ) -> tuple[str, str]:
        """Return what the kernel of a stage does with the largest chunk, and its source."""
        lengths = tuple(map(max, chunks))
        units = task.inputs.units
        symbols = tuple(0 if unit is None else n // unit for n, unit in zip(lengths, units, strict=True))
        arrays = []
        for read in work.reads:
            shape = tuple(n if isinstance(n, int) else symbols[n[0]] * n[1] for n in read.spec)
            arrays.append(np.empty_like(_meta(read.source), self._dtype(read), shape=shape))
        fused = Fused(functools.partial(kernel._trace, symbols + tiles), kernel.precision, ())
        fused.__name__ = kernel.name
        traced = trace(fused.function, (*arrays, *task.scalars, *(0 for _ in task.starts), 0), {}, fused.static)
        steps = whole.described(fused, traced, arrays)
        name = ", then ".join(step.name for step in steps) or "nothing to compute"
        return name, "\n\n".join(step.source.rstrip() for step in steps)


def _task(layer: Any) -> Any:
    """Return what the tasks of a layer call."""
    return next(iter(layer.values())).func


def _meta(source: Any) -> Any:
    """Return an array of the kind of a source's blocks."""
    if isinstance(source, da.Array):
        return source._meta
    return source.meta if isinstance(source, layers.Tuples) else np.empty(0)


def _needs_results(work: Lowering) -> bool:
    return any(isinstance(read.source, layers.Tuples) for read in work.reads)


def _noted(work: Lowering, reason: str) -> str:
    return "; ".join([reason, *dict.fromkeys(work.notes)])


def _along(spec: Spec, axis: int, units: int) -> int:
    """Return how many elements of an input lie along the axes that are cut with `axis`, in a chunk of that length."""
    return prod(n[1] * units for n in spec if not isinstance(n, int) and n[0] == axis)


def _over(nodes: list[ir.Reduce]) -> str:
    names = dict.fromkeys(node.op if isinstance(node.op, str) else node.op.name for node in nodes)
    axes = nodes[0].axes
    over = "all axes" if len(axes) == len(nodes[0].arg.shape) else f"axes {axes}"
    return f"{', '.join(names)} over {over}"


def _shape(lengths: tuple[int, ...]) -> str:
    return " × ".join(map(str, lengths)) or "one element"


def _states(family: Family, nodes: list[ir.Reduce], chunks: layers.Chunks) -> tuple[int, int]:
    """Return the bytes of the states that all tasks hand on for a family of reductions, and the most that one does."""
    build = ir.Builder()
    itemsize = sum(dtype.itemsize for node in nodes for _, _, dtype in parts_of(node, build))
    kept = [along for axis, along in enumerate(chunks) if axis not in family.axes]
    edges = [blocks.starts(chunks[axis]) for axis in family.axes]
    numbers = [_nodes(family, begin[0], length[0]) for begin, length in _places(edges)]
    return sum(numbers) * prod(map(sum, kept)) * itemsize, max(numbers) * prod(map(max, kept)) * itemsize


def _places(edges: list[list[int]]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Return where each block begins along some axes, and how long it is."""
    found = []
    for index in product(*(range(len(along) - 1) for along in edges)):
        begin = tuple(along[i] for i, along in zip(index, edges, strict=True))
        length = tuple(along[i + 1] - along[i] for i, along in zip(index, edges, strict=True))
        found.append((begin, length))
    return found


def _nodes(family: Family, begin: int, length: int) -> int:
    """Return how many nodes of the tree a block hands on (`partial.fold_tiles`)."""
    if not family.tiled:
        return 1
    assert family.row is not None
    tiles, rest = family.tiles(length)
    first = begin * family.row // TILE
    count = int(rest > 0)
    while tiles:
        count += first % 2 + (tiles - first % 2) % 2
        tiles = (tiles - first % 2) // 2
        first = (first + 1) // 2
    return count
