import subprocess
import sys
from pathlib import Path

import pytest

from gax_batch.cli import training
from gax_batch.errors import UsageError
from training.data import TABLES


def test_training_needs_a_checkout(monkeypatch, tmp_path):
    monkeypatch.setattr(training, "CHECKOUT", tmp_path)
    with pytest.raises(UsageError, match="make install"):
        training.train_bundle("data", "output", [])


def test_the_installed_command_trains_from_any_folder(tmp_path):
    (tmp_path / "no-labels").mkdir()
    command = [str(Path(sys.executable).with_name("gax")), "train", "--data", "no-labels", "--output", "new"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no-labels" in done.stderr
    assert TABLES[0] in done.stderr
    assert not (tmp_path / "new").exists()


def test_training_is_run_as_a_module_and_its_exit_code_returned(monkeypatch):
    commands = []

    def run(command, check, env):
        commands.append(command)
        return subprocess.CompletedProcess(command, 2)

    monkeypatch.setattr(subprocess, "run", run)
    assert training.train_bundle("data", "output", ["--seed", "3"]) == 2
    assert commands[0][1:] == [
        "-m", "training.build", "--data", "data", "--output", "output", "--seed", "3"
    ]  # fmt: skip
