"""The steps of a unit in a worker: each is reported to the tracker and limited in time.

`gax_batch.cluster.pipeline` runs them on Ray; they can be called without it. Blocks of Ray Data are Arrow
tables: only the functions at the end of this module convert between them and `UnitResult`.
"""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Protocol

import pyarrow as pa

from gax_batch.cluster.isolation import ended_after
from gax_batch.cluster.unit import (
    NOTHING_EXCLUDED,
    Summarizer,
    UnitOptions,
    UnitResult,
    UnitState,
    UnitTask,
    infer,
    read,
    write,
)
from gax_batch.cluster.unit_tracker import INFERRING, READING, WRITING, StepLimit
from gax_batch.errors import FatalError
from gax_batch.rejects import Reject

Load = Callable[[], Summarizer]
"""Builds the engine in the process that uses it."""

MAX_LOADS = 5
"""Maximum number of times that an engine's process may end while it loads the models."""


class Reports(Protocol):
    """The connection of a worker to the run's tracker (see `gax_batch.cluster.unit_tracker`)."""

    def enter(self, unit_id: str, state: str) -> int:
        """Begin a step. Return how often it has begun without an end; 0 if it may not begin."""

    def advance(self, unit_id: str, cutouts: int) -> None:
        """Report how many more cutouts of a unit are inferred."""

    def leave(self, unit_id: str, state: str) -> None:
        """End a step."""

    def begin_load(self) -> int:
        """Begin to load the models. Return how often this engine has begun to load without an end."""

    def end_load(self) -> None:
        """End the loading of the models."""


@dataclass(frozen=True, slots=True)
class Steps:
    """The steps of units in one worker. Each is reported, and the process is ended if a step takes too long.

    Attributes:
        reports: The connection to the tracker.
        limit: How long each step may take.
        tries: How often a step of a unit may begin without an end.
    """

    reports: Reports
    limit: StepLimit
    tries: int

    def load(self, load: Load) -> Summarizer:
        """Load the models of an engine, which Ray restarts without limit if its process ends.

        Raises:
            FatalError: Loading has ended the process of this engine too often.
        """
        number = self.reports.begin_load()
        if number > MAX_LOADS:
            raise FatalError(f"loading the models has ended the process of an engine {MAX_LOADS} times")
        models = load()
        self.reports.end_load()
        return models

    def read(
        self, task: UnitTask, options: UnitOptions, excluded: Mapping[int, Reject] = NOTHING_EXCLUDED
    ) -> UnitResult:
        """Read a unit; see `gax_batch.cluster.unit.read`.

        Raises:
            FatalError: The unit has ended its workers too often at this step.
        """
        with self._begin(task, READING) as begun:
            return read(task, options, excluded) if begun else UnitResult.not_begun(task)

    def infer(
        self, result: UnitResult, engine: Load, options: UnitOptions, *, report_progress: bool = False
    ) -> UnitResult:
        """Classify a unit; see `gax_batch.cluster.unit.infer`.

        Args:
            result: Result of `read`.
            engine: Returns the models. Called if the step may begin; its errors are raised.
            options: Options of the run.
            report_progress: Whether to report each slice of cutouts that is done.

        Raises:
            FatalError: The unit has ended its workers too often at this step.
        """
        with self._begin(result.state, INFERRING) as begun:
            if not begun:
                return UnitResult.not_begun(result.state)
            models = engine()
            if not report_progress:
                return infer(result, models, options)
            return infer(result, models, options, partial(self.reports.advance, result.state.unit_id))

    def write(self, result: UnitResult, options: UnitOptions) -> UnitResult:
        """Store a unit; see `gax_batch.cluster.unit.write`. A stopping run still begins this step.

        Raises:
            FatalError: Cutouts were lost, or the unit has ended its workers too often at this step.
        """
        with self._begin(result.state, WRITING):
            return write(result, options)

    @contextmanager
    def _begin(self, unit: UnitTask | UnitState, step: str) -> Iterator[bool]:
        """Report and limit the block as a step of a unit. Yield whether the step may begin."""
        number = self.reports.enter(unit.unit_id, step)
        if number > self.tries:
            raise FatalError(f"{step} the unit {unit.unit_id} has ended its worker {self.tries} times")
        if not number:
            yield False
            return
        size = unit.bytes if isinstance(unit, UnitTask) else unit.bytes_read
        with ended_after(self.limit.of_unit(unit.planned, size)):
            yield True
        self.reports.leave(unit.unit_id, step)


class SingleUnitActor:
    """Executes all steps of one unit, in a worker on which nothing else depends."""

    def __init__(self, load: Load, options: UnitOptions, steps: Steps) -> None:
        # The models are loaded in the step that needs them, which limits and reports the loading.
        self._engine = cache(load)
        self._options, self._steps = options, steps

    def attempt(
        self, task: UnitTask, excluded: Mapping[int, Reject], keep: bool, seconds: float
    ) -> UnitResult:
        """Process a unit without the excluded cutouts; see `gax_batch.cluster.isolation.Attempt`."""
        steps = replace(self._steps, limit=StepLimit(seconds=seconds))
        result = steps.infer(steps.read(task, self._options, excluded), self._engine, self._options)
        return steps.write(result, self._options) if keep else UnitResult(result.state)


def read_block(pointer: pa.Table, options: UnitOptions, steps: Steps) -> pa.Table:
    """Read the unit of a table of one row, whose columns are the fields of `UnitTask`."""
    (values,) = pointer.to_pylist()
    return steps.read(UnitTask(**values), options).to_arrow()


class Classifier:
    """Holds the models of one worker and classifies blocks with them.

    The models are loaded in a thread while the first unit is read. Errors of loading are raised when a unit
    needs the models: an exception in the constructor could not be reported, because the actor would not
    exist.
    """

    def __init__(self, load: Load, options: UnitOptions, steps: Steps) -> None:
        self._engine = ThreadPoolExecutor(1).submit(steps.load, load)
        self._options, self._steps = options, steps

    def __call__(self, block: pa.Table) -> pa.Table:
        """Classify the unit of a block."""
        read = UnitResult.from_arrow(block)
        return self._steps.infer(read, self._engine.result, self._options, report_progress=True).to_arrow()


def write_block(block: pa.Table, options: UnitOptions, steps: Steps) -> pa.Table:
    """Store the unit of a block as its part of the catalog."""
    return steps.write(UnitResult.from_arrow(block), options).to_arrow()
