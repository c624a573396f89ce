"""Cutouts that the storage did not give: tried again alone, in the same run and in the next ones.

Whole runs in this process: the pipeline's steps without Ray.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_engine import fake_engine
from galaxy_images import write_images
from message_facts import numbers_in

from gax_batch.analysis.population import population
from gax_batch.catalog.draws import read_draws
from gax_batch.catalog.parts import Part
from gax_batch.catalog.snapshots import Catalog
from gax_batch.cluster import pipeline
from gax_batch.cluster.retries import with_retries
from gax_batch.cluster.unit import UnitResult, UnitState, UnitTask, infer, read, write
from gax_batch.runner import run as run_module
from gax_batch.runner.run import run_survey
from gax_batch.runner.settings import load_settings
from gax_batch.storage.local import LocalStore
from gax_batch.storage.store import Check
from gax_batch.system.messages import redirect_messages
from gax_batch.system.signals import StoppedError

BAD = "000005"


class Faults:
    """How often reading one image fails."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = 0
        original = LocalStore.read_checked

        def read(store: LocalStore, uri: str, check: Check) -> bytes:
            if Path(uri).stem == BAD and self.left:
                self.left -= 1
                raise OSError(5, "Input/output error")
            return original(store, uri, check)

        monkeypatch.setattr(LocalStore, "read_checked", read)


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Faults:
    return Faults(monkeypatch)


