"""The state of a run: counts of its results, steps of its units, expected duration."""

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from gax_batch.catalog.parts import Part
from gax_batch.cluster.unit import UnitResult
from gax_batch.cluster.unit_tracker import (
    INFERRED,
    INFERRING,
    READING,
    WAITING,
    WRITING,
    Step,
    TrackerView,
)
from gax_batch.models.domain import Counts

logger = logging.getLogger(__name__)

LINE_EVERY_SECONDS = 5.0


@dataclass(slots=True)
class RunCounts:
    """Counts of a run: stored parts, failed units, rejects by reason, seconds of work by step.

    `rows` and `rejects` are the numbers of galaxies and of rejected cutouts in the stored parts. `images`
    counts how the images of the stored parts compare with the reference of the bundle.
    """

    parts: list[Part] = field(default_factory=list)
    rows: int = 0
    rejects: int = 0
    reused_units: int = 0
    reused_cutouts: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    failed_cutouts: int = 0
    rejects_by_reason: Counter[str] = field(default_factory=Counter)
    seconds_by_step: Counter[str] = field(default_factory=Counter)
    images: Counts = field(default_factory=Counts)

    def reuse(self, parts: list[Part]) -> None:
        """Count the parts that an earlier, interrupted run has stored."""
        self.reused_units = len(parts)
        self.reused_cutouts = sum(part.planned for part in parts)
        for part in parts:
            self._count(part)

    def add(self, result: UnitResult) -> None:
        """Count one unit's result."""
        self.seconds_by_step.update(result.state.seconds)
        if result.part is None:
            self.failures[result.state.unit_id] = result.state.failure or "unknown"
            self.failed_cutouts += result.state.planned
            return
        self._count(result.part)

    def _count(self, part: Part) -> None:
        self.parts.append(part)
        # Kept as running sums: the display needs them after every unit.
        self.rows += part.rows
        self.rejects += part.rejects
        self.rejects_by_reason.update(part.rejects_by_reason)
        if part.images is not None:
            self.images += Counts.add_up([part.images])


@dataclass(frozen=True, slots=True)
class Sample:
    """The workers of a run at one moment: the tracker, engines requested, bytes of the object store."""

    view: TrackerView = field(default_factory=TrackerView)
    engines: int = 0
    store_used: int = 0
    store_bytes: int = 0


class RunState:
    """The state of a run: the counts of its results and the latest sample of its workers.

    The display, the log lines and the metrics show only this. `done` is the number of cutouts of ended units
    plus the inferred cutouts of the other units. `new_galaxies` and `new_rejects` exclude the parts of an
    interrupted run. `started` and `last_progress` are in seconds since 1970.
    """

    def __init__(self, run_id: str, counts: RunCounts, *, planned: int, units: int, draws: int) -> None:
        self.run_id, self.counts, self.planned, self.units, self.draws = run_id, counts, planned, units, draws
        self.sample = Sample()
        self.done = 0
        self.new_galaxies = 0
        self.new_rejects: Counter[str] = Counter()
        self.bytes_read = 0
        self.stopping = False
        self.started = self.last_progress = time.time()
        self._ended: set[str] = set()
        self._ended_cutouts = 0

    def add(self, result: UnitResult) -> None:
        """Count one unit's result."""
        self.counts.add(result)
        self._ended.add(result.state.unit_id)
        self._ended_cutouts += result.state.planned
        self.bytes_read += result.state.bytes_read
        if result.part is not None:
            self.new_galaxies += result.part.rows
            self.new_rejects.update(result.part.rejects_by_reason)
        self._advance()

    def on_sample(self, sample: Sample) -> None:
        """Update the state with a sample of the workers."""
        self.sample = sample
        self._advance()

    @property
    def ended_units(self) -> int:
        """Return the number of units of this run that are stored or have failed."""
        return len(self._ended)

    @property
    def rate(self) -> float:
        """Return the cutouts per second since the first inference began; 0 before."""
        begun = self.sample.view.first_inference or self.started
        return self.done / max(time.time() - begun, 1e-9)

    @property
    def seconds_left(self) -> float | None:
        """Return the seconds that remain at the rate so far; None before a cutout is done."""
        return (self.planned - self.done) / self.rate if self.done else None

    @property
    def limiting_step(self) -> str:
        """Return the step that limits the rate: starting, reading, inference or writing."""
        units = self.sample.view.units
        if not (self.sample.view.engines or self.ended_units):
            return "starting"
        if units.get(INFERRED, 0) + units.get(WRITING, 0) > max(1, 2 * self.sample.engines):
            return "writing"
        if units.get(WAITING, 0) or units.get(INFERRING, 0) >= self.sample.engines:
            return "inference"
        return "reading" if units.get(READING, 0) else "inference"

    def _advance(self) -> None:
        inferred = self.sample.view.inferred.items()
        done = self._ended_cutouts + sum(n for unit, n in inferred if unit not in self._ended)
        # The report of a worker may arrive before or after the result of its unit.
        if done > self.done:
            self.done = min(done, self.planned)
            self.last_progress = time.time()

    def line(self) -> str:
        """Return the state as one line of text."""
        return _pace_line(self.done, self.planned, self.rate, self.counts.rejects)


