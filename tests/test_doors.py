import importlib.util
import subprocess

import pytest

from gax_batch import doors
from gax_batch.errors import UsageError


def test_training_needs_a_checkout(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(UsageError, match="checkout"):
        doors.train_bundle("data", "output", [])


def test_training_is_run_as_a_module_and_its_exit_code_returned(monkeypatch):
    commands = []

    def run(command, check):
        commands.append(command)
        return subprocess.CompletedProcess(command, 2)

    monkeypatch.setattr(subprocess, "run", run)
    assert doors.train_bundle("data", "output", ["--seed", "3"]) == 2
    assert commands[0][1:] == [
        "-m", "training.build", "--data", "data", "--output", "output", "--seed", "3"
    ]  # fmt: skip
