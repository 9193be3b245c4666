"""Images in Dask arrays: the same bytes, one task for each chunk, known before anything runs."""

from __future__ import annotations

import pickle
import subprocess
import sys

import dask
import dask.array as da
import dask.bag
import numpy as np
import pytest
from dask.base import tokenize
from dask.utils import key_split
from image_samples import noise

import gpucompute as gp
import gpucompute.image as gi
from gpucompute.image import CenterCrop, Compose, Grayscale, HorizontalFlip, Normalize, Pad, Resize, ToFloat

pixels = noise((10, 24, 33, 3))
fractions = noise((10, 24, 33, 3), dtype=np.float32)

FUNCTIONS = {
    "Compose": Compose([Resize(16), CenterCrop(14), HorizontalFlip(), Normalize([0.5, 0.4, 0.3], 0.25)]),
    "Compose to bytes": Compose([Pad(2, fill=7), Grayscale()], dtype="uint8", layout="NHWC"),
    "Compose to halves": Compose([ToFloat()], dtype="float16"),
    "resize": lambda x: gi.resize(x, (11, 40), interpolation="bicubic", box=(1, 2, 30, 20)),
    "crop": lambda x: gi.crop(x, -2, 3, 20, 40),
    "center_crop": lambda x: gi.center_crop(x, (20, 10)),
    "pad": lambda x: gi.pad(x, (1, 2), padding_mode="reflect"),
    "horizontal_flip": gi.horizontal_flip,
    "vertical_flip": gi.vertical_flip,
    "rgb_to_grayscale": gi.rgb_to_grayscale,
    "to_float": gi.to_float,
    "normalize": lambda x: gi.normalize(x, mean=[0.5, 0.4, 0.3], std=0.25),
}
ALSO_FRACTIONS = [name for name in FUNCTIONS if not name.startswith(("Compose", "rgb"))]


def cut(array, *chunks):
    return da.from_array(array, chunks=chunks).persist(scheduler="sync")


def tasks(array):
    """Return the names of the tasks that the scheduler gets, data left out.

    Dask names a task that it has put together of two after both; here it bears the name of the last.
    """
    graph = dict(dask.optimize(array)[0].__dask_graph__())
    return [key_split(key).removeprefix("array-") for key, task in graph.items() if hasattr(task, "func")]


def assert_same(function, images, wanted):
    """Assert that all is known before the run, and that the bytes are those of the call without Dask."""
    with dask.config.set(scheduler=_refuse):
        lazy = function(images)
    assert isinstance(lazy, da.Array)
    assert lazy.chunks[0] == images.chunks[0]
    assert (lazy.shape, lazy.dtype) == (wanted.shape, wanted.dtype)
    assert lazy._meta.dtype == wanted.dtype
    assert lazy._meta.shape == (0, 0, 0, 0)
    got = lazy.compute(scheduler="sync")
    assert gp.digest(got) == gp.digest(wanted)


def _refuse(*args, **kwargs):
    raise AssertionError("something was computed")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_bytes_of_the_call_without_dask(name):
    assert_same(FUNCTIONS[name], cut(pixels, (4, 1, 5), -1, -1, -1), FUNCTIONS[name](pixels))


@pytest.mark.parametrize("name", ALSO_FRACTIONS)
def test_fractions_as_without_dask(name):
    assert_same(FUNCTIONS[name], cut(fractions, (4, 6), -1, -1, -1), FUNCTIONS[name](fractions))


def test_all_functions_are_tested():
    functions = {name for name in gi.__all__ if not isinstance(getattr(gi, name), type)}
    assert functions <= FUNCTIONS.keys()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_one_task_for_each_chunk_under_its_name(name):
    found = tasks(FUNCTIONS[name](cut(pixels, 3, -1, -1, -1)))
    assert found == [name.partition(" ")[0].lower().replace("_", "-")] * 4


def test_images_that_are_cut_are_put_together():
    images = cut(pixels, 5, 10, 20, 1)
    assert_same(FUNCTIONS["Compose"], images, FUNCTIONS["Compose"](pixels))
    assert_same(FUNCTIONS["resize"], images, FUNCTIONS["resize"](pixels))


def test_as_many_images_as_the_run_will_show():
    images = cut(pixels, 5, -1, -1, -1)
    some = FUNCTIONS["Compose"](images[da.from_array(np.arange(10) % 3 == 0, chunks=5)])
    assert np.isnan(some.shape[0])
    assert gp.digest(some.compute(scheduler="sync")) == gp.digest(FUNCTIONS["Compose"](pixels[::3]))


def test_no_images():
    assert_same(FUNCTIONS["Compose"], cut(pixels[:0], 1, -1, -1, -1), FUNCTIONS["Compose"](pixels)[:0])


