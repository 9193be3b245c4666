"""`x[mask]` read inside fuse: how many elements it has is not known, so only some of what NumPy can do works."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import ir
from .location import fusion_error, user_line
from .proxy import HANDLERS, Traced
from .tracer import Tracer, weak_type


def check_mask(mask: ir.Shape, shape: ir.Shape, axis: int = 0) -> None:
    """Raise IndexError unless a mask of shape `mask` fits the axes of an array from `axis` on."""
    if mask != shape[axis : axis + len(mask)]:
        raise IndexError(
            f"boolean index of shape {mask} did not match the indexed array of shape {shape}"
            f"{f' from axis {axis} on' if axis else ''}\n  at {user_line()}"
        )


def spread_mask(tracer: Tracer, mask: ir.Node, shape: ir.Shape, axis: int = 0) -> ir.Node:
    """Return a mask over axes of an array of `shape`, from `axis` on, with axes of length 1 for those that follow."""
    check_mask(mask.shape, shape, axis)
    return tracer.builder.reshape(mask, mask.shape + (1,) * (len(shape) - axis - len(mask.shape)))


class Selected(np.lib.mixins.NDArrayOperatorsMixin):
    """The elements of an array at which a mask holds.

    Elementwise operations keep the whole array beside its mask, so ``x[mask] *= 2`` and ``y[mask] = np.exp(x[mask])``
    become ``where``. Reductions over all elements become reductions with ``where=``.
    """

    __array_priority__ = 1001.0
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, x: Traced, mask: ir.Node) -> None:
        self._full = x._tracer.wrap(x._node, owner="local")  # as it is now
        self._mask = mask
        self._spread = spread_mask(x._tracer, mask, x.shape)
        self._line = user_line()

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._full.dtype

    def full_for(self, mask: ir.Node) -> Traced:
        """Return the whole array, for an assignment to the same mask."""
        if mask is not self._mask:
            raise fusion_error(
                f"x[mask] = y[other]: the two masks may hold different numbers of elements (the other was read at "
                f"{self._line}); use one mask for both, or np.where"
            )
        return self._full

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        target = kwargs.pop("out", (None,))[0]
        if method != "__call__" or (target is not None and target is not self) or kwargs.get("where") is not None:
            return self.refuse(f"np.{ufunc.__name__}.{method}")
        values = []
        for value in inputs:
            if isinstance(value, Selected):
                values.append(value.full_for(self._mask))
            elif weak_type(value) is not None or isinstance(value, np.generic) or getattr(value, "shape", None) == ():
                values.append(value)
            else:
                return self.refuse("an operation of x[mask] with an array of another length")
        if target is self:  # x[mask] is a copy, so `x[mask] *= 2` assigns it to x afterwards
            HANDLERS[np.copyto](self._full, ufunc(*values, **kwargs))
            return self
        return Selected(ufunc(*values, **kwargs), self._mask)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._reduction(name) if name in _REDUCTIONS else self.refuse(name)

    def _reduction(self, name: str) -> Any:
        def reduce(axis: Any = None, **kwargs: Any) -> Any:
            if axis is not None or kwargs.get("keepdims"):
                self.refuse(f"{name} along an axis")
            mask = self._full._tracer.wrap(self._spread)
            return HANDLERS[getattr(np, name)](self._full, where=mask, **kwargs)

        return reduce

    def astype(self, dtype: Any, **kwargs: Any) -> Selected:
        return Selected(self._full.astype(dtype, **kwargs), self._mask)

    def __array_function__(self, func: Any, types: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if func.__name__ in _REDUCTIONS and len(args) == 1 and args[0] is self:
            return self._reduction(func.__name__)(**kwargs)
        return self.refuse(func.__name__)

    def refuse(self, what: str) -> Any:
        """Raise the error for what needs the number of elements."""
        raise fusion_error(
            f"{what}: the number of elements of x[mask] (read at {self._line}) is known only when the kernel runs; "
            "use np.where(mask, x, fill), give where=mask to the reduction, or do this outside the fused function"
        )

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return self.refuse("a conversion to an array")

    def __iter__(self) -> Any:
        return self.refuse("iteration")

    def __len__(self) -> int:
        return self.refuse("len")  # type: ignore[no-any-return]

    def __getitem__(self, key: Any) -> Any:
        return self.refuse("indexing")


_REDUCTIONS = {"sum", "prod", "mean", "var", "std", "any", "all"}
