"""Read cutouts again at the end of the run that the storage failed to return, before they become rejects."""

import logging
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import replace

from gax_batch.cluster.unit import UnitResult, UnitTask

logger = logging.getLogger(__name__)

Results = Generator[UnitResult, None, None]
Execute = Callable[[Sequence[UnitTask]], Results]
"""Processes units and yields the result of each, in any order."""


def with_retries(tasks: Sequence[UnitTask], execute: Execute, is_stopping: Callable[[], bool]) -> Results:
    """Process units; at the end, process the cutouts again that the storage failed to return.

    Args:
        tasks: The units.
        execute: Processes units.
        is_stopping: Returns whether the run is stopping. If so, no cutout is processed again.

    Yields:
        The result of each unit, once. Units with such cutouts follow after these were processed again.
    """
    held: dict[str, UnitResult] = {}
    keys: dict[str, str] = {}
    cutouts = 0
    with closing(execute(tasks)) as results:
        for result in results:
            if result.part is None or not result.part.unread:
                yield result
            else:
                held[result.state.unit_id] = result
                keys[result.state.unit_id] = result.part.key
                cutouts += result.part.unread
    again = [replace(task, base=keys[task.unit_id]) for task in tasks if task.unit_id in keys]
    if again and not is_stopping():
        logger.info(f"{cutouts:,} cutouts that the storage failed to return are read again")
        with closing(execute(again)) as results:
            for result in results:
                first = held.pop(result.state.unit_id)
                yield first if result.part is None else _joined(first, result)
    yield from held.values()


def _joined(first: UnitResult, second: UnitResult) -> UnitResult:
    """Return the second result with the seconds and bytes of both."""
    state = second.state
    seconds = Counter(first.state.seconds) + Counter(state.seconds)
    bytes_read = first.state.bytes_read + state.bytes_read
    return replace(second, state=replace(state, seconds=dict(seconds), bytes_read=bytes_read))
