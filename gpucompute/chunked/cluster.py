"""One call that gives a cluster: a worker on each GPU of this machine, or on its cores, or one that exists."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

from ..errors import ClusterError, MissingExtraError, OptionError
from ..launch.cpu import get_threads
from .plan import Plan, make_plan, plan_existing

if TYPE_CHECKING:
    from .watch import Nannies, Watch

CLOSING = 5.0  # seconds that each step of the ending may take

# What Dask's nannies set for their workers they set in the process that starts them too.
_LEAKING = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MALLOC_TRIM_THRESHOLD_", "PYTHONHASHSEED")


def start_cluster(
    address_or_cluster: Any = None,
    *,
    device: str = "auto",
    workers: int | None = None,
    memory_limit: float | str | None = "auto",
    device_memory_limit: float | str | None = "auto",
    rmm_pool: float | str | bool | None = None,
    protocol: str = "auto",
    plan_only: bool = False,
    timeout: float = 60.0,
    patience: float | None = None,
) -> Cluster:
    """Start workers on this machine's GPUs or cores, or connect to a cluster that exists.

    With GPUs this is a `dask_cuda.LocalCUDACluster`: a worker for each GPU, on the cores next to it, that spills chunks
    from the GPU to the host and from there to disk. Without it is a `distributed.LocalCluster` of processes. The
    workers' tasks and gpucompute's own threads share the cores and together never use more. Kernels that one worker
    has compiled are sent to those with the same processor, or the same kind of GPU.

    Parameters
    ----------
    address_or_cluster : str or cluster, optional
        The address of a scheduler, or any cluster object of Dask's (dask-jobqueue, dask-kubernetes, ...). Such a
        cluster stays when the context ends.
    device : {"auto", "cpu", "cuda"}
        ``"auto"``: GPUs where there are some and ``gpucompute[dask-cuda]`` is installed.
    workers : int, optional
        Processes; by default one for each GPU, or a square root of the cores. For a cluster that exists: how many to
        wait for, by default 1.
    memory_limit : int, float or str, optional
        Of the host's memory, for each worker: bytes, a fraction of the memory, or a text such as ``"4GiB"``; by
        default equal shares. None: no limit. Above 60% of it chunks are written to disk.
    device_memory_limit : int, float or str, optional
        Bytes of chunks on a GPU (also as a fraction or text), beyond which they go to the host; by default 80% of
        its memory. None: no spilling.
    rmm_pool : int, float, str or bool, optional
        What RMM's pool takes on each GPU at the start, CuPy included; by default half of the memory where RMM is
        installed. False: CuPy's own pool.
    protocol : {"auto", "tcp", "tls", "ws", "wss", "ucx", "ucxx"}
        ``"auto"``: UCX between several GPUs where distributed-ucxx is installed, else TCP.
    plan_only : bool
        Start nothing: only ``plan`` of what is returned can be used.
    timeout : float
        Seconds to wait for the workers.
    patience : float, optional
        Seconds in which no worker can take a task before those that wait are cancelled with the reason; by default 60,
        and 600 where a cluster that exists has no workers, since some may be on their way. ``math.inf``: wait.

    Returns
    -------
    Cluster
        A context manager with the attributes ``client`` and ``plan``. The client is Dask's default one meanwhile.

    Raises
    ------
    ClusterError
        No scheduler answers, too few workers come up, or they lack gpucompute.
    MissingExtraError
        A package is needed that is not installed; the message has the command.
    OptionError, DeviceError
        An option has a wrong value; ``device="cuda"`` without a GPU.

    Examples
    --------
    >>> plan = start_cluster(device="cpu", workers=2, memory_limit="1GiB", plan_only=True).plan
    >>> print(plan)
    cluster                     this machine
    device                      cpu
    workers                     2
    tasks at a time per worker  ...
    memory limit per worker     1.00 GiB
    protocol                    tcp
    """
    try:
        import distributed  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("distributed", "dask", "a cluster") from error
    if address_or_cluster is None:
        plan = make_plan(
            device=device, workers=workers, memory_limit=memory_limit, device_memory_limit=device_memory_limit,
            rmm_pool=rmm_pool, protocol=protocol,
        )  # fmt: skip
    else:
        given = {
            "device": device != "auto", "memory_limit": memory_limit != "auto", "protocol": protocol != "auto",
            "device_memory_limit": device_memory_limit != "auto", "rmm_pool": rmm_pool is not None,
        }  # fmt: skip
        plan = plan_existing(_address(address_or_cluster), workers, [name for name, is_set in given.items() if is_set])
    if plan_only:
        return Cluster(plan)
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise ClusterError(
            "start_cluster() was called while a worker process imports the script that started it; write the "
            'call below `if __name__ == "__main__":`, so that only the first process runs it'
        )
    return _start(plan, address_or_cluster, timeout, patience)


class Cluster:
    """A running cluster, or only its plan; see `start_cluster`.

    Attributes
    ----------
    plan : Plan
        The configuration; of a cluster that existed, as it was found.
    client : distributed.Client
    """

    def __init__(self, plan: Plan, client: Any = None) -> None:
        self.plan = plan
        self._client = client
        self._parts: contextlib.ExitStack | None = None
        self._watch: Watch | None = None

    @property
    def client(self) -> Any:
        if self._client is None:
            raise ClusterError("this cluster is not running: it was closed, or made with plan_only=True")
        return self._client

    def close(self) -> None:
        """End the client, and the workers if they were started here."""
        parts, self._parts, self._client = self._parts, None, None
        if parts is not None:
            parts.close()

    def explain(self, error: BaseException) -> str | None:
        """Return why workers were lost, for an error of Dask's that does not say it, or None.

        Errors that leave a ``with`` block have this as a note; without the block, ask while the cluster runs.
        """
        return None if self._watch is None else self._watch.explain(error)

    def __enter__(self) -> Self:
        if self._parts is not None:  # a client made in a `with` block around this one would go before
            self._parts.enter_context(contextlib.suppress(ValueError))  # it is closed in another thread
            self._parts.enter_context(self._client.as_current())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is not None and (cause := self.explain(error)):
            error.add_note(cause)
        self.close()

    def __repr__(self) -> str:
        return f"<Cluster, {'running' if self._client is not None else 'not running'}>\n{self.plan}"


def _address(given: Any) -> str:
    if isinstance(given, str):
        return given
    address = getattr(given, "scheduler_address", None)
    if not isinstance(address, str):
        raise OptionError(
            f"start_cluster({type(given).__name__} ...): expected the address of a scheduler, such as "
            "'tcp://10.0.0.1:8786', or a cluster object of Dask's, or nothing"
        )
    return address


def _start(plan: Plan, given: Any, timeout: float, patience: float | None) -> Cluster:
    from . import shipping, watch, worker_setup

    with contextlib.ExitStack() as parts:
        get_threads()  # remembered: a worker that is started anew sets OMP_NUM_THREADS here again
        parts.enter_context(_own_environment())
        nannies = parts.enter_context(watch.listen())
        own = given is None
        try:
            cluster = parts.enter_context(_local(plan)) if own else given
            client = _connect(cluster, plan, timeout)
            parts.callback(_quietly, client.close, CLOSING)
            _wait(client, plan, timeout, nannies)
            share = plan.kernel_threads if own else None
            sites = _sites(client, plan, timeout, share)
            # The cores next to a GPU may be fewer than its share, and the environment may ask for fewer.
            threads = min(site.threads for site in sites.values())
            plan = replace(plan, kernel_threads=threads) if own else _found(client, plan, sites, threads)
            # The client asks no driver: a context of its own would take GPU memory from the first worker.
            architectures = {name[7:] for site in sites.values() for name in site.families if name[:7] == "cubins/"}
            hub = shipping.Hub(client, worker_setup.families(architectures))
            at = {address: (site.place, site.families) for address, site in sites.items()}
            _answered(client, plan, timeout, hub.start, at)
            parts.callback(_quietly, client.sync, hub.stop, callback_timeout=CLOSING)
            client.subscribe_topic(worker_setup.TOPIC, hub.heard)
            plugin = f"gpucompute-{client.id}"  # several clients may use one cluster
            _answered(client, plan, timeout, client.register_plugin, worker_setup.Setup(share), name=plugin)
            if not own:
                parts.callback(_unregister, client, plugin)
            if nannies.too_large:
                raise ClusterError(nannies.failed(plan, ""))
        except (OSError, RuntimeError, ValueError) as error:
            if isinstance(error, ClusterError):
                raise
            raise ClusterError(nannies.failed(plan, watch.root(error))) from error
        running = Cluster(plan, client)
        running._watch = watch.Watch(client, plan, own, nannies, patience)
        parts.callback(running._watch.stop)
        running._parts = parts.pop_all()
    return running


@contextlib.contextmanager
def _own_environment() -> Iterator[None]:
    """Keep the settings for workers, which nannies make in this process too, out of what follows."""
    before = {name: os.environ.get(name) for name in _LEAKING}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _local(plan: Plan) -> Iterator[Any]:
    options: dict[str, Any] = {
        "n_workers": plan.workers, "threads_per_worker": plan.threads_per_worker, "protocol": plan.protocol,
        "memory_limit": plan.memory_limit or 0, "dashboard_address": _dashboard(),
    }  # fmt: skip
    if plan.device == "cuda":
        try:
            from dask_cuda import LocalCUDACluster as Kind
        except ImportError as error:  # installed without its own extra it lacks cuda-bindings
            raise MissingExtraError("dask-cuda", "dask-cuda", "a cluster of GPUs") from error
        options |= {"device_memory_limit": plan.device_memory_limit}
        if plan.rmm_pool is not None:
            options |= {"rmm_pool_size": plan.rmm_pool, "rmm_allocator_external_lib_list": ["cupy"]}
    else:
        from distributed import LocalCluster as Kind

        options |= {"processes": True}
    with _own_environment():
        cluster = Kind(**options)
    try:
        yield cluster
    finally:
        _end(cluster)


def _end(cluster: Any) -> None:
    """Close a cluster of this machine, and kill what does not end: Python waits for its children when it exits."""
    pids = {nanny.pid for nanny in cluster.workers.values()}
    with contextlib.suppress(TimeoutError):
        cluster.close(timeout=2 * CLOSING)
    for child in multiprocessing.active_children():
        if child.pid in pids:
            child.kill()
            child.join(CLOSING)


def _dashboard() -> str:
    """Return where Dask's dashboard is shown: for this machine only, at its usual port or, if that is taken, any."""
    with socket.socket() as trial:
        try:
            trial.bind(("127.0.0.1", 8787))
        except OSError:
            return "127.0.0.1:0"
    return "127.0.0.1:8787"


