"""All NumPy functions that proxies know, and the elementwise functions that NumPy lacks."""

from __future__ import annotations

from . import elementwise, reductions
from .elementwise import elementwise_function

__all__ = ["elementwise", "erf", "erfc", "reductions", "sigmoid"]

erf = elementwise_function("erf", "Error function.")
erfc = elementwise_function("erfc", "Complement.")
sigmoid = elementwise_function("sigmoid", "Logistic")
