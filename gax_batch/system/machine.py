"""The resources of this machine, their share for each worker, and a run's predicted and measured memory."""

import math
import os
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal

import psutil

from gax_batch.errors import UsageError
from gax_batch.system.cpus import logical_cpus

MIB = 1 << 20
CUTOUT_BYTES = 64 * 64 * 3
# CPUs that a step requests. Engines that hold all CPUs would starve the readers, and a run must also
# finish on one logical CPU (0.25 for each of reading, inference and writing).
STEP_CPUS = 0.25

# Private pages of one process each, measured on CPython 3.11 and rounded up: whole runs on two cores took
# 1.4 GiB for 5,000 cutouts and 2.3 GiB for a million.
DRIVER_BYTES = 300 * MIB
RAY_BYTES = 300 * MIB
READER_BYTES = 150 * MIB
ENGINE_BYTES = 900 * MIB
# The convolutions' kernels of one pass and the dense layers' of one draw, with the copies that are made while
# they are stacked; of a draw, also its fractions while they are summed.
PASS_BYTES = 5 * MIB
DRAW_BYTES = 1 * MIB
# The 37 fractions of one galaxy and one draw that is kept, as float16.
KEPT_BYTES = 2 * 37
# Memory of the driver for each unit, nearly all of it in Ray: 57 and 59 kB in two runs of `make bench`
# (benchmarks/bench_growth.py, which checks this bound).
UNIT_BYTES = 60_000


@dataclass(frozen=True, slots=True)
class Resources:
    """The resources that a run uses.

    Attributes:
        cpus: Logical CPUs.
        workers: Number of engine actors; None for one per GPU, or one if there are no GPUs.
        object_store_bytes: Size of Ray's object store in bytes.
        engine_cpus: CPUs that each engine requests on a cluster; None for a share of those available.
        engine_gpus: GPUs that each engine requests on a cluster; None for a share of those available.
        address: Address of an existing Ray cluster; None to start Ray for this run.
    """

    cpus: int
    workers: int | None
    object_store_bytes: int
    engine_cpus: float | None = None
    engine_gpus: float | None = None
    address: str | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """Engines and readers, and the resources that each requests from Ray.

    Attributes:
        workers: Number of engines.
        threads: Threads of one engine; 0 for all cores of its node.
        engine_cpus: CPUs that one engine requests.
        engine_gpus: GPUs that one engine requests; None without GPUs.
        readers: Number of readers; None for as many as the cluster can hold.
        reader_cpus: CPUs that one reader requests.
    """

    workers: int
    threads: int
    engine_cpus: float
    engine_gpus: float | None
    readers: int | None
    reader_cpus: float

    def lack(self, cpus: int, gpus: int) -> str | None:
        """Return a text about engines that the cluster has no room for yet, or None.

        Args:
            cpus: Logical CPUs of the cluster.
            gpus: GPUs of the cluster.
        """
        each = self.engine_gpus or 0
        if self.workers * self.engine_cpus <= cpus and self.workers * each <= gpus:
            return None
        return (
            f"{self.workers} engines request {self.engine_cpus:g} CPUs and {each:g} GPUs each; the cluster "
            f"has {cpus} CPUs and {gpus} GPUs"
        )


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """A run's predicted memory in bytes, by use."""

    driver: int
    ray: int
    readers: int
    engines: int
    object_store: int

    @property
    def total(self) -> int:
        """The sum, object store included."""
        return self.driver + self.ray + self.readers + self.engines + self.object_store

    def __str__(self) -> str:
        parts = {
            "driver": self.driver,
            "Ray": self.ray,
            "readers": self.readers,
            "models": self.engines,
            "object store": self.object_store,
        }
        listed = ", ".join(f"{name} {size / MIB:,.0f}" for name, size in parts.items())
        return f"{self.total / MIB:,.0f} MiB ({listed})"


def cluster_address(asked: str | None = None) -> str | None:
    """Return the address of the Ray cluster to join, or None to start Ray for this run.

    Args:
        asked: Address that the user gave; None for that of the environment variable `RAY_ADDRESS`.

    Raises:
        UsageError: The address is that of a Ray Client or of a dashboard.
    """
    address = asked or os.environ.get("RAY_ADDRESS") or "local"
    if "://" in address:
        raise UsageError(
            f"{address} is the address of a Ray Client or of a dashboard; give HOST:PORT of the head (6379) "
            "from a machine of the cluster, or start the run there: ray job submit -- gax run ..."
        )
    return None if address == "local" else address


def available_bytes() -> int:
    """Return the free memory in bytes of the machine, or of the control group if that is less."""
    free = int(psutil.virtual_memory().available)
    group = Path("/sys/fs/cgroup")
    try:
        limit = (group / "memory.max").read_text().strip()
        used = int((group / "memory.current").read_text())
        counters = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        # Cached files count as used, but the kernel frees them on demand.
        used -= int(counters["inactive_file"])
    except (OSError, ValueError, KeyError):
        return free
    return free if limit == "max" else min(free, int(limit) - used)


def local_resources(
    *,
    cpus: Literal["auto"] | int,
    workers: Literal["auto"] | int,
    object_store_mib: Literal["auto"] | int,
    unit_size: int,
    kept_draws: int = 0,
    address: str | None = None,
) -> Resources:
    """Resolve the user's settings, `auto` included, into numbers.

    Args:
        cpus: Logical CPUs; `auto` for all.
        workers: Engines; `auto` decides by the GPUs.
        object_store_mib: Size of Ray's object store in MiB; `auto` derives it from the unit size.
        unit_size: Cutouts per unit.
        kept_draws: Draws stored for each galaxy.
        address: Address of an existing Ray cluster; None to start Ray for this run.
    """
    logical = logical_cpus() if cpus == "auto" else cpus
    if object_store_mib == "auto":
        # Units in flight: read ahead, in the engines, and being written; doubled as a reserve.
        units_in_flight = 2 * logical + 4
        row = max(CUTOUT_BYTES, kept_draws * KEPT_BYTES) + 2_048
        store = max(256 * MIB, 2 * units_in_flight * unit_size * row)
    else:
        store = object_store_mib * MIB
    return Resources(logical, None if workers == "auto" else workers, store, address=cluster_address(address))


