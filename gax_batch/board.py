"""Where a run's units are, as the workers report it; told to close, it lets no unit begin a step that costs.

A plain class, so that it can be tested without Ray; in a run it is an actor beside the driver.
"""

import time
from collections import Counter
from dataclasses import dataclass, field

READING, WAITING, INFERRING, INFERRED, WRITING = "reading", "waiting", "inferring", "inferred", "writing"
STATES = (READING, WAITING, INFERRING, INFERRED, WRITING)
IN_FLIGHT = (INFERRING, INFERRED, WRITING)
"""States of units that are finished after a signal: what an engine has begun is worth keeping."""

_AFTER = {READING: WAITING, INFERRING: INFERRED}


@dataclass(frozen=True, slots=True)
class BoardView:
    """A board at a moment: units by state, cutouts inferred of those that are unfinished, engines seen.

    `first_inference` is in seconds since 1970.
    """

    units: dict[str, int] = field(default_factory=dict)
    inferred: dict[str, int] = field(default_factory=dict)
    engines: tuple[str, ...] = ()
    first_inference: float | None = None

    @property
    def in_flight(self) -> int:
        """Units that an engine has begun, and that are not stored yet."""
        return sum(self.units.get(state, 0) for state in IN_FLIGHT)


class Board:
    """Keeps each unit's state from its reading to its part."""

    def __init__(self) -> None:
        self._states: dict[str, str] = {}
        self._cutouts: Counter[str] = Counter()
        self._engines: set[str] = set()
        self._first_inference: float | None = None
        self._closed = False

    def enter(self, unit_id: str, state: str, worker: str = "") -> bool:
        """Begin a step; False where it must not begin any more.

        Args:
            unit_id: Which unit; one that is tried again begins again.
            state: READING, INFERRING or WRITING.
            worker: Who does it.
        """
        if self._closed and state != WRITING:
            self.forget(unit_id)
            return False
        self._states[unit_id] = state
        if state == INFERRING:
            self._cutouts[unit_id] = 0
            self._engines.add(worker)
            self._first_inference = self._first_inference or time.time()
        return True

    def advance(self, unit_id: str, cutouts: int) -> None:
        """Cutouts of a unit that its engine has behind it."""
        if unit_id in self._states:
            self._cutouts[unit_id] += cutouts

    def leave(self, unit_id: str, state: str) -> None:
        """End a step."""
        if state in _AFTER and unit_id in self._states:
            self._states[unit_id] = _AFTER[state]
        elif state == WRITING:
            self.forget(unit_id)

    def forget(self, unit_id: str) -> None:
        """Take a unit off the board: it is stored, has failed, or is not begun."""
        self._states.pop(unit_id, None)
        self._cutouts.pop(unit_id, None)

    def close(self) -> None:
        """From now on no unit begins to be read or inferred."""
        self._closed = True

    def view(self) -> BoardView:
        """How it stands."""
        return BoardView(
            dict(Counter(self._states.values())),
            dict(self._cutouts),
            tuple(sorted(self._engines)),
            self._first_inference,
        )
