"""Whole runs on a real Ray, with an engine that needs no TensorFlow.

Most share a Ray that stays up, since to start one takes longer than the run; those that start another in this
process come first.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import bad_images
import numpy as np
import pyarrow as pa
import pytest
from catalogs import run_record
from fake_engine import FakeEngine, fake_engine, known_draws
from galaxy_images import write_images
from message_facts import numbers_in

from gax_batch import gz2
from gax_batch.analysis.population import population
from gax_batch.catalog.draws import read_draws
from gax_batch.catalog.snapshots import Catalog
from gax_batch.cli.demo import run_demo
from gax_batch.cluster import pipeline, unit
from gax_batch.errors import FatalError, TransientError, UsageError
from gax_batch.runner import record
from gax_batch.runner import run as run_module
from gax_batch.runner.run import RunOutcome, run_survey
from gax_batch.runner.settings import load_settings
from gax_batch.system.machine import MIB, Resources
from gax_batch.system.messages import redirect_messages
from gax_batch.system.signals import StoppedError

IDENTITY = ["unit_id", "run_id"]


@pytest.fixture(scope="module")
def session() -> Iterator[str]:
    with pipeline.ray_session(Resources(2, None, 128 * MIB)) as folder:
        yield folder


@pytest.fixture
def shared_ray(session: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of this test find a Ray that is up already, and leave it up."""
    monkeypatch.setattr(pipeline, "ray_session", lambda _: nullcontext(session))


@pytest.fixture
def survey(tmp_path: Path) -> Path:
    write_images(tmp_path / "images", 60)
    return tmp_path


def catalog_run(survey: Path, catalog: str = "catalog", **flags: object) -> tuple[RunOutcome, list[str]]:
    lines: list[str] = []
    values = {"input": str(survey / "images"), "catalog": str(survey / catalog), "unit_size": 16, "cpus": 2}
    with redirect_messages(lines.append):
        outcome = run_survey(load_settings(None, values | flags))
    return outcome, lines


def rows(survey: Path, catalog: str = "catalog", identity: bool = False) -> pa.Table:
    table = Catalog(str(survey / catalog)).galaxies().sort_by("galaxy_id")
    return table if identity else table.drop_columns(IDENTITY)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An engine that needs no TensorFlow, and leaves a line for each batch in this file."""
    log = tmp_path / "engine.log"
    monkeypatch.setattr(run_module, "load_engine", partial(fake_engine, log=str(log)))
    return log


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of this test process their units one after the other in this process."""

    def one_by_one(tasks: Any, factory: Any, options: Any, *_: Any) -> Iterator[unit.UnitResult]:
        for task in tasks:
            yield unit.write(unit.infer(unit.read(task, options), FakeEngine(), options), options)

    monkeypatch.setattr(pipeline, "ray_session", lambda _: nullcontext(""))
    monkeypatch.setattr(pipeline, "execute", one_by_one)


def test_a_survey_becomes_a_catalog_and_a_second_run_has_nothing_to_do(survey, fake):
    bad = survey / "images" / "000007.jpg"
    bad.write_bytes(bad.read_bytes()[:400])
    outcome, lines = catalog_run(survey)
    assert outcome.exit_code == 0
    table = rows(survey, identity=True)
    assert table["galaxy_id"].to_pylist() == [f"{i:06d}" for i in range(60) if i != 7]
    rejects = Catalog(str(survey / "catalog")).rejects().to_pylist()
    assert [(r["galaxy_id"], r["stage"], r["reason"]) for r in rejects] == [("000007", "decode", "truncated")]
    record = json.loads((survey / "catalog" / "runs" / outcome.run_id / "run.json").read_text())
    assert record["status"] == "complete"
    assert record["counts"] == {
        "planned": 60,
        "units": 4,
        "units_reused": 0,
        "units_removed": 0,
        "units_failed": 0,
        "cutouts_failed": 0,
        "galaxies": 59,
        "rejects": 1,
        "rejects_by_reason": {"truncated": 1},
    }
    assert record["peak_memory_mib"] > 0
    assert record["galaxies_per_second"] > 0
    assert any({"60", "59", "1"} <= set(numbers_in(line, survey)) for line in lines)

    before = sorted(survey.rglob("*"))
    again, lines = catalog_run(survey)
    assert (again.exit_code, again.run_id, again.version) == (0, None, outcome.version)
    assert {"0", str(outcome.version)} <= set(numbers_in(lines[-1], survey))
    assert str(survey / "catalog") in lines[-1]
    assert sorted(survey.rglob("*")) == before


