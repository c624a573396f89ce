"""Where a run's units are, as the workers report it; told to close, it lets no unit begin a step that costs.

A plain class, so that it can be tested without Ray; in a run it is an actor beside the driver.
"""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

READING, WAITING, INFERRING, INFERRED, WRITING = "reading", "waiting", "inferring", "inferred", "writing"
STATES = (READING, WAITING, INFERRING, INFERRED, WRITING)
IN_FLIGHT = (INFERRING, INFERRED, WRITING)
"""States of units that are finished after a signal: what an engine has begun is worth keeping."""

_AFTER = {READING: WAITING, INFERRING: INFERRED}


BEGUN = (READING, INFERRING, WRITING)
"""States in which a worker has a unit in its hands."""

LEAST_SECONDS = 300.0
"""What a step is given at least, unless all steps are given less: stores take their time."""

MAX_REPEATS = 6
"""Repetitions of a step that each ended before: a node that is lost takes results with it."""

BYTES_PER_SECOND = 4 * 1024 * 1024
"""The slowest reading that is waited for, of objects much larger than a cutout."""


@dataclass(frozen=True, slots=True)
class StepLimit:
    """How long a step of a unit may take; then its worker is terminated.

    Attributes:
        cutout_seconds: For each of the unit's cutouts.
        seconds: For a unit of any size, in place of what its cutouts and bytes give.
    """

    cutout_seconds: float = 1.0
    seconds: float | None = None

    def of_unit(self, cutouts: int, size: int = 0) -> float:
        """Return the seconds for a unit of this many cutouts, and bytes of its objects."""
        if self.seconds is not None:
            return self.seconds
        return LEAST_SECONDS + cutouts * self.cutout_seconds + size / BYTES_PER_SECOND


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a unit that a worker has begun and not ended, maybe since it died."""

    unit_id: str
    state: str
    worker: str
    seconds: float


@dataclass(frozen=True, slots=True)
class TrackerView:
    """A tracker at a moment: units by state, cutouts inferred of those that are unfinished, engines seen.

    `first_inference` is in seconds since 1970; `steps` are those under way, the longest first.
    """

    units: dict[str, int] = field(default_factory=dict)
    inferred: dict[str, int] = field(default_factory=dict)
    engines: tuple[str, ...] = ()
    first_inference: float | None = None
    steps: tuple[Step, ...] = ()

    @property
    def in_flight(self) -> int:
        """Units that an engine has begun, and that are not stored yet."""
        return sum(self.units.get(state, 0) for state in IN_FLIGHT)


class UnitTracker:
    """Keeps each unit's state from its reading to its part."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._states: dict[str, str] = {}
        self._steps: dict[str, tuple[str, float]] = {}
        self._tries: Counter[tuple[str, str]] = Counter()
        self._begun: Counter[tuple[str, str]] = Counter()
        self._cutouts: Counter[str] = Counter()
        self._engines: set[str] = set()
        self._first_inference: float | None = None
        self._closed = False

    def enter(self, unit_id: str, state: str, worker: str = "") -> int:
        """Begin a step; returns how often it has begun without an end, 0 where it must not begin any more.

        A step that has begun more than `MAX_REPEATS` times after its first counts as one without an end: a
        worker can also die on its way out of the step, again and again.

        Args:
            unit_id: Which unit; one that is tried again begins again.
            state: READING, INFERRING or WRITING.
            worker: Who does it.
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
        """Cutouts of a unit that its engine has behind it."""
        if unit_id in self._states:
            self._cutouts[unit_id] += cutouts

    def leave(self, unit_id: str, state: str) -> None:
        """End a step; a report that comes after the next step has begun says nothing new."""
        self._tries.pop((unit_id, state), None)
        if self._states.get(unit_id) != state:
            return
        self._steps.pop(unit_id, None)
        if state in _AFTER:
            self._states[unit_id] = _AFTER[state]
        elif state == WRITING:
            self.forget(unit_id)

    def forget(self, unit_id: str) -> None:
        """Take a unit off the tracker: it is stored, has failed, or is not begun."""
        self._states.pop(unit_id, None)
        self._cutouts.pop(unit_id, None)
        self._steps.pop(unit_id, None)
        for state in BEGUN:
            self._tries.pop((unit_id, state), None)
            self._begun.pop((unit_id, state), None)

    def close(self) -> None:
        """From now on no unit begins to be read or inferred."""
        self._closed = True

    def view(self) -> TrackerView:
        """How it stands."""
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
