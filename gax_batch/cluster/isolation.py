"""A unit that kills its worker: which of its cutouts does so, and how the others are cataloged all the same.

The unit is tried alone, a few times and with pauses, since most deaths are not its fault. If it dies again
and again, halves of it are tried, until one cutout is found that kills on its own; that one is set aside as
a reject, and the unit is tried without it. Whoever may call `Attempt` decides where the tries run.
"""

import faulthandler
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

from gax_batch.cluster.unit import UnitResult, UnitState, UnitStatus, UnitTask
from gax_batch.cluster.unit_tracker import INFERRING, LEAST_SECONDS, READING, WRITING
from gax_batch.errors import FatalError
from gax_batch.rejects import Reason, Reject, Stage

PAUSES_SECONDS = (1.0, 5.0)
"""Before each try of a suspected unit as a whole."""

MAX_POISON = 8
"""Cutouts of one unit that may be set aside; where there are more, they are not what is wrong."""

STAGES = {READING: Stage.DECODE, INFERRING: Stage.INFER, WRITING: Stage.INFER}


@dataclass(frozen=True, slots=True)
class WorkerFailure:
    """A try that did not survive: at which step, and how."""

    step: str
    cause: str

    def __str__(self) -> str:
        return f"{self.cause} while {self.step} it"


class Attempt(Protocol):
    """Tries a unit in a worker that nothing else depends on."""

    def __call__(
        self, task: UnitTask, excluded: Mapping[int, Reject], *, keep: bool, seconds: float
    ) -> UnitResult | WorkerFailure:
        """Read and classify the unit's cutouts but those set aside, by their place.

        Args:
            task: The unit.
            excluded: Cutouts that are rejected unread.
            keep: Whether its part is written.
            seconds: What each step may take; then its worker is ended.

        Raises:
            FatalError: No try will ever succeed.
        """


@contextmanager
def ended_after(seconds: float) -> Iterator[None]:
    """End this process if the block takes longer, whatever it does, and leave its stack on standard error.

    The watch is a thread of the interpreter that needs no lock of Python's: a loop in native code ends too.
    """
    faulthandler.dump_traceback_later(seconds, exit=True, file=2)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def save_unit(
    task: UnitTask, attempt: Attempt, unit_seconds: float, *, sleep: Callable[[float], None] = time.sleep
) -> UnitResult:
    """Process a unit that has killed its worker, without the cutouts that do so.

    Args:
        task: The unit.
        attempt: Where it is tried.
        unit_seconds: What each of its steps may take.
        sleep: Waits; for tests.

    Returns:
        Its result: with a part in which poisonous cutouts are rejected, or a failure where no cutout alone
        kills, or too many do.

    Raises:
        FatalError: The worker dies with no cutout at all, or as `Attempt` says.
    """
    search = _Search(task, attempt, unit_seconds)
    poison: dict[int, Reject] = {}
    outcome = _insist(search, poison, sleep)
    if isinstance(outcome, WorkerFailure):
        search.require_working_worker()
    while isinstance(outcome, WorkerFailure):
        culprit = search.find(poison) if len(poison) < MAX_POISON else None
        if culprit is not None:
            place, failure = culprit
            poison[place] = Reject.of(STAGES[failure.step], Reason.POISON, str(failure))
        again = _insist(search, poison, sleep)
        if isinstance(again, WorkerFailure) and culprit is None:
            return _failed(task, again, len(poison))
        outcome = again
    return outcome


def _insist(
    search: "_Search", poison: Mapping[int, Reject], sleep: Callable[[float], None]
) -> UnitResult | WorkerFailure:
    for pause in PAUSES_SECONDS:
        sleep(pause)
        outcome = search.run(poison, keep=True)
        if isinstance(outcome, UnitResult):
            break
    return outcome


def _failed(task: UnitTask, failure: WorkerFailure, poisonous: int) -> UnitResult:
    but = f"none of its {task.planned:,} cutouts does so alone: is there too little memory for all of them?"
    if poisonous:
        but = f"{poisonous} of its cutouts, set aside, were not all: the machine or the models are at fault"
    state = replace(UnitState.of(task), failure=f"its worker {failure}, and {but}", status=UnitStatus.FAILED)
    return UnitResult(state)


@dataclass(frozen=True, slots=True)
class _Search:
    """Tries of one unit with some of its cutouts."""

    task: UnitTask
    attempt: Attempt
    unit_seconds: float

    def run(self, excluded: Mapping[int, Reject], *, keep: bool = False) -> UnitResult | WorkerFailure:
        share = 1 - len(excluded) / self.task.planned
        seconds = max(share * self.unit_seconds, min(LEAST_SECONDS, self.unit_seconds))
        return self.attempt(self.task, excluded, keep=keep, seconds=seconds)

    def require_working_worker(self) -> None:
        """Try no cutouts at all: what dies then is not theirs to answer for."""
        outcome = self._only(())
        if isinstance(outcome, WorkerFailure):
            raise FatalError(
                f"a worker keeps dying with no cutout at all ({outcome.cause} while {outcome.step} an empty "
                "unit): the models, the memory or the machine is at fault; the logs are in Ray's folder"
            )

    def find(self, poison: Mapping[int, Reject]) -> tuple[int, WorkerFailure] | None:
        """A cutout, not yet set aside, that kills on its own: by halving, the first of them."""
        suspects = [place for place in range(self.task.planned) if place not in poison]
        while suspects:
            half = suspects[: (len(suspects) + 1) // 2]
            outcome = self._only(half)
            if isinstance(outcome, UnitResult):
                half = suspects[len(half) :]
                outcome = self._only(half) if half else outcome
            if isinstance(outcome, UnitResult):
                return None
            if len(half) == 1:
                # Whoever is blamed has killed twice on its own.
                again = self._only(half)
                return (half[0], again) if isinstance(again, WorkerFailure) else None
            suspects = half
        return None

    def _only(self, places: Sequence[int]) -> UnitResult | WorkerFailure:
        waiting = Reject.of(Stage.READ, Reason.POISON, "not tried now")
        chosen = set(places)
        return self.run({n: waiting for n in range(self.task.planned) if n not in chosen})
