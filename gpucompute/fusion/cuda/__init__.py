"""The second loop skeleton of `fuse`: stages printed, compiled and run for NVIDIA GPUs. `DESIGN.md` tells how."""
