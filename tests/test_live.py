"""A run at a real terminal, and real signals: what is shown, what is kept, how it ends."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from catalogs import run_record
from galaxy_images import write_images
from message_facts import numbers_in
from waiting import wait_for

from gax_batch.catalog.snapshots import Catalog
from gax_batch.runner import record

UNITS = 10
GAX = [sys.executable, str(Path(__file__).with_name("gax_with_fake_engine.py"))]


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    write_images(tmp_path / "images", 4 * UNITS)
    places = ["--input", str(tmp_path / "images"), "--catalog", str(tmp_path / "catalog")]
    return [*GAX, "run", *places, "--unit-size", "4", "--cpus", "2"]


def environment(tmp_path: Path, seconds: float) -> dict[str, str]:
    told = {"GAX_FAKE_LOG": str(tmp_path / "engine.log"), "GAX_FAKE_SECONDS": str(seconds)}
    plain = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    return plain | told | {"PYTHONUNBUFFERED": "1", "TERM": "xterm", "COLUMNS": "110", "LINES": "30"}


def parts(tmp_path: Path) -> int:
    return len(list((tmp_path / "catalog" / "galaxies" / "parts").rglob("*.parquet")))


def begun(tmp_path: Path) -> int:
    log = tmp_path / "engine.log"
    return len(log.read_text().splitlines()) if log.exists() else 0


class Terminal:
    """The person's side of a terminal; what was shown is in `shown`, without what moves the cursor."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self._mine, theirs = pty.openpty()
        self.process = subprocess.Popen(
            command,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            env=environment | {"GAX_TERMINAL": "1"},
        )
        os.close(theirs)
        self._bytes = b""

    def look(self) -> str:
        while select.select([self._mine], [], [], 0)[0]:
            try:
                self._bytes += os.read(self._mine, 65_536)
            except OSError:
                break  # the other side has gone
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self._bytes.decode(errors="replace"))

    def press_ctrl_c(self) -> None:
        os.write(self._mine, b"\x03")

    def wait(self, seconds: float) -> int:
        until = time.monotonic() + seconds
        while self.process.poll() is None:
            self.look()
            assert time.monotonic() < until
            time.sleep(0.05)
        return self.process.returncode

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._mine)


def interrupted(exit_code: int) -> str:
    """What a run says at its end that was interrupted before its commit."""
    (line,) = record.Outcome(record.INTERRUPTED, exit_code).messages
    return line


def test_ctrl_c_at_a_terminal_keeps_what_is_in_flight_and_says_how_to_go_on(tmp_path, command):
    terminal = Terminal(command, environment(tmp_path, seconds=1.5))
    try:
        wait_for(lambda: "inference" in terminal.look() and parts(tmp_path) >= 2, "two parts", 120)
        terminal.press_ctrl_c()
        assert terminal.wait(60) == 130
        shown = terminal.look()
    finally:
        terminal.close()
    # Cutouts, units, engines and the object store, each of how many; then what another Ctrl-C does.
    for total in (r"40\b", r"10\b", r"1\b", r"\d+ MiB"):
        assert re.search(rf"\b\d+ \w+ {total}", shown)
    assert "Ctrl-C" in shown
    assert interrupted(130) in " ".join(shown.split())
    left = run_record(tmp_path / "catalog")
    assert (left["status"], left["exit_code"]) == ("interrupted", 130)
    # What the engine had begun is stored, nothing was begun afterwards, nothing is visible yet.
    assert 2 <= parts(tmp_path) == begun(tmp_path) < UNITS
    assert Catalog(str(tmp_path / "catalog")).version is None


@pytest.mark.slow
def test_a_second_signal_stops_at_once_and_the_next_run_goes_on(tmp_path, command):
    run = subprocess.Popen(
        command,
        env=environment(tmp_path, seconds=20),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_for(lambda: begun(tmp_path) == 1, "a unit at the engine")
    run.send_signal(signal.SIGTERM)
    time.sleep(2)
    assert run.poll() is None
    run.send_signal(signal.SIGTERM)
    output, _ = run.communicate(timeout=15)
    assert run.returncode == 143
    left = run_record(tmp_path / "catalog")
    assert (left["status"], left["exit_code"]) == ("interrupted", 143)
    assert interrupted(143) in output
    assert parts(tmp_path) == 0
    again = subprocess.run(
        command, env=environment(tmp_path, seconds=0), stdout=subprocess.PIPE, text=True, check=True
    )
    assert any({"40", "0"} <= set(numbers_in(line)) for line in again.stdout.splitlines())
    assert Catalog(str(tmp_path / "catalog")).galaxy_count() == 40


@pytest.mark.slow
def test_the_end_of_the_grace_stops_what_is_in_flight(tmp_path, command):
    run = subprocess.Popen([*command, "--grace", "3"], env=environment(tmp_path, seconds=60), text=True)
    wait_for(lambda: begun(tmp_path) == 1, "a unit at the engine")
    run.send_signal(signal.SIGTERM)
    assert run.wait(30) == 143
    assert parts(tmp_path) == 0


@pytest.mark.slow
def test_before_an_engine_has_begun_nothing_is_waited_for(tmp_path, command):
    run = subprocess.Popen(command, env=environment(tmp_path, seconds=1), stdout=subprocess.PIPE, text=True)
    wait_for(lambda: bool(list((tmp_path / "catalog").rglob("run.json"))), "the run's record")
    run.send_signal(signal.SIGINT)
    run.communicate(timeout=30)
    assert run.returncode == 130
