"""Run by test_cuda_cluster.py, with a stub of NVML on the library path: start a cluster, print what it is as JSON."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import numpy as np

MIB = 1 << 20
COUNT = 24  # arrays of 1 MiB, on two workers with room for 4 MiB each


class DeviceArray:
    """Memory that stands for a GPU's: it is never taken for NumPy's, and is copied only when asked."""

    def __init__(self, values: np.ndarray[Any, Any]) -> None:
        self._values = values
        self.nbytes = values.nbytes

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        values = self._values
        return {
            "shape": values.shape, "typestr": values.dtype.str, "data": (values.ctypes.data, False), "version": 3
        }  # fmt: skip

    def __array__(self, *_: Any, **__: Any) -> None:
        raise TypeError("implicit copy from the device")

    def get(self) -> np.ndarray[Any, Any]:
        return self._values.copy()


def register() -> None:
    """Teach Dask the sizes of such arrays, and how they come to the host and back."""
    from dask.sizeof import sizeof
    from distributed.protocol import dask_deserialize, dask_serialize

    sizeof.register(DeviceArray, lambda array: array.nbytes)
    dask_serialize.register(DeviceArray, lambda array: ({"dtype": array.get().dtype.str}, [memoryview(array.get())]))
    dask_deserialize.register(
        DeviceArray, lambda header, frames: DeviceArray(np.frombuffer(frames[0], header["dtype"]))
    )


def make(value: int) -> DeviceArray:
    return DeviceArray(np.full(MIB // 8, float(value)))


def mean(array: DeviceArray) -> float:
    return float(array.get().mean())


def state(dask_worker: Any) -> dict[str, Any]:
    import gpucompute as gp

    data = dask_worker.data
    return {
        "visible": os.environ["CUDA_VISIBLE_DEVICES"],
        "affinity": sorted(os.sched_getaffinity(0)),
        "threads": dask_worker.state.nthreads,
        "kernel_threads": gp.get_threads(),
        "memory_limit": dask_worker.memory_manager.memory_limit,
        "device": len(data.device),
        "host": len(data.host),
        "plugins": sorted(name.split("-")[0] for name in dask_worker.plugins),
    }


def main(mode: str) -> dict[str, Any]:
    import gpucompute as gp
    from gpucompute.chunked import start_cluster

    report: dict[str, Any] = {"devices": [str(device) for device in gp.devices()]}
    report["plan"] = str(start_cluster(plan_only=True, memory_limit="1GiB").plan)
    if mode == "rmm":  # its pool needs a driver, so the workers die as they start
        try:
            start_cluster(rmm_pool="16MiB", memory_limit="1GiB").close()
        except gp.GpucomputeError as error:
            report["error"] = f"{type(error).__name__}: {error}"
        return report
    register()
    with start_cluster(rmm_pool=False, memory_limit="1GiB", device_memory_limit="4MiB") as cluster:
        client = cluster.client
        client.run(register)
        arrays = client.map(make, range(COUNT))
        report["means"] = client.gather(client.map(mean, arrays))
        report["workers"] = list(client.run(state).values())
    return report


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
