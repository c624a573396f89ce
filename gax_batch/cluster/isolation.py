"""Isolate a unit whose worker was terminated: find the cutouts that cause it, process the others.

The unit is attempted alone, a few times and with pauses, because most failures of workers have other causes.
If all attempts fail, halves of the unit are attempted until a single cutout is found that makes a worker
fail. That cutout becomes a reject, and the unit is attempted without it. The caller's `Attempt` decides where
attempts run.
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
"""Pause before each attempt of a whole unit."""

MAX_POISON = 8
"""Maximum number of cutouts of a unit that are excluded. A larger number indicates another cause."""

STAGES = {READING: Stage.DECODE, INFERRING: Stage.INFER, WRITING: Stage.INFER}


@dataclass(frozen=True, slots=True)
class WorkerFailure:
    """An attempt whose worker failed.

    Attributes:
        step: The step that was under way: READING, INFERRING or WRITING.
        cause: What happened, as a predicate: "ended its worker".
    """

    step: str
    cause: str

    def __str__(self) -> str:
        return f"{self.cause} while {self.step} it"


class Attempt(Protocol):
    """Processes a unit in a worker that nothing else depends on."""

    def __call__(
        self, task: UnitTask, excluded: Mapping[int, Reject], *, keep: bool, seconds: float
    ) -> UnitResult | WorkerFailure:
        """Read and classify the cutouts of a unit that are not excluded.

        Args:
            task: The unit.
            excluded: Rejects of cutouts that are not read, by their index in the unit.
            keep: Whether the part of the unit is written.
            seconds: Maximum duration of each step. A worker that exceeds it is terminated.

        Raises:
            FatalError: No attempt can succeed.
        """


@contextmanager
def ended_after(seconds: float) -> Iterator[None]:
    """End this process if the block takes longer, and write its stack to standard error.

    A thread of the interpreter measures the time without the global lock: a loop in native code is ended too.
    """
    faulthandler.dump_traceback_later(seconds, exit=True, file=2)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def save_unit(
    task: UnitTask, attempt: Attempt, unit_seconds: float, *, sleep: Callable[[float], None] = time.sleep
) -> UnitResult:
    """Process a unit whose worker has failed, without the cutouts that cause it.

    Args:
        task: The unit.
        attempt: Processes the unit in a separate worker.
        unit_seconds: Maximum duration of each step of the whole unit.
        sleep: Replaces `time.sleep` in tests.

    Returns:
        The result of the unit. Either its part rejects the cutouts that make a worker fail, or the unit
        failed: no single cutout, or too many of them, make a worker fail.

    Raises:
        FatalError: A worker fails without any cutout, or `attempt` raised it.
    """
    search = _Search(task, attempt, unit_seconds)
    poison: dict[int, Reject] = {}
    outcome = _attempt_whole(search, poison, sleep)
    if isinstance(outcome, WorkerFailure):
        search.require_working_worker()
    while isinstance(outcome, WorkerFailure):
        cause = search.find(poison) if len(poison) < MAX_POISON else None
        if cause is not None:
            place, failure = cause
            poison[place] = Reject.of(STAGES[failure.step], Reason.POISON, str(failure))
        again = _attempt_whole(search, poison, sleep)
        if isinstance(again, WorkerFailure) and cause is None:
            return _failed(task, again, len(poison))
        outcome = again
    return outcome


def _attempt_whole(
    search: "_Search", poison: Mapping[int, Reject], sleep: Callable[[float], None]
) -> UnitResult | WorkerFailure:
    for pause in PAUSES_SECONDS:
        sleep(pause)
        outcome = search.run(poison, keep=True)
        if isinstance(outcome, UnitResult):
            break
    return outcome


def _failed(task: UnitTask, failure: WorkerFailure, poisonous: int) -> UnitResult:
    but = f"none of its {task.planned:,} cutouts alone causes this; all of them may need too much memory"
    if poisonous:
        but = f"excluding {poisonous} of its cutouts did not help: check the machine and the models"
    state = replace(UnitState.of(task), failure=f"its worker {failure}, and {but}", status=UnitStatus.FAILED)
    return UnitResult(state)


@dataclass(frozen=True, slots=True)
class _Search:
    """Attempts of one unit with some of its cutouts."""

    task: UnitTask
    attempt: Attempt
    unit_seconds: float

    def run(self, excluded: Mapping[int, Reject], *, keep: bool = False) -> UnitResult | WorkerFailure:
        share = 1 - len(excluded) / self.task.planned
        seconds = max(share * self.unit_seconds, min(LEAST_SECONDS, self.unit_seconds))
        return self.attempt(self.task, excluded, keep=keep, seconds=seconds)

    def require_working_worker(self) -> None:
        """Attempt the unit without any cutout.

        Raises:
            FatalError: The worker fails: the cutouts are not the cause.
        """
        outcome = self._only(())
        if isinstance(outcome, WorkerFailure):
            raise FatalError(
                f"a worker keeps failing without any cutout ({outcome.cause} while {outcome.step} an empty "
                "unit): check the models, the memory and the machine; the logs are in Ray's folder"
            )

    def find(self, poison: Mapping[int, Reject]) -> tuple[int, WorkerFailure] | None:
        """Return the first cutout, not yet excluded, that alone makes a worker fail; None if none does."""
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
                # A worker must fail twice with this cutout alone before the cutout is rejected.
                again = self._only(half)
                return (half[0], again) if isinstance(again, WorkerFailure) else None
            suspects = half
        return None

    def _only(self, places: Sequence[int]) -> UnitResult | WorkerFailure:
        waiting = Reject.of(Stage.READ, Reason.POISON, "not tried now")
        chosen = set(places)
        return self.run({n: waiting for n in range(self.task.planned) if n not in chosen})
