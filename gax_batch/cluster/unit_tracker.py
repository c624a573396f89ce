"""Track the step of each unit of a run, as the workers report it.

Once it is closed, no unit may begin to be read or inferred. The tracker is a plain class that can be tested
without Ray; in a run it is an actor on the node of the driver.
"""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

READING, WAITING, INFERRING, INFERRED, WRITING = "reading", "waiting", "inferring", "inferred", "writing"
STATES = (READING, WAITING, INFERRING, INFERRED, WRITING)
IN_FLIGHT = (INFERRING, INFERRED, WRITING)
"""States of units that are still finished after a signal, because an engine has begun them."""

_AFTER = {READING: WAITING, INFERRING: INFERRED}

BEGUN = (READING, INFERRING, WRITING)
"""States in which a worker processes the unit."""

LEAST_SECONDS = 300.0
"""Minimum time limit of a step, since a store can be slow; `StepLimit.seconds` may be less."""

MAX_REPEATS = 6
"""Maximum repetitions of a step that has ended before: the results of a lost node are computed again."""

BYTES_PER_SECOND = 4 * 1024 * 1024
"""The slowest accepted reading of objects that are much larger than a cutout."""


@dataclass(frozen=True, slots=True)
class StepLimit:
    """How long a step of a unit may take before its worker is terminated.

    Attributes:
        cutout_seconds: Seconds for each cutout of the unit.
        seconds: Seconds for a unit of any size. Replaces the limit from its cutouts and bytes.
    """

    cutout_seconds: float = 1.0
    seconds: float | None = None

    def of_unit(self, cutouts: int, size: int = 0) -> float:
        """Return the time limit of each step of a unit, in seconds.

        Args:
            cutouts: Number of cutouts of the unit.
            size: Bytes of its objects.
        """
        if self.seconds is not None:
            return self.seconds
        return LEAST_SECONDS + cutouts * self.cutout_seconds + size / BYTES_PER_SECOND


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a unit that a worker has begun and not ended. The worker may have failed."""

    unit_id: str
    state: str
    worker: str
    seconds: float


@dataclass(frozen=True, slots=True)
class TrackerView:
    """The state of a tracker at one moment.

    Attributes:
        units: Number of units by state.
        inferred: Number of inferred cutouts by unfinished unit.
        engines: Names of the workers that have begun an inference.
        first_inference: When the first inference began, in seconds since 1970.
        steps: Steps that are under way, the longest first.
    """

    units: dict[str, int] = field(default_factory=dict)
    inferred: dict[str, int] = field(default_factory=dict)
    engines: tuple[str, ...] = ()
    first_inference: float | None = None
    steps: tuple[Step, ...] = ()

    @property
    def in_flight(self) -> int:
        """Return the number of units that an engine has begun and that are not stored."""
        return sum(self.units.get(state, 0) for state in IN_FLIGHT)


class UnitTracker:
    """Records the state of each unit from its reading until its part is stored."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._states: dict[str, str] = {}
        self._steps: dict[str, tuple[str, float]] = {}
        self._tries: Counter[tuple[str, str]] = Counter()
        self._begun: Counter[tuple[str, str]] = Counter()
        self._cutouts: Counter[str] = Counter()
        self._loads: Counter[str] = Counter()
        self._engines: set[str] = set()
        self._first_inference: float | None = None
        self._closed = False

    def enter(self, unit_id: str, state: str, worker: str = "") -> int:
        """Begin a step. Return how often it has begun without an end; 0 if it may not begin.

        Repetitions beyond `MAX_REPEATS` count as begun without an end, even if the step has ended each time:
        a worker can also fail repeatedly after it reports the end of the step.

        Args:
            unit_id: The unit. At INFERRING, the count of its inferred cutouts restarts at 0.
            state: READING, INFERRING or WRITING.
            worker: The process that performs the step.
        """
        if self._closed and state != WRITING:
            self.forget(unit_id)
            return 0
        self._states[unit_id] = state
        self._steps[unit_id] = (worker, self._clock())
        self._tries[unit_id, state] += 1
        self._begun[unit_id, state] += 1
        if state == INFERRING:
            self._cutouts[unit_id] = 0
            self._engines.add(worker)
            self._first_inference = self._first_inference or time.time()
        return max(self._tries[unit_id, state], self._begun[unit_id, state] - MAX_REPEATS)

    def advance(self, unit_id: str, cutouts: int) -> None:
        """Count more inferred cutouts of a unit."""
        if unit_id in self._states:
            self._cutouts[unit_id] += cutouts

    def leave(self, unit_id: str, state: str) -> None:
        """End a step. Reports that arrive after the next step has begun are ignored."""
        self._tries.pop((unit_id, state), None)
        if self._states.get(unit_id) != state:
            return
        self._steps.pop(unit_id, None)
        if state in _AFTER:
            self._states[unit_id] = _AFTER[state]
        elif state == WRITING:
            self.forget(unit_id)

    def begin_load(self, actor: str) -> int:
        """Begin to load the models of an engine. Return how often this has begun without an end.

        Args:
            actor: The actor of the engine, which keeps its name if Ray restarts it.
        """
        self._loads[actor] += 1
        return self._loads[actor]

    def end_load(self, actor: str) -> None:
        """End the loading of the models of an engine."""
        self._loads.pop(actor, None)

    def forget(self, unit_id: str) -> None:
        """Remove a unit that is stored, has failed, or is not begun."""
        self._states.pop(unit_id, None)
        self._cutouts.pop(unit_id, None)
        self._steps.pop(unit_id, None)
        for state in BEGUN:
            self._tries.pop((unit_id, state), None)
            self._begun.pop((unit_id, state), None)

    def close(self) -> None:
        """Refuse to begin reading or inferring more units."""
        self._closed = True

    def view(self) -> TrackerView:
        """Return the current state."""
        now = self._clock()
        steps = [
            Step(unit_id, self._states[unit_id], worker, now - since)
            for unit_id, (worker, since) in self._steps.items()
        ]
        return TrackerView(
            dict(Counter(self._states.values())),
            dict(self._cutouts),
            tuple(sorted(self._engines)),
            self._first_inference,
            tuple(sorted(steps, key=lambda step: step.seconds, reverse=True)),
        )
