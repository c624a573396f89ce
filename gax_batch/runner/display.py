"""Show the state of a run: live on a terminal, as plain lines elsewhere, or as JSON lines for programs."""

import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from gax_batch.cluster.progress import LINE_EVERY_SECONDS, Observer, RunState, duration
from gax_batch.cluster.unit import UnitResult
from gax_batch.cluster.unit_tracker import STATES
from gax_batch.system.machine import MIB
from gax_batch.system.messages import redirect_messages

logger = logging.getLogger(__name__)

_LONGEST_PAUSE_SECONDS = 60.0
_SHOWN_REASONS = 4


class Display(Observer, Protocol):
    """Shows the events of a run to a person or a program."""

    def fail(self, line: str) -> None:
        """Show why the run ended."""

    @contextmanager
    def running(self, state: RunState) -> Iterator[None]:
        """Show that units are processed while the block runs."""


class _Pace:
    """Decides when progress is shown: every 5 s at first, every minute in a run of hours, and at the end."""

    def __init__(self) -> None:
        self._last = 0.0

    def due(self, state: RunState, now: float) -> bool:
        """Return whether the state is to be shown at a time in seconds since 1970."""
        pause = min(max(LINE_EVERY_SECONDS, (now - state.started) / 20), _LONGEST_PAUSE_SECONDS)
        if not state.done or (now - max(self._last, state.started) < pause and state.done < state.planned):
            return False
        self._last = now
        return True


class PlainLines:
    """Logs the progress as messages, for a file or a pipe."""

    def __init__(self) -> None:
        self._pace = _Pace()
        self._shown = ""

    def fail(self, line: str) -> None:
        """Write the error to standard error."""
        print(f"gax: {line}", file=sys.stderr, flush=True)

    def unit(self, result: UnitResult, state: RunState) -> None:
        """Log a unit that failed."""
        if result.part is None:
            logger.info(f"unit {result.state.unit_id} failed: {result.state.failure}")

    def refresh(self, state: RunState) -> None:
        """Log the progress if the pace allows it."""
        line = state.line()
        if self._pace.due(state, _now()) and line != self._shown:
            self._shown = line
            logger.info(line)

    @contextmanager
    def running(self, state: RunState) -> Iterator[None]:
        """Run the block without any preparation."""
        yield


class JsonLines:
    """Writes JSON lines: `time`, `run`, `event` (message, unit, progress or error) and its fields."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._pace = _Pace()
        self._run: str | None = None

    def message(self, line: str) -> None:
        """Write a message of the log."""
        self._emit("message", message=line)

    def fail(self, line: str) -> None:
        """Write why the run ended."""
        self._emit("error", level="error", message=line)

    def unit(self, result: UnitResult, state: RunState) -> None:
        """Write how a unit ended, where it was inferred, and the seconds of its steps."""
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

    def refresh(self, state: RunState) -> None:
        """Write the progress if the pace allows it."""
        if self._pace.due(state, _now()):
            self._emit("progress", **as_dict(state))

    @contextmanager
    def running(self, state: RunState) -> Iterator[None]:
        """Add the identifier of the run to the lines from now on."""
        self._run = state.run_id
        yield

    def _emit(self, event: str, level: str = "info", **fields: Any) -> None:
        line = {"time": datetime.now(UTC).isoformat(), "level": level, "run": self._run, "event": event}
        self._write(json.dumps(line | fields))


class LiveDisplay(PlainLines):
    """A panel at the foot of a terminal, above which messages are printed."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        self._live: Live | None = None

    def message(self, line: str) -> None:
        """Print a message of the log above the panel."""
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def refresh(self, state: RunState) -> None:
        """Redraw the panel."""
        if self._live is not None:
            self._live.update(panel(state))

    @contextmanager
    def running(self, state: RunState) -> Iterator[None]:
        """Show the panel. Its last state stays on the terminal."""
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
    """A console that discards its output once it is closed. Rich would end the process."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        _discard_output()


@contextmanager
def open_display(write: Callable[[str], None], *, json_lines: bool) -> Iterator[Display]:
    """Show the messages and the events of a run on standard output. The run continues if that is closed.

    Args:
        write: Writes a line to standard output.
        json_lines: Write JSON lines, also to a terminal.

    Yields:
        The display of the events. Messages that are logged while the block runs are shown in its form.
    """

    def write_if_read(line: str) -> None:
        try:
            write(line)
        except OSError:
            _discard_output()

    console = _LastingConsole()
    display: JsonLines | LiveDisplay | None = None
    if json_lines:
        display = JsonLines(write_if_read)
    # Notebooks set FORCE_COLOR. Rich then reports a terminal.
    elif console.is_terminal and console.file.isatty() and not console.is_dumb_terminal:
        display = LiveDisplay(console)
    with redirect_messages(display.message if display else write_if_read):
        yield display or PlainLines()


def _discard_output() -> None:
    """Discard the rest of standard output. Otherwise the last flush of the interpreter would fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def as_dict(state: RunState) -> dict[str, Any]:
    """Return the state as plain JSON values."""
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
    """Return the drawing of a state for the live display."""
    facts = as_dict(state)
    left = state.seconds_left
    bar = Table.grid(padding=(0, 2))
    bar.add_row(
        ProgressBar(total=max(state.planned, 1), completed=state.done, width=32),
        f"{state.done:,} of {state.planned:,} cutouts",
        f"{state.rate:,.1f}/s",
        "" if left is None else f"about {duration(left)} left",
    )
    units = ", ".join(f"{count:,} {name}" for name, count in facts["units"].items() if count)
    reasons = state.counts.rejects_by_reason.most_common()
    listed = ", ".join(f"{count:,} {reason}" for reason, count in reasons[:_SHOWN_REASONS])
    more = f", and {len(reasons) - _SHOWN_REASONS} other reasons" if reasons[_SHOWN_REASONS:] else ""
    rows = Table.grid(padding=(0, 2))
    rows.add_column(style="dim")
    rows.add_row("units", f"{state.ended_units:,} of {state.units:,} ended{'; ' if units else ''}{units}")
    busy = facts["units"]["inferring"]
    rows.add_row("engines", f"{busy:,} of {facts['engines']:,} busy; {_limit(state)}")
    rows.add_row("object store", f"{facts['object_store_mib']:,} of {facts['object_store_of_mib']:,} MiB")
    rows.add_row("rejects", f"{state.counts.rejects:,}{': ' if listed else ''}{listed}{more}")
    return Group(Text(f"run {state.run_id}", style="dim"), bar, rows)


def _limit(state: RunState) -> str:
    if state.stopping:
        return "stopping, units in flight are finished"
    step = state.limiting_step
    return "starting" if step == "starting" else f"limited by {step}"


def _now() -> float:
    return datetime.now(UTC).timestamp()
