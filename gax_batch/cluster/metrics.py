"""Report the state of a run through Ray: the tracker as an actor, and the metrics that Ray exports.

Only this module and `pipeline` import Ray. Errors here never end a run. A lost report is not
repeated.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.util.metrics import Counter, Gauge, Histogram
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from gax_batch.cluster.progress import RunState, Sample
from gax_batch.cluster.unit import UnitResult, worker_name
from gax_batch.cluster.unit_tracker import INFERRING, STATES, WAITING, TrackerView, UnitTracker

SAMPLE_EVERY_SECONDS = 1.0
_ANSWER_SECONDS = 10.0
_UNIT_SECONDS = [0.1, 0.3, 1, 3, 10, 30, 100, 300, 1_000, 3_000]

COUNTERS = {
    "gax_galaxies": "Galaxies in stored parts",
    "gax_rejects": "Cutouts rejected, by reason",
    "gax_bytes_read": "Bytes of the objects read, according to the listing",
    "gax_draws": "Galaxies times weight draws inferred",
    "gax_step_seconds": "Seconds of work, by step",
}
GAUGES = {
    "gax_started_seconds": "Time at which the run began to process units, seconds since 1970",
    "gax_progress_seconds": "Time at which a cutout was last finished, seconds since 1970",
    "gax_seconds_left": "Seconds that remain at the rate so far",
    "gax_cutouts": "Cutouts of the run, planned and done",
    "gax_units": "Units by state",
    "gax_queue_depth": "Units that are read and wait for an engine",
    "gax_engines": "Engines requested, and those that have begun a unit",
    "gax_engine_use": "Fraction of the engines that are inferring",
}
HISTOGRAMS = {"gax_unit_seconds": "Seconds of each unit, by step"}
_LABELS = {
    "gax_rejects": "reason",
    "gax_step_seconds": "step",
    "gax_unit_seconds": "step",
    "gax_cutouts": "which",
    "gax_units": "state",
    "gax_engines": "which",
}


class Reporter:
    """The connection of a worker to the tracker. If the tracker cannot be reached, the work continues."""

    def __init__(self, tracker: ActorHandle) -> None:
        self._tracker = tracker

    def enter(self, unit_id: str, state: str) -> int:
        """Begin a step. Return how often it has begun without an end; 0 if it may not begin."""
        try:
            reply = self._tracker.enter.remote(unit_id, state, worker_name())
            return int(ray.get(reply, timeout=_ANSWER_SECONDS))
        except ray.exceptions.RayError:
            return 1

    def begin_load(self) -> int:
        """Begin to load the models. Return how often this engine has begun to load without an end."""
        try:
            return int(ray.get(self._tracker.begin_load.remote(_actor_id()), timeout=_ANSWER_SECONDS))
        except ray.exceptions.RayError:
            return 1

    def end_load(self) -> None:
        """End the loading of the models."""
        self._tracker.end_load.remote(_actor_id())

    def advance(self, unit_id: str, cutouts: int) -> None:
        """Report how many more cutouts of a unit are inferred."""
        self._tracker.advance.remote(unit_id, cutouts)

    def leave(self, unit_id: str, state: str) -> None:
        """End a step."""
        self._tracker.leave.remote(unit_id, state)


def _actor_id() -> str:
    """Return the identifier of this actor. Unlike the process, it stays the same when Ray restarts it."""
    return ray.get_runtime_context().get_actor_id() or worker_name()


@contextmanager
def open_tracker() -> Iterator[ActorHandle]:
    """Start a tracker on the node of the driver while the block runs."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    tracker = ray.remote(UnitTracker).options(num_cpus=0, scheduling_strategy=here, max_restarts=3).remote()
    try:
        yield tracker
    finally:
        ray.kill(tracker)


