"""What a fused call does: its stages, why there are that many, the bytes they move, the source they run."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import plan
from .codegen import generate
from .layout import Layout
from .program import Program

if TYPE_CHECKING:
    from .run import Fused
    from .trace import Trace


class Stage(NamedTuple):
    """One kernel of a fused call.

    name : what it does, in the user's words; reason : why it is a kernel of its own; bytes_read, bytes_written :
    main memory it must touch, each element once; source : the Python text that was compiled.
    """

    name: str
    reason: str
    bytes_read: int
    bytes_written: int
    source: str


@dataclass(frozen=True)
class Explanation:
    """The stages of a fused call.

    Attributes
    ----------
    function : str
        The name of the user's function.
    stages : list of Stage
        In the order in which they run.
    bandwidth : float
        What this machine copies, in bytes read and written per second, measured now on all threads.
    """

    function: str
    stages: list[Stage]
    bandwidth: float

    @classmethod
    def of(cls, function: str, program: Program) -> Explanation:
        """Explain the program of a call."""
        from ..launch import bandwidth

        measure = getattr(program, "bandwidth", bandwidth.measure)  # of a GPU's program, the GPU's
        return cls(function, [_describe(step.stage, step.kernel.source) for step in program.steps], float(measure()))

    @property
    def nbytes(self) -> int:
        """Bytes that all stages together read and write."""
        return sum(stage.bytes_read + stage.bytes_written for stage in self.stages)

    @property
    def limit(self) -> float:
        """Seconds that moving these bytes takes at the measured bandwidth; no kernel of these stages is faster."""
        return self.nbytes / self.bandwidth

    def __str__(self) -> str:
        kernels = f"{len(self.stages)} kernel" + ("s" if len(self.stages) != 1 else "")
        rate = f"{self.bandwidth / 1e9:.1f} GB/s"
        lines = [f"{self.function}: {kernels}, {size(self.nbytes)} moved, at least {_time(self.limit)} at {rate}"]
        for number, stage in enumerate(self.stages, 1):
            lines.append(f"{number}. {stage.name}")
            lines.append(f"   because {stage.reason}")
            lines.append(f"   reads {size(stage.bytes_read)}, writes {size(stage.bytes_written)}")
        for number, stage in enumerate(self.stages, 1):
            lines += ["", f"# kernel {number}: {stage.name}", stage.source.rstrip()]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return str(self).split("\n\n")[0]

    def _repr_html_(self) -> str:
        rows = [
            (
                f"{html.escape(stage.name)}<br><small>{html.escape(stage.reason)}</small>",
                size(stage.bytes_read),
                size(stage.bytes_written),
                stage.source,
            )
            for stage in self.stages
        ]
        return table(str(self).split("\n", 1)[0], ("kernel", "reads", "writes"), rows)


def table(head: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return HTML of numbered rows: a description, numbers, and a source to be opened, "" for none."""
    body = ""
    for number, (what, *numbers, source) in enumerate(rows, 1):
        cells = "".join(f"<td style='text-align:right'>{text}</td>" for text in numbers)
        shown = f"<details><summary>source</summary><pre>{html.escape(source)}</pre></details>" if source else ""
        body += f"<tr><td>{number}</td><td>{what}</td>{cells}<td>{shown}</td></tr>"
    heads = "".join(f"<th>{column}</th>" for column in columns)
    return (
        f"<p><b>{html.escape(head)}</b></p><table><thead><tr><th></th>{heads}<th></th></tr></thead>"
        f"<tbody>{body}</tbody></table>"
    )


def described(fused: Fused, traced: Trace, arrays: Sequence[Any]) -> list[Stage]:
    """Return the stages of a trace for arrays like these; kernels for CPUs are not compiled for it."""
    if any(type(array) is not np.ndarray for array in arrays):
        return [_describe(step.stage, step.kernel.source) for step in fused._program(traced, list(arrays)).steps]
    layouts = [Layout(0, array.shape, array.strides) for array in (*arrays, *traced.captured)]
    stages = plan.plan(traced.outputs, layouts, finish=True).stages
    return [_describe(stage, generate(stage).source) for stage in stages if 0 not in stage.shape]


def _describe(stage: plan.Stage, source: str) -> Stage:
    read: dict[tuple[int, Layout], int] = {}
    inside = {id(reduction.buffer) for reduction in stage.reductions} if stage.kind == "rows" else set()
    for expr in [*(s.expr for s in stage.stores), *(r.expr for r in stage.reductions)]:
        for leaf in plan.leaves(expr):
            if isinstance(leaf, plan.Load | plan.GatherLoad) and id(leaf.buffer) not in inside:
                read[id(leaf.buffer), leaf.layout] = _touched(leaf)
    stores = stage.stores + stage.finish
    written = sum(prod(store.layout.shape) * store.buffer.dtype.itemsize for store in stores)
    for reduction in stage.reductions:
        if id(reduction.buffer) in stage.stored:
            written += prod(reduction.buffer.layout.shape) * reduction.buffer.dtype.itemsize
    return Stage(_name(stage), stage.reason, sum(read.values()), written, source)


def _touched(leaf: plan.Load | plan.GatherLoad) -> int:
    """Bytes of different elements that a leaf reads (a gather: one for each point, at most the whole source)."""
    strides = leaf.layout.strides
    count = prod(n for n, s in zip(leaf.layout.shape, strides, strict=True) if s)
    if isinstance(leaf, plan.GatherLoad):
        count *= leaf.length
    return min(count, prod(leaf.layout.shape)) * leaf.buffer.dtype.itemsize


def _name(stage: plan.Stage) -> str:
    shape = " × ".join(map(str, stage.shape)) or "one element"
    names = [r.op if isinstance(r.op, str) else r.op.name for r in stage.reductions]
    if stage.kind == "map":
        return f"elementwise over {shape}"
    over = "all axes" if len(stage.axes) == len(stage.shape) else f"axes {stage.axes}"
    text = f"{', '.join(dict.fromkeys(names))} over {over} of {shape}"
    if stage.stores or stage.finish:
        text += ", then elementwise"
    return text if stage.kind == "reduce" else f"row by row: {text}"


def size(nbytes: float) -> str:
    """Return a number of bytes as text."""
    for unit in ("B", "kB", "MB", "GB", "TB", "PB"):
        if nbytes < 999.5:  # which three digits would round to 1e+03
            return f"{nbytes:.3g} {unit}"
        nbytes /= 1000
    return f"{nbytes:.3g} EB"


def _time(seconds: float) -> str:
    for unit, scale in (("µs", 1e6), ("ms", 1e3), ("s", 1)):
        if seconds * scale < 999.5:
            return f"{seconds * scale:.3g} {unit}"
    return f"{seconds:,.0f} s"