def _connect(cluster: Any, plan: Plan, timeout: float) -> Any:
    from distributed import Client

    try:
        return Client(cluster, timeout=timeout)
    except (OSError, ValueError) as error:  # TimeoutError is an OSError; ValueError: an address that is none
        raise ClusterError(
            f"no scheduler answers at {plan.where} within {timeout:g} s ({error}); check the address, and that the "
            "scheduler runs and can be reached from here"
        ) from error


def _wait(client: Any, plan: Plan, timeout: float, nannies: Nannies) -> None:
    """Wait for the workers, as long as none has failed to start: nobody starts those again."""
    deadline = time.monotonic() + timeout
    while True:
        left = deadline - time.monotonic()
        try:
            client.wait_for_workers(plan.workers, timeout=max(0.01, min(left, 0.5)))
        except TimeoutError as error:
            if left <= 0 or nannies.failures or nannies.too_large:
                came = len(client.scheduler_info()["workers"])
                raise ClusterError(nannies.failed(plan, f"waited for {timeout:g} s", came)) from error
        else:
            return


def _answered(client: Any, plan: Plan, timeout: float, function: Any, *args: Any, **options: Any) -> Any:
    """Call a coroutine, or a method of the client, with a limit of time: a worker that is stuck answers nothing."""

    async def call() -> Any:
        return await function(*args, **options)

    try:
        return client.sync(call, callback_timeout=timeout)
    except TimeoutError as error:
        raise ClusterError(
            f"the workers of {plan.where} do not answer within {timeout:g} s; look at their logs, end those that hang, "
            "or wait longer with timeout="
        ) from error


