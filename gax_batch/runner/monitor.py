"""Update the state of a run from its results and samples, and pass it to the display and the metrics.

Signals are processed here, outside their handler: no more units begin, and those in flight finish.
Results arrive in the main thread and samples in another one: a lock guards the state.
The run continues if its terminal or pipe is closed.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from gax_batch.cluster.progress import Observer, RunState, Sample, Stall, duration
from gax_batch.cluster.unit import UnitResult
from gax_batch.models.domain import Alarm
from gax_batch.runner.display import Display
from gax_batch.system.signals import StopRequest

logger = logging.getLogger(__name__)

# Reports of workers arrive with a delay: only the second sample without a unit in flight ends the run.
_IDLE_SAMPLES_BEFORE_THE_END = 2


@dataclass(slots=True)
class Monitor:
    """Keeps the state of a run, reports it, and ends the run after a request to stop.

    Attributes:
        state: State of the run.
        display: Shows the run to the user.
        stop: Request to stop, set by a signal.
        grace_seconds: Seconds for which units in flight may continue after a signal.
        metrics: Observer that receives the same events as the display.
        stall: Detects that the run makes no progress.
        alarm: Detects that the images differ from the reference images of the bundle.
    """

    state: RunState
    display: Display
    stop: StopRequest
    grace_seconds: float
    metrics: Observer
    stall: Stall
    alarm: Alarm = field(default_factory=lambda: Alarm(None))
    _idle_samples: int = field(default=0, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def ended(self, result: UnitResult) -> None:
        """Count and report the result of a unit."""
        with self._lock:
            self.state.add(result)
            self.metrics.unit(result, self.state)
            with suppress(OSError):
                self.display.unit(result, self.state)
                self.display.refresh(self.state)
                for line in self.alarm.see(self.state.counts.images):
                    logger.info(line)

    def on_sample(self, sample: Sample) -> bool:
        """Update the state with a sample of the workers. Return whether no more units may begin."""
        with self._lock:
            self.state.on_sample(sample)
            if self.stop.number is not None:
                self._end_when_idle(sample)
            self.metrics.refresh(self.state)
            line = self.stall.check(self.state.done, sample.view)
            with suppress(OSError):
                self.display.refresh(self.state)
                if line:
                    logger.info(line)
            if cause := self.stall.over(sample.view):
                self.stop.give_up(cause)
            return self.state.stopping

    @contextmanager
    def on(self) -> Iterator["Monitor"]:
        """Show the run while the block runs, and publish the metrics of its end."""
        with self.display.running(self.state):
            try:
                yield self
            finally:
                self.metrics.refresh(self.state)

    def _end_when_idle(self, sample: Sample) -> None:
        if not self.state.stopping:
            self.state.stopping = True
            with suppress(OSError):
                logger.info(
                    f"stopping: {sample.view.in_flight:,} units in flight are finished and kept, for at most "
                    f"{duration(self.grace_seconds)}; a second signal (Ctrl-C) stops at once"
                )
            return
        self._idle_samples = 0 if sample.view.in_flight else self._idle_samples + 1
        if self._idle_samples >= _IDLE_SAMPLES_BEFORE_THE_END:
            self.stop.end()
