"""Special registers (PTX ISA, "Special Registers")."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from .types import TYPES, Array, Type

if TYPE_CHECKING:
    from .machine import Machine

U32, U64 = TYPES["u32"], TYPES["u64"]


def _block(machine: Machine) -> Array:
    return machine.block + machine.first


def _lane_mask(mask: Callable[[Array], Array]) -> Callable[[Machine], Array]:
    return lambda machine: mask(np.int64(1) << machine.lane)


def _one(value: Callable[[Machine], int]) -> Callable[[Machine], Array]:
    return lambda machine: np.array([value(machine)], np.int64)


def _triples() -> dict[str, Callable[[Machine], Array]]:
    table: dict[str, Callable[[Machine], Array]] = {}
    for axis, letter in enumerate("xyz"):

        def along(number: Array, extent: tuple[int, int, int], axis: int = axis) -> Array:
            before = int(np.prod(extent[:axis]))
            return number // before % extent[axis]

        table[f"%tid.{letter}"] = lambda m, along=along: along(m.lanes.number, m.shape.block)  # type: ignore[misc]
        table[f"%ctaid.{letter}"] = lambda m, along=along: along(_block(m), m.shape.grid)  # type: ignore[misc]
        table[f"%ntid.{letter}"] = _one(lambda m, axis=axis: m.shape.block[axis])  # type: ignore[misc]
        table[f"%nctaid.{letter}"] = _one(lambda m, axis=axis: m.shape.grid[axis])  # type: ignore[misc]
        # clusters of one block each
        table[f"%clusterid.{letter}"] = table[f"%ctaid.{letter}"]
        table[f"%nclusterid.{letter}"] = table[f"%nctaid.{letter}"]
        table[f"%cluster_ctaid.{letter}"] = _one(lambda m: 0)
        table[f"%cluster_nctaid.{letter}"] = _one(lambda m: 1)
    return table


READERS: dict[str, Callable[[Machine], Array]] = _triples() | {
    "%laneid": lambda m: m.lane,
    "%warpid": lambda m: m.lanes.number >> 5,
    "%nwarpid": _one(lambda m: (m.shape.threads + 31) // 32),
    "%smid": _one(lambda m: 0),
    "%nsmid": _one(lambda m: 1),
    "%gridid": _one(lambda m: 0),
    "%is_explicit_cluster": _one(lambda m: 0),
    "%cluster_ctarank": _one(lambda m: 0),
    "%cluster_nctarank": _one(lambda m: 1),
    "%lanemask_eq": _lane_mask(lambda bit: bit),
    "%lanemask_lt": _lane_mask(lambda bit: bit - 1),
    "%lanemask_le": _lane_mask(lambda bit: 2 * bit - 1),
    "%lanemask_gt": _lane_mask(lambda bit: 0xFFFFFFFF & ~(2 * bit - 1)),
    "%lanemask_ge": _lane_mask(lambda bit: 0xFFFFFFFF & ~(bit - 1)),
    "%dynamic_smem_size": _one(lambda m: m.shape.dynamic_shared),
    "%total_smem_size": _one(lambda m: m.program.shared_bytes + m.shape.dynamic_shared),
}
CLOCKS = {
    "%clock": U32,
    "%clock_hi": U32,
    "%clock64": U64,
    "%globaltimer": U64,
    "%globaltimer_lo": U32,
    "%globaltimer_hi": U32,
}
WARP_SIZE = "WARP_SZ"
OF_BATCH = ("%ctaid", "%clusterid")  # what differs from batch to batch


def type_of(name: str) -> Type | None:
    """Return the type of a special register, or None if there is none of this name."""
    if name in READERS:
        return U32
    return CLOCKS.get(name)


def read(machine: Machine, name: str) -> Array:
    """Return a special register of all threads, as uint32 or uint64."""
    if name in CLOCKS:
        now = time.perf_counter_ns() >> (32 if name.endswith("_hi") else 0)
        return np.array([now & ((1 << CLOCKS[name].bits) - 1)], CLOCKS[name].dtype)
    cache = machine.special if name.startswith(OF_BATCH) else machine.lanes.special
    found = cache.get(name)
    if found is None:
        found = cache[name] = READERS[name](machine).astype(np.uint32)
    return found
