"""How a run's state is shown: live on a terminal, as plain lines elsewhere, or as JSON lines for programs."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from gax_batch.cluster.progress import LINE_EVERY_SECONDS, RunState, Say, duration
from gax_batch.cluster.unit import UnitResult
from gax_batch.cluster.unit_tracker import STATES
from gax_batch.system.machine import MIB

_LONGEST_PAUSE_SECONDS = 60.0
_SHOWN_REASONS = 4


class Display(Protocol):
    """Shows a person or a program what becomes of a run."""

    def say(self, line: str) -> None:
        """Show one line."""

    def fail(self, line: str) -> None:
        """Show why the run ended."""

    def unit(self, result: UnitResult, state: RunState) -> None:
        """A unit has ended."""

    def refresh(self, state: RunState) -> None:
        """A second has passed."""

    @contextmanager
    def running(self, state: RunState) -> Iterator[None]:
        """Units are being worked on as long as the block lasts."""


class _Pace:
    """Every five seconds in the beginning, every minute in a run of hours; the end is always due."""

    def __init__(self) -> None:
        self._last = 0.0

    def due(self, state: RunState, now: float) -> bool:
        pause = min(max(LINE_EVERY_SECONDS, (now - state.started) / 20), _LONGEST_PAUSE_SECONDS)
        if not state.done or (now - max(self._last, state.started) < pause and state.done < state.planned):
            return False
        self._last = now
        return True


class PlainLines:
    """Lines of text, for a log or a pipe."""

    def __init__(self, say: Say) -> None:
        self.say = say
        self._pace = _Pace()
        self._said = ""

    def fail(self, line: str) -> None:
        """Show the error on standard error."""
        print(f"gax: {line}", file=sys.stderr, flush=True)

    def unit(self, result: UnitResult, state: RunState) -> None:
        """Name a unit that failed; else the pace decides."""
        if result.part is None:
            self.say(f"unit {result.state.unit_id} failed: {result.state.failure}")
        if state.done == state.planned:
            self.refresh(state)

    def refresh(self, state: RunState) -> None:
        """Say how far the run is, if it is time."""
        line = state.line()
        if self._pace.due(state, _now()) and line != self._said:
            self._said = line
            self.say(line)

    @contextmanager
    def running(self, state: RunState) -> Iterator[None]:
        """Nothing to set up."""
        yield


class JsonLines:
    """One JSON object a line: `time`, `run`, `event` (message, unit, progress, error) and its fields."""

    def __init__(self, write: Say) -> None:
        self._write = write
        self._pace = _Pace()
        self._run: str | None = None

    def say(self, line: str) -> None:
        """A message for people."""
        self._emit("message", message=line)

    def fail(self, line: str) -> None:
        """Why the run ended."""
        self._emit("error", level="error", message=line)

    def unit(self, result: UnitResult, state: RunState) -> None:
        """How a unit ended, where it was inferred, and the seconds of its steps."""
        unit, part = result.state, result.part
        self._emit(
            "unit",
            level="info" if part else "error",
            unit=unit.unit_id,
            worker=unit.worker or None,
            cutouts=unit.planned,
            rejects=part.rejects_by_reason if part else None,
            seconds={step: round(seconds, 3) for step, seconds in unit.seconds.items()},
            bytes_read=unit.bytes_read,
            failure=unit.failure,
        )
        if state.done == state.planned:
            self.refresh(state)

    def refresh(self, state: RunState) -> None:
        """How far the run is, if it is time."""
        if self._pace.due(state, _now()):
            self._emit("progress", **as_dict(state))

    @contextmanager
    def running(self, state: RunState) -> Iterator[None]:
        """From here on the lines name the run."""
        self._run = state.run_id
        yield

    def _emit(self, event: str, level: str = "info", **fields: Any) -> None:
        line = {"time": datetime.now(UTC).isoformat(), "level": level, "run": self._run, "event": event}
        self._write(json.dumps(line | fields))


class LiveDisplay:
    """A panel at the foot of a terminal, above which other lines pass."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None

    def say(self, line: str) -> None:
        """Show one line above the panel."""
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def fail(self, line: str) -> None:
        """Show the error on standard error."""
        print(f"gax: {line}", file=sys.stderr, flush=True)

    def unit(self, result: UnitResult, state: RunState) -> None:
        """Name a unit that failed, and draw the panel again."""
        if result.part is None:
            self.say(f"unit {result.state.unit_id} failed: {result.state.failure}")
        self.refresh(state)

    def refresh(self, state: RunState) -> None:
        """Draw the panel again."""
        if self._live is not None:
            self._live.update(panel(state))

    @contextmanager
    def running(self, state: RunState) -> Iterator[None]:
        """Keep the panel up; it stays as it was at the end."""
        with Live(
            panel(state),
            console=self._console,
            refresh_per_second=4,
            redirect_stdout=False,
            redirect_stderr=False,
        ) as self._live:
            yield
        self._live = None