def test_with_fused_functions_and_inside_map_blocks():
    images, chain = cut(pixels, 5, -1, -1, -1), FUNCTIONS["Compose"]
    centred = gp.fuse(lambda x: x - x.mean(axis=(2, 3), keepdims=True))
    got = centred(chain(images))
    assert gp.digest(got.compute(scheduler="sync")) == gp.digest(centred(chain(pixels)))
    blocks = images.map_blocks(chain, chunks=(images.chunks[0], 3, 14, 14), dtype=np.float32)
    assert gp.digest(blocks.compute(scheduler="sync")) == gp.digest(chain(pixels))


def test_images_of_many_sizes_in_bags_and_delayed_lists():
    chain = FUNCTIONS["Compose"]
    ragged = [noise((20 + i, 30 - i, 3)) for i in range(6)]
    batches = (
        dask.bag.from_sequence(ragged, partition_size=3)
        .map(np.copy)
        .map_partitions(lambda images: [chain(list(images))])
    )
    np.testing.assert_array_equal(np.concatenate(batches.compute(scheduler="sync")), chain(ragged))
    batch = da.from_delayed(dask.delayed(chain)(ragged), (6, 3, 14, 14), np.float32)
    np.testing.assert_array_equal(batch.compute(scheduler="sync"), chain(ragged))


def test_the_same_content_has_the_same_keys():
    images = cut(pixels, 5, -1, -1, -1)
    first, again = (Compose([Resize(16), Normalize([0.5, 0.4, 0.3], 0.25)]) for _ in range(2))
    assert first(images).name == again(images).name != Compose([Resize(16)])(images).name
    assert tokenize(first) == tokenize(pickle.loads(pickle.dumps(first)))
    assert gi.resize(images, 8).name == gi.resize(images, 8).name != gi.resize(images, 9).name


MODULE = """
from gpucompute.image import CenterCrop, Compose, Normalize, Resize

chain = Compose([Resize(16), CenterCrop(14), Normalize([0.5, 0.4, 0.3], 0.25)])
"""
STRANGER = """
import pickle, sys
with open(sys.argv[1], "rb") as file:
    task, images, wanted = pickle.load(file)
assert (task(images) == wanted).all() and "users_chain" not in sys.modules
again = [pickle.loads(pickle.dumps(task)) for _ in range(2)]
assert again[0] is again[1]  # so tables of filters are made once in a process
print("the same")
"""


def test_tasks_are_small_and_need_nothing_of_the_users(tmp_path, monkeypatch):
    (tmp_path / "users_chain.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    from users_chain import chain

    images = cut(pixels, 5, -1, -1, -1)
    for lazy in (chain(images), gi.resize(images, 16)):
        task = dict(lazy.dask)[lazy.name, 0, 0, 0, 0].func
        assert len(pickle.dumps(task)) < 1000
    task = dict(chain(images).dask)[chain(images).name, 0, 0, 0, 0].func
    path = tmp_path / "task.pickle"
    path.write_bytes(pickle.dumps((task, pixels, chain(pixels))))
    done = subprocess.run(
        [sys.executable, "-c", STRANGER, str(path)], cwd=tmp_path.parent, capture_output=True, text=True, check=False
    )
    assert done.stdout == "the same\n", done.stderr


def test_errors_come_at_the_call():
    images, chain = cut(pixels, 5, -1, -1, -1), FUNCTIONS["Compose"]
    with pytest.raises(gp.ShapeError, match=r"Dask array of shape \(24, 33, 3\); expected a batch .* images\[None\]"):
        chain(images[0])
    with pytest.raises(gp.ShapeError, match=r"a list with Dask arrays in it; give one .*dask.array.stack"):
        chain([images[0], images[1]])
    with pytest.raises(gp.DTypeError, match=r"dtype int64 .* expected uint8 or float32"):
        gi.resize(images.astype(np.int64), 8)
    with pytest.raises(gp.DTypeError, match=r"dtype float32 .* expected uint8"):
        chain(images.astype(np.float32))
    with pytest.raises(gp.OptionError, match="out= with a Dask array"):
        chain(images, out=np.empty((10, 3, 14, 14), np.float32))
    with pytest.raises(gp.OptionError, match=r"box=\(0, 0, 34, 24\) for images of height 24 and width 33"):
        gi.resize(images, 8, box=(0, 0, 34, 24))
    unknown = images[:, images[0, :, 0, 0] > 3]
    with pytest.raises(gp.ShapeError, match=r"unknown sizes; only N may be unknown: call its compute_chunk_sizes\(\)"):
        chain(unknown)


def test_a_chunk_that_cannot_fit_is_an_error_at_the_call():
    large = da.zeros((1 << 20, 1 << 12, 1 << 12, 3), chunks=(1 << 20, -1, 1, -1), dtype=np.uint8)
    with pytest.raises(gp.DeviceMemoryError, match=r"compose: a task reads 48.00 TiB .*axis 2 .* becomes one chunk"):
        Compose([CenterCrop(8)])(large)
