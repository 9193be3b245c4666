"""The command ``gpucompute``: main.py, and a file for each subcommand."""
