"""Ray Data wiring, and nothing else: one read task, one block and one part per unit.

With `telemetry` the only module that imports Ray. The three steps are the plain functions of
`gax_batch.unit`. Parts come back as a stream rather than through a `Datasink`, so that the driver sees each
unit as it ends (progress, rejects, failures) and alone decides about the commit.
"""

import logging
import math
import os
import socket
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from typing import TypeVar

import pyarrow as pa
import ray
import ray.data
from ray.data import ActorPoolStrategy, DataContext, TaskPoolStrategy
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask
from ray.util.annotations import RayDeprecationWarning

from gax_batch.board import INFERRING, READING, WRITING
from gax_batch.errors import FatalError, GaxError, UsageError
from gax_batch.interrupt import handlers_kept
from gax_batch.machine import Resources
from gax_batch.progress import Sample
from gax_batch.telemetry import Reporter, open_board, watched
from gax_batch.unit import (
    NOT_BEGUN,
    Engine,
    UnitOptions,
    UnitResult,
    UnitTask,
    infer,
    leave_out,
    parse_result,
    read,
    result_row,
    state_of,
    write,
)

# Every step asks for a fraction of a CPU: engines that hold all of them would starve the readers, and
# a run must finish on one logical CPU too (0.25 for each of reading, inference and writing).
STEP_CPUS = 0.25
MAX_RETRIES = 3
_CONNECT_SECONDS = 10.0

Item = TypeVar("Item")
Result = TypeVar("Result")

EngineFactory = Callable[[int], Engine]
"""Builds an engine inside its actor from the number of threads that it may use."""


class _UnitDatasource(Datasource):  # type: ignore[misc]
    """One read task per planned unit, which yields its pointer into the plan.

    The reading itself is the map that follows: unlike a read, a map lets its retries be bounded. Ray does
    not fuse the two, which costs one task of some milliseconds per unit.
    """

    def __init__(self, tasks: Sequence[UnitTask]) -> None:
        super().__init__()
        self._tasks = tasks

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(self, parallelism: int, *args: object, **kwargs: object) -> list[ReadTask]:
        return [ReadTask(partial(_pointer, task), BlockMetadata(1, None, None, None)) for task in self._tasks]


class _EngineActor:
    """Holds the models of one worker."""

    def __init__(
        self, factory: EngineFactory, threads: int, options: UnitOptions, reporter: Reporter
    ) -> None:
        self._engine = factory(threads)
        self._options = options
        self._reporter = reporter

    def __call__(self, block: pa.Table) -> pa.Table:
        unit_id = state_of(block).unit_id
        if not self._reporter.enter(unit_id, INFERRING):
            return leave_out(block)
        done = infer(block, self._engine, self._options, partial(self._reporter.advance, unit_id))
        self._reporter.leave(unit_id, INFERRING)
        return done


def _pointer(task: UnitTask) -> list[pa.Table]:
    return [pa.Table.from_pylist([asdict(task)])]


def _read_block(pointer: pa.Table, options: UnitOptions, reporter: Reporter) -> pa.Table:
    (values,) = pointer.to_pylist()
    task = UnitTask(**values)
    if not reporter.enter(task.unit_id, READING):
        return leave_out(task)
    block = read(task, options)
    reporter.leave(task.unit_id, READING)
    return block


def _write_block(block: pa.Table, options: UnitOptions, reporter: Reporter) -> pa.Table:
    unit_id = state_of(block).unit_id
    reporter.enter(unit_id, WRITING)
    row = result_row(write(block, options))
    reporter.leave(unit_id, WRITING)
    return row


