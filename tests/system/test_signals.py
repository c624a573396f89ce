"""Signals, sent for real to processes of their own: each prints what became of its work."""

import signal
import subprocess
import sys
import time

import pytest

WORK = """
import sys, time
from gax_batch.system.signals import StoppedError, drain_on_signal, handlers_kept, cancel_on_signal
grace, end_after = float(sys.argv[1]), float(sys.argv[2])
try:
    with cancel_on_signal(), drain_on_signal(grace) as stop:
        print("ready", flush=True)
        until = time.monotonic() + 20
        noticed = None
        while time.monotonic() < until:
            time.sleep(0.01)
            if stop.number and not noticed:
                noticed = time.monotonic()
                print("first", stop.number, flush=True)
            if noticed and time.monotonic() > noticed + end_after:
                stop.end()
except StoppedError as error:
    print("stopped", error.number, flush=True)
    sys.exit(error.exit_code)
"""


def start(code: str, *arguments: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_lets_work_end_and_the_second_stops_it(number):
    process = start(WORK, "20", "20")
    process.send_signal(number)
    assert process.stdout.readline() == f"first {int(number)}\n"
    begun = time.monotonic()
    process.send_signal(number)
    output, _ = process.communicate(timeout=15)
    assert output == f"stopped {int(number)}\n"
    assert process.returncode == 128 + number
    assert time.monotonic() - begun < 5


def test_the_end_of_the_grace_stops_it():
    process = start(WORK, "0.3", "20")
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=15)
    assert output.splitlines() == ["first 15", "stopped 15"]
    assert process.returncode == 143


def test_work_that_has_nothing_in_flight_any_more_ends_before_its_grace():
    process = start(WORK, "20", "0.1")
    process.send_signal(signal.SIGINT)
    begun = time.monotonic()
    output, _ = process.communicate(timeout=15)
    assert output.splitlines() == ["first 2", "stopped 2"]
    assert time.monotonic() - begun < 5


AT_ONCE = """
import signal, sys, time
from gax_batch.system.signals import StoppedError, handlers_kept, cancel_on_signal
try:
    with cancel_on_signal():
        with handlers_kept():
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(15))  # as ray.init does
        print("ready", flush=True)
        time.sleep(20)
except StoppedError as error:
    sys.exit(error.exit_code)
"""


def test_where_nothing_is_worth_finishing_the_first_signal_stops_and_a_librarys_handler_does_not():
    process = start(AT_ONCE)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=15)
    assert process.returncode == 143


def test_handlers_are_as_before_afterwards():
    code = (
        "import signal\n"
        "from gax_batch.system.signals import drain_on_signal, cancel_on_signal\n"
        "numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)\n"
        "before = [signal.getsignal(n) for n in numbers]\n"
        "with cancel_on_signal(), drain_on_signal(1.0): pass\n"
        "assert [signal.getsignal(n) for n in numbers] == before\n"
        "assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


GIVE_UP = """
import sys, threading, time
from gax_batch.errors import FatalError
from gax_batch.system.signals import drain_on_signal, cancel_on_signal
try:
    with cancel_on_signal(), drain_on_signal(20) as stop:
        print("ready", flush=True)
        threading.Timer(0.1, stop.give_up, ["no nodes"]).start()
        try:
            time.sleep(20)
        except Exception:
            print("a library must not see it")
except FatalError as error:
    print(error, flush=True)
    sys.exit(error.exit_code)
"""


def test_a_thread_can_give_the_work_up():
    process = start(GIVE_UP)
    begun = time.monotonic()
    output, _ = process.communicate(timeout=15)
    assert (output, process.returncode) == ("no nodes\n", 4)
    assert time.monotonic() - begun < 5
