"""The faster precision is measured once for each kind of machine."""

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gax_batch.errors import FatalError
from gax_batch.models import precision

RATES = {"float32": 100.0, "bfloat16": 120.0}


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """The commands of the measurements, which are not run."""
    commands: list[list[str]] = []

    def run(command: list[str], **_: Any) -> SimpleNamespace:
        commands.append(command)
        return SimpleNamespace(stdout=f"a notice\n{json.dumps(RATES)}\n")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return commands


@pytest.mark.parametrize(("gain", "expected"), [(0.5, "float32"), (1.09, "float32"), (1.12, "bfloat16")])
def test_bfloat16_must_be_faster_by_more_than_a_tenth(gain: float, expected: str) -> None:
    assert precision.faster({"float32": 50.0, "bfloat16": 50.0 * gain}) == expected


def test_a_machine_is_measured_once(processes: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    assert [precision.rates_of_machine() for _ in range(2)] == [RATES, RATES]
    assert len(processes) == 1
    monkeypatch.setattr(precision, "cpu_name", lambda: "another CPU")
    assert precision.rates_of_machine() == RATES
    assert len(processes) == 2


@pytest.mark.parametrize("text", ["", "[1]", '{"another machine": {}}'])
def test_a_cache_that_says_nothing_is_written_anew(
    processes: list[list[str]], tmp_path: Path, text: str
) -> None:
    cache = tmp_path / "cache" / "gax-batch" / "precision.json"
    cache.parent.mkdir(parents=True)
    cache.write_text(text)
    assert precision.rates_of_machine() == RATES
    assert RATES in json.loads(cache.read_text()).values()


def test_without_a_writable_cache_each_run_measures(processes: list[list[str]], tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("no folder")
    assert [precision.rates_of_machine() for _ in range(2)] == [RATES, RATES]
    assert len(processes) == 2


def test_a_user_without_a_home_has_a_cache_in_the_temporary_folder(
    processes: list[list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def homeless(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "expanduser", homeless)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    assert [precision.rates_of_machine() for _ in range(2)] == [RATES, RATES]
    assert len(processes) == 1
    assert (tmp_path / "gax-batch" / "precision.json").exists()


def test_a_measurement_that_fails_names_the_way_around_it(
    processes: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(command: list[str], **_: Any) -> None:
        raise subprocess.CalledProcessError(1, command)

    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(FatalError, match="--precision"):
        precision.rates_of_machine()


def test_both_precisions_are_timed_in_this_process() -> None:
    found = precision.measure_rates(2)
    assert set(found) == {"float32", "bfloat16"}
    # Far apart on no machine that runs these tests: 0.4 to 4 times have been seen.
    assert 0.1 < found["bfloat16"] / found["float32"] < 10