def _sites(client: Any, plan: Plan, timeout: float, share: int | None) -> dict[str, Any]:
    """Ask the workers what they are, and see that they have this version of gpucompute."""
    from .. import __version__
    from .worker_setup import Site, describe

    answers = _answered(client, plan, timeout, client.run, describe, share, on_error="return")
    if not answers:
        raise OSError("the workers ended before they were asked anything")
    sites: dict[str, Site] = {}
    for address, answer in answers.items():
        if isinstance(answer, OSError):  # it has ended meanwhile
            raise answer
        if isinstance(answer, BaseException):
            raise ClusterError(
                f"the worker {address} of {plan.where} cannot use gpucompute ({_line(answer)}); install it there: "
                f"pip install 'gpucompute[dask]=={__version__}'"
            ) from answer
        sites[address] = Site(*answer)
        if sites[address].version != __version__:
            raise ClusterError(
                f"the worker {address} of {plan.where} has gpucompute {sites[address].version}, and here is "
                f"{__version__}; install the same version in both"
            )
    return sites


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _found(client: Any, plan: Plan, sites: dict[str, Any], kernel_threads: int) -> Plan:
    """Return the plan of a cluster that existed, as its workers say it is."""
    workers = client.scheduler_info()["workers"]
    threads = {worker["nthreads"] for worker in workers.values()}
    limits = [site.memory_limit for site in sites.values() if site.memory_limit]
    gpus = any(len(site.families) > 1 for site in sites.values())
    notes = ("its workers differ; the smallest values are shown",) if len(threads) > 1 or len(set(limits)) > 1 else ()
    return Plan(
        plan.where, "cuda" if gpus else "cpu", len(workers), min(threads), kernel_threads, min(limits, default=None),
        protocol=client.scheduler.address.split("://", 1)[0], notes=notes,
    )  # fmt: skip


def _quietly(function: Any, *args: Any, **options: Any) -> None:
    """Call what tidies up; when the scheduler is gone there is nothing left to tidy."""
    with contextlib.suppress(OSError, RuntimeError, ValueError, KeyError):
        function(*args, **options)


def _unregister(client: Any, plugin: str) -> None:
    """Leave the workers of others as they were; without a scheduler that would be waited for in vain."""

    async def call() -> None:
        await client.unregister_worker_plugin(plugin)

    if client.status == "running":
        _quietly(client.sync, call, callback_timeout=CLOSING)
