"""Who watches a run: its state, which results and samples bring up to date, and what is drawn of it.

A signal is answered here, outside its handler: no more units are begun, those in flight are the last.
Results come in the main thread and samples in another one: a lock lets one at a time change the state.
A display that cannot be written, since its terminal or pipe is closed, ends neither.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Protocol

from gax_batch.cluster.progress import RunState, Sample, Stall, duration
from gax_batch.cluster.unit import UnitResult
from gax_batch.models.domain import Alarm
from gax_batch.runner.display import Display
from gax_batch.system.signals import StopRequest

# Reports of workers are on their way for a moment: only a second look that finds nothing in flight counts.
_LOOKS_BEFORE_THE_END = 2


class Publisher(Protocol):
    """Takes a run's numbers to where they are collected."""

    def unit(self, result: UnitResult) -> None:
        """A unit has ended."""

    def state(self, state: RunState) -> None:
        """A second has passed."""


@dataclass(slots=True)
class Monitor:
    """Keeps a run's state, shows it, and sees to it that a run that is told to stop ends."""

    state: RunState
    display: Display
    stop: StopRequest
    grace_seconds: float
    metrics: Publisher
    stall: Stall
    alarm: Alarm = field(default_factory=lambda: Alarm(None))
    _idle_looks: int = field(default=0, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def ended(self, result: UnitResult) -> None:
        """Count and show one unit's result."""
        with self._lock:
            self.state.add(result)
            self.metrics.unit(result)
            with suppress(OSError):
                self.display.unit(result, self.state)
                for line in self.alarm.see(self.state.counts.images):
                    self.display.say(line)

    def on_sample(self, sample: Sample) -> bool:
        """Take note of how the workers stand, and say whether no more units are to be begun."""
        with self._lock:
            self.state.on_sample(sample)
            if self.stop.number is not None:
                self._end_when_idle(sample)
            self.metrics.state(self.state)
            line = self.stall.check(self.state.done, sample.view)
            with suppress(OSError):
                self.display.refresh(self.state)
                if line:
                    self.display.say(line)
            if cause := self.stall.over(sample.view):
                self.stop.give_up(cause)
            return self.state.stopping

    @contextmanager
    def on(self) -> Iterator["Monitor"]:
        """Show the run as long as the block lasts, and publish how it stood at the end."""
        with self.display.running(self.state):
            try:
                yield self
            finally:
                self.metrics.state(self.state)

    def _end_when_idle(self, sample: Sample) -> None:
        if not self.state.stopping:
            self.state.stopping = True
            with suppress(OSError):
                self.display.say(
                    f"stopping: {sample.view.in_flight:,} units in flight are finished and kept, for at most "
                    f"{duration(self.grace_seconds)}; a second signal (Ctrl-C) stops at once"
                )
            return
        self._idle_looks = 0 if sample.view.in_flight else self._idle_looks + 1
        if self._idle_looks >= _LOOKS_BEFORE_THE_END:
            self.stop.end()