class Metrics:
    """The metrics of a run: the names above with the prefix `ray_`.

    The labels are the run and at most one more. When a driver ends, Ray drops its gauges, not its counters.
    """

    def __init__(self, run_id: str) -> None:
        self._counters = {name: _metric(Counter, name, text, run_id) for name, text in COUNTERS.items()}
        self._gauges = {name: _metric(Gauge, name, text, run_id) for name, text in GAUGES.items()}
        ((name, text),) = HISTOGRAMS.items()
        self._seconds = _metric(Histogram, name, text, run_id, boundaries=_UNIT_SECONDS)
        self._counted: dict[tuple[str, str], float] = {}

    def unit(self, result: UnitResult, state: RunState) -> None:
        """Count the seconds of the steps of a unit."""
        for step, seconds in result.state.seconds.items():
            self._seconds.observe(seconds, {"step": step})

    def refresh(self, state: RunState) -> None:
        """Update every metric."""
        counts, units = state.counts, state.sample.view.units
        self._count("gax_galaxies", state.new_galaxies)
        self._count("gax_draws", state.new_galaxies * state.draws)
        self._count("gax_bytes_read", state.bytes_read)
        for reason, count in dict(state.new_rejects).items():
            self._count("gax_rejects", count, reason)
        for step, seconds in dict(counts.seconds_by_step).items():
            self._count("gax_step_seconds", seconds, step)
        self._set("gax_started_seconds", state.started)
        self._set("gax_progress_seconds", state.last_progress)
        self._set("gax_seconds_left", state.seconds_left or 0)
        self._set("gax_cutouts", state.planned, "planned")
        self._set("gax_cutouts", state.done, "done")
        failed = len(counts.failures)
        begun = state.ended_units + sum(units.values())
        ended = {"planned": state.units - begun, "done": state.ended_units - failed, "failed": failed}
        for name, count in ({name: units.get(name, 0) for name in STATES} | ended).items():
            self._set("gax_units", max(count, 0), name)
        self._set("gax_queue_depth", units.get(WAITING, 0))
        engines = state.sample.engines
        self._set("gax_engines", engines, "asked")
        self._set("gax_engines", len(state.sample.view.engines), "started")
        self._set("gax_engine_use", min(units.get(INFERRING, 0) / engines, 1) if engines else 0)

    def _count(self, name: str, total: float, label: str = "") -> None:
        more = total - self._counted.get((name, label), 0)
        if more > 0:
            self._counters[name].inc(more, _tags(name, label))
            self._counted[name, label] = total

    def _set(self, name: str, value: float, label: str = "") -> None:
        self._gauges[name].set(value, _tags(name, label))


def _metric(kind: type, name: str, text: str, run_id: str, **more: object) -> Any:
    metric = kind(name, description=text, tag_keys=("run", *_tags(name, "")), **more)
    return metric.set_default_tags({"run": run_id})


def _tags(name: str, value: str) -> dict[str, str]:
    return {_LABELS[name]: value} if name in _LABELS else {}


@contextmanager
def sampling(tracker: ActorHandle, engines: int, on_sample: Callable[[Sample], bool]) -> Iterator[None]:
    """Call `on_sample` once a second in a thread; close the tracker once it returns true."""
    done = threading.Event()

    def sample_until_done() -> None:
        closed = False
        while not done.wait(SAMPLE_EVERY_SECONDS):
            try:
                sample = _sample(tracker, engines)
                if on_sample(sample) and not closed:
                    ray.get(tracker.close.remote(), timeout=_ANSWER_SECONDS)
                    closed = True
            except ray.exceptions.RayError:
                continue

    thread = threading.Thread(target=sample_until_done, name="run-sampler", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(_ANSWER_SECONDS)


def _sample(tracker: ActorHandle, engines: int) -> Sample:
    view: TrackerView = ray.get(tracker.view.remote(), timeout=_ANSWER_SECONDS)
    there = ray.cluster_resources().get("object_store_memory", 0.0)
    free = ray.available_resources().get("object_store_memory", 0.0)
    return Sample(view, engines, int(there - free), int(there))
