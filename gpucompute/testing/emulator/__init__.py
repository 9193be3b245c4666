"""CUDA kernels on the CPU: compiled by the system's C++ compiler, run with CUDA's semantics, and checked.

`kernel.emulate` runs a kernel, `checking.check` looks for its bugs. DESIGN.md tells how.
"""