def test_rows_do_not_depend_on_units_workers_or_cpus(survey, fake):
    catalog_run(survey, "one", unit_size=7, cpus=1, workers=4)
    catalog_run(survey, "two", unit_size=60, workers=2, cpus=4)
    assert rows(survey, "one").equals(rows(survey, "two"))


def test_a_run_that_rejects_too_much_stops_before_its_commit_and_keeps_its_parts(shared_ray, survey, fake):
    for number in range(12):
        (survey / "images" / f"{number:06d}.jpg").write_bytes(b"no image")
    with pytest.raises(UsageError, match=r"\b12\b.*\b60\b.*12 not_an_image.*--max-rejects"):
        catalog_run(survey)
    assert Catalog(str(survey / "catalog")).version is None
    (record,) = (survey / "catalog" / "runs").rglob("run.json")
    assert json.loads(record.read_text())["status"] == "failed"
    lines = fake.read_text()
    outcome, _ = catalog_run(survey, max_rejects="20%")
    assert outcome.exit_code == 0
    assert fake.read_text() == lines
    assert len(rows(survey)) == 48


def test_a_folder_of_good_and_bad_files_gives_exactly_the_expected_rejects(shared_ray, survey, fake):
    images = survey / "images"
    for name, (make, _) in bad_images.BAD.items():
        (images / name).write_bytes(make())
    (images / "empty.jpg").write_bytes(b"")
    (images / "again").mkdir()
    (images / "again" / "000001.png").write_bytes(bad_images.encoded(bad_images.galaxy()))
    (images / "notes.txt").write_text("no galaxy")
    positions = "galaxy_id,ra,dec\n000000,12.5,-3\n000002,400,0\n000003,10,95\n000004,,\n"
    (survey / "positions.csv").write_text(positions)
    outcome, lines = catalog_run(survey, positions=str(survey / "positions.csv"), max_rejects=1)
    assert outcome.exit_code == 0
    expected = {name.rsplit(".", 1)[0]: ("decode", reason) for name, (_, reason) in bad_images.BAD.items()}
    # The first file of each id stays: "again/000001.png" sorts behind "000001.jpg", "no_height.png" too.
    expected |= {
        "empty": ("read", "empty_file"),
        "000001": ("plan", "duplicate_id"),
        "no_height": ("plan", "duplicate_id"),
        "000002": ("plan", "bad_position"),
        "000003": ("plan", "bad_position"),
    }
    rejects = Catalog(str(survey / "catalog")).rejects()
    found = {}
    for row in rejects.to_pylist():
        found.setdefault(row["galaxy_id"], set()).add((row["stage"], row["reason"]))
    assert found.pop("no_height") == {("plan", "duplicate_id"), ("decode", "zero_pixels")}
    expected.pop("no_height")
    assert found == {galaxy: {cause} for galaxy, cause in expected.items()}
    assert len(rejects) == len(bad_images.BAD) + 4
    table = rows(survey)
    assert table["galaxy_id"].to_pylist() == [f"{i:06d}" for i in range(60) if i not in (2, 3)]
    assert (table["ra"][0].as_py(), table["dec"][0].as_py()) == (12.5, -3.0)
    assert table["ra"][3].as_py() is None
    listed, *_ = (line for line in lines if str(images) in line)
    assert "1" in numbers_in(listed.partition(str(images))[2])


def test_the_shipped_bundle_gives_consistent_probabilities_and_intervals(shared_ray, tmp_path):
    write_images(tmp_path / "images", 5)
    catalog_run(tmp_path, draws=2)
    table = rows(tmp_path)
    value = {
        quantity: np.stack([table[f"{answer}_{quantity}"].to_numpy() for answer in gz2.ANSWERS], axis=1)
        for quantity in ("prob", "std", "lo", "hi", "svr")
    }
    assert value["prob"].shape == (5, 37)
    for quantity in ("prob", "svr"):
        assert gz2.inconsistency(value[quantity]) <= 1e-5
    for values in value.values():
        assert values.min() >= 0
        assert values.max() <= 1
    assert (value["lo"] <= value["prob"]).all()
    assert (value["prob"] <= value["hi"]).all()
    assert (value["std"] > 0).any()
    for question in gz2.QUESTION_NAMES:
        assert (table[f"{question}_entropy"].to_numpy() >= table[f"{question}_mutual_info"].to_numpy()).all()
    assert table["gz2_class"].to_pylist() == gz2.gz2_class(value["prob"])


