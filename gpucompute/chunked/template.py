"""A graph that can travel: plain tuples, with the lengths of chunks left open.

A length is an int, or ``(symbol, factor)``: the product of a number given at the run and a constant. A `Template` can
be pickled, compared by content and replayed into a trace.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..fusion import ir
from ..fusion.scalar_source import original
from ..fusion.tracer import Tracer
from .functions import pack, token_of, unpack

Length = int | tuple[int, int]
Lengths = tuple[Length, ...]


@dataclass(frozen=True)
class Template:
    """Records in the order of evaluation, and which of them are results.

    Attributes
    ----------
    records : tuple
        Each a kind and its fields; nodes are numbers of earlier records.
    outputs : tuple of int
    users : tuple
        Users' scalar functions and reductions that records name by number.
    """

    records: tuple[tuple[Any, ...], ...]
    outputs: tuple[int, ...]
    users: tuple[Any, ...] = ()

    def token(self) -> str:
        """Return a text that is equal for equal templates in every process."""
        sha = hashlib.sha256(repr((self.records, self.outputs)).encode())
        for user in self.users:
            sha.update(_user_token(user).encode())
        return sha.hexdigest()[:32]

    def __reduce__(self) -> Any:
        return _unpacked, (self.records, self.outputs, tuple(_packed(user) for user in self.users))


def _unpacked(records: Any, outputs: Any, users: Any) -> Template:
    return Template(records, outputs, tuple(_unpacked_user(user) for user in users))


class TemplateBuilder:
    """Collects records; the same record twice is one."""

    def __init__(self) -> None:
        self.records: list[tuple[Any, ...]] = []
        self.users: list[Any] = []
        self._seen: dict[tuple[Any, ...], int] = {}

    def add(self, *record: Any) -> int:
        """Return the number of a record."""
        number = self._seen.setdefault(record, len(self.records))
        if number == len(self.records):
            self.records.append(record)
        return number

    def op(self, op: Any) -> Any:
        """Return how a record names an operation: its name, or a number in `users`."""
        if isinstance(op, str):
            return op
        for number, known in enumerate(self.users):
            if known is op or known == op:
                return number
        self.users.append(op)
        return len(self.users) - 1

    def constant(self, node: ir.Constant) -> int:
        """Add the record of a constant, by its bits."""
        return self.add("constant", node.dtype.str, np.asarray(node.value).tobytes())

    def finish(self, outputs: Sequence[int]) -> Template:
        """Return the template with the records that `outputs` need."""
        needed: set[int] = set()
        stack = list(outputs)
        while stack:
            number = stack.pop()
            if number not in needed:
                needed.add(number)
                stack += _arguments(self.records[number])
        place = {old: new for new, old in enumerate(sorted(needed))}
        records = tuple(_renumbered(self.records[old], place) for old in sorted(needed))
        return Template(records, tuple(place[number] for number in outputs), tuple(self.users))


# Where the numbers of other records stand in a record, by kind
_PLACES = {"map": (2,), "view": (4,), "gather": (1, 2), "reduce": (2,), "concatenate": (1,), "update": (1, 2)}


def _arguments(record: tuple[Any, ...]) -> list[int]:
    found: list[int] = []
    for place in _PLACES.get(record[0], ()):
        value = record[place]
        found += value if isinstance(value, tuple) else [value]
    return found


def _renumbered(record: tuple[Any, ...], place: dict[int, int]) -> tuple[Any, ...]:
    fields = list(record)
    for i in _PLACES.get(record[0], ()):
        value = fields[i]
        fields[i] = tuple(place[n] for n in value) if isinstance(value, tuple) else place[value]
    return tuple(fields)


def replay(
    template: Template,
    tracer: Tracer,
    inputs: Sequence[ir.Node],
    scalars: Sequence[ir.Node],
    symbols: Sequence[int],
) -> list[ir.Node]:
    """Build the template's graph in a trace and return its results.

    Parameters
    ----------
    template : Template
    tracer : Tracer
    inputs, scalars : sequence of Node
        What stands for the records ``input`` and ``scalar``.
    symbols : sequence of int
        The values of the open lengths.
    """
    build = tracer.builder
    nodes: list[ir.Node] = []

    def number(length: Length) -> int:
        return length if isinstance(length, int) else symbols[length[0]] * length[1]

    def numbers(lengths: Lengths) -> tuple[int, ...]:
        return tuple(map(number, lengths))

    def slices(params: Any) -> tuple[tuple[int, int], ...]:
        return tuple((number(start), step) for start, step in params)

    for kind, *fields in template.records:
        match kind:
            case "input":
                node = inputs[fields[0]]
            case "scalar":
                node = scalars[fields[0]]
            case "constant":
                dtype = np.dtype(fields[0])
                node = build.constant(np.frombuffer(fields[1], dtype)[0], dtype)
            case "iota":
                node = build.iota(number(fields[0]))
            case "map":
                op = fields[0] if isinstance(fields[0], str) else template.users[fields[0]]
                node = build.map(op, tuple(nodes[i] for i in fields[1]), np.dtype(fields[2]))
            case "view":
                node = _view(build, fields[0], fields[1], numbers(fields[2]), nodes[fields[3]], slices)
            case "gather":
                node = build.gather(nodes[fields[0]], nodes[fields[1]], fields[2], fields[3])
            case "reduce":
                op = fields[0] if isinstance(fields[0], str) else template.users[fields[0]]
                node = build.reduce(op, nodes[fields[1]], fields[2], np.dtype(fields[3]))
            case "concatenate":
                node = build.concatenate(tuple(nodes[i] for i in fields[0]), fields[1])
            case "update":
                node = build.update(nodes[fields[0]], nodes[fields[1]], slices(fields[2]), numbers(fields[3]))
            case _:
                raise AssertionError(kind)
        nodes.append(node)
    return [nodes[i] for i in template.outputs]


def _view(build: ir.Builder, kind: str, params: Any, shape: ir.Shape, arg: ir.Node, slices: Any) -> ir.Node:
    match kind:
        case "transpose":
            return build.transpose(arg, params)
        case "slice":
            return build.slice(arg, slices(params), shape)
        case "reshape":
            return build.reshape(arg, shape)
    return build.broadcast(arg, shape)


# ---- users' functions


def _user_token(user: ir.UserFunction | ir.UserReduction | None) -> str:
    match user:
        case None:
            return "none"
        case ir.UserFunction():
            return repr(
                (user.name, token_of(original(user.function)), list(map(_spelled, user.in_dtypes)), user.out_dtype.str)
            )
    parts = [_user_token(part) for part in (user.map, user.combine, user.finalize)]
    return repr((user.name, parts, [v.tobytes() for v in user.identity], [d.str for d in user.state_dtypes]))


def _spelled(dtype: np.dtype[Any]) -> Any:
    return dtype.descr if dtype.names else dtype.str


def _packed(user: Any) -> Any:
    if user is None:
        return None
    if isinstance(user, ir.UserFunction):
        dtypes = (*user.in_dtypes, user.out_dtype)
        return "function", user.name, pack(user.function), user.source, dtypes
    parts = tuple(_packed(part) for part in (user.map, user.combine, user.finalize))
    return "reduction", user.name, parts, user.identity, user.state_dtypes, user.out_dtype


def _unpacked_user(data: Any) -> Any:
    if data is None:
        return None
    kind, name, *rest = data
    if kind == "function":
        packed, source, dtypes = rest
        return ir.UserFunction(name, unpack(packed), source, dtypes[:-1], dtypes[-1])
    parts, identity, state_dtypes, out_dtype = rest
    map_, combine, finalize = map(_unpacked_user, parts)
    return ir.UserReduction(name, map_, combine, finalize, identity, state_dtypes, out_dtype)
