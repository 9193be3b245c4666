"""Arrays and stores as Dask arrays with chunks that fit, and back; between host and device."""

from __future__ import annotations

from itertools import product
from typing import Any

import dask.array as da
import numpy as np
from dask.array.utils import meta_from_array
from dask.base import tokenize

from ..errors import ChunkError, DTypeError, OptionError
from ..hardware import asarray, asnumpy
from . import budget, device_chunks, layers, targets


class Reader:
    """A store that tasks read their chunks from, each stage anew.

    Parameters
    ----------
    store : array_like
        Has shape, dtype and slices: a Zarr array, an HDF5 data set, a memory map.

    Raises
    ------
    ChunkError
        When it is read: the store cannot give what was asked for.
    """

    def __init__(self, store: Any) -> None:
        self.store = store
        self.shape = tuple(map(int, store.shape))
        self.ndim = len(self.shape)
        self.dtype = np.dtype(store.dtype)
        self.token = tokenize(_identity(store))
        self.folder = targets.folder(store)

    def __getitem__(self, key: Any) -> np.ndarray[Any, Any]:
        try:
            values = np.asarray(self.store[key])
            if self.folder is not None and not self.folder.is_dir():  # Zarr reads fill values
                raise FileNotFoundError(f"{self.folder} is there no more")
            return values
        except (MemoryError, IndexError):  # a slice that cannot be is the caller's mistake
            raise
        except Exception as error:
            raise ChunkError(_unreadable(self.store, self.shape, key, error)) from error

    def __call__(self, place: Any) -> np.ndarray[Any, Any]:
        return self[tuple(slice(start, start + length) for _, start, length in place)]

    def __dask_tokenize__(self) -> Any:
        return "gpucompute.Reader", self.token

    def __reduce__(self) -> Any:
        if isinstance(self.store, np.memmap) and self.store.filename is not None:
            return _mapped, _map_of(self.store)
        return Reader, (self.store,)