@pytest.fixture
def survey(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """24 images in two units; each batch leaves a line in `engine.log`."""
    write_images(tmp_path / "images", 24)
    monkeypatch.setattr(run_module, "load_engine", partial(fake_engine, log=str(tmp_path / "engine.log")))
    monkeypatch.setattr(pipeline, "ray_session", lambda _: nullcontext("nowhere"))

    def execute(tasks, factory, options, *_: object) -> Iterator[UnitResult]:
        engine = factory(1)
        for task in tasks:
            yield write(infer(read(task, options), engine, options), options)

    monkeypatch.setattr(pipeline, "execute", execute)
    return tmp_path


def night(survey: Path, catalog: str = "catalog", **flags: object) -> list[str]:
    lines: list[str] = []
    values = {"input": str(survey / "images"), "catalog": str(survey / catalog), "unit_size": 12}
    with redirect_messages(lines.append):
        run_survey(load_settings(None, values | {"keep_draws": True} | flags))
    return lines


def inferred(survey: Path) -> int:
    """Cutouts that the engine has had since this was last asked."""
    log = survey / "engine.log"
    count = sum(int(line.split()[1]) for line in log.read_text().splitlines()) if log.exists() else 0
    log.unlink(missing_ok=True)
    return count


def rows(survey: Path, catalog: str = "catalog") -> pa.Table:
    return Catalog(str(survey / catalog)).galaxies().sort_by("galaxy_id").drop_columns(["run_id"])


def rejects(survey: Path) -> list[tuple[str, str, int]]:
    found = Catalog(str(survey / "catalog")).rejects().to_pylist()
    return [(row["galaxy_id"], row["reason"], row["attempts"]) for row in found]


def check_as_without_faults(survey: Path) -> None:
    """Rows, draws and sums are those of a catalog whose storage never failed."""
    night(survey, "sound")
    assert rows(survey) == rows(survey, "sound")
    one, other = (str(survey / name) for name in ("catalog", "sound"))
    ids = [f"{number:06d}" for number in range(24)]
    assert (read_draws(one, ids) == read_draws(other, ids)).all()
    first, second = ([(f.galaxies, f.value) for f in population(place)] for place in (one, other))
    assert first == [pytest.approx(pair) for pair in second]


def test_a_fault_that_passes_within_the_run_costs_one_inference_and_no_reject(survey, faults):
    faults.left = 1
    lines = night(survey)
    assert inferred(survey) == 24
    assert rejects(survey) == []
    told = [line for line in lines if numbers_in(line, survey) == ["1"]]
    assert len(told) == 1
    check_as_without_faults(survey)


def test_a_fault_that_lasts_is_a_reject_that_the_next_night_tries_alone(survey, faults):
    faults.left = 2
    night(survey)
    assert inferred(survey) == 23
    assert rejects(survey) == [(BAD, "unreadable", 1)]
    faults.left = 2
    night(survey)
    assert inferred(survey) == 0
    assert rejects(survey) == [(BAD, "unreadable", 2)]
    night(survey)
    assert inferred(survey) == 1
    assert rejects(survey) == []
    check_as_without_faults(survey)


def test_a_run_that_was_interrupted_before_its_retries_leaves_them_to_the_next(survey, faults, monkeypatch):
    def stopped(tasks, execute, *_: object) -> Iterator[UnitResult]:
        list(execute(tasks))
        raise StoppedError(15)
        yield

    faults.left = 1
    with monkeypatch.context() as patch:
        patch.setattr(run_module, "with_retries", stopped)
        with pytest.raises(StoppedError):
            night(survey)
    assert inferred(survey) == 23
    night(survey)
    assert inferred(survey) == 1
    assert rejects(survey) == []
    check_as_without_faults(survey)


def test_a_unit_that_changed_meanwhile_or_is_forced_is_done_as_a_whole(survey, faults):
    faults.left = 2
    night(survey)
    inferred(survey)
    (survey / "images" / "000001.jpg").touch()
    night(survey)
    assert inferred(survey) == 12
    night(survey, full=True)
    assert inferred(survey) == 24


def test_a_part_without_the_companions_of_the_run_is_done_as_a_whole(survey, faults):
    faults.left = 2
    night(survey)
    inferred(survey)
    for draws in (survey / "catalog" / "draws").rglob("*.parquet"):
        if len(pq.read_table(draws)) == 11:
            draws.unlink()
    night(survey)
    assert inferred(survey) == 12
    check_as_without_faults(survey)


class TestWithoutRun:
    """The order of results."""

    def tasks(self) -> list[UnitTask]:
        return [UnitTask("plan", index, f"u{index}", "print", 4) for index in range(3)]

    def result(self, task: UnitTask, unread: int) -> UnitResult:
        reasons = {"unreadable": unread} if unread else {}
        part = Part(
            task.unit_id, "print", f"key-{task.unit_id}", 1, 4 - unread, unread, 4, "{}", None, reasons
        )
        state = UnitState(task.unit_id, "print", 4, seconds={"read": 1.0}, bytes_read=10)
        return UnitResult(state, part)

    def test_units_without_faults_come_at_once_and_the_others_after_their_retry(self):
        calls = []

        def execute(tasks):
            calls.append([(task.unit_id, task.base) for task in tasks])
            for task in tasks:
                yield self.result(task, unread=int(task.unit_id != "u1" and task.base is None))

        results = list(with_retries(self.tasks(), execute, lambda: False))
        assert [r.state.unit_id for r in results] == ["u1", "u0", "u2"]
        assert calls[1] == [("u0", "key-u0"), ("u2", "key-u2")]
        assert not any(r.part.unread for r in results)
        assert (results[1].state.seconds, results[1].state.bytes_read) == ({"read": 2.0}, 20)

    def test_a_retry_that_fails_or_is_not_begun_leaves_the_first_result(self):
        def execute(tasks):
            for task in tasks:
                if task.base is None:
                    yield self.result(task, unread=1)
                elif task.unit_id == "u0":
                    yield UnitResult(UnitState("u0", "print", 4, failure="reading failed"), None)

        results = list(with_retries(self.tasks(), execute, lambda: False))
        assert sorted(r.state.unit_id for r in results) == ["u0", "u1", "u2"]
        assert all(r.part is not None and r.part.unread == 1 for r in results)

    def test_a_run_that_is_told_to_stop_tries_nothing_again(self):
        calls = []

        def execute(tasks):
            calls.append(tasks)
            yield from (self.result(task, unread=1) for task in tasks)

        assert len(list(with_retries(self.tasks(), execute, lambda: True))) == 3
        assert len(calls) == 1