def test_new_and_changed_cutouts_are_brought_in(shared_ray, survey, fake):
    catalog_run(survey)
    fake.unlink()
    write_images(survey / "images", 5, first=100)
    (survey / "images" / "000003.jpg").write_bytes((survey / "images" / "000101.jpg").read_bytes())
    outcome, _ = catalog_run(survey)
    assert outcome.exit_code == 0
    # The changed cutout's unit of 16, and one new unit of 5.
    assert sorted(int(line.split()[1]) for line in fake.read_text().splitlines()) == [5, 16]
    catalog_run(survey, "fresh")
    assert rows(survey).equals(rows(survey, "fresh"))


def test_full_does_every_unit_again(shared_ray, survey, fake):
    catalog_run(survey)
    before = rows(survey)
    fake.unlink()
    outcome, _ = catalog_run(survey, full=True)
    assert len(fake.read_text().splitlines()) == 4
    assert rows(survey).equals(before)
    assert set(rows(survey, identity=True)["run_id"].to_pylist()) == {outcome.run_id}


def test_an_object_that_could_not_be_read_is_tried_again_by_the_next_run(shared_ray, survey, fake):
    gone = survey / "images" / "000005.jpg"
    (survey / "images" / "link").mkdir()
    (survey / "images" / "link" / "linked.jpg").symlink_to(survey / "elsewhere.jpg")
    catalog_run(survey)
    rejects = Catalog(str(survey / "catalog")).rejects().to_pylist()
    assert [(r["galaxy_id"], r["reason"]) for r in rejects] == [("linked", "missing")]
    shutil.copy(gone, survey / "elsewhere.jpg")
    catalog_run(survey)
    assert len(Catalog(str(survey / "catalog")).rejects()) == 0
    assert len(rows(survey)) == 61
    again, _ = catalog_run(survey)
    assert again.run_id is None


def test_a_catalog_inside_its_input_is_no_input(shared_ray, survey, fake):
    for _ in range(2):
        outcome, _ = catalog_run(survey, "images/catalog")
    assert outcome.run_id is None
    assert len(rows(survey, "images/catalog")) == 60


