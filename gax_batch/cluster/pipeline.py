"""Run units with Ray Data: each unit is one pointer, one block and one part.

Only this module and `metrics` import Ray. `gax_batch.cluster.workers` has the functions that the workers run.
Results are streamed to the driver and not written by a `Datasink`: the driver counts each unit as it ends and
is the only process that commits. Units without a result are processed alone (`gax_batch.cluster.isolation`).
"""

import logging
import os
import socket
import sys
import threading
from collections.abc import Callable, Container, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from typing import TypeVar

import ray
import ray.data
from ray.actor import ActorHandle
from ray.data import ActorPoolStrategy, DataContext, TaskPoolStrategy

from gax_batch.cluster.isolation import WorkerFailure, save_unit
from gax_batch.cluster.metrics import Reporter, open_tracker, sampling
from gax_batch.cluster.progress import Sample, duration
from gax_batch.cluster.unit import Summarizer, UnitOptions, UnitResult, UnitStatus, UnitTask
from gax_batch.cluster.unit_tracker import READING, Step, StepLimit, TrackerView
from gax_batch.cluster.workers import Classifier, SingleUnitActor, Steps, read_block, write_block
from gax_batch.errors import FatalError, GaxError, UsageError
from gax_batch.models.precision import Rates, measure_rates
from gax_batch.rejects import Reject
from gax_batch.system.machine import STEP_CPUS, Layout, Resources, lay_out
from gax_batch.system.signals import handlers_kept
from gax_batch.system.stderr import quiet_threads

logger = logging.getLogger(__name__)

# Attempts of a task of `map_tasks`, and of a step of a unit. Ray Data retries a lost step without limit; the
# tracker limits that (see `UnitTracker.enter`). Units that are still lost are attempted alone.
MAX_RETRIES = 3
MAX_TRIES = 2
MAX_LOST = 4
# Units in a row that failed even alone, and rounds in which no unit was begun: beyond these numbers, the
# galaxies are not the cause.
MAX_FAILED_ALONE = 3
MAX_IDLE = 3
_CONNECT_SECONDS = 10.0
# By default Ray ends processes that are idle for a second. Each unit would then start new processes for
# reading and writing, whose imports take longer than reading a small unit.
_KEEP_IDLE_MS = "600000"

Item = TypeVar("Item")
Result = TypeVar("Result")

EngineFactory = Callable[[int], Summarizer]
"""Builds an engine inside its actor from the number of threads that it may use."""


