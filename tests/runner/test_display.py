"""A run's state as plain lines, as JSON lines, and as the panel of a terminal."""

import io
import json
import logging
import os
import re
import subprocess
import sys
from typing import Any

import pytest
from message_facts import numbers_in
from rich.console import Console

from gax_batch.catalog.parts import Part
from gax_batch.cluster import progress
from gax_batch.cluster.progress import RunCounts, RunState, Sample, duration
from gax_batch.cluster.unit import UnitResult, UnitState
from gax_batch.cluster.unit_tracker import TrackerView
from gax_batch.runner import display as module
from gax_batch.runner.display import (
    JsonLines,
    LiveDisplay,
    PlainLines,
    as_dict,
    open_display,
    panel,
)
from gax_batch.system.machine import MIB
from gax_batch.system.messages import redirect_messages

logger = logging.getLogger("gax_batch.runner")


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that the test moves."""
    clock = [1_000.0]
    monkeypatch.setattr(progress.time, "time", lambda: clock[0])
    monkeypatch.setattr(module, "_now", lambda: clock[0])
    return clock


def result(unit: str, rows: int, failure: str | None = None, **rejects: int) -> UnitResult:
    planned = rows + sum(rejects.values())
    state = UnitState(unit, "f", planned, failure, {"read": 1.5, "infer": 3.0}, bytes_read=5, worker="node/7")
    part = Part(unit, "f", f"parts/s/{unit}.parquet", 1, rows, planned - rows, planned, "{}", None, rejects)
    return UnitResult(state, None if failure else part)


def run_of(units: int = 10, planned: int = 1_000) -> RunState:
    return RunState("run-1", RunCounts(), planned=planned, units=units, draws=4)


def sample(units: dict[str, int], inferred: dict[str, int] | None = None, engines: int = 2) -> Sample:
    view = TrackerView(units, inferred or {}, ("node/7", "node/8"), 1_000.0)
    return Sample(view, engines, 30 * MIB, 256 * MIB)


def test_a_state_counts_units_that_ended_and_slices_of_those_that_have_not(now):
    state = run_of()
    assert (state.done, state.seconds_left, state.limiting_step) == (0, None, "starting")
    now[0] += 10
    state.on_sample(sample({"inferring": 2}, {"a": 60, "b": 40}))
    assert (state.done, state.rate, state.seconds_left) == (100, 10.0, 90.0)
    state.add(result("a", 95, truncated=5))
    # What the tracker still says of a unit that has ended does not count twice, and nothing is taken back.
    assert state.done == 140
    state.on_sample(sample({"inferring": 1}, {"a": 100, "b": 40}))
    assert state.done == 140
    state.on_sample(sample({}, {}))
    assert state.done == 140
    assert state.last_progress == now[0]
    assert (state.new_galaxies, state.bytes_read, state.ended_units) == (95, 5, 1)
    assert state.new_rejects == {"truncated": 5}


@pytest.mark.parametrize(
    ("units", "step"),
    [
        ({"reading": 2, "inferring": 1}, "reading"),
        ({"reading": 1, "waiting": 2, "inferring": 2}, "inference"),
        ({"inferring": 2}, "inference"),
        ({"inferred": 4, "writing": 3, "inferring": 2}, "writing"),
    ],
)
def test_the_step_that_limits_is_the_one_that_the_others_wait_for(units, step):
    state = run_of()
    state.on_sample(sample(units))
    assert state.limiting_step == step


def test_plain_lines_come_at_a_pace_that_slows_down_and_name_failures(now, messages):
    shown, state = PlainLines(), run_of(planned=10_000)
    for second in range(1, 2_001):
        now[0] += 1
        state.on_sample(sample({"inferring": 1}, {"a": second}))
        shown.refresh(state)
    assert numbers_in(messages[0], duration(9_995)) == ["0", "1.0", "10,000", "5"]
    assert duration(9_995) in messages[0]
    assert 20 < len(messages) < 100
    assert "10" in numbers_in(messages[1])
    late = {int(number.replace(",", "")) for number in numbers_in(messages[-1]) if "." not in number}
    assert max(late - {10_000}) > 1_900
    state.add(result("b", 10, failure="reading failed: gone"))
    shown.unit(result("b", 10, failure="reading failed: gone"), state)
    assert re.search(r"\bb\b.*reading failed: gone$", messages[-1])


def test_the_end_is_always_said_once(now, messages):
    shown, state = PlainLines(), run_of(units=1, planned=100)
    now[0] += 1
    state.add(result("a", 97, truncated=3))
    shown.unit(result("a", 97, truncated=3), state)
    shown.refresh(state)
    (line,) = messages
    assert numbers_in(line) == ["0", "100", "100", "100.0", "3"]


def test_json_lines_tell_run_unit_and_worker(now):
    lines: list[dict[str, Any]] = []
    shown, state = JsonLines(lambda line: lines.append(json.loads(line))), run_of(units=2, planned=110)
    with redirect_messages(shown.message):
        logger.info("1 cutouts in x")
    with shown.running(state):
        now[0] += 10
        state.add(result("a", 95, truncated=5))
        shown.unit(result("a", 95, truncated=5), state)
        shown.refresh(state)
        state.add(result("b", 10, failure="inference failed: NaN"))
        shown.unit(result("b", 10, failure="inference failed: NaN"), state)
        shown.refresh(state)
    shown.fail("the pipeline broke")
    assert [line["event"] for line in lines] == ["message", "unit", "progress", "unit", "progress", "error"]
    assert [line["run"] for line in lines] == [None, *["run-1"] * 5]
    assert lines[1] | {"time": 0} == {
        "time": 0,
        "level": "info",
        "run": "run-1",
        "event": "unit",
        "unit": "a",
        "worker": "node/7",
        "cutouts": 100,
        "rejects": {"truncated": 5},
        "seconds": {"read": 1.5, "infer": 3.0},
        "bytes_read": 5,
        "failure": None,
    }
    assert (lines[2]["cutouts_done"], lines[2]["rejects"]) == (100, {"truncated": 5})
    assert (lines[3]["level"], lines[3]["failure"]) == ("error", "inference failed: NaN")
    assert lines[4]["units_failed"] == 1
    assert lines[5]["message"] == "the pipeline broke"


def test_the_panel_shows_how_far_how_fast_where_and_what_limits(now):
    state = run_of()
    now[0] += 10
    state.add(result("a", 95, truncated=3, blank=2))
    state.on_sample(sample({"reading": 1, "waiting": 2, "inferring": 2}, {"b": 60}))
    text = io.StringIO()
    Console(file=text, width=100).print(panel(state))
    shown = text.getvalue()
    for fact in ("160", "1,000", "16.0/s", duration(52), "1 reading", "2 waiting", "2 inferring"):
        assert fact in shown
    for fact in ("inference", "256 MiB", "3 truncated", "2 blank"):
        assert fact in shown
    assert {"1", "10", "2", "30", "5"} <= set(numbers_in(shown))
    state.stopping = True
    text = io.StringIO()
    Console(file=text, width=100).print(panel(state))
    assert text.getvalue() != shown
    assert as_dict(state)["units"]["waiting"] == 2


def test_lines_pass_above_the_live_panel_as_they_are():
    text = io.StringIO()
    shown = LiveDisplay(Console(file=text, force_terminal=True, width=60))
    with shown.running(run_of()), redirect_messages(shown.message):
        logger.info("[bold]s3://a/[1]" + "x" * 80)
    assert "[bold]s3://a/[1]" + "x" * 80 in text.getvalue().replace("\n", "")


def test_what_is_not_a_terminal_gets_lines():
    lines: list[str] = []
    with open_display(lines.append, json_lines=False) as shown:
        assert isinstance(shown, PlainLines)
        logger.info("a line")
    assert lines == ["a line"]
    with open_display(lines.append, json_lines=True) as shown:
        assert isinstance(shown, JsonLines)
        logger.info("a line")
    assert json.loads(lines[1])["message"] == "a line"


CLOSED = """
import logging, sys, typer
from gax_batch.runner.display import open_display
with open_display(typer.echo, json_lines={json_lines}):
    for _ in range(3):
        logging.getLogger("gax_batch.runner").info("a line")
sys.stderr.write("went on")
"""


@pytest.mark.parametrize("json_lines", [False, True])
def test_a_closed_pipe_does_not_end_a_run(json_lines):
    reading, writing = os.pipe()
    os.close(reading)
    code = CLOSED.format(json_lines=json_lines)
    done = subprocess.run([sys.executable, "-c", code], stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"went on")
