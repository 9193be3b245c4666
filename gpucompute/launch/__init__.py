"""How kernels reach the machine: compiling, caching, threads."""
