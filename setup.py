"""Map the top-level folder ``kernels/`` to the package ``gpucompute.kernels``.

Everything else is in pyproject.toml; setuptools takes this mapping only from here.
"""

from setuptools import find_namespace_packages, find_packages, setup

setup(
    packages=[
        *find_packages(include=["gpucompute", "gpucompute.*"]),
        "gpucompute.kernels",
        *(f"gpucompute.kernels.{name}" for name in find_namespace_packages("kernels")),
    ],
    package_dir={"gpucompute.kernels": "kernels"},
)
