"""What a task calls: a template with its precision and name. Small to send, compiled once in each process."""

from __future__ import annotations

import functools
import pickle
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from ..fusion.proxy import Traced, find_tracer
from ..fusion.run import Fused, Precision
from .template import Template, replay

KEPT = 512  # kernels that a process remembers; the least recently used goes first

_known: OrderedDict[Any, Any] = OrderedDict()
_lock = threading.RLock()  # what is unpickled under it may hold kernels itself


class Kernel:
    """A template that runs on arrays.

    Parameters
    ----------
    name : str
        The user's name for it.
    template : Template
    inputs : int
        How many arrays it takes.
    precision : {"exact", "fast"}
    """

    def __init__(self, name: str, template: Template, inputs: int, precision: Precision) -> None:
        self.name = name
        self.template = template
        self.inputs = inputs
        self.precision = precision
        self.token = f"{template.token()}-{inputs}-{precision}"
        self._pickled: bytes | None = None
        self._fused: dict[tuple[int, ...], Fused] = {}

    def __call__(self, arrays: Sequence[Any], scalars: Sequence[Any], symbols: tuple[int, ...]) -> tuple[Any, ...]:
        """Return the results for the inputs, run-time scalars and open lengths of the template."""
        fused = self._fused.get(symbols)
        if fused is None:  # chunks have few different lengths; a call without a static argument is 0.1 ms shorter
            fused = Fused(functools.partial(self._trace, symbols), self.precision, ())
            fused.__name__ = self.name
            fused = self._fused.setdefault(symbols, fused)
        results: tuple[Any, ...] = fused(*arrays, *scalars, 0)
        return results

    def _trace(self, symbols: tuple[int, ...], *values: Any) -> tuple[Any, ...]:
        tracer = find_tracer(values)  # there is one: the 0 at the end is for kernels without arguments
        assert tracer is not None
        inputs = [tracer.node(value) for value in values[: self.inputs]]
        scalars = [
            value._value if isinstance(value, Traced) else tracer.node(value) for value in values[self.inputs : -1]
        ]
        return tuple(tracer.wrap(node) for node in replay(self.template, tracer, inputs, scalars, symbols))

    def __dask_tokenize__(self) -> Any:
        return "gpucompute.Kernel", self.token

    def __reduce__(self) -> Any:
        if self._pickled is None:
            self._pickled = pickle.dumps(self.template)
        return _unpickled, (self.token, self._pickled, self.name, self.inputs, self.precision)


def kernel(name: str, template: Template, inputs: int, precision: Precision) -> Kernel:
    """Return the kernel of this process with that content, so that it is traced and planned once."""
    made = Kernel(name, template, inputs, precision)
    return remembered((Kernel, made.token, name), lambda: made)  # type: ignore[no-any-return]


def _unpickled(token: str, pickled: bytes, name: str, inputs: int, precision: Precision) -> Kernel:
    return remembered(  # type: ignore[no-any-return]
        (Kernel, token, name), lambda: Kernel(name, pickle.loads(pickled), inputs, precision)
    )


def remembered(key: Any, make: Callable[[], Any]) -> Any:
    """Return the one object of this process under `key`, made now if it is not there."""
    with _lock:
        found = _known.pop(key, None)
        if found is None:
            found = make()
        _known[key] = found
        if len(_known) > KEPT:
            _known.popitem(last=False)
        return found
