"""One night's run in a process of its own, that may kill itself at a step: `night.py JSON`.

The JSON has `settings` (of the run), `log` (where the engine leaves its lines), `kill` (a step of `KILLS`,
or null) and `ray` (false: the units are processed one by one in this process).
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from fake_engine import fake_engine

from gax_batch.catalog import delta
from gax_batch.cluster import pipeline, unit
from gax_batch.errors import GaxError
from gax_batch.runner import record
from gax_batch.runner import run as run_module
from gax_batch.runner.settings import load_settings
from gax_batch.storage.listing import list_objects
from gax_batch.system.messages import redirect_messages

KILLS = (
    "while reading",
    "while inferring",
    "while writing",
    "before the galaxies are committed",
    "after the galaxies are committed",
    "before the record is written",
)


def die(*_: object, **__: object) -> None:
    """End as a machine does that loses its power."""
    os.kill(os.getpid(), signal.SIGKILL)


def when(condition: Callable[[], bool]) -> None:
    """Die as soon as the condition holds."""

    def watch() -> None:
        while not condition():
            time.sleep(0.01)
        die()

    threading.Thread(target=watch, daemon=True).start()


def prepare(kill: str | None, catalog: str, log: Path) -> None:
    """Arrange the death of this process."""
    if kill == "while reading":
        # The workers have started, and no unit has come to the engine.
        original = pipeline.execute

        def execute(*arguments: Any) -> Iterator[unit.UnitResult]:
            threading.Timer(1.0, die).start()
            return original(*arguments)

        pipeline.execute = execute
    elif kill == "while inferring":
        lines = log.read_text() if log.exists() else ""
        when(lambda: log.exists() and log.read_text() != lines)
    elif kill == "while writing":
        parts = f"{catalog}/galaxies/parts"
        there = len(list_objects(parts, missing_ok=True))
        when(lambda: len(list_objects(parts, missing_ok=True)) > there)
    elif kill == "before the record is written":
        store = record.store
        record.store = lambda *a: die() if a[1]["snapshot"] is not None else store(*a)
    elif kill is not None:
        kill_at_commit(kill)


def kill_at_commit(kill: str) -> None:
    """Die before or after the commit."""
    commit, is_before = delta.Table.commit, kill.startswith("before")

    def mortal(self: delta.Table, *arguments: Any, **named: Any) -> None:
        if is_before:
            die()
        commit(self, *arguments, **named)
        die()

    delta.Table.commit = mortal


def one_by_one(tasks: Any, factory: Any, options: Any, *_: Any) -> Iterator[unit.UnitResult]:
    """What the pipeline does, without Ray."""
    engine = factory(1)
    for task in tasks:
        yield unit.write(unit.infer(unit.read(task, options), engine, options), options)


def main() -> int:
    """Run the night; the exit code of `gax run`."""
    told = json.loads(sys.argv[1])
    log = Path(told["log"])
    run_module.load_engine = partial(fake_engine, log=str(log), seconds=told.get("seconds", 0.0))
    if not told.get("ray", True):
        pipeline.execute = one_by_one
        pipeline.ray_session = lambda resources: nullcontext("")
    settings = load_settings(None, told["settings"])
    prepare(told["kill"], settings.catalog, log)
    try:
        with redirect_messages(print):
            return run_module.run_survey(settings).exit_code
    except GaxError as error:
        print(f"gax: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
