"""What workers do with a unit: its steps, each reported before and after, and ended where it takes too long.

Whatever carries units to workers (`gax_batch.cluster.pipeline`) calls these; each can be called without it.
"""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import pyarrow as pa

from gax_batch.cluster.isolation import ended_after
from gax_batch.cluster.unit import (
    Engine,
    UnitOptions,
    UnitResult,
    UnitState,
    UnitTask,
    infer,
    leave_out,
    read,
    result_row,
    state_of,
    write,
)
from gax_batch.cluster.unit_tracker import INFERRING, READING, WRITING, StepLimit
from gax_batch.errors import FatalError
from gax_batch.rejects import Reject

Load = Callable[[], Engine]
"""Builds the engine in the process that will use it."""


class Reports(Protocol):
    """A worker's way to the run's tracker (see `gax_batch.cluster.unit_tracker`)."""

    def enter(self, unit_id: str, state: str) -> int:
        """Begin a step: how often it has begun without an end, 0 where it may not begin."""

    def advance(self, unit_id: str, cutouts: int) -> None:
        """Say how many more cutouts of a unit are inferred."""

    def leave(self, unit_id: str, state: str) -> None:
        """End a step."""


@dataclass(frozen=True, slots=True)
class Steps:
    """The steps of units in one worker: how long each may take, and how often it may begin without an end."""

    reports: Reports
    limit: StepLimit
    tries: int

    @contextmanager
    def __call__(self, unit: UnitTask | UnitState, state: str) -> Iterator[bool]:
        """Do the block as a step of a unit; yields whether it may begin.

        Raises:
            FatalError: The unit has ended its workers too often at this step.
        """
        unit_id = unit.unit_id
        number = self.reports.enter(unit_id, state)
        if number > self.tries:
            raise FatalError(f"{state} the unit {unit_id} has ended its worker {self.tries} times")
        if not number:
            yield False
            return
        size = unit.bytes if isinstance(unit, UnitTask) else unit.bytes_read
        with ended_after(self.limit.of_unit(unit.planned, size)):
            yield True
        self.reports.leave(unit_id, state)


def read_block(pointer: pa.Table, options: UnitOptions, steps: Steps) -> pa.Table:
    """Read the unit that a table of one row, `UnitTask`, points to."""
    (values,) = pointer.to_pylist()
    task = UnitTask(**values)
    with steps(task, READING) as begun:
        return read(task, options) if begun else leave_out(task)


class Classifier:
    """Holds the models of one worker.

    They are loaded beside the first reading, and what that raises is raised where they are first needed: a
    worker that ended in its constructor would leave nobody to tell.
    """

    def __init__(self, load: Load, options: UnitOptions, steps: Steps) -> None:
        self._engine = ThreadPoolExecutor(1).submit(load)
        self._options, self._steps = options, steps

    def __call__(self, block: pa.Table) -> pa.Table:
        """Classify a unit's block."""
        unit = state_of(block)
        with self._steps(unit, INFERRING) as begun:
            if not begun:
                return leave_out(block)
            advance = partial(self._steps.reports.advance, unit.unit_id)
            return infer(block, self._engine.result(), self._options, advance)


def write_block(block: pa.Table, options: UnitOptions, steps: Steps) -> pa.Table:
    """Store a block as its unit's part; the result as one row."""
    with steps(state_of(block), WRITING):
        return result_row(write(block, options))


class SingleUnitActor:
    """Takes one unit all the way, in a worker that nothing else depends on."""

    def __init__(self, load: Load, options: UnitOptions, steps: Steps) -> None:
        self._load, self._options, self._steps = load, options, steps
        self._engine: Engine | None = None

    def attempt(self, task: UnitTask, excluded: Mapping[int, Reject], keep: bool, seconds: float) -> pa.Table:
        """Process a unit without the cutouts set aside; the result as one row, with a part if it is kept."""
        step = partial(replace(self._steps, limit=StepLimit(seconds=seconds)), task)
        with step(READING) as begun:
            block = read(task, self._options, excluded) if begun else leave_out(task)
        with step(INFERRING) as begun:
            if begun:
                # Not before, since a unit that cannot be read needs no models.
                self._engine = self._engine or self._load()
                block = infer(block, self._engine, self._options)
            else:
                block = leave_out(block)
        if not keep:
            return result_row(UnitResult(state_of(block), None))
        with step(WRITING):
            return result_row(write(block, self._options))