@contextmanager
def ray_session(resources: Resources) -> Iterator[str]:
    """Join a cluster, or run a local Ray while the block runs. Yield Ray's local folder, which has `logs`.

    Raises:
        UsageError: No cluster answers at the address.
        FatalError: Ray cannot be started, or does not accept this process.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # With num_gpus=0 Ray must not touch the variables that show GPUs to TensorFlow.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # Shards may come from an untrusted source: never unpickle their metadata.
    os.environ["RAY_DATA_AUTOLOAD_CLOUDPICKLE_TENSOR_METADATA"] = "0"
    local = {
        "address": "local",
        "num_cpus": resources.cpus,
        "object_store_memory": resources.object_store_bytes,
        "include_dashboard": False,
    }
    address = resources.address
    if address is None:
        os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", _KEEP_IDLE_MS)
    else:
        _require_answer(address)
    where = local if address is None else {"address": address}
    before = set(threading.enumerate())
    try:
        with handlers_kept():
            there = ray.init(**where, logging_level=logging.ERROR, log_to_driver=False)
    # Ray raises plain exceptions where one of its processes does not start in time.
    except Exception as error:
        known = isinstance(error, ConnectionError | RuntimeError | ValueError)
        if not known and type(error) is not Exception:
            raise
        advice = "this machine may be too busy: run the same command again"
        if address is not None:
            advice = "check --ray-address (or RAY_ADDRESS), and set RAY_AUTH_MODE=token for one with tokens"
        raise FatalError(f"Ray cannot be started: {_root_cause(error)}; {advice}") from error
    # A thread of Ray prints the end of each worker on standard output, which is reserved for results. The
    # tracker records these ends.
    with quiet_threads(set(threading.enumerate()) - before):
        try:
            yield str(there.address_info["session_dir"])
        finally:
            ray.shutdown()


def _require_answer(address: str) -> None:
    """Check that the address accepts connections: Ray itself would try for minutes.

    Raises:
        UsageError: It does not.
    """
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
    limit: StepLimit,
    on_sample: Callable[[Sample], bool],
) -> Generator[UnitResult, None, None]:
    """Process units and yield the result of each as it ends, in any order.

    A unit without a result, because its worker failed, is processed alone afterwards, without the cutouts
    that make workers fail (see `gax_batch.cluster.isolation`).

    Args:
        tasks: The units.
        factory: Builds the engines.
        options: Options of the run.
        resources: Machines that the run uses.
        limit: How long each step of a unit may take.
        on_sample: Called once a second, in a separate thread, with the state of the workers. Once it returns
            true, no more units are begun, and those that are not begun have no result.

    Raises:
        FatalError: The pipeline failed. The parts that are written are kept.
    """
    _configure()
    waiting = {task.unit_id: task for task in tasks}
    use = _layout(resources, len(tasks))
    if lack := use.lack(*_cluster_size()):
        logger.info(f"waiting for nodes: {lack}")
    with open_tracker() as tracker, sampling(tracker, use.workers, on_sample):
        config = WorkerConfig(factory, options, resources, tracker, limit)
        with closing(_all_rounds(waiting, config)) as results:
            for result in results:
                if result.state.status is not UnitStatus.NOT_BEGUN:
                    yield result


def _all_rounds(waiting: dict[str, UnitTask], config: "WorkerConfig") -> Generator[UnitResult, None, None]:
    idle = 0
    while waiting:
        left, broken = len(waiting), None
        try:
            with closing(_flow(list(waiting.values()), config)) as results:
                for result in results:
                    del waiting[result.state.unit_id]
                    yield result
        except (ray.exceptions.RayError, RuntimeError, OSError) as error:
            broken = error
        lost = _lost(config.tracker, waiting)
        if not lost and len(waiting) == left:
            # The workers failed before they began a unit. The cause shows when one unit is processed alone.
            idle, lost = idle + 1, [next(iter(waiting))]
        if idle > MAX_IDLE:
            cause = "units have no result" if broken is None else _root_cause(broken)
            raise FatalError(f"the pipeline failed: {cause}") from broken
        yield from _process_alone([waiting.pop(unit_id) for unit_id in lost], config)


def map_tasks(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Call a function for each item on the cluster of the session, and yield the results in any order.

    A task whose worker fails is repeated up to `MAX_RETRIES` times. Twice as many tasks as CPUs are in
    flight.

    Args:
        function: A function at the top level of a module, so that a worker can import it.
        items: Small values, each of which is sent to a worker.

    Raises:
        GaxError: The function raised it.
        FatalError: Workers kept failing, or the function raised another error.
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


def rates_of_cluster(threads: int) -> Rates | None:
    """Measure both precisions of the convolutions on a node of the session's cluster; None if it has GPUs.

    Args:
        threads: Threads of an engine; 0 for all of the node.

    Raises:
        FatalError: The task failed.
    """
    _, gpus = _cluster_size()
    return None if gpus else next(map_tasks(measure_rates, [threads]))


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """The configuration of every worker of a run, including the isolated ones."""

    factory: EngineFactory
    options: UnitOptions
    resources: Resources
    tracker: ActorHandle
    limit: StepLimit


class IsolatedWorker:
    """Processes lost units one by one in a worker, which is replaced if it fails."""

    def __init__(self, config: WorkerConfig) -> None:
        self._config = config
        self._actor: ActorHandle | None = None

    def attempt(
        self, task: UnitTask, excluded: Mapping[int, Reject], *, keep: bool, seconds: float
    ) -> UnitResult | WorkerFailure:
        """Process a unit; see `gax_batch.cluster.isolation.Attempt`."""
        tracker = self._config.tracker
        ray.get(tracker.forget.remote(task.unit_id))
        self._actor = self._actor or self._open()
        try:
            result: UnitResult = ray.get(self._actor.attempt.remote(task, dict(excluded), keep, seconds))
            return result
        except ray.exceptions.RayError as error:
            self.close()
            if isinstance(error, ray.exceptions.RayTaskError) and isinstance(error.cause, GaxError):
                raise FatalError(f"unit {task.unit_id} cannot be processed: {error.cause}") from error
            view: TrackerView = ray.get(tracker.view.remote())
            return _worker_failure(
                error, [step for step in view.steps if step.unit_id == task.unit_id], seconds
            )

    def close(self) -> None:
        """End the worker and free its resources."""
        if self._actor is not None:
            ray.kill(self._actor)
        self._actor = None

    def _open(self) -> ActorHandle:
        config = self._config
        use = _layout(config.resources, 1)
        steps = Steps(Reporter(config.tracker), config.limit, tries=sys.maxsize)
        return ray.remote(num_cpus=use.engine_cpus, num_gpus=use.engine_gpus)(SingleUnitActor).remote(
            partial(config.factory, use.threads), config.options, steps
        )


def _worker_failure(error: Exception, steps: Sequence[Step], seconds: float) -> WorkerFailure:
    """Return how the worker of a single unit failed."""
    step = steps[0].state if steps else READING
    if isinstance(error, ray.exceptions.RayTaskError):
        return WorkerFailure(step, f"raised {_root_cause(error)}")
    late = bool(steps) and steps[0].seconds >= seconds
    return WorkerFailure(step, f"did not finish within {duration(seconds)}" if late else "ended its worker")


def _lost(tracker: ActorHandle, waiting: Container[str]) -> list[str]:
    """Return the waiting units with a step that was begun and has not ended. Called when nothing runs."""
    with _cluster_needed():
        view: TrackerView = ray.get(tracker.view.remote())
    return [step.unit_id for step in view.steps if step.unit_id in waiting]


def _process_alone(lost: Sequence[UnitTask], config: WorkerConfig) -> Iterator[UnitResult]:
    worker, failed = IsolatedWorker(config), 0
    try:
        for task in lost:
            logger.info(f"unit {task.unit_id} was lost with its worker; it is processed alone")
            with _cluster_needed():
                result = save_unit(task, worker.attempt, config.limit.of_unit(task.planned, task.bytes))
            yield result
            failed = failed + 1 if result.state.status is UnitStatus.FAILED else 0
            if failed == MAX_FAILED_ALONE:
                raise FatalError(
                    f"{failed} units in a row failed when processed alone: {result.state.failure}"
                )
    finally:
        worker.close()


@contextmanager
def _cluster_needed() -> Iterator[None]:
    try:
        yield
    except ray.exceptions.RayError as error:
        raise FatalError(f"the cluster cannot be reached: {_root_cause(error)}") from error


def _flow(tasks: Sequence[UnitTask], config: WorkerConfig) -> Generator[UnitResult, None, None]:
    for block in _wire(tasks, config).iter_batches(
        batch_size=None, batch_format="pyarrow", prefetch_batches=0
    ):
        yield UnitResult.from_arrow(block)


def _wire(tasks: Sequence[UnitTask], config: WorkerConfig) -> ray.data.Dataset:
    use = _layout(config.resources, len(tasks))
    worker_args = (config.options, Steps(Reporter(config.tracker), config.limit, MAX_TRIES))
    blocks = {"batch_size": None, "batch_format": "pyarrow"}
    return (
        # A `Datasource` would need a read task per unit: half more time of the driver, and one more process.
        ray.data.from_items([asdict(task) for task in tasks], override_num_blocks=len(tasks))
        .map_batches(
            read_block,
            fn_args=worker_args,
            compute=TaskPoolStrategy(use.readers),
            num_cpus=use.reader_cpus,
            **blocks,
        )
        .map_batches(
            Classifier,
            fn_constructor_args=(partial(config.factory, use.threads), *worker_args),
            compute=ActorPoolStrategy(size=use.workers, max_tasks_in_flight_per_actor=2),
            num_cpus=use.engine_cpus,
            num_gpus=use.engine_gpus,
            **blocks,
        )
        .map_batches(write_block, fn_args=worker_args, num_cpus=STEP_CPUS, **blocks)
    )


def _layout(resources: Resources, units: int) -> Layout:
    return lay_out(resources, *_cluster_size(), units)


def _cluster_size() -> tuple[int, int]:
    """Return the current numbers of logical CPUs and GPUs of the cluster."""
    cluster = ray.cluster_resources()
    return int(cluster.get("CPU", 1)), int(cluster.get("GPU", 0))


def _configure() -> None:
    context = DataContext.get_current()
    # One block is one unit: never split the output of a task.
    context.target_max_block_size = None
    # The run continues if a unit is lost. After `MAX_LOST` of them, these are processed alone first.
    context.max_errored_blocks = MAX_LOST
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # A long wait for a GPU is not an error.
    context.execution_no_progress_timeout_s = -1
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)


def _root_cause(error: BaseException) -> str:
    """Return the last line of an error of Ray, which names the exception in the worker."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
