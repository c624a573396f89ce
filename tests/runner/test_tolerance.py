"""What stops a run early: rejects, failures, too little memory, a listing that lacks the catalog."""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from astropy.io import fits
from fake_engine import FakeEngine, fake_engine
from fits_images import galaxy
from galaxy_images import write_images
from message_facts import numbers_in

from gax_batch.catalog.snapshots import Catalog
from gax_batch.cluster import pipeline
from gax_batch.cluster.progress import Sample
from gax_batch.cluster.unit import UnitOptions, UnitResult, UnitTask, infer, read, write
from gax_batch.errors import FatalError, GaxError, UsageError
from gax_batch.runner import preparation
from gax_batch.runner import run as run_module
from gax_batch.runner.run import RunOutcome, run_survey
from gax_batch.runner.settings import load_settings
from gax_batch.system.messages import redirect_messages


class Cluster:
    """Takes the place of Ray: processes units one after the other, in this process, and counts them."""

    def __init__(self, engine: Any = None) -> None:
        self.engine, self.cutouts = engine or FakeEngine(), 0

    def execute(
        self, tasks: Sequence[UnitTask], factory: object, options: UnitOptions, *_: object
    ) -> Iterator[UnitResult]:
        for task in tasks:
            self.cutouts += task.planned
            yield write(infer(read(task, options), self.engine, options), options)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    made = Cluster()
    monkeypatch.setattr(pipeline, "ray_session", lambda _: nullcontext(""))
    monkeypatch.setattr(pipeline, "execute", made.execute)
    monkeypatch.setattr("gax_batch.cluster.metrics.Metrics", lambda _: Publisher())
    monkeypatch.setattr(run_module, "load_engine", fake_engine)
    return made


class Publisher:
    """Publishes nothing."""

    def unit(self, result: UnitResult, state: object) -> None: ...

    def refresh(self, state: object) -> None: ...


def run(folder: Path, **flags: object) -> tuple[RunOutcome, list[str]]:
    lines: list[str] = []
    values = {"input": str(folder / "images"), "catalog": str(folder / "catalog"), "unit_size": 5, "cpus": 1}
    # What this machine has left is not what is tested here.
    with redirect_messages(lines.append):
        return run_survey(load_settings(None, values | {"precision": "float32"} | flags)), lines


@pytest.fixture(autouse=True)
def enough_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "available_bytes", lambda: 1 << 40)


def assert_recorded(folder: Path, error: GaxError) -> None:
    """Assert that the only run's record agrees with the error that ended it before its commit."""
    (path,) = (folder / "catalog" / "runs").rglob("run.json")
    found = json.loads(path.read_text())
    facts = [found[name] for name in ("status", "cause", "exit_code", "snapshot")]
    assert facts == ["failed", str(error), error.exit_code, None]


def write_grz(folder: Path, count: int) -> None:
    """FITS cutouts with the bands g, r and z: one file with this many names."""
    folder.mkdir()
    flux = galaxy()["g"]
    images = [fits.ImageHDU(flux, name=band) for band in "grz"]
    fits.HDUList([fits.PrimaryHDU(), *images]).writeto(folder / "000000.fits")
    for number in range(1, count):
        (folder / f"{number:06d}.fits").hardlink_to(folder / "000000.fits")


def assert_helps(error: UsageError, *facts: str) -> None:
    for fact in (*facts, "missing_band", "--max-rejects", "images/", ".fits", "legacy-grz"):
        assert fact in str(error)
    assert "\n" not in str(error)


def test_a_wrong_preset_stops_a_large_run_before_its_first_unit(cluster: Cluster, tmp_path: Path) -> None:
    write_grz(tmp_path / "images", 20_000)
    with pytest.raises(UsageError) as caught:
        run(tmp_path, unit_size=4_096)
    assert cluster.cutouts == 0
    assert_helps(caught.value, "64")
    assert Catalog(str(tmp_path / "catalog")).version is None
    assert_recorded(tmp_path, caught.value)


def test_many_rejects_stop_a_large_run_after_a_thousand_cutouts(cluster: Cluster, tmp_path: Path) -> None:
    write_grz(tmp_path / "images", 20_000)
    write_images(tmp_path / "good", 1)
    for number in range(0, 20_000, 2):
        (tmp_path / "images" / f"{number:06d}.fits").unlink()
        (tmp_path / "images" / f"{number:06d}.jpg").hardlink_to(tmp_path / "good" / "000000.jpg")
    with pytest.raises(UsageError) as caught:
        run(tmp_path, unit_size=250)
    assert cluster.cutouts == 1_000
    assert_helps(caught.value, "1,000", "500")
    assert Catalog(str(tmp_path / "catalog")).version is None
    assert_recorded(tmp_path, caught.value)
    # What is stored already is judged before anything starts.
    with pytest.raises(UsageError):
        run(tmp_path, unit_size=250)
    assert cluster.cutouts == 1_000