def lay_out(resources: Resources, cpus: int, gpus: int, units: int) -> Layout:
    """Divide a cluster's logical CPUs and GPUs among the workers of a run.

    Args:
        resources: Resources of the run.
        cpus: Logical CPUs of the cluster.
        gpus: GPUs of the cluster.
        units: Units of the run.
    """
    workers = min(resources.workers or max(1, gpus), units)
    asked = resources.engine_cpus
    joined = resources.address is not None
    if asked is not None and joined:
        # Do not divide the present resources: an autoscaler starts nodes for the requests. A reader keeps
        # one core busy, and leaves its quarter of the core to the writer.
        return Layout(workers, max(1, int(asked)), asked, resources.engine_gpus, None, 1 - STEP_CPUS)
    return Layout(
        workers,
        # On a cluster, each engine has a node's cores to itself (0: all of them). A local Ray divides them.
        0 if joined else max(1, cpus // workers),
        # Three quarters of the CPUs stay for reading and writing, however many engines run. When engines
        # held half of two CPUs, Ray Data read one unit at a time, at most nine a second.
        min(STEP_CPUS, cpus / (4 * workers)),
        # Only whole engines share a GPU evenly: with two GPUs and three engines, two engines share one GPU.
        resources.engine_gpus or (1 / math.ceil(workers / gpus) if gpus else None),
        min(cpus, units),
        STEP_CPUS,
    )


def predict_memory(
    resources: Resources, *, units: int, unit_size: int, passes: int, draws: int, kept_draws: int = 0
) -> MemoryNeed:
    """Predict the memory that a run still needs on this machine: on a cluster, only that of the driver.

    Args:
        resources: Resources that the run will use.
        units: Units of the run.
        unit_size: Cutouts of the largest unit.
        passes: Passes through the convolutions that each engine holds.
        draws: Weight draws that each engine holds.
        kept_draws: Draws stored for each galaxy.
    """
    held = psutil.Process().memory_info().rss
    driver = max(0, DRIVER_BYTES + units * UNIT_BYTES - held)
    if resources.address is not None:
        return MemoryNeed(driver, 0, 0, 0, 0)
    unit = unit_size * CUTOUT_BYTES
    kept = 3 * unit_size * kept_draws * KEPT_BYTES
    weights = passes * PASS_BYTES + draws * DRAW_BYTES
    return MemoryNeed(
        driver=driver,
        ray=RAY_BYTES,
        readers=(resources.cpus + 1) * (READER_BYTES + 2 * unit + kept),
        engines=(resources.workers or 1) * (ENGINE_BYTES + weights + unit + kept),
        object_store=resources.object_store_bytes,
    )


def require_memory(need: MemoryNeed, available: int) -> None:
    """Check that a run fits into memory.

    Raises:
        UsageError: It does not fit. The message has the predicted need and the available memory.
    """
    if need.total > available:
        raise UsageError(
            f"this run needs about {need} and {available / MIB:,.0f} MiB are available; "
            "use a smaller --unit-size (of new units), fewer --workers or a larger machine"
        )


class _MemoryBound:
    """The memory limit of this process, shared by the blocks that run concurrently in its threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blocks = 0
        self._before = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)

    def enter(self, size: int) -> None:
        with self._lock:
            self._blocks += 1
            if self._blocks == 1:
                self._before = soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
                # Private writable memory, whether in use or not. Only Linux reports it.
                taken = getattr(psutil.Process().memory_info(), "data", None)
                wanted = [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
                wanted += [] if taken is None else [taken + size]
                resource.setrlimit(resource.RLIMIT_DATA, (min(wanted, default=soft), hard))

    def leave(self) -> None:
        with self._lock:
            self._blocks -= 1
            if not self._blocks:
                resource.setrlimit(resource.RLIMIT_DATA, self._before)


_bound = _MemoryBound()


@contextmanager
def memory_bound(size: int) -> Iterator[None]:
    """Limit how much more memory this process may allocate while a block runs.

    This is the last protection against hostile input, whatever sizes its header claims. If several threads
    run such blocks, the limit of the first one applies. On Linux the private memory of this process is
    limited (RLIMIT_DATA); on other systems nothing is.

    Args:
        size: Additional memory in bytes. A larger allocation raises MemoryError.
    """
    _bound.enter(size)
    try:
        yield
    finally:
        _bound.leave()


class MemoryMeter:
    """Sample the memory of this process and its children while a `with` block runs.

    Only private pages count: shared pages belong to Ray's object store, whose size the settings limit.
    """

    def __init__(self, interval_seconds: float = 1.0) -> None:
        # The peak of this process so far, which includes its planning.
        self.peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        self._interval = interval_seconds
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="memory-meter", daemon=True)

    def __enter__(self) -> "MemoryMeter":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def _sample(self) -> None:
        this = psutil.Process()
        while True:
            self.peak_bytes = max(self.peak_bytes, _private_bytes(this))
            if self._done.wait(self._interval):
                return


def _private_bytes(root: psutil.Process) -> int:
    total = 0
    for process in [root, *root.children(recursive=True)]:
        try:
            info = process.memory_info()
        except psutil.Error:
            continue
        total += info.rss - getattr(info, "shared", 0)
    return total
