"""What ``import gpucompute`` loads, and which names the package shows."""

from __future__ import annotations

import builtins
import pickle
import pkgutil
import re
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

import gpucompute as gp
from gpucompute import errors, namespace

MEMORY = ["MemoryStats", "empty", "release", "set_limit", "stats"]
HEAVY = "numba llvmlite cupy pycuda dask PIL zarr torch scipy pandas"


def loaded_after(code: str) -> set[str]:
    """Return the top-level modules that a new Python has loaded after running `code`."""
    script = f"{code}\nimport sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    return set(done.stdout.split())


def test_importing_loads_nothing_heavy() -> None:
    loaded = loaded_after("import gpucompute; hasattr(gpucompute, '__wrapped__')")
    assert "gpucompute" in loaded
    assert not loaded & {*HEAVY.split(), "numpy"}


def test_devices_and_plain_arrays_load_nothing_heavy() -> None:
    code = "import gpucompute as gp; gp.devices(); gp.linalg.norm(gp.fft.fft(gp.asarray(gp.zeros(3)))); dir(gp)"
    assert not loaded_after(code) & set(HEAVY.split())


def test_every_name_shown_is_there() -> None:
    shown = dir(gp)
    assert len(shown) == len(set(shown)) > 400
    for name in shown:
        assert getattr(gp, name) is not None or name == "newaxis"
    assert {"fuse", "zeros", "linalg", "erf", "percentile", "float32", "pi", "DeviceError"} <= set(shown)


def test_the_reference_page_names_all_that_is_not_numpys() -> None:
    page = Path(__file__).parents[1].joinpath("docs", "api.md").read_text("utf-8")
    shown = set(re.findall(r"::\s*gpucompute\.([\w.]+)", page))
    ours = {name for name in dir(gp) if not hasattr(np, name) or name in namespace.STANDARD}
    ours = {name for name in ours - gp._MODULES if not hasattr(errors, name)}  # the page takes the errors as a module
    ours |= {f"image.{name}" for name in gp.image.__all__} | {f"memory.{name}" for name in MEMORY}
    assert not ours - shown


def test_no_module_bears_the_name_of_a_public_function() -> None:
    modules = {module.name for module in pkgutil.iter_modules(gp.__path__)}
    assert "hardware" in modules
    assert not modules & (set(dir(gp)) - gp._MODULES)


def test_star_import_hides_no_builtin() -> None:
    names: dict[str, object] = {}
    exec("from gpucompute import *", names)
    assert names["sin"] is np.sin
    assert names["fuse"] is gp.fuse
    assert not {name for name in names if hasattr(builtins, name)} - {"__doc__", "__name__"}


@pytest.mark.parametrize("name", ["zeros", "sin", "argsort", "zeros_like", "asarray", "percentile", "float32"])
def test_functions_travel_by_pickle(name: str) -> None:
    assert pickle.loads(pickle.dumps(getattr(gp, name))) is getattr(gp, name)


def test_unknown_names_get_help() -> None:
    with pytest.raises(AttributeError, match="no attribute 'percentil'; did you mean 'percentile'"):
        gp.percentil  # noqa: B018
    with pytest.raises(AttributeError, match=r"NumPy's own, use numpy\.random"):
        gp.random  # noqa: B018
    with pytest.raises(AttributeError, match=r"'gpucompute\.linalg' has no attribute 'nrm'; did you mean 'norm'"):
        gp.linalg.nrm  # noqa: B018
    assert not hasattr(gp, "__wrapped__")


def test_submodules_are_modules() -> None:
    assert isinstance(gp.linalg, types.ModuleType)
    assert "norm" in dir(gp.linalg)
    assert "rfft" in dir(gp.fft)