@contextmanager
def ray_session(resources: Resources) -> Iterator[str]:
    """Join a cluster, or run a local Ray as long as the block lasts; yields Ray's folder here, with `logs`.

    Raises:
        UsageError: No cluster answers at the address.
        FatalError: Ray cannot be started, or refuses this process.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # With num_gpus=0 Ray must not touch the variables that show GPUs to TensorFlow.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # Shards of any origin are read: what their metadata holds is never unpickled.
    os.environ["RAY_DATA_AUTOLOAD_CLOUDPICKLE_TENSOR_METADATA"] = "0"
    local = {
        "address": "local",
        "num_cpus": resources.cpus,
        "object_store_memory": resources.object_store_bytes,
        "include_dashboard": False,
    }
    address = resources.address
    if address is not None:
        _require_answer(address)
    where = local if address is None else {"address": address}
    try:
        with handlers_kept():
            there = ray.init(**where, logging_level=logging.ERROR, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise FatalError(
            f"Ray cannot be started: {_root_cause(error)}; check --ray-address (or RAY_ADDRESS), and set "
            "RAY_AUTH_MODE=token where the cluster asks for a token"
        ) from error
    try:
        yield str(there.address_info["session_dir"])
    finally:
        ray.shutdown()


def _require_answer(address: str) -> None:
    """Refuse an address where nobody listens: Ray would try it for minutes."""
    host, _, port = address.rpartition(":")
    if not port.isdecimal():
        return  # "auto", which Ray itself looks up on this machine
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
    except OSError as error:
        raise UsageError(
            f"no Ray cluster answers at {address} ({error}); check --ray-address (or RAY_ADDRESS), or start "
            "one: ray start --head"
        ) from None


def execute(
    tasks: Sequence[UnitTask],
    factory: EngineFactory,
    options: UnitOptions,
    resources: Resources,
    see: Callable[[Sample], bool],
) -> Generator[UnitResult, None, None]:
    """Run the units and yield each one's result as it ends, in any order.

    Args:
        tasks: The units.
        factory: Of the engines.
        options: Of the run.
        resources: What the run uses.
        see: Is shown every second, in a thread of its own, how the workers stand; once it returns true, no
            more units are begun, and those that are not begun have no result.

    Raises:
        FatalError: the pipeline itself broke; the parts written so far are kept.
    """
    _configure()
    use = _layout(resources, len(tasks))
    try:
        with open_board() as board, watched(board, use.workers, see):
            with warnings.catch_warnings():
                # Ray 2.60 wants named parameters, but has none that bounds retries, endless by default.
                warnings.filterwarnings("ignore", ".*ray_remote_args.*", category=RayDeprecationWarning)
                results = _wire(tasks, factory, options, use, Reporter(board))
            for row in results.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                result = parse_result(row)
                if result.state.failure != NOT_BEGUN:
                    yield result
    except (ray.exceptions.RayError, RuntimeError, OSError) as error:
        raise FatalError(f"the pipeline broke: {_root_cause(error)}") from error


def map_tasks(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Call a function for each item on the cluster of the session, and yield the results in any order.

    A worker's end is outlasted by `MAX_RETRIES`; no more tasks are in flight than keep all CPUs busy.

    Args:
        function: At the top level of a module, so that a worker can import it.
        items: Small values; each travels to a worker.

    Raises:
        GaxError: The function's own.
        FatalError: A worker kept dying, or the function raised anything else.
    """
    task = ray.remote(num_cpus=1, max_retries=MAX_RETRIES)(function)
    in_flight = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
    waiting = iter(items)
    running: set[ray.ObjectRef] = set()
    try:
        while True:
            running.update(task.remote(item) for item in islice(waiting, in_flight - len(running)))
            if not running:
                return
            (done,), _ = ray.wait(list(running))
            running.remove(done)
            yield ray.get(done)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, GaxError):
            raise type(error.cause)(str(error.cause)) from error
        raise FatalError(f"a task failed: {_root_cause(error)}") from error
    except ray.exceptions.RayError as error:
        raise FatalError(f"a task was lost: {_root_cause(error)}") from error


def _wire(
    tasks: Sequence[UnitTask],
    factory: EngineFactory,
    options: UnitOptions,
    use: "_Layout",
    reporter: Reporter,
) -> ray.data.Dataset:
    blocks = {"batch_size": None, "batch_format": "pyarrow"}
    return (
        ray.data.read_datasource(_UnitDatasource(tasks), override_num_blocks=len(tasks), num_cpus=STEP_CPUS)
        .map_batches(
            _read_block,
            fn_args=(options, reporter),
            compute=TaskPoolStrategy(use.readers),
            num_cpus=use.reader_cpus,
            max_retries=MAX_RETRIES,
            **blocks,
        )
        .map_batches(
            _EngineActor,
            fn_constructor_args=(factory, use.threads, options, reporter),
            compute=ActorPoolStrategy(size=use.workers, max_tasks_in_flight_per_actor=2),
            num_cpus=use.engine_cpus,
            num_gpus=use.engine_gpus,
            max_restarts=MAX_RETRIES,
            max_task_retries=MAX_RETRIES,
            **blocks,
        )
        .map_batches(
            _write_block,
            fn_args=(options, reporter),
            num_cpus=STEP_CPUS,
            max_retries=MAX_RETRIES,
            **blocks,
        )
    )


@dataclass(frozen=True, slots=True)
class _Layout:
    """Engines and readers, and what each asks of Ray; no `readers` is as many as the cluster has room for."""

    workers: int
    threads: int
    engine_cpus: float
    engine_gpus: float | None
    readers: int | None
    reader_cpus: float


def _layout(resources: Resources, units: int) -> _Layout:
    cluster = ray.cluster_resources()
    cpus, gpus = int(cluster.get("CPU", 1)), int(cluster.get("GPU", 0))
    workers = min(resources.workers or max(1, gpus), units)
    asked = resources.engine_cpus
    joined = resources.address is not None
    if asked is not None and joined:
        # Nothing is shared out of what is there: an autoscaler starts nodes for what is asked. A reader keeps
        # one core busy, and leaves the writer its quarter of it.
        return _Layout(workers, max(1, int(asked)), asked, resources.engine_gpus, None, 1 - STEP_CPUS)
    return _Layout(
        workers,
        # On a cluster each engine has a node's cores to itself (0: all of them); a local Ray shares them out.
        0 if joined else max(1, cpus // workers),
        # However many engines there are, half of the CPUs stay for reading and writing.
        min(STEP_CPUS, cpus / (2 * workers)),
        # Whole engines share a GPU evenly: two GPUs and three engines are two engines on one of them.
        resources.engine_gpus or (1 / math.ceil(workers / gpus) if gpus else None),
        min(cpus, units),
        STEP_CPUS,
    )


def _configure() -> None:
    context = DataContext.get_current()
    # One block is one unit all the way: never split what a task returns.
    context.target_max_block_size = None
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # Waiting long for a scarce GPU is no error.
    context.execution_no_progress_timeout_s = -1
    logging.getLogger("ray.data").setLevel(logging.ERROR)


def _root_cause(error: BaseException) -> str:
    """The last line of what Ray says, which names the exception in the worker."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
