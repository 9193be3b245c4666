"""What `PCA` and `gpucompute.cluster.KMeans` share: what scikit-learn expects of its estimators, and their errors."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any, Self

from ..errors import GpucomputeError, OptionError


class NotFittedError(GpucomputeError, ValueError, AttributeError):
    """What `fit` finds was asked for before it was called."""


class DataError(GpucomputeError, ValueError):
    """Values that nothing can be fitted to."""


class Estimator:
    """Parameters by name, for scikit-learn's `clone` and pipelines; `__init__` keeps each as it was given."""

    _kind: str | None = None  # scikit-learn's word for what a class is, None for transformers

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters that this object was made with, by name."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def set_params(self, **params: Any) -> Self:
        """Set parameters by name."""
        known = self.get_params()
        for name, value in params.items():
            if name not in known:
                raise OptionError(f"{type(self).__name__} has no parameter {name!r}; it has: {', '.join(known)}")
            setattr(self, name, value)
        return self

    def __sklearn_tags__(self) -> Any:
        """Tell scikit-learn's pipelines, which ask for it, what this is."""
        utils = import_module("sklearn.utils")
        return utils.Tags(estimator_type=self._kind, target_tags=utils.TargetTags(required=False))

    def __repr__(self) -> str:
        defaults = inspect.signature(type(self)).parameters
        changed = (f"{k}={v!r}" for k, v in self.get_params().items() if v is not defaults[k].default)
        return f"{type(self).__name__}({', '.join(changed)})"