def test_a_unit_that_fails_is_named_and_the_rest_is_committed(shared_ray, survey, monkeypatch):
    monkeypatch.setattr(run_module, "load_engine", partial(fake_engine, fail_on=12))
    outcome, lines = catalog_run(survey)
    assert outcome.exit_code == 3
    assert len(rows(survey)) == 48
    assert any("the model returned NaN" in line for line in lines)
    assert any({"60", "48", "0", "12", "1"} <= set(numbers_in(line, survey)) for line in lines)
    monkeypatch.setattr(run_module, "load_engine", fake_engine)
    outcome, _ = catalog_run(survey)
    assert outcome.exit_code == 0
    assert len(rows(survey)) == 60


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (FatalError("the store is gone"), "failed"),
        (RuntimeError("a defect"), "failed"),
        (KeyboardInterrupt("Ctrl-C"), "interrupted"),
        (StoppedError(15), "interrupted"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_whatever_ends_a_run_is_in_its_record(survey, no_ray, monkeypatch, error, status):
    def execute(*_):
        raise error
        yield

    monkeypatch.setattr(pipeline, "execute", execute)
    with pytest.raises(type(error)):
        catalog_run(survey)
    found = run_record(survey / "catalog")
    assert (found["status"], found["cause"], found["snapshot"]) == (status, str(error), None)
    assert found["exit_code"] == getattr(error, "exit_code", 130 if status == "interrupted" else 4)


def test_a_library_that_exits_ends_a_run_with_the_exit_code_of_its_record(survey, no_ray, monkeypatch):
    monkeypatch.setattr(pipeline, "execute", lambda *_: sys.exit("Ray ended it"))
    with pytest.raises(FatalError, match="Ray ended it") as caught:
        catalog_run(survey)
    assert run_record(survey / "catalog")["exit_code"] == caught.value.exit_code


UNCOMMITTED = record.Outcome(record.FAILED, 4).messages
"""What a run says that has committed nothing."""
assert UNCOMMITTED


def raising(error: BaseException) -> Callable[..., NoReturn]:
    def fail(*_: object, **__: object) -> NoReturn:
        raise error

    return fail


@pytest.mark.parametrize("error", [TransientError("too busy"), StoppedError(15)], ids=str)
def test_an_error_after_the_commit_leaves_a_complete_run_that_names_it(survey, no_ray, monkeypatch, error):
    commit = Catalog.commit

    def commit_and_fail(self: Catalog, *arguments: Any, **named: Any) -> int:
        commit(self, *arguments, **named)
        raise error

    monkeypatch.setattr(Catalog, "commit", commit_and_fail)
    outcome, lines = catalog_run(survey)
    found = run_record(survey / "catalog")
    assert (outcome.exit_code, outcome.version) == (0, Catalog(str(survey / "catalog")).version)
    assert (found["status"], found["exit_code"], found["snapshot"]) == ("complete", 0, outcome.version)
    assert found["cause"] == str(error)
    assert not set(UNCOMMITTED) & set(lines)
    (told,) = (line for line in lines if str(error) in line)
    assert str(outcome.version) in numbers_in(told, str(error))


def test_a_commit_that_fails_and_a_catalog_that_cannot_be_read_are_not_called_uncommitted(
    survey, no_ray, monkeypatch, messages
):
    monkeypatch.setattr(Catalog, "commit", raising(TransientError("gone")))
    monkeypatch.setattr(Catalog, "history", raising(TransientError("gone too")))
    values = {"input": str(survey / "images"), "catalog": str(survey / "catalog")}
    with pytest.raises(FatalError, match="gax catalog log"):
        run_survey(load_settings(None, values))
    assert not set(UNCOMMITTED) & set(messages)


def test_a_record_that_cannot_be_written_is_completed_by_the_next_run(survey, no_ray, monkeypatch):
    write = record.write_run_record

    def write_if_running(catalog: str, run_id: str, values: dict[str, Any]) -> None:
        if values["status"] != "running":
            raise TransientError("too busy")
        write(catalog, run_id, values | {"written": "2026-01-01T00:00:00+00:00"})

    with monkeypatch.context() as patch:
        patch.setattr(record, "write_run_record", write_if_running)
        outcome, lines = catalog_run(survey)
    assert outcome.exit_code == 0
    assert any("too busy" in line for line in lines)
    assert run_record(survey / "catalog")["status"] == "running"
    catalog_run(survey)
    found = run_record(survey / "catalog")
    assert (found["status"], found["snapshot"]) == ("complete", outcome.version)


def test_the_record_of_a_killed_driver_does_not_stay_running(survey, no_ray, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "execute", raising(FatalError("the store is gone")))
        with pytest.raises(FatalError):
            catalog_run(survey)
    (path,) = (survey / "catalog" / "runs").rglob("run.json")
    written = json.loads(path.read_text()) | {"status": "running", "snapshot": None}
    path.write_text(json.dumps(written))
    catalog_run(survey)
    assert json.loads(path.read_text())["status"] == "running"  # its driver may still be at work
    path.write_text(json.dumps(written | {"written": "2026-01-01T00:00:00+00:00"}))
    catalog_run(survey)
    found = json.loads(path.read_text())
    assert (found["status"], found["snapshot"]) == ("interrupted", None)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}"])
def test_records_that_cannot_be_read_do_not_end_the_next_run(survey, no_ray, monkeypatch, text):
    damaged = survey / "catalog" / "runs" / "20260101T000000Z-1" / "run.json"
    damaged.parent.mkdir(parents=True)
    damaged.write_text(text)
    monkeypatch.setattr(pipeline, "execute", raising(FatalError("the store is gone")))
    with pytest.raises(FatalError, match="the store is gone"):
        catalog_run(survey)
    assert damaged.read_text() == text


def test_the_record_of_a_run_at_work_is_renewed(survey, no_ray, monkeypatch):
    written: list[str] = []

    def execute(*_):
        deadline = time.monotonic() + 20
        while len(set(written)) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        raise FatalError("enough")
        yield

    monkeypatch.setattr(pipeline, "execute", execute)
    monkeypatch.setattr(record, "RENEWAL_SECONDS", 0.01)
    write = record.write_run_record
    monkeypatch.setattr(
        record, "write_run_record", lambda *a: (written.append(a[2]["written"]), write(*a))[1]
    )
    with pytest.raises(FatalError):
        catalog_run(survey)
    assert len(set(written)) >= 3
    assert run_record(survey / "catalog")["status"] == "failed"