class _LastingConsole(Console):
    """A console that is silent once nobody reads it, where Rich would end the process."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        _discard_output()


def open_display(write: Say, *, json_lines: bool) -> Display:
    """Return the display for standard output, which a run outlasts where it is closed.

    Args:
        write: Shows one line of it.
        json_lines: Show JSON lines, also on a terminal.
    """

    def write_if_read(line: str) -> None:
        try:
            write(line)
        except OSError:
            _discard_output()

    if json_lines:
        return JsonLines(write_if_read)
    console = _LastingConsole()
    if console.is_terminal and not console.is_dumb_terminal:
        return LiveDisplay(console)
    return PlainLines(write_if_read)


def _discard_output() -> None:
    """Let the rest of standard output vanish: else the interpreter's last flush of it fails."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def as_dict(state: RunState) -> dict[str, Any]:
    """The state as plain JSON values."""
    left = state.seconds_left
    return {
        "cutouts_done": state.done,
        "cutouts_planned": state.planned,
        "cutouts_per_second": round(state.rate, 2),
        "seconds_left": None if left is None else round(left),
        "rejects": dict(state.counts.rejects_by_reason),
        "units_planned": state.units,
        "units_ended": state.ended_units,
        "units_failed": len(state.counts.failures),
        "units": {name: state.sample.view.units.get(name, 0) for name in STATES},
        "engines": state.sample.engines,
        "engines_started": len(state.sample.view.engines),
        "limited_by": state.limiting_step,
        "object_store_mib": round(state.sample.store_used / MIB),
        "object_store_of_mib": round(state.sample.store_bytes / MIB),
    }


def panel(state: RunState) -> Group:
    """What the live display shows of a state."""
    told = as_dict(state)
    left = state.seconds_left
    bar = Table.grid(padding=(0, 2))
    bar.add_row(
        ProgressBar(total=max(state.planned, 1), completed=state.done, width=32),
        f"{state.done:,} of {state.planned:,} cutouts",
        f"{state.rate:,.1f}/s",
        "" if left is None else f"about {duration(left)} left",
    )
    units = ", ".join(f"{count:,} {name}" for name, count in told["units"].items() if count)
    reasons = state.counts.rejects_by_reason.most_common()
    listed = ", ".join(f"{count:,} {reason}" for reason, count in reasons[:_SHOWN_REASONS])
    more = f", and {len(reasons) - _SHOWN_REASONS} other reasons" if reasons[_SHOWN_REASONS:] else ""
    rows = Table.grid(padding=(0, 2))
    rows.add_column(style="dim")
    rows.add_row("units", f"{state.ended_units:,} of {state.units:,} ended{'; ' if units else ''}{units}")
    at_work = told["units"]["inferring"]
    rows.add_row("engines", f"{at_work:,} of {told['engines']:,} at work; {_limit(state)}")
    rows.add_row("object store", f"{told['object_store_mib']:,} of {told['object_store_of_mib']:,} MiB")
    rows.add_row("rejects", f"{state.counts.rejects:,}{': ' if listed else ''}{listed}{more}")
    return Group(Text(f"run {state.run_id}", style="dim"), bar, rows)


def _limit(state: RunState) -> str:
    if state.stopping:
        return "stopping, what is in flight is finished"
    step = state.limiting_step
    return "starting" if step == "starting" else f"limited by {step}"


def _now() -> float:
    return datetime.now(UTC).timestamp()
