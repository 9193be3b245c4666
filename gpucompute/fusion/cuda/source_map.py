"""Print the kernel of a stage of stores only: each thread takes points of the index space, a grid's step apart.

Where operands lie so, a thread takes some neighbours along the innermost axis at once and moves them as vectors of up
to 16 bytes: single bytes and halves would leave a third of a GPU's bandwidth unused.
"""

from __future__ import annotations

from collections.abc import Collection
from math import prod

import numpy as np

from ..emit import Access, memory_type, writing
from ..plan import Load, Stage
from .intrinsics import VECTOR_BYTES
from .source import THREADS, CudaKernel, CudaOperands, blocks_for, cost

OPERATIONS = 400  # on the elements of a vector: longer kernels wait for arithmetic, not for memory


class MapSource(CudaOperands):
    """The skeleton of maps.

    Parameters
    ----------
    stage : Stage
    aligned : collection of int
        The inputs that start at a multiple of 16 bytes, by number; what a run allocates does.
    """

    def __init__(self, stage: Stage, aligned: Collection[int] = ()) -> None:
        super().__init__(stage)
        self.aligned = aligned
        self.kept_strides = [strides or [0] for strides in self.kept_strides]
        self.extents = self.kept or [1]

    def print(self) -> CudaKernel:
        """Return the kernel."""
        w, index = self.w, self.index
        length = self.extents[-1]
        lanes = self._lanes()
        whole = prod(self.extents[:-1]) * (length // lanes)
        w.add(
            f"thread = {index}(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)",
            f"step = {index}(cuda.gridDim.x * cuda.blockDim.x)",
            "i = thread",
            f"total = {self.number(whole)}",
        )
        with w.block("while i < total:"):
            self._points(lanes, [*self.extents[:-1], length // lanes])
            w.add(f"i = {index}(i + step)")
        if length % lanes:  # the last few, of one axis only
            w.add(f"i = {index}(total * {lanes} + thread)", f"total = {self.number(length)}")
            with w.block("while i < total:"):
                self._points(1, self.extents)
                w.add(f"i = {index}(i + step)")
        return self.kernel(blocks_for(whole, THREADS))

    def _points(self, lanes: int, extents: list[int]) -> None:
        """Print the reading, computing and writing of `lanes` neighbours at the position i."""
        w = self.w
        names = self.decode("i", extents, "i")
        between = [strides[-1] for strides in self.kept_strides]
        before = self.kept_strides
        self.kept_strides = [[*strides[:-1], strides[-1] * lanes] for strides in before]
        slots = self.open(names, len(extents))
        self.kept_strides = before
        vectors = {position for position in range(len(self.layouts)) if self._is_vector(position, lanes)}
        accesses: dict[int, Access] = {}
        for position, leaf in enumerate(self.leaves):
            accesses[id(leaf)] = self.access(position, slots[position], between[position] if lanes > 1 else 0)
        self.point({k: a for k, a in accesses.items() if not self._loaded_whole(a, slots, vectors)}, self._exprs(), "a")
        for position in sorted(vectors & set(range(len(self.leaves)))):
            kind, slot = memory_type(self.leaves[position].dtype), slots[position]
            w.add(f"t{slot} = load{lanes}_{kind}(a{slot})")
            accesses[id(self.leaves[position])].name = f"t{slot}"
        emitter = self.emitter(accesses)
        for position, store in enumerate(self.stage.stores, len(self.leaves)):
            dtype, slot = store.buffer.dtype, slots[position]
            kind = memory_type(dtype)
            values = [f"{kind}({writing(emitter.value(store.expr, u), dtype)})" for u in range(lanes)]
            if position in vectors:
                emitter.before.append(f"store{lanes}_{kind}(a{slot}, ({', '.join(values)}))")
                continue
            target = self.access(position, slot, between[position] if lanes > 1 else 0)
            emitter.before.append(f"{target.name} = ptr_{kind}(a{slot})")
            emitter.before += [f"{target.name}[{target.index('', u)}] = {value}" for u, value in enumerate(values)]
        w.add(*emitter.before)

    def _loaded_whole(self, access: Access, slots: list[int], vectors: set[int]) -> bool:
        return any(slots[position] == access.slot for position in vectors)

    def _lanes(self) -> int:
        """Return how many neighbours a thread takes."""
        length = self.extents[-1]
        work = sum(cost(store.expr) + 2 for store in self.stage.stores)
        positions = range(len(self.layouts))
        lanes = VECTOR_BYTES
        while lanes > 1:
            fits = length % lanes == 0 or (len(self.extents) == 1 and length > lanes)
            sizes = [self.itemsize(p) for p in positions if self._is_contiguous(p)]
            light = max(sizes, default=1) * lanes <= VECTOR_BYTES and lanes * work <= OPERATIONS
            if fits and light and any(self._is_vector(p, lanes) for p in positions):
                return lanes
            lanes //= 2
        return 1

    def _is_contiguous(self, position: int) -> bool:
        """Whether an operand is read or written at neighbouring addresses along the innermost axis."""
        what = self.layouts[position][0]
        plain = position >= len(self.leaves) or isinstance(what, Load)
        return plain and self.kept_strides[position][-1] == self.itemsize(position)

    def _is_vector(self, position: int, lanes: int) -> bool:
        """Whether an operand may be moved as vectors of `lanes` elements: neighbours, at aligned addresses."""
        if lanes == 1 or not self._is_contiguous(position):
            return False
        what, layout = self.layouts[position]
        size = lanes * self.itemsize(position)
        starts = what.buffer.index is None or what.buffer.index in self.aligned
        places = [layout.offset, *self.kept_strides[position][:-1]]
        return bool(starts and not np.any(np.array(places) % size))
