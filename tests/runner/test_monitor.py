"""What brings a run's state up to date, from two threads, and answers a signal."""

import threading
from contextlib import nullcontext

import pytest

from gax_batch.catalog.parts import Part
from gax_batch.cluster.progress import RunCounts, RunState, Sample, Stall
from gax_batch.cluster.unit import UnitResult, UnitState
from gax_batch.cluster.unit_tracker import TrackerView
from gax_batch.runner.monitor import Monitor
from gax_batch.system.signals import StopRequest


class BrokenDisplay:
    """A display whose terminal is gone."""

    def fail(self, line: str) -> None:
        raise BrokenPipeError

    def unit(self, result: UnitResult, state: RunState) -> None:
        raise BrokenPipeError

    def refresh(self, state: RunState) -> None:
        raise BrokenPipeError

    def running(self, state: RunState) -> nullcontext[None]:
        return nullcontext()


class NoMetrics:
    """Metrics that nobody collects."""

    def unit(self, result: UnitResult, state: RunState) -> None:
        pass

    def refresh(self, state: RunState) -> None:
        pass


def result(unit: str) -> UnitResult:
    part = Part(unit, "f", f"parts/s/{unit}.parquet", 1, 5, 0, 5, "{}", None, {})
    return UnitResult(UnitState(unit, "f", 5), part)


def monitor_of(display: object, metrics: object | None = None) -> Monitor:
    state = RunState("run-1", RunCounts(), planned=10, units=2, draws=4)
    return Monitor(state, display, StopRequest(), 60.0, metrics or NoMetrics(), Stall(60.0))  # type: ignore[arg-type]


def test_a_display_that_is_gone_keeps_no_signal_from_its_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monitor = monitor_of(BrokenDisplay())
    ended: list[int] = []
    monkeypatch.setattr(monitor.stop, "end", lambda: ended.append(1))
    monitor.ended(result("a"))
    assert not monitor.on_sample(Sample())
    monitor.stop.number = 15
    assert monitor.on_sample(Sample(TrackerView({"inferring": 1})))
    for _ in range(3):
        assert monitor.on_sample(Sample())
    assert ended
    assert monitor.state.ended_units == 1


def test_a_display_that_is_gone_does_not_keep_a_stalled_run_from_being_given_up() -> None:
    monitor = monitor_of(BrokenDisplay())
    monitor.stall = Stall(0.0, give_up_seconds=0.0)
    monitor.on_sample(Sample())
    assert monitor.stop.cause is not None


def test_one_thread_at_a_time_changes_the_state() -> None:
    inside, go_on, order = threading.Event(), threading.Event(), []

    class SlowMetrics(NoMetrics):
        def refresh(self, state: RunState) -> None:
            inside.set()
            go_on.wait(10)
            order.append("sample")

    monitor = monitor_of(BrokenDisplay(), SlowMetrics())
    seeing = threading.Thread(target=lambda: monitor.on_sample(Sample()))
    ending = threading.Thread(target=lambda: (monitor.ended(result("a")), order.append("result")))
    seeing.start()
    inside.wait(10)
    ending.start()
    ending.join(0.2)
    assert ending.is_alive()
    go_on.set()
    seeing.join(10)
    ending.join(10)
    assert order == ["sample", "result"]