class Observer(Protocol):
    """Receives the events of a run. The display and the metrics are observers."""

    def unit(self, result: UnitResult, state: RunState) -> None:
        """Report that a unit has ended."""

    def refresh(self, state: RunState) -> None:
        """Report the state of the run: once a second, and to a display after each unit."""


class Stall:
    """Detects that a run makes no progress, first to warn, later to end it."""

    def __init__(
        self,
        seconds: float,
        give_up_seconds: float = math.inf,
        step_seconds: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin to measure the time without progress.

        Args:
            seconds: Time without progress before each warning.
            give_up_seconds: Time without progress before the run is ended.
            step_seconds: Time limit of a step. A run is not ended while a step began less than this
                ago.
            clock: Returns the time in seconds.
        """
        self._seconds, self._clock = seconds, clock
        self._give_up_seconds, self._step_seconds = give_up_seconds, step_seconds
        self._done = -1
        self._since = self._warned = clock()

    def check(self, done: int, view: TrackerView) -> str | None:
        """Return a warning if it is due.

        Args:
            done: Number of cutouts that are done.
            view: The state of the tracker.
        """
        now = self._clock()
        if done != self._done:
            self._done, self._since, self._warned = done, now, now
        if now - self._warned < self._seconds:
            return None
        self._warned = now
        return f"no progress for {duration(now - self._since)}: {_describe(view)}"

    def over(self, view: TrackerView) -> str | None:
        """Return why the run must end, as of the last `check`; None if it may continue."""
        waited = self._clock() - self._since
        if waited < self._give_up_seconds or any(step.seconds < self._step_seconds for step in view.steps):
            return None
        return (
            f"given up after {duration(waited)} without progress: {_describe(view)}; remove the "
            "cause, or raise --give-up-minutes"
        )


def _describe(view: TrackerView) -> str:
    if not view.units:
        return "no worker has begun a unit; check that the cluster has enough resources"
    counts = ", ".join(f"{count:,} {state}" for state, count in view.units.items())
    return f"units {counts}{_longest(view.steps)}"


def _longest(steps: Sequence[Step]) -> str:
    if not steps:
        return "; no worker is processing one"
    step = steps[0]
    return f"; longest {step.state} {step.unit_id}, for {duration(step.seconds)} by {step.worker}"


class Progress:
    """Logs the progress of a command whose work has a single step."""

    def __init__(self, planned: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._planned = planned
        self._clock = clock
        self._done = 0
        self._start = self._last = clock()

    def advance(self, cutouts: int, rejects: int) -> None:
        """Count finished cutouts. Log at most one line per `LINE_EVERY_SECONDS`."""
        self._done += cutouts
        now = self._clock()
        if now - self._last < LINE_EVERY_SECONDS and self._done < self._planned:
            return
        self._last = now
        rate = self._done / max(now - self._start, 1e-9)
        logger.info(_pace_line(self._done, self._planned, rate, rejects))


def _pace_line(done: int, planned: int, rate: float, rejects: int) -> str:
    left = f"about {duration((planned - done) / rate)} left, " if rate else ""
    return f"{done:,} of {planned:,} cutouts, {rate:,.1f}/s, {left}{rejects:,} rejects"


def duration(seconds: float) -> str:
    """Format seconds: `42 s`, `3 min 05 s`, `2 h 07 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
