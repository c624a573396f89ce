"""What has come out of a run so far, and the lines that tell it to the person who waits."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from gax_batch.catalog.writer import Part
from gax_batch.unit import UnitResult

Say = Callable[[str], None]
"""Shows one line to the person who waits."""

LINE_EVERY_SECONDS = 5.0


@dataclass(slots=True)
class Tally:
    """Counts of a run: parts stored, units that failed, rejects by reason, seconds of work by step."""

    parts: list[Part] = field(default_factory=list)
    reused_units: int = 0
    reused_cutouts: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    failed_cutouts: int = 0
    rejects_by_reason: Counter[str] = field(default_factory=Counter)
    seconds_by_step: Counter[str] = field(default_factory=Counter)

    @property
    def rows(self) -> int:
        """Galaxies in the stored parts."""
        return sum(part.rows for part in self.parts)

    @property
    def rejects(self) -> int:
        """Rejected cutouts of the stored parts."""
        return sum(part.rejects for part in self.parts)

    def reuse(self, parts: list[Part]) -> None:
        """Take over the parts that an earlier, interrupted run has stored."""
        self.parts.extend(parts)
        self.reused_units = len(parts)
        self.reused_cutouts = sum(part.planned for part in parts)
        for part in parts:
            self.rejects_by_reason.update(part.rejects_by_reason)

    def add(self, result: UnitResult) -> None:
        """Count one unit's result."""
        self.seconds_by_step.update(result.state.seconds)
        if result.part is None:
            self.failures[result.state.unit_id] = result.state.failure or "unknown"
            self.failed_cutouts += result.state.planned
            return
        self.parts.append(result.part)
        self.rejects_by_reason.update(result.part.rejects_by_reason)


class Progress:
    """Says at a decent pace how far a run is."""

    def __init__(self, say: Say, planned: int) -> None:
        self._say = say
        self._planned = planned
        self._done = 0
        self._start = self._last = time.monotonic()

    def advance(self, cutouts: int, rejects: int) -> None:
        """Count cutouts that were finished; at most one line in `LINE_EVERY_SECONDS`."""
        self._done += cutouts
        now = time.monotonic()
        if now - self._last < LINE_EVERY_SECONDS and self._done < self._planned:
            return
        self._last = now
        rate = self._done / max(now - self._start, 1e-9)
        left = (self._planned - self._done) / rate
        self._say(
            f"{self._done:,} of {self._planned:,} cutouts, {rate:,.1f}/s, "
            f"about {duration(left)} left, {rejects:,} rejects"
        )


def duration(seconds: float) -> str:
    """Seconds as a person says them: `42 s`, `3 min 05 s`, `2 h 07 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