def _unreadable(store: Any, shape: tuple[int, ...], key: Any, error: Exception) -> str:
    """Return the text for a part of a store that cannot be read; the chunk at fault is looked for."""
    bounds = _bounds(shape, key)
    chunks = getattr(store, "shards", None) or getattr(store, "chunks", None)
    where, help_ = "", "try again, or look at the store with its own library"
    if chunks and bounds is not None:
        numbers = [range(start // n, -(-stop // n)) for (start, stop), n in zip(bounds, chunks, strict=True)]
        for number in product(*numbers):
            inside = [(i * n, min(i * n + n, size)) for i, n, size in zip(number, chunks, shape, strict=True)]
            try:
                store[tuple(slice(*edges) for edges in inside)]
            except Exception as found:  # noqa: BLE001  # whatever it is, it is told
                error, bounds = found, inside
                name = getattr(getattr(store, "metadata", None), "encode_chunk_key", None)  # Zarr's
                where = f"the chunk {number}" + (f" (file {name(number)})" if name else "") + ", "
                help_ = "bring back this chunk from a copy, or make the array anew"
                break
    elements = key if bounds is None else f"[{', '.join(f'{a}:{b}' for a, b in bounds)}]"
    return f"{_name_of(store)}: cannot read {where}elements {elements} ({type(error).__name__}: {error}); {help_}"


def _bounds(shape: tuple[int, ...], key: Any) -> list[tuple[int, int]] | None:
    """Return where slices begin and end along each axis, None for other keys."""
    key = key if isinstance(key, tuple) else (key,)
    if len(key) != len(shape) or not all(isinstance(part, slice) and part.step in (None, 1) for part in key):
        return None
    return [part.indices(n)[:2] for part, n in zip(key, shape, strict=True)]


def _name_of(store: Any) -> str:
    """Return where a store is, as far as it tells."""
    path = getattr(store, "store_path", None)  # Zarr's
    if path is not None:
        return str(path)
    file = getattr(getattr(store, "file", None), "filename", None)  # HDF5's
    return f"{file}:{store.name}" if file else str(getattr(store, "filename", None) or type(store).__name__)


def _identity(store: Any) -> Any:
    """Return what tells a store from others, without reading it."""
    return _map_of(store) if isinstance(store, np.memmap) else store


def _map_of(store: np.memmap[Any, Any]) -> tuple[Any, ...]:
    """Return a memory map's file, dtype, place, shape and order (views of one begin elsewhere in the file)."""
    base = store
    while isinstance(base.base, np.memmap):
        base = base.base
    offset = base.offset + store.__array_interface__["data"][0] - base.__array_interface__["data"][0]
    return str(store.filename), store.dtype.str, offset, store.shape, store.strides


def _mapped(filename: str, dtype: str, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> Reader:
    whole = np.memmap(filename, np.uint8, "r")
    return Reader(np.ndarray(shape, dtype, whole, offset, strides))


def reader_of(array: Any) -> Reader | None:
    """Return the store behind a Dask array that `from_array` or `from_zarr` made, None for others."""
    layer = array.dask.layers.get(array.name)
    function = getattr(getattr(layer, "task", None), "func", None)
    return function if isinstance(function, Reader) else None


def from_array(x: Any, chunks: Any = "auto", *, reread: bool = True) -> da.Array:
    """Return a Dask array of an array or a store.

    Parameters
    ----------
    x : array_like
        An array of NumPy's or CuPy's, a memory map, a Zarr array, an HDF5 data set: whatever has a shape, a dtype
        and slices.
    chunks : "auto" or chunks as Dask takes them
        "auto": what a task can hold together with two results, out of its share of a worker's limit, of this machine's
        memory or of the GPU's (`budget`); at most Dask's ``array.chunk-size``; whole chunks of the store; a power of
        two of 256 rows if there is room, for which sums have the bits of the whole array's.
    reread : bool
        Whether fused functions read a store anew in each pass over the data (a mean, then what it is subtracted
        from), so that no more than the chunks at work are in memory. False: Dask keeps a chunk from its first to its
        last use.

    Returns
    -------
    dask.array.Array

    Examples
    --------
    >>> import numpy as np
    >>> from_array(np.zeros((1000, 3)), chunks=(256, 3)).numblocks
    (4, 1)
    """
    device_chunks.watch()
    x = x if hasattr(x, "shape") and hasattr(x, "dtype") else np.asarray(x)
    if isinstance(chunks, str) and chunks == "auto":
        chunks = budget.automatic(tuple(map(int, x.shape)), np.dtype(x.dtype), getattr(x, "chunks", None), _like(x))
    in_memory = isinstance(x, np.ndarray) and not isinstance(x, np.memmap)
    if in_memory or hasattr(x, "__cuda_array_interface__"):
        return da.from_array(x, chunks=chunks)
    reader = Reader(x)
    if not reread:
        return da.from_array(reader, chunks=chunks, meta=np.empty(0, reader.dtype))
    cut = da.core.normalize_chunks(chunks, reader.shape, dtype=reader.dtype)
    name = f"read-{tokenize(reader, cut)}"
    if not cut:
        return da.from_array(reader[()], chunks=())
    graph = layers.blockwise_layer(name, reader, [], cut, located=True)
    return layers.array(graph, name, cut, reader.dtype, np.empty(0, reader.dtype))


def _like(x: Any) -> Any:
    return meta_from_array(x) if hasattr(x, "__cuda_array_interface__") else None


def from_zarr(store: Any, component: str | None = None, chunks: Any = "auto", *, reread: bool = True) -> da.Array:
    """Return a Zarr array as a Dask array; see `from_array` for `chunks` and `reread`.

    Parameters
    ----------
    store : path, store, zarr.Group or zarr.Array
    component : str, optional
        The array's path within a group.

    Raises
    ------
    OptionError
        It is a group, and `component` does not name an array in it.
    """
    zarr = targets.import_zarr()
    found = targets.opened(store, component)
    if isinstance(found, zarr.Array):
        return from_array(found, chunks, reread=reread)
    root = found if component is None else targets.opened(store, None)
    nodes = root.members(max_depth=None) if isinstance(root, zarr.Group) else ()
    names = ", ".join(sorted(path for path, node in nodes if isinstance(node, zarr.Array))) or "there are none"
    what = f"from_zarr({store!r})" if component is None else f"from_zarr({store!r}, {component!r})"
    is_ = "is not there" if found is None else "is a group"
    raise OptionError(f"{what} {is_}; give component= one of its arrays: {names}")


def to_zarr(
    x: Any,
    store: Any,
    component: str | None = None,
    *,
    overwrite: bool = False,
    checksum: bool = False,
    compute: bool = True,
) -> Any:
    """Write an array to Zarr, one chunk of the store for each chunk; chunks on a GPU come to the host first.

    Parameters
    ----------
    x : dask.array.Array or array_like
        Chunks of different lengths along an axis are made equal first, as Zarr has them.
    store : path, store, zarr.Group or zarr.Array
        A zarr.Array keeps its chunks and dtype, and must have the shape of `x`.
    component : str, optional
        Where to put the array in a group.
    overwrite : bool
        Whether an array that is there may be replaced.
    checksum : bool
        Whether each chunk ends with a CRC-32C, by which every reader of Zarr 3 finds damage that would otherwise give
        other numbers: 4 bytes for each chunk.
    compute : bool
        False returns a `dask.delayed.Delayed` that writes when it is computed.

    Raises
    ------
    OptionError
        `x` is computed from what would be overwritten; or the store is memory of this process, and the tasks run in
        others.
    ShapeError
        The zarr.Array has another shape.
    """
    zarr = targets.import_zarr()
    if hasattr(x, "dims"):
        raise DTypeError(f"to_zarr of {type(x).__name__}: expected an array; give its .data, or use its own to_zarr")
    x = to_host(x if isinstance(x, da.Array) else from_array(x))
    targets.check_reachable(x, store)
    if isinstance(store, zarr.Array):
        given = {"component": component, "overwrite": overwrite, "checksum": checksum}
        target, x = store, targets.fitted(x, store, [name for name, value in given.items() if value])
    else:
        if overwrite:
            targets.check_unread(x, store, component)
        regular = tuple(max(along, default=1) or 1 for along in x.chunks)
        x = x.rechunk(regular)
        codecs = [zarr.codecs.ZstdCodec(), zarr.codecs.Crc32cCodec()]  # the first is Zarr's default
        target = zarr.create_array(
            store.store_path if isinstance(store, zarr.Group) else store, name=component, shape=x.shape, dtype=x.dtype,
            chunks=regular, overwrite=overwrite, **({"compressors": codecs, "zarr_format": 3} if checksum else {}),
        )  # fmt: skip
    return targets.stored(x, target, compute)


def to_host(x: Any) -> Any:
    """Return a Dask array with NumPy chunks; one whose chunks are NumPy's already comes back as it is.

    An array that is not Dask's becomes NumPy's.
    """
    if not isinstance(x, da.Array):
        return asnumpy(x)
    if isinstance(x._meta, np.ndarray):
        return x
    return x.map_blocks(asnumpy, dtype=x.dtype, meta=np.empty((0,) * x.ndim, x.dtype), name=f"to-host-{tokenize(x)}")


def to_device(x: da.Array, device: str = "cuda") -> da.Array:
    """Return a Dask array with chunks on a GPU, by default on the one that each worker has.

    Raises
    ------
    DeviceError
        There is no such device.
    MissingExtraError
        CuPy is not installed.
    """
    made: da.Array = asarray(x, device=device)
    device_chunks.watch()  # after CuPy is loaded
    return made
