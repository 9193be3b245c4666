"""PTX run in NumPy: real code from nvcc, NVRTC or numba.cuda on a machine without a GPU."""

from .launch import instructions, numba_arguments, run_ptx

__all__ = ["instructions", "numba_arguments", "run_ptx"]