def test_a_survey_of_which_everything_is_rejected_is_not_committed(cluster: Cluster, tmp_path: Path) -> None:
    write_grz(tmp_path / "images", 4)
    with pytest.raises(UsageError, match="legacy-grz"):
        run(tmp_path)
    assert Catalog(str(tmp_path / "catalog")).version is None
    outcome, _ = run(tmp_path, max_rejects=1)
    assert outcome.exit_code == 0
    assert len(Catalog(str(tmp_path / "catalog")).rejects()) == 4


def test_a_bad_cutout_that_comes_to_a_catalog_is_committed(cluster: Cluster, tmp_path: Path) -> None:
    write_images(tmp_path / "images", 5)
    run(tmp_path)
    (tmp_path / "images" / "bad.jpg").write_bytes(b"no image")
    assert run(tmp_path)[0].exit_code == 0
    assert Catalog(str(tmp_path / "catalog")).rejects()["galaxy_id"].to_pylist() == ["bad"]


def test_nothing_is_committed_where_every_unit_fails(cluster: Cluster, tmp_path: Path) -> None:
    write_images(tmp_path / "images", 10)
    cluster.engine = FakeEngine(fail_on=5)
    with pytest.raises(FatalError, match="NaN") as caught:
        run(tmp_path)
    assert caught.value.exit_code == 4
    assert Catalog(str(tmp_path / "catalog")).version is None
    assert_recorded(tmp_path, caught.value)


def test_a_run_without_progress_is_given_up_and_its_record_says_so(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hang(*arguments: Any) -> Iterator[UnitResult]:
        on_sample = arguments[5]
        while True:
            on_sample(Sample())
            time.sleep(0.01)
        yield

    monkeypatch.setattr(pipeline, "execute", hang)
    write_images(tmp_path / "images", 5)
    with pytest.raises(FatalError, match="--give-up-minutes") as caught:
        run(tmp_path, give_up_minutes=0.001)
    assert caught.value.exit_code == 4
    assert_recorded(tmp_path, caught.value)


def test_parts_of_an_earlier_snapshot_are_not_said_to_be_of_an_interrupted_run_alone(
    cluster: Cluster, tmp_path: Path
) -> None:
    write_images(tmp_path / "images", 10)
    run(tmp_path)
    run(tmp_path, crop=0.5)
    _, lines = run(tmp_path)
    (line,) = [line for line in lines if numbers_in(line, tmp_path) == ["2", "2"]]
    assert "snapshot" in line


def test_too_little_memory_is_said_before_the_listing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "available_bytes", lambda: 1 << 20)
    monkeypatch.setattr(preparation, "open_source", lambda *_, **__: pytest.fail("it was listed"))
    write_images(tmp_path / "images", 1)
    with pytest.raises(UsageError, match="--unit-size"):
        run(tmp_path)


@pytest.mark.parametrize(
    ("left", "flags", "refused"),
    [
        (90, {}, False),
        (89, {}, True),
        (89, {"max_removed": "20%"}, False),
        (1, {"max_removed": 1}, False),
    ],
)
def test_pruning_much_of_a_catalog_is_refused(
    cluster: Cluster, tmp_path: Path, left: int, flags: dict[str, object], refused: bool
) -> None:
    write_images(tmp_path / "images", 100)
    run(tmp_path, unit_size=50)
    for number in range(left, 100):
        (tmp_path / "images" / f"{number:06d}.jpg").unlink()
    if refused:
        with pytest.raises(UsageError, match="--max-removed"):
            run(tmp_path, prune=True, **flags)
        left = 100
    else:
        run(tmp_path, prune=True, **flags)
    assert Catalog(str(tmp_path / "catalog")).galaxy_count() == left


def test_another_input_does_not_empty_a_small_catalog(cluster: Cluster, tmp_path: Path) -> None:
    write_images(tmp_path / "images", 5)
    run(tmp_path)
    write_images(tmp_path / "others", 5, first=50)
    with pytest.raises(UsageError, match="--max-removed"):
        run(tmp_path, prune=True, input=str(tmp_path / "others"))
    assert Catalog(str(tmp_path / "catalog")).galaxy_count() == 5