RESUMED = """
import sys
from functools import partial
sys.path.insert(0, {tests!r})
from fake_engine import fake_engine
from gax_batch.runner import run
from gax_batch.runner.settings import load_settings
from gax_batch.system.messages import redirect_messages
run.load_engine = partial(fake_engine, log={log!r}, seconds=1.0)
with redirect_messages(print):
    run.run_survey(load_settings(None, {values!r}))
"""


def test_a_killed_run_goes_on_where_it_stopped(survey, tmp_path):
    """SIGKILL of the driver: finished units are not inferred again, and nothing is doubled."""
    log = tmp_path / "engine.log"
    values = {"input": str(survey / "images"), "catalog": str(survey / "catalog"), "unit_size": 6, "cpus": 2}
    code = RESUMED.format(tests=str(Path(__file__).parents[1]), log=str(log), values=values)
    process = subprocess.Popen(
        [sys.executable, "-c", code], start_new_session=True, stdout=subprocess.DEVNULL
    )
    parts = survey / "catalog" / "galaxies" / "parts"
    deadline = time.monotonic() + 90
    while len(list(parts.rglob("*.parquet"))) < 4 and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    stored = len(list(parts.rglob("*.parquet")))
    assert 4 <= stored < 10
    assert Catalog(str(survey / "catalog")).version is None
    time.sleep(3)  # the dead driver's workers notice, and may still finish what they hold
    stored = len(list(parts.rglob("*.parquet")))
    log.unlink()

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert [str(stored), "10"] in [re.findall(r"\d+", line) for line in done.stdout.splitlines()]
    assert len(log.read_text().splitlines()) == 10 - stored
    assert rows(survey)["galaxy_id"].to_pylist() == [f"{i:06d}" for i in range(60)]


def test_the_demo_simulates_catalogs_and_describes(shared_ray, fake, tmp_path, messages):
    values = {"input": str(tmp_path / "survey"), "catalog": str(tmp_path / "catalog")}
    assert run_demo(load_settings(None, values), 20) == 0
    assert any("20" in numbers_in(line, tmp_path) and "smooth" in line for line in messages)
    table = rows(tmp_path)
    assert table["galaxy_id"].to_pylist() == [f"sim-{i:08d}" for i in range(20)]
    assert table["ra"].null_count == table["dec"].null_count == 0


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"input": "nowhere"}, "nowhere"),
        ({"bundle": "no-bundle"}, "no-bundle"),
        ({"unit_size": 65_536, "object_store_mib": 10**9}, "--unit-size"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(survey, fake, flags, words):
    with pytest.raises(UsageError, match=words) as caught:
        catalog_run(survey, **flags)
    assert "\n" not in str(caught.value)
    assert not (survey / "catalog").exists()


def test_a_catalog_that_is_something_else_is_refused(survey, fake):
    (survey / "catalog").mkdir()
    (survey / "catalog" / "thesis.tex").write_text("please keep me")
    with pytest.raises(UsageError, match="catalog"):
        catalog_run(survey)
    assert [p.name for p in (survey / "catalog").iterdir()] == ["thesis.tex"]


def test_a_run_stores_sums_and_draws_and_stores_others_when_asked(shared_ray, survey, fake):
    outcome, _ = catalog_run(survey, population_bins="ood_score=0,0.3,1", population_order=1)
    assert outcome.exit_code == 0
    catalog = str(survey / "catalog")
    fractions = population(catalog, by="ood_score", question="t01")
    assert sum({row.bin: row.galaxies for row in fractions}.values()) == 60
    with pytest.raises(UsageError, match="--keep-draws"):
        read_draws(catalog, ["000001"])

    again, _ = catalog_run(survey, keep_draws=True)
    assert again.run_id is None
    outcome, lines = catalog_run(survey, keep_draws=True, redo_companions=True)
    assert any(numbers_in(line, survey).count("60") == 2 for line in lines)
    prob = np.stack([rows(survey)[f"{answer}_prob"].to_numpy() for answer in gz2.ANSWERS], axis=1)
    draws = read_draws(catalog, [f"{i:06d}" for i in range(60)])
    np.testing.assert_allclose(draws, known_draws(prob), atol=2**-12)
    again, _ = catalog_run(survey, keep_draws=True)
    assert (again.exit_code, again.run_id, again.version) == (0, None, outcome.version)
