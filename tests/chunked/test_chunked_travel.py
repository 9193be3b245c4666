"""Fused functions and tasks in other processes: small, without the user's module, the same by content."""

from __future__ import annotations

import pickle
import subprocess
import sys
import tempfile
import textwrap

import cloudpickle
import numpy as np
import pytest
from chunk_checks import cut, normal
from dask.base import tokenize

import gpucompute as gp

MODULE = """
import math
import numpy as np
import gpucompute as gp

import users_settings as settings

FACTOR = 2.0
TABLE = np.arange(8, dtype=np.float32)

def scaled(x):
    return x * FACTOR + TABLE

def half(a):
    return a * 0.5

@gp.vectorize
def leaky(a):
    return a if a > 0 else half(a) + settings.tools.bend(a) * settings.SLOPE

length = gp.reduction(lambda x: x * x, lambda a, b: a + b, 0.0, finalize=lambda s: math.sqrt(s))

@gp.fuse
def work(x):
    return scaled(leaky(x)) - x.mean(0) + length(x, axis=0)

@gp.fuse
def local(x):
    return scaled(leaky(x))
"""

SETTINGS = """
import threading, types

SLOPE = 0.5
LOCK = threading.Lock()  # nothing that could travel

tools = types.ModuleType("users_tools")
exec("def bend(a): return a * a", vars(tools))
"""

STRANGER = """
import cloudpickle, sys
with open(sys.argv[1], "rb") as file:
    chunked, plain, x, wants = cloudpickle.load(file)
got = [chunked.compute(scheduler="sync"), *(function(x) for function in plain)]
assert all((a == b).all() for a, b in zip(got, wants, strict=True)), (got, wants)
assert not {"users_module", "users_settings"} & sys.modules.keys()
print("the same")
"""


@pytest.fixture
def users(tmp_path, monkeypatch):
    """A module of a user, which other processes do not find."""
    (tmp_path / "users_module.py").write_text(MODULE)
    (tmp_path / "users_settings.py").write_text(SETTINGS)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("users_module", "users_settings"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import users_module

    return users_module


def test_a_process_without_the_module_computes_the_same(users, tmp_path):
    values = normal(512, 8)
    lazy = users.work(cut(values, 256, 8))
    plain = [users.local, users.leaky, users.length]
    wants = [lazy.compute(scheduler="sync"), *(function(values) for function in plain)]
    parcel = tmp_path / "parcel"
    parcel.write_bytes(cloudpickle.dumps((lazy, plain, values, wants)))
    command = [sys.executable, "-c", textwrap.dedent(STRANGER), str(parcel)]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", check=False)
    assert done.stdout == "the same\n", done.stderr


def test_tasks_are_small():
    lazy = gp.fuse(lambda x: np.tanh((x - 1) * 3) / (1 + abs(x)))(cut(normal(512, 8), 256, 8))
    task = next(iter(lazy.dask.layers[lazy.name].values()))
    assert len(cloudpickle.dumps(task)) < 1500


TAKE = {"fuse": lambda table: gp.fuse(lambda i: gp.take(table, i)), "vectorize": lambda t: gp.vectorize(lambda i: t[i])}


@pytest.mark.parametrize("kind", TAKE)
def test_arrays_of_functions_travel_without_a_copy(kind):
    table = np.arange(100_000, dtype=np.float32)
    table.flags.writeable = False
    outside: list[pickle.PickleBuffer] = []
    packed = cloudpickle.dumps(TAKE[kind](table), buffer_callback=outside.append)
    assert len(packed) < 5000
    assert [np.shares_memory(np.frombuffer(buffer.raw(), np.uint8), table) for buffer in outside] == [True]
    assert pickle.loads(packed, buffers=outside)(np.array([3, 99_999])).tolist() == [3, 99_999]
    assert cloudpickle.loads(cloudpickle.dumps(TAKE[kind](table)))(np.array([5])).tolist() == [5]


def test_a_kernel_that_came_twice_is_one():
    lazy = gp.fuse(lambda x: x * 3)(cut(normal(8, 8), 4, 8))
    kernel = next(iter(lazy.dask.layers[lazy.name].values())).func.kernel
    assert cloudpickle.loads(cloudpickle.dumps(kernel)) is kernel


def test_a_compiled_task_may_hold_kernels():
    lazy = gp.chunked.optimize(gp.fuse(lambda x: x * 3)(cut(normal(8, 8), 4, 8)) * 2 + 1)
    code = "import cloudpickle, sys; print(cloudpickle.load(open(sys.argv[1], 'rb')).sum().compute(scheduler='sync'))"
    with tempfile.NamedTemporaryFile() as parcel:
        parcel.write(cloudpickle.dumps(lazy))
        parcel.flush()
        command = [sys.executable, "-c", code, parcel.name]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert float(done.stdout) == pytest.approx(float((normal(8, 8) * 6 + 1).sum()), rel=1e-5)


def test_tokens_follow_content(users):
    def made(factor, table=None):
        @gp.fuse
        def work(x):
            return x * factor if table is None else x * table

        return work

    assert tokenize(made(2.0)) == tokenize(made(2.0)) != tokenize(made(3.0))
    assert tokenize(made(0, np.arange(3))) == tokenize(made(0, np.arange(3))) != tokenize(made(0, np.arange(4)))
    assert tokenize(gp.fuse(np.sin)) != tokenize(gp.fuse(np.sin, precision="fast")) != tokenize(gp.fuse(np.cos))
    for function in (users.work, users.local, users.leaky, users.length):
        assert tokenize(function) == tokenize(cloudpickle.loads(cloudpickle.dumps(function)))
    before = tokenize(users.local)
    users.half = lambda a: a * 0.25
    users.leaky = gp.vectorize(lambda a: a if a > 0 else users.half(a))
    assert tokenize(users.local) != before
    users.leaky = gp.vectorize(lambda a: a * users.settings.SLOPE)
    before = tokenize(users.leaky), tokenize(users.local)
    users.settings.SLOPE = 0.25
    assert tokenize(users.leaky) != before[0] and tokenize(users.local) != before[1]


def test_keys_follow_content():
    x = cut(normal(8, 8), 4, 8)
    assert gp.fuse(lambda x: x + 1)(x).name == gp.fuse(lambda x: x + 1)(x).name != gp.fuse(lambda x: x + 2)(x).name


def test_importing_and_calling_loads_no_dask():
    code = "import gpucompute as gp, numpy as np, pickle, sys; import gpucompute.chunked\n"
    code += "gp.fuse(np.sqrt)(np.ones(3)); hasattr(gp.chunked, 'nothing')\n"
    code += "print([m for m in ('dask', 'distributed', 'zarr') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
