"""Fused functions on a cluster of processes."""

from __future__ import annotations

import sys

import dask.array as da
import numpy as np
import pytest
from chunk_checks import normal

import gpucompute as gp

distributed = pytest.importorskip("distributed")

values = normal(2048, 16) + 2

MODULE = """
import numpy as np
import gpucompute as gp

@gp.vectorize
def leaky(a):
    return a if a > 0 else a * np.float32(0.5)

@gp.fuse
def work(x):
    y = leaky(x)
    return (y - y.mean(0)) / y.std(0)
"""


@pytest.fixture(scope="module")
def client():
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0", memory_limit="512 MiB"
        ) as cluster,
        distributed.Client(cluster) as connected,
    ):
        yield connected


def test_the_same_bits_as_in_one_process_for_all_chunks_of_tiles(client, tmp_path, monkeypatch):
    (tmp_path / "unseen_module.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    import unseen_module

    wanted = gp.digest(unseen_module.work(values))
    for chunks in ((256, 16), (512, 8), (768, 16)):
        lazy = unseen_module.work(da.from_array(values, chunks=chunks))
        assert gp.digest(lazy.compute()) == wanted
    seen = client.run(lambda: "unseen_module" in sys.modules)
    assert not any(seen.values())


def test_graphs_of_dask_are_compiled_for_workers_too(client):
    x = da.from_array(values, chunks=(512, 16))
    plain = (x * 2 + 1) * (x - 3)
    with gp.chunked.install():
        np.testing.assert_array_equal(plain.compute(), (values * 2 + 1) * (values - 3))


def test_the_workers_limit_is_the_plans(client):
    large = da.zeros((200_000, 1000), chunks=(100_000, 1000))
    with pytest.raises(gp.DeviceMemoryError, match=r"each of 1 threads of a worker with 512.00 MiB has 109.60 MiB"):
        gp.fuse(lambda x: x + 1)(large)


def test_the_scheduler_sees_the_users_names(client):
    def centred(x):
        return x - x.mean(0)

    result = gp.fuse(centred)(da.from_array(values, chunks=(256, 16))).persist()
    distributed.wait(result)
    seen = client.run_on_scheduler(lambda dask_scheduler: set(dask_scheduler.task_prefixes))
    assert {"centred-partial", "centred-reduced"} <= seen
